package pipeline_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgferry/formats"
	"imgferry/formats/raw"
	"imgferry/pipeline"
	"imgferry/upload"
)

// A store refuses an object of which any part but the last is short. A run of data somewhat longer than whole parts
// has none.
func TestRawPartsAreLongEnough(t *testing.T) {
	c := newCloud(t)
	const length, size = 50<<20 + 4096, 200 << 20
	name := filepath.Join(t.TempDir(), "disk.raw")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data := make([]byte, length)
	rand.NewChaCha8([32]byte{1}).Read(data)
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	p := c.push(open(t, name, raw.Format()))
	p.Key, p.Format, p.PartSize, p.Verify = "long.raw", pipeline.Raw, 5<<20, true
	r, err := p.Upload(t.Context())
	if err != nil || r.Sent != length || r.Copied != size-length || !r.Verified {
		t.Errorf("%+v, %v", r, err)
	}
}

// cuts is the parts of data between the given places, in MiB.
func cuts(data io.ReaderAt, at ...int64) upload.Sequence {
	return func(context.Context) iter.Seq2[upload.Part, error] {
		return func(yield func(upload.Part, error) bool) {
			for i := range len(at) - 1 {
				from, size := at[i]<<20, (at[i+1]-at[i])<<20
				if !yield(upload.Part{Number: i + 1, Size: size, Body: io.NewSectionReader(data, from, size)}, nil) {
					return
				}
			}
		}
	}
}

// A version that cut the same disk in another way was killed. Its journal knows parts that have the number and the
// size of one of ours and lie elsewhere: none of them gets into the object.
func TestJournalOfAnotherPlan(t *testing.T) {
	c := newCloud(t)
	disk := noisy(t, 40, [2]int64{0, 40})
	for _, format := range []string{pipeline.Raw, pipeline.AsIs} {
		for name, x := range map[string]struct {
			cut     []int64 // of the other version, in MiB; ours are 8 MiB long
			skipped int64   // which is there with the right place, in MiB
		}{
			"all elsewhere":   {[]int64{0, 5, 13, 21, 29, 37, 40}, 0},
			"later elsewhere": {[]int64{0, 8, 17, 25, 33, 40}, 8},
		} {
			t.Run(format+" "+name, func(t *testing.T) {
				p := c.push(disk)
				p.Key, p.Format, p.StateDir, p.StoreID = strings.ReplaceAll(t.Name(), " ", "-"), format, t.TempDir(), "box"
				j, err := upload.OpenJournal(pipeline.JournalDir(p.StateDir), upload.JournalID{Store: p.StoreID, Key: p.Key,
					Source:   fmt.Sprintf("raw of %d bytes: %s", disk.Image.Size(), disk.Identity),
					Settings: format + `: parts of 0, encrypted by ""`})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				var kept *upload.UnfinishedError
				_, err = upload.Send(ctx, upload.Config{Key: p.Key, Journal: j, Workers: 1,
					Store: &doomed{Bucket: c.bucket, parts: 4, kill: func() { cancel(upload.ErrInterrupted) }}}, cuts(disk.Image, x.cut...))
				if !errors.As(err, &kept) || kept.PartsDone != 4 {
					t.Fatal(err)
				}
				if err := j.Close(); err != nil {
					t.Fatal(err)
				}

				r, err := p.Upload(t.Context())
				if err != nil || r.Skipped != x.skipped<<20 || r.Sent+r.Skipped != r.ObjectSize {
					t.Fatalf("%+v, %v", r, err)
				}
				o, err := c.bucket.Stat(t.Context(), p.Key)
				if err != nil || o.ETag != r.ETag || (besideTest{c, t}).object(p.Key) != content(t, disk) {
					t.Errorf("the object is not the disk: %+v, %v", o, err)
				}
			})
		}
	}
}

// A journal of the same plan is used: what it knows is not even read to be compared.
func TestJournalOfTheSamePlan(t *testing.T) {
	c := newCloud(t)
	disk := noisy(t, 40, [2]int64{0, 40})
	for format, surveyed := range map[string]int64{pipeline.Raw: 40 << 20, pipeline.AsIs: 0} {
		p := c.push(disk)
		p.Key, p.Format, p.StateDir, p.StoreID, p.Senders = "same."+format, format, t.TempDir(), "box", 1
		ctx, cancel := context.WithCancelCause(t.Context())
		p.Bucket = &doomed{Bucket: c.bucket, parts: 3, kill: func() { cancel(upload.ErrInterrupted) }}
		var kept *upload.UnfinishedError
		if _, err := p.Upload(ctx); !errors.As(err, &kept) || kept.PartsDone != 3 {
			t.Fatal(err)
		}
		image := &tallied{Image: disk.Image}
		p.Bucket, p.Disk.Image = c.bucket, image
		r, err := p.Upload(t.Context())
		if err != nil || r.Skipped != 24<<20 || r.Sent != 16<<20 || image.read > surveyed+(17<<20) {
			t.Errorf("%s: %d bytes were read: %+v, %v", format, image.read, r, err)
		}
	}
}

// vast is a disk of any size with data at its ends only, where no file system is asked to hold it.
type vast struct {
	formats.Image
	size, data int64
	t          *testing.T
	sealed     bool // nobody may read it
}

func (v vast) Size() int64 { return v.size }

func (v vast) Extents(context.Context) iter.Seq2[formats.Extent, error] {
	return func(yield func(formats.Extent, error) bool) {
		if v.sealed {
			v.t.Error("the map of the disk is asked for")
		}
		_ = yield(formats.Extent{Length: v.data}, nil) &&
			yield(formats.Extent{Offset: v.data, Length: v.size - 2*v.data, Zero: true}, nil) &&
			yield(formats.Extent{Offset: v.size - v.data, Length: v.data}, nil)
	}
}

func (v vast) ReadAt(b []byte, off int64) (int, error) {
	if v.sealed {
		v.t.Error("the disk is read")
	}
	for i := range b {
		at := off + int64(i)
		b[i] = 0
		if at < v.data || at >= v.size-v.data {
			b[i] = byte(at>>9) | 1
		}
	}
	return len(b), nil
}

// A disk whose zeros take more parts than there are, each as large as those of a small one: little more than
// its data is sent all the same.
func TestVastRawDisk(t *testing.T) {
	if os.Getenv("IMGFERRY_LONG") == "" {
		t.Skip("takes 20 s: set IMGFERRY_LONG=1")
	}
	c := newCloud(t)
	disk := noisy(t, 1)
	disk.Image = vast{Image: disk.Image, size: 12 << 40, data: 8 << 20, t: t}
	p := c.push(disk)
	p.Key, p.Format = "vast.raw", pipeline.Raw
	r, err := p.Upload(t.Context())
	if err != nil || r.Sent != 16<<20 || r.Sent+r.Copied != r.ObjectSize || r.ObjectSize != 12<<40 {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, x := range []struct{ off, zeros int64 }{{0, 0}, {7 << 20, 0}, {8 << 20, 1 << 20}, {6<<40 + 12345, 1 << 20}, {12<<40 - 1<<20, 0}} {
		o, err := c.bucket.Get(t.Context(), p.Key, x.off, 1<<20, r.ETag)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(o)
		o.Close()
		want := make([]byte, 1<<20)
		disk.Image.ReadAt(want, x.off)
		if err != nil || !bytes.Equal(got, want) || x.zeros > 0 && !bytes.Equal(got, make([]byte, x.zeros)) {
			t.Errorf("at %d: other bytes: %v", x.off, err)
		}
	}
}

// What can't be sent is refused before the disk is read for its digest and its zeros.
func TestRawIsRefusedUnread(t *testing.T) {
	c := newCloud(t)
	for _, x := range []struct {
		size, partSize int64
		says           string
	}{
		{47 << 40, 0, "too much for one object"},
		{60 << 40, 0, "60 TiB"},
		{1 << 40, 1 << 20, "parts of 1.0 MiB won't do"},
	} {
		for _, format := range []string{pipeline.Raw, pipeline.AsIs} {
			disk := noisy(t, 1)
			disk.Image = vast{Image: disk.Image, size: x.size, data: 1 << 30, t: t, sealed: true}
			p := c.push(disk)
			p.Key, p.Format, p.PartSize, p.Verify = "no.raw", format, x.partSize, true
			if _, err := p.Upload(t.Context()); err == nil || !strings.Contains(err.Error(), x.says) {
				t.Errorf("%d bytes in parts of %d, %s: %v", x.size, x.partSize, format, err)
			}
		}
	}
}
