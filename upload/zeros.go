package upload

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
)

// ZeroPrefix is what the keys of the objects of zeros begin with. They are kept for later uploads;
// whoever needs their space may remove them at any time.
const ZeroPrefix = "imgferry-zeros/"

// The objects of zeros: a seed that is sent once, and a large one that the store makes of it.
const (
	seedKey  = ZeroPrefix + "8MiB"
	seedSize = 8 << 20
	zerosKey = ZeroPrefix + "1GiB"
	// zerosSize is the most that one copy brings, in bytes: the protocol allows 5 GiB, but a store
	// that really copies should answer in reasonable time.
	zerosSize = 1 << 30
)

// ZeroKeys returns the keys of all objects of zeros that there may be in a bucket.
func ZeroKeys() []string { return []string{seedKey, zerosKey} }

// zeroObjects finds the objects of zeros, or makes them.
type zeroObjects struct {
	store  Bucket // with retries
	copier Copier // nil: the store can't copy
	policy Policy

	mu     sync.Mutex
	seed   *Object
	large  *Object
	refuse error // why there are none
}

// get returns an object of at least size zeros. It is made when it is first needed.
func (z *zeroObjects) get(ctx context.Context, size int64) (Object, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.copier == nil {
		z.refuse = errNoCopy
	}
	if z.refuse != nil {
		return Object{}, z.refuse
	}
	if size <= seedSize {
		return z.have(ctx, &z.seed, seedKey, seedSize, z.plant)
	}
	return z.have(ctx, &z.large, zerosKey, zerosSize, z.grow)
}

// forget makes get look again: an object was not what it was.
func (z *zeroObjects) forget() {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.seed, z.large = nil, nil
}

// giveUp makes every later get fail: parts are sent instead. It says whether it was the first to.
func (z *zeroObjects) giveUp(why error) bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	first := z.refuse == nil || z.refuse == errNoCopy
	z.refuse = fmt.Errorf("%w (%w)", errGivenUp, why)
	return first
}

var errGivenUp = errors.New("copies were given up")

// have returns the object that is known, or in the bucket, or is made now. What is found is judged by
// its size; each copy of it is judged by its MD5.
func (z *zeroObjects) have(ctx context.Context, known **Object, key string, size int64, build func(context.Context) error) (Object, error) {
	if *known != nil {
		return **known, nil
	}
	o, err := z.store.Stat(ctx, key)
	if errors.Is(err, ErrNoObject) || err == nil && o.Size != size {
		if err = build(ctx); err == nil {
			o, err = z.store.Stat(ctx, key)
		}
	}
	if err != nil {
		return Object{}, err
	}
	if o.Size != size {
		return Object{}, fmt.Errorf("the object %s has %d bytes instead of %d", key, o.Size, size)
	}
	*known = &o
	return o, nil
}

// plant sends the seed.
func (z *zeroObjects) plant(ctx context.Context) error {
	body := make([]byte, seedSize)
	sum := md5.Sum(body)
	return Retry(ctx, z.policy.working(), "put the object "+seedKey, func(ctx context.Context) error {
		_, err := z.copier.Put(ctx, seedKey, bytes.NewReader(body), seedSize, &sum, nil)
		return err
	})
}

// grow makes the large object of copies of the seed, on the server.
func (z *zeroObjects) grow(ctx context.Context) error {
	seed, err := z.have(ctx, &z.seed, seedKey, seedSize, z.plant)
	if err != nil {
		return err
	}
	pieces := slices.Repeat([]piece{{size: seedSize, etag: hexSum(md5.Sum(make([]byte, seedSize)))}}, zerosSize/seedSize)
	c := copying{z.store, z.copier, z.policy}
	err = c.build(ctx, zerosKey, nil, seed, 1, pieces)
	if errors.Is(err, ErrMismatch) {
		return fmt.Errorf("the object %s is not all zeros: remove it (imgferry uploads --clean)", seedKey)
	}
	return err
}

// zeroBody reads as size zeros.
type zeroBody struct{ size int64 }

// ReadAt reads zeros up to the end.
func (z zeroBody) ReadAt(p []byte, off int64) (int, error) {
	n := int(max(0, min(int64(len(p)), z.size-off)))
	clear(p[:n])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
