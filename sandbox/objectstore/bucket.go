package objectstore

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// bucket is a bucket in memory. Store.mu guards objects and uploads.
type bucket struct {
	name    string
	dir     string
	created time.Time
	objects []*object // ascending by key
	uploads map[string]*upload
}

type bucketRecord struct {
	Created time.Time
}

// recordKey is a key as records spell it: JSON can't hold every byte that a key may have.
type recordKey string

// MarshalText escapes what isn't plain.
func (k recordKey) MarshalText() ([]byte, error) { return []byte(escape(string(k), true)), nil }

// UnmarshalText undoes MarshalText.
func (k *recordKey) UnmarshalText(p []byte) error {
	s, err := unescape(string(p))
	*k = recordKey(s)
	return err
}

// object is the record of an object. It is never changed once made.
type object struct {
	Key      recordKey
	Size     int64
	ETag     string // without quotes
	Modified time.Time
	// Header is what is sent with the object: Content-Type and the like, x-amz-meta-*, storage
	// class. Names are lower-case.
	Header map[string]string `json:",omitempty"`
	// Checksums are the object's x-amz-checksum headers; only some answers have them.
	Checksums map[string]string `json:",omitempty"`
	Tags      []tag             `json:",omitempty"`
	// Upload is the multipart upload that the object was completed from, Parts the sizes of its parts in
	// bytes. Copies have the parts too, as they have the ETag.
	Upload  string  `json:",omitempty"`
	Parts   []int64 `json:",omitempty"`
	Content content
}

type tag struct{ Key, Value string }

func newBucket(d disk, name string) *bucket {
	return &bucket{name: name, dir: d.path(bucketsDir, bucketPrefix+name), uploads: make(map[string]*upload)}
}

func (b *bucket) objectsDir() string         { return filepath.Join(b.dir, "objects") }
func (b *bucket) uploadsDir() string         { return filepath.Join(b.dir, "uploads") }
func (b *bucket) uploadLog(id string) string { return filepath.Join(b.uploadsDir(), id+uploadSuffix) }

// objectFile is where a key's record lies.
func (b *bucket) objectFile(key string) string {
	sum := sha256.Sum256([]byte(key))
	return filepath.Join(b.objectsDir(), hex.EncodeToString(sum[:])+".json")
}

// find returns where key is among the objects, or would be.
func (b *bucket) find(key string) (int, bool) {
	return slices.BinarySearchFunc(b.objects, key, func(o *object, key string) int {
		return strings.Compare(string(o.Key), key)
	})
}

// object returns the object of a key, or nil.
func (b *bucket) object(key string) *object {
	if i, ok := b.find(key); ok {
		return b.objects[i]
	}
	return nil
}

// CreateBucket makes a bucket. It fails with ErrBucketExists if there is one of that name, and with
// an *Error of code InvalidBucketName.
func (s *Store) CreateBucket(name string) error {
	if !validBucketName(name) {
		return errBucketName
	}
	if !s.enter() {
		return errShutdown
	}
	defer s.leave()
	b := newBucket(s.disk, name)
	b.created = s.now()
	tmp := s.disk.tempPath()
	if err := s.writeBucket(tmp, bucketRecord{Created: b.created}); err != nil {
		os.RemoveAll(tmp)
		return err
	}
	s.disk.at("bucket written")
	s.mu.Lock()
	err := error(ErrBucketExists)
	if s.buckets[name] == nil {
		if err = os.Rename(tmp, b.dir); err == nil {
			s.buckets[name] = b
		}
	}
	s.mu.Unlock()
	if err != nil {
		os.RemoveAll(tmp)
		return err
	}
	s.disk.at("bucket renamed")
	return s.disk.syncDir(s.disk.path(bucketsDir))
}

// writeBucket makes an empty bucket in dir, which nobody else looks at yet.
func (s *Store) writeBucket(dir string, rec bucketRecord) error {
	for _, sub := range []string{"objects", "uploads"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return err
		}
	}
	tmp, err := s.disk.writeRecord(rec)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(dir, bucketFile)); err != nil {
		return err
	}
	return s.disk.syncDir(dir)
}

// deleteBucket removes a bucket without objects, and its unfinished uploads with it, as S3 does.
func (s *Store) deleteBucket(name string) error {
	trash := s.disk.tempPath()
	s.mu.Lock()
	b := s.buckets[name]
	err := error(nil)
	switch {
	case b == nil:
		err = ErrNoSuchBucket
	case len(b.objects) > 0:
		err = ErrBucketNotEmpty
	default:
		if err = os.Rename(b.dir, trash); err == nil {
			delete(s.buckets, name)
		}
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	s.disk.at("bucket unlinked")
	if err := s.disk.syncDir(s.disk.path(bucketsDir)); err != nil {
		return err
	}
	// Nobody finds the uploads any more; whoever found one before is waited for.
	for _, u := range b.uploads {
		u.mu.Lock()
		if !u.gone {
			s.dropUpload(u)
		}
		u.mu.Unlock()
	}
	return os.RemoveAll(trash)
}

// precondition is what a write demands of the object that it replaces: ETags as HTTP writes them,
// or empty.
type precondition struct {
	ifMatch, ifNoneMatch string
}

func (c precondition) check(old *object) error {
	switch {
	case c.ifMatch != "" && old == nil:
		return ErrNoSuchKey
	case c.ifMatch != "" && !etagMatches(c.ifMatch, old.ETag),
		c.ifNoneMatch != "" && old != nil && etagMatches(c.ifNoneMatch, old.ETag):
		return errPrecondition
	}
	return nil
}

// commit makes o the object of its key. It takes over the reference to o's content that the caller
// holds, and lets go of it if it fails.
func (s *Store) commit(bucket string, o *object, cond precondition) error {
	b, old, err := s.place(bucket, o, cond)
	if err != nil {
		s.drop(o.Content)
		return err
	}
	s.disk.at("object renamed")
	if err := s.disk.syncDir(b.objectsDir()); err != nil {
		// The disk may have the old record or the new: keep the segments of both.
		return err
	}
	if old != nil {
		s.drop(old.Content)
		s.disk.at("old object released")
	}
	return nil
}

// place writes o's record and puts it in the place of the key's old object.
func (s *Store) place(bucket string, o *object, cond precondition) (b *bucket, old *object, err error) {
	if len(o.Content) > maxRuns {
		return nil, nil, errInvalidRequest.because("The object would be made of too many pieces")
	}
	tmp, err := s.disk.writeRecord(o)
	if err != nil {
		return nil, nil, err
	}
	s.disk.at("object written")
	if b, old, err = s.exchange(bucket, o, cond, tmp); err != nil {
		os.Remove(tmp)
	}
	return b, old, err
}

// exchange puts the record in tmp, and o, in the place of the key's old object.
func (s *Store) exchange(bucket string, o *object, cond precondition, tmp string) (b *bucket, old *object, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b = s.buckets[bucket]
	if b == nil {
		return nil, nil, ErrNoSuchBucket
	}
	i, found := b.find(string(o.Key))
	if found {
		old = b.objects[i]
	}
	if err := cond.check(old); err != nil {
		return nil, nil, err
	}
	if err := os.Rename(tmp, b.objectFile(string(o.Key))); err != nil {
		return nil, nil, err
	}
	if found {
		b.objects[i] = o
	} else {
		b.objects = slices.Insert(b.objects, i, o)
	}
	return b, old, nil
}

// RemoveObject deletes an object. Deleting one that does not exist is no error; ErrNoSuchBucket is.
func (s *Store) RemoveObject(bucket, key string) error {
	if !s.enter() {
		return errShutdown
	}
	defer s.leave()
	return s.removeObjects(bucket, []string{key})
}

// removeObjects deletes objects, durably when it returns. It stops at the first failure.
func (s *Store) removeObjects(bucket string, keys []string) error {
	s.mu.RLock()
	b := s.buckets[bucket]
	s.mu.RUnlock()
	if b == nil {
		return ErrNoSuchBucket
	}
	var old []*object
	var err error
	for _, key := range keys {
		var o *object
		if o, err = s.unlinkObject(b, key); err != nil {
			break
		}
		if o != nil {
			old = append(old, o)
		}
	}
	s.disk.at("objects unlinked")
	if serr := s.disk.syncDir(b.objectsDir()); serr != nil {
		return serr
	}
	for _, o := range old {
		s.drop(o.Content)
	}
	return err
}

// unlinkObject takes one object out of the bucket and returns it, or nil if there was none.
func (s *Store) unlinkObject(b *bucket, key string) (*object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, found := b.find(key)
	if !found {
		return nil, nil
	}
	o := b.objects[i]
	if err := os.Remove(b.objectFile(key)); err != nil {
		return nil, err
	}
	b.objects = slices.Delete(b.objects, i, i+1)
	return o, nil
}

// validBucketName applies the rules of S3: 3 to 63 of a-z, 0-9, hyphen and dot, a letter or digit
// at both ends, no two dots in a row, not an IP address.
func validBucketName(name string) bool {
	if len(name) < 3 || len(name) > 63 || strings.Contains(name, "..") {
		return false
	}
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case (c == '-' || c == '.') && i > 0 && i < len(name)-1:
		default:
			return false
		}
	}
	_, err := netip.ParseAddr(name)
	return err != nil
}
