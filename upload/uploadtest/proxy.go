package uploadtest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Proxy is an HTTP proxy before a store that makes requests fail as it is told, and counts what it
// did. What goes wrong within a class (at which byte, which entry of a listing) follows from its
// seed. It reads replies that it changes into memory: it is for small stores.
type Proxy struct {
	// URL is where clients connect to.
	URL string

	target    *url.URL
	server    *httptest.Server
	transport *http.Transport
	hold      time.Duration
	closing   context.Context
	close     context.CancelFunc

	mu       sync.Mutex // guards all below
	rand     *rand.Rand
	pending  []Fault
	injected Counts
	requests map[Call]int
	watch    func(Event)
	notYet   map[string]time.Time // when a request may be repeated
	tooSoon  []string
}

// Counts is how often each class met each call.
type Counts map[Class]map[Call]int

// Add adds other to c.
func (c Counts) Add(other Counts) {
	for class, calls := range other {
		for call, n := range calls {
			c.add(class, call, n)
		}
	}
}

func (c Counts) add(class Class, call Call, n int) {
	if c[class] == nil {
		c[class] = make(map[Call]int)
	}
	c[class][call] += n
}

// Total is the sum of all counts.
func (c Counts) Total() int {
	total := 0
	for _, calls := range c {
		for _, n := range calls {
			total += n
		}
	}
	return total
}

// Stage is how far a request has come.
type Stage int

const (
	// Arrived: nothing was passed on.
	Arrived Stage = iota
	// Halfway: half of its body was passed on.
	Halfway
	// Done: the store has answered, and the client has not seen it.
	Done
)

// Event is something that happens to a request that no fault meets.
type Event struct {
	Call  Call
	Stage Stage
	// Key is the object's, or "".
	Key string
	// Part is the number of the part, or 0.
	Part int
	// N counts the requests of this call, from 1.
	N int
	// Status is the store's, once it is Done.
	Status int
}

// Options say how a proxy is.
type Options struct {
	// Target is the store, "http://HOST:PORT".
	Target string
	// Seed decides what goes wrong within a class.
	Seed uint64
	// Hold is how long a stalled connection is held.
	Hold time.Duration
	// SmallBuffers keeps connections from swallowing a small part before anybody reads it. Large
	// parts take for ever with them.
	SmallBuffers bool
}

// NewProxy starts a proxy until the test ends.
func NewProxy(t testing.TB, o Options) *Proxy {
	t.Helper()
	u, err := url.Parse(o.Target)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{
		target: u, hold: o.Hold,
		transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16},
		rand:      rand.New(rand.NewPCG(o.Seed, 0)),
		injected:  make(Counts), requests: make(map[Call]int), notYet: make(map[string]time.Time),
	}
	p.closing, p.close = context.WithCancel(context.Background())
	p.server = httptest.NewUnstartedServer(p)
	if o.SmallBuffers {
		p.server.Listener = smallBuffers{p.server.Listener}
	}
	p.server.Start()
	p.URL = p.server.URL
	t.Cleanup(p.Close)
	return p
}

// smallBuffers makes connections with buffers of socketBuffer.
type smallBuffers struct{ net.Listener }

const socketBuffer = 8 << 10 // bytes

func (l smallBuffers) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetReadBuffer(socketBuffer) // only makes stalls shorter than they could be if it fails
	}
	return c, err
}

// Close ends the proxy and every connection that it holds, and waits until the store has answered what
// reached it. It may be called again.
func (p *Proxy) Close() {
	p.close()
	p.server.CloseClientConnections()
	p.server.Close()
	p.transport.CloseIdleConnections()
}

// Inject adds faults to those that are to come.
func (p *Proxy) Inject(faults ...Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending = append(p.pending, faults...)
}

// Calm forgets the faults that have not come.
func (p *Proxy) Calm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending = nil
}

// Watch calls f, before a request goes on, at each stage of every request. Calls of f may overlap.
func (p *Proxy) Watch(f func(Event)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watch = f
}

// Injected returns what went wrong so far.
func (p *Proxy) Injected() Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := make(Counts)
	c.Add(p.injected)
	return c
}

// TooSoon returns the requests that were repeated before the time that a Retry-After named.
func (p *Proxy) TooSoon() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.tooSoon)
}

// Requests returns how many requests of the call have come.
func (p *Proxy) Requests(c Call) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests[c]
}

// take returns the fault that the next request of call meets, or "", and the number of the request.
func (p *Proxy) take(call Call, r *http.Request) (Class, int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests[call]++
	id := r.Method + " " + r.URL.RequestURI()
	if t, ok := p.notYet[id]; ok {
		// Timers and clocks may differ by a little.
		if early := time.Until(t); early > 10*time.Millisecond {
			p.tooSoon = append(p.tooSoon, fmt.Sprintf("%s came %v too soon", id, early))
		}
		delete(p.notYet, id)
	}
	class := Class("")
	for i := 0; i < len(p.pending); i++ {
		f := &p.pending[i]
		switch {
		case f.Call != call:
			continue
		case f.Skip > 0:
			f.Skip--
			continue
		case class != "":
			continue // one at a time
		}
		class = f.Class
		if f.Times--; f.Times == 0 || f.Times == -1 {
			p.pending = slices.Delete(p.pending, i, i+1)
			i--
		}
	}
	if class != "" {
		p.injected.add(class, call, 1)
		if class == SlowDown && call != HeadBucket { // whose refusal is looked into by another request at once
			p.notYet[id] = time.Now().Add(time.Second)
		}
	}
	return class, p.requests[call]
}

// upTo returns a number below n, or 0.
func (p *Proxy) upTo(n int) int {
	if n <= 0 {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rand.IntN(n)
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	call := CallOf(r)
	class, n := p.take(call, r)
	if class == "" {
		p.pass(w, r, call, n)
		return
	}
	p.fail(w, r, call, class)
}

// pass passes a request on, and its reply back.
func (p *Proxy) pass(w http.ResponseWriter, r *http.Request, call Call, n int) {
	p.mu.Lock()
	watch := p.watch
	p.mu.Unlock()
	if watch == nil {
		watch = func(Event) {}
	}
	part, _ := strconv.Atoi(r.URL.Query().Get("partNumber")) // 0 if there is none
	e := Event{Call: call, Key: keyOf(r), Part: part, N: n}
	watch(e)
	half := func() { e := e; e.Stage = Halfway; watch(e) }
	resp, err := p.forward(r, &halfway{Reader: r.Body, left: r.ContentLength / 2, half: half})
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer resp.Body.Close()
	e.Stage, e.Status = Done, resp.StatusCode
	watch(e)
	for name, values := range resp.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(resp.StatusCode)
	if _, err := io.Copy(w, resp.Body); err != nil {
		panic(http.ErrAbortHandler)
	}
}

func keyOf(r *http.Request) string {
	path := r.URL.Path[1:]
	for i := range path {
		if path[i] == '/' {
			return path[i+1:]
		}
	}
	return ""
}

// halfway calls half once, when left bytes were read.
type halfway struct {
	io.Reader
	left int64
	half func()
}

func (h *halfway) Read(p []byte) (int, error) {
	n, err := h.Reader.Read(p)
	if h.left > 0 && h.left <= int64(n) {
		h.half()
	}
	h.left -= int64(n)
	return n, err
}

// forward sends the request to the store with another body of the same length.
func (p *Proxy) forward(r *http.Request, body io.Reader) (*http.Response, error) {
	return p.transport.RoundTrip(p.outgoing(r, body))
}

func (p *Proxy) outgoing(r *http.Request, body io.Reader) *http.Request {
	// What has reached the store is done, whether or not the client is still there: Close waits for it.
	out := r.Clone(context.WithoutCancel(r.Context()))
	out.URL.Scheme, out.URL.Host, out.RequestURI = p.target.Scheme, p.target.Host, "" // Host stays: it is signed
	out.Body = io.NopCloser(body)
	if r.ContentLength == 0 {
		out.Body = http.NoBody
	}
	return out
}

// do lets the store do the work and returns its reply as it goes over the wire, and the length of
// the reply's header.
func (p *Proxy) do(r *http.Request, body io.Reader, change func(*http.Response, []byte) []byte) (raw []byte, header int, err error) {
	resp, err := p.forward(r, body)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, 0, err
	}
	if change != nil {
		content = change(resp, content)
	}
	return wireForm(resp, content)
}

// wireForm returns a reply as it goes over the wire.
func wireForm(resp *http.Response, content []byte) (raw []byte, header int, err error) {
	resp.Body, resp.Close = io.NopCloser(bytes.NewReader(content)), true
	if resp.Request == nil || resp.Request.Method != http.MethodHead {
		resp.ContentLength = int64(len(content))
	}
	var b bytes.Buffer
	if err := resp.Write(&b); err != nil {
		return nil, 0, err
	}
	return b.Bytes(), bytes.Index(b.Bytes(), []byte("\r\n\r\n")) + 4, nil
}

// shortly sends a request whose body ends early, and returns the store's answer, if any. It closes
// its half of the connection, so that the store need not wait for the rest.
func shortly(ctx context.Context, address string, r *http.Request) (*http.Response, []byte, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	w := bufio.NewWriter(conn)
	_ = r.Write(w) // fails because the body is too short
	if err := w.Flush(); err != nil {
		return nil, nil, err
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return nil, nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), r)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	return resp, content, err
}
