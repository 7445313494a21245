package upload

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
)

// ErrJournal says that the journal contradicts the disk or itself, so that nothing it says can be used.
var ErrJournal = errors.New("the journal of the upload contradicts the disk")

// ErrJournalBusy says that another run on this machine writes the journal.
var ErrJournalBusy = errors.New("another run writes the journal of this upload")

// JournalID is what a journal must be about to be trusted.
type JournalID struct {
	// Store names the bucket and where it is, Key the object.
	Store string `json:"store"`
	Key   string `json:"key"`
	// Source is the identity of the source's files, which changes whenever their bytes may have:
	// size, times, device, inode.
	Source string `json:"source"`
	// Settings are all that decides the object's bytes and where its parts lie besides the source, such as
	// the encoder's level and, where parts are known by their numbers alone (Resume.Mark), the ID of
	// their plan.
	Settings string `json:"settings"`
}

// Journal notes which parts of one object the store has, and what they were made of, so that a run
// after a killed one need not make them again. It only saves work: without it, or where it can't be
// trusted, parts are made again and compared with what the store has.
//
// A Journal holds a lock until Close. Its methods are safe for concurrent use. All of it stays in
// memory: 48 bytes a block, 25 MiB for a full disk of 1 TiB.
type Journal struct {
	id   JournalID
	path string
	lock *flock.Flock

	mu    sync.Mutex
	f     *os.File // nil once closed or removed
	head  journalHead
	parts map[int]JournalPart
	noted bool  // the file has parts of the head's upload
	err   error // sticky: nothing is noted any more
}

// Endings of the names of a journal and of its lock.
const (
	journalSuffix = ".journal"
	lockSuffix    = ".lock"
)

// OpenJournal opens the journal in dir for uploads as id says, and cuts off a damaged end. What was
// noted for another source or with other settings is dropped. ErrJournalBusy: another run has it.
func OpenJournal(dir string, id JournalID) (_ *Journal, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(id.Store + "\n" + id.Key))
	j := &Journal{id: id, path: filepath.Join(dir, fmt.Sprintf("%x%s", sum[:16], journalSuffix)), parts: map[int]JournalPart{}}
	if j.lock, err = lockJournal(j.path); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			j.Close()
		}
	}()
	if j.f, err = os.OpenFile(j.path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	end, err := j.load()
	if err != nil {
		return nil, err
	}
	if j.head.JournalID != id {
		j.head, j.parts, end = journalHead{}, map[int]JournalPart{}, 0
	}
	j.noted = len(j.parts) > 0
	if err := j.f.Truncate(end); err != nil {
		return nil, err
	}
	_, err = j.f.Seek(end, io.SeekStart)
	return j, err
}

func lockJournal(path string) (*flock.Flock, error) {
	lock := flock.New(path+lockSuffix, flock.SetPermissions(0o600))
	got, err := lock.TryLock()
	if err == nil && !got {
		err = ErrJournalBusy
	}
	if err != nil {
		return nil, err
	}
	return lock, nil
}

// load reads the records there are and returns where the last good one ends.
func (j *Journal) load() (end int64, err error) {
	st, err := j.f.Stat()
	if err != nil {
		return 0, err
	}
	if !st.Mode().IsRegular() {
		return 0, fmt.Errorf("%s is no regular file", j.path)
	}
	r := bufio.NewReaderSize(j.f, 1<<20)
	for limit := int64(maxHead); ; limit = maxRecord {
		body, err := readRecord(r, st.Size()-end, limit)
		if err != nil {
			return end, nil // its end, or where it was torn
		}
		if end == 0 {
			if j.head, err = parseJournalHead(body); err != nil || j.head.JournalID != j.id {
				return 0, nil // of another disk: not worth reading
			}
		} else {
			p, err := parseJournalPart(body)
			if err != nil {
				return end, nil
			}
			j.parts[p.Number] = p
		}
		end += recordHeadSize + int64(len(body))
	}
}

// Resume is an unfinished upload of which both the journal and the store have parts.
type Resume struct {
	UploadID string
	// Parts are those that the store has just as the journal says, ascending.
	Parts  []JournalPart
	stored map[int]StoredPart // all that the store has
}

func newResume(id string, list []StoredPart) *Resume {
	r := &Resume{UploadID: id, stored: make(map[int]StoredPart, len(list))}
	for _, s := range list {
		r.stored[s.Number] = s
	}
	return r
}

// Adopt makes the journal that of an upload whose parts were found without it. After an error nothing more
// is noted.
func (j *Journal) Adopt(r *Resume) error {
	if err := j.begin(r.UploadID); err != nil {
		return err
	}
	for _, p := range r.Parts {
		if err := j.add(p); err != nil {
			return err
		}
	}
	return nil
}

// Resume asks the store which of the journal's parts it still has; nil if there is none. An upload
// that is gone makes the journal empty. The error is that of the request, after retries.
func (j *Journal) Resume(ctx context.Context, b Bucket, p Policy) (*Resume, error) {
	j.mu.Lock()
	id, noted := j.head.UploadID, maps.Clone(j.parts)
	j.mu.Unlock()
	if id == "" || len(noted) == 0 {
		return nil, nil
	}
	stored, err := WithRetry(b, p).Parts(ctx, j.id.Key, id)
	if errors.Is(err, ErrNoUpload) {
		return nil, j.reset()
	}
	if err != nil {
		return nil, err
	}
	r := newResume(id, stored)
	for _, s := range stored {
		if n, ok := noted[s.Number]; ok && n.matches(s) {
			r.Parts = append(r.Parts, n)
		}
	}
	slices.SortFunc(r.Parts, func(a, b JournalPart) int { return cmp.Compare(a.Number, b.Number) })
	if len(r.Parts) == 0 {
		return nil, nil
	}
	return r, nil
}

// Mark returns parts with those that the store has just as the journal says marked as known, so that nobody
// reads them. It is for parts whose place and size do not depend on how they are encoded. A journal has no
// places: JournalID.Settings must name the plan (RawPlan.ID, SparsePlan.ID), or a part of another plan with the
// same number and size is taken for one of these. r may be nil.
func (r *Resume) Mark(parts Sequence) Sequence {
	if r == nil {
		return parts
	}
	return func(ctx context.Context) iter.Seq2[Part, error] {
		return func(yield func(Part, error) bool) {
			known := r.Parts
			for part, err := range parts(ctx) {
				for len(known) > 0 && known[0].Number < part.Number {
					known = known[1:]
				}
				if err == nil && len(known) > 0 && known[0].Number == part.Number && known[0].Size == part.Size {
					part.Known = &known[0]
				}
				if !yield(part, err) {
					return
				}
			}
		}
	}
}

// matches says whether the store's part is the one that was noted, by the answer of then: a part is noted
// only if its ETag is its MD5, or if the store's ETags are none.
func (p JournalPart) matches(s StoredPart) bool { return s.Size == p.Size && s.ETag == p.ETag }

// begin makes the journal that of the upload, unless it is already. Its error is like that of add.
func (j *Journal) begin(uploadID string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.f == nil || j.err != nil || j.head.UploadID == uploadID {
		return nil
	}
	j.head = journalHead{Version: journalVersion, UploadID: uploadID, Begun: time.Now().UTC(), JournalID: j.id}
	clear(j.parts)
	j.noted = false
	body, err := j.head.append(nil)
	if err == nil && len(body) > maxHead {
		err = errors.New("the names are too long for a journal")
	}
	if err == nil {
		err = j.truncate()
	}
	if err == nil {
		err = j.write(body)
	}
	if err == nil {
		err = syncDir(filepath.Dir(j.path))
	}
	j.err = err
	return err
}

// knows reports whether a later run will find parts of the upload in the journal. j may be nil.
func (j *Journal) knows(uploadID string) bool {
	if j == nil {
		return false
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.noted && j.head.UploadID == uploadID
}

// add notes a part that the store has acknowledged. It is durable on return. After the first error,
// which is returned once, nothing is noted any more: the upload goes on without a journal.
func (j *Journal) add(p JournalPart) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.f == nil || j.err != nil {
		return nil
	}
	if j.err = p.fits(); j.err == nil {
		j.err = j.write(p.append(nil))
	}
	j.noted = j.noted || j.err == nil
	return j.err
}

func (j *Journal) write(body []byte) error {
	if _, err := j.f.Write(appendRecord(nil, body)); err != nil {
		return err
	}
	return j.f.Sync()
}

func (j *Journal) truncate() error {
	if err := j.f.Truncate(0); err != nil {
		return err
	}
	_, err := j.f.Seek(0, io.SeekStart)
	return err
}

// reset forgets the upload.
func (j *Journal) reset() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.head, j.noted = journalHead{}, false
	clear(j.parts)
	if j.f == nil {
		return nil
	}
	return j.truncate()
}

// Discard forgets everything that was noted: what was built on it turned out to be wrong.
func (j *Journal) Discard() error { return j.reset() }

// Remove deletes the journal: its upload is no more. Close is still needed.
func (j *Journal) Remove() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.f == nil {
		return nil
	}
	err := j.f.Close() // first, for Windows
	j.f = nil
	return errors.Join(err, os.Remove(j.path))
}

// Close ends the use of the journal, which stays for a later run unless it has nothing in it.
func (j *Journal) Close() error {
	j.mu.Lock()
	empty := j.f != nil && j.head.UploadID == ""
	j.mu.Unlock()
	var err error
	if empty {
		err = j.Remove()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.f != nil {
		err = j.f.Close()
		j.f = nil
	} else {
		removeLock(j.lock)
	}
	return errors.Join(err, j.lock.Unlock())
}

// removeLock removes the file of a lock that is held, whose journal is no more. Whoever opened it just now finds
// that out, or keeps a journal of its own: no harm.
func removeLock(lock *flock.Flock) { _ = os.Remove(lock.Path()) }

// JournalUploads lists the uploads to store of which there are journals in dir, also those that a run is using.
// Initiated is when the journal was begun.
func JournalUploads(dir, store string) ([]Unfinished, error) {
	paths, err := journalPaths(dir)
	var list []Unfinished
	for _, path := range paths {
		if h, err := readHead(path); err == nil && h.Store == store {
			list = append(list, Unfinished{Key: h.Key, UploadID: h.UploadID, Initiated: h.Begun})
		}
	}
	return list, err
}

// journalPaths lists the journals in dir, and those of which only the lock is there.
func journalPaths(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var paths []string
	for _, e := range entries {
		if name := strings.TrimSuffix(e.Name(), lockSuffix); strings.HasSuffix(name, journalSuffix) && e.Type().IsRegular() {
			paths = append(paths, filepath.Join(dir, name))
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths), err
}

// PruneJournals removes the journals in dir of uploads to store that are gone, those that can't be read, and locks
// that were left without a journal. Ones that a run is using stay.
func PruneJournals(dir, store string, gone func(key, uploadID string) bool) error {
	paths, err := journalPaths(dir)
	errs := []error{err}
	for _, path := range paths {
		errs = append(errs, pruneJournal(path, store, gone))
	}
	return errors.Join(errs...)
}

func pruneJournal(path, store string, gone func(key, uploadID string) bool) error {
	over := func() (bool, error) {
		h, err := readHead(path)
		if errors.Is(err, errRecord) || errors.Is(err, fs.ErrNotExist) {
			return true, nil
		}
		return err == nil && h.Store == store && gone(h.Key, h.UploadID), err
	}
	// One that stays is not locked: that would leave a lock beside it.
	if remove, err := over(); err != nil || !remove {
		return err
	}
	lock, err := lockJournal(path)
	if err != nil {
		if errors.Is(err, ErrJournalBusy) {
			return nil
		}
		return err
	}
	defer lock.Unlock()
	if remove, err := over(); err != nil || !remove { // a run that had it until now may have begun it anew
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	removeLock(lock)
	return nil
}

func readHead(path string) (h journalHead, err error) {
	f, err := os.Open(path)
	if err != nil {
		return h, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return h, err
	}
	body, err := readRecord(f, st.Size(), maxHead)
	if err != nil {
		return h, errRecord
	}
	return parseJournalHead(body)
}

// syncDir makes a new file's name durable. Windows has no such call, and needs none.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
