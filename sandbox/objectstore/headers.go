package objectstore

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	metaPrefix         = "x-amz-meta-"
	storageClassHeader = "x-amz-storage-class"
	defaultType        = "binary/octet-stream"
)

// keptHeaders are stored with an object and sent back with it.
var keptHeaders = []string{
	"cache-control", "content-disposition", "content-encoding", "content-language", "content-type", "expires",
	storageClassHeader,
}

// refusedPrefixes begin headers that ask for what the store can't give, and that would be a lie to
// ignore.
var refusedPrefixes = []string{
	"x-amz-server-side-encryption", "x-amz-copy-source-server-side-encryption", "x-amz-object-lock-",
	"x-amz-website-redirect-location", "x-amz-grant-", "x-amz-write-offset-bytes",
}

// refusedHeader fails if a header asks for what the store has not got.
func refusedHeader(h http.Header) error {
	for name := range h {
		lower := strings.ToLower(name)
		for _, prefix := range refusedPrefixes {
			if strings.HasPrefix(lower, prefix) {
				return errNotImplemented.because("The store does not implement the header " + lower)
			}
		}
	}
	switch acl := h.Get("X-Amz-Acl"); acl {
	case "", "private", "bucket-owner-read", "bucket-owner-full-control":
		return nil
	default:
		return errNotImplemented.because("The store does not implement the canned policy " + acl)
	}
}

// objectHeader returns what a request wants to be kept with an object. Names are lower-case.
func objectHeader(h http.Header) (map[string]string, error) {
	if err := refusedHeader(h); err != nil {
		return nil, err
	}
	out := make(map[string]string)
	for _, name := range keptHeaders {
		if v := strings.Join(h.Values(name), ","); v != "" {
			out[name] = v
		}
	}
	// aws-chunked is the coding of the transfer, not of the object.
	if enc := withoutChunked(out["content-encoding"]); enc != "" {
		out["content-encoding"] = enc
	} else {
		delete(out, "content-encoding")
	}
	switch class := out[storageClassHeader]; {
	case class == "STANDARD":
		delete(out, storageClassHeader)
	case strings.Trim(class, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") != "":
		return nil, errStorageClass
	}
	total := 0
	for name, values := range h {
		lower := strings.ToLower(name)
		if meta, ok := strings.CutPrefix(lower, metaPrefix); ok {
			out[lower] = strings.Join(values, ",")
			total += len(meta) + len(out[lower])
		}
	}
	if total > maxMetadata {
		return nil, errMetadataTooLarge
	}
	for name, v := range out {
		if !utf8.ValidString(name) || !utf8.ValidString(v) {
			return nil, errInvalidArgument.because("A header's value is not valid UTF-8")
		}
	}
	return out, nil
}

func withoutChunked(encodings string) string {
	var out []string
	for e := range strings.SplitSeq(encodings, ",") {
		if e = strings.TrimSpace(e); e != "" && e != "aws-chunked" {
			out = append(out, e)
		}
	}
	return strings.Join(out, ",")
}

func storageClass(header map[string]string) string {
	if c := header[storageClassHeader]; c != "" {
		return c
	}
	return "STANDARD"
}

// checkTags applies S3's limits: 10 tags, keys of 128 and values of 256 characters, no key twice.
func checkTags(tags []tag) error {
	seen := make(map[string]bool)
	for _, t := range tags {
		if t.Key == "" || seen[t.Key] || utf8.RuneCountInString(t.Key) > 128 || utf8.RuneCountInString(t.Value) > 256 {
			return errTag
		}
		seen[t.Key] = true
	}
	if len(tags) > 10 {
		return errTag.because("An object has at most 10 tags")
	}
	return nil
}

// headerTags reads an x-amz-tagging header: tags as a query string.
func headerTags(h http.Header) ([]tag, error) {
	var tags []tag
	for pair := range strings.SplitSeq(h.Get("X-Amz-Tagging"), "&") {
		if pair == "" {
			continue
		}
		k, v, _ := strings.Cut(pair, "=")
		key, kerr := url.QueryUnescape(k)
		value, verr := url.QueryUnescape(v)
		if kerr != nil || verr != nil {
			return nil, errTag
		}
		tags = append(tags, tag{key, value})
	}
	return tags, checkTags(tags)
}

// writeCondition reads the conditions of a write.
func writeCondition(h http.Header) precondition {
	return precondition{ifMatch: h.Get("If-Match"), ifNoneMatch: h.Get("If-None-Match")}
}

// etagMatches reports whether a list of ETags, as HTTP conditions have it, names etag.
func etagMatches(list, etag string) bool {
	for e := range strings.SplitSeq(list, ",") {
		e = strings.TrimPrefix(strings.TrimSpace(e), "W/")
		if e == "*" || trimETag(e) == etag {
			return true
		}
	}
	return false
}

// readConditions applies the four conditions of a read, in RFC 9110's order; prefix is empty or
// x-amz-copy-source-. It returns errPrecondition or errNotModified.
func readConditions(h http.Header, prefix, etag string, modified time.Time) error {
	modified = modified.Truncate(time.Second) // HTTP dates know no more
	date := func(name string) (time.Time, bool) {
		t, err := http.ParseTime(h.Get(prefix + name))
		return t, err == nil
	}
	if m := h.Get(prefix + "If-Match"); m != "" {
		if !etagMatches(m, etag) {
			return errPrecondition
		}
	} else if t, ok := date("If-Unmodified-Since"); ok && modified.After(t) {
		return errPrecondition
	}
	if m := h.Get(prefix + "If-None-Match"); m != "" {
		if etagMatches(m, etag) {
			return errNotModified
		}
	} else if t, ok := date("If-Modified-Since"); ok && !modified.After(t) {
		return errNotModified
	}
	return nil
}

// parseRange reads a Range header of one range and returns what it selects of size bytes. ok is
// false if there is none that S3 heeds: then the whole object is meant.
func parseRange(header string, size int64) (off, n int64, ok bool, err error) {
	spec, found := strings.CutPrefix(header, "bytes=")
	first, last, dash := strings.Cut(strings.TrimSpace(spec), "-")
	if !found || !dash || strings.Contains(spec, ",") {
		return 0, size, false, nil
	}
	if first == "" {
		n, perr := parsePosition(last)
		if perr != nil {
			return 0, size, false, nil
		}
		n = min(n, size)
		if n == 0 {
			return 0, 0, false, errInvalidRange
		}
		return size - n, n, true, nil
	}
	off, perr := parsePosition(first)
	if perr != nil {
		return 0, size, false, nil
	}
	end := size
	if last != "" {
		e, perr := parsePosition(last)
		if perr != nil || e < off {
			return 0, size, false, nil
		}
		end = min(e, size-1) + 1
	}
	if off >= size {
		return 0, 0, false, errInvalidRange
	}
	return off, end - off, true, nil
}

// parsePosition reads digits that may mean more bytes than any object has (RFC 9110, section 14.1.1, sets no
// limit): such a position is past every end.
func parsePosition(s string) (int64, error) {
	n, err := parseOffset(s)
	if errors.Is(err, strconv.ErrRange) {
		return math.MaxInt64, nil
	}
	return n, err
}

// parseOffset reads digits; the numbers of HTTP ranges have no sign.
func parseOffset(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err
}

// parseCopyRange reads x-amz-copy-source-range, bytes=FIRST-LAST, for a source of size bytes.
// S3 refuses a range that reaches past the end, other stores shorten it.
func parseCopyRange(header string, size int64, clamp bool) (off, n int64, err error) {
	bad := errInvalidArgument.because("The x-amz-copy-source-range must be bytes=first-last")
	spec, found := strings.CutPrefix(header, "bytes=")
	first, last, dash := strings.Cut(spec, "-")
	if !found || !dash {
		return 0, 0, bad
	}
	off, ferr := parsePosition(first)
	end, lerr := parsePosition(last)
	if ferr != nil || lerr != nil || end < off {
		return 0, 0, bad
	}
	if clamp {
		end = min(end, size-1)
	}
	if off >= size || end >= size {
		return 0, 0, errInvalidArgument.because(fmt.Sprintf("The range %.60s is not inside the source of %d bytes", header, size))
	}
	return off, end - off + 1, nil
}

// parseCopySource reads x-amz-copy-source: [/]BUCKET/KEY, URI-encoded, with an optional version.
func parseCopySource(header string) (bucket, key string, err error) {
	path, version, _ := strings.Cut(header, "?versionId=")
	if version != "" && version != "null" {
		return "", "", errNoSuchVersion
	}
	path, uerr := url.PathUnescape(strings.TrimPrefix(path, "/"))
	bucket, key, ok := strings.Cut(path, "/")
	if uerr != nil || !ok || bucket == "" || key == "" {
		return "", "", errInvalidArgument.because("The x-amz-copy-source must be bucket/key")
	}
	return bucket, key, checkKey(key)
}
