package source_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"imgferry/formats"
	"imgferry/source"
)

var _ formats.Source = (*source.Remote)(nil)

// hurry is a patience for servers that are near.
var hurry = source.Patience{Tries: 6, Base: time.Millisecond, Max: 2 * time.Millisecond, Stall: 250 * time.Millisecond}

// pattern is n bytes of which no two pages are alike.
func pattern(n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(p)
	return p
}

// site serves one file well.
type site struct {
	mu       sync.Mutex
	content  []byte
	etag     string
	modified string
	served   atomic.Int64 // bytes of bodies
	requests atomic.Int64
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	s.mu.Lock()
	p, etag, modified := s.content, s.etag, s.modified
	s.mu.Unlock()
	if etag != "" {
		w.Header().Set("ETag", etag)
	}
	at, _ := http.ParseTime(modified)
	http.ServeContent(counting{w, &s.served}, r, "", at, bytes.NewReader(p))
}

type counting struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c counting) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return c.ResponseWriter.Write(p)
}

func serve(t testing.TB, h http.Handler) *httptest.Server {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func openURL(t testing.TB, url string) (*source.Remote, error) {
	t.Helper()
	h, err := source.NewHTTP(url, source.HTTPConfig{})
	if err != nil {
		return nil, err
	}
	r, err := source.OpenRemote(t.Context(), h, hurry)
	if err == nil {
		t.Cleanup(func() { r.Close() })
	}
	return r, err
}

func mustOpen(t testing.TB, url string) *source.Remote {
	t.Helper()
	r, err := openURL(t, url)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestHTTP reads at all sorts of places, from many goroutines.
func TestHTTP(t *testing.T) {
	want := pattern(5<<20 + 1234)
	s := serve(t, &site{content: want, etag: `"one"`})
	r := mustOpen(t, s.URL+"/disk.img?signature=secret")
	if r.Size() != int64(len(want)) || strings.Contains(r.Path()+r.Identity(), "secret") {
		t.Fatalf("%d bytes of %s", r.Size(), r.Path())
	}
	var wg sync.WaitGroup
	for seed := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(seed), 0))
			for range 60 {
				n := []int{1, 512, 4096, 65536, 200_000, 700_000}[rng.IntN(6)]
				off := rng.Int64N(r.Size() + 1000)
				p := make([]byte, n)
				got, err := r.ReadAt(p, off)
				expect := want[min(off, r.Size()):min(off+int64(n), r.Size())]
				if !bytes.Equal(p[:got], expect) || (err == io.EOF) != (len(expect) < n) || err != nil && err != io.EOF {
					t.Errorf("%d bytes at %d: %d, %v", n, off, got, err)
				}
			}
		})
	}
	wg.Wait()
	if _, err := r.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("negative offset")
	}
	if changed, err := r.Changed(); changed || err != nil {
		t.Error(changed, err)
	}
}

// TestWindow: who reads on and on makes few requests and gets each byte once; who reads here and there
// gets little more than asked for.
func TestWindow(t *testing.T) {
	want := pattern(24 << 20)
	st := &site{content: want, etag: `"one"`}
	s := serve(t, st)
	r := mustOpen(t, s.URL)
	p := make([]byte, 32<<10)
	for off := int64(0); off < r.Size(); off += int64(len(p)) {
		if _, err := r.ReadAt(p, off); err != nil || !bytes.Equal(p, want[off:off+int64(len(p))]) {
			t.Fatalf("at %d: %v", off, err)
		}
	}
	if n := st.requests.Load(); n > 30 || st.served.Load() > r.Size()+1000 {
		t.Errorf("front to back: %d requests, %d bytes of %d", n, st.served.Load(), r.Size())
	}
	r = mustOpen(t, s.URL)
	st.served.Store(0)
	for _, off := range []int64{0, 8 << 20, 3 << 20, 23 << 20, 15 << 20} {
		if _, err := r.ReadAt(p[:512], off); err != nil {
			t.Fatal(err)
		}
	}
	if st.served.Load() > 5*64<<10 {
		t.Errorf("five places: %d bytes", st.served.Load())
	}
}

// TestHTTPRefuses: each way in which a server can be of no use.
func TestHTTPRefuses(t *testing.T) {
	answer := func(status int, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			w.Write([]byte("x"))
		}
	}
	for _, c := range []struct {
		name string
		h    http.HandlerFunc
		is   error
		says string
	}{
		{"missing", answer(404), fs.ErrNotExist, "404"},
		{"denied", answer(403), source.ErrDenied, "403"},
		{"login", answer(401), source.ErrDenied, "401"},
		{"no ranges", answer(200), source.ErrNoRanges, "download"},
		{"broken", answer(500), source.ErrUnreachable, "6 tries"},
		{"teapot", answer(418), nil, "418"},
		{"lying", answer(206, "Content-Range", "bytes 5-5/10"), source.ErrUnreachable, "asked for bytes 0 to 0"},
		{"unknown size", answer(206, "Content-Range", "bytes 0-0/*"), source.ErrUnreachable, "asked for"},
		{"too large", answer(206, "Content-Range", "bytes 0-0/9000000000000000000"), nil, "the most is"},
		{"coding", answer(206, "Content-Range", "bytes 0-0/10", "Content-Encoding", "br"), nil, "coding"},
		{"nowhere", answer(302), nil, "where to"},
		{"file", answer(302, "Location", "file:///etc/passwd"), nil, "no address of a web server"},
		{"user", answer(302, "Location", "http://a:b@example.com/"), nil, "no address of a web server"},
		{"circle", answer(302, "Location", "/again"), nil, "more than"},
		{"metadata", answer(302, "Location", "http://169.254.169.254/latest/"), nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "metadata" {
				// Whatever is there is not asked: see TestRedirectReach.
				return
			}
			_, err := openURL(t, serve(t, c.h).URL)
			if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v", err)
			}
		})
	}
	for _, url := range []string{"ftp://host/x", "http://", "http:///x", "://", "http://[::1/x", "http://user:pa ss@host/x"} {
		if _, err := openURL(t, url); err == nil || strings.Contains(err.Error(), "pa ss") {
			t.Errorf("%q: %v", url, err)
		}
	}
	dead := serve(t, answer(200))
	dead.Close()
	if _, err := openURL(t, dead.URL); !errors.Is(err, source.ErrUnreachable) {
		t.Error(err)
	}
}

// TestEmptyFile: there is no first byte to ask for.
func TestEmptyFile(t *testing.T) {
	r := mustOpen(t, serve(t, &site{etag: `"e"`}).URL)
	if n, err := r.ReadAt(make([]byte, 1), 0); r.Size() != 0 || n != 0 || err != io.EOF {
		t.Error(r.Size(), n, err)
	}
}

// TestRedirects: credentials stay with the host that the user named; a redirect that has ended is
// followed anew.
func TestRedirects(t *testing.T) {
	want := pattern(1 << 20)
	var away atomic.Int64
	good := &site{content: want, etag: `"one"`}
	mirror := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, _, ok := r.BasicAuth(); ok || r.Header.Get("Cookie") != "" || r.Header.Get("Authorization") != "" {
			t.Error("credentials were forwarded")
		}
		if away.Add(1)%3 == 0 {
			http.Error(w, "ended", http.StatusForbidden)
			return
		}
		good.ServeHTTP(w, r)
	}))
	var asked atomic.Int64
	first := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if user != "me" || password != "pw" {
			http.Error(w, "who?", http.StatusUnauthorized)
			return
		}
		asked.Add(1)
		if r.URL.Path == "/disk" {
			w.Header().Set("Set-Cookie", "a=b")
			http.Redirect(w, r, "/there", http.StatusFound)
			return
		}
		http.Redirect(w, r, mirror.URL+"/file", http.StatusTemporaryRedirect)
	}))
	r := mustOpen(t, strings.Replace(first.URL, "http://", "http://me:pw@", 1)+"/disk")
	got := make([]byte, len(want))
	for off := 0; off < len(want); off += 300_000 {
		if _, err := r.ReadAt(got[off:min(off+300_000, len(want))], int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, want) || asked.Load() < 4 {
		t.Errorf("wrong bytes, or only %d looks at the first address", asked.Load())
	}
	if strings.Contains(r.Path()+r.Identity(), "pw") {
		t.Error("the password shows")
	}
}

// TestRedirectDowngrade: from https to http is refused.
func TestRedirectDowngrade(t *testing.T) {
	plain := serve(t, &site{content: []byte("x"), etag: `"x"`})
	s := httptest.NewTLSServer(http.RedirectHandler(plain.URL, http.StatusFound))
	defer s.Close()
	h, err := source.NewHTTP(s.URL, source.HTTPConfig{Transport: s.Client().Transport.(*http.Transport)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := source.OpenRemote(t.Context(), h, hurry); err == nil || !strings.Contains(err.Error(), "from https to http") {
		t.Error(err)
	}
}

// TestChanged: another version is an error, never a mix.
func TestChanged(t *testing.T) {
	for name, change := range map[string]func(*site){
		"etag":     func(s *site) { s.etag = `"two"` },
		"no etag":  func(s *site) { s.etag = "" },
		"modified": func(s *site) { s.modified = "Sun, 02 Jan 2022 00:00:00 GMT" },
		"longer":   func(s *site) { s.content = append(s.content[:len(s.content):len(s.content)], 1) },
		"shorter":  func(s *site) { s.content = s.content[:1<<20] },
	} {
		t.Run(name, func(t *testing.T) {
			s := &site{content: pattern(4 << 20), etag: `"one"`, modified: "Sat, 01 Jan 2022 00:00:00 GMT"}
			r := mustOpen(t, serve(t, s).URL)
			p := make([]byte, 1<<20)
			if _, err := r.ReadAt(p, 0); err != nil {
				t.Fatal(err)
			}
			s.mu.Lock()
			change(s)
			s.mu.Unlock()
			if _, err := r.ReadAt(p, 2<<20); !errors.Is(err, source.ErrChanged) {
				t.Errorf("read: %v", err)
			}
			if changed, err := r.Changed(); !changed || err != nil {
				t.Errorf("%v, %v", changed, err)
			}
		})
	}
}

// TestNoIdentity: without ETag and modification time there is nothing that tells versions apart.
func TestNoIdentity(t *testing.T) {
	for _, c := range []struct {
		etag, modified string
		tells          bool
	}{{"", "", false}, {`"one"`, "", true}, {"", "Sat, 01 Jan 2022 00:00:00 GMT", true}} {
		s := &site{content: pattern(1 << 20), etag: c.etag, modified: c.modified}
		r := mustOpen(t, serve(t, s).URL)
		if id := r.Identity(); (id != "") != c.tells {
			t.Errorf("%+v: %q", c, id)
		}
		// Another size is seen all the same.
		if changed, err := r.Changed(); changed || err != nil {
			t.Errorf("%+v: %v, %v", c, changed, err)
		}
		s.mu.Lock()
		s.content = s.content[:1<<19]
		s.mu.Unlock()
		if changed, err := r.Changed(); !changed || err != nil {
			t.Errorf("%+v: %v, %v", c, changed, err)
		}
	}
}

// TestClose ends a read that hangs.
func TestRemoteClose(t *testing.T) {
	reading := make(chan struct{})
	var once sync.Once
	good := &site{content: pattern(1 << 20), etag: `"one"`}
	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") != "bytes=0-0" {
			once.Do(func() { close(reading) })
			<-r.Context().Done()
			return
		}
		good.ServeHTTP(w, r)
	}))
	h, err := source.NewHTTP(s.URL, source.HTTPConfig{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := source.OpenRemote(t.Context(), h, source.Patience{})
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	go func() {
		_, err := r.ReadAt(make([]byte, 10), 0)
		failed <- err
	}()
	<-reading
	r.Close()
	if err := <-failed; !errors.Is(err, fs.ErrClosed) {
		t.Error(err)
	}
	if _, err := r.ReadAt(make([]byte, 10), 0); !errors.Is(err, fs.ErrClosed) {
		t.Error(err)
	}
}

// chaos does wrong, by a seed, to a share of the requests.
type chaos struct {
	*site
	mu    sync.Mutex
	rng   *rand.Rand
	share int   // percent
	kinds []int // of faults
}

const faultKinds = 11

func (c *chaos) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	hit := c.rng.IntN(100) < c.share
	kind := c.kinds[c.rng.IntN(len(c.kinds))]
	cut := c.rng.IntN(100)
	c.mu.Unlock()
	var first, last int64
	fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last)
	c.site.mu.Lock()
	size := int64(len(c.site.content))
	c.site.mu.Unlock()
	last = min(last, size-1)
	if !hit || first > last {
		c.site.ServeHTTP(w, r)
		return
	}
	n := last - first + 1
	part := c.site.content[first : last+1]
	partial := func(from, to, total, length int64) {
		w.Header().Set("ETag", c.site.etag)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, total))
		if length >= 0 {
			w.Header().Set("Content-Length", strconv.FormatInt(length, 10))
		}
		w.WriteHeader(http.StatusPartialContent)
	}
	switch kind {
	case 0: // reset before the answer
		panic(http.ErrAbortHandler)
	case 1: // reset in the middle
		partial(first, last, size, n)
		w.Write(part[:n*int64(cut)/100])
		panic(http.ErrAbortHandler)
	case 2: // truncated without a length
		partial(first, last, size, -1)
		w.Write(part[:n*int64(cut)/100])
	case 3: // stalls
		partial(first, last, size, n)
		w.Write(part[:n*int64(cut)/100])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	case 4: // another range, honestly
		from := max(first-int64(1+cut), 0)
		partial(from, from+n-1, size, n)
		w.Write(c.site.content[from : from+n])
	case 5: // another length
		partial(first, last, size, n-1)
		w.Write(part[:n-1])
	case 6: // the whole file
		w.Header().Set("ETag", c.site.etag)
		w.Write(c.site.content)
	case 7: // another version
		w.Header().Set("ETag", `"other"`)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, size))
		w.WriteHeader(http.StatusPartialContent)
		w.Write(bytes.Repeat([]byte("?"), int(n)))
	case 8: // another size
		partial(first, last, size+1, n)
		w.Write(bytes.Repeat([]byte("?"), int(n)))
	case 9: // overload
		w.WriteHeader(http.StatusServiceUnavailable)
	case 10: // too much, without a length
		partial(first, last, size, -1)
		w.Write(append(part[:n:n], make([]byte, 100)...))
	}
}

// TestChaos: 200 servers that do wrong. Either the bytes are right, or there is a clean error.
func TestChaos(t *testing.T) {
	want := pattern(700_000)
	var right, failed, changed atomic.Int64
	var wg sync.WaitGroup
	gate := make(chan struct{}, 16)
	for seed := range 200 {
		wg.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			c := &chaos{site: &site{content: want, etag: `"one"`}, rng: rand.New(rand.NewPCG(uint64(seed), 7)), share: 10 + seed%60}
			for kind := range faultKinds {
				// Half of the servers never pass another version off as this one.
				if seed%2 == 0 && (kind == 7 || kind == 8) || kind == 3 && seed%8 != 1 {
					continue
				}
				c.kinds = append(c.kinds, kind)
			}
			s := httptest.NewServer(c)
			defer s.Close()
			h, err := source.NewHTTP(s.URL, source.HTTPConfig{})
			if err != nil {
				t.Error(err)
				return
			}
			r, err := source.OpenRemote(t.Context(), h, hurry)
			if err != nil {
				failed.Add(1)
				clean(t, seed, err)
				return
			}
			defer r.Close()
			rng := rand.New(rand.NewPCG(uint64(seed), 8))
			for range 8 {
				n := 1 + rng.IntN(400_000)
				off := rng.Int64N(r.Size())
				p := make([]byte, n)
				got, err := r.ReadAt(p, off)
				if err != nil && err != io.EOF {
					clean(t, seed, err)
					if failed.Add(1); errors.Is(err, source.ErrChanged) {
						changed.Add(1)
					}
					return
				}
				if expect := want[off:min(off+int64(n), r.Size())]; !bytes.Equal(p[:got], expect) {
					t.Errorf("seed %d: wrong bytes at %d", seed, off)
				}
			}
			right.Add(1)
		})
	}
	wg.Wait()
	t.Logf("%d right, %d failed, %d of them because of another version", right.Load(), failed.Load(), changed.Load())
	if right.Load() < 50 || failed.Load() < 20 || changed.Load() < 10 {
		t.Error("the servers are too good, or too bad, to prove anything")
	}
}

// clean: the failure is one that somebody can do something about.
func clean(t *testing.T, seed int, err error) {
	if !errors.Is(err, source.ErrChanged) && !errors.Is(err, source.ErrUnreachable) && !errors.Is(err, source.ErrNoRanges) {
		t.Errorf("seed %d: %v", seed, err)
	}
	if errors.Is(err, context.Canceled) {
		t.Errorf("seed %d: nobody cancelled: %v", seed, err)
	}
}
