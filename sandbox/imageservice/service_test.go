package imageservice_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"imgferry/bitmap"
	"imgferry/formats"
	"imgferry/formats/all"
	"imgferry/formats/formatstest"
	"imgferry/formats/zvhd2"
	"imgferry/ims"
	"imgferry/sandbox/identity"
	"imgferry/sandbox/imageservice"
)

const (
	friend     = "0123456789abcdef0123456789abcdef"
	project    = "5a9db0c500000000000000000000c10d"
	ak, sk     = "AKTEST", "SKTEST"
	bucketName = "images"
)

// who is the identity service of all clouds here.
var who = identity.New(identity.Account{
	AccessKey: ak, SecretKey: sk, User: "user", Password: "pass", Domain: "domain", ProjectID: project, ProjectName: "region-1",
	Others: map[string]string{friend: "friend"},
}, nil, nil)

// token is a token for the project.
func token(t testing.TB) string {
	t.Helper()
	w := httptest.NewRecorder()
	who.ServeHTTP(w, httptest.NewRequest("POST", "/v3/auth/tokens", strings.NewReader(
		`{"auth":{"identity":{"methods":["password"],"password":{"user":{"name":"user","password":"pass","domain":{"name":"domain"}}}},"scope":{"project":{"name":"region-1"}}}}`)))
	if w.Code != http.StatusCreated {
		t.Fatal(w.Body)
	}
	return w.Header().Get("X-Subject-Token")
}

// anybody lets everybody in.
func anybody(*http.Request, []byte) (string, error) { return "", nil }

// objects is a store in memory. Sources are opened anew each time.
type objects struct {
	mu   sync.Mutex
	open map[string]func(context.Context) (formats.Source, error)
}

func (o *objects) OpenObject(ctx context.Context, bucket, key string) (formats.Source, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if f := o.open[bucket+":"+key]; f != nil {
		return f(ctx)
	}
	if bucket != bucketName {
		return nil, fmt.Errorf("%w: %w", imageservice.ErrNoBucket, fs.ErrNotExist)
	}
	return nil, fmt.Errorf("no such key: %w", fs.ErrNotExist)
}

func (o *objects) PutObject(_ context.Context, bucket, key string, r io.Reader) error {
	if bucket != bucketName {
		return imageservice.ErrNoBucket
	}
	p, err := io.ReadAll(r)
	if err == nil {
		o.put(key, p)
	}
	return err
}

func (o *objects) put(key string, content []byte) {
	o.source(key, func(context.Context) (formats.Source, error) { return formatstest.NewSource(content), nil })
}

func (o *objects) source(key string, open func(context.Context) (formats.Source, error)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.open == nil {
		o.open = make(map[string]func(context.Context) (formats.Source, error))
	}
	o.open[bucketName+":"+key] = open
}

// cloud is a running service with its store and a client.
type cloud struct {
	objects
	*imageservice.Service
	database string
	alter    func(*imageservice.Config) // before it starts, or nil
	server   *httptest.Server
	client   *ims.Client
}

// start starts the service, which may have been closed before.
func (c *cloud) start(t testing.TB) {
	t.Helper()
	var err error
	cfg := imageservice.Config{
		Objects: &c.objects, ProjectID: project, Workers: 2, Database: c.database, NoSync: true, Region: "region-1", Formats: all.Table(),
		OtherProjects: []string{friend},
		Authorize:     who.Authorize,
	}
	if c.alter != nil {
		c.alter(&cfg)
	}
	c.Service, err = imageservice.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Service.Close() }) // the test has closed it already, or doesn't care
}

func newCloud(t testing.TB, alter ...func(*imageservice.Config)) *cloud {
	t.Helper()
	c := &cloud{database: filepath.Join(t.TempDir(), "images.db")}
	if len(alter) > 0 {
		c.alter = alter[0]
	}
	c.start(t)
	// Whichever service there is at the time.
	c.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.ServeHTTP(w, r) }))
	t.Cleanup(c.server.Close)
	c.client = c.as(t, ims.AccessKey(ak, sk, ""), project)
	return c
}

func (c *cloud) as(t testing.TB, who ims.Credentials, project string) *ims.Client {
	t.Helper()
	client, err := ims.New(ims.Config{Endpoint: c.server.URL, ProjectID: project, Credentials: who})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func quick(key string) ims.QuickImportRequest {
	return ims.QuickImportRequest{Name: "test " + strings.ReplaceAll(key, "/", "-"), OSVersion: "Ubuntu 18.04 server 64bit", ImageURL: bucketName + ":" + key, MinDisk: 1}
}

// importing imports an object and returns the job as it ended.
func (c *cloud) importing(t testing.TB, r ims.QuickImportRequest) (ims.Job, error) {
	t.Helper()
	id, err := c.client.QuickImport(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return c.client.WaitJob(t.Context(), id, ims.Wait{Interval: 2 * time.Millisecond})
}

// fails imports an object and checks that the job fails with that code and with each of the words.
func (c *cloud) fails(t testing.TB, what string, r ims.QuickImportRequest, code string, words ...string) {
	t.Helper()
	job, err := c.importing(t, r)
	var e *ims.JobError
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("%s: %v, want %s", what, err, code)
		return
	}
	for _, w := range words {
		if !strings.Contains(e.Reason, w) {
			t.Errorf("%s: reason %q lacks %q", what, e.Reason, w)
		}
	}
	if img, err := c.client.Image(t.Context(), job.ImageID); err != nil || img.Status != ims.StatusKilled {
		t.Errorf("%s: image is %q, %v", what, img.Status, err)
	}
}

// disk returns a disk of that size whose blocks listed hold data.
func disk(size int64, blocks ...int64) []byte {
	d := make([]byte, size)
	random := rand.New(rand.NewPCG(1, 2))
	for _, b := range blocks {
		for i := b * bitmap.BlockSize; i < min((b+1)*bitmap.BlockSize, size); i += 4096 {
			d[i] = byte(1 + random.IntN(255))
		}
	}
	return d
}

// encode returns the ZVHD2 image of a disk.
func encode(t testing.TB, d []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zvhd2.NewWriter(&b, zvhd2.Options{OrigSize: int64(len(d))})
	if err != nil {
		t.Fatal(err)
	}
	for i := int64(0); i < bitmap.Blocks(int64(len(d))); i++ {
		block := make([]byte, bitmap.BlockSize)
		copy(block, d[i*bitmap.BlockSize:])
		if bitmap.IsZero(block) {
			continue
		}
		chunk, err := w.Encode(nil, i, block)
		if err == nil {
			err = w.WriteBlock(i, chunk)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// bitmapOf returns the .mf file of a disk.
func bitmapOf(d []byte) []byte {
	n := bitmap.Blocks(int64(len(d)))
	bits := bitmap.New(n)
	for i := range n {
		if !bitmap.IsZero(d[i*bitmap.BlockSize : min((i+1)*bitmap.BlockSize, int64(len(d)))]) {
			bits.Set(i)
		}
	}
	return bits.Append(nil)
}

// send sends a signed request and returns the answer's status and body.
func (c *cloud) send(t testing.TB, method, path, body string, alter ...func(*http.Request)) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, c.server.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if len(body) > 12<<20 { // too long to be signed
		r.Header.Set("X-Auth-Token", token(t))
	} else if err := ims.AccessKey(ak, sk, "").Sign(r, []byte(body), time.Now(), "host"); err != nil {
		t.Fatal(err)
	}
	for _, f := range alter {
		f(r)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(answer)
}

func TestImportZVHD2(t *testing.T) {
	c := newCloud(t)
	image := encode(t, disk(5<<20+512, 0, 2))
	c.put("a/b.zvhd2", image)
	r := quick("a/b.zvhd2")
	r.Description, r.Architecture = "from a test", "arm"
	r.ImageTags = []ims.Tag{{Key: "imgferry", Value: "v.1"}, {Key: "empty"}}
	before := time.Now().Add(-time.Second)
	job, err := c.importing(t, r)
	if err != nil || job.Progress != 1 || job.Type != "imsImportImageJob" || job.ImageName != r.Name || job.Begin.Before(before) || job.End.Before(job.Begin) {
		t.Fatalf("%+v, %v", job, err)
	}
	img, err := c.client.Image(t.Context(), job.ImageID)
	if err != nil {
		t.Fatal(err)
	}
	if img.Created.Before(before.Add(-time.Second)) || img.Updated.Before(img.Created) {
		t.Errorf("times %v, %v", img.Created, img.Updated)
	}
	img.Created, img.Updated, img.Activated, img.Properties = time.Time{}, time.Time{}, time.Time{}, nil
	want := ims.Image{
		ID: job.ImageID, Name: r.Name, Status: ims.StatusActive, Owner: project, Visibility: "private", ImageType: "private",
		VirtualEnv: "FusionCompute", DiskFormat: "zvhd2", Description: "from a test", OSVersion: r.OSVersion, OSType: "Linux", OSBit: "64",
		Platform: "Ubuntu", Firmware: "uefi", Size: int64(len(image)), MinDisk: 1, Tags: []string{"imgferry=v.1", "empty="},
	}
	if fmt.Sprintf("%+v", img) != fmt.Sprintf("%+v", want) {
		t.Errorf("image\n%+v\nwant\n%+v", img, want)
	}
}

func TestImportRaw(t *testing.T) {
	c := newCloud(t)
	for _, d := range [][]byte{disk(5<<20+512, 0, 2), disk(4<<20, 1), disk(3<<20, 0), disk(1 << 20), disk(100, 0)} {
		c.put("x.raw", d)
		c.put("x.mf", bitmapOf(d))
		job, err := c.importing(t, quick("x.raw"))
		if err != nil {
			t.Errorf("disk of %d bytes: %v", len(d), err)
			continue
		}
		if img, err := c.client.Image(t.Context(), job.ImageID); err != nil || img.DiskFormat != "raw" || img.Size != int64(len(d)) {
			t.Errorf("disk of %d bytes: image %+v, %v", len(d), img, err)
		}
	}
}

// TestFlippedZVHD2 damages one byte in each place that the format's specification says is checked. (Every
// byte there is, is the business of the format's own tests.)
func TestFlippedZVHD2(t *testing.T) {
	c := newCloud(t)
	image := encode(t, disk(5<<20+512, 0, 2))
	c.put("good", image)
	if _, err := c.importing(t, quick("good")); err != nil {
		t.Fatal(err)
	}
	const page = 4096
	trailer := len(image) - page
	bitmapAt := trailer - page
	index := bitmapAt - 512<<10
	endOfData := index - page
	for place, offsets := range map[string][]int{
		"header":     {0, 7, 8, 12, 16, 28, 40, 48, 64, 67, 87, 88, 92, 140, 141},
		"chunk":      {page, page + 11, page + 12, page + 14, page + 16, page + 19, page + 48, page + 52, endOfData - 4, endOfData - 1},
		"EOD":        {endOfData, endOfData + 7, endOfData + 40, endOfData + 141},
		"index":      {index, index + 1, index + 8, index + 12, index + 13, index + 16, index + 24, index + 28},
		"bitmap":     {bitmapAt, bitmapAt + 1, bitmapAt + page - 1},
		"trailer":    {trailer, trailer + 40, trailer + 64, trailer + 87, trailer + 92, trailer + 96, trailer + 104, trailer + 112, trailer + 136, trailer + 141},
		"first byte": {0}, "last footer byte": {trailer + 511},
	} {
		for _, at := range offsets {
			damaged := bytes.Clone(image)
			damaged[at] ^= 1
			c.put("bad.zvhd2", damaged)
			c.fails(t, fmt.Sprintf("%s, byte %d", place, at), quick("bad.zvhd2"), "IMG.0057", "The image file is empty", "Object bad.zvhd2: zvhd2: ", " offset ")
		}
	}
	for name, cut := range map[string][]byte{"no trailer": image[:trailer], "half": image[:len(image)/2], "one more": append(bytes.Clone(image), 0), "header only": image[:page]} {
		c.put("bad.zvhd2", cut)
		c.fails(t, name, quick("bad.zvhd2"), "IMG.0057")
	}
}

func TestFlippedRaw(t *testing.T) {
	c := newCloud(t)
	d := disk(9<<20, 0, 3)
	d[4<<20-1] = 1 // one byte at the end of block 1, all the data it has
	mf := bitmapOf(d)
	c.put("x.raw", d)
	c.put("x.mf", mf)
	if _, err := c.importing(t, quick("x.raw")); err != nil {
		t.Fatal(err)
	}
	for bit := range 5 {
		bad := bytes.Clone(mf)
		bad[0] ^= 1 << bit
		c.put("x.mf", bad)
		c.fails(t, fmt.Sprintf("bit %d", bit), quick("x.raw"), "IMG.0057", fmt.Sprintf("block %d,", bit), fmt.Sprintf("at offset %d,", bit<<21))
	}
	for name, bad := range map[string][]byte{"bit behind the end": append([]byte{mf[0] | 1<<5}, mf[1:]...), "short": mf[:4095], "long": append(bytes.Clone(mf), 0), "empty": {}} {
		c.put("x.mf", bad)
		c.fails(t, name, quick("x.raw"), "IMG.0057", "x.mf")
	}
	c.put("x.mf", mf)
	bad := bytes.Clone(d)
	bad[4<<20-1] = 0
	c.put("x.raw", bad)
	c.fails(t, "the last byte of a block", quick("x.raw"), "IMG.0057", "block 1,")
	bad[9<<20-1] = 1
	bad[4<<20-1] = 1
	c.put("x.raw", bad)
	c.fails(t, "the last byte of the disk", quick("x.raw"), "IMG.0057", "block 4,")
}

func TestRefusedObjects(t *testing.T) {
	c := newCloud(t)
	raw := disk(3<<20, 0)
	c.put("lone.raw", raw)
	c.fails(t, "raw without bitmap", quick("lone.raw"), "IMG.0158", "Only image files in raw OR ZVHD2", "no bitmap lone.mf")
	c.fails(t, "missing object", quick("nothing"), "IMG.0057", "no object nothing in bucket images")
	other := quick("lone.raw")
	other.ImageURL = "another:lone.raw"
	c.fails(t, "missing bucket", other, "IMG.0057", "bucket another")
	c.put("empty", nil)
	c.fails(t, "empty object", quick("empty"), "IMG.0057", "empty")

	for name, s := range map[string]struct {
		at    int
		magic string
	}{
		"QCOW2": {0, "QFI\xfb\x00\x00\x00\x03"}, "QED": {0, "QED\x00"}, "VMDK": {0, "KDMV"}, "VHDX": {0, "vhdxfile"}, "VHD": {len(raw) - 512, "conectix"},
		"VDI": {64, "\x7f\x10\xda\xbe"}, "ZVHD": {0, "stream\x00\x00"},
	} {
		p := bytes.Clone(raw)
		copy(p[s.at:], s.magic)
		c.put("f.img", p)
		c.put("f.mf", bitmapOf(p)) // a bitmap doesn't make it raw
		c.fails(t, name, quick("f.img"), "IMG.0158", name+" image")
	}

	c.source("big.raw", func(context.Context) (formats.Source, error) { return sparse{size: 1<<30 + 512}, nil })
	c.put("big.mf", bitmap.New(bitmap.Blocks(1<<30+512)).Append(nil))
	c.fails(t, "min_disk below a raw disk", quick("big.raw"), "IMG.0055", "use at least 2 GB")
	two := quick("big.raw")
	two.MinDisk = 2
	if _, err := c.importing(t, two); err != nil {
		t.Error(err)
	}
	var z bytes.Buffer
	w, err := zvhd2.NewWriter(&z, zvhd2.Options{OrigSize: 1<<30 + 512})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	c.put("big.zvhd2", z.Bytes())
	c.fails(t, "min_disk below a ZVHD2 disk", quick("big.zvhd2"), "IMG.0055", "use at least 2 GB")

	c.source("huge.raw", func(context.Context) (formats.Source, error) { return sparse{size: 1<<40 + 1}, nil })
	c.fails(t, "above 1 TB", quick("huge.raw"), "IMG.0059", "exceeds the maximum")
	c.source("broken.raw", func(context.Context) (formats.Source, error) {
		return sparse{size: 1 << 20, err: errors.New("disk on fire")}, nil
	})
	c.fails(t, "unreadable", quick("broken.raw"), "IMG.0057", "disk on fire")
	c.source("closed.raw", func(context.Context) (formats.Source, error) { return nil, errors.New("no permission") })
	c.fails(t, "unopenable", quick("closed.raw"), "IMG.0057", "no permission")
	c.source("panic.raw", func(context.Context) (formats.Source, error) { panic("boom") })
	c.fails(t, "panicking", quick("panic.raw"), "IMG.0061", "boom")
}

// sparse is a disk of zeros with one byte, if byteAt is above 0, that knows its holes.
type sparse struct {
	size, byteAt int64
	err          error
}

func (s sparse) Size() int64      { return s.size }
func (s sparse) Identity() string { return "sparse" }
func (s sparse) Close() error     { return nil }

func (s sparse) ReadAt(p []byte, off int64) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	clear(p)
	if s.byteAt > 0 && off <= s.byteAt && s.byteAt < off+int64(len(p)) {
		p[s.byteAt-off] = 1
	}
	return len(p), nil
}

func (s sparse) NextData(off int64) (start, end int64, err error) {
	if s.byteAt == 0 || off > s.byteAt {
		return s.size, s.size, nil
	}
	return max(off, s.byteAt-100), s.byteAt + 1, nil
}

// TestImportHugeSparse imports a raw disk of 1 TiB, which takes no time if holes are not read.
func TestImportHugeSparse(t *testing.T) {
	c := newCloud(t)
	const size, at = 1 << 40, 777<<30 + 5
	c.source("x.raw", func(context.Context) (formats.Source, error) { return sparse{size: size, byteAt: at}, nil })
	bits := bitmap.New(bitmap.Blocks(size))
	c.put("x.mf", bits.Append(nil))
	r := quick("x.raw")
	r.MinDisk = 1024
	c.fails(t, "unmarked block", r, "IMG.0057", fmt.Sprintf("block %d,", at/bitmap.BlockSize))
	bits.Set(at / bitmap.BlockSize)
	c.put("x.mf", bits.Append(nil))
	if _, err := c.importing(t, r); err != nil {
		t.Error(err)
	}
	bits.Set(bits.Len() - 1)
	c.put("x.mf", bits.Append(nil))
	c.fails(t, "marked hole", r, "IMG.0057", fmt.Sprintf("block %d,", bits.Len()-1))
}

// gated is a Source whose reads each need a token.
type gated struct {
	formats.Source
	ctx    context.Context
	tokens chan struct{}
}

func (g gated) ReadAt(p []byte, off int64) (int, error) {
	select {
	case <-g.tokens:
		return g.Source.ReadAt(p, off)
	case <-g.ctx.Done():
		return 0, g.ctx.Err()
	}
}

func (c *cloud) gate(key string, image []byte) chan struct{} {
	tokens := make(chan struct{})
	c.source(key, func(ctx context.Context) (formats.Source, error) {
		return gated{formatstest.NewSource(image), ctx, tokens}, nil
	})
	return tokens
}

func TestProgress(t *testing.T) {
	c := newCloud(t)
	tokens := c.gate("slow", encode(t, disk(24<<20, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)))
	id, err := c.client.QuickImport(t.Context(), quick("slow"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[float64]bool{}
	last := ims.Job{}
	for last.Status != ims.JobSuccess {
		j, err := c.client.Job(t.Context(), id)
		if err != nil || j.Progress < last.Progress || j.Status == ims.JobFail {
			t.Fatalf("%+v after %+v, %v", j, last, err)
		}
		last = j
		seen[j.Progress] = true
		img, err := c.client.Image(t.Context(), j.ImageID)
		switch {
		case err != nil:
			t.Fatal(err)
		case j.Status == ims.JobRunning && img.Status != ims.StatusSaving && img.Status != ims.StatusActive:
			t.Errorf("image is %s while its job is running", img.Status)
		case img.Status == ims.StatusActive && j.Progress < 0.9:
			t.Error("active too soon")
		}
		select {
		case tokens <- struct{}{}:
		case <-time.After(20 * time.Millisecond): // it may have ended meanwhile
		}
	}
	if len(seen) < 5 {
		t.Errorf("progress seen: %v", seen)
	}
}

func TestCloseDuringImport(t *testing.T) {
	c := newCloud(t)
	c.gate("slow", encode(t, disk(2<<20, 0)))
	var ids []string
	for range 5 { // two run, three wait
		id, err := c.client.QuickImport(t.Context(), quick("slow"))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	for t.Context().Err() == nil { // until two of them read
		j, err := c.client.Job(t.Context(), ids[0])
		if err != nil {
			t.Fatal(err)
		}
		images, err := c.client.Images(t.Context(), map[string][]string{"status": {"saving"}})
		if err != nil {
			t.Fatal(err)
		}
		if len(images) > 2 {
			t.Fatalf("%d imports run at once", len(images))
		}
		if len(images) == 2 {
			if j.Status != ims.JobRunning && j.Status != ims.JobInit {
				t.Errorf("job is %s", j.Status)
			}
			if err := c.client.DeleteImage(t.Context(), images[0].ID); err == nil || !strings.Contains(err.Error(), "IMG.0090") {
				t.Errorf("deleting an image in creation: %v", err)
			}
			break
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for method, path := range map[string]string{"POST": "/v2/cloudimages/quickimport/action", "GET": "/v2/cloudimages"} {
		if status, _, body := c.send(t, method, path, "{}"); status != http.StatusServiceUnavailable || !strings.Contains(body, "stopping") {
			t.Errorf("%s after Close: %d %s", method, status, body)
		}
	}
	if err := c.Healthy(); err == nil {
		t.Error("a closed service is healthy")
	}
	// All of it goes on where it was, one of the jobs to its failure.
	c.put("slow", encode(t, disk(2<<20, 0)))
	c.start(t)
	if err := c.Healthy(); err != nil {
		t.Error(err)
	}
	for _, id := range ids {
		j, err := c.client.WaitJob(t.Context(), id, ims.Wait{Interval: 2 * time.Millisecond})
		if err != nil || j.Progress != 1 {
			t.Errorf("%+v, %v", j, err)
		}
		if img, err := c.client.Image(t.Context(), j.ImageID); err != nil || img.Status != ims.StatusActive || img.Name != "test slow" {
			t.Errorf("%+v, %v", img, err)
		}
	}
	if images, err := c.client.Images(t.Context(), nil); err != nil || len(images) != 5 {
		t.Errorf("%d images, %v", len(images), err)
	}
}

// TestRestart restarts the service with images and jobs that have ended, and with one whose object is gone.
func TestRestart(t *testing.T) {
	c := newCloud(t)
	ids := three(t, c)
	before, err := c.client.Images(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	c.gate("slow", encode(t, disk(2<<20, 0)))
	id, err := c.client.QuickImport(t.Context(), quick("slow"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.client.DeleteImage(t.Context(), ids[0]); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c.source("slow", func(context.Context) (formats.Source, error) { return nil, fs.ErrNotExist })
	c.start(t)
	var e *ims.JobError
	job, err := c.client.WaitJob(t.Context(), id, ims.Wait{Interval: 2 * time.Millisecond})
	if !errors.As(err, &e) || e.Code != "IMG.0057" {
		t.Errorf("%+v, %v", job, err)
	}
	after, err := c.client.Images(t.Context(), nil)
	if err != nil || len(after) != 3 || after[0].ID != job.ImageID || after[0].Status != ims.StatusKilled {
		t.Fatalf("%+v, %v", after, err)
	}
	if got, want := fmt.Sprintf("%+v", after[1:]), fmt.Sprintf("%+v", before[:2]); got != want {
		t.Errorf("after the restart\n%s\nbefore\n%s", got, want)
	}
	// Another project on the same directory has nothing of this one.
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	other, err := imageservice.Open(imageservice.Config{
		Objects: &c.objects, ProjectID: "other", Database: c.database, Authorize: anybody,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	server := httptest.NewServer(other)
	defer server.Close()
	for path, want := range map[string]string{"/v2/cloudimages": `{"images":[]}`, "/v1/other/jobs/" + id: "IMG.0121"} {
		r, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || !strings.Contains(string(body), want) {
			t.Errorf("%s: %s, %v", path, body, err)
		}
	}
}

// TestOpenRefuses opens databases that it must leave alone.
func TestOpenRefuses(t *testing.T) {
	c := newCloud(t)
	open := func(path string) error {
		s, err := imageservice.Open(imageservice.Config{Objects: &c.objects, Database: path, NoSync: true})
		if err == nil {
			s.Close()
		}
		return err
	}
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, bytes.Repeat([]byte("no database\n"), 10_000), 0o600); err != nil {
		t.Fatal(err)
	}
	version := filepath.Join(t.TempDir(), "version")
	db, err := bolt.Open(version, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("meta"))
		if err != nil {
			return err
		}
		return b.Put([]byte("format"), []byte("imgferry image service 0"))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	for path, says := range map[string]string{c.database: "in use", text: text, version: "another version", filepath.Join(t.TempDir(), "no", "folder"): "no such"} {
		if err := open(path); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", path, err, says)
		}
	}
}

// TestSlowBody begins a request and sends no more of it.
func TestSlowBody(t *testing.T) {
	var objects objects
	s, err := imageservice.Open(imageservice.Config{
		Objects: &objects, Database: filepath.Join(t.TempDir(), "db"), NoSync: true, BodyTimeout: 50 * time.Millisecond,
		Authorize: anybody,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	server := httptest.NewServer(s)
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v2/cloudimages/quickimport/action HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, _ := io.ReadAll(r.Body)
	if r.StatusCode != http.StatusRequestTimeout || !strings.Contains(string(body), "in time") || !r.Close {
		t.Errorf("%d %s", r.StatusCode, body)
	}
}

func TestRefusedRequests(t *testing.T) {
	c := newCloud(t)
	const path = "/v2/cloudimages/quickimport/action"
	good := func(change string) string {
		m := map[string]any{"name": "n", "os_version": "Debian GNU/Linux 9.0.0 64bit", "image_url": "images:x", "min_disk": 40}
		if err := json.Unmarshal([]byte(change), &m); err != nil {
			t.Fatal(err)
		}
		p, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(p)
	}
	for body, code := range map[string]string{
		"": "IMG.0007", " \n": "IMG.0007", "{": "IMG.0001", "[]": "IMG.0001", `"x"`: "IMG.0001", `{}`: "IMG.0013",
		good(`{"name":"a/b"}`): "IMG.0003", good(`{"name":"` + strings.Repeat("n", 129) + `"}`): "IMG.0002",
		good(`{"description":"` + strings.Repeat("d", 1025) + `"}`): "IMG.0004", good(`{"description":"<"}`): "IMG.0054",
		good(`{"min_disk":0}`): "IMG.0055", good(`{"min_disk":1025}`): "IMG.0055", good(`{"min_disk":"40"}`): "IMG.0001",
		good(`{"type":"VM"}`): "IMG.0024", good(`{"os_version":""}`): "IMG.0159", good(`{"architecture":"arm64"}`): "IMG.0212",
		good(`{"image_url":"images:a b"}`): "IMG.0175", good(`{"image_url":"images"}`): "IMG.0017", good(`{"image_url":"I:x"}`): "IMG.0109",
		good(`{"tags":["a b.c"]}`): "IMG.0115", good(`{"tags":["a.b"],"image_tags":[{"key":"a"}]}`): "IMG.0115",
		good(`{"hw_firmware_type":"x"}`): "IMG.0141", good(`{"type":"DataImage","os_type":"x"}`): "IMG.0122",
	} {
		status, header, answer := c.send(t, "POST", path, body)
		var e struct {
			Code    string `json:"error_code"`
			Message string `json:"error_msg"`
			ID      string `json:"request_id"`
		}
		if err := json.Unmarshal([]byte(answer), &e); err != nil || status != 400 || e.Code != code || e.Message == "" || e.ID == "" || e.ID != header.Get("X-Request-Id") {
			t.Errorf("%.80s: %d %s, want %s", body, status, answer, code)
		}
	}
	if images, err := c.client.Images(t.Context(), nil); err != nil || len(images) != 0 {
		t.Errorf("refused requests left %d images, %v", len(images), err)
	}
}

func TestRoutes(t *testing.T) {
	c := newCloud(t)
	for _, r := range []struct {
		method, path string
		status       int
		code         string
	}{
		{"GET", "/", 300, "v2.2"}, {"GET", "/v9/x", 404, "APIGW.0101"}, {"GET", "/v2/cloudimages/", 404, "APIGW.0101"},
		{"POST", "/v2/cloudimages", 405, "APIGW.0101"}, {"GET", "/v2/cloudimages/quickimport/action", 405, "APIGW.0101"},
		{"PUT", "/v1/" + project + "/jobs/x", 405, "APIGW.0101"},
		{"GET", "/v1/" + project + "/jobs/x", 404, "IMG.0121"}, {"GET", "/v1/cloudimages/job/x", 404, "IMG.0121"},
		{"GET", "/v1/other/jobs/x", 400, "IMG.0067"}, {"DELETE", "/v2/images/x", 404, "IMG.0027"},
		{"GET", "/v2/cloudimages?limit=x", 400, "IMG.0017"}, {"GET", "/v2/cloudimages?limit=-1", 400, "IMG.0017"},
		{"GET", "/v2/cloudimages?marker=x", 400, "IMG.0027"}, {"GET", "/v2/cloudimages?sort_key=x", 400, "IMG.0017"},
		{"GET", "/v2/cloudimages?sort_dir=x", 400, "IMG.0017"}, {"GET", "/v2/images?sort=name:asc,x:desc", 400, "IMG.0017"},
		{"GET", "/v2/images?sort=name:up", 400, "IMG.0017"}, {"GET", "/v2/cloudimages", 200, ""},
	} {
		status, header, body := c.send(t, r.method, r.path, "")
		if status != r.status || !strings.Contains(body, r.code) || !json.Valid([]byte(body)) || len(header.Get("X-Request-Id")) != 32 ||
			header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: %d %s %v", r.method, r.path, status, body, header)
		}
		if status == 405 && header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", r.method, r.path)
		}
	}
}

func TestAuthorization(t *testing.T) {
	c := newCloud(t)
	for name, alter := range map[string]func(*http.Request){
		"anonymous": func(r *http.Request) { r.Header.Del("Authorization") },
		"tampered":  func(r *http.Request) { r.URL.RawQuery = "limit=1" },
		"token":     func(r *http.Request) { r.Header.Set("X-Auth-Token", "t") },
		"stale": func(r *http.Request) {
			if err := ims.AccessKey(ak, sk, "").Sign(r, nil, time.Now().Add(-16*time.Minute), "host"); err != nil {
				t.Fatal(err)
			}
		},
	} {
		if status, _, body := c.send(t, "GET", "/v2/cloudimages", "", alter); status != 401 || !strings.Contains(body, "APIGW.0301") ||
			!strings.Contains(body, "Incorrect IAM authentication information: ") || strings.Contains(body, sk) {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	for name, client := range map[string]*ims.Client{
		"wrong secret": c.as(t, ims.AccessKey(ak, "other", ""), project), "wrong key": c.as(t, ims.AccessKey("other", sk, ""), project),
		"token": c.as(t, ims.Token("t"), project),
	} {
		if _, err := client.Images(t.Context(), nil); !errors.Is(err, ims.ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var e *ims.APIError
	if _, err := c.as(t, ims.AccessKey(ak, sk, ""), "other").Images(t.Context(), nil); !errors.As(err, &e) || e.Code != "IMG.0067" {
		t.Errorf("wrong project: %v", err)
	}
	if _, err := c.as(t, ims.AccessKey(ak, sk, "STS"), project).Images(t.Context(), nil); !errors.Is(err, ims.ErrDenied) {
		t.Errorf("with a security token that isn't its own: %v", err)
	}
}
