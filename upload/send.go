package upload

import (
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize/english"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
)

// DefaultWorkers is the number of parts sent at the same time unless told otherwise.
const DefaultWorkers = 4

// mismatchTries is how often a part is sent whose ETag comes back wrong: damage on the way is
// rare, so more than this is no accident.
const mismatchTries = 3

// Config says where and how to send.
type Config struct {
	// Store is the bucket, one attempt per call: Send does the retrying.
	Store Bucket
	// Key names the object.
	Key string
	// Metadata is set when a new upload begins; a resumed upload keeps what it began with.
	Metadata Metadata
	// Workers is the number of parts sent at the same time; 0: begins with DefaultWorkers, and
	// becomes more while that brings more bytes a second. Either way it becomes less when the store
	// asks for it.
	Workers int
	// Limit, if not nil, is how many bytes a second all parts together may be sent at. Its burst is
	// the largest piece that is sent at once.
	Limit *rate.Limiter
	// Journal, if not nil, notes the parts that the store has. Resume is what it knew to begin with;
	// nil: nothing, so that unfinished uploads are looked for.
	Journal *Journal
	Resume  *Resume
	// JournalOnly resumes no upload that the journal does not know. It is for uploads that an earlier
	// run may have begun with other settings which can't be seen in what the store lists, such as
	// the encryption.
	JournalOnly bool
	// ResumeNone begins a new upload in any case. It is for a run beside another one of the same key on this
	// machine: if both sent into one upload, the end of the one would be the end of the other.
	ResumeNone bool
	// CreateOnly, if not nil, says just before the end whether an object that came up under the key
	// meanwhile must not be replaced. Stores that can't tell replace it all the same.
	CreateOnly func() bool
	// Buffers is the number of part buffers that the parts share, 0 if they take none. Up to
	// three parts are held back while looking for an upload to resume, but never more than this.
	Buffers int
	// Retry bounds how each request is repeated.
	Retry Policy
	// BeforeComplete, if not nil, is called when every part is stored. Its error ends the upload
	// without an object.
	BeforeComplete func(context.Context) error
	// Keep, if not nil, says of a failure that is not the store's whether it may pass, as when the place that
	// the parts are read from can't be reached: the upload is then kept.
	Keep func(error) bool
	// AbortOnInterrupt aborts the upload after an interrupt instead of keeping it.
	AbortOnInterrupt bool
	// Notice, if not nil, is told one sentence about each thing that a user may want to know and
	// that is no failure. Its calls do not overlap.
	Notice func(string)
	// Progress, if not nil, counts along.
	Progress *Progress
}

// Result says what became of an upload; after a failure, as far as it got.
type Result struct {
	Key, UploadID string
	// ETag is the object's, as the store has it.
	ETag string
	// Parts is the number of parts that the store has.
	Parts int
	// Size is the size of all parts; Sent, Skipped and Copied are what of it was sent now, what the
	// store already had, and what it made itself, of zeros. Bytes.
	Size, Sent, Skipped, Copied int64
	// Stored is the parts that the object was made of, in order; nil while it is not whole.
	Stored []StoredPart
	// Metadata is what the object says of itself. A resumed upload has what it began with, which may be
	// another disk's.
	Metadata Metadata
	// Resumed says that an unfinished upload of an earlier run was continued.
	Resumed bool
	// Unverified says that the store's ETags are not MD5s, as with some kinds of server-side
	// encryption: then only the size of the object has been compared.
	Unverified bool
}

// ErrMismatch says that the store holds other bytes than those that were sent.
var ErrMismatch = errors.New("the store holds other bytes than were sent")

// UnfinishedError says that an upload ended early and was kept, so that the same call can resume
// it: after an interrupt, when the store or the network failed for too long, or when the login expired
// (ErrExpired).
type UnfinishedError struct {
	Key, UploadID string
	// PartsDone is the number of parts that the store has acknowledged.
	PartsDone int
	// Completing says that the store was asked to complete it, and gave no clear answer: it may have.
	Completing bool
	// Err is what ended the run; errors.Is(Err, ErrInterrupted) after an interrupt.
	Err error
}

// Error returns one sentence.
func (e *UnfinishedError) Error() string {
	unless := ""
	if e.Completing {
		unless = " unless the store has just completed it"
	}
	return fmt.Sprintf("the upload of %s is unfinished%s, with %s stored (upload id %s): %v", e.Key, unless, partsOf(e.PartsDone), e.UploadID, e.Err)
}

// partsOf counts parts in words.
func partsOf(n int) string { return english.Plural(n, "part", "") }

// Unwrap returns what ended the run.
func (e *UnfinishedError) Unwrap() error { return e.Err }

// AbortError says that an upload failed and that it could not be aborted either: its parts still
// take space in the bucket.
type AbortError struct {
	Key, UploadID string
	// Err is why the upload failed, Abort why the clean-up did.
	Err, Abort error
}

// Error returns one sentence.
func (e *AbortError) Error() string {
	return fmt.Sprintf("%v; its unfinished upload of %s is left behind (upload id %s): %v", e.Err, e.Key, e.UploadID, e.Abort)
}

// Unwrap returns both failures.
func (e *AbortError) Unwrap() []error { return []error{e.Err, e.Abort} }

// Send makes an object of the parts: it begins an upload with the first of them, or resumes an
// unfinished one of the same key that holds the same first parts, sends the parts that the store
// has not got, several at a time, compares each returned ETag with the part's MD5, completes the
// upload, and compares the object's size and ETag with its own.
//
// If ctx ends with the cause ErrInterrupted, if the store fails temporarily for longer than
// Config.Retry allows, or if it answers with ErrExpired, the upload is kept and the error is
// *UnfinishedError, provided that the store has one of the first parts: without one nothing could be
// resumed. So it is where Config.Keep says so. After any other failure (ctx ends otherwise, parts yields
// an error, BeforeComplete refuses, the store refuses for good) the upload is aborted; if that fails too,
// the error is *AbortError.
//
// Send returns when all its goroutines have, and every part it took was released.
func Send(ctx context.Context, c Config, parts Sequence) (Result, error) {
	s := newSender(c)
	err := s.run(ctx, parts)
	if err != nil {
		err = s.cleanUp(ctx, err)
	}
	if s.Journal != nil && s.ended {
		if failed := s.Journal.Remove(); failed != nil {
			s.tell(fmt.Sprintf("The journal of the upload could not be removed: %v.", failed))
		}
	}
	return s.result(), err
}

// sender is one Send. Its upload fields are set before a worker starts to use them.
type sender struct {
	Config
	store      Bucket // Config.Store with retries
	policy     Policy
	known      map[string]bool // ids of the key's unfinished uploads at the start; nil: not listed
	uploadID   string
	resumed    bool
	completing bool               // the store was asked to make the object, and gave no clear answer
	stored     map[int]StoredPart // the parts that the resumed upload already had
	ended      bool               // the upload is no more: nothing to keep or abort

	unverified atomic.Bool
	mu         sync.Mutex
	done       map[int]donePart
	parts      int // yielded by the sequence
	size       int64
	sent       int64
	skipped    int64
	copied     int64
	etag       string
	whole      []StoredPart // what the object is made of, once it is
	says       Metadata     // of itself, then

	gate  *gate
	zeros *zeroObjects
	told  sync.Map // sentences that were told, each once
}

type donePart struct {
	StoredPart
	sum [md5.Size]byte
}

func newSender(c Config) *sender {
	most := MaxParts // of parts at once that make sense
	if c.Buffers > 0 {
		most = c.Buffers
	}
	g := newGate(max(0, c.Workers), most)
	c.Workers = g.max
	if c.Notice == nil {
		c.Notice = func(string) {}
	}
	if c.Progress == nil {
		c.Progress = new(Progress)
	}
	s := &sender{Config: c, done: make(map[int]donePart), gate: g}
	s.policy = c.Retry.withDefaults()
	told := s.policy.OnRetry
	s.policy.OnRetry = func(op string, try int, err error, wait time.Duration) {
		c.Progress.retries.Add(1)
		g.failed(err)
		if told != nil {
			told(op, try, err, wait)
		}
	}
	s.store = WithRetry(c.Store, s.policy)
	copier, _ := c.Store.(Copier)
	s.zeros = &zeroObjects{bucket: c.Store, store: s.store, copier: copier, policy: s.policy}
	if c.Resume != nil {
		s.uploadID, s.stored, s.resumed = c.Resume.UploadID, c.Resume.stored, true
	}
	return s
}

func (s *sender) run(ctx context.Context, parts Sequence) error {
	if err := s.sendParts(ctx, parts); err != nil {
		return whyEnded(ctx, err)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if s.BeforeComplete != nil {
		if err := s.BeforeComplete(ctx); err != nil {
			return whyEnded(ctx, err)
		}
	}
	return whyEnded(ctx, s.finish(ctx))
}

// whyEnded turns an error that only says that ctx ended into the reason.
func whyEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return context.Cause(ctx)
	}
	return err
}

// sendParts brings every part into the store.
func (s *sender) sendParts(ctx context.Context, parts Sequence) error {
	g, ctx := errgroup.WithContext(ctx)
	q := queues{make(chan *job), make(chan *job, MaxParts)}
	g.Go(func() error {
		defer q.close()
		return s.dispatch(ctx, parts, q)
	})
	work := func(queue <-chan *job, bring func(context.Context, *job) error) func() error {
		return func() error {
			for j := range queue {
				if err := bring(ctx, j); err != nil {
					return err
				}
			}
			return nil
		}
	}
	for range s.Workers {
		g.Go(work(q.send, s.pass))
	}
	for range min(s.Workers, copiers) {
		g.Go(work(q.copy, s.copyOrPass))
	}
	err := g.Wait()
	for j := range q.copy {
		j.release()
	}
	return err
}

// queues are where parts wait for who brings them into the store. Those of zeros have one of their own, long
// enough for all: the link must not stand still while the store copies.
type queues struct{ send, copy chan *job }

func (q queues) of(j *job) chan<- *job {
	if j.Zeros {
		return q.copy
	}
	return q.send
}

func (q queues) close() {
	close(q.send)
	close(q.copy)
}

// dispatch hands the parts to the workers once it knows into which upload they go.
func (s *sender) dispatch(ctx context.Context, parts Sequence, q queues) error {
	var head []*job // not handed out yet
	defer func() {
		for _, j := range head {
			j.release()
		}
	}()
	flush := func() error {
		for len(head) > 0 {
			j := head[0]
			if !j.Zeros {
				// Here, and not in the workers, so that parts go out in their order: the first ones tell
				// a later run whose upload it is, and each that waits holds a buffer.
				if err := s.gate.enter(ctx); err != nil {
					return err
				}
			}
			select {
			case q.of(j) <- j:
				head = head[1:]
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	}

	var candidates []Unfinished
	for part, err := range parts(ctx) {
		if err != nil {
			return err
		}
		head = append(head, newJob(part))
		s.parts++
		s.size += part.Size
		if part.Number != s.parts {
			return fmt.Errorf("part %d was produced in the place of part %d", part.Number, s.parts)
		}
		if s.parts == 1 && s.uploadID == "" {
			if candidates, err = s.candidates(ctx); err != nil {
				return err
			}
		}
		if s.uploadID == "" {
			if len(candidates) > 0 && len(head) < s.headLength() {
				continue
			}
			if err := s.open(ctx, head, candidates); err != nil {
				return err
			}
		}
		if err := flush(); err != nil {
			return err
		}
	}
	if s.parts == 0 {
		return errors.New("there is nothing to upload")
	}
	if s.uploadID == "" {
		if err := s.open(ctx, head, candidates); err != nil {
			return err
		}
	}
	return flush()
}

// pass brings one part into the store whose turn has come.
func (s *sender) pass(ctx context.Context, j *job) error {
	defer j.release()
	sent, err := s.put(ctx, j)
	s.gate.leave(sent)
	return err
}

// copyOrPass has the store make a part of zeros, which takes no turn, and passes it only where that fails.
func (s *sender) copyOrPass(ctx context.Context, j *job) error {
	done, err := s.has(j)
	if err == nil && !done {
		done, err = s.copyZeros(ctx, j)
	}
	if !done && err == nil {
		err = s.gate.enter(ctx)
	}
	if done || err != nil {
		j.release()
		return err
	}
	return s.pass(ctx, j)
}

// has reports whether the part is there already, and notes it then.
func (s *sender) has(j *job) (same bool, err error) {
	if have, ok := s.stored[j.Number]; ok {
		same = j.Known != nil && j.Known.matches(have)
		if !same && j.Known == nil {
			if same, err = j.is(have); err != nil {
				return false, err
			}
		}
		if same {
			s.Progress.skipped.Add(j.Size)
			s.note(j, have.ETag, *j.sum, &s.skipped)
			return true, nil
		}
	}
	if j.Known != nil {
		return false, fmt.Errorf("%w: the store has no part %d as it says", ErrJournal, j.Number)
	}
	return false, nil
}

// put brings one part into the store, unless it is there already, and returns how many bytes it sent.
func (s *sender) put(ctx context.Context, j *job) (sent int64, err error) {
	if done, err := s.has(j); done || err != nil {
		return 0, err
	}
	if j.Buffered || s.opaque() {
		if err := j.hash(); err != nil {
			return 0, err
		}
	}
	etag, sum, err := s.putBody(ctx, j)
	if err != nil {
		return 0, err
	}
	s.note(j, etag, sum, &s.sent)
	return j.Size, nil
}

// putBody sends a part until the store's ETag is its MD5. Where ETags are none, the store must have compared
// what it got with the MD5 itself.
func (s *sender) putBody(ctx context.Context, j *job) (etag string, sum [md5.Size]byte, err error) {
	for try := 1; ; try++ {
		body := newSentBody(ctx, j, s.Progress, s.Limit)
		if err := j.rewind(); err != nil {
			return "", sum, err
		}
		etag, err := s.store.PutPart(ctx, s.Key, s.uploadID, j.Number, body, j.Size, j.sum)
		if err != nil {
			body.count(0)
			return "", sum, err
		}
		if j.sum != nil {
			sum = *j.sum
		} else {
			sum = [md5.Size]byte(body.md5.Sum(nil))
		}
		wrong := disproves(etag, hexSum(sum), s.opaque())
		if !wrong && (etag == hexSum(sum) || j.sum != nil) {
			body.count(j.Size)
			return etag, sum, nil
		}
		body.count(0)
		if !wrong {
			j.sum = &sum // which it did not know
			continue
		}
		if try == mismatchTries {
			return "", sum, fmt.Errorf("part %d has the ETag %s instead of %s after %d tries: %w", j.Number, etag, hexSum(sum), try, ErrMismatch)
		}
		s.Progress.retries.Add(1)
	}
}

// copyTries is how often the store is asked to copy zeros from an object that is not what it was.
const copyTries = 2

// copyZeros has the store make a part of zeros by itself. done is false where it can't: the part is then
// sent.
func (s *sender) copyZeros(ctx context.Context, j *job) (done bool, err error) {
	for try := 1; ; try++ {
		from, err := s.zeros.get(ctx, j.Size)
		var etag string
		if err == nil {
			etag, err = copyPart(ctx, s.zeros.copier, s.policy, s.Key, s.uploadID, j.Number, from, 0, j.Size)
		}
		switch {
		case err == nil && !disproves(etag, hexSum(*j.sum), from.Opaque || s.opaque()):
			s.Progress.copied.Add(j.Size)
			s.note(j, etag, *j.sum, &s.copied)
			return true, nil
		case err == nil:
			err = fmt.Errorf("the object %s is not all zeros", from.Key)
		case ctx.Err() != nil, Temporary(err) && !answered(err), errors.Is(err, ErrNoUpload):
			return false, whyEnded(ctx, err)
		case try < copyTries && (errors.Is(err, ErrNoObject) || errors.Is(err, ErrReplaced)):
			s.zeros.forget() // somebody removed it, or made it anew
			continue
		}
		if !errors.Is(err, errGivenUp) && s.zeros.giveUp(err) {
			s.tell(fmt.Sprintf("Zeros are sent, since they can't be copied on the server: %v.", err))
		}
		return false, nil
	}
}

// answered reports whether the store itself said that it failed. One that keeps failing to copy may well take
// what is sent.
func answered(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status != 0
}

// tell gives a notice from one of the workers, each sentence once.
func (s *sender) tell(sentence string) {
	if _, told := s.told.LoadOrStore(sentence, true); told {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Notice(sentence)
}

// note records a part that the store has.
func (s *sender) note(j *job, etag string, sum [md5.Size]byte, bytes *int64) {
	if etag != hexSum(sum) {
		s.unproven()
	}
	s.Progress.parts.Add(1)
	s.mu.Lock()
	*bytes += j.Size
	s.done[j.Number] = donePart{StoredPart{Number: j.Number, Size: j.Size, ETag: etag}, sum}
	s.mu.Unlock()
	if s.Journal != nil && j.Known == nil {
		s.noted(s.Journal.add(JournalPart{Number: j.Number, Level: j.Level, Size: j.Size, MD5: sum, ETag: etag, Chunks: j.Chunks}))
	}
}

// noted tells of the journal's failure, if there was one: the upload goes on without.
func (s *sender) noted(err error) {
	if err != nil {
		s.tell(fmt.Sprintf("Nothing more is noted in the journal, so a later run encodes everything again: %v.", err))
	}
}

// finish makes the object and proves it.
func (s *sender) finish(ctx context.Context) error {
	parts := make([]StoredPart, s.parts)
	sums := make([][md5.Size]byte, s.parts)
	for i := range parts {
		p := s.done[i+1]
		parts[i], sums[i] = p.StoredPart, p.sum
	}
	want := compositeETag(sums)

	etag, failed := s.complete(ctx, parts, want)
	s.completing = failed != nil && undecided(failed)
	if failed != nil && (ctx.Err() != nil || !errors.Is(failed, ErrNoUpload) && !errors.Is(failed, ErrReplaced) && !undecided(failed)) {
		return failed
	}
	// Without a clear answer the upload may have become the object all the same, by this call or
	// by an earlier try of it. The object itself tells.
	s.ended = failed == nil
	object, err := s.store.Stat(ctx, s.Key)
	switch {
	case err != nil && failed != nil:
		return failed
	case err != nil:
		return fmt.Errorf("the upload of %s is complete, but the object cannot be checked: %w", s.Key, err)
	case object.Size == s.size && object.ETag == want:
		if failed != nil {
			s.dropCompleted(ctx)
		}
		s.ended = true
		s.etag, s.whole, s.says = object.ETag, parts, object.Metadata
		return nil
	case failed != nil:
		return failed
	case etag == want && !object.Opaque: // it was right when it was made
		return fmt.Errorf("object %s has the ETag %s instead of %s: %w; %w", s.Key, object.ETag, want, ErrMismatch, ErrReplaced)
	case object.Size != s.size:
		return fmt.Errorf("object %s has %d bytes instead of %d: %w", s.Key, object.Size, s.size, ErrMismatch)
	case !object.Opaque && !s.unverified.Load():
		return fmt.Errorf("object %s has the ETag %s instead of %s: %w", s.Key, object.ETag, want, ErrMismatch)
	}
	s.unproven()
	s.etag, s.whole, s.says = object.ETag, parts, object.Metadata
	return nil
}

// Creator is a Bucket whose Complete can leave an object alone that is there already.
type Creator interface {
	// CompleteNew is Complete, but fails with ErrReplaced if there is an object of that key. One attempt.
	CompleteNew(ctx context.Context, key, uploadID string, parts []StoredPart) (etag string, err error)
}

// complete makes the object, in the place of another one only if that is allowed, as far as the store can
// tell. The ETag is that of the store's answer, if it gave one; want is what it should be.
func (s *sender) complete(ctx context.Context, parts []StoredPart, want string) (etag string, err error) {
	if c, ok := s.Store.(Creator); ok && s.CreateOnly != nil && s.CreateOnly() {
		etag, err := s.repeat(ctx, c.CompleteNew, parts, want)
		if !refusesCondition(err) {
			return etag, err
		}
	}
	return s.repeat(ctx, s.Store.Complete, parts, want)
}

// errThere: there is no need to complete the upload, since the object is there already.
var errThere = errors.New("the object is there already")

// repeat calls complete until it has a clear answer. A store may have carried out a try that failed, or
// another run's, and answer all later ones with a failure: so the object is looked up before each.
func (s *sender) repeat(ctx context.Context, complete func(ctx context.Context, key, uploadID string, parts []StoredPart) (string, error), parts []StoredPart, want string) (string, error) {
	again := false
	return retryFor(ctx, s.policy.working(), "complete the upload of "+s.Key, func(ctx context.Context) (string, error) {
		if again {
			switch o, err := s.Store.Stat(ctx, s.Key); {
			case err == nil && o.Size == s.size && o.ETag == want:
				return "", errThere
			case Temporary(err):
				return "", err
			}
		}
		again = true
		return complete(ctx, s.Key, s.uploadID, parts)
	})
}

// refusesCondition reports the answers of a store that does not know the condition: it then did nothing.
func refusesCondition(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Status == http.StatusNotImplemented || e.Code == "NotImplemented" || e.Code == "InvalidArgument" || e.Code == "InvalidRequest")
}

// dropCompleted makes sure that no upload is left where the object is right although Complete
// failed: the object may have been there before.
func (s *sender) dropCompleted(ctx context.Context) {
	if err := abort(ctx, s.store, s.Key, s.uploadID, abortTime); err != nil {
		s.Notice(fmt.Sprintf("The object is complete, but the unfinished upload %s may be left behind: %v.", s.uploadID, err))
	}
}

// undecided reports whether a request that failed with err may have been carried out: it got no
// answer, or one that does not say. A refusal (4xx) is clear.
func undecided(err error) bool {
	var e *Error
	return !errors.As(err, &e) || e.Status < 400 || e.Status >= 500
}

// cleanUp keeps or aborts the upload after err ended the run, and returns the error to report.
func (s *sender) cleanUp(ctx context.Context, err error) error {
	if s.uploadID == "" || s.ended {
		return err
	}
	if errors.Is(err, ErrJournal) {
		// The caller goes on without the journal, and finds by content what the store has.
		s.Progress.sent.Add(-s.sent)
		s.Progress.skipped.Add(-s.skipped)
		s.Progress.copied.Add(-s.copied)
		s.Progress.parts.Add(-int64(len(s.done)))
		return err
	}
	if s.keeps(err) && s.resumable() {
		return &UnfinishedError{Key: s.Key, UploadID: s.uploadID, PartsDone: s.partsStored(), Completing: s.completing, Err: err}
	}
	limit := abortLimit(err)
	if s.AbortOnInterrupt {
		limit = abortTime
	}
	if failed := abort(ctx, s.store, s.Key, s.uploadID, limit); failed != nil {
		if errors.Is(failed, ErrExpired) && wordless(err) && s.resumable() {
			return &UnfinishedError{Key: s.Key, UploadID: s.uploadID, PartsDone: s.partsStored(), Err: fmt.Errorf("%w: %w", ErrExpired, err)}
		}
		return &AbortError{Key: s.Key, UploadID: s.uploadID, Err: err, Abort: failed}
	}
	s.ended = true
	return err
}

// keeps reports whether the upload is left as it is after err: a later run may do better.
func (s *sender) keeps(err error) bool {
	if errors.Is(err, ErrInterrupted) {
		return !s.AbortOnInterrupt
	}
	return Temporary(err) || errors.Is(err, ErrExpired) || s.Keep != nil && s.Keep(err)
}

// wordless reports a refusal that does not say why, as the answers to HEAD do.
func wordless(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == http.StatusBadRequest && e.Code == ""
}

// partsStored returns how many parts the store has, also of those that this run did not come to.
func (s *sender) partsStored() int {
	n := len(s.done)
	for number := range s.stored {
		if _, ok := s.done[number]; !ok {
			n++
		}
	}
	return n
}

// resumable reports whether a later run will know the upload for its own: by the journal, or by one of
// the first parts that the store has. Otherwise it would be left alone, and stay for ever.
func (s *sender) resumable() bool {
	switch {
	case s.resumed, s.Journal.knows(s.uploadID):
		return true
	case s.JournalOnly, s.unverified.Load():
		return false // what the store lists tells nothing
	}
	for n := 1; n <= s.headLength(); n++ {
		if _, ok := s.done[n]; ok {
			return true
		}
	}
	return false
}

func (s *sender) result() Result {
	return Result{
		Key:        s.Key,
		UploadID:   s.uploadID,
		ETag:       s.etag,
		Parts:      len(s.done),
		Size:       s.size,
		Sent:       s.sent,
		Skipped:    s.skipped,
		Copied:     s.copied,
		Stored:     s.whole,
		Metadata:   s.says,
		Resumed:    s.resumed,
		Unverified: s.unverified.Load(),
	}
}
