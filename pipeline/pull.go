package pipeline

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"imgferry/bitmap"
	"imgferry/convert"
	"imgferry/formats"
	"imgferry/limits"
	"imgferry/source"
)

// Pull is one run of the way back: an object of the store becomes a local image. Disk, Target and Name
// have no default.
type Pull struct {
	// Disk is the opened object. Pull does not close it.
	Disk *Opened
	// Target is the format to write, with its Settings.
	Target   convert.Target
	Settings convert.Settings
	// Name is the file to write.
	Name string
	// Digest is the content digest that the object's metadata promises; "": there is none.
	Digest string
	// Identity tells versions of the object apart: an unfinished file is gone on with only if it is of
	// the same; "": never.
	Identity string
	// Workers is how many ranges are fetched and decoded at once.
	Workers int
	// Interval is how often the place reached is noted down; 0 is a second.
	Interval time.Duration
	// Progress is counted up, if not nil. Notice is told what the user may want to know, if not nil.
	Progress *convert.Progress
	Notice   func(string)
}

// PullReport is what a pull did. Sizes are in bytes.
type PullReport struct {
	Target      string `json:"target"`
	Format      string `json:"format"`
	VirtualSize int64  `json:"virtual_size"`
	Blocks      int64  `json:"blocks"`
	DataBlocks  int64  `json:"data_blocks"`
	Digest      string `json:"content_digest"`
	// Verified says that the digest is the one that the object's metadata promises.
	Verified bool `json:"verified"`
	// Resumed is how much of the disk an earlier run had brought.
	Resumed int64 `json:"resumed,omitempty"`
}

// NewObject returns an object of a bucket as package source reads it. name is how messages call the
// bucket.
func NewObject(bucket Bucket, name, key string) source.Object {
	return &storedObject{bucket, name, key}
}

// Names of an object's metadata that say how to read it back.
const (
	MetaDigest = metaDigest
	MetaFormat = metaFormat
)

// ErrDigest: what arrived is not the disk that the object's metadata promises.
var ErrDigest = errors.New("the content digest is not the one in the object's metadata")

// checkpointInterval is how often the place reached is noted: a run that is killed fetches again what came
// since, and what was on its way.
const checkpointInterval = time.Second

// Run pulls the disk. A raw file is written beside its name, with a note of how far it is, and kept when
// the run fails: the next one goes on from there. Other formats begin anew.
func (p Pull) Run(ctx context.Context) (PullReport, error) {
	if p.Progress == nil {
		p.Progress = new(convert.Progress)
	}
	if p.Notice == nil {
		p.Notice = func(string) {}
	}
	if err := convert.CheckSize(p.Disk); err != nil {
		return PullReport{}, err
	}
	if p.Target.Raw() && !p.Disk.Sequential() {
		return p.resumable(ctx)
	}
	out, err := convert.Create(p.Name)
	if err != nil {
		return PullReport{}, err
	}
	defer out.Discard()
	result, err := p.Target.Write(ctx, p.Disk, out, p.Settings, p.options())
	if err != nil {
		return PullReport{}, err
	}
	r, err := p.judge(result)
	if err != nil {
		return r, err
	}
	return r, out.Commit()
}

func (p *Pull) options() convert.Options {
	return convert.Options{Digest: true, Workers: p.Workers, Progress: p.Progress}
}

// judge compares the digest with the one that was promised.
func (p *Pull) judge(result convert.Result) (PullReport, error) {
	r := PullReport{
		Target: p.Name, Format: p.Target.Name, VirtualSize: p.Disk.Size(), Blocks: result.Blocks.Len(),
		DataBlocks: result.Blocks.Count(), Digest: result.Digest.String(),
	}
	if p.Digest != "" && r.Digest != p.Digest {
		return r, fmt.Errorf("%w: %s, not %s", ErrDigest, r.Digest, p.Digest)
	}
	r.Verified = p.Digest != ""
	return r, p.Disk.Disk().Unchanged()
}

// resumable pulls a raw disk.
func (p *Pull) resumable(ctx context.Context) (r PullReport, err error) {
	part, err := openPart(p.Name, p.Identity, p.Disk.Size())
	if err != nil {
		return r, err
	}
	defer part.close()
	if part.done > 0 {
		p.Notice(fmt.Sprintf("going on at %d of %d bytes of the disk, where an earlier run ended", part.done, p.Disk.Size()))
	}
	resumed := part.done
	result, err := p.writePart(ctx, part)
	if err != nil {
		if errors.Is(err, ErrChanged) || errors.Is(p.Disk.Disk().Explain(ctx, err), ErrChanged) {
			part.discard() // of a version that is no more
		}
		return r, err
	}
	if r, err = p.judge(result); err != nil {
		part.discard()
		return r, err
	}
	r.Resumed = resumed
	return r, part.commit()
}

// writePart writes what part lacks, and notes from time to time how far it is.
func (p *Pull) writePart(ctx context.Context, part *partFile) (result convert.Result, err error) {
	marks := newWatermark(partly{p.Disk.Image, part, part.done}, p.Progress)
	g, noting := errgroup.WithContext(ctx)
	written := make(chan struct{})
	g.Go(func() error {
		defer close(written)
		var err error
		result, err = p.Target.Write(noting, marks, partTarget{part, part.done}, p.Settings, p.options())
		return err
	})
	g.Go(func() error {
		interval := p.Interval
		if interval <= 0 {
			interval = checkpointInterval
		}
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if err := part.note(marks.reached()); err != nil {
					return err
				}
			case <-written:
				return nil
			}
		}
	})
	if err = g.Wait(); err != nil {
		// Whatever ended it, what is there is good.
		return result, errors.Join(err, part.note(marks.reached()))
	}
	return result, nil
}

// watermark is a disk that turns the count of its blocks that are done into a place: the blocks in which its
// extents tell of data are done in order.
type watermark struct {
	formats.Image
	progress *convert.Progress

	mu      sync.Mutex // guards what follows
	data    *bitmap.Bitmap
	counted int64 // blocks with data before next
	next    int64
}

func newWatermark(img formats.Image, progress *convert.Progress) *watermark {
	return &watermark{Image: img, progress: progress, data: bitmap.New(bitmap.Blocks(img.Size()))}
}

// Extents notes what the disk's extents tell.
func (w *watermark) Extents(ctx context.Context) iter.Seq2[formats.Extent, error] {
	return func(yield func(formats.Extent, error) bool) {
		for e, err := range w.Image.Extents(ctx) {
			if err == nil && !e.Zero {
				w.note(e.Offset, e.Offset+e.Length)
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

func (w *watermark) note(from, to int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := from / bitmap.BlockSize; i < bitmap.Blocks(to); i++ {
		w.data.Set(i)
	}
}

// reached is the byte of the disk up to which everything is written.
func (w *watermark) reached() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	for done := w.progress.Read.Load() / convert.BlockSize; w.counted < done && w.next < w.data.Len(); w.next++ {
		if w.data.Get(w.next) {
			w.counted++
		}
	}
	return w.next * convert.BlockSize
}

// Holes is a raw disk in the store, with the bitmap that lies beside it: what it says is empty is not
// read.
type Holes struct {
	Source
	bits *bitmap.Bitmap
}

// NewHoles returns src with the bitmap object p beside it (limits.BitmapKey).
func NewHoles(src Source, p []byte) (*Holes, error) {
	bits, err := bitmap.Parse(p, bitmap.Blocks(src.Size()))
	if err != nil {
		return nil, err
	}
	return &Holes{src, bits}, nil
}

// BitmapSize is the length in bytes of the bitmap of a disk of size bytes.
func BitmapSize(size int64) int64 { return bitmap.StoredSize(bitmap.Blocks(size)) }

// BitmapKey is the key of the bitmap beside a raw object.
func BitmapKey(key string) string { return limits.BitmapKey(key) }

// NextData returns the next run of blocks that hold data.
func (h *Holes) NextData(off int64) (start, end int64, err error) {
	i := off / bitmap.BlockSize
	for ; i < h.bits.Len() && !h.bits.Get(i); i++ {
	}
	if i == h.bits.Len() {
		return h.Size(), h.Size(), nil
	}
	j := i
	for ; j < h.bits.Len() && h.bits.Get(j); j++ {
	}
	return max(off, i*bitmap.BlockSize), min(j*bitmap.BlockSize, h.Size()), nil
}
