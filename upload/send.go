package upload

import (
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// DefaultWorkers is the number of parts sent at the same time unless told otherwise.
const DefaultWorkers = 4

// mismatchTries is how often a part is sent whose ETag comes back wrong: damage on the way is
// rare, so more than this is no accident.
const mismatchTries = 3

// abortTime bounds the clean-up after a failure.
const abortTime = 10 * time.Second

// Config says where and how to send.
type Config struct {
	// Store is the bucket, one attempt per call: Send does the retrying.
	Store Bucket
	// Key names the object.
	Key string
	// Metadata is set when a new upload begins; a resumed upload keeps what it began with.
	Metadata Metadata
	// Workers is the number of parts sent at the same time. Default DefaultWorkers.
	Workers int
	// Buffers is the number of part buffers that the parts share, 0 if they take none. Up to
	// three parts are held back while looking for an upload to resume, but never more than this.
	Buffers int
	// Retry bounds how each request is repeated.
	Retry Policy
	// BeforeComplete, if not nil, is called when every part is stored. Its error ends the upload
	// without an object.
	BeforeComplete func(context.Context) error
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
	// Size is the size of all parts; Sent and Skipped are what of it was sent now and what the
	// store already had. Bytes.
	Size, Sent, Skipped int64
	// Resumed says that an unfinished upload of an earlier run was continued.
	Resumed bool
	// Unverified says that the store's ETags are not MD5s, as with some kinds of server-side
	// encryption: then only the size of the object has been compared.
	Unverified bool
}

// ErrMismatch says that the store holds other bytes than those that were sent.
var ErrMismatch = errors.New("the store holds other bytes than were sent")

// UnfinishedError says that an upload ended early and was kept, so that the same call can resume
// it: after an interrupt, or when the store or the network failed for too long.
type UnfinishedError struct {
	Key, UploadID string
	// PartsDone is the number of parts that the store has acknowledged.
	PartsDone int
	// Err is what ended the run; errors.Is(Err, ErrInterrupted) after an interrupt.
	Err error
}

// Error returns one sentence.
func (e *UnfinishedError) Error() string {
	parts := "parts"
	if e.PartsDone == 1 {
		parts = "part"
	}
	return fmt.Sprintf("the upload of %s is unfinished, with %d %s stored (upload id %s): %v", e.Key, e.PartsDone, parts, e.UploadID, e.Err)
}

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
// If ctx ends with the cause ErrInterrupted, or if the store fails temporarily for longer than
// Config.Retry allows, the upload is kept and the error is *UnfinishedError, provided that the
// store has one of the first parts: without one nothing could be resumed. After any other failure
// (ctx ends otherwise, parts yields an error, BeforeComplete refuses, the store refuses for good)
// the upload is aborted; if that fails too, the error is *AbortError.
//
// Send returns when all its goroutines have, and every part it took was released.
func Send(ctx context.Context, c Config, parts Sequence) (Result, error) {
	s := newSender(c)
	err := s.run(ctx, parts)
	if err != nil {
		err = s.cleanUp(ctx, err)
	}
	return s.result(), err
}

// sender is one Send. Its upload fields are set before a worker starts to use them.
type sender struct {
	Config
	store    Bucket // Config.Store with retries
	policy   Policy
	known    map[string]bool // ids of the key's unfinished uploads at the start; nil: not listed
	uploadID string
	resumed  bool
	stored   map[int]StoredPart // the parts that the resumed upload already had
	ended    bool               // the upload is no more: nothing to keep or abort

	unverified atomic.Bool
	mu         sync.Mutex
	done       map[int]donePart
	parts      int // yielded by the sequence
	size       int64
	sent       int64
	skipped    int64
	etag       string
}

type donePart struct {
	StoredPart
	sum [md5.Size]byte
}

func newSender(c Config) *sender {
	if c.Workers <= 0 {
		c.Workers = DefaultWorkers
	}
	if c.Notice == nil {
		c.Notice = func(string) {}
	}
	if c.Progress == nil {
		c.Progress = new(Progress)
	}
	s := &sender{Config: c, done: make(map[int]donePart)}
	s.policy = c.Retry.withDefaults()
	told := s.policy.OnRetry
	s.policy.OnRetry = func(op string, try int, err error, wait time.Duration) {
		c.Progress.retries.Add(1)
		if told != nil {
			told(op, try, err, wait)
		}
	}
	s.store = WithRetry(c.Store, s.policy)
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
	queue := make(chan *job)
	g.Go(func() error {
		defer close(queue)
		return s.dispatch(ctx, parts, queue)
	})
	for range s.Workers {
		g.Go(func() error {
			for j := range queue {
				if err := s.put(ctx, j); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// dispatch hands the parts to the workers once it knows into which upload they go.
func (s *sender) dispatch(ctx context.Context, parts Sequence, queue chan<- *job) error {
	var head []*job // not handed out yet
	defer func() {
		for _, j := range head {
			j.release()
		}
	}()
	flush := func() error {
		for len(head) > 0 {
			select {
			case queue <- head[0]:
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
		head = append(head, &job{Part: part})
		s.parts++
		s.size += part.Size
		if part.Number != s.parts {
			return fmt.Errorf("part %d was produced in the place of part %d", part.Number, s.parts)
		}
		if s.parts == 1 {
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

// put brings one part into the store, unless it is there already.
func (s *sender) put(ctx context.Context, j *job) error {
	defer j.release()
	if have, ok := s.stored[j.Number]; ok {
		same, err := j.is(have)
		if err != nil {
			return err
		}
		if same {
			s.Progress.skipped.Add(j.Size)
			s.note(j, have.ETag, *j.sum, &s.skipped)
			return nil
		}
	}
	if j.Buffered {
		if err := j.hash(); err != nil {
			return err
		}
	}
	for try := 1; ; try++ {
		body := newSentBody(j, s.Progress)
		if err := j.rewind(); err != nil {
			return err
		}
		etag, err := s.store.PutPart(ctx, s.Key, s.uploadID, j.Number, body, j.Size, j.sum)
		if err != nil {
			body.count(0)
			return err
		}
		sum := j.sum
		if sum == nil {
			sum = (*[md5.Size]byte)(body.md5.Sum(nil))
		}
		switch {
		case !isMD5(etag):
			s.unverified.Store(true)
		case etag != hexSum(*sum):
			body.count(0)
			if try == mismatchTries {
				return fmt.Errorf("part %d has the ETag %s instead of %s after %d tries: %w", j.Number, etag, hexSum(*sum), try, ErrMismatch)
			}
			s.Progress.retries.Add(1)
			continue
		}
		body.count(j.Size)
		s.note(j, etag, *sum, &s.sent)
		return nil
	}
}

// note records a part that the store has.
func (s *sender) note(j *job, etag string, sum [md5.Size]byte, bytes *int64) {
	s.Progress.parts.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	*bytes += j.Size
	s.done[j.Number] = donePart{StoredPart{Number: j.Number, Size: j.Size, ETag: etag}, sum}
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

	_, failed := s.store.Complete(ctx, s.Key, s.uploadID, parts)
	if failed != nil && (ctx.Err() != nil || !errors.Is(failed, ErrNoUpload) && !undecided(failed)) {
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
		s.etag = object.ETag
		return nil
	case failed != nil:
		return failed
	case object.Size != s.size:
		return fmt.Errorf("object %s has %d bytes instead of %d: %w", s.Key, object.Size, s.size, ErrMismatch)
	case !s.unverified.Load():
		return fmt.Errorf("object %s has the ETag %s instead of %s: %w", s.Key, object.ETag, want, ErrMismatch)
	}
	s.etag = object.ETag
	return nil
}

// dropCompleted makes sure that no upload is left where the object is right although Complete
// failed: the object may have been there before.
func (s *sender) dropCompleted(ctx context.Context) {
	if err := s.abort(ctx, s.uploadID, abortTime); err != nil {
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
	interrupted := errors.Is(err, ErrInterrupted)
	keep := Temporary(err)
	if interrupted {
		keep = !s.AbortOnInterrupt
	}
	if keep && s.resumable() {
		return &UnfinishedError{Key: s.Key, UploadID: s.uploadID, PartsDone: len(s.done), Err: err}
	}
	limit := abortTime
	if interrupted && !s.AbortOnInterrupt {
		limit = lostTime // the user waits for the program to stop
	}
	if failed := s.abort(ctx, s.uploadID, limit); failed != nil {
		return &AbortError{Key: s.Key, UploadID: s.uploadID, Err: err, Abort: failed}
	}
	return err
}

// resumable reports whether the store has one of the parts by which a later run knows the upload
// for its own. Without one it would be left alone, and stay for ever.
func (s *sender) resumable() bool {
	if s.resumed {
		return true // it was known by one of them
	}
	for n := 1; n <= s.headLength(); n++ {
		if _, ok := s.done[n]; ok {
			return true
		}
	}
	return false
}

// abort ends an upload even though ctx may have ended.
func (s *sender) abort(ctx context.Context, uploadID string, limit time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), limit, fmt.Errorf("it could not be aborted within %v", limit))
	defer cancel()
	return s.store.Abort(ctx, s.Key, uploadID)
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
		Resumed:    s.resumed,
		Unverified: s.unverified.Load(),
	}
}
