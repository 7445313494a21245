package limits

import (
	"fmt"
	"net/netip"
	"path"
	"strings"
	"unicode"
)

// MaxKey is the longest object key, in bytes of UTF-8 (S3 and OBS).
const MaxKey = 1024

// Bucket checks the name of a bucket by the rules of S3 and OBS: 3 to 63 lower-case letters, digits, '-'
// and '.', a letter or digit at both ends, no '.' beside '.' or '-', no IP address.
func Bucket(name string) error {
	bad := func(finding, advice string) error {
		return &Error{BucketFormat, "image_url", fmt.Sprintf("the bucket name %s %s", quote(name), finding), advice}
	}
	if name == "" {
		return &Error{BucketMissing, "image_url", "no bucket is named", "name one"}
	}
	if len(name) < 3 || len(name) > 63 {
		return bad(fmt.Sprintf("has %d characters", len(name)), "bucket names have 3 to 63")
	}
	lower := func(r rune) bool { return alnum(r) && (r < 'A' || r > 'Z') }
	if at, c := firstNot(name, func(r rune) bool { return lower(r) || r == '-' || r == '.' }); c != "" {
		return bad(fmt.Sprintf("has %s at character %d", c, at), "use lower-case letters, digits, '-' and '.'")
	}
	if !lower(rune(name[0])) || !lower(rune(name[len(name)-1])) {
		return bad("does not begin and end with a letter or digit", "change its ends")
	}
	for _, pair := range []string{"..", ".-", "-."} {
		if strings.Contains(name, pair) {
			return bad(fmt.Sprintf("holds %q", pair), "put a letter or digit between")
		}
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return bad("is an IP address", "use a name")
	}
	return nil
}

// ObjectKey checks the key of an image file: 1 to 1024 bytes of UTF-8, no spaces (IMG.0175), no control
// characters or backslashes, no empty, "." or ".." step between slashes.
func ObjectKey(key string) error {
	bad := func(code Code, finding, advice string) error {
		return &Error{code, "image_url", fmt.Sprintf("the object key %s %s", quote(key), finding), advice}
	}
	switch {
	case key == "":
		return &Error{URLFormat, "image_url", "no object is named", "give the image file's key in the bucket"}
	case len(key) > MaxKey:
		return bad(KeyTooLong, fmt.Sprintf("has %d bytes", len(key)), "use at most 1024")
	case strings.ContainsFunc(key, unicode.IsSpace):
		return bad(KeySpaces, "holds a space", "replace it")
	}
	// Such keys can be stored, but consoles and tools that read them as paths can't reach them.
	if at, c := firstNot(key, func(r rune) bool { return !unicode.IsControl(r) && r != '\\' }); c != "" {
		return bad(KeyFormat, fmt.Sprintf("has %s at character %d", c, at), "remove it")
	}
	for step := range strings.SplitSeq(key, "/") {
		if step == "" || step == "." || step == ".." {
			return bad(KeyFormat, fmt.Sprintf("has the step %q between its slashes", step), "remove it")
		}
	}
	return nil
}

// BitmapKey returns the key of the bitmap file that a fast import of a raw disk expects: the same bucket
// and base name, with the extension .mf.
func BitmapKey(key string) string {
	return strings.TrimSuffix(key, path.Ext(key)) + ".mf"
}

// ImageURL returns the image_url of an object: "BUCKET:KEY".
func ImageURL(bucket, key string) string { return bucket + ":" + key }

// SplitImageURL returns the parts of an image_url, both checked.
func SplitImageURL(s string) (bucket, key string, err error) {
	bucket, key, ok := strings.Cut(s, ":")
	if !ok {
		return "", "", &Error{URLFormat, "image_url", fmt.Sprintf("the image's address %s has no colon", quote(s)), "write BUCKET:KEY"}
	}
	if err := Bucket(bucket); err != nil {
		return "", "", err
	}
	if err := ObjectKey(key); err != nil {
		return "", "", err
	}
	return bucket, key, nil
}
