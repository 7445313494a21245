package pipeline_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"imgferry/limits"
	"imgferry/pipeline"
	"imgferry/upload"
)

// watchedBucket is a bucket that tells of calls before it makes them; their errors are its answers.
type watchedBucket struct {
	pipeline.Bucket
	putPart, complete, put, remove func() error
	stat                           func(key string) error
}

func ask(f func() error) error {
	if f == nil {
		return nil
	}
	return f()
}

func (b *watchedBucket) Stat(ctx context.Context, key string) (upload.Object, error) {
	if b.stat != nil {
		if err := b.stat(key); err != nil {
			return upload.Object{}, err
		}
	}
	return b.Bucket.Stat(ctx, key)
}

func (b *watchedBucket) PutPart(ctx context.Context, key, id string, number int, body io.ReadSeeker, size int64, sum *[16]byte) (string, error) {
	if err := ask(b.putPart); err != nil {
		return "", err
	}
	return b.Bucket.PutPart(ctx, key, id, number, body, size, sum)
}

func (b *watchedBucket) Complete(ctx context.Context, key, id string, parts []upload.StoredPart) (string, error) {
	if err := ask(b.complete); err != nil {
		return "", err
	}
	return b.Bucket.Complete(ctx, key, id, parts)
}

func (b *watchedBucket) Put(ctx context.Context, key string, body io.ReadSeeker, size int64, sum *[16]byte, meta upload.Metadata) (string, error) {
	if err := ask(b.put); err != nil {
		return "", err
	}
	return b.Bucket.Put(ctx, key, body, size, sum, meta)
}

func (b *watchedBucket) Remove(ctx context.Context, key string) error {
	if err := ask(b.remove); err != nil {
		return err
	}
	return b.Bucket.Remove(ctx, key)
}

func denied() error {
	return &upload.Error{Op: "test", Status: 403, Code: "AccessDenied", Class: upload.ErrDenied}
}

// besideTest is a cloud with a raw upload of usr.img, whose bitmap is usr.mf.
type besideTest struct {
	cloud
	t *testing.T
}

const besideKey, besideMap = "usr.img", "usr.mf"

func (b besideTest) upload(d pipeline.Disk, change func(*pipeline.Push)) (pipeline.Report, error) {
	b.t.Helper()
	p := b.push(d)
	p.Key, p.Format = besideKey, pipeline.Raw
	if change != nil {
		change(&p)
	}
	r, err := p.Upload(b.t.Context())
	if left, failed := b.bucket.Uploads(b.t.Context(), ""); failed != nil || len(left) > 0 {
		b.t.Errorf("left %v, %v", left, failed)
	}
	return r, err
}

func overwrite(p *pipeline.Push) { p.Overwrite = true }

func (b besideTest) must(r pipeline.Report, err error) pipeline.Report {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

func (b besideTest) put(key, body string) {
	b.t.Helper()
	if _, err := b.bucket.Put(b.t.Context(), key, strings.NewReader(body), int64(len(body)), nil, nil); err != nil {
		b.t.Fatal(err)
	}
}

// object returns the bytes of an object, "" where there is none.
func (b besideTest) object(key string) string {
	b.t.Helper()
	o, err := b.bucket.Stat(b.t.Context(), key)
	if errors.Is(err, upload.ErrNoObject) {
		return ""
	}
	if err != nil {
		b.t.Fatal(err)
	}
	r, err := b.bucket.Get(b.t.Context(), key, 0, o.Size, "")
	if err != nil {
		b.t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil {
		b.t.Fatal(err)
	}
	return string(got)
}

func content(t *testing.T, d pipeline.Disk) string {
	t.Helper()
	b := make([]byte, (d.Image.Size()+511)/512*512)
	if _, err := d.Image.ReadAt(b[:d.Image.Size()], 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return string(b)
}

// A file of the user that has the bitmap's key is in the way like one that has the object's.
func TestBitmapKeyIsTaken(t *testing.T) {
	b := besideTest{newCloud(t), t}
	disk := rawDisk(t, 9, 1)
	const mine = "mine"
	b.put(besideMap, mine)
	sent := 0
	watched := &watchedBucket{Bucket: b.bucket, putPart: func() error { sent++; return nil }}
	_, err := b.upload(disk, func(p *pipeline.Push) { p.Bucket = watched })
	if !errors.Is(err, pipeline.ErrExists) || !strings.Contains(err.Error(), besideMap) || sent > 0 || b.object(besideMap) != mine || b.object(besideKey) != "" {
		t.Errorf("%v, %d parts were sent, %q, an object of %d bytes", err, sent, b.object(besideMap), len(b.object(besideKey)))
	}
	// One of the same length, too.
	b.must(b.upload(disk, overwrite))
	bitmap := b.object(besideMap)
	if b.object(besideKey) != content(t, disk) || len(bitmap) <= len(mine) {
		t.Fatalf("%q beside an object of %d bytes", bitmap, len(b.object(besideKey)))
	}
	other := strings.Repeat("x", len(bitmap))
	b.put(besideMap, other)
	if r, err := b.upload(disk, nil); !errors.Is(err, pipeline.ErrExists) || b.object(besideMap) != other {
		t.Errorf("%+v, %v", r, err)
	}
	// One that comes up while the disk is sent.
	watched.putPart = func() error {
		b.put(besideMap, mine)
		return nil
	}
	for _, key := range []string{besideKey, besideMap} {
		if err := b.bucket.Remove(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	_, err = b.upload(disk, func(p *pipeline.Push) { p.Bucket = watched })
	if !errors.Is(err, pipeline.ErrExists) || b.object(besideMap) != mine || b.object(besideKey) != "" {
		t.Errorf("%v, %q", err, b.object(besideMap))
	}
}

// The bitmap that an earlier run of the same disk left is what would be put anyway.
func TestBitmapIsThereAlready(t *testing.T) {
	b := besideTest{newCloud(t), t}
	disk := rawDisk(t, 9, 1)
	b.must(b.upload(disk, nil))
	want := b.object(besideMap)
	refused := func(p *pipeline.Push) {
		p.Bucket = &watchedBucket{Bucket: b.bucket, put: denied, remove: denied}
	}
	if r := b.must(b.upload(disk, refused)); !r.Reused {
		t.Errorf("%+v", r)
	}
	if err := b.bucket.Remove(t.Context(), besideKey); err != nil {
		t.Fatal(err)
	}
	if r := b.must(b.upload(disk, refused)); r.Reused || b.object(besideKey) != content(t, disk) || b.object(besideMap) != want {
		t.Errorf("%+v", r)
	}
	// Another one for the same disk is not put without a word.
	if _, err := b.upload(disk, func(p *pipeline.Push) { p.Bitmap = []byte("the vendor's") }); !errors.Is(err, pipeline.ErrExists) || b.object(besideMap) != want {
		t.Errorf("%v, %q", err, b.object(besideMap))
	}
}

// At no moment does a disk lie beside the bitmap of the one that it replaced.
func TestOldBitmapGoesFirst(t *testing.T) {
	first, second := rawDisk(t, 9, 1), rawDisk(t, 15, 2)
	for name, c := range map[string]struct {
		change func(*pipeline.Push)
		want   string
	}{
		"raw":    {func(*pipeline.Push) {}, content(t, second)},
		"import": {func(p *pipeline.Push) { p.Via = pipeline.ViaImport }, content(t, second)},
		"as-is":  {func(p *pipeline.Push) { p.Format = pipeline.AsIs }, content(t, second)[:second.Image.Size()]},
	} {
		b := besideTest{newCloud(t), t}
		b.must(b.upload(first, nil))
		refuse := func(change func(*watchedBucket)) func(*pipeline.Push) {
			return func(p *pipeline.Push) {
				watched := &watchedBucket{Bucket: b.bucket}
				change(watched)
				p.Overwrite, p.Bucket = true, watched
				c.change(p)
			}
		}
		// What may not be deleted stays, and so does its object.
		bitmap := b.object(besideMap)
		_, err := b.upload(second, refuse(func(w *watchedBucket) { w.remove = denied }))
		if !errors.Is(err, upload.ErrDenied) || !strings.Contains(err.Error(), "bitmap") || b.object(besideKey) != content(t, first) || b.object(besideMap) != bitmap {
			t.Errorf("%s: %v; %d bytes beside %q", name, err, len(b.object(besideKey)), b.object(besideMap))
		}
		_, err = b.upload(second, refuse(func(w *watchedBucket) {
			w.put = denied
			w.complete = func() error {
				if left := b.object(besideMap); left != "" {
					t.Errorf("%s: %q is still there", name, left)
				}
				return nil
			}
		}))
		if (name == "raw") != errors.Is(err, upload.ErrDenied) || b.object(besideKey) != c.want || b.object(besideMap) != "" {
			t.Errorf("%s: %v; %d bytes beside %q", name, err, len(b.object(besideKey)), b.object(besideMap))
		}
	}
}

// What is no bitmap of ours is nobody's business, where no bitmap is to take its place.
func TestForeignFileBeside(t *testing.T) {
	b := besideTest{newCloud(t), t}
	asIs := func(p *pipeline.Push) { p.Overwrite, p.Format = true, pipeline.AsIs }
	b.put(besideMap, "SHA256(usr.img)= 00")
	b.must(b.upload(rawDisk(t, 1, 1), asIs))
	b.must(b.upload(rawDisk(t, 1, 2), asIs))
	if got := b.object(besideMap); got != "SHA256(usr.img)= 00" {
		t.Errorf("%q", got)
	}
	// A bitmap that is sent by itself does not remove itself.
	b.must(b.upload(rawDisk(t, 1, 3), overwrite))
	b.must(b.upload(rawDisk(t, 1, 4), func(p *pipeline.Push) {
		asIs(p)
		p.Key = besideMap
		p.Bucket = &watchedBucket{Bucket: b.bucket, remove: denied}
	}))
}

// Who may not list the bucket is refused an answer about what is missing. That is no reason to fail.
func TestBitmapOfWhoMayNotList(t *testing.T) {
	b := besideTest{newCloud(t), t}
	disk := rawDisk(t, 9, 1)
	replace := func(format string) func(*pipeline.Push) {
		return func(p *pipeline.Push) {
			p.Overwrite, p.Format = true, format
			p.Bucket = &watchedBucket{Bucket: b.bucket, stat: func(key string) error {
				if key == besideMap {
					return denied()
				}
				return nil
			}}
		}
	}
	b.put(besideMap, "old")
	b.must(b.upload(disk, replace(pipeline.AsIs)))
	if got := b.object(besideMap); got != "old" {
		t.Errorf("%q", got)
	}
	b.must(b.upload(disk, replace(pipeline.Raw)))
	if got := b.object(besideMap); got == "" || got == "old" {
		t.Errorf("%q", got)
	}
}

// An object can't have its own bitmap's key.
func TestKeyOfABitmap(t *testing.T) {
	b := besideTest{newCloud(t), t}
	var rule *limits.Error
	if _, err := b.upload(rawDisk(t, 1, 1), func(p *pipeline.Push) { p.Key = besideMap }); !errors.As(err, &rule) || b.object(besideMap) != "" {
		t.Errorf("%v", err)
	}
	p := b.push(rawDisk(t, 1, 1))
	p.Key, p.Format = besideMap, pipeline.Raw
	if _, err := p.Run(t.Context()); !errors.As(err, &rule) {
		t.Errorf("%v", err)
	}
	b.must(b.upload(rawDisk(t, 1, 1), func(p *pipeline.Push) { p.Key, p.Format = besideMap, pipeline.AsIs }))
}

// While an object is sent, its size is known: from the beginning, or once the disk is read.
func TestProgressHasTheSize(t *testing.T) {
	for _, format := range []string{pipeline.Raw, pipeline.AsIs, pipeline.ZVHD2} {
		b := besideTest{newCloud(t), t}
		p := b.push(rawDisk(t, 9, 1))
		p.Key, p.Format, p.Verify, p.Progress = besideKey, format, true, new(pipeline.Progress)
		var first, last atomic.Int64 // parts are sent at the same time
		p.Bucket = &watchedBucket{Bucket: b.bucket,
			putPart:  func() error { first.Store(p.Progress.Size.Load()); return nil },
			complete: func() error { last.Store(p.Progress.Size.Load()); return nil },
		}
		r, err := p.Upload(t.Context())
		if err != nil || last.Load() != r.ObjectSize || format != pipeline.ZVHD2 && first.Load() != last.Load() {
			t.Errorf("%s: %d, then %d of %d, %v", format, first.Load(), last.Load(), r.ObjectSize, err)
		}
		if left := p.Progress.Size.Load(); left != 0 {
			t.Errorf("%s: %d bytes are to be sent while the object is read back", format, left)
		}
		if u := &p.Progress.Upload; u.Sent()+u.Skipped()+u.Copied() != r.ObjectSize {
			t.Errorf("%s: %+v", format, r)
		}
	}
}
