package objectstore_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/signer"
	"golang.org/x/sync/errgroup"

	"imgferry/formats"
	"imgferry/sandbox/objectstore"
)

// These tests look at the store through somebody else's client.

const (
	testAccess = "AKIDEXAMPLE"
	testSecret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	testRegion = "cn-north-4"
	bucket     = "images"
)

var (
	_ formats.Source     = (*objectstore.Object)(nil)
	_ formats.HoleFinder = (*objectstore.Object)(nil)
)

// secretOf knows one permanent access key and two temporary ones, whose tokens are "token" and "old".
func secretOf(access, token string) (string, error) {
	switch {
	case access == testAccess && token == "", access == "TEMP" && token == "token":
		return testSecret, nil
	case access == "TEMP" && token == "old":
		return "", objectstore.ErrExpiredToken
	case token != "":
		return "", objectstore.ErrInvalidToken
	}
	return "", errors.New("nobody knows it")
}

func options() objectstore.Options {
	return objectstore.Options{
		Credentials: secretOf,
		Region:      testRegion,
		NoSync:      true,
		Logger:      slog.New(slog.DiscardHandler),
	}
}

// world is a store behind a server, with a client.
type world struct {
	*testing.T
	dir    string
	store  *objectstore.Store
	server *httptest.Server
	client *minio.Client
	core   minio.Core
	// busy is read-locked by each request until its handler is through, which may be after the client has its answer.
	busy sync.RWMutex
}

func newWorld(t *testing.T, change ...func(*objectstore.Options)) *world {
	w := &world{T: t, dir: t.TempDir()}
	w.start(change...)
	if err := w.store.CreateBucket(bucket); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.stop)
	return w
}

func (w *world) start(change ...func(*objectstore.Options)) {
	w.Helper()
	o := options()
	for _, c := range change {
		c(&o)
	}
	var err error
	if w.store, err = objectstore.Open(w.dir, o); err != nil {
		w.Fatal(err)
	}
	handler := w.store.Handler()
	w.server = httptest.NewServer(http.HandlerFunc(func(answer http.ResponseWriter, r *http.Request) {
		w.busy.RLock()
		defer w.busy.RUnlock()
		handler.ServeHTTP(answer, r)
	}))
	w.client = w.newClient(testAccess, testSecret)
	w.core = minio.Core{Client: w.client}
}

func (w *world) stop() {
	w.server.Close()
	if err := w.store.Close(); err != nil {
		w.Error(err)
	}
}

func (w *world) newClient(access, secret string) *minio.Client {
	w.Helper()
	return w.clientOf(credentials.NewStaticV4(access, secret, ""))
}

// newTemporary returns a client with a temporary key.
func (w *world) newTemporary(access, token string) *minio.Client {
	w.Helper()
	return w.clientOf(credentials.NewStaticV4(access, testSecret, token))
}

func (w *world) clientOf(who *credentials.Credentials) *minio.Client {
	w.Helper()
	c, err := minio.New(strings.TrimPrefix(w.server.URL, "http://"), &minio.Options{
		Creds:           who,
		Region:          testRegion,
		MaxRetries:      1,
		TrailingHeaders: true,
	})
	if err != nil {
		w.Fatal(err)
	}
	return c
}

// put stores an object as one request.
func (w *world) put(key string, data []byte, o minio.PutObjectOptions) minio.UploadInfo {
	w.Helper()
	o.DisableMultipart = true
	info, err := w.client.PutObject(w.Context(), bucket, key, bytes.NewReader(data), int64(len(data)), o)
	if err != nil {
		w.Fatalf("put %q: %v", key, err)
	}
	return info
}

func (w *world) get(key string) []byte {
	w.Helper()
	o, err := w.client.GetObject(w.Context(), bucket, key, minio.GetObjectOptions{})
	if err != nil {
		w.Fatal(err)
	}
	defer o.Close()
	p, err := io.ReadAll(o)
	if err != nil {
		w.Fatalf("get %q: %v", key, err)
	}
	return p
}

// wantCode fails unless err is the store's refusal of that code.
func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	if got := minio.ToErrorResponse(err).Code; err == nil || got != code {
		t.Errorf("got code %q (%v), want %s", got, err, code)
	}
}

// segments returns how many segment files there are.
func (w *world) segments() int {
	w.Helper()
	w.busy.Lock() // a request under way holds what it reads
	defer w.busy.Unlock()
	entries, err := os.ReadDir(filepath.Join(w.dir, "segments"))
	if err != nil {
		w.Fatal(err)
	}
	return len(entries)
}

func noise(seed uint64, n int) []byte {
	p := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1})
	r.Read(p)
	return p
}

func hexMD5(p []byte) string { return fmt.Sprintf("%x", md5.Sum(p)) }

func TestPutGet(t *testing.T) {
	w := newWorld(t)
	for _, n := range []int{0, 1, 4095, 4096, 4097, 65536, 256 << 10, 256<<10 + 1, 3<<20 + 17} {
		data := noise(uint64(n), n)
		key := fmt.Sprintf("put/%d", n)
		info := w.put(key, data, minio.PutObjectOptions{})
		if info.ETag != hexMD5(data) {
			t.Errorf("%d bytes: ETag %s, want %s", n, info.ETag, hexMD5(data))
		}
		if got := w.get(key); !bytes.Equal(got, data) {
			t.Errorf("%d bytes: read back differently", n)
		}
		st, err := w.client.StatObject(t.Context(), bucket, key, minio.StatObjectOptions{})
		if err != nil || st.Size != int64(n) || st.ETag != hexMD5(data) || st.ContentType != "application/octet-stream" {
			t.Errorf("%d bytes: stat %+v, %v", n, st, err)
		}
	}
}

// TestPayloadModes writes in each way in which the client can present a body.
func TestPayloadModes(t *testing.T) {
	w := newWorld(t)
	data := noise(1, 200<<10)
	for name, o := range map[string]minio.PutObjectOptions{
		"signed chunks":   {},
		"unsigned":        {DisableContentSha256: true},
		"content-md5":     {SendContentMd5: true},
		"trailing crc32":  {Checksum: minio.ChecksumCRC32},
		"trailing crc32c": {Checksum: minio.ChecksumCRC32C},
		"trailing crc64":  {Checksum: minio.ChecksumCRC64NVME},
		"trailing sha1":   {Checksum: minio.ChecksumSHA1},
		"trailing sha256": {Checksum: minio.ChecksumSHA256},
	} {
		t.Run(name, func(t *testing.T) {
			info := w.put(name, data, o)
			if !bytes.Equal(w.get(name), data) {
				t.Error("read back differently")
			}
			if o.Checksum.IsSet() {
				h := o.Checksum.Hasher()
				h.Write(data)
				want := b64(h.Sum(nil))
				st, err := w.client.StatObject(t.Context(), bucket, name, minio.StatObjectOptions{Checksum: true})
				got := map[string]string{"CRC32": st.ChecksumCRC32, "CRC32C": st.ChecksumCRC32C,
					"CRC64NVME": st.ChecksumCRC64NVME, "SHA1": st.ChecksumSHA1, "SHA256": st.ChecksumSHA256}[o.Checksum.String()]
				if err != nil || got != want {
					t.Errorf("checksum %q of put, %q of head (%v), want %q", info.ChecksumCRC32C, got, err, want)
				}
			}
		})
	}
	// A whole hash in the header.
	_, err := w.core.PutObject(t.Context(), bucket, "literal", bytes.NewReader(data), int64(len(data)), "",
		fmt.Sprintf("%x", sha256Sum(data)), minio.PutObjectOptions{})
	if err != nil || !bytes.Equal(w.get("literal"), data) {
		t.Errorf("literal hash: %v", err)
	}
}

func TestMultipart(t *testing.T) {
	w := newWorld(t)
	const mib = 1 << 20
	for i, sizes := range [][]int{
		{5 * mib},
		{5 * mib, 5 * mib, 1},
		{5*mib + 1, 7 * mib, 5 * mib, 6*mib + 4095, 12345},
		{9 * mib, 5 * mib, 8 * mib, 0},
	} {
		key := fmt.Sprintf("multi-%d", i)
		id, err := w.core.NewMultipartUpload(t.Context(), bucket, key, minio.PutObjectOptions{UserMetadata: map[string]string{"Size": "many"}})
		if err != nil {
			t.Fatal(err)
		}
		var whole []byte
		var sums []byte
		parts := make([]minio.CompletePart, len(sizes))
		var g errgroup.Group
		g.SetLimit(3)
		for j, n := range sizes {
			data := noise(uint64(i*100+j), n)
			whole = append(whole, data...)
			sum := md5.Sum(data)
			sums = append(sums, sum[:]...)
			g.Go(func() error {
				p, err := w.core.PutObjectPart(t.Context(), bucket, key, id, j*3+1, bytes.NewReader(data), int64(n), minio.PutObjectPartOptions{})
				if p.ETag != hexMD5(data) {
					t.Errorf("part %d: ETag %q", j, p.ETag)
				}
				parts[j] = minio.CompletePart{PartNumber: j*3 + 1, ETag: p.ETag}
				return err
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		info, err := w.core.CompleteMultipartUpload(t.Context(), bucket, key, id, parts, minio.PutObjectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("%x-%d", md5.Sum(sums), len(sizes)); info.ETag != want {
			t.Errorf("%s: ETag %s, want %s", key, info.ETag, want)
		}
		if !bytes.Equal(w.get(key), whole) {
			t.Errorf("%s: read back differently", key)
		}
		st, err := w.client.StatObject(t.Context(), bucket, key, minio.StatObjectOptions{})
		if err != nil || st.UserMetadata["Size"] != "many" {
			t.Errorf("%s: metadata %v, %v", key, st.UserMetadata, err)
		}
		_, err = w.core.CompleteMultipartUpload(t.Context(), bucket, key, id, parts, minio.PutObjectOptions{})
		wantCode(t, err, "NoSuchUpload")
	}
}

// TestMultipartAuto lets the client make the parts, with checksums of each kind.
func TestMultipartAuto(t *testing.T) {
	w := newWorld(t)
	data := noise(7, 11<<20)
	for name, o := range map[string]minio.PutObjectOptions{
		"default":              {},
		"composite sha256":     {Checksum: minio.ChecksumSHA256},
		"full crc32c":          {Checksum: minio.ChecksumFullObjectCRC32C},
		"full crc64nvme":       {Checksum: minio.ChecksumCRC64NVME},
		"unsigned content-md5": {DisableContentSha256: true, SendContentMd5: true},
	} {
		o.PartSize, o.NumThreads = 5<<20, 3
		for _, stream := range []bool{false, true} {
			src, size := io.Reader(bytes.NewReader(data)), int64(len(data))
			if stream {
				src, size = io.MultiReader(src), -1
			}
			if _, err := w.client.PutObject(t.Context(), bucket, name, src, size, o); err != nil {
				t.Fatalf("%s (stream %v): %v", name, stream, err)
			}
			if !bytes.Equal(w.get(name), data) {
				t.Errorf("%s: read back differently", name)
			}
		}
		if o.Checksum == minio.ChecksumCRC64NVME {
			h := o.Checksum.Hasher()
			h.Write(data)
			st, err := w.client.StatObject(t.Context(), bucket, name, minio.StatObjectOptions{Checksum: true})
			if want := b64(h.Sum(nil)); err != nil || st.ChecksumCRC64NVME != want || st.ChecksumMode != "FULL_OBJECT" {
				t.Errorf("%s: checksum %q (%s), want %q: %v", name, st.ChecksumCRC64NVME, st.ChecksumMode, want, err)
			}
		}
	}
}

func TestCompleteRefuses(t *testing.T) {
	w := newWorld(t)
	big, small := noise(1, 5<<20), noise(2, 1000)
	id, err := w.core.NewMultipartUpload(t.Context(), bucket, "k", minio.PutObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	etags := make(map[int]string)
	for n, data := range map[int][]byte{1: big, 2: small, 3: big, 4: small} {
		p, err := w.core.PutObjectPart(t.Context(), bucket, "k", id, n, bytes.NewReader(data), int64(len(data)), minio.PutObjectPartOptions{})
		if err != nil {
			t.Fatal(err)
		}
		etags[n] = p.ETag
	}
	complete := func(numbers ...int) error {
		var parts []minio.CompletePart
		for _, n := range numbers {
			parts = append(parts, minio.CompletePart{PartNumber: n, ETag: etags[n]})
		}
		_, err := w.core.CompleteMultipartUpload(t.Context(), bucket, "k", id, parts, minio.PutObjectOptions{})
		return err
	}
	wantCode(t, complete(1, 2, 3), "EntityTooSmall")
	wantCode(t, complete(3, 1), "InvalidPartOrder")
	wantCode(t, complete(1, 1), "InvalidPartOrder")
	wantCode(t, complete(1, 7), "InvalidPart")
	etags[3] = etags[2]
	wantCode(t, complete(1, 3), "InvalidPart")
	_, err = w.core.PutObjectPart(t.Context(), bucket, "k", id, 10001, bytes.NewReader(small), 1000, minio.PutObjectPartOptions{})
	wantCode(t, err, "InvalidArgument")
	_, err = w.core.PutObjectPart(t.Context(), bucket, "other", id, 1, bytes.NewReader(small), 1000, minio.PutObjectPartOptions{})
	wantCode(t, err, "NoSuchUpload")

	// The last write of a number wins, and unused parts leave nothing.
	if _, err := w.core.PutObjectPart(t.Context(), bucket, "k", id, 4, bytes.NewReader(big), 5<<20, minio.PutObjectPartOptions{}); err != nil {
		t.Fatal(err)
	}
	etags[4] = hexMD5(big)
	if err := complete(1, 4); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(w.get("k"), append(bytes.Clone(big), big...)) || w.segments() != 2 {
		t.Errorf("read back differently, or %d segments left", w.segments())
	}
	if err := w.store.RemoveObject(bucket, "k"); err != nil || w.segments() != 0 {
		t.Errorf("%d segments after delete, %v", w.segments(), err)
	}
}

func TestAbortAndListings(t *testing.T) {
	w := newWorld(t)
	var ids []string
	for i := range 5 {
		id, err := w.core.NewMultipartUpload(t.Context(), bucket, fmt.Sprintf("a/%d", i/2), minio.PutObjectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	for n := 1; n <= 25; n++ {
		if _, err := w.core.PutObjectPart(t.Context(), bucket, "a/0", ids[0], n, strings.NewReader("x"), 1, minio.PutObjectPartOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	var numbers []int
	for marker := 0; ; {
		res, err := w.core.ListObjectParts(t.Context(), bucket, "a/0", ids[0], marker, 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range res.ObjectParts {
			numbers = append(numbers, p.PartNumber)
		}
		if marker = res.NextPartNumberMarker; !res.IsTruncated {
			break
		}
	}
	if len(numbers) != 25 || numbers[24] != 25 {
		t.Errorf("parts %v", numbers)
	}
	var got []string
	for key, id := "", ""; ; {
		res, err := w.core.ListMultipartUploads(t.Context(), bucket, "a/", key, id, "", 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range res.Uploads {
			got = append(got, u.UploadID)
		}
		if key, id = res.NextKeyMarker, res.NextUploadIDMarker; !res.IsTruncated {
			break
		}
	}
	if strings.Join(got, " ") != strings.Join(ids, " ") {
		t.Errorf("uploads %v, want %v", got, ids)
	}
	res, err := w.core.ListMultipartUploads(t.Context(), bucket, "", "", "", "/", 100)
	if err != nil || len(res.Uploads) != 0 || len(res.CommonPrefixes) != 1 {
		t.Errorf("uploads by folder: %+v, %v", res, err)
	}
	for _, id := range ids {
		for i := range 3 {
			w.core.AbortMultipartUpload(t.Context(), bucket, fmt.Sprintf("a/%d", i), id)
		}
	}
	_, err = w.core.ListObjectParts(t.Context(), bucket, "a/0", ids[0], 0, 10)
	wantCode(t, err, "NoSuchUpload")
	if w.segments() != 0 {
		t.Errorf("%d segments after abort", w.segments())
	}
}

func TestRanges(t *testing.T) {
	w := newWorld(t)
	data := noise(3, 10000)
	w.put("k", data, minio.PutObjectOptions{})
	for header, want := range map[string][]byte{
		"bytes=0-0":                    data[:1],
		"bytes=100-199":                data[100:200],
		"bytes=9990-":                  data[9990:],
		"bytes=9990-20000":             data[9990:],
		"bytes=-10":                    data[9990:],
		"bytes=-20000":                 data,
		"bytes=0-1,5-6":                data, // several: S3 sends all
		"bytes=5-2":                    data,
		"bytes=-99999999999999999999":  data,
		"bytes=9-99999999999999999999": data[9:],
		"bytes=99999999999999999999-":  nil,
		"pages=1-2":                    data,
		"bytes=10000-":                 nil,
		"bytes=20000-30000":            nil,
		"bytes=-0":                     nil,
	} {
		o := minio.GetObjectOptions{}
		o.Set("Range", header)
		r, _, _, err := w.core.GetObject(t.Context(), bucket, "k", o)
		if want == nil {
			wantCode(t, err, "InvalidRange")
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", header, err)
		}
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v; want %d", header, len(got), err, len(want))
		}
	}
}

// TestHugeRangeIsPartial: a last position beyond what an int64 holds is a range all the same.
func TestHugeRangeIsPartial(t *testing.T) {
	w := newWorld(t)
	w.put("k", []byte("0123456789"), minio.PutObjectOptions{})
	for _, header := range []string{"bytes=0-99999999999999999999", "bytes=-99999999999999999999"} {
		r := w.send(w.signed("GET", "/images/k", "UNSIGNED-PAYLOAD", nil, map[string]string{"Range": header}))
		if r.StatusCode != 206 || r.Header.Get("Content-Range") != "bytes 0-9/10" || r.text != "0123456789" {
			t.Errorf("%s: %d %v %q", header, r.StatusCode, r.Header, r.text)
		}
	}
}

// TestPartNumber reads single parts of objects, as clients do that fetch in the pieces of the upload.
func TestPartNumber(t *testing.T) {
	w := newWorld(t, func(o *objectstore.Options) { o.MinPartSize = 1 })
	id, err := w.core.NewMultipartUpload(t.Context(), bucket, "m", minio.PutObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var parts []minio.CompletePart
	for n, text := range map[int]string{1: "first", 4: "fourth", 9: "ninth part"} {
		p, err := w.core.PutObjectPart(t.Context(), bucket, "m", id, n, strings.NewReader(text), int64(len(text)), minio.PutObjectPartOptions{})
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, minio.CompletePart{PartNumber: n, ETag: p.ETag})
	}
	slices.SortFunc(parts, func(a, b minio.CompletePart) int { return a.PartNumber - b.PartNumber })
	if _, err := w.core.CompleteMultipartUpload(t.Context(), bucket, "m", id, parts, minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.CopyObject(t.Context(), minio.CopyDestOptions{Bucket: bucket, Object: "copy"}, minio.CopySrcOptions{Bucket: bucket, Object: "m"}); err != nil {
		t.Fatal(err)
	}
	w.put("k", []byte("whole"), minio.PutObjectOptions{})
	w.put("empty", nil, minio.PutObjectOptions{})
	w.stop()
	w.start() // part sizes are kept
	for _, c := range []struct {
		target, contentRange, count, text string
		status                            int
	}{
		{"m?partNumber=1", "bytes 0-4/21", "3", "first", 206}, {"m?partNumber=2", "bytes 5-10/21", "3", "fourth", 206},
		{"m?partNumber=3", "bytes 11-20/21", "3", "ninth part", 206}, {"copy?partNumber=2", "bytes 5-10/21", "3", "fourth", 206},
		{"k?partNumber=1", "bytes 0-4/5", "", "whole", 206}, {"empty?partNumber=1", "", "", "", 200},
		{"m?partNumber=4", "bytes */21", "3", "InvalidPartNumber", 416}, {"k?partNumber=2", "bytes */5", "", "InvalidPartNumber", 416},
		{"k?partNumber=0", "", "", "InvalidArgument", 400}, {"k?partNumber=x", "", "", "InvalidArgument", 400},
	} {
		r := w.send(w.signed("GET", "/images/"+c.target, "UNSIGNED-PAYLOAD", nil, nil))
		if r.StatusCode != c.status || r.Header.Get("Content-Range") != c.contentRange || r.Header.Get("X-Amz-Mp-Parts-Count") != c.count || !strings.Contains(r.text, c.text) {
			t.Errorf("GET %s: %d %v %s", c.target, r.StatusCode, r.Header, r.text)
		}
		h := w.send(w.signed("HEAD", "/images/"+c.target, "UNSIGNED-PAYLOAD", nil, nil))
		if h.StatusCode != c.status || c.status < 300 && h.ContentLength != int64(len(c.text)) {
			t.Errorf("HEAD %s: %d, %d bytes", c.target, h.StatusCode, h.ContentLength)
		}
	}
	r := w.send(w.signed("GET", "/images/m?partNumber=1", "UNSIGNED-PAYLOAD", nil, map[string]string{"Range": "bytes=0-1"}))
	w.wantReply("range and part", r, 400, "InvalidRequest")
}

func TestConditions(t *testing.T) {
	w := newWorld(t)
	info := w.put("k", []byte("one"), minio.PutObjectOptions{})
	stat := func(set func(*minio.StatObjectOptions)) error {
		var o minio.StatObjectOptions
		set(&o)
		_, err := w.client.StatObject(t.Context(), bucket, "k", o)
		return err
	}
	hour := time.Hour
	for name, c := range map[string]struct {
		set    func(*minio.StatObjectOptions)
		status int
	}{
		"match":              {func(o *minio.StatObjectOptions) { o.SetMatchETag(info.ETag) }, 0},
		"other match":        {func(o *minio.StatObjectOptions) { o.SetMatchETag("x") }, 412},
		"none match":         {func(o *minio.StatObjectOptions) { o.SetMatchETagExcept(info.ETag) }, 304},
		"other none match":   {func(o *minio.StatObjectOptions) { o.SetMatchETagExcept("x") }, 0},
		"modified since":     {func(o *minio.StatObjectOptions) { o.SetModified(time.Now().Add(-hour)) }, 0},
		"not modified since": {func(o *minio.StatObjectOptions) { o.SetModified(time.Now().Add(hour)) }, 304},
		"unmodified since":   {func(o *minio.StatObjectOptions) { o.SetUnmodified(time.Now().Add(hour)) }, 0},
		"not unmodified":     {func(o *minio.StatObjectOptions) { o.SetUnmodified(time.Now().Add(-hour)) }, 412},
	} {
		err := stat(c.set)
		if got := minio.ToErrorResponse(err).StatusCode; (err == nil) != (c.status == 0) || got != c.status {
			t.Errorf("%s: status %d (%v), want %d", name, got, err, c.status)
		}
	}
	var o minio.PutObjectOptions
	o.SetMatchETagExcept("*")
	_, err := w.client.PutObject(t.Context(), bucket, "k", strings.NewReader("two"), 3, o)
	wantCode(t, err, "PreconditionFailed")
	if _, err := w.client.PutObject(t.Context(), bucket, "new", strings.NewReader("two"), 3, o); err != nil {
		t.Error(err)
	}
	if w.segments() != 2 {
		t.Errorf("%d segments", w.segments())
	}
}

func TestMetadata(t *testing.T) {
	w := newWorld(t)
	w.put("k", []byte("data"), minio.PutObjectOptions{
		UserMetadata:       map[string]string{"Digest": "abc", "imgferry-format": "zvhd2 über"},
		ContentType:        "text/x-test",
		ContentEncoding:    "gzip",
		ContentDisposition: `attachment; filename="x"`,
		CacheControl:       "no-cache",
		ContentLanguage:    "de",
		StorageClass:       "WARM",
		UserTags:           map[string]string{"a": "1", "b b": "x=+y"},
	})
	st, err := w.client.StatObject(t.Context(), bucket, "k", minio.StatObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"Content-Type": "text/x-test", "Content-Encoding": "gzip", "Content-Disposition": `attachment; filename="x"`,
		"Cache-Control": "no-cache", "Content-Language": "de", "X-Amz-Storage-Class": "WARM",
	} {
		if got := st.Metadata.Get(name); got != want && !(name == "Content-Type" && st.ContentType == want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if st.UserMetadata["Digest"] != "abc" || len(st.UserMetadata) != 2 {
		t.Errorf("metadata %q", st.UserMetadata)
	}
	tags, err := w.client.GetObjectTagging(t.Context(), bucket, "k", minio.GetObjectTaggingOptions{})
	if err != nil || len(tags.ToMap()) != 2 || tags.ToMap()["b b"] != "x=+y" {
		t.Errorf("tags %v, %v", tags, err)
	}
	if err := w.client.RemoveObjectTagging(t.Context(), bucket, "k", minio.RemoveObjectTaggingOptions{}); err != nil {
		t.Error(err)
	}

	// Copy onto itself changes metadata and nothing else.
	before := w.segments()
	_, err = w.client.CopyObject(t.Context(),
		minio.CopyDestOptions{Bucket: bucket, Object: "k", ReplaceMetadata: true, UserMetadata: map[string]string{"new": "1"}},
		minio.CopySrcOptions{Bucket: bucket, Object: "k"})
	if err != nil {
		t.Fatal(err)
	}
	o, err := w.store.OpenObject(bucket, "k")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if m := o.Metadata(); len(m) != 1 || m["new"] != "1" || o.ETag() != hexMD5([]byte("data")) || w.segments() != before {
		t.Errorf("after copy: %q, %s, %d segments", m, o.ETag(), w.segments())
	}
	_, err = w.client.CopyObject(t.Context(), minio.CopyDestOptions{Bucket: bucket, Object: "k"}, minio.CopySrcOptions{Bucket: bucket, Object: "k"})
	wantCode(t, err, "InvalidRequest")
	_, err = w.client.PutObject(t.Context(), bucket, "big", strings.NewReader(""), 0,
		minio.PutObjectOptions{UserMetadata: map[string]string{"long": strings.Repeat("x", 9000)}})
	wantCode(t, err, "MetadataTooLarge")
}

func TestCopy(t *testing.T) {
	w := newWorld(t)
	if err := w.store.CreateBucket("other"); err != nil {
		t.Fatal(err)
	}
	data := noise(4, 12<<20)
	w.put("dir/a b+c%20ü", data, minio.PutObjectOptions{UserMetadata: map[string]string{"a": "1"}})
	if _, err := w.client.CopyObject(t.Context(),
		minio.CopyDestOptions{Bucket: "other", Object: "copy"},
		minio.CopySrcOptions{Bucket: bucket, Object: "dir/a b+c%20ü"}); err != nil {
		t.Fatal(err)
	}
	if err := w.client.RemoveObject(t.Context(), bucket, "dir/a b+c%20ü", minio.RemoveObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	st, err := w.client.StatObject(t.Context(), "other", "copy", minio.StatObjectOptions{})
	if err != nil || st.ETag != hexMD5(data) || st.UserMetadata["A"] != "1" || w.segments() != 1 {
		t.Fatalf("copy without its source: %+v, %v, %d segments", st, err, w.segments())
	}
	// The parts of an object made of pieces of another.
	id, err := w.core.NewMultipartUpload(t.Context(), bucket, "pieces", minio.PutObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var parts []minio.CompletePart
	var want []byte
	for i, r := range [][2]int64{{0, 6 << 20}, {100, 5 << 20}, {7 << 20, 5 << 20}} {
		p, err := w.core.CopyObjectPart(t.Context(), "other", "copy", bucket, "pieces", id, i+1, r[0], r[1], nil)
		if err != nil {
			t.Fatal(err)
		}
		piece := data[r[0] : r[0]+r[1]]
		if strings.Trim(p.ETag, `"`) != hexMD5(piece) {
			t.Errorf("piece %d: ETag %s", i, p.ETag)
		}
		want = append(want, piece...)
		parts = append(parts, p)
	}
	_, err = w.core.CopyObjectPart(t.Context(), "other", "copy", bucket, "pieces", id, 4, 11<<20, 2<<20, nil)
	wantCode(t, err, "InvalidArgument")
	if _, err := w.core.CompleteMultipartUpload(t.Context(), bucket, "pieces", id, parts, minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	if w.segments() != 1 {
		t.Errorf("%d segments: copies were not shared", w.segments())
	}
	if err := w.store.RemoveObject("other", "copy"); err != nil || w.segments() != 1 {
		t.Errorf("%d segments, %v", w.segments(), err)
	}
	if !bytes.Equal(w.get("pieces"), want) {
		t.Error("pieces read back differently")
	}
	w.stop()
	w.start() // the references are counted anew
	if !bytes.Equal(w.get("pieces"), want) {
		t.Error("pieces read back differently after restart")
	}
	if err := w.store.RemoveObject(bucket, "pieces"); err != nil || w.segments() != 0 {
		t.Errorf("%d segments, %v", w.segments(), err)
	}
}

func TestListing(t *testing.T) {
	w := newWorld(t)
	want := make(map[string]bool)
	for i := range 1100 {
		key := fmt.Sprintf("d%d/k %04d&<ü>", i%11, i)
		want[key] = true
		if _, err := w.store.PutObject(t.Context(), bucket, key, strings.NewReader(""), nil); err != nil {
			t.Fatal(err)
		}
	}
	for name, o := range map[string]minio.ListObjectsOptions{
		"v1":       {Recursive: true, UseV1: true},
		"v2":       {Recursive: true},
		"v1 pages": {Recursive: true, UseV1: true, MaxKeys: 7},
		"v2 pages": {Recursive: true, MaxKeys: 7},
	} {
		got := make(map[string]bool)
		last := ""
		for obj := range w.client.ListObjects(t.Context(), bucket, o) {
			if obj.Err != nil {
				t.Fatalf("%s: %v", name, obj.Err)
			}
			if obj.Key <= last {
				t.Fatalf("%s: %q after %q", name, obj.Key, last)
			}
			last = obj.Key
			got[obj.Key] = want[obj.Key]
		}
		if len(got) != 1100 {
			t.Errorf("%s: %d keys", name, len(got))
		}
	}
	for _, v1 := range []bool{true, false} {
		var got []string
		for obj := range w.client.ListObjects(t.Context(), bucket, minio.ListObjectsOptions{UseV1: v1, MaxKeys: 2}) {
			got = append(got, obj.Key)
		}
		if strings.Join(got, " ") != "d0/ d1/ d10/ d2/ d3/ d4/ d5/ d6/ d7/ d8/ d9/" {
			t.Errorf("folders %q", got)
		}
		n := 0
		for obj := range w.client.ListObjects(t.Context(), bucket, minio.ListObjectsOptions{UseV1: v1, Prefix: "d10/", StartAfter: "d10/k 0600"}) {
			if obj.Key < "d10/k 0600" {
				t.Errorf("%q", obj.Key)
			}
			n++
		}
		if n != 46 && !v1 { // the client has no start for version 1
			t.Errorf("%d keys behind d10/k 0600", n)
		}
	}
	// Delete them all, in batches of 1,000.
	keys := make(chan minio.ObjectInfo, len(want))
	for key := range want {
		keys <- minio.ObjectInfo{Key: key}
	}
	close(keys)
	for e := range w.client.RemoveObjects(t.Context(), bucket, keys, minio.RemoveObjectsOptions{}) {
		t.Errorf("%+v", e)
	}
	if err := w.client.RemoveBucket(t.Context(), bucket); err != nil {
		t.Error(err)
	}
}

func TestBuckets(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	if err := w.client.MakeBucket(ctx, "con", minio.MakeBucketOptions{Region: testRegion}); err != nil {
		t.Fatal(err)
	}
	wantCode(t, w.client.MakeBucket(ctx, "con", minio.MakeBucketOptions{Region: testRegion}), "BucketAlreadyOwnedByYou")
	if !errors.Is(w.store.CreateBucket("con"), objectstore.ErrBucketExists) {
		t.Error("no ErrBucketExists")
	}
	for _, name := range []string{"a", "Upper", "..", "a..b", "-ab", "ab-", "10.0.0.1", "a/b", strings.Repeat("a", 64), "a\x00b"} {
		if err := w.store.CreateBucket(name); err == nil {
			t.Errorf("bucket %q was made", name)
		}
	}
	for name, want := range map[string]bool{"con": true, "nothere": false} {
		if got, err := w.client.BucketExists(ctx, name); err != nil || got != want {
			t.Errorf("%s exists: %v, %v", name, got, err)
		}
	}
	list, err := w.client.ListBuckets(ctx)
	if err != nil || len(list) != 2 || list[0].Name != "con" || list[0].CreationDate.IsZero() {
		t.Errorf("%+v, %v", list, err)
	}
	if loc, err := w.client.GetBucketLocation(ctx, "con"); err != nil || loc != testRegion {
		t.Errorf("%q, %v", loc, err)
	}
	w.put("k", []byte("x"), minio.PutObjectOptions{})
	wantCode(t, w.client.RemoveBucket(ctx, bucket), "BucketNotEmpty")
	wantCode(t, w.client.RemoveBucket(ctx, "nothere"), "NoSuchBucket")
	// An upload does not keep a bucket, and goes with it.
	id, _ := w.core.NewMultipartUpload(ctx, "con", "k", minio.PutObjectOptions{})
	if _, err := w.core.PutObjectPart(ctx, "con", "k", id, 1, strings.NewReader("part"), 4, minio.PutObjectPartOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := w.client.RemoveBucket(ctx, "con"); err != nil {
		t.Error(err)
	}
	_, err = w.core.PutObjectPart(ctx, "con", "k", id, 2, strings.NewReader("part"), 4, minio.PutObjectPartOptions{})
	wantCode(t, err, "NoSuchBucket")
	if w.segments() != 1 {
		t.Errorf("%d segments", w.segments())
	}
	_, err = w.client.PutObject(ctx, "nothere", "k", strings.NewReader("x"), 1, minio.PutObjectOptions{})
	wantCode(t, err, "NoSuchBucket")
	_, err = w.client.StatObject(ctx, bucket, "nothere", minio.StatObjectOptions{})
	wantCode(t, err, "NoSuchKey")
}

// TestOddKeys stores keys that would be trouble as file names.
func TestOddKeys(t *testing.T) {
	w := newWorld(t)
	keys := []string{
		"a", "A", "a/", "a//", "a//b", "b/../../../etc/passwd", "/leading", "//", "..", ".", "../x", "con", "nul.txt",
		"tab\tnew\nline", "\x01", "\xff\xfe", "ü", "u\u0308", "a b+c%2F", "%00", "?x=1", "#", "trailing ", "trailing.",
		strings.Repeat("k", 1024), `back\slash`, "*", ":stream", "x\u2028",
	}
	for _, key := range keys {
		if _, err := w.store.PutObject(t.Context(), bucket, key, strings.NewReader(key), nil); err != nil {
			t.Errorf("%q: %v", key, err)
		}
	}
	w.stop()
	w.start()
	for _, key := range keys {
		o, err := w.store.OpenObject(bucket, key)
		if err != nil {
			t.Errorf("%q: %v", key, err)
			continue
		}
		p := make([]byte, o.Size())
		if err := formats.ReadFull(o, p, 0); err != nil || string(p) != key {
			t.Errorf("%q: %q, %v", key, p, err)
		}
		o.Close()
	}
	for _, key := range []string{"", "nul\x00", strings.Repeat("k", 1025)} {
		if _, err := w.store.PutObject(t.Context(), bucket, key, strings.NewReader(key), nil); err == nil {
			t.Errorf("%.10q... was taken", key)
		}
	}
	// Nothing but what the layout says lies outside.
	entries, err := os.ReadDir(w.dir)
	if err != nil || len(entries) != 5 {
		t.Errorf("%v, %v", entries, err)
	}
	// Over HTTP, as far as the client lets them through.
	for _, key := range []string{"a//b", "ü", "a b+c%2F", "%00", "tab\tnew\nline", "*", ":stream", "trailing ", "?x=1", "#"} {
		w.put(key, []byte("http "+key), minio.PutObjectOptions{})
		if got := w.get(key); string(got) != "http "+key {
			t.Errorf("%q: %q", key, got)
		}
	}
}

func TestCredentials(t *testing.T) {
	w := newWorld(t)
	_, err := w.newClient("nobody", testSecret).ListBuckets(t.Context())
	wantCode(t, err, "InvalidAccessKeyId")
	_, err = w.newClient(testAccess, "wrong").ListBuckets(t.Context())
	wantCode(t, err, "SignatureDoesNotMatch")
	_, err = w.newClient(testAccess, "wrong").PutObject(t.Context(), bucket, "k", bytes.NewReader(noise(1, 3<<20)), 3<<20, minio.PutObjectOptions{})
	wantCode(t, err, "SignatureDoesNotMatch")
	_, err = w.newClient("", "").ListBuckets(t.Context())
	wantCode(t, err, "AccessDenied")
	for _, c := range []struct{ access, token, code string }{
		{"TEMP", "", "InvalidAccessKeyId"}, {"TEMP", "old", "ExpiredToken"}, {"TEMP", "other", "InvalidToken"}, {testAccess, "token", "InvalidToken"},
	} {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", w.server.URL+"/images?location", nil)
		req.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
		r := w.send(signer.SignV4(*req, c.access, testSecret, c.token, testRegion))
		if r.code() != c.code {
			t.Errorf("%s with token %q: %d %s", c.access, c.token, r.StatusCode, r.text)
		}
		presigned, err := w.newTemporary(c.access, c.token).PresignedGetObject(t.Context(), bucket, "k", time.Hour, nil)
		if err != nil {
			t.Fatal(err)
		}
		if r := w.do("GET", presigned.String(), "", nil); r.code() != c.code {
			t.Errorf("presigned by %s with token %q: %d %s", c.access, c.token, r.StatusCode, r.text)
		}
	}
	if _, err := w.newTemporary("TEMP", "token").ListBuckets(t.Context()); err != nil {
		t.Error(err)
	}
	// A token that is there must be signed.
	req := w.signed("GET", "/images?location", "UNSIGNED-PAYLOAD", nil, nil)
	req.Header.Set("X-Amz-Security-Token", "token")
	if r := w.send(req); r.code() == "" {
		t.Errorf("token added later: %d", r.StatusCode)
	}
	if w.segments() != 0 {
		t.Error("something was stored")
	}
}

func TestSkew(t *testing.T) {
	for _, skew := range []time.Duration{-16 * time.Minute, 16 * time.Minute, 14 * time.Minute, -14 * time.Minute} {
		w := newWorld(t, func(o *objectstore.Options) { o.Now = func() time.Time { return time.Now().Add(skew) } })
		_, err := w.client.ListBuckets(t.Context())
		if skew.Abs() < 15*time.Minute {
			// A date in the credential that is not the request's would be refused near midnight, but
			// both are the client's.
			if err != nil {
				t.Errorf("%v: %v", skew, err)
			}
			continue
		}
		wantCode(t, err, "RequestTimeTooSkewed")
	}
}

func TestPresigned(t *testing.T) {
	now := time.Now()
	w := newWorld(t, func(o *objectstore.Options) { o.Now = func() time.Time { return now } })
	put, err := w.client.PresignedPutObject(t.Context(), bucket, "signed url", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	get, err := w.client.PresignedGetObject(t.Context(), bucket, "signed url", time.Hour, map[string][]string{"response-content-type": {"x/y"}})
	if err != nil {
		t.Fatal(err)
	}
	if res := w.do("PUT", put.String(), "hello", nil); res.StatusCode != 200 {
		t.Fatalf("%d %s", res.StatusCode, res.text)
	}
	if res := w.do("GET", get.String(), "", nil); res.text != "hello" || res.Header.Get("Content-Type") != "x/y" {
		t.Errorf("%d %s %v", res.StatusCode, res.text, res.Header)
	}
	if res := w.do("PUT", get.String(), "hello", nil); res.StatusCode != 403 {
		t.Errorf("another method: %d", res.StatusCode)
	}
	if res := w.do("GET", get.String()+"&versionId=null", "", nil); res.StatusCode != 403 {
		t.Errorf("another query: %d", res.StatusCode)
	}
	now = now.Add(2 * time.Hour)
	if res := w.do("GET", get.String(), "", nil); res.StatusCode != 403 || !strings.Contains(res.text, "expired") {
		t.Errorf("expired: %d %s", res.StatusCode, res.text)
	}
}

func TestPersistence(t *testing.T) {
	w := newWorld(t, func(o *objectstore.Options) { o.NoSync = false })
	data := noise(9, 6<<20)
	w.put("whole", data, minio.PutObjectOptions{UserMetadata: map[string]string{"a": "b"}, UserTags: map[string]string{"t": "1"}})
	id, err := w.core.NewMultipartUpload(t.Context(), bucket, "later", minio.PutObjectOptions{ContentType: "x/later"})
	if err != nil {
		t.Fatal(err)
	}
	p1, err := w.core.PutObjectPart(t.Context(), bucket, "later", id, 1, bytes.NewReader(data), int64(len(data)), minio.PutObjectPartOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.stop()
	w.start()
	if !bytes.Equal(w.get("whole"), data) {
		t.Error("object read back differently")
	}
	st, err := w.client.StatObject(t.Context(), bucket, "whole", minio.StatObjectOptions{})
	if err != nil || st.UserMetadata["A"] != "b" || st.UserTagCount != 1 || st.ETag != hexMD5(data) {
		t.Errorf("%+v, %v", st, err)
	}
	res, err := w.core.ListObjectParts(t.Context(), bucket, "later", id, 0, 10)
	if err != nil || len(res.ObjectParts) != 1 || strings.Trim(res.ObjectParts[0].ETag, `"`) != p1.ETag {
		t.Fatalf("%+v, %v", res, err)
	}
	p2, err := w.core.PutObjectPart(t.Context(), bucket, "later", id, 2, strings.NewReader("end"), 3, minio.PutObjectPartOptions{})
	if err != nil {
		t.Fatal(err)
	}
	parts := []minio.CompletePart{{PartNumber: 1, ETag: p1.ETag}, {PartNumber: 2, ETag: p2.ETag}}
	if _, err := w.core.CompleteMultipartUpload(t.Context(), bucket, "later", id, parts, minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	w.stop()
	w.start()
	if !bytes.Equal(w.get("later"), append(bytes.Clone(data), "end"...)) {
		t.Error("completed object read back differently")
	}
}

func TestLock(t *testing.T) {
	w := newWorld(t)
	if _, err := objectstore.Open(w.dir, options()); !errors.Is(err, objectstore.ErrLocked) {
		t.Errorf("second Open: %v", err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.txt"), []byte("mine"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := objectstore.Open(dir, options()); err == nil || !strings.Contains(err.Error(), "thesis.txt") {
		t.Errorf("Open of somebody's directory: %v", err)
	}
}

// TestReaderSurvives overwrites and deletes an object while it is read.
func TestReaderSurvives(t *testing.T) {
	w := newWorld(t)
	first, second := noise(1, 1<<20), noise(2, 1<<20)
	w.put("k", first, minio.PutObjectOptions{})
	o, err := w.store.OpenObject(bucket, "k")
	if err != nil {
		t.Fatal(err)
	}
	id := o.Identity()
	w.put("k", second, minio.PutObjectOptions{})
	if err := w.store.RemoveObject(bucket, "k"); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, len(first))
	if err := formats.ReadFull(o, p, 0); err != nil || !bytes.Equal(p, first) || o.Identity() != id {
		t.Errorf("the reader was disturbed: %v", err)
	}
	if n, err := o.ReadAt(p[:10], o.Size()-4); n != 4 || err != io.EOF {
		t.Errorf("read at the end: %d, %v", n, err)
	}
	if w.segments() != 1 {
		t.Errorf("%d segments while it is read", w.segments())
	}
	if err := o.Close(); err != nil || w.segments() != 0 {
		t.Errorf("%d segments after Close, %v", w.segments(), err)
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	if _, err := w.store.OpenObject(bucket, "k"); !errors.Is(err, objectstore.ErrNoSuchKey) {
		t.Error(err)
	}
	if _, err := w.store.OpenObject("nothere", "k"); !errors.Is(err, objectstore.ErrNoSuchBucket) {
		t.Error(err)
	}
}

func TestPutObjectStops(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	r := readerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil })
	if _, err := w.store.PutObject(ctx, bucket, "k", r, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled put: %v", err)
	}
	lost := errors.New("lost")
	r = func(p []byte) (int, error) { p[0] = 1; return 1, lost }
	if _, err := w.store.PutObject(t.Context(), bucket, "k", r, nil); !errors.Is(err, lost) {
		t.Errorf("failing put: %v", err)
	}
	if w.segments() != 0 {
		t.Errorf("%d segments left", w.segments())
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
