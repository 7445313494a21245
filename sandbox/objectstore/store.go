// Package objectstore is the sandbox's object store: a small S3 service on net/http that keeps
// everything on the local disk, meant for loopback.
//
// It is honest where tests need a store to be: signatures are verified (header, presigned, and
// each chunk of a signed stream), truncated and altered bodies are refused, Content-MD5 and
// checksums are checked, and ETags are the MD5s that S3 documents. What was acknowledged survives
// kill -9 and power loss; what was not leaves nothing behind.
//
// It is not a general S3 server: it has one owner, no versions, no policies and no encryption, and
// says NotImplemented where asked for them.
//
// # On disk
//
//	VERSION                          what this directory is
//	LOCK                             locked while a Store has it
//	segments/ID                      bytes of bodies as they came in, zero runs left as holes
//	buckets/b-NAME/bucket.json       when it was made
//	buckets/b-NAME/objects/HASH.json one object: key, headers, and the runs of segments it consists of
//	buckets/b-NAME/uploads/ID.log    an unfinished upload, and a line for each part that came in
//	tmp/                             what is being written; emptied by Open
//
// HASH is the SHA-256 of the key, so no key can reach outside its bucket or meet another one on a
// file system that ignores case. An object refers to runs of segments: completing an upload and
// copying an object write one small file, whatever the size of the data, and a body of zeros needs
// no segment at all. A change is made by renaming a file that is already on disk, or by one more
// line in a log; segments that nothing refers to are removed after that, by Open if nobody came to
// it.
//
// # Memory
//
// The objects' records are kept in memory, about 600 bytes for an object, 40 for each run
// and 8 for each part; a
// request under way needs a buffer of 256 KiB.
package objectstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Limits of S3, in bytes unless said otherwise.
const (
	maxKey         = 1024
	maxMetadata    = 8 << 10 // S3 allows 2 KiB; OBS 8 KiB
	maxBody        = 5 << 30 // of one PUT or part
	maxParts       = 10_000  // parts of an upload
	maxXML         = 4 << 20 // a Complete of 10,000 parts with checksums takes about 2 MiB
	maxRuns        = 1 << 20 // runs in an object: copies of copies must not grow a record without end
	defaultMinPart = 5 << 20
)

// Options says how a Store behaves. Only Credentials is needed to be of use over HTTP.
type Options struct {
	// Credentials returns the secret key of an access key; securityToken is what a request with a
	// temporary one brings along, else "". An *Error is sent as it is, any other error is
	// InvalidAccessKeyId. Without Credentials nobody is let in over HTTP. It must be safe for
	// concurrent use.
	Credentials func(accessKey, securityToken string) (secret string, err error)
	// Region is what signatures must be made for. Empty: any.
	Region string
	// Domain adds addressing by host name: BUCKET.Domain. Empty: only by path.
	Domain string
	// Now is the clock, time.Now if nil.
	Now func() time.Time
	// Logger gets failures of the disk at level error and refusals at level debug. Nil: nobody.
	Logger *slog.Logger
	// MinPartSize is the least size in bytes of every part but the last. 0: 5 MiB.
	MinPartSize int64
	// IdleTimeout ends a request whose client neither sends nor takes a byte. 0: 60 s.
	IdleTimeout time.Duration
	// NoSync skips fsync: faster, and nothing survives a power loss. For tests and benchmarks.
	NoSync bool
	// Rules makes the store imitate a stricter one.
	Rules Rules

	// step is called between the durable steps of a change, by the tests of crashes.
	step func(name string)
}

// Rules are ways in which other stores differ from S3. The zero value is S3.
type Rules struct {
	// RefuseTrailers answers 400 XAmzContentSHA256Mismatch to bodies with trailing checksums
	// (x-amz-content-sha256: STREAMING-...-TRAILER).
	RefuseTrailers bool
	// VirtualHostOnly answers 403 VirtualHostDomainRequired to a bucket in the path. HEAD passes,
	// as it does at OBS.
	VirtualHostOnly bool
	// RefuseLiteralHash answers 400 XAmzContentSHA256Mismatch to a request with a body whose
	// x-amz-content-sha256 is the body's hash.
	RefuseLiteralHash bool
	// IgnoreChecksums takes no notice of x-amz-checksum headers. Content-MD5 counts all the same.
	IgnoreChecksums bool
	// ClampCopyRange shortens the range of a part copy that reaches past the end of its source,
	// where S3 refuses it.
	ClampCopyRange bool
}

// OBS returns the rules by which Huawei Cloud's store differs from S3. Its MinPartSize is 100 KiB.
// RefuseLiteralHash stays off: whether OBS refuses the hash of a small XML body is not known.
func OBS() Rules {
	return Rules{RefuseTrailers: true, VirtualHostOnly: true, IgnoreChecksums: true, ClampCopyRange: true}
}

// ErrLocked is wrapped by what Open returns for a directory that another Store has open, in this
// process or another.
var ErrLocked = errors.New("the data directory is in use")

// Store is an open data directory. Its methods are safe for concurrent use.
type Store struct {
	opt      Options
	disk     disk
	segments *segments
	zeros    zeroSums
	unlock   io.Closer

	life    sync.RWMutex // guards closed against running: a request begins before Close or not at all
	closed  bool
	running sync.WaitGroup

	// mu guards everything below, and is held while a file is renamed, so that memory and disk
	// change in the same order. It is never held while something is written or synced.
	mu      sync.RWMutex
	buckets map[string]*bucket
}

// Open opens the store in dir, and makes it if dir is missing or empty. It removes what a crash
// left half done. It fails if dir holds something else, with ErrLocked if dir is in use, and with a
// sentence that names the file if a record is damaged.
func Open(dir string, o Options) (*Store, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MinPartSize <= 0 {
		o.MinPartSize = defaultMinPart
	}
	if o.IdleTimeout <= 0 {
		o.IdleTimeout = time.Minute
	}
	o.Domain = strings.ToLower(o.Domain)

	d := disk{root: dir, noSync: o.NoSync, step: o.step}
	unlock, err := d.claim()
	if err != nil {
		return nil, fmt.Errorf("opening object store %s: %w", dir, err)
	}
	s := &Store{
		opt:      o,
		disk:     d,
		segments: newSegments(d),
		unlock:   unlock,
		buckets:  make(map[string]*bucket),
	}
	if err := s.load(); err != nil {
		unlock.Close()
		return nil, fmt.Errorf("opening object store %s: %w", dir, err)
	}
	return s, nil
}

// Close waits for requests under way and unlocks the directory. Requests that come later are
// answered with 503. Stop the http.Server first, or a slow client keeps Close waiting. Objects
// opened before can still be read.
func (s *Store) Close() error {
	s.life.Lock()
	closed := s.closed
	s.closed = true
	s.life.Unlock()
	s.running.Wait()
	if closed {
		return nil
	}
	return s.unlock.Close()
}

// Healthy returns nil if the store is open and its directory can be reached.
func (s *Store) Healthy() error {
	if !s.enter() {
		return errShutdown
	}
	defer s.leave()
	_, err := os.Stat(s.disk.path(versionFile))
	return err
}

// enter counts an operation in, so that Close waits for it; each true needs a call of leave.
func (s *Store) enter() bool {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.closed {
		return false
	}
	s.running.Add(1)
	return true
}

func (s *Store) leave() { s.running.Done() }

// now is the time as records keep it: UTC, milliseconds as in listings.
func (s *Store) now() time.Time { return s.opt.Now().UTC().Truncate(time.Millisecond) }

// load reads all records and removes what nothing refers to.
func (s *Store) load() error {
	if err := s.disk.emptyTemp(); err != nil {
		return err
	}
	dirs, err := os.ReadDir(s.disk.path(bucketsDir))
	if err != nil {
		return err
	}
	for _, d := range dirs {
		name, ok := strings.CutPrefix(d.Name(), bucketPrefix)
		if !ok || !d.IsDir() {
			continue
		}
		b := newBucket(s.disk, name)
		if err := s.loadBucket(b); err != nil {
			return err
		}
		s.buckets[name] = b
	}
	return s.segments.sweep()
}

func (s *Store) loadBucket(b *bucket) error {
	var rec bucketRecord
	if err := readRecord(filepath.Join(b.dir, bucketFile), &rec); err != nil {
		return err
	}
	b.created = rec.Created
	files, err := os.ReadDir(b.objectsDir())
	if err != nil {
		return err
	}
	completed := make(map[string]bool)
	for _, f := range files {
		path := filepath.Join(b.objectsDir(), f.Name())
		o := new(object)
		if err := readRecord(path, o); err != nil {
			return err
		}
		if path != b.objectFile(string(o.Key)) {
			return fmt.Errorf("%s: the record is of another key", path)
		}
		if got := o.Content.size(); got != o.Size {
			return fmt.Errorf("%s: the runs make %d bytes, the object has %d", path, got, o.Size)
		}
		b.objects = append(b.objects, o)
		s.segments.hold(o.Content)
		if o.Upload != "" {
			completed[o.Upload] = true
		}
	}
	slices.SortFunc(b.objects, func(x, y *object) int { return strings.Compare(string(x.Key), string(y.Key)) })
	return s.loadUploads(b, completed)
}

// loadUploads reads a bucket's unfinished uploads. One that an object was made from was completed,
// and only its removal was cut short.
func (s *Store) loadUploads(b *bucket, completed map[string]bool) error {
	files, err := os.ReadDir(b.uploadsDir())
	if err != nil {
		return err
	}
	for _, f := range files {
		id := strings.TrimSuffix(f.Name(), uploadSuffix)
		if completed[id] {
			if err := os.Remove(b.uploadLog(id)); err != nil {
				return err
			}
			continue
		}
		u, err := readUpload(id, b.uploadLog(id))
		if err != nil {
			return err
		}
		for _, p := range u.parts {
			s.segments.hold(p.Content)
		}
		b.uploads[id] = u
	}
	return nil
}

// drop gives up references to segments and logs what can't be removed: the caller's change is
// already made, and the next Open tries again.
func (s *Store) drop(c content) {
	if err := s.segments.release(c); err != nil {
		s.opt.Logger.Error("can't remove a segment", "error", err)
	}
}

// PutObject stores what r gives until io.EOF, of any length, for callers in this process. header
// names what goes with it: content-type, x-amz-meta-*, and so on. It returns the ETag without
// quotes, and stops when ctx ends.
func (s *Store) PutObject(ctx context.Context, bucket, key string, r io.Reader, header map[string]string) (etag string, err error) {
	if key == "" {
		return "", errInvalidArgument.because("The key is empty")
	}
	if err := checkKey(key); err != nil {
		return "", err
	}
	h := make(http.Header)
	for name, v := range header {
		h.Set(name, v)
	}
	kept, err := objectHeader(h)
	if err != nil {
		return "", err
	}
	if !s.enter() {
		return "", errShutdown
	}
	defer s.leave()
	if err := s.haveBucket(bucket); err != nil {
		return "", err
	}
	o := &object{Key: recordKey(key), Header: kept}
	if err := s.put(bucket, o, newBody(contextReader{ctx, r}, -1), precondition{}); err != nil {
		return "", err
	}
	return o.ETag, nil
}

// contextReader fails with the context's error once that has ended.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
