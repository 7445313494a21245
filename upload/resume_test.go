package upload_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"imgferry/upload"
)

// part returns the n-th part of testStream, from 1.
func part(n int) []byte {
	data := testStream()
	return data[(n-1)*1200 : min(n*1200, len(data))]
}

func damaged(data []byte) []byte {
	data = slices.Clone(data)
	data[len(data)/2] ^= 1
	return data
}

// leave puts an unfinished upload with these parts into the store.
func (s *fakeStore) leave(key string, parts map[int][]byte) string {
	id := s.begin(key, nil)
	maps.Copy(s.find(id).parts, parts)
	return id
}

func allParts() map[int][]byte {
	parts := map[int][]byte{}
	for n := 1; n <= testParts; n++ {
		parts[n] = part(n)
	}
	return parts
}

func TestResume(t *testing.T) {
	for _, c := range []struct {
		name    string
		parts   map[int][]byte
		buffers int
		resumed bool
		adopted bool  // used, though there was nothing to resume
		sent    []int // the part numbers that go over the line
	}{
		{name: "everything is there", parts: allParts(), resumed: true},
		{name: "the first only", parts: map[int][]byte{1: part(1)}, resumed: true, sent: []int{2, 3, 4, 5, 6, 7}},
		{name: "the third only", parts: map[int][]byte{3: part(3)}, resumed: true, sent: []int{1, 2, 4, 5, 6, 7}},
		{name: "with gaps", parts: map[int][]byte{1: part(1), 3: part(3), 6: part(6)}, resumed: true, sent: []int{2, 4, 5, 7}},
		{name: "parts beyond our last", parts: map[int][]byte{1: part(1), 8: part(1), 9000: part(2)}, resumed: true, sent: []int{2, 3, 4, 5, 6, 7}},
		{name: "a later part differs", parts: map[int][]byte{1: part(1), 5: damaged(part(5))}, resumed: true, sent: []int{2, 3, 4, 5, 6, 7}},
		{name: "a later part is shorter", parts: map[int][]byte{1: part(1), 5: part(5)[:100]}, resumed: true, sent: []int{2, 3, 4, 5, 6, 7}},
		{name: "no part", parts: map[int][]byte{}, adopted: true},
		{name: "none of the first three", parts: map[int][]byte{4: part(4)}},
		{name: "the first differs", parts: map[int][]byte{1: damaged(part(1)), 2: part(2), 3: part(3)}, resumed: true, sent: []int{1, 4, 5, 6, 7}},
		{name: "the third was cut short", parts: map[int][]byte{1: part(1), 2: part(2), 3: part(3)[:600]}, resumed: true, sent: []int{3, 4, 5, 6, 7}},
		{name: "all of the first three differ", parts: map[int][]byte{1: damaged(part(1)), 2: damaged(part(2)), 3: damaged(part(3)), 4: part(4)}},
		{name: "another part size", parts: map[int][]byte{1: testStream()[:1500], 2: testStream()[1500:3000]}},
		{name: "two buffers look at two parts", buffers: 2, parts: map[int][]byte{2: part(2), 3: damaged(part(3))}, resumed: true, sent: []int{1, 3, 4, 5, 6, 7}},
	} {
		both(t, c.name, func(t *testing.T, raw bool) {
			if raw && c.buffers > 0 {
				t.Skip("raw parts take no buffers")
			}
			store := newFakeStore()
			id := store.leave(testKey, c.parts)
			r := newRun(store)
			r.raw = raw
			if c.buffers > 0 {
				r.config.Buffers = c.buffers
			}
			result, err := r.send(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			left, want := 0, c.sent
			if !c.resumed {
				want = []int{1, 2, 3, 4, 5, 6, 7}
			}
			if !c.resumed && !c.adopted {
				left = 1
			}
			r.check(t, result, err, left)
			if result.Resumed != c.resumed || (result.UploadID == id) != (c.resumed || c.adopted) {
				t.Errorf("result %+v", result)
			}
			var sent []int
			for n := range store.puts {
				sent = append(sent, n)
			}
			if slices.Sort(sent); !slices.Equal(sent, want) {
				t.Errorf("sent parts %v, want %v", sent, want)
			}
			if len(r.notices) != 1 || strings.Contains(r.notices[0], "resumed") != c.resumed {
				t.Errorf("notices %q", r.notices)
			}
		})
	}
}

// Of several uploads, the newest that holds our parts is taken, of exactly our key.
func TestResumeChooses(t *testing.T) {
	both(t, "newest", func(t *testing.T, raw bool) {
		store := newFakeStore()
		store.leave(testKey, allParts())
		want := store.leave(testKey, map[int][]byte{1: part(1)})
		store.leave(testKey, map[int][]byte{1: damaged(part(1))})
		store.leave(testKey, nil)
		store.leave(testKey+".mf", allParts())
		r := newRun(store)
		r.raw = raw
		result, err := r.send(t.Context())
		if err != nil || result.UploadID != want {
			t.Errorf("resumed %s, want %s: %v", result.UploadID, want, err)
		}
		r.check(t, result, err, 4)
	})
}

// Trouble with one unfinished upload does not keep us from the others.
func TestResumePassesOver(t *testing.T) {
	for name, f := range map[string]fault{
		"ended":  {err: noUpload()},
		"denied": {err: denied()},
		"500":    {err: status(500, "InternalError")},
	} {
		both(t, name, func(t *testing.T, raw bool) {
			store := newFakeStore()
			older := store.leave(testKey, allParts())
			newer := store.leave(testKey, allParts())
			store.fault = failing("Parts", 1, f)
			r := newRun(store)
			r.raw = raw
			result, err := r.send(t.Context())
			r.check(t, result, err, 1)
			want := older
			if name == "500" {
				want = newer // tried again
			}
			if err != nil || result.UploadID != want {
				t.Errorf("resumed %s: %v", result.UploadID, err)
			}
		})
	}
}

// A resumed upload that vanishes is an error, not an endless loop.
func TestResumedUploadVanishes(t *testing.T) {
	both(t, "vanishes", func(t *testing.T, raw bool) {
		store := newFakeStore()
		id := store.leave(testKey, map[int][]byte{1: part(1)})
		store.fault = func(c call) fault {
			if c.method == "PutPart" && c.part == 4 {
				store.mu.Lock()
				store.drop(id)
				store.mu.Unlock()
			}
			return fault{}
		}
		r := newRun(store)
		r.raw = raw
		result, err := r.send(t.Context())
		if !errors.Is(err, upload.ErrNoUpload) {
			t.Error(err)
		}
		r.check(t, result, err, 0)
	})
}

// An upload of the same key that somebody else begins while our Begin fails is not taken for ours
// once it has parts.
func TestLostBeginLeavesOthersAlone(t *testing.T) {
	both(t, "others", func(t *testing.T, raw bool) {
		store := newFakeStore()
		store.fault = func(c call) fault {
			if c.method == "Begin" && c.n == 1 {
				store.mu.Lock()
				store.leave(testKey, map[int][]byte{1: damaged(part(1))})
				store.mu.Unlock()
				return fault{err: reset()}
			}
			return fault{}
		}
		r := newRun(store)
		r.raw = raw
		result, err := r.send(t.Context())
		r.check(t, result, err, 1)
		if err != nil || result.UploadID == "upload-1" {
			t.Errorf("%+v, %v", result, err)
		}
	})
}

// An empty upload that was there before is used, and nothing begun beside it.
func TestEmptyUploadIsUsed(t *testing.T) {
	both(t, "older", func(t *testing.T, raw bool) {
		store := newFakeStore()
		older := store.leave(testKey, nil)
		r := newRun(store)
		r.raw = raw
		result, err := r.send(t.Context())
		r.check(t, result, err, 0)
		if err != nil || result.UploadID != older || result.Resumed || store.calls["Begin"] != 0 {
			t.Errorf("%+v, %v", result, err)
		}
	})
}
