package pipeline_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"imgferry/pipeline"
	"imgferry/upload"
)

// An unfinished upload that is gone on with promises what was true of the disk that it was begun for. The object
// in the end says what is true of this one, or the run fails.
func TestForeignMetadata(t *testing.T) {
	disk := rawDisk(t, 7, 2)
	size := fmt.Sprint(disk.Image.Size())
	for name, c := range map[string]struct {
		promised upload.Metadata
		fails    bool // where it can't be corrected
	}{
		"ours":              {upload.Metadata{"imgferry-size": size, "imgferry-format": pipeline.AsIs}, false},
		"another digest":    {upload.Metadata{"imgferry-size": size, "imgferry-format": pipeline.AsIs, "imgferry-digest": "another"}, true},
		"another size":      {upload.Metadata{"imgferry-size": "12583424", "imgferry-format": pipeline.AsIs}, true},
		"another format":    {upload.Metadata{"imgferry-size": size, "imgferry-format": pipeline.ZVHD2}, true},
		"another program's": {upload.Metadata{"rclone": "1"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			cloud := newCloud(t)
			p := cloud.push(disk)
			p.Format, p.Key = pipeline.AsIs, "x"
			begin := func() {
				if _, err := cloud.bucket.Begin(t.Context(), p.Key, c.promised); err != nil {
					t.Fatal(err)
				}
			}
			begin()
			if _, err := p.Upload(t.Context()); err != nil {
				t.Fatal(err)
			}
			o, err := cloud.bucket.Stat(t.Context(), p.Key)
			if err != nil || o.Metadata["imgferry-digest"] != "" || c.fails && (o.Metadata["imgferry-size"] != size || o.Metadata["imgferry-format"] != pipeline.AsIs) {
				t.Errorf("%v, %v", o.Metadata, err)
			}
			if err := cloud.bucket.Remove(t.Context(), p.Key); err != nil {
				t.Fatal(err)
			}
			begin()
			p.Bucket = &noSeal{cloud.bucket}
			if _, err := p.Upload(t.Context()); (err != nil) != c.fails {
				t.Errorf("where it can't be corrected: %v", err)
			}
		})
	}
}

// A file's object is known by the digest that --verify left on it, though its ETag changed with that.
func TestVerifiedFileIsKnown(t *testing.T) {
	c := newCloud(t)
	d := rawDisk(t, 7, 2)
	p := c.push(d)
	p.Format, p.Key, p.Verify = pipeline.AsIs, "x", true
	if _, err := p.Upload(t.Context()); err != nil {
		t.Fatal(err)
	}
	o, err := c.bucket.Stat(t.Context(), p.Key)
	if err != nil || o.Metadata["imgferry-digest"] == "" {
		t.Fatalf("%+v, %v", o, err)
	}
	// As a copy of one part, which AWS makes of it.
	all, err := io.ReadAll(io.NewSectionReader(d.Image, 0, d.Image.Size()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.bucket.Put(t.Context(), p.Key, bytes.NewReader(all), int64(len(all)), nil, o.Metadata); err != nil {
		t.Fatal(err)
	}
	if r, err := p.Upload(t.Context()); err != nil || !r.Reused || !r.Verified {
		t.Errorf("%+v, %v", r, err)
	}
}

// An object without a digest is known whatever parts it was sent in.
func TestObjectInOtherParts(t *testing.T) {
	for _, format := range []string{pipeline.ZVHD2, pipeline.Raw, pipeline.AsIs} {
		c := newCloud(t)
		p := c.push(noisy(t, 24, [2]int64{0, 24}))
		p.Format, p.Key = format, "x"
		p.Bucket = &noSeal{c.bucket}
		if _, err := p.Upload(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.PartSize = 5 << 20
		if r, err := p.Upload(t.Context()); err != nil || !r.Reused {
			t.Errorf("%s: %+v, %v", format, r, err)
		}
		p.Disk = noisy(t, 24, [2]int64{1, 24})
		if _, err := p.Upload(t.Context()); !errors.Is(err, pipeline.ErrExists) {
			t.Errorf("%s: another disk: %v", format, err)
		}
	}
}
