package pipeline

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"imgferry/bitmap"
	"imgferry/convert"
	"imgferry/formats/zvhd2"
	"imgferry/limits"
	"imgferry/upload"
)

// stream converts to ZVHD2 and sends the stream as it comes.
func (p *Push) stream(ctx context.Context, size int64, r *Report) error {
	meta := p.metadata(size)
	var sent upload.Result
	found, err := p.produce(ctx, size, func(ctx context.Context, parts upload.Sequence, plan upload.Plan) (err error) {
		p.Notice(fmt.Sprintf("sending parts of %d MiB from %d buffers, encoding on %d threads", plan.PartSize>>20, plan.Buffers, p.workers()))
		sent, err = upload.Send(ctx, p.sendConfig(r.Key, meta, plan.Buffers), parts)
		return err
	})
	if err != nil {
		return err
	}
	r.Digest = found.Digest.String()
	r.took(sent)
	return p.seal(ctx, meta, r)
}

// encoder is how ZVHD2 objects are encoded.
var encoder = zvhd2.Options{}

// produce converts to ZVHD2 and hands the parts to consume while they are made.
func (p *Push) produce(ctx context.Context, size int64, consume func(context.Context, upload.Sequence, upload.Plan) error) (convert.Result, error) {
	blocks, err := p.count(ctx)
	if err != nil {
		return convert.Result{}, err
	}
	// The plan must not depend on what may differ between two runs of the same disk. A format's
	// own tables don't; the holes of a raw file may, after a copy.
	worst := blocks
	if p.Disk.Format == "raw" {
		worst = bitmap.Blocks(size)
	}
	plan, err := upload.PlanStream(worst*zvhd2.ChunkBound+zvhd2.TailSize(worst, bitmap.Blocks(size)), p.Memory)
	if err != nil {
		return convert.Result{}, err
	}
	g, gctx := errgroup.WithContext(ctx)
	parts := upload.NewPartWriter(gctx, plan)
	var found convert.Result
	g.Go(func() (err error) {
		if found, err = p.encode(gctx, size, parts); err != nil {
			parts.Fail(err)
			return err
		}
		return parts.Close()
	})
	var consumed error
	g.Go(func() error {
		consumed = consume(gctx, parts.Parts, plan)
		return consumed
	})
	err = g.Wait() // before found is read
	return found, outcome(err, consumed)
}

func (p *Push) encode(ctx context.Context, size int64, to io.Writer) (convert.Result, error) {
	o := encoder
	o.OrigSize = size
	w, err := zvhd2.NewWriter(to, o)
	if err != nil {
		return convert.Result{}, err
	}
	return convert.Stream(ctx, p.Disk.Image, w, convert.Options{Digest: true, Progress: &p.Progress.Convert, Workers: p.workers()})
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

func (p *Push) sendConfig(key string, meta upload.Metadata, buffers int) upload.Config {
	return upload.Config{
		Store: p.Bucket, Key: key, Metadata: meta, Workers: p.Senders, Buffers: buffers, Retry: p.Retry,
		BeforeComplete: func(ctx context.Context) error { return p.beforeComplete(ctx, key, meta) },
		Notice:         p.Notice, Progress: &p.Progress.Upload, AbortOnInterrupt: p.AbortOnInterrupt,
	}
}

// beforeComplete looks once more, after what may have been hours, whether the source is what was
// read and the key still free. An object of a disk of the same size that came up meanwhile under
// the same key is another run's of the same disk, and may be replaced by the same bytes.
func (p *Push) beforeComplete(ctx context.Context, key string, meta upload.Metadata) error {
	if err := p.Disk.Unchanged(); err != nil || p.Overwrite {
		return err
	}
	o, err := p.stat(ctx, key)
	if errors.Is(err, upload.ErrNoObject) {
		return nil
	}
	if err == nil && !alike(o.Metadata, meta) {
		return p.taken(key, "made while this disk was sent")
	}
	return err
}

func (p *Push) stat(ctx context.Context, key string) (o upload.Object, err error) {
	err = upload.Retry(ctx, p.Retry, "look for the object "+key, func(ctx context.Context) (err error) {
		o, err = p.Bucket.Stat(ctx, key)
		return err
	})
	return o, err
}

func (r *Report) took(s upload.Result) {
	r.ETag, r.ObjectSize, r.Sent, r.Skipped = s.ETag, s.Size, s.Sent, s.Skipped
}

// raw sends the disk as it is, in parts that are read while they are sent, then its bitmap. One
// pass before it finds the digest and the bitmap.
func (p *Push) raw(ctx context.Context, size int64, r *Report) error {
	parts, err := p.rawParts(size)
	if err != nil {
		return err
	}
	scan, err := p.scan(ctx)
	if err != nil {
		return err
	}
	meta := p.metadata(size)
	sent, err := upload.Send(ctx, p.sendConfig(r.Key, meta, 0), parts)
	if err != nil {
		return err
	}
	r.Digest = scan.Digest.String()
	r.took(sent)
	if err := p.seal(ctx, meta, r); err != nil {
		return err
	}
	// Last, so that a raw object without its bitmap is never taken for whole.
	return p.putBitmap(ctx, r.Key, scan)
}

func (p *Push) rawParts(size int64) (upload.Sequence, error) {
	plan, err := upload.PlanRaw(size)
	if err != nil {
		return nil, err
	}
	return plan.Parts(padded{p.Disk.Image, p.Disk.Image.Size()}), nil
}

func (p *Push) putBitmap(ctx context.Context, key string, scan convert.Result) error {
	body := p.Bitmap
	if body == nil {
		body = scan.Blocks.Append(nil)
	}
	sum := md5.Sum(body)
	return upload.Retry(ctx, p.Retry, "put the bitmap of "+key, func(ctx context.Context) error {
		_, err := p.Bucket.Put(ctx, limits.BitmapKey(key), bytes.NewReader(body), int64(len(body)), &sum, nil)
		return err
	})
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
