package zvhd

import (
	"imgferry/formats"
	"imgferry/formats/hwstream"
)

// A file is a header, chunks in ascending order of their blocks, and a footer that is a copy of the
// header. Each starts at a multiple of page. All integers are little-endian.
const (
	// BlockSize is the unit of storage in bytes; nothing in the file says it.
	BlockSize = hwstream.BlockSize
	// MaxDiskSize is the largest disk in bytes that is written and read: 32 TiB, as for ZVHD2.
	MaxDiskSize = hwstream.MaxDiskSize
	// ChunkBound is the longest chunk in bytes that Writer makes.
	ChunkBound = hwstream.ChunkBound

	page   = hwstream.Page
	cookie = "stream\x00\x00"
	// offReserved is where the reserved bytes of a footer begin: up to its end they are zero.
	offReserved = 87
)

// appendFooter appends the header, or the footer, of a file.
func appendFooter(dst []byte, f hwstream.Footer) []byte { return f.Append(dst, cookie, nil) }

// checkFooter checks the bytes of a header: cookie, checksum, sizes, and what must be zero.
func checkFooter(b []byte) (hwstream.Footer, error) {
	if string(b[:len(cookie)]) != cookie {
		return hwstream.Footer{}, formats.Corrupt(name, 0, "no header where it must be")
	}
	if err := hwstream.CheckChecksum(name, b, 0, "header"); err != nil {
		return hwstream.Footer{}, err
	}
	f := hwstream.ParseFooter(b)
	size, err := f.CheckSize(name, 0)
	if err != nil {
		return f, err
	}
	if want := hwstream.CurrSize(size); f.CurrSize != want {
		return f, formats.Corrupt(name, hwstream.OffCurrSize, "size rounded up to 1 GiB is %d, not %d", f.CurrSize, want)
	}
	for i, v := range b[offReserved:hwstream.FooterSize] {
		if v != 0 {
			return f, formats.Corrupt(name, offReserved+int64(i), "the header is not zero where it must be")
		}
	}
	return f, nil
}
