package upload_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"imgferry/upload"
)

// All requests of a run share a budget of repetitions.
func TestRetryBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := upload.NewRetryBudget(10)
		tries := 0
		var gave *upload.GaveUpError
		for range 3 {
			err := upload.Retry(t.Context(), upload.Policy{Tries: 5, Run: budget}, "do it", func(context.Context) error {
				tries++
				return reset()
			})
			if !errors.As(err, &gave) {
				t.Fatal(err)
			}
		}
		if tries != 5+5+3 || !gave.Run || budget.Used() != 10 || !strings.Contains(gave.Error(), "of this run") || !upload.Temporary(gave) {
			t.Errorf("%d tries, %d used: %v", tries, budget.Used(), gave)
		}
	})
}

// An interrupt early in a resumed run tells of all parts that the store has.
func TestPartsOfInterruptedResume(t *testing.T) {
	both(t, "early", func(t *testing.T, raw bool) {
		store := newFakeStore()
		store.leave(testKey, map[int][]byte{1: part(1), 2: part(2), 6: part(6)})
		ctx, cancel := context.WithCancelCause(t.Context())
		store.fault = func(c call) fault {
			if c.method == "PutPart" {
				return fault{hang: true, cancel: func() { cancel(upload.ErrInterrupted) }}
			}
			return fault{}
		}
		r := newRun(store)
		r.raw = raw
		_, err := r.send(ctx)
		var kept *upload.UnfinishedError
		if !errors.As(err, &kept) || kept.PartsDone != 3 {
			t.Error(err)
		}
	})
}

// creator is a store that knows the condition of CompleteNew, or says that it does not.
type creator struct {
	*fakeStore
	refuse error
	asked  int
}

func (c *creator) CompleteNew(ctx context.Context, key, id string, parts []upload.StoredPart) (string, error) {
	c.asked++
	if c.refuse != nil {
		return "", c.refuse
	}
	if _, ok := c.objects[key]; ok {
		return "", &upload.Error{Op: "complete", Status: 412, Code: "PreconditionFailed", Class: upload.ErrReplaced}
	}
	return c.Complete(ctx, key, id, parts)
}

func TestCreateOnly(t *testing.T) {
	for name, c := range map[string]struct {
		there  []byte // the object that came up meanwhile
		refuse error
		only   bool
		fails  bool
	}{
		"new":                {only: true},
		"the same came up":   {only: true, there: testStream()},
		"another came up":    {only: true, there: []byte("x"), fails: true},
		"it may be replaced": {there: []byte("x")},
		"no such condition":  {only: true, there: []byte("x"), refuse: &upload.Error{Status: 501, Code: "NotImplemented"}},
	} {
		t.Run(name, func(t *testing.T) {
			store := &creator{fakeStore: newFakeStore(), refuse: c.refuse}
			if c.there != nil {
				store.objects[testKey] = fakeObject{data: c.there, etag: md5s(c.there, 1200)}
			}
			r := newRun(store.fakeStore)
			r.config.Store = store
			r.config.CreateOnly = func() bool { return c.only }
			_, err := r.send(t.Context())
			if (err != nil) != c.fails || c.fails && !errors.Is(err, upload.ErrReplaced) {
				t.Error(err)
			}
			if !c.fails && !store.holds(testKey, r.data) || c.fails && !store.holds(testKey, c.there) {
				t.Error("the object is another one")
			}
			if len(store.uploads) != 0 || (store.asked > 0) != c.only {
				t.Errorf("%d uploads are left, asked %d times", len(store.uploads), store.asked)
			}
		})
	}
}

// A limit holds for all parts together, and waiting for it is not taken for a stalled link.
func TestLimit(t *testing.T) {
	both(t, "limit", func(t *testing.T, raw bool) {
		r := newRun(newFakeStore())
		r.raw = raw
		r.config.Workers = 1                     // the store's lock is held while a body is read, and virtual time stands still for who waits
		r.config.Limit = rate.NewLimiter(10, 10) // bytes: 770 s for the object, more than any deadline
		start := time.Now()
		result, err := r.send(t.Context())
		r.check(t, result, err, 0)
		if took := time.Since(start); took < 700*time.Second {
			t.Errorf("%d bytes in %v", result.Size, took)
		}
	})
}

// Where ETags are no MD5s, what the journal noted is resumed, and nothing else.
func TestJournalWithoutMD5(t *testing.T) {
	for _, encrypts := range []string{"words", "kms"} {
		for _, journaled := range []bool{true, false} {
			t.Run(fmt.Sprint(encrypts, journaled), func(t *testing.T) { testJournalWithoutMD5(t, encrypts, journaled) })
		}
	}
}

func testJournalWithoutMD5(t *testing.T, encrypts string, journaled bool) {
	store := newFakeStore()
	store.encrypts = encrypts
	dir, id := t.TempDir(), upload.JournalID{Store: "s", Key: testKey, Source: "x"}
	run := func(ctx context.Context, kill bool) (upload.Result, []string, error) {
		r := newRun(store)
		store.said = false // another process
		r.config.Workers = 1
		j, err := upload.OpenJournal(dir, id)
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		if r.config.Resume, err = j.Resume(ctx, store, upload.Policy{}); err != nil {
			t.Fatal(err)
		}
		r.config.Journal = j
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		store.fault = func(c call) fault {
			if kill && c.method == "PutPart" && c.part == 5 {
				return fault{hang: true, cancel: func() { cancel(upload.ErrInterrupted) }}
			}
			return fault{}
		}
		r.raw = true
		parts := upload.RawPlan{Size: int64(len(r.data)), PartSize: 1200, Count: testParts}.Parts(r.source)
		result, err := upload.Send(ctx, r.config, r.config.Resume.Mark(parts))
		return result, r.notices, err
	}
	_, says, err := run(t.Context(), true)
	var kept *upload.UnfinishedError
	if !errors.As(err, &kept) || kept.PartsDone != 4 || strings.Count(strings.Join(says, ""), "no MD5s") != 1 {
		t.Fatalf("%v, %q", err, says)
	}
	if !journaled {
		dir = t.TempDir()
	}
	result, says, err := run(t.Context(), false)
	if err != nil || !result.Unverified || result.Resumed != journaled || (result.Skipped == 4*1200) != journaled || !store.holds(testKey, testStream()) {
		t.Errorf("%+v, %v", result, err)
	}
	if strings.Count(strings.Join(says, ""), "no MD5s") != 1 || store.bare[7] {
		t.Errorf("says %q; %v", says, store.bare)
	}
}
