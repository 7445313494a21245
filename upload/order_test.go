package upload_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"testing"
	"testing/synctest"
	"time"

	"imgferry/upload"
)

// tens are n parts of ten bytes.
func tens(n int) upload.Sequence {
	return func(context.Context) iter.Seq2[upload.Part, error] {
		return func(yield func(upload.Part, error) bool) {
			for i := range n {
				if !yield(upload.Part{Number: i + 1, Size: 10, Body: bytes.NewReader(make([]byte, 10))}, nil) {
					return
				}
			}
		}
	}
}

// Parts go out in their order, however many at once: the first ones tell a later run whose upload it is.
func TestPartsGoOutInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const parts = 100
		store := newFakeStore()
		started, proceed := make(chan int, parts), make(chan struct{})
		store.fault = func(c call) fault {
			if c.method == "PutPart" {
				started <- c.part
				<-proceed
			}
			return fault{}
		}
		failed := make(chan error, 1)
		go func() {
			_, err := upload.Send(t.Context(), upload.Config{Store: store, Key: testKey}, tens(parts))
			failed <- err
		}()
		most, begun, last := 0, 0, 0
		for stored := range parts {
			synctest.Wait()
			for ; len(started) > 0; begun++ {
				last = max(last, <-started)
			}
			if last != begun {
				t.Errorf("%d parts have begun, and part %d is among them", begun, last)
			}
			most = max(most, begun-stored)
			time.Sleep(time.Millisecond) // that bytes have a speed
			proceed <- struct{}{}
		}
		if most <= upload.DefaultWorkers {
			t.Errorf("there were never more than %d parts at once", most)
		}
		if err := <-failed; err != nil {
			t.Error(err)
		}
	})
}

// A failure elsewhere that may pass keeps what the store has.
func TestKeep(t *testing.T) {
	gone := errors.New("the source is gone for a while")
	for _, keep := range []bool{false, true} {
		store := newFakeStore()
		stored := make(chan struct{})
		parts := func(context.Context) iter.Seq2[upload.Part, error] {
			return func(yield func(upload.Part, error) bool) {
				p := upload.Part{Number: 1, Size: 10, Body: bytes.NewReader(make([]byte, 10)), Release: func() { close(stored) }}
				if yield(p, nil) {
					<-stored
					yield(upload.Part{}, gone)
				}
			}
		}
		_, err := upload.Send(t.Context(), upload.Config{Store: store, Key: testKey,
			Keep: func(err error) bool { return keep && errors.Is(err, gone) }}, parts)
		var kept *upload.UnfinishedError
		if errors.As(err, &kept) != keep || !errors.Is(err, gone) || len(store.uploads) > 0 != keep {
			t.Errorf("keep %v: %v, %d uploads are left", keep, err, len(store.uploads))
		}
	}
}

// A run that is to resume nothing begins an upload of its own, and leaves the other one as it is.
func TestResumeNone(t *testing.T) {
	store := newFakeStore()
	other := store.leave(testKey, map[int][]byte{1: make([]byte, 10)})
	result, err := upload.Send(t.Context(), upload.Config{Store: store, Key: testKey, ResumeNone: true}, tens(3))
	if err != nil || result.Resumed || result.Sent != 30 || len(store.uploads) != 1 || store.uploads[0].UploadID != other {
		t.Errorf("%+v, %v; left %v", result, err, store.uploads)
	}
}
