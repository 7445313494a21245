package upload_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"imgferry/upload"
)

// A fakeStore keeps one bucket in memory and fails as it is told.
type fakeStore struct {
	// fault, if not nil, is asked about each call.
	fault func(call) fault
	// encrypts says how the store encrypts: "words" are ETags that have no form of an MD5, "kms" ones that have
	// it and are none, which the answers to PutPart and Stat say.
	encrypts string

	mu      sync.Mutex
	uploads []*fakeUpload
	objects map[string]fakeObject
	calls   map[string]int // by method
	puts    map[int]int    // by part number, as far as they had an effect
	bare    map[int]bool   // by part number: the last came without its MD5
	said    bool           // PutPart has answered
	nextID  int
}

type fakeUpload struct {
	upload.Unfinished
	meta  upload.Metadata
	parts map[int][]byte
}

type fakeObject struct {
	data []byte
	etag string
	meta upload.Metadata
}

// call is the n-th call (from 1) of a method; part is its part number or 0.
type call struct {
	method  string
	n, part int
}

// fault says how a call fails. The zero fault is none.
type fault struct {
	err    error  // returned instead of the answer
	after  bool   // the call has its effect before the fault
	hang   bool   // waits for the end of the context
	cancel func() // called; the context is then expected to have ended
	read   int64  // bytes of the body that are read before the fault
	etag   string // returned instead of the true one
}

func newFakeStore() *fakeStore {
	return &fakeStore{objects: map[string]fakeObject{}, calls: map[string]int{}, puts: map[int]int{}, bare: map[int]bool{}}
}

// etag is what the store makes of data that came in an upload, or of an object that was put ("").
func (s *fakeStore) etag(id string, data []byte) string {
	switch s.encrypts {
	case "words":
		return fmt.Sprintf("x-%x", md5.Sum(data))
	case "kms":
		return fmt.Sprintf("%x", md5.Sum(append([]byte("key of "+id), data...)))
	}
	return fmt.Sprintf("%x", md5.Sum(data))
}

func (s *fakeStore) OpaqueETags() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.encrypts == "kms" && s.said
}

// failing is a fault function: the calls of method from the first to the n-th fail.
func failing(method string, n int, f fault) func(call) fault {
	return func(c call) fault {
		if c.method == method && c.n <= n {
			return f
		}
		return fault{}
	}
}

func status(code int, word string) *upload.Error {
	return &upload.Error{Op: "test", Status: code, Code: word, Temporary: code >= 500 || code == 429}
}

func reset() *upload.Error {
	return &upload.Error{Op: "test", Temporary: true, Err: errors.New("connection reset by peer")}
}

func denied() *upload.Error {
	return &upload.Error{Op: "test", Status: 403, Code: "AccessDenied", Class: upload.ErrDenied}
}

func noUpload() *upload.Error {
	return &upload.Error{Op: "test", Status: 404, Code: "NoSuchUpload", Class: upload.ErrNoUpload}
}

// do runs one call: its effect, with the fault around it.
func (s *fakeStore) do(ctx context.Context, method string, part int, body io.Reader, effect func() error) (fault, error) {
	s.mu.Lock()
	s.calls[method]++
	n := s.calls[method]
	s.mu.Unlock()
	var f fault
	if s.fault != nil {
		f = s.fault(call{method, n, part})
	}
	fail := func() error {
		if f.cancel != nil {
			f.cancel()
		}
		if f.hang {
			<-ctx.Done()
		}
		return cmp.Or(f.err, ctx.Err())
	}
	if !f.after {
		io.CopyN(io.Discard, body, f.read)
		if err := fail(); err != nil {
			return f, err
		}
	}
	s.mu.Lock()
	err := effect()
	s.mu.Unlock()
	if f.after {
		err = fail()
	}
	return f, err
}

func (s *fakeStore) find(id string) *fakeUpload {
	for _, u := range s.uploads {
		if u.UploadID == id {
			return u
		}
	}
	return nil
}

func (s *fakeStore) drop(id string) {
	s.uploads = slices.DeleteFunc(s.uploads, func(u *fakeUpload) bool { return u.UploadID == id })
}

func (s *fakeStore) begin(key string, meta upload.Metadata) string {
	s.nextID++
	id := fmt.Sprintf("upload-%d", s.nextID)
	s.uploads = append(s.uploads, &fakeUpload{
		Unfinished: upload.Unfinished{Key: key, UploadID: id, Initiated: time.Unix(int64(s.nextID), 0)},
		meta:       meta,
		parts:      map[int][]byte{},
	})
	return id
}

func (s *fakeStore) Begin(ctx context.Context, key string, meta upload.Metadata) (string, error) {
	var id string
	_, err := s.do(ctx, "Begin", 0, nil, func() error {
		id = s.begin(key, meta)
		return nil
	})
	if err != nil {
		return "", err
	}
	return id, nil
}

func (s *fakeStore) PutPart(ctx context.Context, key, id string, number int, body io.ReadSeeker, size int64, sum *[md5.Size]byte) (string, error) {
	etag, err := s.putPart(ctx, key, id, number, body, size, sum)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = s.said || err == nil
	return etag, err
}

func (s *fakeStore) putPart(ctx context.Context, key, id string, number int, body io.ReadSeeker, size int64, sum *[md5.Size]byte) (string, error) {
	var etag string
	f, err := s.do(ctx, "PutPart", number, body, func() error {
		data, err := io.ReadAll(body)
		if err != nil {
			return reset() // all that an HTTP client tells
		}
		u := s.find(id)
		switch {
		case u == nil || u.Key != key:
			return noUpload()
		case int64(len(data)) != size:
			return status(400, "IncompleteBody")
		case sum != nil && *sum != md5.Sum(data):
			return status(400, "BadDigest")
		}
		u.parts[number] = data
		s.puts[number]++
		s.bare[number] = sum == nil
		etag = s.etag(id, data)
		return nil
	})
	if f.etag != "" {
		etag = f.etag
	}
	return etag, err
}

func (s *fakeStore) Parts(ctx context.Context, key, id string) ([]upload.StoredPart, error) {
	var parts []upload.StoredPart
	_, err := s.do(ctx, "Parts", 0, nil, func() error {
		u := s.find(id)
		if u == nil {
			return noUpload()
		}
		for n, data := range u.parts {
			parts = append(parts, upload.StoredPart{Number: n, Size: int64(len(data)), ETag: s.etag(id, data)})
		}
		slices.SortFunc(parts, func(a, b upload.StoredPart) int { return a.Number - b.Number })
		return nil
	})
	if err != nil {
		return nil, err
	}
	return parts, nil
}

func (s *fakeStore) Uploads(ctx context.Context, prefix string) ([]upload.Unfinished, error) {
	var found []upload.Unfinished
	_, err := s.do(ctx, "Uploads", 0, nil, func() error {
		for _, u := range s.uploads {
			if strings.HasPrefix(u.Key, prefix) {
				found = append(found, u.Unfinished)
			}
		}
		slices.Reverse(found)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

func (s *fakeStore) Complete(ctx context.Context, key, id string, parts []upload.StoredPart) (string, error) {
	var etag string
	_, err := s.do(ctx, "Complete", 0, nil, func() error {
		u := s.find(id)
		if u == nil {
			return noUpload()
		}
		var data, sums []byte
		for i, p := range parts {
			got := u.parts[p.Number]
			sum := md5.Sum(got)
			if i > 0 && p.Number <= parts[i-1].Number || p.ETag != s.etag(id, got) {
				return status(400, "InvalidPart")
			}
			data, sums = append(data, got...), append(sums, sum[:]...)
		}
		etag = fmt.Sprintf("%s-%d", s.etag(id, sums), len(parts))
		s.objects[key] = fakeObject{data, etag, u.meta}
		s.drop(id)
		return nil
	})
	return etag, err
}

func (s *fakeStore) Abort(ctx context.Context, key, id string) error {
	_, err := s.do(ctx, "Abort", 0, nil, func() error {
		s.drop(id)
		return nil
	})
	return err
}

func (s *fakeStore) Stat(ctx context.Context, key string) (upload.Object, error) {
	var object upload.Object
	f, err := s.do(ctx, "Stat", 0, nil, func() error {
		o, ok := s.objects[key]
		if !ok {
			return &upload.Error{Op: "test", Status: 404, Class: upload.ErrNoObject}
		}
		object = upload.Object{Key: key, Size: int64(len(o.data)), ETag: o.etag, Opaque: s.encrypts == "kms", Metadata: o.meta}
		return nil
	})
	if f.etag != "" {
		object.ETag = f.etag
	}
	return object, err
}

// holds reports whether key is an object of exactly these bytes.
func (s *fakeStore) holds(key string, data []byte) bool {
	o, ok := s.objects[key]
	return ok && bytes.Equal(o.data, data)
}
