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
	ID, Owner  string
	Number     uint64 // order of creation: times may be equal
	Status     string // ims.Status...
	DiskFormat string
	FileSize   int64 // of the object it was made from, in bytes
	Request    ims.QuickImportRequest
	Created    time.Time
	Updated    time.Time
	Active     time.Time // when it became active, or zero
}

// job is what the service keeps of a job.
type job struct {
	ID, Type, Owner string
	ImageID         string
	ImageName       string
	Status          ims.JobStatus
	Code, Reason    string // of a failed job
	Begin, End      time.Time
}

// The buckets of the database. In images and jobs an id leads to a record in JSON.
var (
	metaBucket   = []byte("meta")
	imagesBucket = []byte("images")
	jobsBucket   = []byte("jobs")

	formatKey = []byte("format") // in meta
)

// stateFormat says how the records are to be read.
const stateFormat = "imgferry image service 1"

// lockTimeout is how long the database's lock is waited for: long enough for a process that is just ending.
const lockTimeout = time.Second

// state is all that the service remembers, in a bbolt database: one file, changed in transactions that are
// on the disk when they return, in pure Go. Each method is one transaction: what it changes is seen as a
// whole or not at all, by others and after a crash. Callers get copies.
type state struct{ db *bolt.DB }

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
	for _, name := range [][]byte{imagesBucket, jobsBucket} {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	return meta.Put(formatKey, []byte(stateFormat))
}

func (s *state) close() error { return s.db.Close() }

// get reads the record of an id; ok is false if there is none.
func get[T any](tx *bolt.Tx, bucket []byte, id string) (v T, ok bool, err error) {
	p := tx.Bucket(bucket).Get([]byte(id))
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

func put(tx *bolt.Tx, bucket []byte, id string, v any) error {
	p, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return tx.Bucket(bucket).Put([]byte(id), p)
}

// each calls f with every record of a bucket, in the order of their ids.
func each[T any](tx *bolt.Tx, bucket []byte, f func(T)) error {
	return tx.Bucket(bucket).ForEach(func(id, p []byte) error {
		var v T
		if err := decode(bucket, string(id), p, &v); err != nil {
			return err
		}
		f(v)
		return nil
	})
}

// create adds an image and the job that makes it.
func (s *state) create(i image, j job) error {
	return s.db.Update(func(tx *bolt.Tx) (err error) {
		if i.Number, err = tx.Bucket(imagesBucket).NextSequence(); err != nil {
			return err
		}
		if err := put(tx, imagesBucket, i.ID, i); err != nil {
			return err
		}
		return put(tx, jobsBucket, j.ID, j)
	})
}

// update changes a job and its image together.
func (s *state) update(jobID string, change func(*job, *image)) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		j, ok, err := get[job](tx, jobsBucket, jobID)
		if err != nil || !ok {
			return errors.Join(err, missing(ok, "job", jobID))
		}
		i, ok, err := get[image](tx, imagesBucket, j.ImageID)
		if err != nil || !ok {
			return errors.Join(err, missing(ok, "image", j.ImageID))
		}
		change(&j, &i)
		if err := put(tx, imagesBucket, i.ID, i); err != nil {
			return err
		}
		return put(tx, jobsBucket, j.ID, j)
	})
}

// missing is an error unless ok: what the service itself refers to is there.
func missing(ok bool, what, id string) error {
	if ok {
		return nil
	}
	return fmt.Errorf("the database has lost %s %s", what, id)
}

// job returns a job.
func (s *state) job(id string) (j job, ok bool, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		j, ok, err = get[job](tx, jobsBucket, id)
		return err
	})
	return j, ok, err
}

// list returns every image of a project, newest first.
func (s *state) list(owner string) ([]image, error) {
	var all []image
	err := s.db.View(func(tx *bolt.Tx) error {
		return each(tx, imagesBucket, func(i image) {
			if i.Owner == owner {
				all = append(all, i)
			}
		})
	})
	slices.SortFunc(all, func(a, b image) int { return cmp.Compare(b.Number, a.Number) })
	return all, err
}

// remove deletes an image if allowed says nothing against it.
func (s *state) remove(id string, allowed func(i image, ok bool) error) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		i, ok, err := get[image](tx, imagesBucket, id)
		if err == nil {
			err = allowed(i, ok)
		}
		if err != nil {
			return err
		}
		return tx.Bucket(imagesBucket).Delete([]byte(id))
	})
}

// discard undoes create.
func (s *state) discard(i image, j job) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		if err := tx.Bucket(imagesBucket).Delete([]byte(i.ID)); err != nil {
			return err
		}
		return tx.Bucket(jobsBucket).Delete([]byte(j.ID))
	})
}

// rewind makes every job that had not ended, and its image, as they were before they began, and returns them
// in the order of their creation.
func (s *state) rewind() (waiting []unfinished, err error) {
	err = s.db.Update(func(tx *bolt.Tx) error {
		var open []job
		err := each(tx, jobsBucket, func(j job) {
			if j.Status == ims.JobInit || j.Status == ims.JobRunning {
				open = append(open, j)
			}
		})
		if err != nil {
			return err
		}
		for _, j := range open {
			i, ok, err := get[image](tx, imagesBucket, j.ImageID)
			if err != nil || !ok {
				return errors.Join(err, missing(ok, "image", j.ImageID))
			}
			j.Status, i.Status = ims.JobInit, ims.StatusQueued
			if err := errors.Join(put(tx, imagesBucket, i.ID, i), put(tx, jobsBucket, j.ID, j)); err != nil {
				return err
			}
			waiting = append(waiting, unfinished{j, i})
		}
		return nil
	})
	slices.SortFunc(waiting, func(a, b unfinished) int { return cmp.Compare(a.image.Number, b.image.Number) })
	return waiting, err
}

// unfinished is a job that has not ended, and the image it makes.
type unfinished struct {
	job   job
	image image
}
