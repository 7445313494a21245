package upload_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"imgferry/upload"
)

// slowCopier copies zeros only when all parts of data are there.
type slowCopier struct {
	*copyingStore
	missing atomic.Int32 // parts of data
	all     chan struct{}
}

func (s *slowCopier) PutPart(ctx context.Context, key, id string, number int, body io.ReadSeeker, size int64, sum *[md5.Size]byte) (string, error) {
	etag, err := s.copyingStore.PutPart(ctx, key, id, number, body, size, sum)
	if err == nil && key == testKey && s.missing.Add(-1) == 0 {
		close(s.all)
	}
	return etag, err
}

func (s *slowCopier) CopyPart(ctx context.Context, key, id string, number int, from upload.Object, offset, length int64) (string, error) {
	select {
	case <-s.all:
		return s.copyingStore.CopyPart(ctx, key, id, number, from, offset, length)
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// While the store copies zeros, however slowly, data is sent.
func TestCopiesDoNotHoldUpData(t *testing.T) {
	const zeros, all = 60, 70
	data := testData(all * 1000)
	clear(data[:zeros*1000])
	parts := func(context.Context) iter.Seq2[upload.Part, error] {
		return func(yield func(upload.Part, error) bool) {
			for i := range all {
				body := data[i*1000 : (i+1)*1000]
				part := upload.Part{Number: i + 1, Size: 1000, Body: bytes.NewReader(body)}
				if i < zeros {
					sum := md5.Sum(body)
					part.Zeros, part.Sum = true, &sum
				}
				if !yield(part, nil) {
					return
				}
			}
		}
	}
	for _, workers := range []int{0, 1} {
		store := &slowCopier{copyingStore: &copyingStore{fakeStore: newFakeStore()}, all: make(chan struct{})}
		store.missing.Store(all - zeros)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // instead of for ever
		result, err := upload.Send(ctx, upload.Config{Store: store, Key: testKey, Workers: workers}, parts)
		cancel()
		if err != nil || !store.holds(testKey, data) || result.Copied != zeros*1000 {
			t.Errorf("%d workers: %+v, %v", workers, result, err)
		}
	}
}

// Whatever ends an upload, each part that it took is released, those of zeros that wait too.
func TestWaitingZerosAreReleased(t *testing.T) {
	store := &slowCopier{copyingStore: &copyingStore{fakeStore: newFakeStore()}, all: make(chan struct{})}
	store.missing.Store(2)
	var taken, released atomic.Int32
	parts := func(context.Context) iter.Seq2[upload.Part, error] {
		return func(yield func(upload.Part, error) bool) {
			zeros := make([]byte, 1000)
			sum := md5.Sum(zeros)
			for i := range 40 {
				taken.Add(1)
				if !yield(upload.Part{Number: i + 1, Size: 1000, Zeros: true, Sum: &sum, Body: bytes.NewReader(zeros), Release: func() { released.Add(1) }}, nil) {
					return
				}
			}
			taken.Add(1)
			yield(upload.Part{Number: 41, Size: 1, Body: failingBody{}, Release: func() { released.Add(1) }}, nil)
		}
	}
	_, err := upload.Send(t.Context(), upload.Config{Store: store, Key: testKey}, parts)
	if err == nil || taken.Load() != 41 || released.Load() != 41 {
		t.Errorf("%d parts of %d are released: %v", released.Load(), taken.Load(), err)
	}
}

type failingBody struct{}

func (failingBody) Read([]byte) (int, error)       { return 0, io.ErrUnexpectedEOF }
func (failingBody) Seek(int64, int) (int64, error) { return 0, errors.New("a bad disk") }

// sentTo sends the test's stream and returns what became of it.
func sentTo(t *testing.T, store upload.Bucket) (upload.Object, upload.Result) {
	t.Helper()
	plan := upload.RawPlan{Size: int64(len(testStream())), PartSize: 1200, Count: testParts}
	result, err := upload.Send(t.Context(), upload.Config{Store: store, Key: testKey, Metadata: upload.Metadata{"a": "1"}}, plan.Parts(bytes.NewReader(testStream())))
	if err != nil || len(result.Stored) != testParts {
		t.Fatalf("%+v, %v", result, err)
	}
	return upload.Object{Key: testKey, Size: result.Size, ETag: result.ETag}, result
}

// Metadata is replaced by copies, part by part; the object stays the same until it is done, and after.
func TestSetMetadata(t *testing.T) {
	meta := upload.Metadata{"a": "2", "digest": "d"}
	for name, c := range map[string]struct {
		prepare func(*copyingStore)
		fails   error // nil: it works
	}{
		"works":                {func(*copyingStore) {}, nil},
		"Complete's reply":     {func(s *copyingStore) { s.fault = failing("Complete", 2, fault{err: reset(), after: true}) }, nil},
		"replaced before":      {func(s *copyingStore) { o := s.objects[testKey]; o.etag = "other"; s.objects[testKey] = o }, upload.ErrReplaced},
		"damaged copy":         {func(s *copyingStore) { s.lie = true }, upload.ErrMismatch},
		"may not copy":         {func(s *copyingStore) { s.refuse = denied() }, upload.ErrDenied},
		"may not complete":     {func(s *copyingStore) { s.fault = failing("Complete", 99, fault{err: denied()}) }, upload.ErrDenied},
		"an answer of its own": {func(s *copyingStore) { s.fault = failing("Complete", 99, fault{err: noUpload()}) }, upload.ErrNoUpload},
	} {
		t.Run(name, func(t *testing.T) {
			store := &copyingStore{fakeStore: newFakeStore()}
			object, sent := sentTo(t, store)
			store.calls = map[string]int{}
			c.prepare(store)
			before := store.objects[testKey]
			now, err := upload.SetMetadata(t.Context(), store, upload.Policy{Base: time.Millisecond, Max: time.Millisecond}, object, sent.Stored, meta)
			if !errors.Is(err, c.fails) || c.fails == nil && err != nil {
				t.Fatal(err)
			}
			after := store.objects[testKey]
			if !bytes.Equal(after.data, testStream()) || after.etag != before.etag || len(store.uploads) > 0 {
				t.Errorf("left %d bytes with the ETag %s, and %d uploads", len(after.data), after.etag, len(store.uploads))
			}
			if c.fails != nil && after.meta["a"] != "1" || c.fails == nil && (after.meta["digest"] != "d" || now.ETag != object.ETag) {
				t.Errorf("metadata %v, %+v", after.meta, now)
			}
		})
	}
	if _, err := upload.SetMetadata(t.Context(), newFakeStore(), upload.Policy{}, upload.Object{Key: testKey}, nil, meta); err == nil {
		t.Error("a store that can't copy does")
	}
}

// Of more parts than an upload may have beside the numbers that are left out, ranges are copied.
func TestSetMetadataOfManyParts(t *testing.T) {
	store := &copyingStore{fakeStore: newFakeStore()}
	object, sent := sentTo(t, store)
	for len(sent.Stored) < 9_998 { // with the numbers that are left out, 10,001
		sent.Stored = append(sent.Stored, upload.StoredPart{})
	}
	_, err := upload.SetMetadata(t.Context(), store, upload.Policy{}, object, sent.Stored, upload.Metadata{"a": "2"})
	if err != nil || store.copied != object.Size || store.calls["Begin"] != 2 || !store.holds(testKey, testStream()) {
		t.Errorf("%d bytes copied in %v: %v", store.copied, store.calls, err)
	}
}

// Encrypted copies have ETags of their own.
func TestSetMetadataOfEncrypted(t *testing.T) {
	store := &copyingStore{fakeStore: newFakeStore()}
	store.encrypts = "kms"
	object, sent := sentTo(t, store)
	for _, resumed := range []bool{false, true} {
		if resumed { // by another process, which has put no part
			store.said, object.Opaque = false, true
		}
		now, err := upload.SetMetadata(t.Context(), store, upload.Policy{}, object, sent.Stored, upload.Metadata{"a": "2"})
		if err != nil || now.ETag == object.ETag || now.Metadata["a"] != "2" || !store.holds(testKey, testStream()) {
			t.Errorf("%+v, %v", now, err)
		}
		object = now
	}
}

// While the copies are made somebody replaces the object: the newer one stays.
func TestSetMetadataOfReplaced(t *testing.T) {
	store := &copyingStore{fakeStore: newFakeStore()}
	object, sent := sentTo(t, store)
	store.fault = func(c call) fault {
		if c.method == "Stat" {
			store.mu.Lock()
			defer store.mu.Unlock()
			store.objects[testKey] = fakeObject{data: []byte("newer"), etag: "newer"}
		}
		return fault{}
	}
	_, err := upload.SetMetadata(t.Context(), store, upload.Policy{}, object, sent.Stored, upload.Metadata{"digest": "d"})
	if !errors.Is(err, upload.ErrReplaced) || !store.holds(testKey, []byte("newer")) || len(store.uploads) > 0 {
		t.Errorf("%v; the store has %d bytes and %d uploads", err, len(store.objects[testKey].data), len(store.uploads))
	}
}

// A copy that can't be finished is aborted, for longer than a second if need be, or named.
func TestUnfinishedCopyIsAborted(t *testing.T) {
	for name, after := range map[string]error{"late": nil, "never": denied()} {
		store := &copyingStore{fakeStore: newFakeStore()}
		object, sent := sentTo(t, store)
		store.fault = func(c call) fault {
			switch {
			case c.method == "Complete":
				return fault{err: denied()}
			case c.method == "Abort" && c.n <= 2:
				return fault{err: status(503, "SlowDown")}
			case c.method == "Abort" && after != nil:
				return fault{err: after}
			}
			return fault{}
		}
		_, err := upload.SetMetadata(t.Context(), store, upload.Policy{}, object, sent.Stored, upload.Metadata{"digest": "d"})
		var left *upload.AbortError
		if !errors.Is(err, upload.ErrDenied) || errors.As(err, &left) != (after != nil) || len(store.uploads) > 0 != (after != nil) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, %d uploads are left", name, err, len(store.uploads))
		}
		if left != nil && left.UploadID != store.uploads[0].UploadID {
			t.Errorf("%s is named instead of %s", left.UploadID, store.uploads[0].UploadID)
		}
	}
}

// A copy whose beginning got no reply is begun once, and nothing is left of it.
func TestCopyWithLostBegin(t *testing.T) {
	store := &copyingStore{fakeStore: newFakeStore()}
	object, sent := sentTo(t, store)
	store.fault = failing("Begin", 2, fault{err: reset(), after: true})
	now, err := upload.SetMetadata(t.Context(), store, upload.Policy{Base: time.Millisecond, Max: time.Millisecond}, object, sent.Stored, upload.Metadata{"digest": "d"})
	if err != nil || now.Metadata["digest"] != "d" || len(store.uploads) > 0 {
		t.Errorf("%+v, %v; %d uploads are left", now, err, len(store.uploads))
	}
}

// A copy that is left behind without parts is not used for what replaces the object: it promises what was true
// of that one. And what an object that was made in another's upload says of itself is reported.
func TestEmptyCopyIsNotUsed(t *testing.T) {
	for _, there := range []bool{true, false} {
		store := &copyingStore{fakeStore: newFakeStore()}
		if there {
			sentTo(t, store)
		}
		if _, err := store.Begin(t.Context(), testKey, upload.Metadata{"digest": "another"}); err != nil {
			t.Fatal(err)
		}
		_, sent := sentTo(t, store)
		want, left := "another", 0
		if there {
			want, left = "", 1
		}
		if got := store.objects[testKey].meta["digest"]; got != want || sent.Metadata["digest"] != want || len(store.uploads) != left {
			t.Errorf("the digest %q, reported %q; %d uploads are left", got, sent.Metadata["digest"], len(store.uploads))
		}
	}
}

// A copy that is left behind promises metadata of its own: no later upload goes on in it, though it has the
// same parts.
func TestUnfinishedCopyIsNotResumed(t *testing.T) {
	store := &copyingStore{fakeStore: newFakeStore()}
	object, sent := sentTo(t, store)
	store.fault = func(c call) fault {
		if c.method == "Complete" || c.method == "Abort" {
			return fault{err: denied()}
		}
		return fault{}
	}
	if _, err := upload.SetMetadata(t.Context(), store, upload.Policy{}, object, sent.Stored, upload.Metadata{"digest": "d"}); !errors.Is(err, upload.ErrDenied) {
		t.Fatal(err)
	}
	if len(store.uploads) != 1 || len(store.uploads[0].parts) != testParts {
		t.Fatal("nothing is left behind")
	}
	store.fault = nil
	_, again := sentTo(t, store)
	if again.Resumed || again.Sent != again.Size || store.objects[testKey].meta["digest"] != "" {
		t.Errorf("%+v, metadata %v", again, store.objects[testKey].meta)
	}
	if !slices.Equal(again.Stored, sent.Stored) {
		t.Errorf("parts %v, not %v", again.Stored, sent.Stored)
	}
}
