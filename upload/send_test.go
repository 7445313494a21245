package upload_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"imgferry/upload"
)

const (
	testKey   = "images/disk.zvhd2"
	testParts = 7 // parts of testStream
)

// testStream is sent as seven parts of 1,200 bytes (four chunks of 300), the last shorter.
func testStream() []byte { return testData(6*1200 + 500) }

// A run is one attempt to upload testStream into a store.
type run struct {
	store  *fakeStore
	data   []byte
	raw    bool // parts read from the source instead of from buffers
	source io.ReaderAt
	config upload.Config
	// held is the number of parts yielded and not released, most its maximum.
	held, most atomic.Int64
	notices    []string
}

func newRun(store *fakeStore) *run {
	r := &run{store: store, data: testStream()}
	r.source = bytes.NewReader(r.data)
	r.config = upload.Config{
		Store:    store,
		Key:      testKey,
		Metadata: upload.Metadata{"format": "zvhd2"},
		Buffers:  4,
		Progress: new(upload.Progress),
		Notice:   func(s string) { r.notices = append(r.notices, s) },
	}
	return r
}

// send uploads as the program does: producer and sender in one group.
func (r *run) send(ctx context.Context) (upload.Result, error) {
	g, ctx := errgroup.WithContext(ctx)
	var parts upload.Sequence
	if r.raw {
		r.config.Buffers = 0
		size := int64(len(r.data))
		parts = upload.RawPlan{Size: size, PartSize: 1200, Count: int((size + 1199) / 1200)}.Parts(r.source)
	} else {
		w := upload.NewPartWriter(ctx, smallPlan(1200, r.config.Buffers))
		parts = w.Parts
		g.Go(func() error {
			for rest := r.data; len(rest) > 0; {
				n := min(300, len(rest))
				if _, err := w.Write(rest[:n]); err != nil {
					w.Fail(err)
					return err
				}
				rest = rest[n:]
			}
			return w.Close()
		})
	}
	var result upload.Result
	var err error
	g.Go(func() error {
		result, err = upload.Send(ctx, r.config, r.counted(parts))
		return err
	})
	g.Wait()
	return result, err
}

func (r *run) counted(parts upload.Sequence) upload.Sequence {
	return func(ctx context.Context) iter.Seq2[upload.Part, error] {
		return func(yield func(upload.Part, error) bool) {
			for part, err := range parts(ctx) {
				if err == nil {
					release := part.Release
					part.Release = func() {
						r.held.Add(-1)
						if release != nil {
							release()
						}
					}
					r.most.Store(max(r.most.Load(), r.held.Add(1)))
				}
				if !yield(part, err) {
					return
				}
			}
		}
	}
}

// check looks at what every run must leave behind, whatever its end.
func (r *run) check(t *testing.T, result upload.Result, err error, unfinished int) {
	t.Helper()
	if n := r.held.Load(); n != 0 {
		t.Errorf("%d parts were not released", n)
	}
	if n := r.most.Load(); !r.raw && n > int64(r.config.Buffers) {
		t.Errorf("%d buffers were in use", n)
	}
	if n := len(r.store.uploads); n != unfinished {
		t.Errorf("%d unfinished uploads are left, want %d (error %v)", n, unfinished, err)
	}
	p := r.config.Progress
	if n := p.Sent() + p.Skipped(); n > int64(len(r.data)) || p.Sent() != result.Sent || p.Skipped() != result.Skipped || p.Parts() != int64(result.Parts) {
		t.Errorf("progress: sent %d, skipped %d, parts %d; result %+v", p.Sent(), p.Skipped(), p.Parts(), result)
	}
	if err != nil {
		return
	}
	want := md5s(r.data, 1200)
	if !r.store.holds(testKey, r.data) || result.ETag != want {
		t.Errorf("the object is not what was sent: ETag %s, want %s", result.ETag, want)
	}
	if result.Parts != testParts || result.Size != int64(len(r.data)) || result.Sent+result.Skipped != result.Size {
		t.Errorf("result %+v", result)
	}
}

// md5s computes the ETag of data sent in parts of size bytes.
func md5s(data []byte, size int) string {
	var sums []byte
	n := 0
	for ; len(data) > 0; n++ {
		part := data[:min(size, len(data))]
		sum := md5.Sum(part)
		sums = append(sums, sum[:]...)
		data = data[len(part):]
	}
	return fmt.Sprintf("%x-%d", md5.Sum(sums), n)
}

// both runs a test with buffered parts and with raw ones, in virtual time. Goroutines that
// outlive the run make it fail.
func both(t *testing.T, name string, f func(t *testing.T, raw bool)) {
	for _, raw := range []bool{false, true} {
		kind := "stream"
		if raw {
			kind = "raw"
		}
		t.Run(name+"/"+kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, raw) })
		})
	}
}

func TestSend(t *testing.T) {
	both(t, "plain", func(t *testing.T, raw bool) {
		r := newRun(newFakeStore())
		r.raw = raw
		asked := false
		r.config.BeforeComplete = func(context.Context) error {
			asked = true
			if len(r.store.objects) > 0 {
				t.Error("BeforeComplete comes after the object")
			}
			return nil
		}
		result, err := r.send(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		r.check(t, result, err, 0)
		if !asked || result.Resumed || result.Unverified || result.Skipped != 0 || r.config.Progress.Retries() != 0 || len(r.notices) > 0 {
			t.Errorf("asked %t, result %+v, %d retries, notices %q", asked, result, r.config.Progress.Retries(), r.notices)
		}
		if meta := r.store.objects[testKey].meta; meta["format"] != "zvhd2" {
			t.Errorf("metadata %v", meta)
		}
	})
}

func TestSendNothing(t *testing.T) {
	r := newRun(newFakeStore())
	r.data = nil
	result, err := r.send(t.Context())
	if err == nil || len(r.store.objects) > 0 || r.store.calls["Begin"] > 0 {
		t.Errorf("%+v, %v", result, err)
	}
}

// Every method fails in every way for a while, and the object is right in the end.
func TestSendSurvives(t *testing.T) {
	faults := map[string]fault{
		"500":            {err: status(500, "InternalError")},
		"503":            {err: status(503, "SlowDown")},
		"429":            {err: status(429, "TooManyRequests")},
		"reset":          {err: reset()},
		"reset in body":  {err: reset(), read: 700},
		"reply lost":     {err: reset(), after: true},
		"500 after all":  {err: status(500, "InternalError"), after: true},
		"hang":           {hang: true},
		"hang in body":   {hang: true, read: 100},
		"hang after all": {hang: true, after: true},
		"as advised":     {err: &upload.Error{Status: 503, Temporary: true, RetryAfter: 90 * time.Second}},
	}
	for _, method := range []string{"Uploads", "Begin", "PutPart", "Complete", "Stat"} {
		for name, f := range faults {
			if f.read > 0 && method != "PutPart" {
				continue
			}
			for _, times := range []int{1, 2} {
				both(t, fmt.Sprintf("%s/%s x%d", method, name, times), func(t *testing.T, raw bool) {
					r := newRun(newFakeStore())
					r.raw = raw
					r.store.fault = failing(method, times, f)
					start := time.Now()
					result, err := r.send(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					r.check(t, result, err, 0)
					// A call that had its effect is not always tried as often.
					if n := r.config.Progress.Retries(); n < 1 || n > int64(times) || !f.after && n != int64(times) {
						t.Errorf("%d retries", n)
					}
					if name == "as advised" && time.Since(start) < 90*time.Second {
						t.Errorf("took %v", time.Since(start))
					}
				})
			}
		}
	}
}

// A refusal is not repeated, and leaves no upload behind.
func TestSendRefused(t *testing.T) {
	for _, method := range []string{"Begin", "PutPart", "Complete"} {
		both(t, method, func(t *testing.T, raw bool) {
			r := newRun(newFakeStore())
			r.raw = raw
			r.store.fault = failing(method, 99, fault{err: denied()})
			start := time.Now()
			result, err := r.send(t.Context())
			if !errors.Is(err, upload.ErrDenied) {
				t.Fatal(err)
			}
			r.check(t, result, err, 0)
			if r.config.Progress.Retries() > 0 || time.Since(start) > 0 || len(r.store.objects) > 0 {
				t.Errorf("%d retries in %v", r.config.Progress.Retries(), time.Since(start))
			}
		})
	}
}

// Not to be allowed to list uploads only means that none is resumed.
func TestSendWithoutListing(t *testing.T) {
	both(t, "denied", func(t *testing.T, raw bool) {
		r := newRun(newFakeStore())
		r.raw = raw
		r.store.fault = failing("Uploads", 99, fault{err: denied()})
		result, err := r.send(t.Context())
		r.check(t, result, err, 0)
		if err != nil || len(r.notices) != 1 || !strings.Contains(r.notices[0], "access denied") {
			t.Errorf("%v, notices %q", err, r.notices)
		}
	})
	both(t, "no bucket", func(t *testing.T, raw bool) {
		r := newRun(newFakeStore())
		r.raw = raw
		r.store.fault = failing("Uploads", 99, fault{err: &upload.Error{Status: 404, Class: upload.ErrNoBucket}})
		if _, err := r.send(t.Context()); !errors.Is(err, upload.ErrNoBucket) {
			t.Error(err)
		}
	})
}

// A store that fails for too long leaves an upload that the next run resumes, if there is one.
func TestSendGivesUp(t *testing.T) {
	faults := map[string]fault{
		"500":  {err: status(500, "InternalError")},
		"hang": {hang: true},
	}
	for _, method := range []string{"Uploads", "Begin", "PutPart", "Complete"} {
		for name, f := range faults {
			both(t, method+"/"+name, func(t *testing.T, raw bool) {
				r := newRun(newFakeStore())
				r.raw = raw
				r.store.fault = func(c call) fault {
					if c.method == method && (method != "PutPart" || c.part == 5) {
						return f
					}
					return fault{}
				}
				result, err := r.send(t.Context())
				var gaveUp *upload.GaveUpError
				if !errors.As(err, &gaveUp) || !strings.Contains(err.Error(), "gave up after") {
					t.Fatal(err)
				}
				var unfinished *upload.UnfinishedError
				kept := method == "PutPart" || method == "Complete"
				if errors.As(err, &unfinished) != kept {
					t.Fatal(err)
				}
				if !kept {
					r.check(t, result, err, 0)
					return
				}
				r.check(t, result, err, 1)
				if unfinished.Key != testKey || unfinished.UploadID != r.store.uploads[0].UploadID || unfinished.PartsDone != result.Parts {
					t.Errorf("%+v", unfinished)
				}

				again := newRun(r.store)
				again.raw = raw
				r.store.fault = nil
				stored := int64(0)
				for _, data := range r.store.uploads[0].parts {
					stored += int64(len(data))
				}
				result, err = again.send(t.Context())
				again.check(t, result, err, 0)
				if err != nil || !result.Resumed || result.Skipped != stored {
					t.Errorf("resumed: %+v, %v; %d bytes were stored", result, err, stored)
				}
				for part, n := range r.store.puts {
					if n > 1 {
						t.Errorf("part %d was sent %d times", part, n)
					}
				}
			})
		}
	}
}

// The run is ended at every single call, by an interrupt and by a failure, before and after the
// call had its effect.
func TestSendCancelled(t *testing.T) {
	const calls = 4 + testParts // Uploads, Begin, a PutPart for each part, Complete, Stat
	broken := errors.New("the source broke")
	for _, cause := range []error{upload.ErrInterrupted, broken} {
		for _, after := range []bool{false, true} {
			for n := int64(1); n <= calls; n++ {
				both(t, fmt.Sprintf("%v/after=%t/call %d", cause, after, n), func(t *testing.T, raw bool) {
					ctx, cancel := context.WithCancelCause(t.Context())
					defer cancel(nil)
					r := newRun(newFakeStore())
					r.raw = raw
					var count atomic.Int64
					r.store.fault = func(call) fault {
						if count.Add(1) == n {
							return fault{cancel: func() { cancel(cause) }, after: after}
						}
						return fault{}
					}
					start := time.Now()
					result, err := r.send(ctx)
					if !errors.Is(err, cause) {
						t.Fatal(err)
					}
					if time.Since(start) > time.Second {
						t.Errorf("stopped after %v", time.Since(start))
					}
					complete := r.store.holds(testKey, r.data)
					if complete != (len(r.store.objects) > 0) {
						t.Error("half an object")
					}
					// An interrupted upload stays if a later run would know it by its first three
					// parts.
					left := len(r.store.uploads)
					if left > 0 && (cause != upload.ErrInterrupted || complete) || left == 0 && cause == upload.ErrInterrupted && !complete && result.Parts > testParts-3 {
						t.Errorf("%d uploads are left", left)
					}
					r.check(t, result, err, left)
					var unfinished *upload.UnfinishedError
					if left == 1 && !errors.As(err, &unfinished) {
						t.Error(err)
					}

					r.store.fault = nil
					again := newRun(r.store)
					again.raw = raw
					result, err = again.send(t.Context())
					if err != nil || result.Resumed != (left == 1) {
						t.Fatalf("again: %+v, %v", result, err)
					}
					again.check(t, result, err, 0)
				})
			}
		}
	}
}

// A resumed upload that is interrupted at once keeps what it had.
func TestResumedCancelled(t *testing.T) {
	for n := int64(1); n <= 5; n++ {
		both(t, fmt.Sprintf("call %d", n), func(t *testing.T, raw bool) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			r := newRun(newFakeStore())
			r.raw = raw
			r.store.leave(testKey, map[int][]byte{3: part(3)})
			var count atomic.Int64
			r.store.fault = func(call) fault {
				if count.Add(1) == n {
					return fault{cancel: func() { cancel(upload.ErrInterrupted) }}
				}
				return fault{}
			}
			result, err := r.send(ctx)
			if !errors.Is(err, upload.ErrInterrupted) {
				t.Fatal(err)
			}
			r.check(t, result, err, 1)
			again := newRun(r.store)
			again.raw = raw
			r.store.fault = nil
			if result, err = again.send(t.Context()); err != nil || !result.Resumed {
				t.Errorf("%+v, %v", result, err)
			}
			again.check(t, result, err, 0)
		})
	}
}

// ETag foretells what an upload of the same parts gives.
func TestETag(t *testing.T) {
	r := newRun(newFakeStore())
	data := bytes.NewReader(r.data)
	plan := upload.RawPlan{Size: data.Size(), PartSize: 1200, Count: testParts}
	etag, size, err := upload.ETag(t.Context(), r.counted(plan.Parts(data)))
	if err != nil || etag != md5s(r.data, 1200) || size != data.Size() || r.held.Load() != 0 {
		t.Errorf("%s, %d, %v", etag, size, err)
	}
	broken := errors.New("bad sector")
	if _, _, err := upload.ETag(t.Context(), plan.Parts(brokenReader{data, 5000, broken})); !errors.Is(err, broken) {
		t.Error(err)
	}
}
