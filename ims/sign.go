package ims

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// The names of the signing scheme SDK-HMAC-SHA256.
const (
	algorithm       = "SDK-HMAC-SHA256"
	dateFormat      = "20060102T150405Z"
	unsignedPayload = "UNSIGNED-PAYLOAD"

	headerDate     = "X-Sdk-Date"
	headerContent  = "X-Sdk-Content-Sha256"
	headerSecurity = "X-Security-Token"
	headerProject  = "X-Project-Id"
	headerToken    = "X-Auth-Token"
)

// maxSigned is the longest body that may be signed, in bytes (reference, 3.2). Longer ones need a token.
const maxSigned = 12 << 20

// Sign authorizes r, whose body is exactly body: in token mode it sets X-Auth-Token, else X-Sdk-Date of
// now and Authorization. Signed are X-Sdk-Date, X-Project-Id, X-Security-Token and X-Sdk-Content-Sha256
// where r has them, and the headers named besides. A body of a content type other than JSON goes
// unsigned, as the service's own clients send it.
func (c Credentials) Sign(r *http.Request, body []byte, now time.Time, headers ...string) error {
	if err := c.check(); err != nil {
		return err
	}
	s := c.secrets()
	if s.token != "" {
		r.Header.Set(headerToken, s.token)
		return nil
	}
	if s.password != "" {
		return nil // the body has it
	}
	if len(body) > maxSigned {
		return fmt.Errorf("a body of %d bytes can't be signed, only up to %d: use a token", len(body), maxSigned)
	}
	r.Header.Set(headerDate, now.UTC().Format(dateFormat))
	if s.securityToken != "" {
		r.Header.Set(headerSecurity, s.securityToken)
	}
	payload := hashHex(body)
	if t := r.Header.Get("Content-Type"); t != "" && !isJSON(t) {
		payload = unsignedPayload
		r.Header.Set(headerContent, payload)
	}
	var signed []string
	for _, h := range append([]string{headerDate, headerProject, headerSecurity, headerContent}, headers...) {
		if h = strings.ToLower(h); h == "host" || r.Header.Get(h) != "" {
			signed = append(signed, h)
		}
	}
	slices.Sort(signed)
	signed = slices.Compact(signed)
	request, err := canonicalRequest(r, signed, payload)
	if err != nil {
		return err
	}
	a := authorization{s.accessKey, strings.Join(signed, ";"), signature(s.secretKey, stringToSign(r.Header.Get(headerDate), request))}
	r.Header.Set("Authorization", a.String())
	return nil
}

// authorization is the content of the Authorization header.
type authorization struct {
	access    string
	signed    string // lower-case header names, joined by ';'
	signature string // lower-case hex
}

// String returns the header's value.
func (a authorization) String() string {
	return algorithm + " Access=" + a.access + ", SignedHeaders=" + a.signed + ", Signature=" + a.signature
}

// canonicalRequest returns the text whose hash is signed:
// METHOD \n URI \n QUERY \n HEADERS \n SIGNED_HEADERS \n PAYLOAD_HASH.
// It fails if the query can't be parsed or a signed header is missing.
func canonicalRequest(r *http.Request, signed []string, payload string) (string, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return "", errors.New("the query is malformed")
	}
	var b strings.Builder
	b.WriteString(r.Method + "\n" + canonicalPath(r.URL.Path) + "\n" + canonicalQuery(query) + "\n")
	for _, name := range signed {
		values := r.Header.Values(name)
		if name == "host" {
			values = []string{host(r)}
		}
		if len(values) == 0 {
			return "", fmt.Errorf("the signed header %s is missing", name)
		}
		for _, v := range slices.Sorted(slices.Values(values)) {
			b.WriteString(name + ":" + strings.TrimSpace(v) + "\n")
		}
	}
	b.WriteString("\n" + strings.Join(signed, ";") + "\n" + payload)
	return b.String(), nil
}

// canonicalPath encodes each segment of a decoded path and ends it with a slash.
func canonicalPath(path string) string {
	var b []byte
	for i, segment := range strings.Split(path, "/") {
		if i > 0 {
			b = append(b, '/')
		}
		b = appendEscaped(b, segment)
	}
	if len(b) == 0 || b[len(b)-1] != '/' {
		b = append(b, '/')
	}
	return string(b)
}

// canonicalQuery encodes a query sorted by key, then value; an empty value is "k=". Our requests carry it
// in this form on the wire too.
func canonicalQuery(query url.Values) string {
	keys := make([]string, 0, len(query))
	for k := range query {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var b []byte
	for _, k := range keys {
		for _, v := range slices.Sorted(slices.Values(query[k])) {
			if len(b) > 0 {
				b = append(b, '&')
			}
			b = append(appendEscaped(b, k), '=')
			b = appendEscaped(b, v)
		}
	}
	return string(b)
}

// appendEscaped percent-encodes all but the unreserved characters of RFC 3986.
func appendEscaped(dst []byte, s string) []byte {
	const hexDigits = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.', c == '~':
			dst = append(dst, c)
		default:
			dst = append(dst, '%', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return dst
}

func stringToSign(date, request string) string {
	return algorithm + "\n" + date + "\n" + hashHex([]byte(request))
}

// signature signs with the secret itself: the scheme derives no key.
func signature(secret, text string) string {
	m := hmac.New(sha256.New, []byte(secret))
	m.Write([]byte(text))
	return hex.EncodeToString(m.Sum(nil))
}

func hashHex(p []byte) string {
	sum := sha256.Sum256(p)
	return hex.EncodeToString(sum[:])
}

func host(r *http.Request) string {
	if r.Host != "" {
		return r.Host
	}
	return r.URL.Host
}

func isJSON(contentType string) bool {
	t, _, err := mime.ParseMediaType(contentType)
	return err == nil && t == "application/json"
}
