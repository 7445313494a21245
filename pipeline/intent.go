package pipeline

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"imgferry/convert"
)

// intent is the note that an image is about to be, or is being registered. Registering is not
// idempotent: whoever finds a note without a job doesn't know whether the service took the request
// that a killed run had sent.
type intent struct {
	path string // "": nothing is kept

	Name   string    `json:"name"`
	Digest string    `json:"content_digest"`
	Job    string    `json:"job_id,omitempty"`
	Since  time.Time `json:"since"`
}

// openIntent returns the note on the image that r describes. Since is zero if there is none.
func (p *Push) openIntent(r *Report) (*intent, error) {
	if p.StateDir == "" {
		return &intent{}, nil
	}
	id := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s\n%d", p.Account, r.Name, r.Digest, r.MinDisk))
	n := &intent{path: filepath.Join(p.StateDir, "registrations", fmt.Sprintf("%x.json", id[:16]))}
	b, err := os.ReadFile(n.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return n, nil
	case err != nil:
		return n, err
	}
	if json.Unmarshal(b, n) != nil {
		// It is written whole or not at all; somebody else damaged it. That there was one still counts.
		*n = intent{path: n.path, Since: time.Now()}
	}
	return n, nil
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
	if err := os.MkdirAll(filepath.Dir(n.path), 0o700); err != nil {
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
}
