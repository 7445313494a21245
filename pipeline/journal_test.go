package pipeline_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"imgferry/formats"
	"imgferry/formats/raw"
	"imgferry/pipeline"
	"imgferry/upload"
)

// tallied counts the bytes that are read of a disk.
type tallied struct {
	formats.Image
	mu   sync.Mutex
	read int64
}

func (c *tallied) ReadAt(p []byte, off int64) (int, error) {
	c.mu.Lock()
	c.read += int64(len(p))
	c.mu.Unlock()
	return c.Image.ReadAt(p, off)
}

// noisy returns a disk of size MiB whose ranges of MiB hold noise.
func noisy(t *testing.T, size int64, ranges ...[2]int64) pipeline.Disk {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk.raw")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size << 20); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(5, 6))
	block := make([]byte, 1<<20)
	for _, x := range ranges {
		for m := x[0]; m < x[1]; m++ {
			for i := 0; i < len(block); i += 8 {
				binary.LittleEndian.PutUint64(block[i:], r.Uint64())
			}
			if _, err := f.WriteAt(block, m<<20); err != nil {
				t.Fatal(err)
			}
		}
	}
	d := open(t, name, raw.Format())
	d.Identity = "the only one"
	return d
}

// doomed is a bucket whose connection ends for good after so many parts.
type doomed struct {
	pipeline.Bucket
	mu    sync.Mutex
	parts int
	kill  func()
}

func (d *doomed) PutPart(ctx context.Context, key, id string, number int, body io.ReadSeeker, size int64, sum *[16]byte) (string, error) {
	d.mu.Lock()
	d.parts--
	over := d.parts < 0
	d.mu.Unlock()
	if over {
		d.kill()
		<-ctx.Done()
		return "", ctx.Err()
	}
	return d.Bucket.PutPart(ctx, key, id, number, body, size, sum)
}

// A run that follows a killed one makes the same object, reads what the journal does not know only, and
// trusts neither a journal of another disk nor one that lies.
func TestJournaledResume(t *testing.T) {
	c := newCloud(t)
	disk := noisy(t, 40, [2]int64{3, 15}, [2]int64{20, 27}, [2]int64{30, 39})
	base := c.push(disk)
	base.Key, base.Senders, base.PartSize, base.StoreID = "reference", 1, 5<<20, "box"
	whole, err := base.Upload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		name   string
		parts  int
		tamper func(dir string, p *pipeline.Push)
		less   bool // of the disk is read again
	}{
		{"with the journal", 3, nil, true},
		{"one part", 1, nil, true},
		{"without the journal", 2, func(dir string, _ *pipeline.Push) { os.RemoveAll(dir) }, false},
		{"another source", 2, func(_ string, p *pipeline.Push) { p.Disk.Identity = "another" }, false},
		{"a lie", 2, lie, false},
	} {
		t.Run(x.name, func(t *testing.T) {
			p := base
			p.Key, p.StateDir = strings.ReplaceAll(x.name, " ", "-"), t.TempDir()
			ctx, cancel := context.WithCancelCause(t.Context())
			p.Bucket = &doomed{Bucket: c.bucket, parts: x.parts, kill: func() { cancel(upload.ErrInterrupted) }}
			var kept *upload.UnfinishedError
			if _, err := p.Upload(ctx); !errors.As(err, &kept) || kept.PartsDone != x.parts {
				t.Fatalf("%d parts: %v", x.parts, err)
			}
			if x.tamper != nil {
				x.tamper(pipeline.JournalDir(p.StateDir), &p)
			}
			image := &tallied{Image: disk.Image}
			p.Bucket, p.Disk.Image, p.Verify, p.Progress = c.bucket, image, true, new(pipeline.Progress)
			r, err := p.Upload(t.Context())
			if err != nil || r.ETag == "" || r.Digest != whole.Digest || r.ObjectSize != whole.ObjectSize || !r.Verified {
				t.Fatalf("%+v, %v; want %+v", r, err, whole)
			}
			if r.Skipped < int64(x.parts)*5<<20 || r.Sent+r.Skipped != r.ObjectSize {
				t.Errorf("sent %d, skipped %d", r.Sent, r.Skipped)
			}
			data := int64(28+4) << 20 // in blocks of 2 MiB
			if got := image.read; (got < data-int64(x.parts)*4<<20) != x.less {
				t.Errorf("read %d of %d bytes again", got, data)
			}
			same(t, c, p.Key, base.Key)
			if left, _ := os.ReadDir(pipeline.JournalDir(p.StateDir)); len(left) > 0 {
				t.Errorf("left %v", left)
			}
			left, err := c.bucket.Uploads(t.Context(), p.Key)
			if err != nil || len(left) > 0 {
				t.Errorf("left %v, %v", left, err)
			}
		})
	}
}

// lie changes the hash of the first block in a journal, and the record's checksum with it.
func lie(dir string, _ *pipeline.Push) {
	names, _ := filepath.Glob(filepath.Join(dir, "*.journal"))
	b, err := os.ReadFile(names[0])
	if err != nil {
		panic(err)
	}
	record := b[8+binary.LittleEndian.Uint32(b):] // behind the head
	body := record[8 : 8+binary.LittleEndian.Uint32(record)]
	body[34+32+12] ^= 1 // the part's fields, its ETag, the block's number and length
	binary.LittleEndian.PutUint32(record[4:], crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
	if err := os.WriteFile(names[0], b, 0o600); err != nil {
		panic(err)
	}
}

// same compares two objects of the bucket.
func same(t *testing.T, c cloud, a, b string) {
	t.Helper()
	var bodies [2][]byte
	for i, key := range []string{a, b} {
		o, err := c.bucket.Stat(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.bucket.Get(t.Context(), key, 0, o.Size, o.ETag)
		if err != nil {
			t.Fatal(err)
		}
		bodies[i], err = io.ReadAll(r)
		r.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(bodies[0], bodies[1]) {
		t.Errorf("%s and %s differ", a, b)
	}
}

// Of a sparse disk little more than its data is sent; the store makes the zeros.
func TestRawIsSparse(t *testing.T) {
	c := newCloud(t)
	disk := noisy(t, 120, [2]int64{10, 16}, [2]int64{50, 62}, [2]int64{118, 120})
	p := c.push(disk)
	p.Key, p.Format, p.Verify = "sparse.raw", pipeline.Raw, true
	r, err := p.Upload(t.Context())
	data := int64(6+12+2) << 20
	if err != nil || r.Sent < data || r.Sent > data*11/10 || r.Sent+r.Copied != r.ObjectSize || r.ObjectSize != 120<<20 || !r.Verified {
		t.Fatalf("%+v, %v", r, err)
	}
	o, err := c.bucket.Get(t.Context(), p.Key, 0, r.ObjectSize, "")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	got, err := io.ReadAll(o)
	want := make([]byte, 120<<20)
	if _, err := disk.Image.ReadAt(want, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the object is not the disk: %v", err)
	}
	again, err := p.Upload(t.Context())
	if err != nil || !again.Reused || again.Digest != r.Digest {
		t.Errorf("%+v, %v", again, err)
	}
}

// The digest goes onto an object that is too large to be copied in one request, too. It is still the same one.
func TestLargeObjectKeepsItsETag(t *testing.T) {
	c := newCloud(t)
	p := c.push(noisy(t, 6<<10, [2]int64{0, 6}, [2]int64{3000, 3020}))
	p.Key, p.Format = "large.raw", pipeline.Raw
	r, err := p.Upload(t.Context())
	if err != nil || r.ObjectSize != 6<<30 {
		t.Fatalf("%+v, %v", r, err)
	}
	o, err := c.bucket.Stat(t.Context(), p.Key)
	if err != nil || o.Size != 6<<30 || o.ETag != r.ETag || o.Metadata["imgferry-digest"] != r.Digest || o.Metadata["imgferry-format"] != pipeline.Raw {
		t.Errorf("%+v, not %+v: %v", o, r, err)
	}
	if left, err := c.bucket.Uploads(t.Context(), ""); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// A file's own bytes, whatever they are.
func TestAsIs(t *testing.T) {
	c := newCloud(t)
	p := c.push(open(t, "../testdata/linux.qcow2", raw.Format()))
	p.Key, p.Format, p.Verify = "linux.qcow2", pipeline.AsIs, true
	r, err := p.Upload(t.Context())
	if err != nil || !r.Verified || r.Sent != r.ObjectSize {
		t.Fatalf("%+v, %v", r, err)
	}
	want, _ := os.ReadFile("../testdata/linux.qcow2")
	o, err := c.bucket.Get(t.Context(), p.Key, 0, r.ObjectSize, r.ETag)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if got, err := io.ReadAll(o); err != nil || !bytes.Equal(got, want) {
		t.Errorf("other bytes: %v", err)
	}
	if again, err := p.Upload(t.Context()); err != nil || !again.Reused {
		t.Errorf("%+v, %v", again, err)
	}
}
