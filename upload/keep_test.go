package upload

import (
	"context"
	"crypto/md5"
	"errors"
	"strings"
	"testing"
	"time"
)

// An upload is kept only if a later run will know it for its own.
func TestResumable(t *testing.T) {
	noted := openTest(t, t.TempDir(), testID)
	if err := noted.begin("u"); err != nil {
		t.Fatal(err)
	}
	if err := noted.add(testPart(5, 2)); err != nil {
		t.Fatal(err)
	}
	if err := noted.f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := noted.add(testPart(6, 2)); err == nil {
		t.Fatal("a closed file takes records")
	}
	empty := openTest(t, t.TempDir(), testID)
	if err := empty.begin("u"); err != nil {
		t.Fatal(err)
	}
	broken := openTest(t, t.TempDir(), testID)
	if err := broken.f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := broken.begin("u"); err == nil {
		t.Fatal("a closed file takes a head")
	}
	if err := broken.add(testPart(1, 1)); err != nil {
		t.Errorf("the failure is told twice: %v", err)
	}

	for _, c := range []struct {
		name       string
		config     Config
		done       []int
		resumed    bool
		unverified bool
		want       bool
	}{
		{name: "nothing stored"},
		{name: "a first part", done: []int{3}, want: true},
		{name: "later parts only", done: []int{4, 5}},
		{name: "a buffer short of the third part", config: Config{Buffers: 2}, done: []int{3}},
		{name: "resumed", resumed: true, want: true},
		{name: "later parts in a journal", config: Config{Journal: noted}, done: []int{5}, want: true},
		{name: "a journal without parts", config: Config{Journal: empty}, done: []int{5}},
		{name: "a journal that could not be written", config: Config{Journal: broken}, done: []int{5}},
		{name: "the first part all the same", config: Config{Journal: broken}, done: []int{1}, want: true},
		{name: "by the journal only, without one", config: Config{JournalOnly: true}, done: []int{1}},
		{name: "by the journal only, unwritable", config: Config{JournalOnly: true, Journal: broken}, done: []int{1}},
		{name: "by the journal only", config: Config{JournalOnly: true, Journal: noted}, done: []int{1}, want: true},
		{name: "ETags that say nothing", done: []int{1}, unverified: true},
		{name: "ETags that say nothing, and a journal", config: Config{Journal: noted}, done: []int{1}, unverified: true, want: true},
	} {
		s := newSender(c.config)
		s.uploadID, s.resumed = "u", c.resumed
		s.unverified.Store(c.unverified)
		for _, n := range c.done {
			s.done[n] = donePart{StoredPart{Number: n, Size: 1}, md5.Sum(nil)}
		}
		if got := s.resumable(); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	if noted.knows("another") {
		t.Error("the journal knows another upload")
	}
}

// What was noted for an upload says nothing of the next one, nor what was noted before the journal was reset.
func TestJournalKnows(t *testing.T) {
	dir := t.TempDir()
	j := openTest(t, dir, testID)
	expect := func(when, id string, want bool) {
		t.Helper()
		if got := j.knows(id); got != want {
			t.Errorf("%s: %v", when, got)
		}
	}
	expect("new", "u", false)
	j.begin("u")
	expect("begun", "u", false)
	j.add(testPart(1, 1))
	expect("noted", "u", true)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = openTest(t, dir, testID)
	expect("opened again", "u", true)
	j.begin("v")
	expect("another upload", "u", false)
	expect("another upload", "v", false)
	j.add(testPart(2, 1))
	expect("another upload's part", "v", true)
	if err := j.Discard(); err != nil {
		t.Fatal(err)
	}
	expect("discarded", "v", false)
	if (*Journal)(nil).knows("v") {
		t.Error("no journal knows an upload")
	}
}

// A journal that can't be written, for want of room or otherwise, is told of once.
func TestJournalFailureIsTold(t *testing.T) {
	var told []string
	j := openTest(t, t.TempDir(), testID)
	if err := j.f.Close(); err != nil {
		t.Fatal(err)
	}
	s := newSender(Config{Journal: j, Notice: func(text string) { told = append(told, text) }})
	s.enter("u")
	s.note(newJob(Part{Number: 1, Size: 1}), hexSum(md5.Sum(nil)), md5.Sum(nil), new(int64))
	if len(told) != 1 || !strings.Contains(told[0], "Nothing more is noted in the journal") {
		t.Errorf("%q", told)
	}
}

// listed is a bucket of which only the unfinished uploads are asked for.
type listed struct {
	Bucket
	uploads []Unfinished
}

func (l listed) Uploads(context.Context, string) ([]Unfinished, error) { return l.uploads, nil }

// Uploads that only a journal could tell are left alone, and that is told.
func TestJournalOnlyLeavesOthersAlone(t *testing.T) {
	for n, want := range []string{"", "1 unfinished upload of the same key is left alone: ", "2 unfinished uploads of the same key are left alone: "} {
		var told []string
		s := newSender(Config{Key: "k", JournalOnly: true, Notice: func(text string) { told = append(told, text) }})
		s.store = listed{uploads: make([]Unfinished, n)}
		for i := range n {
			s.store.(listed).uploads[i] = Unfinished{Key: "k", UploadID: string(rune('a' + i)), Initiated: time.Now()}
		}
		found, err := s.candidates(t.Context())
		if err != nil || len(found) > 0 || len(s.known) != n {
			t.Errorf("%d: %v, %v", n, found, err)
		}
		if text := strings.Join(told, " "); !strings.HasPrefix(text, want) || want == "" && text != "" {
			t.Errorf("%d: %q", n, told)
		}
	}
}

// The sentences name sizes as a user would.
func TestPlanErrors(t *testing.T) {
	_, err := PlanStream(1<<20, 0, 1)
	var memory *MemoryError
	if !errors.As(err, &memory) || err.Error() != "two part buffers of an upload of this size take 21 MiB of memory, and only 1 B are allowed" {
		t.Error(err)
	}
	if _, err = PlanStream(1<<20, 60<<20, 120<<20); !errors.As(err, &memory) || err.Error() != "two part buffers of an upload of this size take 125 MiB of memory, and only 120 MiB are allowed" {
		t.Error(err)
	}
	if plan, err := PlanStream(1<<20, 60<<20, 125<<20); err != nil || int64(plan.Buffers)*plan.BufferSize > 125<<20 {
		t.Errorf("%+v, %v", plan, err)
	}
	for given, words := range map[int64]string{1: "1 B", 5<<20 - 1: "5242879 bytes", 6 << 30: "6.0 GiB"} {
		_, err = PlanStream(1<<20, given, 0)
		var size *PartSizeError
		if !errors.As(err, &size) || err.Error() != "parts of "+words+" won't do: an upload of this size takes parts of 5 MiB to 2560 MiB" {
			t.Error(err)
		}
	}
}

// An object of any size that stores have is copied in ranges that they take.
func TestRanges(t *testing.T) {
	for _, size := range []int64{MaxCopy + 1, 9 << 40, 46 << 40} {
		pieces, end := piecesOf(Object{Size: size}, nil), int64(0)
		for _, p := range pieces {
			if p.offset != end || p.size <= 0 || p.size > MaxCopy {
				t.Fatalf("%d bytes: %+v after %d", size, p, end)
			}
			end += p.size
		}
		if end != size || len(pieces) > MaxParts-HeadParts {
			t.Errorf("%d bytes: %d in %d ranges", size, end, len(pieces))
		}
	}
}
