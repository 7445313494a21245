package pipeline

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"

	"imgferry/convert"
	"imgferry/limits"
	"imgferry/upload"
)

// A fast import of a raw object takes its bitmap from beside it (limits.BitmapKey) and believes it: beside
// another disk's object it makes an image that is damaged without a word.

// formatBitmap is what metaFormat says of a bitmap's object. It tells ours from other files with the same
// ending, such as the manifest of a package.
const formatBitmap = "bitmap"

// checkBitmapKey refuses a key that the object's own bitmap would have too.
func (p *Push) checkBitmapKey() error {
	if p.Format != Raw || !p.fast() || limits.BitmapKey(p.Key) != p.Key {
		return nil
	}
	return &limits.Error{Field: "image_url", Finding: fmt.Sprintf("the object key %q is the one that the disk's bitmap gets", p.Key),
		Advice: "give it another ending, such as .raw"}
}

// bitmapOf is what to put beside the object of a disk in which that was found; nil: nothing.
func (p *Push) bitmapOf(found convert.Result) []byte {
	switch {
	case p.Format != Raw, !p.fast():
		return nil // only a fast import reads one
	case p.Bitmap != nil:
		return p.Bitmap
	}
	return found.Blocks.Append(nil)
}

// beside is what has the key of an object's bitmap.
type beside int

const (
	nothing beside = iota
	sameBitmap
	another
)

// lookBeside looks what lies beside the object called key, where body is its bitmap.
func (p *Push) lookBeside(ctx context.Context, key string, body []byte) (beside, error) {
	key = limits.BitmapKey(key)
	o, err := p.stat(ctx, key)
	switch {
	case errors.Is(err, upload.ErrNoObject):
		return nothing, nil
	case err != nil:
		return nothing, err
	case o.Size != int64(len(body)):
		return another, nil
	}
	got := make([]byte, len(body))
	err = upload.Retry(ctx, p.Retry, "read the bitmap "+key, func(ctx context.Context) error {
		r, err := p.Bucket.Get(ctx, key, 0, o.Size, "")
		if err != nil {
			return err
		}
		defer r.Close()
		if _, err := io.ReadFull(r, got); err != nil {
			return &upload.Error{Op: "read the bitmap", Bucket: p.BucketName, Key: key, Temporary: true, Err: err}
		}
		return nil
	})
	switch {
	case errors.Is(err, upload.ErrNoObject):
		return nothing, nil
	case err == nil && !bytes.Equal(got, body):
		return another, nil
	}
	return sameBitmap, err
}

// checkBeside fails with ErrExists if something else lies where body, the bitmap of the object called key,
// belongs, unless it may be replaced. done: nothing has to be put there.
func (p *Push) checkBeside(ctx context.Context, key string, body []byte) (done bool, err error) {
	if body == nil || p.Overwrite {
		return body == nil, nil
	}
	there, err := p.lookBeside(ctx, key, body)
	if err == nil && there == another {
		err = p.taken(limits.BitmapKey(key), "and is not the bitmap of this disk")
	}
	return there == sameBitmap, err
}

// clearBeside removes the bitmap of the object that is about to be replaced: the new one and the old one's
// bitmap would look complete, should anything fail after. body is the new one's bitmap, or nil.
func (p *Push) clearBeside(ctx context.Context, key string, body []byte) error {
	if !p.Overwrite {
		_, err := p.checkBeside(ctx, key, body)
		return err
	}
	old := limits.BitmapKey(key)
	if old == key {
		return nil
	}
	o, err := p.stat(ctx, old)
	switch {
	case errors.Is(err, upload.ErrNoObject):
		return nil
	case errors.Is(err, upload.ErrDenied):
		// Who may not list a bucket is not told that an object is missing either.
		if body == nil {
			return nil
		}
	case err != nil:
		return err
	case body == nil && o.Metadata[metaFormat] != formatBitmap:
		return nil // not a bitmap of ours, and nothing is to take its place
	}
	err = upload.Retry(ctx, p.Retry, "delete the bitmap "+old, func(ctx context.Context) error {
		return p.Bucket.Remove(ctx, old)
	})
	if err != nil {
		return fmt.Errorf("%s/%s is not replaced, since the old bitmap beside it can't be deleted: %w", p.BucketName, key, err)
	}
	return nil
}

// putBitmap puts body, unless it is nil, beside the object called key.
func (p *Push) putBitmap(ctx context.Context, key string, body []byte) error {
	if done, err := p.checkBeside(ctx, key, body); done || err != nil {
		return err
	}
	sum := md5.Sum(body)
	meta := upload.Metadata{metaFormat: formatBitmap, metaVersion: p.Program}
	return upload.Retry(ctx, p.Retry, "put the bitmap of "+key, func(ctx context.Context) error {
		_, err := p.Bucket.Put(ctx, limits.BitmapKey(key), bytes.NewReader(body), int64(len(body)), &sum, meta)
		return err
	})
}
