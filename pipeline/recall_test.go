package pipeline_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"imgferry/convert"
	"imgferry/formats/raw"
	"imgferry/formats/zvhd2"
	"imgferry/pipeline"
	"imgferry/upload"
)

// mostlyNoise returns a disk of mib MiB that compresses to 65 to 80 percent, at each level but the fastest: a part of
// 5 MiB takes four blocks.
func mostlyNoise(t *testing.T, mib int) pipeline.Disk {
	t.Helper()
	words := make([]byte, 64<<10)
	r := rand.New(rand.NewPCG(3, 4))
	for i := range words {
		words[i] = byte(r.Uint32())
	}
	var b bytes.Buffer
	for b.Len() < mib<<20 {
		at, n := r.IntN(len(words)-64), 8+r.IntN(8)
		b.Write(words[at : at+n])
		for range r.IntN(3) {
			b.Write(binary.LittleEndian.AppendUint64(nil, r.Uint64()))
		}
	}
	name := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(name, b.Bytes()[:mib<<20], 0o666); err != nil {
		t.Fatal(err)
	}
	d := open(t, name, raw.Format())
	d.Identity = "the only one"
	return d
}

// fewBuffers is the memory for five buffers of parts of so many bytes, beside the tables of as many encoders as
// there are.
func fewBuffers(p *pipeline.Push, part int64) int64 {
	return 5*(part+upload.MaxChunk) + int64(convert.DefaultWorkers(pipeline.EngineMemory))*p.Tables()
}

// slow is a bucket behind a link that is always slower than the encoder: of five buffers, one is sent, another is
// next, and three wait, so that the level of the part after them is chosen before the first is sent. After so many
// parts it fails for good.
type slow struct {
	pipeline.Bucket
	chosen atomic.Int64 // the part for which the level was chosen last
	disk   int          // in parts
	mu     sync.Mutex
	parts  int
	kill   func()
}

func (s *slow) PutPart(ctx context.Context, key, id string, number int, body io.ReadSeeker, size int64, sum *[16]byte) (string, error) {
	s.mu.Lock()
	s.parts--
	over := s.parts < 0
	s.mu.Unlock()
	if over {
		s.kill()
		<-ctx.Done()
		return "", ctx.Err()
	}
	for s.chosen.Load() < int64(min(number+5, s.disk)) {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	return s.Bucket.PutPart(ctx, key, id, number, body, size, sum)
}

// levels reads from the only journal in dir at which level each part was encoded.
func levels(t *testing.T, dir string) map[int]zvhd2.Level {
	t.Helper()
	names, _ := filepath.Glob(filepath.Join(dir, "*.journal"))
	if len(names) != 1 {
		t.Fatalf("journals %v", names)
	}
	b, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[int]zvhd2.Level)
	next := func() []byte {
		body := b[8 : 8+binary.LittleEndian.Uint32(b)]
		b = b[8+len(body):]
		return body
	}
	for next(); len(b) > 0; { // the head is first
		body := next()
		found[int(binary.LittleEndian.Uint32(body))] = zvhd2.Level(body[4])
	}
	return found
}

// A slow link makes the encoder try harder. A run that was killed after the level changed goes on with what
// it had sent, with the journal and then without.
func TestLevelRises(t *testing.T) {
	c := newCloud(t)
	const parts, part = 8, 5 << 20
	p := c.push(mostlyNoise(t, 88))
	p.Key, p.Senders, p.PartSize, p.StoreID, p.StateDir = "rises", 1, part, "box", t.TempDir()
	p.AutoLevel, p.Verify = true, true
	p.Memory = fewBuffers(&p, part)
	dir := pipeline.JournalDir(p.StateDir)
	ctx, cancel := context.WithCancelCause(t.Context())
	link := &slow{Bucket: c.bucket, disk: int(p.Disk.Image.Size() / (4 * convert.BlockSize)), parts: parts, kill: func() { cancel(upload.ErrInterrupted) }}
	p.Choosing(func(part int) func() { return func() { link.chosen.Store(int64(part)) } })
	p.Bucket = link
	var kept *upload.UnfinishedError
	if _, err := p.Upload(ctx); !errors.As(err, &kept) || kept.PartsDone != parts {
		t.Fatalf("%v", err)
	}
	found := levels(t, dir)
	t.Logf("levels %v", found)
	if found[1] != zvhd2.LevelDefault || found[4] != zvhd2.LevelDefault || found[parts] != zvhd2.LevelBetter {
		t.Errorf("levels %v", found)
	}

	ctx, cancel = context.WithCancelCause(t.Context())
	p.Bucket = &doomed{Bucket: c.bucket, parts: 1, kill: func() { cancel(upload.ErrInterrupted) }}
	if _, err := p.Upload(ctx); !errors.As(err, &kept) || kept.PartsDone != parts+1 {
		t.Fatalf("with the journal: %v", err)
	}

	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	// And one part is not what it was.
	if _, err := c.bucket.PutPart(t.Context(), p.Key, kept.UploadID, 6, bytes.NewReader(make([]byte, part)), part, nil); err != nil {
		t.Fatal(err)
	}
	p.Bucket = c.bucket
	r, err := p.Upload(t.Context())
	if err != nil || !r.Verified || r.Sent+r.Skipped != r.ObjectSize {
		t.Fatalf("without the journal: %+v, %v", r, err)
	}
	if r.Skipped < parts*part {
		t.Errorf("skipped %d bytes of %d parts", r.Skipped, parts)
	}
	if left, err := c.bucket.Uploads(t.Context(), p.Key); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// A fast link makes the encoder hurry. An object that a run left without its digest, whose bytes nobody can
// make again, is known by its content.
func TestLevelFalls(t *testing.T) {
	c := newCloud(t)
	const parts, part = 7, 5 << 20
	p := c.push(mostlyNoise(t, 66))
	p.Key, p.Senders, p.PartSize, p.StoreID, p.StateDir = "falls", 1, part, "box", t.TempDir()
	p.AutoLevel, p.Level = true, zvhd2.LevelBetter
	p.Memory = fewBuffers(&p, part)
	ctx, cancel := context.WithCancelCause(t.Context())
	p.Bucket = &doomed{Bucket: c.bucket, parts: parts, kill: func() { cancel(upload.ErrInterrupted) }}
	p.Progress = new(pipeline.Progress)
	p.Choosing(func(part int) func() { // the link has sent all that there is
		for ctx.Err() == nil && p.Progress.Upload.Parts() < int64(part-1) {
			runtime.Gosched()
		}
		return func() {}
	})
	if _, err := p.Upload(ctx); !errors.As(err, new(*upload.UnfinishedError)) {
		t.Fatal(err)
	}
	p.Choosing(nil)
	found := levels(t, pipeline.JournalDir(p.StateDir))
	t.Logf("levels %v", found)
	if found[1] != zvhd2.LevelBetter || found[parts] >= zvhd2.LevelBetter {
		t.Errorf("levels %v", found)
	}
	p.Bucket = &noSeal{c.bucket}
	if r, err := p.Upload(t.Context()); err != nil || r.Skipped < parts*part {
		t.Fatalf("%+v, %v", r, err)
	}
	p.Bucket = c.bucket
	if r, err := p.Upload(t.Context()); err != nil || !r.Reused || r.Digest == "" {
		t.Errorf("%+v, %v", r, err)
	}
}
