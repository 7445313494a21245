package ims

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// maxBody bounds what is read of an answer, in bytes: a page of 500 images has about 1 MB.
	maxBody = 8 << 20
	// defaultTries and defaultDelay are what Config's zero fields stand for.
	defaultTries, defaultDelay = 6, 250 * time.Millisecond
	// maxDoublings bounds the wait between two attempts.
	maxDoublings = 5
	// maxRetryAfter is the longest wait that the service may ask for.
	maxRetryAfter = time.Minute
)

// call is one request of the API.
type call struct {
	op, method, path string
	query            url.Values
	body             []byte
	harmless         bool              // a POST that sent twice does no more than once
	secret           bool              // the answer must not be shown, whatever it is
	header           func(http.Header) // sees the header of the answer that decode reads, if not nil
}

// repeatable says that sending the call twice is the same as once: it only reads, or is harmless.
func (k call) repeatable() bool { return k.method == http.MethodGet || k.harmless }

// do sends a call until decode has read its answer. Calls that only read are sent again after transient
// failures; calls that change something only where the service surely did not take them.
func (c *Client) do(ctx context.Context, k call, decode func([]byte) error) error {
	for n := 1; ; n++ {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%s: %w", k.op, context.Cause(ctx))
		}
		wait, err := c.attempt(ctx, k, decode)
		var fail *APIError
		if err == nil || !errors.As(err, &fail) || !fail.Temporary || fail.MaybeDone || n == c.cfg.Tries {
			return err
		}
		if err := sleep(ctx, max(wait, c.backoff(n))); err != nil {
			return fmt.Errorf("%w; then: %w", fail, err)
		}
	}
}

// backoff returns the wait after attempt n: doubled each time, and between half and all of that, so that
// many clients don't come back together.
func (c *Client) backoff(n int) time.Duration {
	d := c.cfg.Delay << min(n-1, maxDoublings)
	return d/2 + rand.N(d/2+1)
}

// sleep waits for d, or for the end of ctx, whose cause it returns.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// attempt sends the request once. What it returns is an *APIError, or the context's error.
func (c *Client) attempt(ctx context.Context, k call, decode func([]byte) error) (retryAfter time.Duration, err error) {
	bounded, cancel := context.WithTimeout(ctx, c.cfg.RequestTimeout)
	defer cancel()
	target := *c.base
	target.Path, target.RawQuery = k.path, canonicalQuery(k.query)
	req, err := http.NewRequestWithContext(bounded, k.method, target.String(), bytes.NewReader(k.body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	req.Header.Set("Accept", "application/json")
	if c.cfg.ProjectID != "" {
		req.Header.Set(headerProject, c.cfg.ProjectID)
	}
	if len(k.body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	if err := c.cfg.Credentials.Sign(req, k.body, c.cfg.Now(), "host"); err != nil {
		return 0, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, c.unanswered(ctx, k, err)
	}
	defer resp.Body.Close()
	body, readErr := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	fail := &APIError{Op: k.op, Status: resp.StatusCode, RequestID: requestID(resp.Header)}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		c.refused(fail, k, req, resp, body)
		return retryAfterOf(resp.Header, c.cfg.Now()), fail
	}
	switch {
	case ctx.Err() != nil && readErr != nil:
		return 0, c.unanswered(ctx, k, readErr)
	case readErr != nil:
		fail.Err, fail.Temporary = fmt.Errorf("the answer broke off: %w", readErr), true
	case len(body) > maxBody:
		fail.Err = fmt.Errorf("the answer is longer than %d bytes", maxBody)
	default:
		if k.header != nil {
			k.header(resp.Header)
		}
		if err := decode(body); err != nil && k.secret {
			fail.Err, fail.Garbled = err, true
		} else if err != nil {
			fail.Garbled = true
			redact := c.redactor(req)
			fail.Err = errors.New(redact(unreadable([]byte(redact(string(body))), err).Error()))
		}
	}
	if fail.Err == nil {
		return 0, nil
	}
	fail.MaybeDone = !k.repeatable()
	return 0, fail
}

// redactor returns what takes secrets out of the answer to r. The signature is one for as long as the
// service takes it.
func (c *Client) redactor(r *http.Request) func(string) string {
	_, signature, signed := strings.Cut(r.Header.Get("Authorization"), "Signature=")
	return func(text string) string {
		if signed {
			text = strings.ReplaceAll(text, signature, "[redacted]")
		}
		return c.cfg.Credentials.redact(text)
	}
}

// refused fills in what an answer other than 2xx says.
func (c *Client) refused(fail *APIError, k call, req *http.Request, resp *http.Response, body []byte) {
	redact := c.redactor(req)
	// Before, so that no excerpt cuts a secret in two; and after, since JSON has many spellings.
	code, message, id := decodeError([]byte(redact(string(body))))
	fail.Code, fail.Message = code, redact(message)
	if fail.RequestID == "" {
		fail.RequestID = id
	}
	if fail.Message == "" {
		fail.Message = "the service answers " + strings.ToLower(http.StatusText(resp.StatusCode))
	}
	if c.base.Scheme == "http" && wantsTLS(resp, body) {
		fail.Message = mustBeHTTPS
	}
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		fail.Temporary = true
	case http.StatusUnauthorized:
		// The commonest cause of a refused signature on a machine that has just been set up.
		if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
			if skew := c.cfg.Now().Sub(date).Abs(); skew > maxSkew {
				fail.skewed = true
				fail.Message += fmt.Sprintf("; this machine's clock differs from the service's by %s", skew.Round(time.Second))
			}
		}
	}
	fail.MaybeDone = fail.Temporary && !k.repeatable() && !refusedUnread(resp.StatusCode)
}

// refusedUnread reports statuses by which the service says that it did not take the request.
func refusedUnread(status int) bool {
	return status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable
}

// unanswered makes the error for a request that got no answer.
func (c *Client) unanswered(ctx context.Context, k call, err error) error {
	fail := &APIError{Op: k.op, Err: err}
	fail.MaybeDone = !k.repeatable() && !unsent(err)
	var u *url.Error
	if errors.As(err, &u) { // its text repeats method and address
		fail.Err = u.Err
	}
	switch {
	case ctx.Err() != nil:
		fail.Err = context.Cause(ctx)
	case errors.Is(err, context.DeadlineExceeded):
		fail.Err, fail.Temporary = fmt.Errorf("no answer within %s", c.cfg.RequestTimeout), true
	case errors.Is(err, http.ErrSchemeMismatch):
		fail.Err = fmt.Errorf("the service does not speak HTTPS at %s: its endpoint must begin with http://", c.base.Host)
	case isCut(err):
		fail.Err, fail.Temporary = cutError{fail.Err}, true
	case isTLSAlert(err):
		fail.Err, fail.MaybeDone = errors.New(mustBeHTTPS), false
	default:
		fail.Temporary = !isPermanent(err)
	}
	return fail
}

// unsent reports failures from before anything was sent to the service: no address, no connection.
func unsent(err error) bool {
	var op *net.OpError
	var dns *net.DNSError
	return errors.As(err, &dns) || errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect") || isPermanent(err)
}

// mustBeHTTPS is what to do about an endpoint of http:// that should be one of https://.
const mustBeHTTPS = "the service speaks HTTPS there: its endpoint must begin with https://"

// wantsTLS reports an answer by which a server says that it takes only TLS on this port: Go's and nginx's
// sentence, or a redirect.
func wantsTLS(resp *http.Response, body []byte) bool {
	if resp.StatusCode == http.StatusBadRequest {
		text := strings.ToLower(string(body[:min(len(body), 1000)]))
		return strings.Contains(text, "http request to an https server") || strings.Contains(text, "plain http request was sent to https")
	}
	return resp.StatusCode/100 == 3 && strings.HasPrefix(strings.ToLower(resp.Header.Get("Location")), "https://")
}

// cutError says in words what the system says in its own.
type cutError struct{ err error }

func (cutError) Error() string   { return "the connection was closed before the answer was there" }
func (e cutError) Unwrap() error { return e.err }

// isCut reports a connection that ended in the middle of a request.
func isCut(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// isTLSAlert reports a server that answers a plain request with a TLS alert record: type 21, version 3.x.
// net/http has no type for it.
func isTLSAlert(err error) bool {
	return strings.Contains(err.Error(), `malformed HTTP response "\x15\x03`)
}

func requestID(h http.Header) string {
	for _, name := range []string{"X-Request-Id", "X-Openstack-Request-Id"} {
		if id := h.Get(name); id != "" {
			return printable(id, 100)
		}
	}
	return ""
}

// isPermanent reports failures of the connection that the next attempt would meet again, before a request
// is sent: a certificate nobody vouches for, a server that doesn't speak TLS, a name that doesn't exist.
func isPermanent(err error) bool {
	var cert *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var record tls.RecordHeaderError
	var dns *net.DNSError
	return errors.As(err, &cert) || errors.As(err, &authority) || errors.As(err, &record) || errors.Is(err, http.ErrSchemeMismatch) ||
		errors.As(err, &dns) && dns.IsNotFound
}

// retryAfterOf reads Retry-After, in seconds or as a date. What is absent or absurd is 0.
func retryAfterOf(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	var d time.Duration
	if s, err := strconv.ParseUint(v, 10, 31); err == nil {
		d = time.Duration(s) * time.Second
	} else if t, err := http.ParseTime(v); err == nil {
		d = t.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}
