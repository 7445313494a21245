package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"

	"imgferry/convert"
)

const (
	// registrations is the folder of the notes.
	registrations = "registrations"
	// lockPoll is the pause between two looks at a note that another run holds.
	lockPoll = 200 * time.Millisecond
)

// intent is the note that an image is about to be, or is being registered. Registering is not
// idempotent: whoever finds a note without a job doesn't know whether the service took the request
// that a killed run had sent.
type intent struct {
	path string       // "": nothing is kept
	lock *flock.Flock // held while it is decided whether to register; nil: released

	Name   string `json:"name"`
	Digest string `json:"content_digest"`
	// Image is one whose metadata was made and that awaits its file.
	Image string    `json:"image_id,omitempty"`
	Job   string    `json:"job_id,omitempty"`
	Since time.Time `json:"since"`
}

// openIntent returns the note on the image that r describes, once no other run on this machine is
// about to register it. Since is zero if there is no note. The caller releases it.
func (p *Push) openIntent(ctx context.Context, r *Report) (_ *intent, err error) {
	if p.StateDir == "" {
		return &intent{}, nil
	}
	id := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s\n%d", p.Account, r.Name, r.Digest, r.MinDisk))
	n := &intent{path: filepath.Join(p.StateDir, registrations, fmt.Sprintf("%x.json", id[:16]))}
	n.lock = flock.New(n.path + ".lock")
	if _, err := n.lock.TryLockContext(ctx, lockPoll); err != nil {
		return nil, fmt.Errorf("the note on the registration can't be locked: %w", err)
	}
	defer func() {
		if err != nil {
			n.release()
		}
	}()
	b, err := os.ReadFile(n.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return n, nil
	case err != nil:
		return n, fmt.Errorf("the note on the registration can't be read: %w", err)
	}
	if json.Unmarshal(b, n) != nil {
		// It is written whole or not at all; somebody else damaged it. That there was one still counts.
		*n = intent{path: n.path, lock: n.lock, Since: time.Now()}
	}
	return n, nil
}

// await notes that the metadata of an image was made, and that it awaits its file.
func (n *intent) await(r *Report, image string) error {
	n.Image = image
	return n.save(r, "")
}

// save writes the note and returns when it will outlive a loss of power.
func (n *intent) save(r *Report, job string) error {
	if n.path == "" {
		return nil
	}
	n.Name, n.Digest, n.Job, n.Since = r.Name, r.Digest, job, time.Now().UTC()
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	f, err := convert.Create(n.path)
	if err != nil {
		return err
	}
	defer f.Discard()
	if _, err := f.Write(append(b, '\n')); err != nil {
		return err
	}
	return f.Commit()
}

// drop forgets the note: the image is there, or will never be.
func (n *intent) drop() {
	if n.path != "" {
		os.Remove(n.path) // a note that stays costs the next run a search
	}
	*n = intent{path: n.path, lock: n.lock}
}

// release lets other runs look at the note. Again it does nothing.
func (n *intent) release() {
	if n.lock != nil {
		n.lock.Unlock() // the end of the process does it too
		n.lock = nil
	}
}

// keepNotes makes sure, before anything is sent, that notes can be kept.
func (p *Push) keepNotes() error {
	if p.StateDir == "" {
		return nil
	}
	dir := filepath.Join(p.StateDir, registrations)
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		var f *os.File
		if f, err = os.CreateTemp(dir, "try-*"); err == nil {
			_, err = f.WriteString("room for a note")
			f.Close()
			os.Remove(f.Name())
		}
	}
	if err != nil {
		return fmt.Errorf("nothing was sent, since a note on the registration could not be kept (set XDG_STATE_HOME to a folder that can be written to): %w", err)
	}
	return nil
}
