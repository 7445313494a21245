package uploadtest

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"imgferry/upload"
	"imgferry/upload/obs"
)

// minPart is the least size that S3 allows for a part before the last, in bytes.
const minPart = 5 << 20

// Noise returns n bytes that do not compress and follow from seed.
func Noise(seed uint64, n int) []byte {
	p := make([]byte, n)
	var s [32]byte
	for i := range 8 {
		s[i] = byte(seed >> (8 * i))
	}
	rand.NewChaCha8(s).Read(p)
	return p
}

func hexMD5(p []byte) string { return fmt.Sprintf("%x", md5.Sum(p)) }

// putPart sends a part with its MD5 and compares the ETag.
func (b *bench) putPart(key, id string, number int, data []byte) (upload.StoredPart, error) {
	sum := md5.Sum(data)
	etag, err := b.PutPart(b.ctx, key, id, number, bytes.NewReader(data), int64(len(data)), &sum)
	if err == nil {
		err = b.proves(etag, data)
	}
	return upload.StoredPart{Number: number, Size: int64(len(data)), ETag: etag}, err
}

// proves compares the ETag of a part with its MD5, where it should be that.
func (b *bench) proves(etag string, data []byte) error {
	if !b.server.KMS && etag != hexMD5(data) {
		return fmt.Errorf("a part has the ETag %s, not its MD5 %s", etag, hexMD5(data))
	}
	return nil
}

// begin begins an upload and sends parts 1, 2, ... of it.
func (b *bench) begin(key string, meta upload.Metadata, parts ...[]byte) (id string, stored []upload.StoredPart, err error) {
	if id, err = b.Begin(b.ctx, key, meta); err != nil {
		return "", nil, err
	}
	for i, data := range parts {
		p, err := b.putPart(key, id, i+1, data)
		if err != nil {
			return id, stored, err
		}
		stored = append(stored, p)
	}
	return id, stored, nil
}

// holds compares a whole object with data.
func (b *bench) holds(key string, data []byte, etag string) error {
	o, err := b.Stat(b.ctx, key)
	if err != nil {
		return err
	}
	if o.Size != int64(len(data)) || o.ETag != etag {
		return fmt.Errorf("%s has %d bytes and the ETag %s instead of %d and %s", key, o.Size, o.ETag, len(data), etag)
	}
	got, err := b.read(key, 0, int64(len(data)))
	if err == nil && !bytes.Equal(got, data) {
		err = fmt.Errorf("%s holds other bytes", key)
	}
	return err
}

func (b *bench) read(key string, offset, length int64) ([]byte, error) {
	r, err := b.Get(b.ctx, key, offset, length, "")
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// lists compares the parts that the store has of an upload with want.
func (b *bench) lists(key, id string, want []upload.StoredPart) error {
	got, err := b.Parts(b.ctx, key, id)
	if err == nil && !slices.Equal(got, want) {
		err = fmt.Errorf("%d parts are listed that are not the %d that were sent: %.300v", len(got), len(want), got)
	}
	return err
}

// composite is the ETag of an object of these parts.
func composite(parts []upload.StoredPart) string {
	h := md5.New()
	for _, p := range parts {
		sum, _ := hex.DecodeString(p.ETag) // another ETag follows if it is no MD5
		h.Write(sum)
	}
	return fmt.Sprintf("%x-%d", h.Sum(nil), len(parts))
}

func manyParts(b *bench) error {
	const count = 1100 // above the 1,000 of one page
	key := b.key("many")
	id, err := b.Begin(b.ctx, key, nil)
	if err != nil {
		return err
	}
	want := make([]upload.StoredPart, count)
	var g errgroup.Group
	g.SetLimit(8)
	for i := range want {
		g.Go(func() (err error) {
			want[i], err = b.putPart(key, id, i+1, fmt.Appendf(nil, "part %d", i+1))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := b.lists(key, id, want); err != nil {
		return err
	}
	if err := errors.Join(b.Abort(b.ctx, key, id), b.Abort(b.ctx, key, id)); err != nil {
		return fmt.Errorf("abort twice: %w", err)
	}
	if _, err := b.Parts(b.ctx, key, id); !errors.Is(err, upload.ErrNoUpload) || upload.Temporary(err) {
		return fmt.Errorf("parts of an aborted upload: %v", err)
	}
	if _, err := b.putPart(key, id, 1, []byte("late")); !errors.Is(err, upload.ErrNoUpload) || upload.Temporary(err) {
		return fmt.Errorf("a part for an aborted upload: %v", err)
	}
	if left, err := b.unfinished(key); err != nil || len(left) > 0 {
		return fmt.Errorf("after abort %v are listed, %w", left, err)
	}
	return nil
}

func differentParts(b *bench) error {
	key := b.key("different")
	sizes := []int{minPart + 1, minPart, minPart + 4095, minPart + 1<<20, 12345}
	id, err := b.Begin(b.ctx, key, upload.Metadata{"digest": "d"})
	if err != nil {
		return err
	}
	var whole []byte
	stored := make([]upload.StoredPart, len(sizes))
	var g errgroup.Group
	g.SetLimit(3)
	for i, n := range sizes {
		data := Noise(uint64(i), n)
		whole = append(whole, data...)
		g.Go(func() (err error) {
			stored[i], err = b.putPart(key, id, i+1, data)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := b.lists(key, id, stored); err != nil {
		return err
	}
	if _, err := b.Stat(b.ctx, key); !errors.Is(err, upload.ErrNoObject) {
		return fmt.Errorf("before Complete: %v", err)
	}
	etag, err := b.Complete(b.ctx, key, id, stored)
	if err != nil {
		return err
	}
	if etag != composite(stored) {
		return fmt.Errorf("the object's ETag is %s, not %s", etag, composite(stored))
	}
	if left, err := b.unfinished(key); err != nil || len(left) > 0 {
		return fmt.Errorf("after Complete %v are listed, %w", left, err)
	}
	// S3 says the same again for a while; others say that there is no such upload.
	if again, err := b.Complete(b.ctx, key, id, stored); err == nil && again != etag || err != nil && !errors.Is(err, upload.ErrNoUpload) {
		return fmt.Errorf("completing again: %s, %w", again, err)
	}
	if err := b.Abort(b.ctx, key, id); err != nil {
		return fmt.Errorf("abort what is complete: %w", err)
	}
	return b.holds(key, whole, etag)
}

func lastWrite(b *bench) error {
	key := b.key("last")
	first, second := Noise(1, 1000), Noise(2, 2000)
	id, _, err := b.begin(key, nil, first)
	if err != nil {
		return err
	}
	p, err := b.putPart(key, id, 1, second)
	if err != nil {
		return err
	}
	if err := b.lists(key, id, []upload.StoredPart{p}); err != nil {
		return err
	}
	etag, err := b.Complete(b.ctx, key, id, []upload.StoredPart{p})
	if err != nil {
		return err
	}
	return b.holds(key, second, etag)
}

func wrongMD5(b *bench) error {
	key, data := b.key("damaged"), Noise(1, 100_000)
	id, err := b.Begin(b.ctx, key, nil)
	if err != nil {
		return err
	}
	wrong := md5.Sum([]byte("something else"))
	if _, err := b.PutPart(b.ctx, key, id, 1, bytes.NewReader(data), int64(len(data)), &wrong); !upload.Temporary(err) {
		return fmt.Errorf("a part with another MD5: %v", err) // it was damaged on its way: again
	}
	if _, err := b.Put(b.ctx, key, bytes.NewReader(data), int64(len(data)), &wrong, nil); !upload.Temporary(err) {
		return fmt.Errorf("an object with another MD5: %v", err)
	}
	if _, err := b.Stat(b.ctx, key); !errors.Is(err, upload.ErrNoObject) {
		return fmt.Errorf("after a refused body: %v", err)
	}
	return b.lists(key, id, nil)
}

// short cuts the bodies of requests in half.
type short struct{}

func (short) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	if r.ContentLength > 1 {
		r.Body = io.NopCloser(io.LimitReader(r.Body, r.ContentLength/2))
	}
	resp, content, err := shortly(r.Context(), r.URL.Host, r)
	if resp != nil {
		resp.Body = io.NopCloser(bytes.NewReader(content))
	}
	return resp, err
}

func truncatedBody(b *bench) error {
	key, data := b.key("truncated"), Noise(1, 200_000)
	id, err := b.Begin(b.ctx, key, nil)
	if err != nil {
		return err
	}
	cut, err := b.open(func(c *obs.Config) { c.Transport = short{} })
	if err != nil {
		return err
	}
	if _, err := cut.PutPart(b.ctx, key, id, 1, bytes.NewReader(data), int64(len(data)), nil); err == nil {
		return errors.New("half a part is taken for a whole one")
	}
	if _, err := cut.Put(b.ctx, key, bytes.NewReader(data), int64(len(data)), nil, nil); err == nil {
		return errors.New("half an object is taken for a whole one")
	}
	if _, err := b.Stat(b.ctx, key); !errors.Is(err, upload.ErrNoObject) {
		return fmt.Errorf("after half an object: %v", err)
	}
	return b.lists(key, id, nil)
}

func wrongComplete(b *bench) error {
	key := b.key("wrong")
	id, stored, err := b.begin(key, nil, Noise(1, minPart), Noise(2, 1000))
	if err != nil {
		return err
	}
	other := slices.Clone(stored)
	other[1].ETag = stored[0].ETag
	more := append(slices.Clone(stored), upload.StoredPart{Number: 3, ETag: stored[0].ETag})
	for name, parts := range map[string][]upload.StoredPart{"another ETag": other, "a part too many": more} {
		if _, err := b.Complete(b.ctx, key, id, parts); err == nil || upload.Temporary(err) {
			return fmt.Errorf("%s: %v", name, err)
		}
	}
	if _, err := b.Stat(b.ctx, key); !errors.Is(err, upload.ErrNoObject) {
		return fmt.Errorf("after a refused Complete: %v", err)
	}
	return b.lists(key, id, stored) // and can still be completed
}

func smallParts(b *bench) error {
	key := b.key("small")
	id, stored, err := b.begin(key, nil, []byte("small"), []byte("last"))
	if err != nil {
		return err
	}
	_, err = b.Complete(b.ctx, key, id, stored)
	var e *upload.Error
	if !errors.As(err, &e) || e.Code != "EntityTooSmall" || e.Temporary {
		return fmt.Errorf("a part of 5 bytes: %w", err)
	}
	return nil
}

// dying is the transport of a client that is killed in the middle of a body: nothing of what it
// does after that reaches the store.
type dying struct {
	http.RoundTripper
	left atomic.Int64 // bytes of bodies until the end
}

var errKilled = errors.New("killed")

func (d *dying) RoundTrip(r *http.Request) (*http.Response, error) {
	if d.left.Load() <= 0 {
		return nil, errKilled
	}
	if r.Body != nil {
		r = r.Clone(r.Context())
		r.Body = dyingBody{r.Body, d}
	}
	return d.RoundTripper.RoundTrip(r)
}

type dyingBody struct {
	io.ReadCloser
	d *dying
}

func (b dyingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.d.left.Add(-int64(n)) <= 0 {
		return 0, errKilled
	}
	return n, err
}

func killedClient(b *bench) error {
	key := b.key("killed")
	const count, whole = 5, 3 // parts, and how many of them arrive whole
	data := Noise(1, (count-1)*minPart+1000)
	plan := upload.RawPlan{Size: int64(len(data)), PartSize: minPart, Count: count}
	send := func(to *obs.Bucket) (upload.Result, error) {
		return upload.Send(b.ctx, upload.Config{
			Store: to, Key: key, Workers: 1, Metadata: upload.Metadata{"digest": "d"},
			Retry: upload.Policy{Tries: 1, Base: time.Millisecond},
		}, plan.Parts(bytes.NewReader(data)))
	}
	d := &dying{}
	d.left.Store(whole*minPart + minPart/2)
	killed, err := b.open(func(c *obs.Config) { d.RoundTripper, c.Transport = c.Transport, d })
	if err != nil {
		return err
	}
	if _, err := send(killed); !errors.As(err, new(*upload.UnfinishedError)) {
		return fmt.Errorf("a killed client: %w", err)
	}
	if left, err := b.unfinished(key); err != nil || len(left) != 1 {
		return fmt.Errorf("a killed client leaves %v, %w", left, err)
	}
	result, err := send(b.Bucket)
	if err != nil {
		return err
	}
	if result.Skipped != whole*minPart || !result.Resumed {
		return fmt.Errorf("%d bytes were not sent again, instead of %d", result.Skipped, whole*minPart)
	}
	if left, err := b.unfinished(key); err != nil || len(left) > 0 {
		return fmt.Errorf("%v are left, %w", left, err)
	}
	if o, err := b.Stat(b.ctx, key); err != nil || o.Metadata["digest"] != "d" {
		return fmt.Errorf("metadata %v, %w", o.Metadata, err)
	}
	return b.holds(key, data, result.ETag)
}

// until calls f until it returns true, for at most ten seconds.
func until(ctx context.Context, f func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := f(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
