package upload_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"imgferry/upload"
)

func TestRetry(t *testing.T) {
	busy := &upload.Error{Op: "x", Status: 503, Temporary: true}
	later := func(d time.Duration) error {
		return &upload.Error{Op: "x", Status: 503, Temporary: true, RetryAfter: d}
	}
	permanent := errors.New("permanent")
	for _, c := range []struct {
		name     string
		policy   upload.Policy
		errs     []error // one per try; the last is repeated
		tries    int
		min, max time.Duration
		gaveUp   bool
		want     error
	}{
		{name: "success", errs: []error{nil}, tries: 1},
		{name: "second try", errs: []error{busy, nil}, tries: 2, min: 250 * time.Millisecond, max: 500 * time.Millisecond},
		{name: "doubling", errs: []error{busy, busy, busy, nil}, tries: 4, min: 1750 * time.Millisecond, max: 3500 * time.Millisecond},
		{name: "permanent", errs: []error{permanent}, tries: 1, want: permanent},
		{name: "permanent after temporary", errs: []error{busy, permanent}, tries: 2, min: 250 * time.Millisecond, max: 500 * time.Millisecond, want: permanent},
		{name: "not ours", errs: []error{io.ErrUnexpectedEOF}, tries: 1, want: io.ErrUnexpectedEOF},
		{name: "source", errs: []error{&upload.ReadError{Part: 1, Err: busy}}, tries: 1, want: busy},
		{name: "for ever", errs: []error{busy}, tries: 8, min: 25 * time.Second, max: 52 * time.Second, gaveUp: true, want: busy},
		{name: "three tries", policy: upload.Policy{Tries: 3}, errs: []error{busy}, tries: 3, min: 750 * time.Millisecond, max: 1500 * time.Millisecond, gaveUp: true, want: busy},
		{name: "budget", policy: upload.Policy{Tries: 1000, Budget: time.Minute, Base: 20 * time.Second}, errs: []error{busy}, tries: -1, min: 40 * time.Second, max: time.Minute, gaveUp: true, want: busy},
		{name: "no overflow", policy: upload.Policy{Tries: 100, Budget: time.Hour, Max: time.Second}, errs: []error{busy}, tries: 100, min: 45 * time.Second, max: 100 * time.Second, gaveUp: true, want: busy},
		{name: "as advised", errs: []error{later(42 * time.Second), nil}, tries: 2, min: 42 * time.Second, max: 42 * time.Second},
		{name: "advised beyond the budget", errs: []error{later(time.Hour)}, tries: 1, gaveUp: true},
		{name: "advised beyond all times", errs: []error{later(math.MaxInt64)}, tries: 1, gaveUp: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				tries, told := 0, 0
				c.policy.OnRetry = func(op string, try int, err error, wait time.Duration) {
					if told++; op != "do it" || try != told || err == nil || wait <= 0 {
						t.Errorf("OnRetry(%q, %d, %v, %v)", op, try, err, wait)
					}
				}
				err := upload.Retry(t.Context(), c.policy, "do it", func(context.Context) error {
					tries++
					return c.errs[min(tries, len(c.errs))-1]
				})
				took := time.Since(start)
				if c.tries >= 0 && tries != c.tries || told != tries-1 || took < c.min || took > c.max {
					t.Errorf("%d tries in %v, told of %d", tries, took, told)
				}
				var gaveUp *upload.GaveUpError
				if errors.As(err, &gaveUp) != c.gaveUp || c.want != nil && !errors.Is(err, c.want) || (err == nil) != (c.want == nil && !c.gaveUp) {
					t.Error(err)
				}
				if gaveUp != nil && (gaveUp.Tries != tries || gaveUp.Elapsed != took || !strings.Contains(err.Error(), "gave up after")) {
					t.Errorf("%+v: %v", gaveUp, err)
				}
			})
		})
	}
}

func TestRetryDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		err := upload.Retry(t.Context(), upload.Policy{Deadline: time.Minute, Tries: 2}, "look", func(ctx context.Context) error {
			tries++
			<-ctx.Done()
			return ctx.Err()
		})
		if tries != 2 || !upload.Temporary(err) || !strings.Contains(err.Error(), "look: no answer within 1m0s; gave up after 2 tries in 2m") {
			t.Errorf("%d tries: %v", tries, err)
		}
	})
}

// The end of the context ends a request and a wait at once, with its cause.
func TestRetryEnds(t *testing.T) {
	why := errors.New("why")
	for _, wait := range []time.Duration{0, time.Millisecond, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			if wait == 0 {
				cancel(why)
			}
			time.AfterFunc(wait, func() { cancel(why) })
			start := time.Now()
			err := upload.Retry(ctx, upload.Policy{Base: time.Minute, Max: time.Minute}, "x", func(ctx context.Context) error {
				if wait == time.Millisecond {
					<-ctx.Done()
					return ctx.Err()
				}
				return &upload.Error{Temporary: true}
			})
			if err != why || time.Since(start) != wait {
				t.Errorf("%v after %v", err, time.Since(start))
			}
		})
	}
}

// A slowBody takes a while for each read.
type slowBody struct {
	io.ReadSeeker
	pause time.Duration
}

func (b slowBody) Read(p []byte) (int, error) {
	time.Sleep(b.pause)
	return b.ReadSeeker.Read(p[:min(len(p), 10)])
}

// A slowReader is a store that reads a body slowly.
type slowReader struct {
	*fakeStore
	pause time.Duration
}

func (s slowReader) PutPart(ctx context.Context, key, id string, number int, body io.ReadSeeker, size int64, sum *[16]byte) (string, error) {
	for range size / 10 {
		select {
		case <-time.After(s.pause):
		case <-ctx.Done():
			return "", ctx.Err()
		}
		if _, err := io.CopyN(io.Discard, body, 10); err != nil {
			return "", err
		}
	}
	return "etag", nil
}

// A part may take any time as long as its bytes flow; neither a slow source nor a slow link is
// taken for a stalled one.
func TestStall(t *testing.T) {
	for _, c := range []struct {
		name           string
		source, reader time.Duration
		ok             bool
	}{
		{"slow source", 59 * time.Minute, 0, true},
		{"slow link", 0, 59 * time.Second, true},
		{"stalled link", 0, 61 * time.Second, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := upload.WithRetry(slowReader{newFakeStore(), c.reader}, upload.Policy{Tries: 3})
				body := slowBody{bytes.NewReader(testData(100)), c.source}
				_, err := b.PutPart(t.Context(), testKey, "id", 7, body, 100, nil)
				if (err == nil) != c.ok || !c.ok && !strings.Contains(err.Error(), "put part 7 of "+testKey+": no byte was sent for 1m0s; gave up after 3 tries") {
					t.Error(err)
				}
			})
		})
	}
}

// A body that cannot be rewound is not sent a second time.
func TestRetryNeedsRewind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		store.fault = failing("PutPart", 9, fault{err: reset(), read: 10})
		body := &oneWay{Reader: bytes.NewReader(testData(100))}
		_, err := upload.WithRetry(store, upload.Policy{}).PutPart(t.Context(), testKey, "id", 7, body, 100, nil)
		var read *upload.ReadError
		if !errors.As(err, &read) || store.calls["PutPart"] != 1 {
			t.Errorf("%d calls: %v", store.calls["PutPart"], err)
		}
	})
}

// A oneWay can tell its position, and seek to where it is.
type oneWay struct{ *bytes.Reader }

func (o *oneWay) Seek(offset int64, whence int) (int64, error) {
	at, _ := o.Reader.Seek(0, io.SeekCurrent)
	if whence == io.SeekCurrent && offset == 0 || whence == io.SeekStart && offset == at {
		return at, nil
	}
	return 0, errors.New("cannot seek")
}

// WithRetry repeats each call of a bucket.
func TestWithRetry(t *testing.T) {
	for _, method := range []string{"Begin", "PutPart", "Parts", "Uploads", "Complete", "Abort", "Stat"} {
		synctest.Test(t, func(t *testing.T) {
			store := newFakeStore()
			store.fault = failing(method, 2, fault{err: reset()})
			b := upload.WithRetry(store, upload.Policy{})
			ctx := t.Context()
			id, err := b.Begin(ctx, "k", nil)
			etag, err2 := b.PutPart(ctx, "k", id, 1, strings.NewReader("abc"), 3, nil)
			parts, err3 := b.Parts(ctx, "k", id)
			list, err4 := b.Uploads(ctx, "k")
			_, err5 := b.Complete(ctx, "k", id, parts)
			object, err6 := b.Stat(ctx, "k")
			err7 := b.Abort(ctx, "k", id)
			if err := errors.Join(err, err2, err3, err4, err5, err6, err7); err != nil || len(parts) != 1 || parts[0].ETag != etag || len(list) != 1 || object.Size != 3 {
				t.Errorf("%s: %v", method, err)
			}
			if store.calls[method] != 3 {
				t.Errorf("%s: %d calls", method, store.calls[method])
			}
		})
	}
}
