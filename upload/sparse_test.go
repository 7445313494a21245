package upload_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"strings"
	"testing"

	"imgferry/upload"
)

// mapOf returns the map of an object of size MiB with data in the ranges of MiB.
func mapOf(size int64, ranges ...[2]int64) *upload.DataMap {
	m := upload.NewDataMap(size * mib)
	for _, r := range ranges {
		m.Add(r[0]*mib, r[1]*mib)
	}
	return m
}

// shape lists a plan's parts as the store would see them, and checks what every plan must satisfy.
func shape(t *testing.T, p upload.SparsePlan) (parts []string) {
	t.Helper()
	var at, data int64
	for part, err := range p.Parts(bytes.NewReader(nil))(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if part.Size < 5*mib && at+part.Size < p.Size || part.Size > 1<<30 {
			t.Errorf("part %d has %d bytes", part.Number, part.Size)
		}
		kind := "data"
		if part.Zeros {
			kind = "zeros"
		} else {
			data += part.Size
		}
		parts = append(parts, fmt.Sprintf("%s %g", kind, float64(part.Size)/mib))
		at += part.Size
	}
	if at != p.Size || data != p.Data || len(parts) != p.Count || p.Count > 9500 {
		t.Errorf("%d parts have %d bytes, %d of data: %+v", len(parts), at, data, p)
	}
	return parts
}

func TestSparsePlan(t *testing.T) {
	for _, c := range []struct {
		m    *upload.DataMap
		want string
	}{
		{mapOf(100), "zeros 100"},
		{mapOf(1100), "zeros 550, zeros 550"},
		{mapOf(100, [2]int64{0, 8}), "data 8, zeros 92"},
		{mapOf(100, [2]int64{0, 1}), "data 5, zeros 95"},             // stretched
		{mapOf(100, [2]int64{4, 5}), "data 5, zeros 95"},             // no part of 4 MiB before it
		{mapOf(100, [2]int64{50, 59}), "zeros 50, data 9, zeros 41"}, // not two of 4.5
		{mapOf(100, [2]int64{0, 5}, [2]int64{9, 12}), "data 6, data 6, zeros 88"},
		{mapOf(100, [2]int64{0, 5}, [2]int64{97, 98}), "data 5, zeros 92, data 3"},
		{mapOf(100, [2]int64{0, 60}), "data 7.5, data 7.5, data 7.5, data 7.5, data 7.5, data 7.5, data 7.5, data 7.5, data 7.5, data 7.5, data 7.5, data 7.5, data 5"}, // copies don't pay
		{mapOf(3), "data 3"},
	} {
		p, err := c.m.Plan(0)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(shape(t, p), ", ")
		if strings.Contains(c.want, "7.5") { // evenly cut
			if strings.Contains(got, "zeros") {
				t.Errorf("%s", got)
			}
			continue
		}
		if got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

// However scattered the data, parts and memory stay within bounds.
func TestSparsePlanOfDust(t *testing.T) {
	const size = 2 << 40
	m := upload.NewDataMap(size)
	r := rand.New(rand.NewPCG(3, 4))
	for at := int64(0); at < size-4096; at += 4096 * (1 + r.Int64N(10_000)) {
		m.Add(at, at+4096)
	}
	p, err := m.Plan(0)
	if err != nil || p.Count > 9000 || p.Count < 2000 {
		t.Errorf("%d parts of %d bytes of data, %v", p.Count, p.Data, err)
	}
}

func TestSparsePlanRefuses(t *testing.T) {
	if _, err := mapOf(0).Plan(0); err == nil {
		t.Error("nothing was planned")
	}
	var size *upload.PartSizeError
	for _, n := range []int64{1, 4 * mib, 3 << 30} {
		if _, err := mapOf(100, [2]int64{0, 100}).Plan(n); !errors.As(err, &size) {
			t.Errorf("parts of %d bytes: %v", n, err)
		}
	}
}

// copyingStore is a store that can copy.
type copyingStore struct {
	*fakeStore
	copied int64
	refuse error // of every copy
	lie    bool  // the copies have something else in them
}

func (s *copyingStore) CopyPart(ctx context.Context, key, id string, number int, from upload.Object, offset, length int64) (string, error) {
	if s.refuse != nil {
		return "", s.refuse
	}
	s.mu.Lock()
	object := s.objects[from.Key]
	data := object.data
	s.mu.Unlock()
	if object.etag != from.ETag {
		return "", &upload.Error{Op: "copy", Status: 412, Code: "PreconditionFailed", Class: upload.ErrReplaced}
	}
	if int64(len(data)) < offset+length {
		return "", status(400, "InvalidRange")
	}
	part := bytes.Clone(data[offset : offset+length])
	if s.lie && key == testKey {
		part[0] = 1
	}
	etag, err := s.putPart(ctx, key, id, number, bytes.NewReader(part), length, nil)
	if err == nil && key == testKey {
		s.mu.Lock()
		s.copied += length
		s.mu.Unlock()
	}
	return etag, err
}

func (s *copyingStore) Put(_ context.Context, key string, body io.ReadSeeker, size int64, sum *[md5.Size]byte, _ upload.Metadata) (string, error) {
	data, err := io.ReadAll(body)
	if err != nil || int64(len(data)) != size || sum == nil || *sum != md5.Sum(data) {
		return "", status(400, "BadDigest")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	etag := s.etag("", data)
	s.objects[key] = fakeObject{data: data, etag: etag}
	return etag, nil
}

// Zeros are copied by a store that can, of an object that is found or made, and sent to one that can't or
// lies. The object is the same.
func TestZeros(t *testing.T) {
	data := testData(10_000)
	clear(data[1000:4000])
	clear(data[7000:])
	parts := func(context.Context) iter.Seq2[upload.Part, error] {
		return func(yield func(upload.Part, error) bool) {
			for i, cut := range []int{0, 1000, 4000, 7000} {
				end := []int{1000, 4000, 7000, 10_000}[i]
				part := upload.Part{Number: i + 1, Size: int64(end - cut), Zeros: i%2 == 1, Body: bytes.NewReader(data[cut:end])}
				if part.Zeros {
					sum := md5.Sum(data[cut:end])
					part.Sum = &sum
				}
				if !yield(part, nil) {
					return
				}
			}
		}
	}
	seed := upload.ZeroKeys()[0]
	for name, c := range map[string]struct {
		prepare func(*copyingStore)
		copied  int64
		says    string
	}{
		"makes the seed":  {func(*copyingStore) {}, 6000, ""},
		"finds the seed":  {func(s *copyingStore) { s.objects[seed] = fakeObject{data: make([]byte, 8*mib), etag: "e"} }, 6000, ""},
		"mends the seed":  {func(s *copyingStore) { s.objects[seed] = fakeObject{data: make([]byte, 9)} }, 6000, ""},
		"is not all zero": {func(s *copyingStore) { s.objects[seed] = fakeObject{data: bytes.Repeat([]byte{7}, 8*mib)} }, 0, "not all zeros"},
		"can't":           {func(s *copyingStore) { s.refuse = &upload.Error{Op: "copy", Status: 501, Code: "NotImplemented"} }, 0, "can't be copied"},
		"keeps failing":   {func(s *copyingStore) { s.refuse = status(500, "InternalError") }, 0, "can't be copied"},
		"may not":         {func(s *copyingStore) { s.refuse = denied() }, 0, "can't be copied"},
		"encrypts":        {func(s *copyingStore) { s.encrypts = "kms" }, 6000, "no MD5s"},
		"damages":         {func(s *copyingStore) { s.lie = true }, 0, "not all zeros"},
	} {
		t.Run(name, func(t *testing.T) {
			store := &copyingStore{fakeStore: newFakeStore()}
			c.prepare(store)
			var says []string
			var progress upload.Progress
			result, err := upload.Send(t.Context(), upload.Config{Store: store, Key: testKey,
				Notice: func(s string) { says = append(says, s) }, Progress: &progress, Retry: upload.Policy{Tries: 1}}, parts)
			if err != nil || !store.holds(testKey, data) {
				t.Fatalf("%+v, %v", result, err)
			}
			if result.Copied != c.copied || progress.Copied() != c.copied || result.Sent+result.Copied != result.Size {
				t.Errorf("%+v", result)
			}
			if all := strings.Join(says, "\n"); c.says != "" && strings.Count(all, c.says) != 1 || c.says == "" && all != "" {
				t.Errorf("says %q", says)
			}
		})
	}
	// A store without copies at all says nothing of it: it is no surprise.
	store := newFakeStore()
	result, err := upload.Send(t.Context(), upload.Config{Store: store, Key: testKey}, parts)
	if err != nil || !store.holds(testKey, data) || result.Sent != 10_000 {
		t.Errorf("%+v, %v", result, err)
	}
}

// The object of zeros tells how the store encrypts, before an answer to a part does: answers to copies don't.
func TestEncryptedZeros(t *testing.T) {
	store := &copyingStore{fakeStore: newFakeStore()}
	store.encrypts = "kms"
	zeros := make([]byte, 1000)
	sum := md5.Sum(zeros)
	result, err := upload.Send(t.Context(), upload.Config{Store: store, Key: testKey}, func(context.Context) iter.Seq2[upload.Part, error] {
		return func(yield func(upload.Part, error) bool) {
			yield(upload.Part{Number: 1, Size: 1000, Zeros: true, Sum: &sum, Body: bytes.NewReader(zeros)}, nil)
		}
	})
	if err != nil || result.Copied != 1000 || !result.Unverified || !store.holds(testKey, zeros) {
		t.Errorf("%+v, %v", result, err)
	}
}
