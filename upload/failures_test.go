package upload_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"imgferry/upload"
)

const wrongMD5 = "0123456789abcdef0123456789abcdef"

// A wrong ETag is tried again a few times, since damage on the way is rare.
func TestMismatch(t *testing.T) {
	for _, c := range []struct {
		times int
		ok    bool
	}{{1, true}, {2, true}, {3, false}} {
		both(t, strings.Repeat("x", c.times), func(t *testing.T, raw bool) {
			r := newRun(newFakeStore())
			r.raw = raw
			left := c.times
			r.store.fault = func(call call) fault {
				if call.method == "PutPart" && call.part == 2 && left > 0 {
					left--
					return fault{etag: wrongMD5}
				}
				return fault{}
			}
			result, err := r.send(t.Context())
			if (err == nil) != c.ok || errors.Is(err, upload.ErrMismatch) == c.ok {
				t.Error(err)
			}
			r.check(t, result, err, 0)
		})
	}
}

// Whatever the store made in the end is compared once more.
func TestObjectMismatch(t *testing.T) {
	both(t, "etag", func(t *testing.T, raw bool) {
		r := newRun(newFakeStore())
		r.raw = raw
		r.store.fault = failing("Stat", 1, fault{etag: wrongMD5 + "-7"})
		result, err := r.send(t.Context())
		// Complete's reply had the right one.
		if !errors.Is(err, upload.ErrMismatch) || !errors.Is(err, upload.ErrReplaced) || result.ETag != "" {
			t.Errorf("%+v, %v", result, err)
		}
	})
}

// A store whose ETags are no MD5s, whatever they look like, is believed by the size, and the result says so.
// It has each part's MD5, though, to judge what came.
func TestETagsThatAreNoMD5(t *testing.T) {
	for _, encrypts := range []string{"words", "kms"} {
		both(t, encrypts, func(t *testing.T, raw bool) {
			r := newRun(newFakeStore())
			r.raw = raw
			r.store.encrypts = encrypts
			result, err := r.send(t.Context())
			if err != nil || !result.Unverified || result.ETag != r.store.objects[testKey].etag || !r.store.holds(testKey, r.data) {
				t.Errorf("%+v, %v", result, err)
			}
			if r.config.Progress.Retries() > 0 || r.config.Progress.Sent() != int64(len(r.data)) {
				t.Errorf("%d retries, %d bytes", r.config.Progress.Retries(), r.config.Progress.Sent())
			}
			puts := 0
			for n := 1; n <= testParts; n++ {
				puts += r.store.puts[n]
				if r.store.puts[n] == 0 || r.store.bare[n] {
					t.Errorf("nothing shows that part %d came as it is", n)
				}
			}
			if !raw && puts > testParts || puts >= 2*testParts {
				t.Errorf("%d parts were sent %d times", testParts, puts)
			}
			if len(r.notices) != 1 || !strings.Contains(r.notices[0], "no MD5s") {
				t.Errorf("says %q", r.notices)
			}
		})
	}
}

// Also where only the object's ETag is none.
func TestETagOfObjectIsNoMD5(t *testing.T) {
	both(t, "object", func(t *testing.T, raw bool) {
		r := newRun(newFakeStore())
		r.raw = raw
		r.store.fault = func(c call) fault {
			if c.method != "Stat" {
				return fault{}
			}
			r.store.mu.Lock()
			defer r.store.mu.Unlock()
			r.store.encrypts = "kms"
			return fault{etag: wrongMD5 + "-7"}
		}
		result, err := r.send(t.Context())
		if err != nil || !result.Unverified || len(r.notices) != 1 {
			t.Errorf("%+v, %v, %q", result, err, r.notices)
		}
	})
}

// Complete says that there is no such upload. Whether that is because it was completed before,
// the object tells.
func TestCompleteDecidedByObject(t *testing.T) {
	both(t, "object is ours", func(t *testing.T, raw bool) {
		r := newRun(newFakeStore())
		r.raw = raw
		r.store.fault = failing("Complete", 1, fault{err: noUpload(), after: true})
		result, err := r.send(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		r.check(t, result, err, 0)
	})
	both(t, "object is another", func(t *testing.T, raw bool) {
		r := newRun(newFakeStore())
		r.raw = raw
		r.store.objects[testKey] = fakeObject{data: []byte("old"), etag: wrongMD5}
		r.store.fault = failing("Complete", 1, fault{err: noUpload()})
		result, err := r.send(t.Context())
		if !errors.Is(err, upload.ErrNoUpload) {
			t.Error(err)
		}
		r.check(t, result, err, 0)
	})
	both(t, "object was there before", func(t *testing.T, raw bool) {
		r := newRun(newFakeStore())
		r.raw = raw
		if _, err := r.send(t.Context()); err != nil {
			t.Fatal(err)
		}
		r = &run{store: r.store, data: r.data, source: r.source, config: r.config, raw: raw}
		r.config.Progress = new(upload.Progress)
		r.store.fault = failing("Complete", 999, fault{err: reset()})
		result, err := r.send(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		r.check(t, result, err, 0)
	})
}

// A failure of the source aborts the upload at once, and is no reason to try again.
func TestSourceFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("bad sector")
		r := newRun(newFakeStore())
		r.raw = true
		r.source = brokenReader{r.source, 4 * 1200, broken}
		result, err := r.send(t.Context())
		var read *upload.ReadError
		if !errors.Is(err, broken) || !errors.As(err, &read) || read.Part != 5 || r.config.Progress.Retries() > 0 {
			t.Errorf("%v after %d retries", err, r.config.Progress.Retries())
		}
		r.check(t, result, err, 0)
	})
	synctest.Test(t, func(t *testing.T) { // while comparing with what is stored
		broken := errors.New("bad sector")
		r := newRun(newFakeStore())
		r.raw = true
		r.store.leave(testKey, allParts())
		r.source = brokenReader{r.source, 4 * 1200, broken}
		result, err := r.send(t.Context())
		var read *upload.ReadError
		if !errors.Is(err, broken) || !errors.As(err, &read) || read.Part != 5 {
			t.Error(err)
		}
		r.check(t, result, err, 0)
	})
}

// A brokenReader cannot read the byte at offset at.
type brokenReader struct {
	io.ReaderAt
	at  int64
	err error
}

func (r brokenReader) ReadAt(p []byte, offset int64) (int, error) {
	if offset <= r.at && r.at < offset+int64(len(p)) {
		return 0, r.err
	}
	return r.ReaderAt.ReadAt(p, offset)
}

// A part that is shorter than it says is the producer's mistake.
func TestShortPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		_, err := upload.Send(t.Context(), upload.Config{Store: store, Key: testKey}, func(context.Context) iter.Seq2[upload.Part, error] {
			return func(yield func(upload.Part, error) bool) {
				yield(upload.Part{Number: 1, Size: 9, Body: bytes.NewReader([]byte("short")), Buffered: true}, nil)
			}
		})
		if !errors.Is(err, io.ErrUnexpectedEOF) || len(store.uploads) > 0 {
			t.Error(err)
		}
	})
}

func TestWrongOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		_, err := upload.Send(t.Context(), upload.Config{Store: store, Key: testKey}, func(context.Context) iter.Seq2[upload.Part, error] {
			return func(yield func(upload.Part, error) bool) {
				for _, n := range []int{1, 3} {
					if !yield(upload.Part{Number: n, Size: 1, Body: bytes.NewReader([]byte("x"))}, nil) {
						return
					}
				}
			}
		})
		if err == nil || !strings.Contains(err.Error(), "part 3") || len(store.uploads) > 0 {
			t.Error(err)
		}
	})
}

// The producer fails after some parts; whatever was written must not become the object.
func TestProducerFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		w := upload.NewPartWriter(t.Context(), smallPlan(100, 4))
		w.Write(testData(100))
		w.Write(testData(50))
		broken := errors.New("bad image")
		w.Fail(broken)
		_, err := upload.Send(t.Context(), upload.Config{Store: store, Key: testKey, Buffers: 4}, w.Parts)
		if !errors.Is(err, broken) || len(store.uploads) > 0 || len(store.objects) > 0 {
			t.Error(err)
		}
	})
}

func TestBeforeCompleteRefuses(t *testing.T) {
	both(t, "changed", func(t *testing.T, raw bool) {
		changed := errors.New("the source changed")
		r := newRun(newFakeStore())
		r.raw = raw
		r.config.BeforeComplete = func(context.Context) error { return changed }
		result, err := r.send(t.Context())
		if err != changed || len(r.store.objects) > 0 {
			t.Error(err)
		}
		r.check(t, result, err, 0)
	})
}

// An upload that can be neither finished nor aborted is named.
func TestAbortFails(t *testing.T) {
	for name, f := range map[string]fault{
		"denied": {err: denied()},
		"hang":   {hang: true},
	} {
		both(t, name, func(t *testing.T, raw bool) {
			r := newRun(newFakeStore())
			r.raw = raw
			r.store.fault = func(c call) fault {
				switch {
				case c.method == "Abort":
					return f
				case c.method == "PutPart" && c.part == 3:
					return fault{err: status(403, "QuotaExceeded")}
				}
				return fault{}
			}
			start := time.Now()
			result, err := r.send(t.Context())
			var abort *upload.AbortError
			if !errors.As(err, &abort) || abort.UploadID != result.UploadID || !strings.Contains(err.Error(), result.UploadID) || !strings.Contains(err.Error(), "QuotaExceeded") {
				t.Error(err)
			}
			if time.Since(start) > 10*time.Second {
				t.Errorf("took %v", time.Since(start))
			}
			r.check(t, result, err, 1)
		})
	}
}

// The abort reaches the store although the context has ended.
func TestAbortOutlivesContext(t *testing.T) {
	both(t, "cancelled", func(t *testing.T, raw bool) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r := newRun(newFakeStore())
		r.raw = raw
		r.store.fault = func(c call) fault { return fault{hang: c.method == "PutPart" && c.part == 6} }
		result, err := r.send(ctx)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		r.check(t, result, err, 0)
	})
}

// Send does not wait for a producer that is busy when the store has refused.
func TestSendDoesNotWaitForProducer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		store.fault = failing("PutPart", 99, fault{err: denied()})
		w := upload.NewPartWriter(t.Context(), smallPlan(100, 4))
		w.Write(testData(100))
		if _, err := upload.Send(t.Context(), upload.Config{Store: store, Key: testKey, Buffers: 4}, w.Parts); !errors.Is(err, upload.ErrDenied) {
			t.Error(err)
		}
	})
}

func expired() *upload.Error {
	return &upload.Error{Op: "test", Status: 400, Code: "ExpiredToken", Class: upload.ErrExpired}
}

// A login that expires in the middle costs nothing of what was stored: with a new one the run goes on.
func TestLoginExpires(t *testing.T) {
	// From then on the store refuses everything; its answer to a HEAD has no words.
	from := func(c call, method string, part int) bool { return c.method == method && c.part == part }
	for name, first := range map[string]func(call) bool{
		"part":     func(c call) bool { return from(c, "PutPart", 3) },
		"stat":     func(c call) bool { return from(c, "Stat", 0) },
		"complete": func(c call) bool { return from(c, "Complete", 0) },
	} {
		both(t, name, func(t *testing.T, raw bool) {
			store := newFakeStore()
			var over atomic.Bool
			store.fault = func(c call) fault {
				if first(c) {
					over.Store(true)
				}
				switch {
				case !over.Load():
					return fault{}
				case c.method == "Stat":
					return fault{err: &upload.Error{Op: "test", Status: 400, Message: "Bad Request"}}
				}
				return fault{err: expired()}
			}
			r := newRun(store)
			r.raw, r.config.Workers = raw, 1
			r.config.BeforeComplete = func(ctx context.Context) error {
				if _, err := store.Stat(ctx, testKey); !errors.Is(err, upload.ErrNoObject) {
					return err
				}
				return nil
			}
			result, err := r.send(t.Context())
			var kept *upload.UnfinishedError
			if !errors.As(err, &kept) || !errors.Is(err, upload.ErrExpired) || !errors.Is(err, upload.ErrDenied) || !strings.Contains(err.Error(), "expired") {
				t.Fatal(err)
			}
			r.check(t, result, err, 1)

			store.fault = nil
			again := newRun(store)
			again.raw = raw
			result, err = again.send(t.Context())
			if !result.Resumed || result.Skipped == 0 {
				t.Errorf("%+v", result)
			}
			again.check(t, result, err, 0)
		})
	}
	// A refusal without words is the login's only if that has expired.
	both(t, "another 400", func(t *testing.T, raw bool) {
		r := newRun(newFakeStore())
		r.raw = raw
		r.config.BeforeComplete = func(context.Context) error { return &upload.Error{Op: "test", Status: 400} }
		result, err := r.send(t.Context())
		if errors.As(err, new(*upload.UnfinishedError)) {
			t.Error(err)
		}
		r.check(t, result, err, 0)
	})
}

// A store that made the object, said that it failed, and fails for ever after, since the upload is gone, is not
// asked again and again.
func TestCompletedWithoutAnAnswer(t *testing.T) {
	both(t, "gone", func(t *testing.T, raw bool) {
		r := newRun(newFakeStore())
		r.raw = raw
		r.store.fault = func(c call) fault {
			if c.method == "Complete" {
				return fault{err: status(500, "InternalError"), after: c.n == 1}
			}
			return fault{}
		}
		result, err := r.send(t.Context())
		r.check(t, result, err, 0)
		if err != nil || r.store.calls["Complete"] != 1 {
			t.Errorf("%v after %v", err, r.store.calls)
		}
	})
}
