package uploadtest

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// clock is the transport of a client whose clock shows another time: it signs requests again with
// that time (AWS Signature Version 4, header "Authorization").
type clock struct {
	http.RoundTripper
	now            time.Time
	secret, region string
}

func (c *clock) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	stamp := c.now.UTC().Format("20060102T150405Z")
	r.Header.Set("X-Amz-Date", stamp)
	access, names, err := parseAuthorization(r.Header.Get("Authorization"))
	if err != nil {
		return nil, err
	}
	var headers strings.Builder
	for _, name := range names {
		value := r.Header.Get(name)
		switch name {
		case "host":
			value = r.URL.Host
		case "content-length":
			value = fmt.Sprint(r.ContentLength)
		}
		fmt.Fprintf(&headers, "%s:%s\n", name, value)
	}
	var query []string
	for name, values := range r.URL.Query() {
		for _, v := range values {
			query = append(query, url.QueryEscape(name)+"="+strings.ReplaceAll(url.QueryEscape(v), "+", "%20"))
		}
	}
	slices.Sort(query)
	canonical := strings.Join([]string{
		r.Method, r.URL.EscapedPath(), strings.Join(query, "&"), headers.String(), strings.Join(names, ";"), r.Header.Get("X-Amz-Content-Sha256"),
	}, "\n")
	scope := stamp[:8] + "/" + c.region + "/s3/aws4_request"
	text := fmt.Sprintf("AWS4-HMAC-SHA256\n%s\n%s\n%x", stamp, scope, sha256.Sum256([]byte(canonical)))
	key := []byte("AWS4" + c.secret)
	for _, s := range strings.Split(scope, "/") {
		key = mac(key, s)
	}
	r.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%x",
		access, scope, strings.Join(names, ";"), mac(key, text)))
	return c.RoundTripper.RoundTrip(r)
}

// parseAuthorization returns the access key and the names of the signed headers.
func parseAuthorization(v string) (access string, headers []string, err error) {
	_, rest, ok := strings.Cut(v, "Credential=")
	access, rest, ok2 := strings.Cut(rest, "/")
	_, rest, ok3 := strings.Cut(rest, "SignedHeaders=")
	list, _, ok4 := strings.Cut(rest, ",")
	if !ok || !ok2 || !ok3 || !ok4 {
		return "", nil, fmt.Errorf("the header Authorization is %q", v)
	}
	return access, strings.Split(list, ";"), nil
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
