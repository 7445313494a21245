package objectstore

import (
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// uploadSuffix ends the name of an upload's log behind its id.
const uploadSuffix = ".log"

// upload is an unfinished multipart upload. Its log has one line of uploadRecord and then one for
// each part that came in; of those with the same number the last counts.
type upload struct {
	uploadRecord
	id  string
	log string // path

	// mu is held while the upload is completed or dropped and while a part enters it. It is locked
	// before Store.mu.
	mu    sync.Mutex
	gone  bool // completed or aborted
	parts map[int]*part
}

type uploadRecord struct {
	Key       recordKey
	Initiated time.Time
	Header    map[string]string `json:",omitempty"` // of the object to be
	Tags      []tag             `json:",omitempty"`
	// ChecksumType is what the object's checksums are to be; empty: the client announced none.
	ChecksumType string `json:",omitempty"`
}

// part is the record of an uploaded part.
type part struct {
	Number    int
	Size      int64
	ETag      string // MD5 in hex, without quotes
	Modified  time.Time
	Checksums map[string]string `json:",omitempty"`
	Content   content
}

// readUpload reads the log of an upload.
func readUpload(id, path string) (*upload, error) {
	lines, err := readLines(path)
	if err != nil {
		return nil, err
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("%s is damaged: it is empty", path)
	}
	u := &upload{id: id, log: path, parts: make(map[int]*part)}
	if err := decodeRecord(path, lines[0], &u.uploadRecord); err != nil {
		return nil, err
	}
	for _, line := range lines[1:] {
		p := new(part)
		if err := decodeRecord(path, line, p); err != nil {
			return nil, err
		}
		u.parts[p.Number] = p
	}
	return u, nil
}

// newUploadID returns an id that no client can guess; ids ascend with time, as listings need it.
func newUploadID(t time.Time) string {
	return fmt.Sprintf("%016x", t.UnixNano()) + randomHex(12)
}

// createUpload begins a multipart upload.
func (s *Store) createUpload(bucket string, rec uploadRecord) (id string, err error) {
	rec.Initiated = s.now()
	id = newUploadID(s.opt.Now())
	tmp, err := s.disk.writeRecord(rec)
	if err != nil {
		return "", err
	}
	s.disk.at("upload written")
	s.mu.Lock()
	b := s.buckets[bucket]
	err = ErrNoSuchBucket
	if b != nil {
		u := &upload{id: id, log: b.uploadLog(id), uploadRecord: rec, parts: make(map[int]*part)}
		if err = os.Rename(tmp, u.log); err == nil {
			b.uploads[id] = u
		}
	}
	s.mu.Unlock()
	if err != nil {
		os.Remove(tmp)
		return "", err
	}
	s.disk.at("upload renamed")
	return id, s.disk.syncDir(b.uploadsDir())
}

// upload finds an unfinished upload of a key.
func (s *Store) upload(bucket, key, id string) (*upload, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b := s.buckets[bucket]
	if b == nil {
		return nil, ErrNoSuchBucket
	}
	u := b.uploads[id]
	if u == nil || string(u.Key) != key {
		return nil, errNoSuchUpload
	}
	return u, nil
}

// putPart makes p the part of its number. It takes over the reference to p's content that the
// caller holds, and lets go of it if it fails.
func (s *Store) putPart(u *upload, p *part) error {
	old, err := s.logPart(u, p)
	if err != nil {
		s.drop(p.Content)
		return err
	}
	s.disk.at("part logged")
	if old != nil {
		s.drop(old.Content)
	}
	return nil
}

// logPart writes p to the upload's log and returns the part that had its number. Parts of one upload
// take turns, so that only the last line of a log can be unfinished.
func (s *Store) logPart(u *upload, p *part) (old *part, err error) {
	if len(p.Content) > maxRuns {
		return nil, errInvalidRequest.because("The part would be made of too many pieces")
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gone {
		return nil, errNoSuchUpload
	}
	err = s.disk.appendRecord(u.log, p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoSuchUpload // went with its bucket just now
	}
	if err != nil {
		return nil, err
	}
	old = u.parts[p.Number]
	u.parts[p.Number] = p
	return old, nil
}

// completion is what a client's Complete says.
type completion struct {
	parts     []partClaim
	size      int64             // of the object; -1: not said
	checksums map[string]string // of the object
	cond      precondition
}

// check compares the object to be with what the client expects.
func (c completion) check(o *object) error {
	if c.size >= 0 && c.size != o.Size {
		return errInvalidRequest.because(fmt.Sprintf("The parts make %d bytes, not %d", o.Size, c.size))
	}
	for name, v := range c.checksums {
		// Clients leave out the number of parts behind a composite one.
		have, _, _ := strings.Cut(o.Checksums[name], "-")
		if v, _, _ = strings.Cut(v, "-"); have != "" && have != v {
			return errBadDigest.because("The " + name + " checksum does not match the object")
		}
	}
	return nil
}

// partClaim is a part as the client's Complete names it. Empty checksums are not compared.
type partClaim struct {
	Number    int
	ETag      string
	Checksums map[string]string
}

// completeUpload makes the object from the parts that the client names. It copies nothing.
func (s *Store) completeUpload(bucket string, u *upload, want completion) (*object, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gone {
		return nil, errNoSuchUpload
	}
	parts, err := s.claimedParts(u, want.parts)
	if err != nil {
		return nil, err
	}
	o, err := u.object(parts)
	if err != nil {
		return nil, err
	}
	if err := want.check(o); err != nil {
		return nil, err
	}
	o.Modified = s.now()
	s.segments.hold(o.Content)
	if err := s.commit(bucket, o, want.cond); err != nil {
		return nil, err
	}
	if err := s.removeUpload(bucket, u); err != nil {
		// The object is whole; the next Open sees that it came from this upload.
		s.opt.Logger.Error("can't remove a completed upload", "upload", u.id, "error", err)
	}
	return o, nil
}

// object is what the parts make, one after the other.
func (u *upload) object(parts []*part) (*object, error) {
	o := &object{Key: u.Key, Header: u.Header, Tags: u.Tags, Upload: u.id}
	sums := md5.New()
	for _, p := range parts {
		for _, r := range p.Content {
			o.Content = o.Content.add(r)
		}
		o.Size += p.Size
		o.Parts = append(o.Parts, p.Size)
		sum, err := hex.DecodeString(p.ETag)
		if err != nil {
			return nil, fmt.Errorf("part %d of upload %s has no MD5: %w", p.Number, u.id, err)
		}
		sums.Write(sum)
	}
	o.ETag = fmt.Sprintf("%x-%d", sums.Sum(nil), len(parts))
	for name := range parts[0].Checksums {
		if a, ok := algorithmOf(name); ok && u.ChecksumType != "" {
			if v := a.ofParts(parts, u.ChecksumType); v != "" {
				o.Checksums = map[string]string{name: v}
			}
		}
	}
	return o, nil
}

// claimedParts checks the client's list against what was uploaded. u.mu is held.
func (s *Store) claimedParts(u *upload, claims []partClaim) ([]*part, error) {
	parts := make([]*part, len(claims))
	last := 0
	for i, c := range claims {
		if c.Number <= last {
			return nil, errInvalidPartOrder
		}
		last = c.Number
		p := u.parts[c.Number]
		if p == nil {
			return nil, errInvalidPart.because(fmt.Sprintf("Part %d was not uploaded", c.Number))
		}
		if trimETag(c.ETag) != p.ETag {
			return nil, errInvalidPart.because(fmt.Sprintf("Part %d has another ETag", c.Number))
		}
		for name, v := range c.Checksums {
			if have, ok := p.Checksums[name]; v != "" && ok && have != v {
				return nil, errInvalidPart.because(fmt.Sprintf("Part %d has another checksum", c.Number))
			}
		}
		if i < len(claims)-1 && p.Size < s.opt.MinPartSize {
			return nil, errEntityTooSmall.because(fmt.Sprintf(
				"Part %d has %d bytes, the least for all but the last is %d", c.Number, p.Size, s.opt.MinPartSize))
		}
		parts[i] = p
	}
	return parts, nil
}

// abortUpload ends an upload and frees its parts.
func (s *Store) abortUpload(bucket string, u *upload) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gone {
		return errNoSuchUpload
	}
	return s.removeUpload(bucket, u)
}

// removeUpload takes an upload away from memory and disk. u.mu is held, u is not gone.
func (s *Store) removeUpload(bucket string, u *upload) error {
	s.mu.Lock()
	err := os.Remove(u.log)
	if b := s.buckets[bucket]; err == nil && b != nil {
		delete(b.uploads, u.id)
	}
	s.mu.Unlock()
	if errors.Is(err, fs.ErrNotExist) {
		return errNoSuchUpload // went with its bucket just now
	}
	if err != nil {
		return err
	}
	s.disk.at("upload unlinked")
	if err := s.disk.syncDir(filepath.Dir(u.log)); err != nil {
		// The disk may still have the upload: keep its segments.
		u.gone = true
		return err
	}
	s.dropUpload(u)
	return nil
}

// dropUpload gives up an upload's parts. u.mu is held, u is not gone.
func (s *Store) dropUpload(u *upload) {
	u.gone = true
	for _, p := range u.parts {
		s.drop(p.Content)
	}
}
