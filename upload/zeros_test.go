package upload

import (
	"context"
	"crypto/md5"
	"io"
	"maps"
	"strings"
	"sync"
	"testing"
)

// zeroStore is a store of nothing but zeros: it knows sizes only.
type zeroStore struct {
	Bucket // what no test needs
	mu     sync.Mutex
	sizes  map[string]int64 // of objects
	copies map[string]int   // by the key that they are for
	wrong  string           // the key of an object that is not all zeros
	etags  map[int64]string // of parts, by size
}

// newZeroStore returns one that knows the parts that objects of zeros are made of.
func newZeroStore(t *testing.T) *zeroStore {
	s := &zeroStore{sizes: map[string]int64{}, copies: map[string]int{}, etags: map[int64]string{}}
	sums, err := zeroSums(t.Context(), []int64{seedSize, zerosSize})
	if err != nil {
		t.Fatal(err)
	}
	for size, sum := range sums {
		s.etags[size] = hexSum(sum)
	}
	return s
}

func (s *zeroStore) Uploads(context.Context, string) ([]Unfinished, error) { return nil, nil }

func (s *zeroStore) Begin(context.Context, string, Metadata) (string, error) { return "id", nil }

func (s *zeroStore) Abort(context.Context, string, string) error { return nil }

func (s *zeroStore) Stat(_ context.Context, key string) (Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	size, ok := s.sizes[key]
	if !ok {
		return Object{}, ErrNoObject
	}
	return Object{Key: key, Size: size, ETag: "of " + key}, nil
}

func (s *zeroStore) Put(_ context.Context, key string, _ io.ReadSeeker, size int64, _ *[md5.Size]byte, _ Metadata) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sizes[key] = size
	return s.etags[size], nil
}

func (s *zeroStore) CopyPart(_ context.Context, key, _ string, _ int, from Object, offset, length int64) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if offset < 0 || offset+length > s.sizes[from.Key] || length < minZeros || length > MaxCopy {
		return "", &Error{Op: "copy", Status: 416, Code: "InvalidRange"}
	}
	s.copies[key]++
	if from.Key == s.wrong {
		return strings.Repeat("0", 32), nil
	}
	return s.etags[length], nil
}

func (s *zeroStore) Complete(_ context.Context, key, _ string, parts []StoredPart) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sizes[key] = 0
	for _, p := range parts {
		s.sizes[key] += p.Size
	}
	return "", nil
}

// Objects of zeros are made when they are needed, each of copies of the next smaller one, and only so large.
func TestZeroObjects(t *testing.T) {
	for _, c := range []struct {
		size   int64
		key    string
		copies map[string]int
	}{
		{1, "8MiB", map[string]int{}},
		{seedSize, "8MiB", map[string]int{}},
		{seedSize + 1, "1GiB", map[string]int{"imgferry-zeros/1GiB": 128}},
		{zerosSize, "1GiB", map[string]int{"imgferry-zeros/1GiB": 128}},
		{zerosSize + 1, "5GiB", map[string]int{"imgferry-zeros/1GiB": 128, "imgferry-zeros/5GiB": 5}},
		{mostZeros, "5GiB", map[string]int{"imgferry-zeros/1GiB": 128, "imgferry-zeros/5GiB": 5}},
	} {
		store := newZeroStore(t)
		z := &zeroObjects{bucket: store, store: store, copier: store, policy: Policy{}.withDefaults()}
		for range 2 { // the second time it is there
			o, err := z.get(t.Context(), c.size)
			if err != nil || o.Key != ZeroPrefix+c.key || o.Size < c.size || !maps.Equal(store.copies, c.copies) {
				t.Errorf("%d zeros: %+v, %v, after copies %v", c.size, o, err, store.copies)
			}
			z.forget()
		}
	}
	z := &zeroObjects{copier: new(zeroStore)}
	if o, err := z.get(t.Context(), mostZeros+1); err == nil {
		t.Errorf("%+v", o)
	}
}

// An object that is not all zeros is named, whichever it is.
func TestWrongZerosAreNamed(t *testing.T) {
	for _, key := range []string{"8MiB", "1GiB"} {
		store := newZeroStore(t)
		store.wrong = ZeroPrefix + key
		z := &zeroObjects{bucket: store, store: store, copier: store, policy: Policy{Tries: 1}.withDefaults()}
		if o, err := z.get(t.Context(), mostZeros); err == nil || !strings.Contains(err.Error(), ZeroPrefix+key+" is not all zeros") {
			t.Errorf("%+v, %v", o, err)
		}
	}
}
