package ims

import (
	"crypto/hmac"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	// maxSkew is how far a request's date may lie from the server's clock.
	maxSkew = 15 * time.Minute
	// maxSignedHeaders bounds what an unauthenticated caller makes us hash; clients sign under ten.
	maxSignedHeaders = 64
)

// AuthError says why a request's signature was refused. It never holds a secret.
type AuthError struct {
	// AccessKey is the key the request claims, or "" where it names none.
	AccessKey string
	// Reason is a clause: "the signature does not match".
	Reason string
}

// Error returns the reason.
func (e *AuthError) Error() string { return e.Reason }

// Verify checks the signature of a request that a server received, whose whole body is body, and returns
// the access key that signed it. secret looks up an access key's secret. now is the server's clock;
// requests dated over 15 minutes from it are refused. The error is an *AuthError.
//
// It follows the client's list of signed headers, of which only x-sdk-date is mandatory. A literal hash
// in X-Sdk-Content-Sha256 must be the body's.
func Verify(r *http.Request, body []byte, secret func(accessKey string) (string, bool), now time.Time) (string, error) {
	a, err := parseAuthorization(r.Header.Get("Authorization"))
	if err != nil {
		return "", &AuthError{Reason: err.Error()}
	}
	refuse := func(format string, args ...any) (string, error) {
		return "", &AuthError{AccessKey: a.access, Reason: fmt.Sprintf(format, args...)}
	}
	signed := strings.Split(a.signed, ";")
	if !slices.Contains(signed, strings.ToLower(headerDate)) {
		return refuse("x-sdk-date is not signed")
	}
	date, err := time.Parse(dateFormat, r.Header.Get(headerDate))
	if err != nil {
		return refuse("X-Sdk-Date is no time of the form YYYYMMDDTHHMMSSZ")
	}
	if skew := now.Sub(date).Abs(); skew > maxSkew {
		return refuse("the request is dated %s, which is %s from the service's clock", r.Header.Get(headerDate), skew.Round(time.Second))
	}
	payload := r.Header.Get(headerContent)
	switch sum := hashHex(body); payload {
	case "":
		payload = sum
	case unsignedPayload, sum:
	default:
		return refuse("X-Sdk-Content-Sha256 is not the hash of the body")
	}
	request, err := canonicalRequest(r, signed, payload)
	if err != nil {
		return refuse("%v", err)
	}
	key, ok := secret(a.access)
	if !ok {
		return refuse("the access key does not exist")
	}
	want := signature(key, stringToSign(r.Header.Get(headerDate), request))
	if !hmac.Equal([]byte(want), []byte(a.signature)) {
		return refuse("the signature does not match")
	}
	return a.access, nil
}

// parseAuthorization reads the value of an Authorization header. The fields may come in any order, each
// exactly once.
func parseAuthorization(s string) (authorization, error) {
	var a authorization
	rest, ok := strings.CutPrefix(s, algorithm+" ")
	if !ok {
		return a, errors.New("the request is not signed with " + algorithm)
	}
	for field := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		var to *string
		switch name {
		case "Access":
			to = &a.access
		case "SignedHeaders":
			to = &a.signed
		case "Signature":
			to = &a.signature
		}
		if to == nil || *to != "" || value == "" {
			return authorization{}, errors.New("the Authorization header is malformed")
		}
		*to = value
	}
	if a.access == "" || a.signed == "" || a.signature == "" {
		return authorization{}, errors.New("the Authorization header is incomplete")
	}
	if raw, err := hex.DecodeString(a.signature); err != nil || len(raw) != 32 {
		return authorization{}, errors.New("the signature is not 64 hexadecimal digits")
	}
	if strings.Count(a.signed, ";") >= maxSignedHeaders {
		return authorization{}, errors.New("the Authorization header names too many signed headers")
	}
	if a.signed != strings.ToLower(a.signed) || strings.ContainsAny(a.signed, " \t\r\n:") {
		return authorization{}, errors.New("the signed headers are not lower-case names")
	}
	return a, nil
}
