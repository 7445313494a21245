package source

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// HTTPConfig says how to reach web servers.
type HTTPConfig struct {
	// Transport makes the connections; it is copied. nil: one of its own.
	Transport *http.Transport
	// Observe wraps what sends the requests, for a log; nil: nothing does.
	Observe func(http.RoundTripper) http.RoundTripper
	// UserAgent is "name/version".
	UserAgent string
}

// HTTP is a file on a web server as an Object. It is safe for concurrent use.
type HTTP struct {
	first     *url.URL // as the user named it
	user      *url.Userinfo
	name      string
	transport http.RoundTripper
	guarded   bool // the transport itself looks at the addresses it connects to
	agent     string

	mu    sync.Mutex
	at    *hop  // where the redirects led; nil: not known
	reach reach // how deep they may lead
}

// hop is where a request goes.
type hop struct {
	url *url.URL
	// user: the host is the one that the user named, with the same scheme and port.
	user bool
}

const (
	// maxRedirects bounds a chain of redirects; a mirror takes two or three.
	maxRedirects = 8
	// maxURL bounds an address in bytes. Signed ones have a few thousand.
	maxURL = 16 << 10
)

// NewHTTP returns the file at rawURL, which may have a user and a password in it. Nothing is sent yet.
func NewHTTP(rawURL string, c HTTPConfig) (*HTTP, error) {
	u, err := url.Parse(rawURL)
	if err != nil || len(rawURL) > maxURL {
		return nil, errors.New("the address is no URL") // not quoted: it may have a password in it
	}
	if err := checkURL(u); err != nil {
		return nil, err
	}
	h := &HTTP{first: u, user: u.User, name: publicName(u), agent: c.UserAgent, reach: reachOf(u)}
	u.User, u.Fragment = nil, ""
	t := c.Transport
	if t == nil {
		t = &http.Transport{Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: time.Minute}
	}
	t = t.Clone()
	t.DisableCompression = true // the bytes of the file are wanted, not of some coding of it
	h.guarded = t.Proxy == nil
	if !h.guarded {
		via, err := t.Proxy(&http.Request{URL: u})
		h.guarded = via == nil && err == nil
	}
	dial := t.DialContext
	if dial == nil {
		dial = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	}
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err == nil && h.guarded {
			if err := h.guard(conn.RemoteAddr(), ctx.Value(redirectedKey{}) != nil); err != nil {
				conn.Close()
				return nil, err
			}
		}
		return conn, err
	}
	h.transport = t
	if c.Observe != nil {
		h.transport = c.Observe(t)
	}
	return h, nil
}

func checkURL(u *url.URL) error {
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Hostname() == "" {
		return errors.New("the address must begin with http:// or https:// and a host")
	}
	return nil
}

// publicName is u without what may be secret: user, password, and the query, which signs some addresses.
func publicName(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}

// Name is the address without user, password and query.
func (h *HTTP) Name() string { return h.name }

// Stat asks for the first byte, not by HEAD: signed addresses are good for GET only.
func (h *HTTP) Stat(ctx context.Context) (Version, error) {
	resp, err := h.get(ctx, Version{}, 0, 1)
	if err != nil {
		return Version{}, err
	}
	defer resp.Body.Close()
	v := Version{ETag: resp.Header.Get("ETag"), Modified: resp.Header.Get("Last-Modified")}
	switch resp.StatusCode {
	case http.StatusPartialContent:
		start, end, total, err := parseContentRange(resp.Header.Get("Content-Range"))
		if err != nil || start != 0 || end != 1 {
			return Version{}, lie(resp, 0, 1)
		}
		v.Size = total
		return v, nil
	case http.StatusRequestedRangeNotSatisfiable:
		if rest, ok := strings.CutPrefix(resp.Header.Get("Content-Range"), "bytes */"); ok && strings.Trim(rest, "0") == "" {
			return v, nil // an empty file has no first byte
		}
	case http.StatusOK:
		if resp.ContentLength == 0 {
			return v, nil
		}
		return Version{}, ErrNoRanges
	}
	return Version{}, refusal(resp)
}

// Get asks for a range of v.
func (h *HTTP) Get(ctx context.Context, v Version, off, n int64) (io.ReadCloser, error) {
	resp, err := h.get(ctx, v, off, n)
	if err != nil {
		return nil, err
	}
	body, err := h.judge(resp, v, off, n)
	if err != nil {
		resp.Body.Close()
	}
	return body, err
}

// judge makes sure that resp is the n bytes at off of v.
func (h *HTTP) judge(resp *http.Response, v Version, off, n int64) (io.ReadCloser, error) {
	switch resp.StatusCode {
	case http.StatusPartialContent, http.StatusOK:
		if resp.Header.Get("ETag") != v.ETag || resp.Header.Get("Last-Modified") != v.Modified {
			return nil, ErrChanged
		}
	case http.StatusPreconditionFailed:
		return nil, ErrChanged
	case http.StatusRequestedRangeNotSatisfiable:
		return nil, fmt.Errorf("%w: it has become shorter", ErrChanged)
	default:
		return nil, refusal(resp)
	}
	if resp.StatusCode == http.StatusOK {
		if resp.ContentLength >= 0 && resp.ContentLength != v.Size {
			return nil, ErrChanged
		}
		if off == 0 && n == v.Size {
			return exactly(resp.Body, n), nil
		}
		return nil, &Transient{Err: errors.New("the server sent the whole file instead of a part")}
	}
	start, end, total, err := parseContentRange(resp.Header.Get("Content-Range"))
	switch {
	case err == nil && total != v.Size:
		return nil, ErrChanged
	case err != nil, start != off, end != off+n, resp.ContentLength >= 0 && resp.ContentLength != n:
		return nil, lie(resp, off, n)
	}
	return exactly(resp.Body, n), nil
}

// get sends one request, wherever redirects lead. off and n are the range.
func (h *HTTP) get(ctx context.Context, v Version, off, n int64) (*http.Response, error) {
	h.mu.Lock()
	at := h.at
	h.mu.Unlock()
	if at != nil {
		resp, err := h.send(ctx, at, v, off, n)
		if err != nil || !stale(resp.StatusCode) {
			return resp, err
		}
		resp.Body.Close() // where redirects lead may be good for minutes only
	}
	at = &hop{h.first, true}
	for range maxRedirects {
		resp, err := h.send(ctx, at, v, off, n)
		if err != nil {
			return nil, err
		}
		if !isRedirect(resp.StatusCode) {
			h.mu.Lock()
			h.at = nil
			if at.url != h.first && !stale(resp.StatusCode) {
				h.at = at
			}
			h.mu.Unlock()
			return resp, nil
		}
		location := resp.Header.Get("Location")
		resp.Body.Close()
		if at, err = h.follow(at, location); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("the server redirects more than %d times", maxRedirects)
}

// stale says that an address which redirects led to may have ended.
func stale(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusGone:
		return true
	}
	return isRedirect(status)
}

func isRedirect(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// send sends one request to one place.
func (h *HTTP) send(ctx context.Context, at *hop, v Version, off, n int64) (*http.Response, error) {
	if !at.user {
		if h.guarded {
			ctx = context.WithValue(ctx, redirectedKey{}, true)
		} else if err := h.reach.checkLiteral(at.url); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.url.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	if h.agent != "" {
		req.Header.Set("User-Agent", h.agent)
	}
	switch {
	case v.ETag != "" && !strings.HasPrefix(v.ETag, "W/"):
		req.Header.Set("If-Match", v.ETag) // RFC 9110, 13.1.1: strong comparison
	case v.Modified != "":
		req.Header.Set("If-Unmodified-Since", v.Modified)
	}
	if h.user != nil && at.user { // never to a host that the user did not name
		password, _ := h.user.Password()
		req.SetBasicAuth(h.user.Username(), password)
	}
	resp, err := h.transport.RoundTrip(req)
	if err != nil {
		return nil, failure(err)
	}
	if coding := resp.Header.Get("Content-Encoding"); coding != "" && coding != "identity" && resp.StatusCode/100 == 2 {
		resp.Body.Close()
		return nil, fmt.Errorf("the server sends the file in the coding %q, although none was asked for", coding)
	}
	return resp, nil
}

// failure is err, of a request without an answer. Most may pass; what is wrong with names, certificates
// and our own rules does not.
func failure(err error) error {
	var name *net.DNSError
	var cert *tls.CertificateVerificationError
	var plain tls.RecordHeaderError
	switch {
	case errors.As(err, new(*reachError)), errors.As(err, &cert):
		return err
	case errors.As(err, &name) && name.IsNotFound:
		return fmt.Errorf("%w: there is no host %s", ErrUnreachable, name.Name)
	case errors.As(err, &plain), errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Errorf("%w: the server does not speak HTTPS there", ErrUnreachable)
	}
	return &Transient{Err: err}
}

// refusal is what an answer means that has no bytes of the file.
func refusal(resp *http.Response) error {
	said := fmt.Sprintf("the server answers with status %d (%s)", resp.StatusCode, http.StatusText(resp.StatusCode))
	switch s := resp.StatusCode; {
	case s == http.StatusNotFound, s == http.StatusGone:
		return fmt.Errorf("%s: %w", said, fs.ErrNotExist)
	case s == http.StatusUnauthorized, s == http.StatusForbidden, s == http.StatusProxyAuthRequired:
		return fmt.Errorf("%s: %w", said, ErrDenied)
	case s == http.StatusRequestTimeout, s == http.StatusTooManyRequests, s >= 500 && s != http.StatusNotImplemented && s != http.StatusHTTPVersionNotSupported:
		return &Transient{Err: errors.New(said), After: retryAfter(resp.Header.Get("Retry-After"))}
	}
	return errors.New(said)
}

// retryAfter reads the header of that name, in seconds; dates are left out: clocks differ.
func retryAfter(s string) time.Duration {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Second
}

// lie is an answer that is not the n bytes at off.
func lie(resp *http.Response, off, n int64) error {
	return &Transient{Err: fmt.Errorf("asked for bytes %d to %d, the server sent %q of %d bytes", off, off+n-1, resp.Header.Get("Content-Range"), resp.ContentLength)}
}

// parseContentRange reads "bytes FIRST-LAST/TOTAL" (RFC 9110, 14.4), in which nothing may be unknown.
// It returns [start, end) and the total in bytes.
func parseContentRange(s string) (start, end, total int64, err error) {
	bad := fmt.Errorf("%q is no Content-Range", s)
	rest, ok := strings.CutPrefix(s, "bytes ")
	span, size, ok2 := strings.Cut(rest, "/")
	first, last, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return 0, 0, 0, bad
	}
	var n [3]int64
	for i, field := range []string{first, last, size} {
		v, err := strconv.ParseUint(field, 10, 63)
		if err != nil {
			return 0, 0, 0, bad
		}
		n[i] = int64(v)
	}
	if n[1] < n[0] || n[1] >= n[2] {
		return 0, 0, 0, bad
	}
	return n[0], n[1] + 1, n[2], nil
}

// exactBody is a body that must have exactly left bytes.
type exactBody struct {
	io.ReadCloser
	left int64
}

func exactly(body io.ReadCloser, n int64) io.ReadCloser { return &exactBody{body, n} }

func (b *exactBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if err == io.EOF && b.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
