package formats_test

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"imgferry/formats"
)

func ExampleCorrupt() {
	err := formats.Corrupt("qcow2", 4096, "L1 table has %d entries", 7)
	fmt.Println(err)
	fmt.Println(errors.Is(err, formats.ErrCorrupt))
	// Output:
	// qcow2: corrupt image: L1 table has 7 entries (at file offset 4096)
	// true
}

func TestErrors(t *testing.T) {
	classes := []error{formats.ErrCorrupt, formats.ErrUnsupported, formats.ErrNotAllowed, formats.ErrUnknown, fs.ErrPermission}
	for _, c := range []struct {
		err   error
		class error
		text  string
	}{
		{formats.Corrupt("f", 0, "no %s", "end"), formats.ErrCorrupt, "f: corrupt image: no end (at file offset 0)"},
		{formats.Unsupported("f", -1, "version %d", 9), formats.ErrUnsupported, "f: unsupported: version 9"},
		{formats.NotAllowed("f", 8, "it needs %q", "/etc/passwd"), formats.ErrNotAllowed, `f: not allowed: it needs "/etc/passwd" (at file offset 8)`},
		{formats.ReadFailed("f", 512, "the header", fs.ErrPermission), fs.ErrPermission, "f: can't read the header (at file offset 512): permission denied"},
	} {
		if got := c.err.Error(); got != c.text {
			t.Errorf("%q, want %q", got, c.text)
		}
		wrapped := fmt.Errorf("opening: %w", c.err)
		for _, class := range classes {
			if got := errors.Is(wrapped, class); got != (class == c.class) {
				t.Errorf("%q is %q: %v", c.text, class, got)
			}
		}
		var e *formats.Error
		if !errors.As(wrapped, &e) || e.Format != "f" {
			t.Errorf("%q is no *Error", c.text)
		}
	}
}

func TestRefKind(t *testing.T) {
	for k, want := range map[formats.RefKind]string{
		formats.Backing: "backing file", formats.ExtentOf: "extent file", formats.Parent: "parent disk",
		formats.DataFile: "external data file", 99: "file",
	} {
		if got := k.String(); got != want {
			t.Errorf("%d: %q", k, got)
		}
	}
}
