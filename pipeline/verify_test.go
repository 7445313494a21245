package pipeline_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"imgferry/pipeline"
	"imgferry/source"
	"imgferry/upload"
)

// tampered is a bucket whose objects change behind the back of whoever sent them: once they are sealed, or, if
// reading is set, once some of them was read.
type tampered struct {
	pipeline.Bucket
	change  func(key string) // nil: done
	reading bool
}

func (b *tampered) tamper(key string) {
	if f := b.change; f != nil {
		b.change = nil
		f(key)
	}
}

func (b *tampered) SetMetadata(ctx context.Context, o upload.Object, meta upload.Metadata) (string, error) {
	etag, err := b.Bucket.SetMetadata(ctx, o, meta)
	if !b.reading {
		b.tamper(o.Key)
	}
	return etag, err
}

func (b *tampered) Get(ctx context.Context, key string, offset, length int64, ifMatch string) (io.ReadCloser, error) {
	if b.reading && offset > 0 {
		b.tamper(key)
	}
	return b.Bucket.Get(ctx, key, offset, length, ifMatch)
}

// What --verify reads back is what the store has, not what was sent.
func TestVerifySeesChanges(t *testing.T) {
	c := newCloud(t)
	disk, other := rawDisk(t, 7, 1), rawDisk(t, 7, 2)
	replace := func(by func(key string) []byte) func(string) {
		return func(key string) {
			body := by(key)
			if _, err := c.bucket.Put(t.Context(), key, bytes.NewReader(body), int64(len(body)), nil, nil); err != nil {
				t.Error(err)
			}
		}
	}
	read := func(key string) []byte {
		o, err := c.bucket.Stat(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.bucket.Get(t.Context(), key, 0, o.Size, "")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, format := range []string{pipeline.ZVHD2, pipeline.Raw} {
		p := c.push(other)
		p.Format, p.Key = format, "other."+format
		if _, err := p.Upload(t.Context()); err != nil {
			t.Fatal(err)
		}
		otherBytes := read(p.Key)
		flip := func(key string) []byte {
			b := read(key)
			b[len(b)/2] ^= 1
			return b
		}
		for name, x := range map[string]struct {
			change  func(string)
			reading bool
			want    error
		}{
			"a bit":        {replace(flip), false, pipeline.ErrDiffers},
			"another disk": {replace(func(string) []byte { return otherBytes }), false, pipeline.ErrDiffers},
			"cut short":    {replace(func(key string) []byte { return read(key)[:4096] }), false, pipeline.ErrDiffers},
			"while read":   {replace(flip), true, source.ErrChanged},
			"nothing":      {nil, false, nil},
		} {
			p := c.push(disk)
			p.Format, p.Key, p.Verify, p.Overwrite = format, "disk."+format, true, true
			p.Bucket = &tampered{Bucket: c.bucket, change: x.change, reading: x.reading}
			r, err := p.Upload(t.Context())
			if !errors.Is(err, x.want) || r.Verified != (x.want == nil) {
				t.Errorf("%s, %s: %v, verified %v", format, name, err, r.Verified)
			}
		}
	}
}
