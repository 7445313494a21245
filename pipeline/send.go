package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync/atomic"

	"github.com/dustin/go-humanize"
	"github.com/dustin/go-humanize/english"
	"golang.org/x/sync/errgroup"

	"imgferry/bitmap"
	"imgferry/convert"
	"imgferry/formats/zvhd2"
	"imgferry/source"
	"imgferry/upload"
)

// stream converts to ZVHD2 and sends the stream as it comes.
func (p *Push) stream(ctx context.Context, size int64, r *Report) error {
	meta := p.metadata(size)
	settings := fmt.Sprintf("%s, parts of %d", p.encoder(), p.PartSize)
	var found convert.Result
	sent, err := p.journaled(ctx, r.Key, settings, func(c upload.Config) (sent upload.Result, err error) {
		p.Progress.Size.Store(0)
		var known []upload.JournalPart
		if c.Resume != nil {
			known = settled(replayable(c.Resume.Parts, bitmap.Blocks(size)))
		} else if c.Resume, err = p.recall(ctx, size, c); err != nil {
			return sent, err
		} else if c.Resume != nil {
			known = c.Resume.Parts
		}
		found, err = p.produce(ctx, size, known, p.Progress.Size.Store, func(ctx context.Context, parts upload.Sequence, plan upload.Plan) (err error) {
			p.Notice(p.words(plan, len(known)))
			c.Metadata, c.Buffers = meta, plan.Buffers
			sent, err = upload.Send(ctx, c, parts)
			return err
		})
		return sent, err
	})
	if err != nil {
		return err
	}
	r.Digest = found.Digest.String()
	r.took(sent)
	return p.seal(ctx, meta, sent, r)
}

// words says how a stream is sent.
func (p *Push) words(plan upload.Plan, known int) string {
	s := fmt.Sprintf("sending parts of %d MiB from %d buffers, encoding on %s",
		plan.PartSize>>20, plan.Buffers, english.Plural(p.threads(plan), "thread", ""))
	if known > 0 {
		s += fmt.Sprintf("; %s already encoded", english.Plural(known, "part is", "parts are"))
	}
	return s
}

// encoder says how ZVHD2 objects are encoded.
func (p *Push) encoder() string {
	s := zvhd2.Options{Level: p.Level}.Encoder()
	if p.AutoLevel {
		s += " and others"
	}
	return s
}

// journals is the folder of the journals.
const journals = "uploads"

// JournalDir is where a push with that StateDir keeps the journals of its uploads.
func JournalDir(stateDir string) string { return filepath.Join(stateDir, journals) }

// journaled runs send with what the journal of an earlier run of the same disk knows. Where that turns out
// to be wrong it runs it once more without.
func (p *Push) journaled(ctx context.Context, key, settings string, send func(upload.Config) (upload.Result, error)) (upload.Result, error) {
	c := p.sendConfig(key)
	if p.StateDir == "" || p.StoreID == "" {
		return send(c)
	}
	if p.Disk.Identity == "" {
		p.Notice("no journal of the upload is kept, since nothing tells when the source's content changes: a later run makes all parts again and compares them with those that the store has")
		return send(c)
	}
	j, err := upload.OpenJournal(JournalDir(p.StateDir), upload.JournalID{Store: p.StoreID, Key: key,
		Source:   fmt.Sprintf("%s of %d bytes: %s", p.Disk.Format, p.Disk.Image.Size(), p.Disk.Identity),
		Settings: fmt.Sprintf("%s: %s, encrypted by %q", p.Format, settings, p.Encrypted)})
	if errors.Is(err, upload.ErrJournalBusy) {
		p.Notice("another run on this machine sends to the same key: this one begins an upload of its own and keeps no journal")
		c.ResumeNone = true
		return send(c)
	}
	if err != nil {
		p.Notice(fmt.Sprintf("no journal of the upload is kept: %v", err))
		return send(c)
	}
	defer func() {
		if err := j.Close(); err != nil {
			p.Notice(fmt.Sprintf("the journal of the upload: %v", err))
		}
	}()
	c.Journal = j
	if c.Resume, err = j.Resume(ctx, p.Bucket, p.Retry); err != nil {
		if ctx.Err() != nil || upload.Temporary(err) {
			return upload.Result{}, err
		}
		p.Notice(fmt.Sprintf("the journal of the upload can't be used: %v", err))
	}
	sent, err := send(c)
	if !errors.Is(err, upload.ErrJournal) {
		return sent, err
	}
	p.Notice(fmt.Sprintf("the journal is not used, and the disk is encoded from its beginning: %v", err))
	if err := j.Discard(); err != nil {
		return sent, err
	}
	p.Progress.Convert.Read.Store(0)
	p.Progress.Convert.Total.Store(0)
	c.Resume = nil
	return send(c)
}

// produce converts to ZVHD2 and hands the parts to consume while they are made, all but those that are
// known. made is told how many bytes they have together once all are made.
func (p *Push) produce(ctx context.Context, size int64, known []upload.JournalPart, made func(size int64), consume func(context.Context, upload.Sequence, upload.Plan) error) (convert.Result, error) {
	blocks, err := p.count(ctx)
	if err != nil {
		return convert.Result{}, err
	}
	plan, err := p.planStream(size, blocks)
	if err != nil {
		return convert.Result{}, err
	}
	g, gctx := errgroup.WithContext(ctx)
	parts := upload.NewPartWriter(gctx, plan)
	var found convert.Result
	g.Go(func() (err error) {
		if found, err = p.encode(gctx, size, blocks, parts, known, p.threads(plan)); err != nil {
			parts.Fail(err)
			return err
		}
		err = parts.Close()
		made(parts.Size())
		return err
	})
	var consumed error
	g.Go(func() error {
		consumed = consume(gctx, parts.Parts, plan)
		return consumed
	})
	err = g.Wait() // before found is read
	return found, outcome(err, consumed)
}

// planStream plans the parts of a disk of which the engine would read so many blocks.
func (p *Push) planStream(size, blocks int64) (upload.Plan, error) {
	// The plan must not depend on what may differ between two runs of the same disk. A format's
	// own tables don't; the holes of a raw file may, after a copy.
	if p.Disk.Format == "raw" {
		blocks = bitmap.Blocks(size)
	}
	most := blocks*zvhd2.ChunkBound + zvhd2.TailSize(blocks, bitmap.Blocks(size))
	plan, err := upload.PlanStream(most, p.PartSize, p.Memory)
	if tables := int64(p.threads(plan)) * p.tables(); err == nil && tables > 0 {
		return upload.PlanStream(most, p.PartSize, max(p.memory()-tables, leastBuffers*plan.BufferSize))
	}
	return plan, err
}

// encode writes the disk, of which the engine would read so many blocks, to parts.
func (p *Push) encode(ctx context.Context, size, blocks int64, parts *upload.PartWriter, known []upload.JournalPart, workers int) (convert.Result, error) {
	w, err := newRecorder(p.Disk.Image, size, p.Level, parts, known)
	if err != nil {
		return convert.Result{}, err
	}
	img := p.Disk.Image
	if p.changesLevel() {
		w.auto, w.turns = &autoLevel{choosing: p.choosing}, make(chan struct{}, workers)
	}
	if len(known) > 0 {
		img = without{img, covered(known)}
		left, err := convert.Count(ctx, img)
		if err != nil {
			return convert.Result{}, err
		}
		p.Progress.Convert.Read.Add((blocks - left) * convert.BlockSize)
	}
	// The digest is the recorder's: it has the hashes of blocks that the engine does not see.
	found, err := convert.Stream(ctx, img, w, convert.Options{Progress: &p.Progress.Convert, Workers: workers, Memory: engineMemory, Sum: w.Sum})
	found.Digest = w.sum.Digest()
	return found, err
}

// outcome chooses between the failure that came first and what the sending half says: only the
// latter knows what became of the upload.
func outcome(first, send error) error {
	var kept *upload.UnfinishedError
	var stuck *upload.AbortError
	if errors.As(send, &kept) || errors.As(send, &stuck) {
		return send
	}
	return first
}

func (p *Push) sendConfig(key string) upload.Config {
	meta := p.metadata(roundUp(p.Disk.Image.Size(), 512))
	var taken atomic.Bool
	return upload.Config{
		Store: p.Bucket, Key: key, Metadata: meta, Workers: p.Senders, Limit: p.Limit, Retry: p.Retry,
		BeforeComplete: func(ctx context.Context) error {
			there, err := p.beforeComplete(ctx, key, meta)
			taken.Store(there)
			return err
		},
		CreateOnly:  func() bool { return !p.Overwrite && !taken.Load() },
		JournalOnly: p.Encrypted != "",
		Keep:        func(err error) bool { return errors.Is(err, source.ErrUnreachable) },
		Notice:      p.Notice, Progress: &p.Progress.Upload, AbortOnInterrupt: p.AbortOnInterrupt,
	}
}

// beforeComplete looks once more, after what may have been hours, whether the source is what was
// read and the key still free. An object of a disk of the same size that came up meanwhile under
// the same key (there) is another run's of the same disk, and may be replaced by the same bytes.
func (p *Push) beforeComplete(ctx context.Context, key string, meta upload.Metadata) (there bool, err error) {
	if err := p.Disk.Unchanged(); err != nil || p.Overwrite {
		return false, err
	}
	o, err := p.stat(ctx, key)
	if errors.Is(err, upload.ErrNoObject) {
		return false, nil
	}
	if err == nil && !alike(o.Metadata, meta) {
		return true, p.taken(key, "made while this disk was sent")
	}
	return true, err
}

func (p *Push) stat(ctx context.Context, key string) (o upload.Object, err error) {
	err = upload.Retry(ctx, p.Retry, "look for the object "+key, func(ctx context.Context) (err error) {
		o, err = p.Bucket.Stat(ctx, key)
		return err
	})
	return o, err
}

func (r *Report) took(s upload.Result) {
	r.ETag, r.ObjectSize, r.Sent, r.Skipped, r.Copied = s.ETag, s.Size, s.Sent, s.Skipped, s.Copied
}

// raw sends the disk as it is, in parts that are read while they are sent, then its bitmap.
func (p *Push) raw(ctx context.Context, size int64, r *Report) error {
	scan, plan, err := p.planRaw(ctx, size)
	if err != nil {
		return err
	}
	bits := p.bitmapOf(scan)
	if _, err := p.checkBeside(ctx, r.Key, bits); err != nil {
		return err
	}
	meta := p.metadata(size)
	p.Progress.Size.Store(size)
	sent, err := p.journaled(ctx, r.Key, plan.ID(), func(c upload.Config) (upload.Result, error) {
		c.Metadata = meta
		before := c.BeforeComplete
		c.BeforeComplete = func(ctx context.Context) error {
			if err := before(ctx); err != nil {
				return err
			}
			return p.clearBeside(ctx, r.Key, bits)
		}
		return upload.Send(ctx, c, c.Resume.Mark(plan.Parts(padded{p.Disk.Image, p.Disk.Image.Size()})))
	})
	if err != nil {
		return err
	}
	r.Digest = contentDigest(scan)
	r.took(sent)
	if err := p.seal(ctx, meta, sent, r); err != nil {
		return err
	}
	// Last, so that a raw object without its bitmap is never taken for whole.
	return p.putBitmap(ctx, r.Key, bits)
}

// contentDigest is the digest as a report has it; "" where none was made.
func contentDigest(found convert.Result) string {
	if found.Blocks == nil {
		return ""
	}
	return found.Digest.String()
}

// rawPlan is how an object of known size becomes parts.
type rawPlan interface {
	Parts(io.ReaderAt) upload.Sequence
	// ID tells it from any other: a journal's parts are those of one plan.
	ID() string
}

// planRaw plans the parts of a disk that is sent as it is. One pass before finds the digest, the bitmap and
// the zeros. A file's own bytes are not looked at before they are sent, unless they are to be verified.
func (p *Push) planRaw(ctx context.Context, size int64) (found convert.Result, plan rawPlan, err error) {
	if p.Format == AsIs {
		plan, err = upload.PlanRaw(size, p.PartSize)
		if err == nil && p.Verify {
			found, err = p.scan(ctx)
		}
		return found, plan, err
	}
	if err := upload.CheckSparse(size, p.PartSize); err != nil {
		return found, nil, err
	}
	found, data, err := p.survey(ctx, size)
	if err != nil {
		return found, nil, err
	}
	parts, err := data.Plan(p.PartSize)
	if err == nil {
		p.Notice(fmt.Sprintf("sending %s of data; with the zeros, which the store copies, that makes %s",
			humanize.IBytes(uint64(parts.Data)), english.Plural(parts.Count, "part", "")))
	}
	return found, parts, err
}

// padded reads as its disk and then as zeros: a raw object has whole sectors of 512 bytes.
type padded struct {
	disk io.ReaderAt
	size int64
}

func (z padded) ReadAt(b []byte, off int64) (int, error) {
	n := int(max(0, min(int64(len(b)), z.size-off)))
	if n > 0 {
		if m, err := z.disk.ReadAt(b[:n], off); m < n {
			return m, err
		}
	}
	clear(b[n:])
	return len(b), nil
}
