package objectstore

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Signature Version 4, as in the S3 API reference: "Authenticating Requests: Using the
// Authorization Header" and "Using Query Parameters".
const (
	sigAlgorithm = "AWS4-HMAC-SHA256"
	sigTime      = "20060102T150405Z"
	sigDate      = "20060102"
	maxSkew      = 15 * time.Minute
	maxPresigned = 7 * 24 * time.Hour
	maxAuthBytes = 8 << 10 // of an Authorization header: no client's has 2 KiB
)

// Values of x-amz-content-sha256 that are no hash.
const (
	payloadUnsigned        = "UNSIGNED-PAYLOAD"
	payloadSigned          = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
	payloadSignedTrailer   = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
	payloadUnsignedTrailer = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
)

// emptyHash is the SHA-256 of nothing, in hex.
const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// signature is what a request says about who signed it and what was signed.
type signature struct {
	accessKey string
	date      string // of the key, sigDate
	region    string
	headers   []string // signed ones, lower-case
	value     string   // 64 hex digits
	at        time.Time
	expires   time.Duration // of a presigned request; 0: the signature is in the header
	payload   string        // the request's x-amz-content-sha256
}

func (g signature) scope() string { return g.date + "/" + g.region + "/s3/aws4_request" }

var errMalformed = errors.New("malformed")

// parseCredential reads ACCESSKEY/DATE/REGION/s3/aws4_request. Access keys may hold slashes.
func parseCredential(s string) (accessKey, date, region string, err error) {
	f := strings.Split(s, "/")
	n := len(f)
	if n < 5 || f[n-1] != "aws4_request" || f[n-2] != "s3" {
		return "", "", "", errMalformed
	}
	accessKey, date, region = strings.Join(f[:n-4], "/"), f[n-4], f[n-3]
	if _, err := time.Parse(sigDate, date); err != nil || accessKey == "" || region == "" {
		return "", "", "", errMalformed
	}
	return accessKey, date, region, nil
}

// setScope fills in what three fields of header or query say.
func (g *signature) setScope(credential, signedHeaders, value string) (err error) {
	if g.accessKey, g.date, g.region, err = parseCredential(credential); err != nil {
		return err
	}
	g.headers = strings.Split(signedHeaders, ";")
	if !slices.Contains(g.headers, "host") {
		return errMalformed
	}
	for _, h := range g.headers {
		if h == "" || h != strings.ToLower(h) {
			return errMalformed
		}
	}
	if raw, err := hex.DecodeString(value); err != nil || len(raw) != sha256.Size {
		return errMalformed
	}
	g.value = strings.ToLower(value)
	return nil
}

// parseAuthorization reads an Authorization header:
// AWS4-HMAC-SHA256 Credential=..., SignedHeaders=..., Signature=...
func parseAuthorization(header string) (signature, error) {
	var g signature
	rest, ok := strings.CutPrefix(header, sigAlgorithm+" ")
	if !ok || len(header) > maxAuthBytes {
		return g, errMalformed
	}
	fields := make(map[string]string)
	for f := range strings.SplitSeq(rest, ",") {
		name, v, ok := strings.Cut(strings.TrimSpace(f), "=")
		if _, twice := fields[name]; !ok || twice {
			return g, errMalformed
		}
		fields[name] = v
	}
	if len(fields) != 3 {
		return g, errMalformed
	}
	return g, g.setScope(fields["Credential"], fields["SignedHeaders"], fields["Signature"])
}

// parsePresigned reads the X-Amz-* parameters of a presigned request.
func parsePresigned(q url.Values) (signature, error) {
	g := signature{payload: payloadUnsigned}
	if q.Get("X-Amz-Algorithm") != sigAlgorithm {
		return g, errMalformed
	}
	if err := g.setScope(q.Get("X-Amz-Credential"), q.Get("X-Amz-SignedHeaders"), q.Get("X-Amz-Signature")); err != nil {
		return g, err
	}
	seconds, err := strconv.ParseUint(q.Get("X-Amz-Expires"), 10, 32)
	if err != nil || seconds == 0 || time.Duration(seconds)*time.Second > maxPresigned {
		return g, errMalformed
	}
	g.expires = time.Duration(seconds) * time.Second
	if g.at, err = time.Parse(sigTime, q.Get("X-Amz-Date")); err != nil {
		return g, errMalformed
	}
	if h := q.Get("X-Amz-Content-Sha256"); h != "" {
		g.payload = h
	}
	return g, nil
}

// readSignature finds the signature of a request in its header or its query.
func readSignature(r *http.Request, query url.Values) (g signature, err error) {
	auth := r.Header.Get("Authorization")
	switch {
	case auth == "" && query.Has("X-Amz-Signature"):
		if g, err = parsePresigned(query); err != nil {
			return g, errAuthorizationQuery
		}
		if h := r.Header.Get("X-Amz-Content-Sha256"); h != "" {
			g.payload = h
		}
		return g, nil
	case auth == "":
		return g, errAccessDenied
	case !strings.HasPrefix(auth, sigAlgorithm+" "):
		return g, errInvalidRequest.because("The authorization mechanism is not supported; use AWS4-HMAC-SHA256")
	}
	if g, err = parseAuthorization(auth); err != nil {
		return g, errAuthorization
	}
	if g.at, err = requestTime(r.Header); err != nil {
		return g, errAccessDenied.because("The request needs a valid x-amz-date or Date header")
	}
	if g.payload = r.Header.Get("X-Amz-Content-Sha256"); g.payload == "" {
		return g, errInvalidRequest.because("The x-amz-content-sha256 header is missing")
	}
	return g, nil
}

func requestTime(h http.Header) (time.Time, error) {
	if d := h.Get("X-Amz-Date"); d != "" {
		return time.Parse(sigTime, d)
	}
	return http.ParseTime(h.Get("Date"))
}

// authenticate verifies the signature of a request. It returns the signature and the key that
// signed, for the chunks of the body.
func (s *Store) authenticate(r *http.Request, query url.Values) (g signature, key []byte, err error) {
	if g, err = readSignature(r, query); err != nil {
		return g, nil, err
	}
	if s.opt.Region != "" && g.region != s.opt.Region {
		e := errAuthorization
		if g.expires != 0 {
			e = errAuthorizationQuery
		}
		return g, nil, e.because("The region '" + g.region + "' is wrong; expecting '" + s.opt.Region + "'")
	}
	if g.at.UTC().Format(sigDate) != g.date {
		return g, nil, errSignature.because("The date of the credential differs from the date of the request")
	}
	if err := g.checkTime(s.opt.Now()); err != nil {
		return g, nil, err
	}
	if s.opt.Credentials == nil {
		return g, nil, errInvalidAccessKey
	}
	token := r.Header.Get("X-Amz-Security-Token")
	if g.expires != 0 {
		token = query.Get("X-Amz-Security-Token")
	}
	secret, err := s.opt.Credentials(g.accessKey, token)
	if e, ok := errors.AsType[*Error](err); ok {
		return g, nil, e
	}
	if err != nil {
		return g, nil, errInvalidAccessKey
	}
	if h := g.unsignedHeader(r.Header); h != "" {
		return g, nil, errAccessDenied.because("The header " + h + " is present but not signed")
	}
	key = signingKey(secret, g.date, g.region)
	want := hmacHex(key, g.stringToSign(canonicalRequest(r, query, g)))
	if !hmac.Equal([]byte(want), []byte(g.value)) {
		return g, nil, errSignature
	}
	return g, key, nil
}

// checkTime refuses clocks that differ and presigned requests that are too old.
func (g signature) checkTime(now time.Time) error {
	age := now.Sub(g.at)
	switch {
	case age < -maxSkew, g.expires == 0 && age > maxSkew:
		return errSkew
	case g.expires != 0 && age > g.expires:
		return errAccessDenied.because("The presigned request has expired")
	}
	return nil
}

// unsignedHeader returns an x-amz- header that the signature leaves open, or "".
func (g signature) unsignedHeader(h http.Header) string {
	for name := range h {
		lower := strings.ToLower(name)
		if strings.HasPrefix(lower, "x-amz-") && !slices.Contains(g.headers, lower) {
			return lower
		}
	}
	return ""
}

func (g signature) stringToSign(canonical string) string {
	return sigAlgorithm + "\n" + g.at.UTC().Format(sigTime) + "\n" + g.scope() + "\n" + hashHex(canonical)
}

// canonicalRequest is task 1 of the reference: method, path, query, signed headers, payload.
func canonicalRequest(r *http.Request, query url.Values, g signature) string {
	var b strings.Builder
	b.WriteString(r.Method)
	b.WriteByte('\n')
	b.WriteString(escape(r.URL.Path, true))
	b.WriteByte('\n')
	b.WriteString(canonicalQuery(query))
	b.WriteByte('\n')
	for _, name := range g.headers {
		b.WriteString(name)
		b.WriteByte(':')
		b.WriteString(canonicalHeader(r, name))
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	b.WriteString(strings.Join(g.headers, ";"))
	b.WriteByte('\n')
	b.WriteString(g.payload)
	return b.String()
}

func canonicalQuery(query url.Values) string {
	type pair struct{ name, value string }
	var pairs []pair
	for name, values := range query {
		if name == "X-Amz-Signature" {
			continue
		}
		for _, v := range values {
			pairs = append(pairs, pair{escape(name, false), escape(v, false)})
		}
	}
	slices.SortFunc(pairs, func(x, y pair) int {
		if c := strings.Compare(x.name, y.name); c != 0 {
			return c
		}
		return strings.Compare(x.value, y.value)
	})
	var b strings.Builder
	for i, p := range pairs {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(p.name)
		b.WriteByte('=')
		b.WriteString(p.value)
	}
	return b.String()
}

// canonicalHeader is a header's value with each run of spaces made one. net/http keeps some headers
// outside the map.
func canonicalHeader(r *http.Request, name string) string {
	values := r.Header.Values(name)
	switch {
	case name == "host":
		values = []string{r.Host}
	case name == "content-length" && len(values) == 0 && r.ContentLength >= 0:
		values = []string{strconv.FormatInt(r.ContentLength, 10)}
	case name == "transfer-encoding" && len(values) == 0:
		values = r.TransferEncoding
	}
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = strings.Join(strings.Fields(v), " ")
	}
	return strings.Join(out, ",")
}

func signingKey(secret, date, region string) []byte {
	key := hmacSum([]byte("AWS4"+secret), date)
	key = hmacSum(key, region)
	key = hmacSum(key, "s3")
	return hmacSum(key, "aws4_request")
}

func hmacSum(key []byte, s string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(s))
	return h.Sum(nil)
}

func hmacHex(key []byte, s string) string { return hex.EncodeToString(hmacSum(key, s)) }

func hashHex(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}
