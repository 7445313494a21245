package obs_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"imgferry/sandbox"
	"imgferry/sandbox/objectstore"
	"imgferry/upload"
	"imgferry/upload/obs"
)

// These tests run against a whole store behind a real connection.

// partSize of the objects sent here, in bytes.
const partSize = 128 << 10 // above the least that OBS takes

// serve starts a store with one bucket, with its requests going through wrap.
func serve(t *testing.T, options objectstore.Options, wrap func(http.Handler) http.Handler) (*objectstore.Store, *httptest.Server) {
	t.Helper()
	options.NoSync = true
	options.MinPartSize = 1
	options.Credentials = func(key, token string) (string, error) {
		if key != accessKey || token != "" {
			return "", errors.New("unknown")
		}
		return secretKey, nil
	}
	store, err := objectstore.Open(t.TempDir(), options)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(wrap(store.Handler()))
	t.Cleanup(func() {
		server.Close()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := store.CreateBucket("bucket"); err != nil {
		t.Fatal(err)
	}
	return store, server
}

func plain(h http.Handler) http.Handler { return h }

func noToken(c *obs.Config) { c.SecurityToken = "" }

// send uploads data as a stream of chunks through the whole package.
func send(ctx context.Context, b upload.Bucket, key string, data []byte, raw bool) (upload.Result, error) {
	config := upload.Config{
		Store: b, Key: key,
		Metadata: upload.Metadata{"format": "zvhd2", "digest": "d"},
		Retry:    upload.Policy{Base: time.Millisecond, Max: time.Millisecond},
	}
	if raw {
		count := (len(data) + partSize - 1) / partSize
		return upload.Send(ctx, config, upload.RawPlan{Size: int64(len(data)), PartSize: partSize, Count: count}.Parts(bytes.NewReader(data)))
	}
	config.Buffers = 4
	g, ctx := errgroup.WithContext(ctx)
	w := upload.NewPartWriter(ctx, upload.Plan{PartSize: partSize, BufferSize: partSize + 1000, Buffers: 4})
	g.Go(func() error {
		for rest := data; len(rest) > 0; {
			n := min(1000, len(rest))
			if _, err := w.Write(rest[:n]); err != nil {
				w.Fail(err)
				return err
			}
			rest = rest[n:]
		}
		return w.Close()
	})
	var result upload.Result
	var err error
	g.Go(func() error {
		result, err = upload.Send(ctx, config, w.Parts)
		return err
	})
	g.Wait()
	return result, err
}

func noise(n int) []byte {
	data := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(data)
	return data
}

// checkObject compares what the store has with data.
func checkObject(t *testing.T, store *objectstore.Store, key string, data []byte, etag string) {
	t.Helper()
	o, err := store.OpenObject("bucket", key)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	got, err := io.ReadAll(io.NewSectionReader(o, 0, o.Size()))
	if err != nil || !bytes.Equal(got, data) || o.ETag() != etag {
		t.Errorf("object of %d bytes, ETag %s (want %s), %v", len(got), o.ETag(), etag, err)
	}
}

// place is a store that the suite runs against.
type place struct {
	// open returns its bucket, with changes to the settings.
	open func(t *testing.T, change ...func(*obs.Config)) *obs.Bucket
	// check compares what it has with data.
	check func(t *testing.T, key string, data []byte, etag string)
	// lastPart is the number of the last of many parts. Above 1,000 the store lists several pages.
	lastPart int
}

// places are a plain S3 store over HTTP, and one that imitates OBS in all that is known of it: HTTPS with an
// authority of its own, buckets in host names only, no payload hashes, no trailers, no tiny parts.
var places = map[string]func(*testing.T) place{
	"S3": func(t *testing.T) place {
		store, server := serve(t, objectstore.Options{Region: "test-1"}, plain)
		return place{
			open: func(t *testing.T, change ...func(*obs.Config)) *obs.Bucket {
				return bucket(t, server, append(change, noToken)...)
			},
			check: func(t *testing.T, key string, data []byte, etag string) {
				t.Helper()
				checkObject(t, store, key, data, etag)
			},
			lastPart: 1003,
		}
	},
	"OBS": func(t *testing.T) place {
		box, err := sandbox.Start(t.Context(), sandbox.Config{
			DataDir: t.TempDir(), Imitate: sandbox.OBS, RefusePayloadHash: true,
			AccessKey: accessKey, SecretKey: secretKey, Region: "test-1", Bucket: "bucket",
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := box.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
		p := place{lastPart: 5}
		p.open = func(t *testing.T, change ...func(*obs.Config)) *obs.Bucket {
			trusted := x509.NewCertPool()
			if !trusted.AppendCertsFromPEM(box.Certificate()) {
				t.Fatal("no certificate")
			}
			transport := obs.NewTransport(0)
			t.Cleanup(transport.CloseIdleConnections)
			transport.TLSClientConfig = &tls.Config{RootCAs: trusted}
			c := func(c *obs.Config) { c.Endpoint, c.Transport = box.StoreEndpoint(), transport }
			return bucket(t, new(httptest.Server), append([]func(*obs.Config){c, noToken}, change...)...)
		}
		p.check = func(t *testing.T, key string, data []byte, etag string) {
			t.Helper()
			b := p.open(t)
			object, err := b.Stat(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			r, err := b.Get(t.Context(), key, 0, object.Size, "")
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) || object.ETag != etag {
				t.Errorf("object of %d bytes, ETag %s (want %s), %v", len(got), object.ETag, etag, err)
			}
		}
		return p
	},
}

func inPlaces(t *testing.T, test func(*testing.T, place)) {
	for name, start := range places {
		t.Run(name, func(t *testing.T) { test(t, start(t)) })
	}
}

// Everything that is done with objects.
func TestStore(t *testing.T) {
	inPlaces(t, func(t *testing.T, p place) {
		b, check := p.open(t), func(key string, data []byte, etag string) {
			t.Helper()
			p.check(t, key, data, etag)
		}
		ctx := t.Context()
		if err := b.CheckBucket(ctx); err != nil {
			t.Error(err)
		}
		for _, raw := range []bool{false, true} {
			key := fmt.Sprintf("disks/ä +%t", raw)
			data := noise(10*partSize + 5)
			result, err := send(ctx, b, key, data, raw)
			if err != nil || result.Sent != int64(len(data)) {
				t.Fatalf("%+v, %v", result, err)
			}
			check(key, data, result.ETag)

			object, err := b.Stat(ctx, key)
			if err != nil || object.Size != int64(len(data)) || object.ETag != result.ETag || object.Metadata["digest"] != "d" || object.Modified.IsZero() {
				t.Errorf("%+v, %v", object, err)
			}
			if _, err := b.SetMetadata(ctx, object, upload.Metadata{"digest": "new", "level": "3"}); err != nil {
				t.Error(err)
			}
			object, err = b.Stat(ctx, key)
			if err != nil || object.Size != int64(len(data)) || len(object.Metadata) != 2 || object.Metadata["digest"] != "new" {
				t.Errorf("%+v, %v", object, err)
			}
			r, err := b.Get(ctx, key, 70_000, 1000, "")
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			r.Close()
			if err != nil || !bytes.Equal(got, data[70_000:71_000]) {
				t.Errorf("range of %d bytes, %v", len(got), err)
			}
			if _, err := b.Get(ctx, key, int64(len(data)), 1, ""); err == nil {
				t.Error("a range past the end was read")
			}
			if err := errors.Join(b.Remove(ctx, key), b.Remove(ctx, key)); err != nil {
				t.Error(err)
			}
			if _, err := b.Stat(ctx, key); !errors.Is(err, upload.ErrNoObject) {
				t.Error(err)
			}
		}

		small := []byte("bitmap")
		sum := md5.Sum(small)
		etag, err := b.Put(ctx, "k.mf", bytes.NewReader(small), int64(len(small)), &sum, nil)
		if err != nil || etag != fmt.Sprintf("%x", sum) {
			t.Errorf("%s, %v", etag, err)
		}
		check("k.mf", small, etag)
		if _, err := b.Put(ctx, "empty", bytes.NewReader(nil), 0, nil, nil); err != nil {
			t.Error(err)
		}
		wrong := md5.Sum([]byte("other"))
		if _, err := b.Put(ctx, "wrong", bytes.NewReader(small), int64(len(small)), &wrong, nil); err == nil {
			t.Error("a body with another MD5 was taken")
		}
	})
}

// The six methods of an unfinished upload.
func TestStoreUpload(t *testing.T) {
	inPlaces(t, storeUpload)
}

func storeUpload(t *testing.T, place place) {
	b := place.open(t)
	ctx := t.Context()
	id, err := b.Begin(ctx, "k", nil)
	if err != nil {
		t.Fatal(err)
	}
	other, err := b.Begin(ctx, "k2", nil)
	if err != nil {
		t.Fatal(err)
	}
	var want []upload.StoredPart
	for n := 1; n <= place.lastPart; n += 1 + n%2 {
		body := []byte(fmt.Sprint("part ", n))
		if place.lastPart < 1000 {
			body = append(body, make([]byte, partSize)...)
		}
		etag, err := b.PutPart(ctx, "k", id, n, bytes.NewReader(body), int64(len(body)), nil)
		if err != nil || etag != fmt.Sprintf("%x", md5.Sum(body)) {
			t.Fatal(etag, err)
		}
		want = append(want, upload.StoredPart{Number: n, Size: int64(len(body)), ETag: etag})
	}
	parts, err := b.Parts(ctx, "k", id)
	if err != nil || fmt.Sprint(parts) != fmt.Sprint(want) {
		t.Errorf("%d parts, want %d: %v", len(parts), len(want), err)
	}
	list, err := b.Uploads(ctx, "k")
	if err != nil || len(list) != 2 || list[0].Initiated.Before(list[1].Initiated) || time.Since(list[0].Initiated) > time.Hour {
		t.Errorf("%+v, %v", list, err)
	}
	if list, err := b.Uploads(ctx, "k2"); err != nil || len(list) != 1 || list[0].UploadID != other {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := b.Complete(ctx, "k", id, []upload.StoredPart{{Number: 1, ETag: want[1].ETag}}); err == nil {
		t.Error("a part with another ETag was taken")
	}
	if _, err := b.Complete(ctx, "k", id, want); err != nil {
		t.Error(err)
	}
	_, err1 := b.Complete(ctx, "k3", id, want)
	_, err2 := b.Parts(ctx, "k", id)
	_, err3 := b.PutPart(ctx, "k", id, 1, bytes.NewReader(nil), 0, nil)
	for _, err := range []error{err1, err2, err3} {
		if !errors.Is(err, upload.ErrNoUpload) || upload.Temporary(err) {
			t.Error(err)
		}
	}
	if err := errors.Join(b.Abort(ctx, "k2", other), b.Abort(ctx, "k2", other), b.Abort(ctx, "k", id)); err != nil {
		t.Error(err)
	}
}

func TestStoreRefuses(t *testing.T) {
	inPlaces(t, storeRefuses)
}

func storeRefuses(t *testing.T, p place) {
	for _, c := range []struct {
		name   string
		change func(*obs.Config)
		class  error
	}{
		{"key", func(c *obs.Config) { c.AccessKey = "UNKNOWN" }, upload.ErrDenied},
		{"secret", func(c *obs.Config) { c.SecretKey = "wrong" }, upload.ErrDenied},
		{"bucket", func(c *obs.Config) { c.Bucket = "another" }, upload.ErrNoBucket},
	} {
		b := p.open(t, c.change)
		_, begin := b.Begin(t.Context(), "k", nil)
		_, put := b.Put(t.Context(), "k", strings.NewReader("x"), 1, nil, nil)
		for _, err := range []error{b.CheckBucket(t.Context()), begin, put} {
			if !errors.Is(err, c.class) || upload.Temporary(err) {
				t.Errorf("%s: %v", c.name, err)
			}
		}
	}
	b := p.open(t, func(c *obs.Config) { c.Region = "another" })
	if err := b.CheckBucket(t.Context()); err == nil || upload.Temporary(err) {
		t.Errorf("another region: %v", err)
	}
}

// chaos disturbs requests as its seed says, and counts what it did.
type chaos struct {
	next http.Handler
	mu   sync.Mutex
	rand *rand.Rand
	left int // how many faults are still to come
	did  map[string]int
}

func (c *chaos) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	faults := []string{"503", "reset", "reset in body", "reply lost", "cut reply", "500 after all"}
	fault := ""
	c.mu.Lock()
	if c.left > 0 && c.rand.IntN(2) == 0 {
		c.left--
		fault = faults[c.rand.IntN(len(faults))]
		c.did[fault]++
	}
	c.mu.Unlock()
	abort := func() { panic(http.ErrAbortHandler) }
	switch fault {
	case "503":
		w.WriteHeader(503)
	case "reset":
		abort()
	case "reset in body":
		io.CopyN(io.Discard, r.Body, 1000)
		abort()
	case "reply lost":
		c.next.ServeHTTP(httptest.NewRecorder(), r)
		abort()
	case "500 after all":
		c.next.ServeHTTP(httptest.NewRecorder(), r)
		w.WriteHeader(500)
	case "cut reply":
		rec := httptest.NewRecorder()
		c.next.ServeHTTP(rec, r)
		for name, values := range rec.Header() {
			w.Header()[name] = values
		}
		w.Header().Set("Content-Length", fmt.Sprint(rec.Body.Len()+10))
		w.WriteHeader(rec.Code)
		w.Write(rec.Body.Bytes()[:rec.Body.Len()/2])
		w.(http.Flusher).Flush()
		abort()
	default:
		c.next.ServeHTTP(w, r)
	}
}

// Whatever a connection does for a while, the object is right and nothing else is left.
func TestStoreWithFaults(t *testing.T) {
	did := map[string]int{}
	for seed := range uint64(30) {
		c := &chaos{rand: rand.New(rand.NewPCG(seed, 0)), left: 6, did: did}
		store, server := serve(t, objectstore.Options{}, func(h http.Handler) http.Handler {
			c.next = h
			return c
		})
		b := bucket(t, server, noToken)
		data := noise(6*partSize + 77)
		result, err := send(t.Context(), b, "k", data, seed%2 == 1)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		checkObject(t, store, "k", data, result.ETag)
		c.mu.Lock()
		c.left = 0
		c.mu.Unlock()
		if list, err := b.Uploads(t.Context(), ""); err != nil || len(list) > 0 {
			t.Errorf("seed %d: left %+v, %v", seed, list, err)
		}
	}
	t.Log(did)
	for _, fault := range []string{"503", "reset", "reset in body", "reply lost", "cut reply", "500 after all"} {
		if did[fault] == 0 {
			t.Errorf("fault %q never happened", fault)
		}
	}
}

// An object above 5 GiB whose parts nobody knows gets its metadata by copies of ranges, each with tries of its
// own. What can't be finished is aborted.
func TestSetMetadataOfLargeObject(t *testing.T) {
	const size = 5<<30 + 1
	for code, want := range map[string]string{
		"":              "[begin d look up complete look up]",
		"InternalError": "[begin d look up complete look up]",
		"AccessDenied":  "[begin d abort look up]", // with a status of 200, which refuses nothing for certain
	} {
		var mu sync.Mutex
		var others []string
		ranges := map[string]string{} // to the number of their parts
		failed := false
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			switch asked := r.Header.Get("X-Amz-Copy-Source-Range"); {
			case r.Header.Get("X-Amz-Copy-Source") != "":
				if code != "" && !failed && asked == "bytes=2147483648-3221225471" {
					failed = true
					io.WriteString(w, xmlError(code)) // inside a 200
					return
				}
				if r.Header.Get("X-Amz-Copy-Source-If-Match") != "before" {
					t.Errorf("%s of whichever object there is", asked)
				}
				ranges[asked] = r.URL.Query().Get("partNumber")
				io.WriteString(w, `<CopyPartResult><ETag>"e"</ETag></CopyPartResult>`)
			case r.Method == "POST" && r.URL.Query().Has("uploads"):
				others = append(others, "begin "+r.Header.Get("X-Amz-Meta-Digest"))
				io.WriteString(w, begun)
			case r.Method == "POST":
				others = append(others, "complete")
				io.WriteString(w, completed)
			case r.Method == "DELETE":
				others = append(others, "abort")
				w.WriteHeader(204)
			case r.Method == "HEAD":
				others = append(others, "look up")
				w.Header().Set("Content-Length", fmt.Sprint(int64(size)))
				w.Header().Set("ETag", `"before"`)
				w.Header().Set("Last-Modified", "Sat, 21 Nov 2026 00:00:00 GMT")
				if slices.Contains(others, "complete") {
					w.Header().Set("ETag", `"after"`)
					w.Header().Set("X-Amz-Meta-Digest", "d")
				}
			}
		}))
		o, err := upload.SetMetadata(t.Context(), bucket(t, server), upload.Policy{Base: time.Millisecond, Max: time.Millisecond},
			upload.Object{Key: "k", Size: size, ETag: "before"}, nil, upload.Metadata{"digest": "d"})
		server.Close()
		if got := fmt.Sprint(others); got != want || (err == nil) != (code != "AccessDenied") {
			t.Errorf("%s: got %s instead of %s: %v", code, got, want, err)
		}
		if err == nil && (o.ETag != "after" || len(ranges) != 6 || ranges["bytes=0-1073741823"] != "4" || ranges["bytes=5368709120-5368709120"] != "9") {
			t.Errorf("%s: %+v of %v", code, o, ranges)
		}
	}
}

// What OBS refuses is refused by its imitation, and an authority that nobody vouched for is not trusted.
func TestImitationIsStrict(t *testing.T) {
	p := places["OBS"](t)
	for name, c := range map[string]struct {
		change func(*obs.Config)
		says   string
	}{
		"path":      {func(c *obs.Config) { c.Style = obs.Path }, "in the host name"},
		"authority": {func(c *obs.Config) { c.Transport = obs.NewTransport(0) }, "not trusted"},
		"http":      {func(c *obs.Config) { c.Endpoint = strings.Replace(c.Endpoint, "https", "http", 1) }, ""},
	} {
		if _, err := p.open(t, c.change).Begin(t.Context(), "k", nil); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b := p.open(t)
	id, err := b.Begin(t.Context(), "k", nil)
	if err != nil {
		t.Fatal(err)
	}
	var parts []upload.StoredPart
	for n := range 2 {
		etag, err := b.PutPart(t.Context(), "k", id, n+1, strings.NewReader("small"), 5, nil)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, upload.StoredPart{Number: n + 1, ETag: etag})
	}
	if _, err := b.Complete(t.Context(), "k", id, parts); err == nil || !strings.Contains(err.Error(), "EntityTooSmall") {
		t.Errorf("parts below 100 KiB: %v", err)
	}
}

// zeros is a disk without content.
type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}

// BenchmarkSend sends raw parts of 8 MiB to the store over loopback.
func BenchmarkSend(b *testing.B) {
	const size = 256 << 20
	store, err := objectstore.Open(b.TempDir(), objectstore.Options{
		NoSync:      true,
		Credentials: func(string, string) (string, error) { return secretKey, nil },
	})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	server := httptest.NewServer(store.Handler())
	defer server.Close()
	if err := store.CreateBucket("bucket"); err != nil {
		b.Fatal(err)
	}
	to, err := obs.New(obs.Config{Endpoint: server.URL, Region: "r", Bucket: "bucket", AccessKey: accessKey, SecretKey: secretKey})
	if err != nil {
		b.Fatal(err)
	}
	plan, err := upload.PlanRaw(size, 0)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(size)
	for b.Loop() {
		if _, err := upload.Send(b.Context(), upload.Config{Store: to, Key: "k"}, plan.Parts(zeros{})); err != nil {
			b.Fatal(err)
		}
	}
}
