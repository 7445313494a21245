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

// zeroSources are the objects of zeros, by their sizes in bytes: a seed that is sent once, and larger ones that
// the store makes, each of copies of the one before.
var zeroSources = [...]struct {
	key  string
	size int64
}{
	{ZeroPrefix + "8MiB", seedSize},
	{ZeroPrefix + "1GiB", zerosSize},
	{ZeroPrefix + "5GiB", mostZeros}, // for disks above zeroParts GiB only
}

const (
	seedSize = 8 << 20
	// zerosSize is the most that one copy brings, in bytes, while parts are not scarce: the protocol
	// allows more, but a store that really copies should answer in reasonable time.
	zerosSize = 1 << 30
	// mostZeros is the most that one copy may bring, in bytes.
	mostZeros = MaxCopy
)

// ZeroKeys returns the keys of all objects of zeros that there may be in a bucket.
func ZeroKeys() (keys []string) {
	for _, o := range zeroSources {
		keys = append(keys, o.key)
	}
	return keys
}

// zeroObjects finds the objects of zeros, or makes them.
type zeroObjects struct {
	bucket Bucket // one attempt per call
	store  Bucket // with retries
	copier Copier // nil: the store can't copy
	policy Policy

	mu     sync.Mutex
	known  [len(zeroSources)]*Object
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
	for i, o := range zeroSources {
		if size <= o.size {
			return z.have(ctx, i)
		}
	}
	return Object{}, fmt.Errorf("%d zeros are more than one copy may bring", size)
}

// forget makes get look again: an object was not what it was.
func (z *zeroObjects) forget() {
	z.mu.Lock()
	defer z.mu.Unlock()
	clear(z.known[:])
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
func (z *zeroObjects) have(ctx context.Context, i int) (Object, error) {
	if z.known[i] != nil {
		return *z.known[i], nil
	}
	key, size := zeroSources[i].key, zeroSources[i].size
	o, err := z.store.Stat(ctx, key)
	if errors.Is(err, ErrNoObject) || err == nil && o.Size != size {
		if err = z.build(ctx, i); err == nil {
			o, err = z.store.Stat(ctx, key)
		}
	}
	if err != nil {
		return Object{}, err
	}
	if o.Size != size {
		return Object{}, fmt.Errorf("the object %s has %d bytes instead of %d", key, o.Size, size)
	}
	z.known[i] = &o
	return o, nil
}

func (z *zeroObjects) build(ctx context.Context, i int) error {
	if i == 0 {
		return z.plant(ctx)
	}
	return z.grow(ctx, i)
}

// plant sends the seed.
func (z *zeroObjects) plant(ctx context.Context) error {
	key, body := zeroSources[0].key, make([]byte, seedSize)
	sum := md5.Sum(body)
	return Retry(ctx, z.policy.working(), "put the object "+key, func(ctx context.Context) error {
		_, err := z.copier.Put(ctx, key, bytes.NewReader(body), seedSize, &sum, nil)
		return err
	})
}

// grow makes a larger object of copies of the one before it, on the server.
func (z *zeroObjects) grow(ctx context.Context, i int) error {
	from, err := z.have(ctx, i-1)
	if err != nil {
		return err
	}
	sums, err := zeroSums(ctx, []int64{from.Size})
	if err != nil {
		return err
	}
	pieces := slices.Repeat([]piece{{size: from.Size, etag: hexSum(sums[from.Size])}}, int(zeroSources[i].size/from.Size))
	c := copying{z.bucket, z.store, z.copier, z.policy}
	err = c.build(ctx, zeroSources[i].key, nil, from, 1, pieces)
	if errors.Is(err, ErrMismatch) {
		return fmt.Errorf("the object %s is not all zeros: remove it (imgferry uploads --clean)", zeroSources[i-1].key)
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
