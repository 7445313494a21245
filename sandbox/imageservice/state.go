package imageservice

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"imgferry/ims"
)

// image is what the service keeps of an image.
type image struct {
	ID, Owner string
	Region    string // "" is the service's own
	Number    uint64 // order of creation: times may be equal
	Status    string // ims.Status...

	Name, Description string
	Environment       string // virtual_env_type
	DiskFormat        string
	OSVersion, OSType string
	Firmware          string // "" leaves it to the service
	Architecture      string
	MinDisk, MinRAM   int // GB, MB
	MaxRAM            int // MB, 0 is unset
	Protected         bool
	Tags              []string // "key=value", or "key" from native calls
	Enterprise        string
	CMK               string // id of the key it is encrypted with, or ""
	Parent            string // the image it was copied from
	Backup            string // the backup it was made from
	Whole             bool   // of a whole server
	Origin            string // __data_origin
	Native            bool   // made as metadata, to be filled by an upload
	Exporting         string // the job that exports it, or ""
	Extra             map[string]string
	Members           []member
	FileSize          int64      // of what it was made from, in bytes
	Checksum          string     // MD5 of an uploaded file
	Disks             []diskFile // what it holds; the first is the system disk
	Created, Updated  time.Time
	Active, Deleted   time.Time // or zero
}

// member is a project that an image is shared with.
type member struct {
	Project          string
	Status           string // pending, accepted, rejected
	Vault            string
	Created, Updated time.Time
}

// diskFile is a file of Config's folder that holds a disk of an image.
type diskFile struct {
	Name    string
	Format  string
	Size    int64 // of the file, in bytes
	Virtual int64 // of the disk, in bytes
}

// job is what the service keeps of a job.
type job struct {
	ID, Type, Owner string
	Number          uint64
	Task            string
	Parent          string   // the job it is a part of, or ""
	Subs            []string // its parts, in order
	ImageID         string
	ImageName       string
	Makes           bool // the image is the job's work: it is killed if the job fails
	Step            step // what there is to do
	StepDone        bool // all of it but Subs
	Status          ims.JobStatus
	Progress        float64 // 0 to 1, as it was last told to anybody
	Results         []memberResult
	Code, Reason    string // of a failed job
	Begin, End      time.Time
}

func (j job) ended() bool { return j.Status == ims.JobSuccess || j.Status == ims.JobFail }

// The buckets of the database. In images and jobs an id leads to a record in JSON.
var (
	metaBucket   = []byte("meta")
	imagesBucket = []byte("images")
	jobsBucket   = []byte("jobs")
	openBucket   = []byte("open") // the ids of jobs that have not ended

	formatKey = []byte("format") // in meta
)

// stateFormat says how the records are to be read.
const stateFormat = "imgferry image service 2"

// lockTimeout is how long the database's lock is waited for: long enough for a process that is just ending.
const lockTimeout = time.Second

// Ended jobs and deleted images are forgotten when they are older than this and not among the newest.
const (
	historyAge  = 30 * 24 * time.Hour
	historySize = 10_000
)

// state is all that the service remembers, in a bbolt database: one file, changed in transactions that are
// on the disk when they return, in pure Go. What a transaction changes is seen as a whole or not at all, by
// others and after a crash.
type state struct{ db *bolt.DB }

// tx is a transaction. What it returns are copies.
type tx struct{ *bolt.Tx }

// openState opens the database in a file, and makes it if it is missing.
func openState(path string, noSync bool) (*state, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockTimeout, NoSync: noSync})
	if errors.Is(err, bolterrors.ErrTimeout) {
		err = errors.New("it is in use")
	}
	if err != nil {
		return nil, fmt.Errorf("opening image database %s: %w", path, err)
	}
	if err := db.Update(prepare); err != nil {
		return nil, errors.Join(fmt.Errorf("opening image database %s: %w", path, err), db.Close())
	}
	return &state{db}, nil
}

// prepare makes the buckets of a new database, and refuses one that is of another make.
func prepare(tx *bolt.Tx) error {
	if meta := tx.Bucket(metaBucket); meta != nil {
		if got := meta.Get(formatKey); string(got) != stateFormat {
			return fmt.Errorf("it was made by another version (%.40q instead of %q): use another one", got, stateFormat)
		}
		return nil
	}
	meta, err := tx.CreateBucket(metaBucket)
	if err != nil {
		return err
	}
	for _, name := range [][]byte{imagesBucket, jobsBucket, openBucket} {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	return meta.Put(formatKey, []byte(stateFormat))
}

func (s *state) close() error { return s.db.Close() }

func (s *state) view(f func(tx) error) error {
	return s.db.View(func(t *bolt.Tx) error { return f(tx{t}) })
}

func (s *state) update(f func(tx) error) error {
	return s.db.Update(func(t *bolt.Tx) error { return f(tx{t}) })
}

// get reads the record of an id; ok is false if there is none.
func get[T any](t tx, bucket []byte, id string) (v T, ok bool, err error) {
	p := t.Bucket(bucket).Get([]byte(id))
	if p == nil {
		return v, false, nil
	}
	return v, true, decode(bucket, id, p, &v)
}

func decode(bucket []byte, id string, p []byte, v any) error {
	if err := json.Unmarshal(p, v); err != nil {
		return fmt.Errorf("the record of %s in %s is damaged: %w", id, bucket, err)
	}
	return nil
}

// put writes a record. number gets the next one of the bucket if it is 0.
func put(t tx, bucket []byte, id string, number *uint64, v any) (err error) {
	b := t.Bucket(bucket)
	if *number == 0 {
		if *number, err = b.NextSequence(); err != nil {
			return err
		}
	}
	p, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return b.Put([]byte(id), p)
}

// each calls f with every record of a bucket, in the order of their ids.
func each[T any](t tx, bucket []byte, f func(T)) error {
	return t.Bucket(bucket).ForEach(func(id, p []byte) error {
		var v T
		if err := decode(bucket, string(id), p, &v); err != nil {
			return err
		}
		f(v)
		return nil
	})
}

func (t tx) image(id string) (image, bool, error) { return get[image](t, imagesBucket, id) }
func (t tx) job(id string) (job, bool, error)     { return get[job](t, jobsBucket, id) }
func (t tx) putImage(i *image) error              { return put(t, imagesBucket, i.ID, &i.Number, i) }
func (t tx) dropImage(id string) error            { return t.Bucket(imagesBucket).Delete([]byte(id)) }
func (t tx) dropJob(id string) error              { return t.Bucket(jobsBucket).Delete([]byte(id)) }

func (t tx) putJob(j *job) error {
	if err := put(t, jobsBucket, j.ID, &j.Number, j); err != nil {
		return err
	}
	if j.ended() {
		return t.Bucket(openBucket).Delete([]byte(j.ID))
	}
	return t.Bucket(openBucket).Put([]byte(j.ID), nil)
}

// openJobs returns the jobs that have not ended and fit, oldest first, without looking at the others.
func (t tx) openJobs(fits func(job) bool) ([]job, error) {
	var all []job
	err := t.Bucket(openBucket).ForEach(func(id, _ []byte) error {
		j, err := t.mustJob(string(id))
		if err == nil && fits(j) {
			all = append(all, j)
		}
		return err
	})
	slices.SortFunc(all, func(a, b job) int { return cmp.Compare(a.Number, b.Number) })
	return all, err
}

// mustJob is job for an id that the service itself refers to.
func (t tx) mustJob(id string) (job, error) {
	j, ok, err := t.job(id)
	if err == nil && !ok {
		err = fmt.Errorf("the database has lost job %s", id)
	}
	return j, err
}

// mustImage is image for an id that the service itself refers to.
func (t tx) mustImage(id string) (image, error) {
	i, ok, err := t.image(id)
	if err == nil && !ok {
		err = fmt.Errorf("the database has lost image %s", id)
	}
	return i, err
}

// images returns every image of a region, newest first.
func (t tx) images(region string) ([]image, error) {
	var all []image
	err := each(t, imagesBucket, func(i image) {
		if i.Region == region {
			all = append(all, i)
		}
	})
	slices.SortFunc(all, func(a, b image) int { return cmp.Compare(b.Number, a.Number) })
	return all, err
}

// jobs returns every job that fits, newest first.
func (t tx) jobs(fits func(job) bool) ([]job, error) {
	var all []job
	err := each(t, jobsBucket, func(j job) {
		if fits(j) {
			all = append(all, j)
		}
	})
	slices.SortFunc(all, func(a, b job) int { return cmp.Compare(b.Number, a.Number) })
	return all, err
}

// job returns a job in a transaction of its own.
func (s *state) job(id string) (j job, ok bool, err error) {
	err = s.view(func(t tx) error {
		j, ok, err = t.job(id)
		return err
	})
	return j, ok, err
}

// image returns an image in a transaction of its own.
func (s *state) image(id string) (i image, ok bool, err error) {
	err = s.view(func(t tx) error {
		i, ok, err = t.image(id)
		return err
	})
	return i, ok, err
}

// forget removes what nobody will ask for any more: ended jobs and deleted images beyond the newest keep of
// either, and older than before. It returns how many.
func (t tx) forget(before time.Time, keep int) (n int, err error) {
	jobs, err := t.jobs(func(j job) bool { return j.ended() })
	if err != nil {
		return 0, err
	}
	for i, j := range jobs {
		if i < keep && j.End.After(before) || t.parentRuns(j) {
			continue
		}
		if err := t.dropJob(j.ID); err != nil {
			return n, err
		}
		n++
	}
	var gone []image
	if err := each(t, imagesBucket, func(i image) {
		if i.Status == ims.StatusDeleted {
			gone = append(gone, i)
		}
	}); err != nil {
		return n, err
	}
	slices.SortFunc(gone, func(a, b image) int { return b.Deleted.Compare(a.Deleted) })
	for k, i := range gone {
		if k < keep && i.Deleted.After(before) {
			continue
		}
		if err := t.dropImage(i.ID); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// parentRuns says that a job is a part of one that has not ended, which will look for it.
func (t tx) parentRuns(j job) bool {
	if j.Parent == "" {
		return false
	}
	p, ok, err := t.job(j.Parent)
	return err == nil && ok && !p.ended()
}
