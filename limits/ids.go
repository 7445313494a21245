package limits

import (
	"fmt"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxProperty is the longest name of a property of one's own, in characters (reference, 6.1.6).
const maxProperty = 255

// ID checks what identifies something of the service: up to 64 letters, digits, '-' and '_'. code is
// the service's code for a wrong one, field its field, and what it is in words.
func ID(s string, code Code, field, what string) error {
	if s == "" {
		return &Error{code, field, "the " + what + " is not named", "give its id"}
	}
	if len(s) > 64 || strings.ContainsFunc(s, func(r rune) bool { return !alnum(r) && r != '-' && r != '_' }) {
		return &Error{code, field, fmt.Sprintf("the %s %s is no id", what, quote(s)), "use letters, digits, '-' and '_', up to 64"}
	}
	return nil
}

// Property checks the name of an image's property in an update: 1 to 255 printable characters.
func Property(s string) error {
	if n := utf8.RuneCountInString(s); n == 0 || n > maxProperty || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return &Error{RequestFormat, "path", fmt.Sprintf("the property name %s is none", quote(s)), "use 1 to 255 printable characters"}
	}
	return nil
}

// IsISO reports whether a key names a file of ISO format, by its extension.
func IsISO(key string) bool { return strings.EqualFold(path.Ext(key), ".iso") }
