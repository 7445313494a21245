package mapped

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"

	"imgferry/formats"
)

// OpenParent opens the disk that a differencing disk differs from, by the name in ref. open is the
// format's own: it checks that the file is the one meant, and takes ownership of src only if it
// returns no error. The name is at offset at of the file, in bytes, or -1.
//
// It fails with ErrNotAllowed for names that are not followed, and all names if res is nil.
func OpenParent(ctx context.Context, format string, at int64, ref formats.Ref, res formats.Resolver,
	open func(src formats.Source, below formats.Resolver) (formats.Image, error)) (formats.Image, error) {
	if _, ok := SlashName(ref.Name); !ok {
		return nil, formats.NotAllowed(format, at, "the %s %q has a drive, a share or a root of Windows in its name, and no other name", ref.Kind, ref.Name)
	}
	if err := formats.CheckName(format, at, ref); err != nil {
		return nil, err
	}
	if res == nil {
		return nil, formats.NotAllowed(format, at, "the disk needs the %s %q", ref.Kind, ref.Name)
	}
	src, below, err := res.Resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	img, err := open(src, below)
	if err != nil {
		src.Close()
		return nil, err
	}
	return img, nil
}

// InFile adds the name of another file to err, whose offset counts in that file.
func InFile(file string, err error) error { return fmt.Errorf("in %q: %w", file, err) }

// SlashName returns a file name as Windows programs write it with slashes. It is not ok if it begins
// with a drive, a share or a backslash: which file that means depends on the machine.
func SlashName(name string) (slashed string, ok bool) {
	drive := len(name) >= 2 && name[1] == ':' && (name[0]|0x20 >= 'a' && name[0]|0x20 <= 'z')
	if drive || strings.HasPrefix(name, `\`) || strings.HasPrefix(name, "//") {
		return name, false
	}
	return strings.ReplaceAll(name, `\`, "/"), true
}

// BestName returns the first of several names of one file that SlashName can turn, with slashes; else
// the first that is not empty, as it is.
func BestName(names ...string) string {
	best := ""
	for _, name := range names {
		slashed, ok := SlashName(name)
		if ok && name != "" {
			return slashed
		}
		if best == "" {
			best = name
		}
	}
	return best
}

// DecodeName reads a file name in UTF-16, which NULs may follow. Those within it stay: CheckName refuses
// such a name. It is not ok if p is no UTF-16.
func DecodeName(p []byte, order binary.ByteOrder) (name string, ok bool) {
	var units []uint16
	for rest := p; len(rest) >= 2; rest = rest[2:] {
		units = append(units, order.Uint16(rest))
	}
	name = string(utf16.Decode(units))
	ok = len(p)%2 == 0 && slices.Equal(utf16.Encode([]rune(name)), units) // half a pair decodes as something else
	return strings.TrimRight(name, "\x00"), ok
}
