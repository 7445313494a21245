package ims

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// vector is one entry of testdata/aksk-vectors.json, made by the vendor's official signer.
type vector struct {
	Name, AK, SK                string
	Method, WireURI, Body       string
	Headers                     map[string]string
	CanonicalRequest            string
	StringToSign, SignedHeaders string
	CanonicalRequestSHA256      string
	Signature                   string
	AuthorizationHeader         string `json:"Authorization"`
}

func vectors(t testing.TB) []vector {
	t.Helper()
	p, err := os.ReadFile("testdata/aksk-vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		AK, SK  string
		Vectors []vector
	}
	if err := json.Unmarshal(p, &f); err != nil {
		t.Fatal(err)
	}
	if len(f.Vectors) != 8 {
		t.Fatalf("%d vectors, want 8", len(f.Vectors))
	}
	for i := range f.Vectors {
		v := &f.Vectors[i]
		if v.AK == "" {
			v.AK, v.SK = f.AK, f.SK
		}
		if v.AuthorizationHeader == "" {
			v.AuthorizationHeader = "SDK-HMAC-SHA256 Access=" + v.AK + ", SignedHeaders=" + v.SignedHeaders + ", Signature=" + v.Signature
		}
	}
	return f.Vectors
}

// request returns the vector's request as a server receives it, without what signing adds.
func (v vector) request() *http.Request {
	r := httptest.NewRequest(v.Method, v.WireURI, strings.NewReader(v.Body))
	for k, s := range v.Headers {
		if k == "Host" {
			r.Host = s
		}
		r.Header.Set(k, s)
	}
	r.Header.Del("Host")
	for _, k := range []string{"Authorization", headerDate, headerContent, headerSecurity} {
		r.Header.Del(k)
	}
	return r
}

func (v vector) date(t testing.TB) time.Time {
	d, err := time.Parse(dateFormat, v.Headers[headerDate])
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			want, err := parseAuthorization(v.AuthorizationHeader)
			if err != nil {
				t.Fatal(err)
			}
			r := v.request()
			signed := strings.Split(want.signed, ";")
			if err := AccessKey(v.AK, v.SK, v.Headers[headerSecurity]).Sign(r, []byte(v.Body), v.date(t), signed...); err != nil {
				t.Fatal(err)
			}
			payload := r.Header.Get(headerContent)
			if payload != v.Headers[headerContent] {
				t.Errorf("payload header %q, want %q", payload, v.Headers[headerContent])
			}
			if payload == "" {
				payload = hashHex([]byte(v.Body))
			}
			canonical, err := canonicalRequest(r, signed, payload)
			if err != nil {
				t.Fatal(err)
			}
			if v.CanonicalRequest != "" && canonical != v.CanonicalRequest {
				t.Errorf("canonical request\n%s\nwant\n%s", canonical, v.CanonicalRequest)
			}
			if v.CanonicalRequestSHA256 != "" && hashHex([]byte(canonical)) != v.CanonicalRequestSHA256 {
				t.Errorf("canonical request\n%s\nhash %s", canonical, v.CanonicalRequestSHA256)
			}
			if got := stringToSign(r.Header.Get(headerDate), canonical); v.StringToSign != "" && got != v.StringToSign {
				t.Errorf("string to sign\n%s\nwant\n%s", got, v.StringToSign)
			}
			if got := r.Header.Get("Authorization"); got != v.AuthorizationHeader {
				t.Errorf("authorization\n%s\nwant\n%s", got, v.AuthorizationHeader)
			}

			// The vector's own headers verify, and nothing altered does.
			secret := func(ak string) (string, bool) { return v.SK, ak == v.AK }
			for _, name := range []string{headerDate, headerContent, headerSecurity} {
				if s := v.Headers[name]; s != "" {
					r.Header.Set(name, s)
				}
			}
			r.Header.Set("Authorization", v.AuthorizationHeader)
			for _, late := range []time.Duration{0, 15 * time.Minute, -15 * time.Minute} {
				if ak, err := Verify(r, []byte(v.Body), secret, v.date(t).Add(late)); err != nil || ak != v.AK {
					t.Errorf("%s late: access key %q, %v", late, ak, err)
				}
			}
			refuseAltered(t, v, r, signed, secret)
		})
	}
}

func refuseAltered(t *testing.T, v vector, good *http.Request, signed []string, secret func(string) (string, bool)) {
	t.Helper()
	now := v.date(t)
	refused := func(what string, alter func(*http.Request) (body []byte, at time.Time)) {
		t.Helper()
		r := good.Clone(t.Context())
		body, at := alter(r)
		var e *AuthError
		if ak, err := Verify(r, body, secret, at); !errors.As(err, &e) || ak != "" {
			t.Errorf("%s: access key %q, error %v", what, ak, err)
		} else if strings.Contains(err.Error(), v.SK) {
			t.Errorf("%s: secret in %v", what, err)
		}
	}
	body := []byte(v.Body)
	refused("late", func(*http.Request) ([]byte, time.Time) { return body, now.Add(15*time.Minute + time.Second) })
	refused("early", func(*http.Request) ([]byte, time.Time) { return body, now.Add(-15*time.Minute - time.Second) })
	refused("other method", func(r *http.Request) ([]byte, time.Time) { r.Method = "TRACE"; return body, now })
	refused("other path", func(r *http.Request) ([]byte, time.Time) { r.URL.Path += "x"; return body, now })
	refused("other query", func(r *http.Request) ([]byte, time.Time) { r.URL.RawQuery += "&x=1"; return body, now })
	refused("malformed query", func(r *http.Request) ([]byte, time.Time) { r.URL.RawQuery = "%zz"; return body, now })
	if v.Headers[headerContent] != unsignedPayload {
		refused("other body", func(*http.Request) ([]byte, time.Time) { return append(bytes.Clone(body), 'x'), now })
		// Taking the hash from the header alone would let anybody exchange the body.
		refused("other body, true hash in the header", func(r *http.Request) ([]byte, time.Time) {
			r.Header.Set(headerContent, hashHex(body))
			return append(bytes.Clone(body), 'x'), now
		})
	}
	for _, h := range signed {
		if h != "host" {
			refused("other "+h, func(r *http.Request) ([]byte, time.Time) { r.Header.Set(h, r.Header.Get(h)+"1"); return body, now })
			refused("without "+h, func(r *http.Request) ([]byte, time.Time) { r.Header.Del(h); return body, now })
		} else {
			refused("other host", func(r *http.Request) ([]byte, time.Time) { r.Host = "evil.example"; return body, now })
		}
	}
	a := good.Header.Get("Authorization")
	for _, other := range []string{"", "Basic x", a + "0", a[:len(a)-1], a[:len(a)-1] + "x", strings.Replace(a, v.AK, "AK2", 1), a + ", Access=b",
		strings.Replace(a, "x-sdk-date", "x-other", 1), strings.Replace(a, "x-sdk-date", "X-Sdk-Date", 1)} {
		refused("authorization "+other, func(r *http.Request) ([]byte, time.Time) { r.Header.Set("Authorization", other); return body, now })
	}
}

func TestSignTokenMode(t *testing.T) {
	r := httptest.NewRequest("GET", "/v2/cloudimages", nil)
	if err := Token("TOKEN").Sign(r, nil, time.Now()); err != nil {
		t.Fatal(err)
	}
	if r.Header.Get("X-Auth-Token") != "TOKEN" || r.Header.Get("Authorization") != "" || r.Header.Get(headerDate) != "" {
		t.Errorf("headers %v", r.Header)
	}
}

func TestSignRefuses(t *testing.T) {
	for name, c := range map[string]Credentials{
		"nobody": {}, "no key": AccessKey("", "sk", ""), "no secret": AccessKey("ak", "", ""), "empty token": Token(""),
		"line break": AccessKey("ak", "sk\n", ""), "blank token": Token("a b"),
	} {
		if err := c.Sign(httptest.NewRequest("GET", "/", nil), nil, time.Now()); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	big := make([]byte, maxSigned+1)
	if err := AccessKey("ak", "sk", "").Sign(httptest.NewRequest("POST", "/", nil), big, time.Now()); err == nil {
		t.Error("signed a body above 12 MB")
	}
	if err := Token("t").Sign(httptest.NewRequest("POST", "/", nil), big, time.Now()); err != nil {
		t.Errorf("token with a body above 12 MB: %v", err)
	}
}

// TestSignVerifyAgree holds client and verifier together on addresses that the vectors lack.
func TestSignVerifyAgree(t *testing.T) {
	c := AccessKey("AK", "SK", "")
	secret := func(string) (string, bool) { return "SK", true }
	for _, target := range []string{
		"/", "/v2/", "/a//b", "/a%2Fb", "/a+b%2B", "/%E4%B8%AD", "/x?b=2&a=1&b=1&a", "/x?a=%20+%2B&%3D=%26", "/x?a=1&a=1", "/x?",
	} {
		r := httptest.NewRequest("GET", target, nil)
		now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		if err := c.Sign(r, nil, now, "host"); err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(r, nil, secret, now); err != nil {
			t.Errorf("%s: %v", target, err)
		}
		q := r.URL.Query()
		r.URL.RawQuery = canonicalQuery(q)
		if got := r.URL.Query(); !slices.Equal(got["a"], slices.Sorted(slices.Values(q["a"]))) {
			t.Errorf("%s: canonical query %s reads back as %v, want %v", target, r.URL.RawQuery, got, q)
		}
		if _, err := Verify(r, nil, secret, now); err != nil {
			t.Errorf("%s, canonical on the wire: %v", target, err)
		}
	}
}
