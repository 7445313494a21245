package upload

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"hash"
	"io"

	"golang.org/x/time/rate"
)

// job is a part on its way, with its MD5 once that is known.
type job struct {
	Part
	sum *[md5.Size]byte
}

func newJob(p Part) *job {
	if p.Known != nil {
		p.Sum = &p.Known.MD5
	}
	return &job{p, p.Sum}
}

// hash computes the part's MD5 by reading its body, unless it is known, and rewinds the body.
func (j *job) hash() error {
	if j.sum != nil {
		return nil
	}
	h := md5.New()
	if err := j.rewind(); err != nil {
		return err
	}
	n, err := io.Copy(h, j.Body)
	if err == nil && n != j.Size {
		err = fmt.Errorf("%d bytes instead of %d: %w", n, j.Size, io.ErrUnexpectedEOF)
	}
	if err != nil {
		return &ReadError{Part: j.Number, Err: err}
	}
	if err := j.rewind(); err != nil {
		return err
	}
	j.sum = (*[md5.Size]byte)(h.Sum(nil))
	return nil
}

func (j *job) rewind() error {
	if _, err := j.Body.Seek(0, io.SeekStart); err != nil {
		return &ReadError{Part: j.Number, Err: err}
	}
	return nil
}

// is reports whether the store's part has the job's size and MD5.
func (j *job) is(p StoredPart) (bool, error) {
	if j.Size != p.Size || !isMD5(p.ETag) {
		return false, nil
	}
	if err := j.hash(); err != nil {
		return false, err
	}
	return p.ETag == hexSum(*j.sum), nil
}

// sentBody is a job's body on its way into the store: it counts what is read, takes the count
// back when it is rewound, and computes the MD5 if that was not known beforehand.
type sentBody struct {
	io.ReadSeeker
	ctx      context.Context // ends a wait for limit
	limit    *rate.Limiter   // bytes; nil: none
	progress *Progress
	n        int64
	md5      hash.Hash // nil if known beforehand
}

func newSentBody(ctx context.Context, j *job, p *Progress, limit *rate.Limiter) *sentBody {
	b := &sentBody{ReadSeeker: j.Body, ctx: ctx, limit: limit, progress: p}
	if j.sum == nil {
		b.md5 = md5.New()
	}
	return b
}

func (b *sentBody) Read(p []byte) (int, error) {
	if b.limit != nil {
		p = p[:min(len(p), b.limit.Burst())]
		if err := b.limit.WaitN(b.ctx, len(p)); err != nil {
			return 0, err
		}
	}
	n, err := b.ReadSeeker.Read(p)
	b.count(b.n + int64(n))
	if b.md5 != nil {
		b.md5.Write(p[:n])
	}
	return n, err
}

// Seek rewinds to the start or tells the position; a hash can do nothing else.
func (b *sentBody) Seek(offset int64, whence int) (int64, error) {
	if whence == io.SeekCurrent && offset == 0 {
		return b.n, nil
	}
	if whence != io.SeekStart || offset != 0 {
		return 0, fmt.Errorf("a part can only be rewound to its start")
	}
	if _, err := b.ReadSeeker.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	b.count(0)
	if b.md5 != nil {
		b.md5.Reset()
	}
	return 0, nil
}

// count sets how many bytes of this part count as sent.
func (b *sentBody) count(n int64) {
	b.progress.sent.Add(n - b.n)
	b.n = n
}

func hexSum(sum [md5.Size]byte) string { return hex.EncodeToString(sum[:]) }

// compositeETag is the ETag of an object made of parts: MD5(md5_1 ... md5_N)-N.
func compositeETag(sums [][md5.Size]byte) string {
	h := md5.New()
	for _, sum := range sums {
		h.Write(sum[:])
	}
	return fmt.Sprintf("%x-%d", h.Sum(nil), len(sums))
}
