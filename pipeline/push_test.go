package pipeline_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"imgferry/bitmap"
	"imgferry/formats"
	"imgferry/formats/qcow2"
	"imgferry/formats/raw"
	"imgferry/ims"
	"imgferry/limits"
	"imgferry/pipeline"
	"imgferry/sandbox"
	"imgferry/source"
	"imgferry/upload"
	"imgferry/upload/obs"
)

// cloud is a running sandbox and clients for it.
type cloud struct {
	box    *sandbox.Sandbox
	bucket *obs.Bucket
	images *ims.Client
}

func start(dir string) (cloud, error) {
	box, err := sandbox.Start(context.Background(), sandbox.Config{DataDir: dir})
	if err != nil {
		return cloud{}, err
	}
	bucket, err := obs.New(obs.Config{Endpoint: box.StoreEndpoint(), Region: box.Region(), Bucket: box.Bucket(),
		AccessKey: box.AccessKey(), SecretKey: box.SecretKey()})
	if err != nil {
		return cloud{}, err
	}
	images, err := ims.New(ims.Config{Endpoint: box.ImageEndpoint(), ProjectID: box.ProjectID(),
		Credentials: ims.AccessKey(box.AccessKey(), box.SecretKey(), "")})
	return cloud{box, bucket, images}, err
}

func newCloud(t *testing.T) cloud {
	t.Helper()
	c, err := start(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.box.Close(context.Background()) })
	return c
}

// push returns a push of the disk with what every push needs.
func (c cloud) push(d pipeline.Disk) pipeline.Push {
	return pipeline.Push{
		Disk: d, Bucket: c.bucket, BucketName: c.box.Bucket(), Images: c.images,
		Name: "disk", Format: pipeline.ZVHD2, OSVersion: "Other Linux(64 bit)", Type: limits.TypeECS,
		NewImage: true, // most tests are about the object
	}
}

func open(t testing.TB, name string, f formats.Format) pipeline.Disk {
	t.Helper()
	src, err := source.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	img, err := f.Open(context.Background(), src, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	return pipeline.Disk{Image: img, Format: f.Name, Changed: src.Changed}
}

// rawDisk writes a disk of mib MiB and 100 bytes, with data in every third MiB.
func rawDisk(t testing.TB, mib int, seed uint64) pipeline.Disk {
	t.Helper()
	b := make([]byte, mib<<20+100)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := 0; i < len(b); i++ {
		if i>>20%3 == 0 {
			b[i] = byte(r.Uint32())
		}
	}
	name := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(name, b, 0o666); err != nil {
		t.Fatal(err)
	}
	return open(t, name, raw.Format())
}

func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	cloud, err := start(dir) // a sandbox; a real cloud has the same clients
	if err != nil {
		panic(err)
	}
	defer cloud.box.Close(context.Background())
	src, err := source.Open("../testdata/linux.qcow2")
	if err != nil {
		panic(err)
	}
	disk, err := qcow2.Format().Open(context.Background(), src, nil)
	if err != nil {
		panic(err)
	}
	defer disk.Close()

	report, err := pipeline.Push{
		Disk:   pipeline.Disk{Image: disk, Format: "qcow2", Changed: src.Changed},
		Bucket: cloud.bucket, BucketName: cloud.box.Bucket(), Images: cloud.images,
		Name: "linux", Format: pipeline.ZVHD2, OSVersion: "Debian GNU/Linux 12.0.0 64bit", Type: limits.TypeECS,
	}.Run(context.Background())
	fmt.Println(report.ImageStatus, report.VirtualSize>>20, "MiB", err)
	// Output: active 256 MiB <nil>
}

func TestSameDiskSameObject(t *testing.T) {
	c := newCloud(t)
	p := c.push(open(t, "../testdata/linux.qcow2", qcow2.Format()))
	first, err := p.Run(t.Context())
	if err != nil || first.Reused || first.Sent != first.ObjectSize || first.Skipped != 0 {
		t.Fatalf("%+v, %v", first, err)
	}
	// The same content as a raw file, with another name in another place.
	name := filepath.Join(t.TempDir(), "x")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(f, io.NewSectionReader(p.Disk.Image, 0, p.Disk.Image.Size())); err != nil {
		t.Fatal(err)
	}
	f.Close()
	p.Disk = open(t, name, raw.Format())
	second, err := p.Run(t.Context())
	if err != nil || !second.Reused || second.Sent != 0 || second.Key != first.Key || second.Digest != first.Digest {
		t.Errorf("%+v, %v", second, err)
	}
	if second.ImageID == first.ImageID {
		t.Error("one image for two pushes")
	}
	p.Overwrite = true
	third, err := p.Run(t.Context())
	if err != nil || third.Reused || third.Sent != first.Sent || third.ETag != first.ETag {
		t.Errorf("%+v, %v", third, err)
	}
}

// A run that died between the object's completion and its seal leaves an object without a digest:
// the next run knows it all the same.
func TestUnsealedObject(t *testing.T) {
	for _, format := range []string{pipeline.ZVHD2, pipeline.Raw} {
		c := newCloud(t)
		p := c.push(rawDisk(t, 12, 1))
		p.Format, p.Key = format, "disk."+format
		unsealed := &noSeal{c.bucket}
		p.Bucket = unsealed
		var notices []string
		p.Notice = func(s string) { notices = append(notices, s) }
		first, err := p.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(notices) == 0 {
			t.Error("nobody was told that the digest is missing")
		}
		p.Bucket = c.bucket
		for _, says := range []string{"its content is the same: nothing has to be sent", "its metadata names the same content: nothing has to be sent"} {
			notices = nil
			again, err := p.Run(t.Context())
			if err != nil || !again.Reused || again.Sent != 0 || again.Digest != first.Digest {
				t.Fatalf("%s: %+v, %v", format, again, err)
			}
			if !slices.Contains(notices, says) {
				t.Errorf("%s: %q is not in %q", format, says, notices)
			}
		}
		o, err := c.bucket.Stat(t.Context(), p.Key)
		if err != nil || o.Metadata["imgferry-digest"] != first.Digest || o.Metadata["imgferry-size"] != fmt.Sprint(12<<20+512) {
			t.Errorf("%s: metadata %v, %v", format, o.Metadata, err)
		}
		// Another disk is not taken for it.
		if _, err := c.bucket.SetMetadata(t.Context(), o, upload.Metadata{"imgferry-size": fmt.Sprint(12<<20 + 512), "imgferry-format": format}); err != nil {
			t.Fatal(err)
		}
		p.Disk = rawDisk(t, 12, 2)
		if r, err := p.Run(t.Context()); !errors.Is(err, pipeline.ErrExists) {
			t.Errorf("%s: another disk: %+v, %v", format, r, err)
		}
	}
}

// noSeal is a bucket whose SetMetadata fails for good.
type noSeal struct{ *obs.Bucket }

func (n *noSeal) SetMetadata(context.Context, upload.Object, upload.Metadata) (string, error) {
	return "", &upload.Error{Op: "copy", Class: upload.ErrDenied}
}

// renamed is a bucket that gives objects another ETag with their metadata, or does not say which.
type renamed struct {
	*obs.Bucket
	etag string
}

func (r renamed) SetMetadata(ctx context.Context, o upload.Object, meta upload.Metadata) (string, error) {
	_, err := r.Bucket.SetMetadata(ctx, o, meta)
	return r.etag, err
}

// What is reported is the ETag that the object has in the end.
func TestETagOfSealedObject(t *testing.T) {
	c := newCloud(t)
	p := c.push(rawDisk(t, 12, 1))
	p.Overwrite = true
	for _, etag := range []string{"another", ""} {
		p.Bucket = renamed{c.bucket, etag}
		r, err := p.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		o, err := c.bucket.Stat(t.Context(), r.Key)
		if err != nil || r.ETag != cmp.Or(etag, o.ETag) {
			t.Errorf("%q: %s instead of %s, %v", etag, r.ETag, o.ETag, err)
		}
	}
}

func TestExistingObject(t *testing.T) {
	c := newCloud(t)
	p := c.push(rawDisk(t, 5, 1))
	p.Key = "taken.zvhd2"
	if _, err := c.bucket.Put(t.Context(), p.Key, bytes.NewReader([]byte("mine")), 4, nil, nil); err != nil {
		t.Fatal(err)
	}
	r, err := p.Run(t.Context())
	if !errors.Is(err, pipeline.ErrExists) || r.JobID != "" {
		t.Errorf("%+v, %v", r, err)
	}
	p.Overwrite = true
	if r, err = p.Run(t.Context()); err != nil || r.ImageStatus != ims.StatusActive {
		t.Errorf("%+v, %v", r, err)
	}
	p.Overwrite = false
	p.Disk = rawDisk(t, 5, 2) // as large, other content
	if r, err = p.Run(t.Context()); !errors.Is(err, pipeline.ErrExists) || r.JobID != "" {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestRaw(t *testing.T) {
	c := newCloud(t)
	p := c.push(rawDisk(t, 12, 1))
	p.Format = pipeline.Raw
	r, err := p.Run(t.Context())
	if err != nil || r.ObjectSize != 12<<20+512 || filepath.Ext(r.Key) != ".raw" {
		t.Fatalf("%+v, %v", r, err)
	}
	o, err := c.bucket.Get(t.Context(), r.Key, 0, r.ObjectSize, "")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(o)
	o.Close()
	want := make([]byte, 12<<20+512)
	if n, rerr := p.Disk.Image.ReadAt(want[:p.Disk.Image.Size()], 0); err != nil || rerr != nil && n < 12<<20+100 || !bytes.Equal(got, want) {
		t.Errorf("the object differs from the disk: %v, %v", err, rerr)
	}
	mf, err := c.bucket.Get(t.Context(), limits.BitmapKey(r.Key), 0, 4096, "")
	if err != nil {
		t.Fatal(err)
	}
	bits, err := io.ReadAll(mf)
	mf.Close()
	if err != nil {
		t.Fatal(err)
	}
	// Data in MiB 0, 3, 6, 9, and 12 has 100 bytes: blocks 0, 1, 3, 4 and 6.
	b, err := bitmap.Parse(bits, 7)
	if err != nil || bits[0] != 0b1011011 {
		t.Errorf("bitmap %v, %v", b, err)
	}

	// A bitmap that leaves data out fails the import job, and nothing is deleted.
	bad := bitmap.New(7)
	bad.Set(0)
	p.Bitmap, p.DeleteObject, p.Key = bad.Append(nil), true, "bad.raw"
	r, err = p.Run(t.Context())
	var job *ims.JobError
	if !errors.As(err, &job) || job.Code != "IMG.0057" || r.ObjectDeleted {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := c.bucket.Stat(t.Context(), "bad.raw"); err != nil {
		t.Errorf("after FAIL: %v", err)
	}
	p.Bitmap, p.Overwrite = nil, true
	if r, err = p.Run(t.Context()); err != nil || !r.ObjectDeleted {
		t.Errorf("%+v, %v", r, err)
	}
	for _, key := range []string{"bad.raw", "bad.mf"} {
		if _, err := c.bucket.Stat(t.Context(), key); !errors.Is(err, upload.ErrNoObject) {
			t.Errorf("after --delete-object: %s: %v", key, err)
		}
	}
}

// What the service would refuse is refused before a request is made.
func TestRefusedBeforeSending(t *testing.T) {
	for name, change := range map[string]func(*pipeline.Push){
		"name":        func(p *pipeline.Push) { p.Name = "" },
		"long name":   func(p *pipeline.Push) { p.Name = string(bytes.Repeat([]byte("n"), 129)) },
		"description": func(p *pipeline.Push) { p.Description = "<b>" },
		"os version":  func(p *pipeline.Push) { p.OSVersion = "" },
		"type":        func(p *pipeline.Push) { p.Type = "VM" },
		"arch":        func(p *pipeline.Push) { p.Architecture = "mips" },
		"min disk":    func(p *pipeline.Push) { p.MinDisk = 1025 },
		"key":         func(p *pipeline.Push) { p.Key = "a b" },
		"tag":         func(p *pipeline.Push) { p.Tags = []ims.Tag{{Key: "a b", Value: "c"}} },
	} {
		p := pipeline.Push{
			Disk: rawDisk(t, 1, 1), Name: "disk", Format: pipeline.ZVHD2, OSVersion: "x", Type: limits.TypeECS,
			BucketName: "images", // and neither a bucket nor a service to talk to
		}
		change(&p)
		var rule *limits.Error
		if _, err := p.Run(t.Context()); !errors.As(err, &rule) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An image service that can't be used is noticed before anything is sent.
func TestServiceFirst(t *testing.T) {
	c := newCloud(t)
	p := c.push(rawDisk(t, 3, 1))
	denied := &ims.APIError{Op: "list", Status: 403, Message: "no"}
	p.Images = &noService{ImageService: c.images, err: denied}
	if r, err := p.Run(t.Context()); !errors.Is(err, denied) || r.Sent != 0 || r.Key != "" {
		t.Errorf("%+v, %v", r, err)
	}
}

type noService struct {
	pipeline.ImageService
	err error
}

func (n *noService) Images(context.Context, url.Values) ([]ims.Image, error) { return nil, n.err }

// rival is a bucket in which somebody else writes to the same key at two bad moments.
type rival struct {
	*obs.Bucket
	whileSending, beforeSeal func()
}

func (v *rival) PutPart(ctx context.Context, key, id string, n int, body io.ReadSeeker, size int64, sum *[16]byte) (string, error) {
	if v.whileSending != nil {
		v.whileSending()
	}
	return v.Bucket.PutPart(ctx, key, id, n, body, size, sum)
}

func (v *rival) SetMetadata(ctx context.Context, o upload.Object, meta upload.Metadata) (string, error) {
	if v.beforeSeal != nil {
		v.beforeSeal()
	}
	return v.Bucket.SetMetadata(ctx, o, meta)
}

// Somebody else's object under the same key is neither replaced, nor sealed and registered as ours.
func TestRival(t *testing.T) {
	for _, format := range []string{pipeline.ZVHD2, pipeline.Raw} {
		c := newCloud(t)
		p := c.push(rawDisk(t, 5, 1))
		p.Format, p.Key = format, "disk."+format
		precious := func() {
			if _, err := c.bucket.Put(context.Background(), p.Key, bytes.NewReader([]byte("precious")), 8, nil, nil); err != nil {
				t.Error(err)
			}
		}
		check := func(name string, want error) {
			t.Helper()
			r, err := p.Run(t.Context())
			if !errors.Is(err, want) || r.JobID != "" {
				t.Errorf("%s, %s: %+v, %v", format, name, r, err)
			}
			if o, err := c.bucket.Stat(t.Context(), p.Key); err != nil || o.Size != 8 || len(o.Metadata) > 0 {
				t.Errorf("%s, %s: the object is %+v, %v", format, name, o, err)
			}
			if u, err := c.bucket.Uploads(t.Context(), ""); err != nil || len(u) != 0 {
				t.Errorf("%s, %s: unfinished %v, %v", format, name, u, err)
			}
		}
		p.Bucket = &rival{Bucket: c.bucket, whileSending: precious}
		check("while sending", pipeline.ErrExists)
		p.Bucket, p.Overwrite = &rival{Bucket: c.bucket, beforeSeal: precious}, true
		check("before the seal", upload.ErrReplaced)
	}
}
