package uploadtest

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"imgferry/upload"
	"imgferry/upload/obs"
)

// client is somebody else's client of the same store, for what package obs has no call for.
func client(s Server) (*minio.Core, error) {
	return minio.NewCore(hostOf(s.Config.Endpoint), &minio.Options{
		Creds:  credentials.NewStaticV4(s.Config.AccessKey, s.Config.SecretKey, ""),
		Region: s.Config.Region, MaxRetries: 1, BucketLookup: minio.BucketLookupPath,
	})
}

// put makes an object in one request.
func (b *bench) put(key string, data []byte, meta upload.Metadata) (string, error) {
	sum := md5.Sum(data)
	return b.Put(b.ctx, key, bytes.NewReader(data), int64(len(data)), &sum, meta)
}

func partCopy(b *bench) error {
	source, key := b.key("source"), b.key("copy")
	data := Noise(1, minPart+100_000)
	etag, err := b.put(source, data, nil)
	if err != nil {
		return err
	}
	id, err := b.Begin(b.ctx, key, nil)
	if err != nil {
		return err
	}
	from := upload.Object{Key: source, ETag: etag}
	var stored []upload.StoredPart
	var want []byte
	for i, r := range [][2]int64{{0, minPart}, {1000, minPart}, {int64(len(data)) - minPart, minPart}} {
		etag, err := b.CopyPart(b.ctx, key, id, i+1, from, r[0], r[1])
		if err != nil {
			return err
		}
		piece := data[r[0] : r[0]+r[1]]
		if err := b.proves(etag, piece); err != nil {
			return fmt.Errorf("copied: %w", err)
		}
		want = append(want, piece...)
		stored = append(stored, upload.StoredPart{Number: i + 1, Size: r[1], ETag: etag})
	}
	p, err := b.putPart(key, id, len(stored)+1, data[:1000]) // beside one that is sent
	if err != nil {
		return err
	}
	stored, want = append(stored, p), append(want, data[:1000]...)
	if err := b.lists(key, id, stored); err != nil {
		return err
	}
	if etag, err = b.Complete(b.ctx, key, id, stored); err != nil {
		return err
	}
	return b.holds(key, want, etag)
}

func partCopyRefused(b *bench) error {
	source, key := b.key("source"), b.key("copy")
	etag, err := b.put(source, Noise(1, 10_000), nil)
	if err != nil {
		return err
	}
	id, err := b.Begin(b.ctx, key, nil)
	if err != nil {
		return err
	}
	_, changed := b.CopyPart(b.ctx, key, id, 1, upload.Object{Key: source, ETag: hexMD5([]byte("other"))}, 0, 1000)
	_, gone := b.CopyPart(b.ctx, key, id, 1, upload.Object{Key: b.key("nothing")}, 0, 1000)
	if err := want("another ETag", changed, upload.ErrReplaced); err != nil {
		return err
	}
	if gone == nil || upload.Temporary(gone) {
		return fmt.Errorf("a copy of nothing: %v", gone)
	}
	_, err = b.CopyPart(b.ctx, key, id, 1, upload.Object{Key: source, ETag: etag}, 0, 1000)
	return err
}

func conditionalGet(b *bench) error {
	key := b.key("k")
	etag, err := b.put(key, Noise(1, 1000), nil)
	if err != nil {
		return err
	}
	if _, err := b.Get(b.ctx, key, 0, 10, hexMD5([]byte("other"))); want("another ETag", err, upload.ErrReplaced) != nil {
		return want("another ETag", err, upload.ErrReplaced)
	}
	r, err := b.Get(b.ctx, key, 0, 10, etag)
	if err != nil {
		return err
	}
	return r.Close()
}

func completeNew(b *bench) error {
	key := b.key("k")
	id, stored, err := b.begin(key, nil, []byte("first"))
	if err != nil {
		return err
	}
	if _, err := b.CompleteNew(b.ctx, key, id, stored); err != nil {
		return fmt.Errorf("of a new key: %w", err)
	}
	if id, stored, err = b.begin(key, nil, []byte("second")); err != nil {
		return err
	}
	if _, err := b.CompleteNew(b.ctx, key, id, stored); !errors.Is(err, upload.ErrReplaced) {
		return fmt.Errorf("of a key that is taken: %v", err)
	}
	got, err := b.read(key, 0, 5)
	if err != nil || string(got) != "first" {
		return fmt.Errorf("the object holds %q, %w", got, err)
	}
	return b.Abort(b.ctx, key, id)
}

func etags(b *bench) error {
	data := Noise(3, 70_000)
	etag, err := b.put(b.key("one"), data, nil)
	if err != nil {
		return err
	}
	if etag != hexMD5(data) {
		return fmt.Errorf("the ETag of an object is %s, not its MD5 %s", etag, hexMD5(data))
	}
	if err := b.holds(b.key("one"), data, etag); err != nil {
		return err
	}
	// Even one part makes an ETag of parts.
	id, stored, err := b.begin(b.key("part"), nil, data)
	if err != nil {
		return err
	}
	if etag, err = b.Complete(b.ctx, b.key("part"), id, stored); err != nil {
		return err
	}
	if etag != composite(stored) {
		return fmt.Errorf("the ETag of an object of one part is %s, not %s", etag, composite(stored))
	}
	return b.holds(b.key("part"), data, etag)
}

func metadata(b *bench) error {
	meta := upload.Metadata{
		"imgferry-digest": "BCj3htRMSNOXHgus1QJSY3lHW-e6j4m-jJg9CvO26VQ", "imgferry-size": "10737418240",
		"imgferry-version": "imgferry/1.2 (a; b=c)", "x": "y",
	}
	for name, make := range map[string]func(string) error{
		"put": func(key string) error { _, err := b.put(key, []byte("x"), meta); return err },
		"parts": func(key string) error {
			id, stored, err := b.begin(key, meta, []byte("x"))
			if err == nil {
				_, err = b.Complete(b.ctx, key, id, stored)
			}
			return err
		},
	} {
		if err := make(b.key(name)); err != nil {
			return err
		}
		o, err := b.Stat(b.ctx, b.key(name))
		if err != nil || !maps.Equal(o.Metadata, meta) || time.Since(o.Modified) > time.Hour {
			return fmt.Errorf("%s: %+v, %w", name, o, err)
		}
	}
	return nil
}

func conditionalCopy(b *bench) error {
	key := b.key("object")
	id, stored, err := b.begin(key, upload.Metadata{"old": "1", "both": "1"}, Noise(1, minPart), Noise(2, 1000))
	if err != nil {
		return err
	}
	if _, err := b.Complete(b.ctx, key, id, stored); err != nil {
		return err
	}
	o, err := b.Stat(b.ctx, key)
	if err != nil {
		return err
	}
	changed := o
	changed.ETag = hexMD5([]byte("other"))
	want := upload.Metadata{"both": "2", "new": "2"}
	if _, err := b.SetMetadata(b.ctx, changed, want); !errors.Is(err, upload.ErrReplaced) || upload.Temporary(err) {
		return fmt.Errorf("under another ETag: %v", err)
	}
	etag, err := b.SetMetadata(b.ctx, o, want)
	if err != nil {
		return err
	}
	after, err := b.Stat(b.ctx, key)
	if err != nil || after.Size != o.Size || !maps.Equal(after.Metadata, want) || etag != after.ETag {
		return fmt.Errorf("the ETag %s; %+v, %w", etag, after, err)
	}
	return b.holds(key, append(Noise(1, minPart), Noise(2, 1000)...), after.ETag)
}

func twoUploads(b *bench) error {
	key := b.key("key")
	var ids []string
	var parts []upload.StoredPart
	for i := range 2 {
		id, stored, err := b.begin(key, nil, Noise(uint64(i), 1000))
		if err != nil {
			return err
		}
		ids, parts = append(ids, id), append(parts, stored...)
	}
	if ids[0] == ids[1] {
		return fmt.Errorf("both have the id %s", ids[0])
	}
	for i, id := range ids {
		if err := b.lists(key, id, parts[i:i+1]); err != nil {
			return err
		}
	}
	if _, err := b.Complete(b.ctx, key, ids[1], parts[1:]); err != nil {
		return err
	}
	left, err := b.unfinished(key)
	if err != nil || len(left) != 1 || left[0].UploadID != ids[0] {
		return fmt.Errorf("one is complete, and %v are left, %w", left, err)
	}
	return b.Abort(b.ctx, key, ids[0])
}

// oddNames are keys that must be escaped in one place or another.
var oddNames = []string{"plain", "a b", "a+b", "a&b=c", "100%", "%41", "ä/ö", "a'b\"c", "<x>", "a,b;c", "~tilde", "()!*$@:", "日本"}

func exactKey(b *bench) error {
	for _, name := range oddNames {
		key := b.key(name)
		id, err := b.Begin(b.ctx, key, nil)
		if err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		found, err := b.unfinished(key)
		if err != nil || len(found) != 1 || found[0].UploadID != id || time.Since(found[0].Initiated).Abs() > time.Hour {
			return fmt.Errorf("%q is listed as %+v, %w", name, found, err)
		}
		if err := b.Abort(b.ctx, key, id); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	return nil
}

func prefixes(b *bench) error {
	var want []string
	for _, name := range []string{"disk", "disk-2", "disk/3", "other"} {
		if _, err := b.Begin(b.ctx, b.key(name), nil); err != nil {
			return err
		}
		if strings.HasPrefix(name, "disk") {
			want = append(want, b.key(name))
		}
	}
	list, err := b.Uploads(b.ctx, b.key("disk"))
	if err != nil {
		return err
	}
	var got []string
	for _, u := range list {
		got = append(got, u.Key)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		return fmt.Errorf("%q are listed, not %q", got, want)
	}
	return nil
}

func newestFirst(b *bench) error {
	key := b.key("key")
	first, err := b.Begin(b.ctx, key, nil)
	if err != nil {
		return err
	}
	// The times of a listing are in milliseconds, those of some stores in seconds.
	time.Sleep(1100 * time.Millisecond)
	second, err := b.Begin(b.ctx, key, nil)
	if err != nil {
		return err
	}
	found, err := b.unfinished(key)
	if err != nil || len(found) != 2 || found[0].UploadID != second || found[1].UploadID != first {
		return fmt.Errorf("%+v are listed, %w", found, err)
	}
	return nil
}

func manyUploads(b *bench) error {
	const count = 1010 // above the 1,000 of one page
	key := b.key("key")
	ids := make([]string, count)
	var g errgroup.Group
	g.SetLimit(8)
	for i := range ids {
		g.Go(func() (err error) {
			ids[i], err = b.Begin(b.ctx, key, nil)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	found, err := b.unfinished(key)
	if err != nil {
		return err
	}
	got := make(map[string]bool)
	for _, u := range found {
		got[u.UploadID] = true
	}
	if len(found) != count || len(got) != count {
		return fmt.Errorf("%d uploads are listed, %d of them different, instead of %d", len(found), len(got), count)
	}
	for _, id := range ids {
		if !got[id] {
			return fmt.Errorf("upload %s is not listed", id)
		}
		g.Go(func() error { return b.Abort(b.ctx, key, id) })
	}
	return g.Wait()
}

func oddKeys(b *bench) error {
	for _, name := range oddNames {
		key := b.key(name)
		etag, err := b.put(key, []byte(name), nil)
		if err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		if err := b.holds(key, []byte(name), etag); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		o, err := b.Stat(b.ctx, key)
		if err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		if _, err := b.SetMetadata(b.ctx, o, upload.Metadata{"x": "y"}); err != nil { // the key is in a header
			return fmt.Errorf("copy of %q: %w", name, err)
		}
		if err := b.Remove(b.ctx, key); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		if _, err := b.Stat(b.ctx, key); !errors.Is(err, upload.ErrNoObject) {
			return fmt.Errorf("%q is not removed: %v", name, err)
		}
	}
	return nil
}

func ranges(b *bench) error {
	data := Noise(5, 100_000)
	if _, err := b.put(b.key("k"), data, nil); err != nil {
		return err
	}
	for _, r := range [][2]int64{{0, 1}, {0, 100_000}, {4095, 8193}, {99_999, 1}} {
		got, err := b.read(b.key("k"), r[0], r[1])
		if err != nil || !bytes.Equal(got, data[r[0]:r[0]+r[1]]) {
			return fmt.Errorf("range %v: %d bytes, %w", r, len(got), err)
		}
	}
	return nil
}

func rangePastEnd(b *bench) error {
	if _, err := b.put(b.key("k"), Noise(5, 1000), nil); err != nil {
		return err
	}
	for _, r := range [][2]int64{{1000, 1}, {5000, 10}} {
		if _, err := b.read(b.key("k"), r[0], r[1]); err == nil || upload.Temporary(err) {
			return fmt.Errorf("range %v: %v", r, err)
		}
	}
	if _, err := b.read(b.key("k"), 990, 20); err == nil {
		return errors.New("a range beyond the end was taken for whole")
	}
	return nil
}

func smallObjects(b *bench) error {
	for _, data := range [][]byte{{0}, []byte("bitmap"), make([]byte, 4096)} {
		etag, err := b.put(b.key("small"), data, nil) // over the one before
		if err != nil {
			return err
		}
		if err := b.holds(b.key("small"), data, etag); err != nil {
			return err
		}
	}
	etag, err := b.put(b.key("empty"), nil, nil)
	if err != nil {
		return err
	}
	o, err := b.Stat(b.ctx, b.key("empty"))
	if err != nil || o.Size != 0 || o.ETag != etag {
		return fmt.Errorf("%+v, %w", o, err)
	}
	return errors.Join(b.Remove(b.ctx, b.key("empty")), b.Remove(b.ctx, b.key("empty")))
}

// want returns an error unless err has the class and is permanent.
func want(what string, err, class error) error {
	if !errors.Is(err, class) || upload.Temporary(err) {
		return fmt.Errorf("%s: %v, not %q", what, err, class)
	}
	return nil
}

func missing(b *bench) error {
	key := b.key("k")
	id, _, err := b.begin(key, nil, []byte("x"))
	if err != nil {
		return err
	}
	if err := b.Abort(b.ctx, key, id); err != nil {
		return err
	}
	_, stat := b.Stat(b.ctx, key)
	_, get := b.Get(b.ctx, key, 0, 1, "")
	_, meta := b.SetMetadata(b.ctx, upload.Object{Key: key, Size: 1}, nil)
	_, part := b.putPart(key, id, 1, []byte("x"))
	_, parts := b.Parts(b.ctx, key, id)
	_, complete := b.Complete(b.ctx, key, id, []upload.StoredPart{{Number: 1, ETag: hexMD5([]byte("x"))}})
	_, nonsense := b.Parts(b.ctx, key, "no-such-id")
	return errors.Join(
		want("look up", stat, upload.ErrNoObject), want("read", get, upload.ErrNoObject),
		want("replace the metadata", meta, upload.ErrNoObject),
		want("put part", part, upload.ErrNoUpload), want("list parts", parts, upload.ErrNoUpload),
		want("complete", complete, upload.ErrNoUpload), want("list parts of nonsense", nonsense, upload.ErrNoUpload),
		b.Abort(b.ctx, key, id), b.Remove(b.ctx, key),
	)
}

// refused wants the same refusal of every kind of request.
func refused(ctx context.Context, b *obs.Bucket, class error) error {
	_, begin := b.Begin(ctx, "k", nil)
	_, uploads := b.Uploads(ctx, "k")
	_, put := b.Put(ctx, "k", strings.NewReader("x"), 1, nil, nil)
	return errors.Join(
		want("check", b.CheckBucket(ctx), class), want("begin", begin, class),
		want("list uploads", uploads, class), want("put", put, class),
	)
}

func missingBucket(b *bench) error {
	other, err := b.open(func(c *obs.Config) { c.Bucket = "no-such-bucket-here" })
	if err != nil {
		return err
	}
	return errors.Join(b.CheckBucket(b.ctx), refused(b.ctx, other, upload.ErrNoBucket))
}

func wrongKey(b *bench) error {
	other, err := b.open(func(c *obs.Config) { c.AccessKey = "NOBODYKNOWSTHIS" })
	if err != nil {
		return err
	}
	return refused(b.ctx, other, upload.ErrDenied)
}

func wrongSecret(b *bench) error {
	other, err := b.open(func(c *obs.Config) { c.SecretKey = "not-the-secret" })
	if err != nil {
		return err
	}
	return refused(b.ctx, other, upload.ErrDenied)
}

func wrongClock(b *bench) error {
	var errs []error
	for _, skew := range []time.Duration{-20 * time.Minute, 20 * time.Minute} {
		other, err := b.open(func(c *obs.Config) {
			c.Transport = &clock{c.Transport, time.Now().Add(skew), c.SecretKey, c.Region}
		})
		if err == nil {
			err = refused(b.ctx, other, upload.ErrClock)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%v off: %w", skew, err))
		}
	}
	// The signing itself is right.
	right, err := b.open(func(c *obs.Config) { c.Transport = &clock{c.Transport, time.Now(), c.SecretKey, c.Region} })
	if err == nil {
		err = right.CheckBucket(b.ctx)
	}
	return errors.Join(append(errs, err)...)
}
