package formats

import (
	"errors"
	"fmt"
	"strings"
)

// The classes of failure. "Not of this format" is no error (Probe returns false), and a failed
// read is neither a bad image nor an unsupported one: it keeps the error of the source.
var (
	// ErrCorrupt: the image contradicts itself or its format.
	ErrCorrupt = errors.New("image is corrupt")
	// ErrUnsupported: the image may be fine, but uses what this program doesn't read.
	ErrUnsupported = errors.New("image is not supported")
	// ErrNotAllowed: reading on would follow a name found inside the image, and nobody allowed it.
	ErrNotAllowed = errors.New("not allowed")
	// ErrUnknown: no known format.
	ErrUnknown = errors.New("unknown image format")
	// ErrNoSnapshot: the image has no internal snapshot of the name or id asked for.
	ErrNoSnapshot = errors.New("no such snapshot")
)

// Error is a failure to read an image: what, where and of which class.
type Error struct {
	// Format is the format's name.
	Format string
	// Offset is where in the source the trouble lies, in bytes, or -1.
	Offset int64
	// What is the finding in a few words: "L1 table reaches past the end of the file".
	What string
	// Class is ErrCorrupt, ErrUnsupported, ErrNotAllowed, or the error of the read that failed.
	Class error
}

// Error returns one sentence: the format, the finding, the place.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Format)
	switch {
	case errors.Is(e.Class, ErrCorrupt):
		b.WriteString(": corrupt image: ")
	case errors.Is(e.Class, ErrUnsupported):
		b.WriteString(": unsupported: ")
	case errors.Is(e.Class, ErrNotAllowed):
		b.WriteString(": not allowed: ")
	default:
		b.WriteString(": ")
	}
	b.WriteString(e.What)
	if e.Offset >= 0 {
		fmt.Fprintf(&b, " (at file offset %d)", e.Offset)
	}
	if !errors.Is(e.Class, ErrCorrupt) && !errors.Is(e.Class, ErrUnsupported) && !errors.Is(e.Class, ErrNotAllowed) {
		b.WriteString(": ")
		b.WriteString(e.Class.Error())
	}
	return b.String()
}

// Unwrap returns the class, so that errors.Is finds it.
func (e *Error) Unwrap() error { return e.Class }

// BlamesImage reports whether err, which may be nil, says that the image is bad or not supported. All other
// errors are of the reading of it, or of what is allowed.
func BlamesImage(err error) bool { return errors.Is(err, ErrCorrupt) || errors.Is(err, ErrUnsupported) }

// Corrupt returns an Error of class ErrCorrupt. offset is in bytes from the start of the source,
// or -1 where there is none to name.
func Corrupt(format string, offset int64, what string, args ...any) error {
	return &Error{Format: format, Offset: offset, What: fmt.Sprintf(what, args...), Class: ErrCorrupt}
}

// Unsupported returns an Error of class ErrUnsupported.
func Unsupported(format string, offset int64, what string, args ...any) error {
	return &Error{Format: format, Offset: offset, What: fmt.Sprintf(what, args...), Class: ErrUnsupported}
}

// NotAllowed returns an Error of class ErrNotAllowed for a name that nobody allowed to follow.
func NotAllowed(format string, offset int64, what string, args ...any) error {
	return &Error{Format: format, Offset: offset, What: fmt.Sprintf(what, args...), Class: ErrNotAllowed}
}

// ReadFailed returns an Error whose class is err, the failure of a read of the source: errors.Is
// finds it, and none of the sentinels above.
func ReadFailed(format string, offset int64, what string, err error) error {
	return &Error{Format: format, Offset: offset, What: "can't read " + what, Class: err}
}
