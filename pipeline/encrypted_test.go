package pipeline_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"

	"imgferry/formats/raw"
	"imgferry/pipeline"
	"imgferry/upload"
	"imgferry/upload/obs"
)

// encryptedBucket is one whose objects have ETags that tell nothing.
type encryptedBucket struct{ *obs.Bucket }

func turned(etag string) string {
	b := []byte(etag)
	slices.Reverse(b)
	return string(b)
}

func (b encryptedBucket) Stat(ctx context.Context, key string) (upload.Object, error) {
	o, err := b.Bucket.Stat(ctx, key)
	o.ETag, o.Opaque = turned(o.ETag), true
	return o, err
}

func (b encryptedBucket) Get(ctx context.Context, key string, offset, length int64, ifMatch string) (io.ReadCloser, error) {
	return b.Bucket.Get(ctx, key, offset, length, turned(ifMatch))
}

func (b encryptedBucket) SetMetadata(ctx context.Context, o upload.Object, meta upload.Metadata) (string, error) {
	o.ETag = turned(o.ETag)
	etag, err := b.Bucket.SetMetadata(ctx, o, meta)
	return turned(etag), err
}

// A file whose object has neither a digest nor an ETag to compare is compared with what the store holds.
func TestEncryptedObjectIsCompared(t *testing.T) {
	c := newCloud(t)
	p := c.push(open(t, "../testdata/linux.qcow2", raw.Format()))
	p.Bucket = encryptedBucket{c.bucket}
	p.Key, p.Format = "linux.qcow2", pipeline.AsIs
	if r, err := p.Upload(t.Context()); err != nil || r.Sent != r.ObjectSize {
		t.Fatalf("%+v, %v", r, err)
	}
	if r, err := p.Upload(t.Context()); err != nil || !r.Reused || r.Sent != 0 {
		t.Errorf("the same file: %+v, %v", r, err)
	}
	same, err := c.bucket.Stat(t.Context(), p.Key)
	if err != nil {
		t.Fatal(err)
	}
	delete(same.Metadata, "imgferry-digest") // which the comparison left
	other := make([]byte, same.Size)
	if _, err := c.bucket.Put(t.Context(), p.Key, bytes.NewReader(other), same.Size, nil, same.Metadata); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Upload(t.Context()); !errors.Is(err, pipeline.ErrExists) {
		t.Errorf("other bytes: %v", err)
	}
}
