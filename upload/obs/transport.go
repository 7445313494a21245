package obs

import (
	"bytes"
	"context"
	"io"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7/pkg/signer"
)

// defaultConnections is how many idle connections are kept: enough for every worker of an upload.
const defaultConnections = 64

// NewTransport returns a transport with time limits for uploads, that keeps up to connections
// idle connections to the store (0: 64). It takes a proxy from the environment, and host names below
// ".localhost" for this machine. A caller may set its TLSClientConfig and Proxy before using it.
func NewTransport(connections int) *http.Transport {
	if connections <= 0 {
		connections = defaultConnections
	}
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment, // never for loopback addresses
		DialContext:         dial,
		TLSHandshakeTimeout: 10 * time.Second,
		// A last resort, since upload.Retry bounds each call more tightly: a Complete may take
		// minutes.
		ResponseHeaderTimeout: 10 * time.Minute,
		IdleConnTimeout:       time.Minute,
		MaxIdleConns:          connections,
		MaxIdleConnsPerHost:   connections,
		DisableCompression:    true, // objects are opaque
		WriteBufferSize:       64 << 10,
	}
}

// dial connects to an address. Names below ".localhost" are never looked up, as RFC 6761, section 6.3,
// asks of programs: few resolvers know bucket.obs.localhost.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	host, port, err := net.SplitHostPort(address)
	if err != nil || !isLocalhost(host) {
		return d.DialContext(ctx, network, address)
	}
	conn, err := d.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
	if err == nil {
		return conn, nil
	}
	if conn, err6 := d.DialContext(ctx, network, net.JoinHostPort("::1", port)); err6 == nil {
		return conn, nil
	}
	return nil, err
}

// isLocalhost reports whether a host name means this machine by definition.
func isLocalhost(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// seen is what the transport saw of the last answer to a call. minio-go keeps less.
type seen struct {
	status     int // 0: no answer
	requestID  string
	retryAfter time.Duration
	encrypted  bool // the store says that it encrypts the object
	opaque     bool // and how: ETags are no MD5s
}

// deleted is err, the outcome of a DELETE, unless the answer is not the one that says so (S3 and OBS: 204):
// whoever else may answer with 200.
func (s *seen) deleted(err error) error {
	if err == nil && s.status != http.StatusNoContent {
		return errNoReply
	}
	return err
}

type seenKey struct{}

// observe returns a context that collects what the transport sees.
func observe(ctx context.Context) (context.Context, *seen) {
	s := new(seen)
	return context.WithValue(ctx, seenKey{}, s), s
}

// wire is the transport below minio-go: it signs each request and notes the answer.
//
// minio-go is left unsigned, since it would sign the SHA-256 of the body for some requests
// (Complete, and all without a body): OBS documents only UNSIGNED-PAYLOAD. What a body holds is
// proven by Content-MD5 and by ETags.
type wire struct {
	base                                http.RoundTripper
	accessKey, secretKey, token, region string
	v2Host                              string // the endpoint's host, to sign as version 2; "": version 4
}

type headerKey struct{}

// withHeader returns a context whose requests have one more header: minio-go has no option for it.
func withHeader(ctx context.Context, name, value string) context.Context {
	return context.WithValue(ctx, headerKey{}, [2]string{name, value})
}

func (w *wire) sign(r *http.Request) *http.Request {
	if h, ok := r.Context().Value(headerKey{}).([2]string); ok {
		r.Header.Set(h[0], h[1])
	}
	if w.v2Host != "" {
		if w.token != "" {
			r.Header.Set("X-Amz-Security-Token", w.token) // among what is signed
		}
		return signer.SignV2(*r, w.accessKey, w.secretKey, r.URL.Hostname() != w.v2Host)
	}
	r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
	return signer.SignV4(*r, w.accessKey, w.secretKey, w.token, w.region)
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	resp, err := w.base.RoundTrip(w.sign(r))
	if s, ok := r.Context().Value(seenKey{}).(*seen); ok && resp != nil {
		*s = seen{
			status:     resp.StatusCode,
			requestID:  firstHeader(resp.Header, "x-obs-request-id", "x-amz-request-id"),
			retryAfter: retryAfter(resp.Header, time.Now()),
			encrypted:  firstHeader(resp.Header, amzEncryption, obsEncryption) != "",
			opaque:     opaqueETags(resp.Header),
		}
	}
	if resp != nil && !readsObject(r) {
		// Everything but an object's content is read whole by minio-go.
		resp.Body = &cappedBody{ReadCloser: resp.Body, left: maxAnswer, tags: maxTags}
	}
	if resp != nil && isWebPage(r, resp) {
		resp.Body.Close()
		return nil, errNoReply // a login page or a proxy's, which minio-go would take for an empty listing
	}
	if resp != nil && resp.StatusCode == http.StatusOK && r.Header.Get("X-Amz-Copy-Source") != "" {
		if err := errorInside(resp); err != nil {
			return nil, err
		}
	}
	return resp, err
}

// readsObject reports a request for an object's content. (A GET of / without a query lists the buckets.)
func readsObject(r *http.Request) bool {
	return r.Method == http.MethodGet && r.URL.RawQuery == "" && r.URL.Path != "/"
}

// isWebPage reports a page of HTML in the place of an XML document, which is what a store answers to each POST
// and to each GET of anything but an object. (Objects may be web pages.)
func isWebPage(r *http.Request, resp *http.Response) bool {
	if r.Method != http.MethodPost && r.Method != http.MethodGet || readsObject(r) {
		return false
	}
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return err == nil && kind == "text/html" && resp.StatusCode == http.StatusOK
}

// maxCopyAnswer is how much of the answer to a copy is looked at, in bytes: it is a few hundred long,
// after the spaces by which a store keeps the connection alive meanwhile.
const maxCopyAnswer = 1 << 20

// errorInside makes an answer of 200 whose body is an error one of 500: a store answers a copy before it
// has ended, and minio-go does not look. Its code says what it is.
func errorInside(resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxCopyAnswer))
	resp.Body.Close()
	if err != nil {
		return err
	}
	switch {
	case bytes.Contains(body, []byte("<Error>")):
		resp.StatusCode = http.StatusInternalServerError
	case !bytes.Contains(body, []byte("ETag>")):
		return errNoReply // whoever answered made no copy
	}
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return nil
}

const (
	// maxAnswer is the longest answer that is read, in bytes: a page of a thousand uploads with keys of
	// 1,024 bytes, escaped, has less than half of it.
	maxAnswer = 16 << 20
	// maxTags is how many XML tags it may have: minio-go makes a value of 200 bytes of each element of a list,
	// however short. A page of a thousand uploads as AWS writes it has 26,000, a list of 10,000 buckets 100,000.
	maxTags = 200_000
)

// cappedBody fails with errTooLong where a body is longer than left, or has more tags.
type cappedBody struct {
	io.ReadCloser
	left int64 // bytes
	tags int
}

func (c *cappedBody) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.left -= int64(n)
	c.tags -= bytes.Count(p[:n], []byte("<"))
	if c.left < 0 || c.tags < 0 {
		return 0, errTooLong
	}
	return n, err
}

func firstHeader(h http.Header, names ...string) string {
	for _, name := range names {
		if v := h.Get(name); v != "" {
			return v
		}
	}
	return ""
}

// maxRetryAfter is the longest wait that a store's answer is taken to ask for: longer than any upload.Policy
// waits, so that nobody comes back too early, and short enough to reckon with, unlike the year 9999.
const maxRetryAfter = 24 * time.Hour

// retryAfter reads the header of that name: seconds, or a date (RFC 9110, section 10.2.3).
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	var d time.Duration
	if s, err := strconv.ParseUint(v, 10, 31); err == nil {
		d = time.Duration(s) * time.Second
	} else if t, err := http.ParseTime(v); err == nil {
		d = t.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}

// lentReader lends a body to net/http, which may go on reading for a while after it has answered:
// after takeBack, nobody reads the body any more. It has no Seek, so that minio-go does not rewind
// what it must not.
type lentReader struct {
	mu   sync.Mutex
	body io.Reader // nil once taken back
}

func lend(body io.Reader) *lentReader { return &lentReader{body: body} }

func (l *lentReader) takeBack() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.body = nil
}

func (l *lentReader) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.body == nil {
		return 0, io.ErrClosedPipe
	}
	return l.body.Read(p)
}
