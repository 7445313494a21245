package pipeline_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"

	"imgferry/formats"
	"imgferry/limits"
	"imgferry/pipeline"
)

// late is a bucket in front of which something else happens first: before the third part.
type late struct {
	pipeline.Bucket
	once  sync.Once
	first func()
}

func (l *late) PutPart(ctx context.Context, key, id string, number int, body io.ReadSeeker, size int64, sum *[16]byte) (string, error) {
	if number == 3 {
		l.once.Do(l.first)
	}
	return l.Bucket.PutPart(ctx, key, id, number, body, size, sum)
}

// Of two runs of the same upload, one resumes what the other began and completes it: the other then finds its
// upload gone, and the object there, also where both were told to overwrite what is there.
func TestTwoRunsOverwrite(t *testing.T) {
	for _, auto := range []bool{false, true} {
		c := newCloud(t)
		p := c.push(mostlyNoise(t, 28))
		p.Key, p.Overwrite, p.Senders, p.PartSize, p.AutoLevel = "twice", true, 1, 5<<20, auto
		p.StoreID, p.StateDir = "box", t.TempDir()
		other := p
		other.Disk.Identity = "" // another machine's
		p.Bucket = &late{Bucket: c.bucket, first: func() {
			if r, err := other.Upload(t.Context()); err != nil || r.Skipped == 0 {
				t.Errorf("auto %v: the other run: %+v, %v", auto, r, err)
			}
		}}
		r, err := p.Upload(t.Context())
		if err != nil || !r.Reused || r.Digest == "" || r.ObjectSize == 0 {
			t.Errorf("auto %v: %+v, %v", auto, r, err)
		}
		if left, err := c.bucket.Uploads(t.Context(), ""); err != nil || len(left) > 0 {
			t.Errorf("auto %v: left %v, %v", auto, left, err)
		}
	}
}

// nothing is an image of 0 bytes.
type nothing struct{ formats.Image }

func (nothing) Size() int64 { return 0 }

// A disk of 0 bytes is refused in words, before anything is asked of a store.
func TestEmptyDisk(t *testing.T) {
	p := pipeline.Push{Disk: pipeline.Disk{Image: nothing{}}, Key: "k", Name: "n"}
	var rule *limits.Error
	for _, format := range []string{pipeline.ZVHD2, pipeline.Raw, pipeline.AsIs} {
		p.Format = format
		if _, err := p.Upload(t.Context()); !errors.As(err, &rule) {
			t.Errorf("%s: %v", format, err)
		}
		if _, err := p.Run(t.Context()); !errors.As(err, &rule) {
			t.Errorf("%s: %v", format, err)
		}
	}
}
