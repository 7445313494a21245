package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"imgferry/convert"
	"imgferry/formats"
	"imgferry/formats/raw"
	"imgferry/formats/zvhd2"
	"imgferry/source"
	"imgferry/upload"
)

// ErrDiffers says that the object does not hold the disk.
var ErrDiffers = errors.New("the object holds another disk than was sent")

// reread reads the object back by ranges, decodes it, and compares its content with the disk's.
func (p *Push) reread(ctx context.Context, r *Report) error {
	p.Notice(fmt.Sprintf("reading %s/%s back to verify it", p.BucketName, r.Key))
	p.Progress.Size.Store(0)
	src, err := source.OpenRemote(ctx, &storedObject{p.Bucket, p.BucketName, r.Key}, source.Patience{
		Tries: p.Retry.Tries, Stall: p.Retry.Stall, Base: p.Retry.Base, Max: p.Retry.Max, OnRetry: p.Retry.OnRetry})
	if err != nil {
		return err
	}
	format := zvhd2.Format()
	if p.Format != ZVHD2 {
		format = raw.Format()
	}
	img, err := format.Open(ctx, src, nil)
	if err != nil {
		src.Close()
		return p.unlike(ctx, r, err)
	}
	defer img.Close()
	if img.Size() != r.VirtualSize && roundUp(img.Size(), 512) != roundUp(r.VirtualSize, 512) {
		return fmt.Errorf("%w: %s/%s has %d bytes", ErrDiffers, p.BucketName, r.Key, img.Size())
	}
	blocks, err := convert.Count(ctx, img)
	if err != nil {
		return p.unlike(ctx, r, err)
	}
	p.Progress.Convert.Total.Add(blocks * convert.BlockSize)
	found, err := convert.Scan(ctx, img, convert.Options{Digest: true, Memory: engineMemory, Progress: &p.Progress.Convert})
	if err != nil {
		return p.unlike(ctx, r, err)
	}
	if d := found.Digest.String(); d != r.Digest {
		return fmt.Errorf("%w: %s/%s has the content digest %s instead of %s", ErrDiffers, p.BucketName, r.Key, d, r.Digest)
	}
	r.Verified = true
	return nil
}

// unlike says of an object that can't be decoded that it is not the disk.
func (p *Push) unlike(ctx context.Context, r *Report, err error) error {
	if ctx.Err() == nil && errors.Is(err, formats.ErrCorrupt) {
		return fmt.Errorf("%w: %s/%s: %w", ErrDiffers, p.BucketName, r.Key, err)
	}
	return err
}

// storedObject is an object of the bucket as package source reads it.
type storedObject struct {
	bucket    Bucket
	name, key string
}

// Name is how messages call it.
func (o *storedObject) Name() string { return o.name + "/" + o.key }

// Stat says which version there is.
func (o *storedObject) Stat(ctx context.Context) (source.Version, error) {
	v, err := o.bucket.Stat(ctx, o.key)
	return source.Version{Size: v.Size, ETag: v.ETag, Modified: v.Modified.Format(time.RFC3339)}, transient(err)
}

// Get returns a range of that version.
func (o *storedObject) Get(ctx context.Context, v source.Version, off, n int64) (io.ReadCloser, error) {
	r, err := o.bucket.Get(ctx, o.key, off, n, v.ETag)
	if errors.Is(err, upload.ErrReplaced) {
		return nil, fmt.Errorf("%w: %w", source.ErrChanged, err)
	}
	return r, transient(err)
}

// transient marks what package source should try again.
func transient(err error) error {
	var e *upload.Error
	if !errors.As(err, &e) || !e.Temporary {
		return err
	}
	return &source.Transient{Err: err, After: e.RetryAfter}
}
