package upload

import (
	"context"
	"crypto/md5"
	"fmt"
	"io"
	"time"
)

// WithRetry returns b with every call repeated by policy. Begin is repeated too: a Begin whose
// reply was lost then leaves a second, empty upload behind. Send, which can tell, avoids that.
func WithRetry(b Bucket, policy Policy) Bucket {
	return &retrying{bucket: b, policy: policy.withDefaults()}
}

type retrying struct {
	bucket Bucket
	policy Policy
}

// retryFor is Retry for an f that returns a value.
func retryFor[T any](ctx context.Context, p Policy, op string, f func(context.Context) (T, error)) (T, error) {
	var value T
	err := Retry(ctx, p, op, func(ctx context.Context) (err error) {
		value, err = f(ctx)
		return err
	})
	if err != nil {
		var zero T
		return zero, err
	}
	return value, nil
}

func (r *retrying) Begin(ctx context.Context, key string, meta Metadata) (string, error) {
	return retryFor(ctx, r.policy, "begin the upload of "+key, func(ctx context.Context) (string, error) {
		return r.bucket.Begin(ctx, key, meta)
	})
}

func (r *retrying) Parts(ctx context.Context, key, uploadID string) ([]StoredPart, error) {
	return retryFor(ctx, r.policy, "list parts of "+key, func(ctx context.Context) ([]StoredPart, error) {
		return r.bucket.Parts(ctx, key, uploadID)
	})
}

func (r *retrying) Uploads(ctx context.Context, prefix string) ([]Unfinished, error) {
	return retryFor(ctx, r.policy, "list unfinished uploads", func(ctx context.Context) ([]Unfinished, error) {
		return r.bucket.Uploads(ctx, prefix)
	})
}

// working returns p for a request during which the store works while the client waits, as some do
// to put an object together: by default it may take five minutes. There is time for a second and a
// third try.
func (p Policy) working() Policy {
	p.Deadline = p.Deadline * 5 / 2
	p.Budget = max(p.Budget, 3*p.Deadline)
	return p
}

func (r *retrying) Complete(ctx context.Context, key, uploadID string, parts []StoredPart) (string, error) {
	return retryFor(ctx, r.policy.working(), "complete the upload of "+key, func(ctx context.Context) (string, error) {
		return r.bucket.Complete(ctx, key, uploadID, parts)
	})
}

func (r *retrying) Abort(ctx context.Context, key, uploadID string) error {
	return Retry(ctx, r.policy, "abort the upload of "+key, func(ctx context.Context) error {
		return r.bucket.Abort(ctx, key, uploadID)
	})
}

func (r *retrying) Stat(ctx context.Context, key string) (Object, error) {
	return retryFor(ctx, r.policy, "look up the object of "+key, func(ctx context.Context) (Object, error) {
		return r.bucket.Stat(ctx, key)
	})
}

// PutPart is cut off when it makes no progress, and when it is slower than any link worth using.
func (r *retrying) PutPart(ctx context.Context, key, uploadID string, number int, body io.ReadSeeker, size int64, sum *[md5.Size]byte) (string, error) {
	op := fmt.Sprintf("put part %d of %s", number, key)
	start, err := body.Seek(0, io.SeekCurrent)
	if err != nil {
		return "", &ReadError{Part: number, Err: err}
	}
	var etag string
	err = r.policy.retry(ctx, op, func(ctx context.Context) error {
		if _, err := body.Seek(start, io.SeekStart); err != nil {
			return &ReadError{Part: number, Err: err}
		}
		attempt, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		w := newWatchdog(body, size, r.policy, func(err error) {
			cancel(&Error{Op: op, Temporary: true, Err: err})
		})
		defer w.stop()
		var err error
		etag, err = r.bucket.PutPart(attempt, key, uploadID, number, w, size, sum)
		if err != nil && w.readErr != nil {
			return &ReadError{Part: number, Err: w.readErr}
		}
		return causeOf(attempt, err)
	})
	return etag, err
}

// ReadError says that a part's bytes could not be read where they come from. It is no failure of
// the store.
type ReadError struct {
	Part int
	Err  error
}

// Error returns one sentence.
func (e *ReadError) Error() string {
	return fmt.Sprintf("read the bytes of part %d: %v", e.Part, e.Err)
}

// Unwrap returns the failure of the part's body.
func (e *ReadError) Unwrap() error { return e.Err }

// watchdog is a body that notices when nobody reads it any more. Time that the body itself takes
// to produce bytes does not count: that is the source's, which has deadlines of its own.
type watchdog struct {
	io.ReadSeeker
	policy  Policy
	bite    func(error)
	left    int64         // bytes not yet read
	network time.Duration // that may still pass between reads
	armed   time.Time
	timer   *time.Timer
	readErr error // what the body failed with, other than io.EOF
}

// A part may take as long as minRate, in bytes a second, allows, and patience deadlines more: a server
// that takes a byte now and then would else keep it for ever.
const (
	minRate  = 8 << 10
	patience = 5
)

func newWatchdog(body io.ReadSeeker, size int64, p Policy, bite func(error)) *watchdog {
	w := &watchdog{ReadSeeker: body, policy: p, bite: bite, left: size}
	w.network = patience*p.Deadline + time.Duration(size/minRate)*time.Second
	w.arm()
	return w
}

// arm starts waiting for the next Read, or for the reply if everything was read.
func (w *watchdog) arm() {
	limit, what := w.policy.Stall, "no byte was sent for %v"
	if w.left <= 0 {
		limit, what = w.policy.Deadline, "no answer within %v"
	}
	if w.network < limit {
		limit, what = w.network, fmt.Sprintf("less than %d KiB a second were sent, and %%v were left", minRate>>10)
	}
	w.armed = time.Now()
	w.timer = time.AfterFunc(limit, func() { w.bite(fmt.Errorf(what, limit)) })
}

func (w *watchdog) stop() {
	w.timer.Stop()
	w.network -= time.Since(w.armed)
}

func (w *watchdog) Read(p []byte) (int, error) {
	w.stop()
	n, err := w.ReadSeeker.Read(p)
	w.left -= int64(n)
	if err != nil && err != io.EOF {
		w.readErr = err
	}
	w.arm()
	return n, err
}
