package uploadtest

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"os"
	"time"

	"imgferry/upload"
	"imgferry/upload/obs"
)

// disk is what an upload sends: data, with zeros as its second part.
type disk struct {
	parts    [][]byte
	buffered bool
}

func newDisk(buffered bool) disk {
	return disk{[][]byte{Noise(1, minPart), make([]byte, minPart+1000), Noise(2, minPart), Noise(3, minPart), Noise(4, 1000)}, buffered}
}

// sequence yields the parts as a stream's or as a raw disk's.
func (d disk) sequence(context.Context) iter.Seq2[upload.Part, error] {
	return func(yield func(upload.Part, error) bool) {
		for i, data := range d.parts {
			p := upload.Part{Number: i + 1, Size: int64(len(data)), Body: bytes.NewReader(data), Buffered: d.buffered}
			if i == 1 {
				sum := md5.Sum(data)
				p.Zeros, p.Sum = true, &sum
			}
			if !yield(p, nil) {
				return
			}
		}
	}
}

// send sends the disk with what a journal in dir knows.
func (b *bench) send(to *obs.Bucket, key string, d disk, dir string) (result upload.Result, err error) {
	j, err := upload.OpenJournal(dir, upload.JournalID{Store: "s", Key: key, Source: "disk"})
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	c := upload.Config{Store: to, Key: key, Workers: 1, Journal: j, Retry: upload.Policy{Tries: 1, Base: time.Millisecond}}
	if c.Resume, err = j.Resume(b.ctx, to, c.Retry); err != nil {
		return result, err
	}
	return upload.Send(b.ctx, c, c.Resume.Mark(d.sequence))
}

func journaled(b *bench) error {
	for _, buffered := range []bool{true, false} {
		if err := b.journaled(b.key(fmt.Sprintf("buffered-%v", buffered)), newDisk(buffered)); err != nil {
			return fmt.Errorf("buffered %v: %w", buffered, err)
		}
	}
	return nil
}

func (b *bench) journaled(key string, d disk) (err error) {
	dir, err := os.MkdirTemp("", "journal")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	whole, err := b.send(b.Bucket, key+"-whole", d, dir)
	if err != nil {
		return err
	}
	if err := b.sent(key+"-whole", d, whole); err != nil {
		return err
	}
	if whole.Copied != int64(len(d.parts[1])) {
		return fmt.Errorf("%d bytes of zeros were copied", whole.Copied)
	}

	// The first part may go twice, where that is how it turns out that its ETag proves nothing.
	dies := &dying{}
	dies.left.Store(2*minPart + minPart/2)
	killed, err := b.open(func(c *obs.Config) { dies.RoundTripper, c.Transport = c.Transport, dies })
	if err != nil {
		return err
	}
	if _, err := b.send(killed, key, d, dir); !errors.As(err, new(*upload.UnfinishedError)) {
		return fmt.Errorf("a killed client: %w", err)
	}
	again, err := b.open() // which knows nothing yet
	if err != nil {
		return err
	}
	resumed, err := b.send(again, key, d, dir)
	if err != nil {
		return err
	}
	if !resumed.Resumed || resumed.Skipped < minPart {
		return fmt.Errorf("%d bytes were not sent again", resumed.Skipped)
	}
	return b.sent(key, d, resumed)
}

// sent compares the object with the disk, and what is said of its ETag with what it is.
func (b *bench) sent(key string, d disk, r upload.Result) error {
	if r.Unverified != b.server.KMS {
		return fmt.Errorf("the object's ETag proves nothing: %v", r.Unverified)
	}
	if left, err := b.unfinished(key); err != nil || len(left) > 0 {
		return fmt.Errorf("%v are left, %w", left, err)
	}
	return b.holds(key, bytes.Join(d.parts, nil), r.ETag)
}

func encryption(b *bench) error {
	for name, e := range map[string]obs.Encryption{"kms": {KMS: true}, "AES256": {AES256: true}} {
		bucket, err := b.open(func(c *obs.Config) { c.Encryption = e })
		if err != nil {
			return err
		}
		if err := b.encrypted(bucket, b.key(name), e.KMS); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (b *bench) encrypted(bucket *obs.Bucket, key string, opaque bool) error {
	data := []byte("secret")
	result, err := upload.Send(b.ctx, upload.Config{Store: bucket, Key: key, JournalOnly: true},
		upload.RawPlan{Size: int64(len(data)), PartSize: minPart, Count: 1}.Parts(bytes.NewReader(data)))
	if left, err := b.unfinished(key); err != nil || len(left) > 0 {
		return fmt.Errorf("%v are left, %w", left, err)
	}
	var e *upload.Error
	switch {
	case err == nil:
	case !b.server.KMS && errors.As(err, &e) && (e.Class == upload.ErrPlain || e.Status == http.StatusNotImplemented):
		_, err := b.Stat(b.ctx, key)
		return want("what was refused", err, upload.ErrNoObject)
	default:
		return err
	}
	o, err := b.Stat(b.ctx, key)
	if err == nil && (o.Opaque != opaque || result.Unverified != opaque) {
		err = fmt.Errorf("its ETag proves nothing: %v, and %v while it was sent", o.Opaque, result.Unverified)
	}
	if err != nil {
		return err
	}
	return b.holds(key, data, result.ETag)
}
