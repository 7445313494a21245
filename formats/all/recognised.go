package all

import (
	"context"

	"imgferry/formats"
)

// mark is a string at a fixed place of a file.
type mark struct {
	offset int64 // from the start, or from the end if negative
	magic  string
}

// kind is a format that is known by sight only.
type kind struct {
	name string
	what string // in words, plural
	fix  string // what the user can do about it
	any  []mark
}

const unpackFirst = "unpack it first"

// recognised lists the marks. They are long or rare enough at their places that a raw disk, which
// begins with boot code or zeros, doesn't have them by chance. ISO 9660 is not among them: hybrid
// ISO files are raw disks, and so are written as they are.
var recognised = []kind{
	// LUKS On-Disk Format Specification 1.2.3, 2.1; LUKS2 begins alike.
	{"luks", "LUKS-encrypted disks", "decrypt it first", []mark{{0, "LUKS\xba\xbe"}}},
	// RFC 1952, 2.3.1: deflate is the only method there is.
	{"gz", "gzip files", unpackFirst, []mark{{0, "\x1f\x8b\x08"}}},
	// The .xz File Format 1.2, 2.1.1.1.
	{"xz", "xz files", unpackFirst, []mark{{0, "\xfd7zXZ\x00"}}},
	// RFC 8878, 3.1.1.
	{"zstd", "zstd files", unpackFirst, []mark{{0, "\x28\xb5\x2f\xfd"}}},
	// bzip2 has no specification: "BZh", the level, and the first block's mark (the digits of pi).
	{"bz2", "bzip2 files", unpackFirst, bzip2Marks()},
	// POSIX.1-2017, pax: ustar header; GNU tar has blanks for the version. (An OVA is one, and is opened before.)
	{"tar", "tar archives", unpackFirst, []mark{{257, "ustar\x0000"}, {257, "ustar  \x00"}}},
	// 7zFormat.txt of the 7-Zip sources.
	{"7z", "7-Zip archives", unpackFirst, []mark{{0, "7z\xbc\xaf\x27\x1c"}}},
	// PKWARE APPNOTE.TXT, 4.3.7: a local file header.
	{"zip", "zip archives", unpackFirst, []mark{{0, "PK\x03\x04"}}},
}

func bzip2Marks() []mark {
	var list []mark
	for level := byte('1'); level <= '9'; level++ {
		list = append(list, mark{0, "BZh" + string(level) + "\x31\x41\x59\x26\x53\x59"})
	}
	return list
}

// format is the entry for k in the table.
func (k kind) format() formats.Format {
	refusal := formats.Unsupported(k.name, -1, "%s are not read here: %s, or say --source-format raw if it really is a raw disk", k.what, k.fix)
	return formats.Format{
		Name:  k.name,
		Probe: k.probe,
		Open: func(context.Context, formats.Source, formats.Resolver) (formats.Image, error) {
			return nil, refusal
		},
		Info: func(context.Context, formats.Source) (formats.Info, error) {
			return formats.Info{Format: k.name, Problem: refusal}, nil
		},
	}
}

func (k kind) probe(src formats.Source) (bool, error) {
	for _, m := range k.any {
		p := make([]byte, len(m.magic))
		off := m.offset
		if off < 0 {
			off += src.Size()
		}
		if off < 0 || off > src.Size()-int64(len(p)) {
			continue
		}
		if err := formats.ReadFull(src, p, off); err != nil {
			return false, err
		}
		if string(p) == m.magic {
			return true, nil
		}
	}
	return false, nil
}
