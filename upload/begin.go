package upload

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dustin/go-humanize/english"
)

// HeadParts is how many parts at most decide whether an unfinished upload is ours.
const HeadParts = 3

// maxCandidates bounds how many unfinished uploads of one key are looked into, since each costs
// requests; older ones are left alone.
const maxCandidates = 32

// abortTime bounds the clean-up after a failure, and lostTime that after an interrupt, when the user is waiting
// for the program to stop.
const (
	abortTime = 10 * time.Second
	lostTime  = time.Second
)

func (s *sender) headLength() int {
	if s.Buffers > 0 {
		return min(HeadParts, s.Buffers)
	}
	return HeadParts
}

// candidates lists the unfinished uploads of exactly our key, newest first. Not being allowed to
// list them, or a store that cannot, is no reason to fail: nothing is resumed then.
func (s *sender) candidates(ctx context.Context) ([]Unfinished, error) {
	found, err := uploadsOf(ctx, s.store, s.Key)
	if err != nil {
		if ctx.Err() != nil || Temporary(err) || errors.Is(err, ErrNoBucket) {
			return nil, err
		}
		s.Notice(fmt.Sprintf("Unfinished uploads cannot be listed, so none is resumed: %v.", err))
		return nil, nil
	}
	s.known = idsOf(found)
	if s.ResumeNone {
		return nil, nil
	}
	if s.JournalOnly {
		if len(found) > 0 {
			s.Notice(fmt.Sprintf("%s left alone: only a journal tells how an upload was begun.",
				english.Plural(len(found), "unfinished upload of the same key is", "unfinished uploads of the same key are")))
		}
		return nil, nil
	}
	return found[:min(len(found), maxCandidates)], nil
}

// open decides into which upload the parts go: the newest candidate that holds our first parts, or
// one without any part, which a run left that was killed early, or a new one.
func (s *sender) open(ctx context.Context, head []*job, candidates []Unfinished) error {
	empty := ""
	for _, u := range candidates {
		stored, err := s.store.Parts(ctx, s.Key, u.UploadID)
		switch {
		case errors.Is(err, ErrNoUpload):
			continue // ended in the meantime
		case err != nil && (ctx.Err() != nil || Temporary(err)):
			return err
		case err != nil:
			s.Notice(fmt.Sprintf("The unfinished upload %s is left alone: %v.", u.UploadID, err))
			continue
		}
		byNumber := make(map[int]StoredPart, len(stored))
		for _, p := range stored {
			byNumber[p.Number] = p
		}
		ours, err := holds(byNumber, head)
		if err != nil {
			return err
		}
		if ours {
			s.enter(u.UploadID)
			s.stored, s.resumed = byNumber, true
			s.Notice(fmt.Sprintf("The unfinished upload of %s is resumed: the store has %s.",
				u.Initiated.UTC().Format(time.DateTime), partsOf(len(stored))))
			return nil
		}
		if len(stored) == 0 {
			if empty == "" {
				empty = u.UploadID
			}
			continue
		}
		s.Notice(fmt.Sprintf("The unfinished upload %s of the same key, with %s, has none of this disk's first parts and is left alone.",
			u.UploadID, partsOf(len(stored))))
	}
	if empty != "" {
		_, err := s.store.Stat(ctx, s.Key)
		switch {
		case errors.Is(err, ErrNoObject):
			// Should another run have begun it just now, then both send the same disk into it, or one of
			// them is refused at the end: Complete names the ETag of every part.
			s.enter(empty)
			s.Notice("An unfinished upload of the same key, which has no parts, is used.")
			return nil
		case err != nil && (ctx.Err() != nil || Temporary(err)):
			return err
		}
		// SetMetadata may have begun it for the object, with what is true of that one.
		s.Notice(fmt.Sprintf("The unfinished upload %s of the same key, which has no parts, is left alone: it may belong to the object that is there.", empty))
	}
	return s.begin(ctx)
}

// Recall looks for an unfinished upload of key to resume (Config.Resume) where parts can't be compared one by
// one as they are made, newest first. match is asked, for each that has parts, which of them are ours; they
// need no order, and none at all means that the upload is somebody else's. nil: there is none. The error is
// match's, or that of a store that fails temporarily; one that does not list its uploads has none.
func Recall(ctx context.Context, b Bucket, p Policy, key string, match func(stored map[int]StoredPart) ([]JournalPart, error)) (*Resume, error) {
	b = WithRetry(b, p)
	found, err := uploadsOf(ctx, b, key)
	if err != nil {
		return nil, unlessPermanent(ctx, err)
	}
	for _, u := range found[:min(len(found), maxCandidates)] {
		list, err := b.Parts(ctx, key, u.UploadID)
		if err := unlessPermanent(ctx, err); err != nil {
			return nil, err
		}
		if err != nil || len(list) == 0 {
			continue
		}
		r := newResume(u.UploadID, list)
		if r.Parts, err = match(r.stored); err != nil {
			return nil, err
		}
		if len(r.Parts) > 0 {
			return r, nil
		}
	}
	return nil, nil
}

// unlessPermanent drops an error that the store will not stop to answer with.
func unlessPermanent(ctx context.Context, err error) error {
	if err != nil && ctx.Err() == nil && !Temporary(err) {
		return nil
	}
	return err
}

// enter makes the upload ours.
func (s *sender) enter(uploadID string) {
	s.uploadID = uploadID
	if s.Journal != nil {
		s.noted(s.Journal.begin(uploadID))
	}
}

// holds reports whether at least one of the jobs is stored as it is. One that is stored differently says
// nothing: a run that was killed in the middle of a part may leave that part cut short.
func holds(stored map[int]StoredPart, head []*job) (bool, error) {
	any := false
	for _, j := range head {
		p, ok := stored[j.Number]
		if !ok {
			continue
		}
		same, err := j.is(p)
		if err != nil {
			return false, err
		}
		any = any || same
	}
	return any, nil
}

// begin begins a new upload.
func (s *sender) begin(ctx context.Context) error {
	id, err := s.beginning().begin(ctx, s.Metadata)
	if err == nil {
		s.enter(id)
	}
	return err
}

func (s *sender) beginning() beginning {
	return beginning{s.Store, s.store, s.policy, s.Key, s.known}
}

// beginning begins uploads of one key. Begin is not idempotent: if its reply is lost, the store has an
// upload whose id nobody knows. So before Begin is tried again, an upload of the key that was not there
// before and has no parts is taken as the lost one; and when there is no further try, it is aborted.
// (Somebody else who begins an upload of the same key in the same seconds may be taken for us. Where both
// send the same bytes that does no harm; otherwise one of the two completes, and the ETag of the object
// tells the other.)
type beginning struct {
	bucket Bucket // one attempt per call
	store  Bucket // with retries
	policy Policy
	key    string
	known  map[string]bool // ids of the key's unfinished uploads before; nil: nobody knows
}

// uploadsOf lists the unfinished uploads of exactly that key, newest first.
func uploadsOf(ctx context.Context, store Store, key string) ([]Unfinished, error) {
	listed, err := store.Uploads(ctx, key)
	if err != nil {
		return nil, err
	}
	var found []Unfinished
	for _, u := range listed {
		if u.Key == key {
			found = append(found, u)
		}
	}
	return found, nil
}

// idsOf is never nil.
func idsOf(found []Unfinished) map[string]bool {
	ids := make(map[string]bool, len(found))
	for _, u := range found {
		ids[u.UploadID] = true
	}
	return ids
}

func (b beginning) begin(ctx context.Context, meta Metadata) (string, error) {
	lost := false
	id, err := retryFor(ctx, b.policy, "begin the upload of "+b.key, func(ctx context.Context) (string, error) {
		if lost {
			if id, err := b.findLost(ctx, b.bucket); id != "" || err != nil {
				return id, err
			}
		}
		id, err := b.bucket.Begin(ctx, b.key, meta)
		lost = lost || err != nil && undecided(err)
		return id, err
	})
	if err != nil && lost {
		if failed := b.dropLost(ctx); failed != nil {
			err = &leftBehind{err, failed, b.key}
		}
	}
	return id, err
}

// leftBehind is why Begin failed, and why what it may have left could not be removed.
type leftBehind struct {
	error
	why error
	key string
}

func (l *leftBehind) Unwrap() error { return l.error }

func (l *leftBehind) Error() string {
	return fmt.Sprintf("%v; an empty unfinished upload of %s may be left behind: %v", l.error, l.key, l.why)
}

// findLost returns the id of an upload that a Begin without a reply left behind, or "".
func (b beginning) findLost(ctx context.Context, store Store) (string, error) {
	if b.known == nil {
		return "", nil // nobody knows which uploads were there before
	}
	found, err := uploadsOf(ctx, store, b.key)
	if err != nil {
		return "", err
	}
	for _, u := range found {
		if b.known[u.UploadID] {
			continue
		}
		parts, err := store.Parts(ctx, b.key, u.UploadID)
		if err != nil && !errors.Is(err, ErrNoUpload) {
			return "", err
		}
		if err == nil && len(parts) == 0 {
			return u.UploadID, nil
		}
	}
	return "", nil
}

// dropLost aborts what a Begin without a reply may have left behind when the run is over.
func (b beginning) dropLost(ctx context.Context) error {
	limit := abortLimit(context.Cause(ctx))
	search, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	id, err := b.findLost(search, b.store)
	if err == nil && id != "" {
		err = abort(ctx, b.store, b.key, id, limit)
	}
	return err
}

// abort ends an upload even though ctx may have ended.
func abort(ctx context.Context, store Store, key, uploadID string, limit time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), limit, fmt.Errorf("it could not be aborted within %v", limit))
	defer cancel()
	return store.Abort(ctx, key, uploadID)
}

// abortLimit is how long that may take after err.
func abortLimit(err error) time.Duration {
	if errors.Is(err, ErrInterrupted) {
		return lostTime
	}
	return abortTime
}
