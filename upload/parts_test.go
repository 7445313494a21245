package upload_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"

	"imgferry/upload"
)

// testData returns n bytes that look random and are always the same.
func testData(n int) []byte {
	data := make([]byte, n)
	rand.NewChaCha8([32]byte{7}).Read(data)
	return data
}

// smallPlan makes parts of at least size bytes with the given number of buffers.
func smallPlan(size int64, buffers int) upload.Plan {
	return upload.Plan{PartSize: size, BufferSize: size + upload.MaxChunk, Buffers: buffers}
}

func TestPartWriterEndsPartsAtChunks(t *testing.T) {
	for _, c := range []struct {
		name   string
		chunks []int
		parts  []int64
	}{
		{"nothing", nil, nil},
		{"empty chunks", []int{0, 0}, nil},
		{"one byte", []int{1}, []int64{1}},
		{"exactly a part", []int{100}, []int64{100}},
		{"a chunk is never split", []int{99, 99, 1}, []int64{198, 1}},
		{"the chunk that reaches the target is in", []int{60, 40, 60, 41}, []int64{100, 101}},
		{"larger than the target", []int{1000, 1}, []int64{1000, 1}},
		{"the largest chunk", []int{99, upload.MaxChunk, 1}, []int64{99 + upload.MaxChunk, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := upload.NewPartWriter(t.Context(), smallPlan(100, 9))
			var want, got []byte
			for _, n := range c.chunks {
				chunk := testData(n)
				if n, err := w.Write(chunk); n != len(chunk) || err != nil {
					t.Fatal(n, err)
				}
				want = append(want, chunk...)
			}
			if err := errors.Join(w.Close(), w.Close()); err != nil {
				t.Fatal(err)
			}
			var sizes []int64
			for part, err := range w.Parts(t.Context()) {
				body, rerr := io.ReadAll(part.Body)
				sizes = append(sizes, part.Size)
				if err != nil || rerr != nil || part.Number != len(sizes) || part.Size != int64(len(body)) {
					t.Errorf("part %+v of %d bytes: %v, %v", part, len(body), err, rerr)
				}
				got = append(got, body...)
			}
			if !equal(sizes, c.parts) || !bytes.Equal(got, want) {
				t.Errorf("parts %v, want %v", sizes, c.parts)
			}
			if _, err := w.Write([]byte{1}); err == nil {
				t.Error("a write after Close succeeded")
			}
		})
	}
}

func equal(a, b []int64) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestPartWriterRefusesLargeChunk(t *testing.T) {
	w := upload.NewPartWriter(t.Context(), smallPlan(100, 2))
	if _, err := w.Write(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	_, first := w.Write(make([]byte, upload.MaxChunk+1))
	_, second := w.Write(make([]byte, 1))
	if first == nil || second != first || w.Close() != first {
		t.Errorf("errors %v and %v", first, second)
	}
	var last error
	for part, err := range w.Parts(t.Context()) {
		if err == nil {
			t.Errorf("part %+v of a failed stream", part)
		}
		last = err
	}
	if last != first {
		t.Errorf("the sequence ends with %v", last)
	}
}

// Memory is bounded by the buffers: a third part waits until one of two is given back.
func TestPartWriterBackpressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := upload.NewPartWriter(t.Context(), smallPlan(1, 2))
		written := 0
		go func() {
			for range 4 {
				w.Write([]byte{1})
				written++
			}
			w.Close()
		}()
		next := 2
		for part, err := range w.Parts(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if want := min(next, 4); written != want {
				t.Errorf("%d parts written while %d are held", written, want)
			}
			part.Release()
			part.Release() // a second call changes nothing
			next++
		}
	})
}

func TestPartWriterEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		w := upload.NewPartWriter(ctx, smallPlan(1, 2))
		why := errors.New("why")
		var got error
		go func() {
			for got == nil {
				_, got = w.Write([]byte{1})
			}
		}()
		synctest.Wait()
		cancel(why)
		synctest.Wait()
		if got != why || w.Close() != why {
			t.Errorf("the blocked write returned %v", got)
		}
	})
}

func TestPartsEndWithContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("why")
	cancel(why)
	for _, err := range upload.NewPartWriter(t.Context(), smallPlan(1, 2)).Parts(ctx) {
		if err != why {
			t.Error(err)
		}
	}
}

func TestPartWriterFail(t *testing.T) {
	w := upload.NewPartWriter(t.Context(), smallPlan(100, 2))
	w.Write([]byte("half a part"))
	why := errors.New("the source broke")
	w.Fail(why)
	w.Fail(errors.New("later"))
	for _, err := range w.Parts(t.Context()) {
		if err != why {
			t.Error(err)
		}
	}
	if w.Close() != why {
		t.Error("Close does not tell of the failure")
	}
}

func TestPartWriterRefusesAnEndlessStream(t *testing.T) {
	w := upload.NewPartWriter(t.Context(), upload.Plan{PartSize: 1, BufferSize: 1, Buffers: 10_001})
	for n := range 10_000 {
		if _, err := w.Write([]byte{1}); err != nil {
			t.Fatalf("part %d: %v", n+1, err)
		}
	}
	if _, err := w.Write([]byte{1}); err == nil || !strings.Contains(err.Error(), "10000 parts") {
		t.Errorf("part 10,001: %v", err)
	}
}
