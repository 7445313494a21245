package objectstore

import "net/url"

const upperHex = "0123456789ABCDEF"

// escape is the URI encoding of Signature Version 4: everything but A-Z a-z 0-9 - . _ ~ becomes
// %XX. keepSlash leaves / as it is, as in paths.
func escape(s string, keepSlash bool) string {
	out := make([]byte, 0, len(s)+len(s)/4)
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			c == '-', c == '.', c == '_', c == '~', c == '/' && keepSlash:
			out = append(out, c)
		default:
			out = append(out, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return string(out)
}

// unescape undoes escape.
func unescape(s string) (string, error) { return url.PathUnescape(s) }
