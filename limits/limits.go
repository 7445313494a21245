// Package limits holds the image service's ranges and name rules as pure functions, so that a wrong
// request is refused before anything is sent, and the sandbox refuses it in the service's own words.
//
// It does no I/O and knows nothing of images or requests: package ims applies the rules to requests.
// The rules are those of the service's API reference (chapters 5.1.4, 9.1, 9.2 and appendix B); where its
// pages disagree the wider range holds.
package limits

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// MaxName is the longest image name, in characters (reference, 9.1).
	MaxName = 128
	// MaxDescription is the longest description, in characters (reference, 9.1).
	MaxDescription = 1024
	// MaxTagKey and MaxTagValue are the longest key and value of a tag, in characters (reference, 9.2).
	MaxTagKey, MaxTagValue = 36, 43
)

// Error is a broken rule: which, by what, and what to do about it.
type Error struct {
	// Code is the service's code for it, or "" where it has none.
	Code Code
	// Field is the request's field: "name", "min_disk".
	Field string
	// Finding is what is wrong, a clause: "the image name has 130 characters".
	Finding string
	// Advice is what to do, a clause: "use at most 128".
	Advice string
}

// Error returns one sentence.
func (e *Error) Error() string {
	s := e.Finding + ": " + e.Advice
	if e.Code != "" {
		s += " (" + string(e.Code) + ")"
	}
	return s
}

// Name checks an image's name: 1 to 128 letters, digits, '-', '.', '_' and spaces, no space at either end.
// Chinese characters pass, see NameWarning.
func Name(s string) error {
	n := utf8.RuneCountInString(s)
	switch {
	case s == "":
		return &Error{NameMissing, "name", "the image has no name", "give it one of 1 to 128 characters"}
	case n > MaxName:
		return &Error{NameTooLong, "name", fmt.Sprintf("the image name has %d characters", n), "use at most 128"}
	case s[0] == ' ' || s[len(s)-1] == ' ':
		return &Error{NameFormat, "name", fmt.Sprintf("the image name %s begins or ends with a space", quote(s)), "remove it"}
	}
	if at, bad := firstNot(s, func(r rune) bool { return wordRune(r) || r == '.' || r == ' ' }); bad != "" {
		return &Error{NameFormat, "name", fmt.Sprintf("the image name %s has %s at character %d", quote(s), bad, at),
			"use letters, digits, '-', '.', '_' and spaces"}
	}
	return nil
}

// NameWarning returns one sentence about a name that the reference doesn't promise to take, or "".
func NameWarning(s string) string {
	if strings.ContainsFunc(s, isHan) {
		return fmt.Sprintf("the image name %s has Chinese characters, which not every region takes", quote(s))
	}
	return ""
}

// Description checks an image's description: up to 1024 characters, no '<', '>', line breaks or other
// control characters. The empty one is fine.
func Description(s string) error {
	if n := utf8.RuneCountInString(s); n > MaxDescription {
		return &Error{DescriptionTooLong, "description", fmt.Sprintf("the description has %d characters", n), "use at most 1024"}
	}
	if at, bad := firstNot(s, func(r rune) bool { return r != '<' && r != '>' && !unicode.IsControl(r) }); bad != "" {
		return &Error{DescriptionFormat, "description", fmt.Sprintf("the description has %s at character %d", bad, at),
			"remove '<', '>', line breaks and control characters"}
	}
	return nil
}

// Tag checks a tag: the key has 1 to 36 and the value up to 43 letters, digits, '_', '-' and Chinese
// characters, the value also '.'.
func Tag(key, value string) error {
	if key == "" {
		return &Error{TagInvalid, "tags", "a tag has no key", "write KEY=VALUE with a key of 1 to 36 characters"}
	}
	if n := utf8.RuneCountInString(key); n > MaxTagKey {
		return &Error{TagInvalid, "tags", fmt.Sprintf("the tag key %s has %d characters", quote(key), n), "use at most 36"}
	}
	if n := utf8.RuneCountInString(value); n > MaxTagValue {
		return &Error{TagInvalid, "tags", fmt.Sprintf("the value of tag %s has %d characters", quote(key), n), "use at most 43"}
	}
	if at, bad := firstNot(key, wordRune); bad != "" {
		return &Error{TagInvalid, "tags", fmt.Sprintf("the tag key %s has %s at character %d", quote(key), bad, at),
			"use letters, digits, '_' and '-'"}
	}
	if at, bad := firstNot(value, func(r rune) bool { return wordRune(r) || r == '.' }); bad != "" {
		return &Error{TagInvalid, "tags", fmt.Sprintf("the value of tag %s has %s at character %d", quote(key), bad, at),
			"use letters, digits, '_', '-' and '.'"}
	}
	return nil
}

// SplitTag splits a tag of the form "key.value" at its first dot. Without one the value is empty (reference, 9.2).
func SplitTag(s string) (key, value string) {
	key, value, _ = strings.Cut(s, ".")
	return key, value
}

// wordRune reports what names and tags are made of: ASCII letters and digits, '-', '_' and Chinese.
func wordRune(r rune) bool {
	return alnum(r) || r == '-' || r == '_' || isHan(r)
}

func alnum(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

func isHan(r rune) bool { return unicode.Is(unicode.Han, r) }

// firstNot returns the number, from 1, of the first character that ok refuses, and its quoted form, or
// "". Bytes that are not UTF-8 are always refused.
func firstNot(s string, ok func(rune) bool) (at int, bad string) {
	for i, r := range s {
		at++
		if r == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 {
				return at, fmt.Sprintf("the byte 0x%02x, which is no UTF-8,", s[i])
			}
		}
		if !ok(r) {
			return at, fmt.Sprintf("%q", r)
		}
	}
	return 0, ""
}

// quote quotes s for a message and cuts it to a length that a line can hold.
func quote(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "..."
	}
	return fmt.Sprintf("%q", s)
}
