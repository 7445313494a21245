package imageservice

import (
	"bytes"
	"context"
	"fmt"

	"imgferry/bitmap"
	"imgferry/formats"
)

// signatures are the bytes by which other image formats are known, at offsets from the start of the file
// or, where negative, from its end.
var signatures = []struct {
	name   string
	offset int64
	magic  string
}{
	{"QCOW or QCOW2", 0, "QFI\xfb"},
	{"QED", 0, "QED\x00"},
	{"VMDK", 0, "KDMV"},
	{"VMDK", 0, "COWD"},
	{"VMDK", 0, "# Disk DescriptorFile"},
	{"VHDX", 0, "vhdxfile"},
	{"VHD", 0, "conectix"},
	{"VHD", -512, "conectix"}, // fixed disks have only the footer
	{"VDI", 64, "\x7f\x10\xda\xbe"},
	{"ZVHD", 0, "stream\x00\x00"},
}

// foreign returns the name of the image format that src is of, or "" if it knows none.
func foreign(src formats.Source) (string, error) {
	for _, s := range signatures {
		at := s.offset
		if at < 0 {
			at += src.Size()
		}
		if at < 0 || at+int64(len(s.magic)) > src.Size() {
			continue
		}
		b := make([]byte, len(s.magic))
		if err := formats.ReadFull(src, b, at); err != nil {
			return "", fmt.Errorf("can't read it at offset %d: %w", at, err)
		}
		if bytes.Equal(b, []byte(s.magic)) {
			return s.name, nil
		}
	}
	return "", nil
}

// readBitmap reads a bitmap file for a disk of that many blocks.
func readBitmap(mf formats.Source, blocks int64) (*bitmap.Bitmap, error) {
	// At most 64 KiB: files above 1 TiB have been refused.
	if want := bitmap.StoredSize(blocks); mf.Size() != want {
		return nil, fmt.Errorf("the bitmap has %d bytes, %d blocks of 2 MiB need %d", mf.Size(), blocks, want)
	}
	b := make([]byte, mf.Size())
	if err := formats.ReadFull(mf, b, 0); err != nil {
		return nil, fmt.Errorf("can't read the bitmap: %w", err)
	}
	return bitmap.Parse(b, blocks)
}

// checkRaw holds a raw disk against its bitmap: a set bit stands for a block with a byte other than zero, a
// clear one for a block of zeros. Holes of the source are not read.
func checkRaw(ctx context.Context, src formats.Source, bits *bitmap.Bitmap, progress func(done, total int64)) error {
	scan := scanner{src: src, buf: make([]byte, 256<<10)}
	for i := range bits.Len() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		start := i * bitmap.BlockSize
		data, err := scan.hasData(start, min(start+bitmap.BlockSize, src.Size()))
		switch {
		case err != nil:
			return err
		case data && !bits.Get(i):
			return fmt.Errorf("block %d, at offset %d, holds data, but the bitmap says it is empty", i, start)
		case !data && bits.Get(i):
			return fmt.Errorf("block %d, at offset %d, is empty, but the bitmap says it holds data", i, start)
		}
		if i%512 == 511 || i == bits.Len()-1 { // each GiB
			progress(i+1, bits.Len())
		}
	}
	return nil
}

// scanner looks for bytes other than zero, front to back.
type scanner struct {
	src        formats.Source
	buf        []byte
	start, end int64 // the last run of data that the source named; nothing but holes before it
}

// hasData reports whether any byte of [from, to) is not zero.
func (s *scanner) hasData(from, to int64) (bool, error) {
	for from < to {
		if from >= s.end {
			if err := s.nextRun(from); err != nil {
				return false, err
			}
		}
		if s.start >= to {
			return false, nil
		}
		from = max(from, s.start)
		p := s.buf[:min(int64(len(s.buf)), to-from, s.end-from)]
		if err := formats.ReadFull(s.src, p, from); err != nil {
			return false, fmt.Errorf("can't read it at offset %d: %w", from, err)
		}
		if !bitmap.IsZero(p) {
			return true, nil
		}
		from += int64(len(p))
	}
	return false, nil
}

// nextRun asks for the first run of data at or after off.
func (s *scanner) nextRun(off int64) error {
	s.start, s.end = off, s.src.Size()
	h, ok := s.src.(formats.HoleFinder)
	if !ok {
		return nil
	}
	start, end, err := h.NextData(off)
	if err != nil {
		return fmt.Errorf("can't find its data after offset %d: %w", off, err)
	}
	if start < off || end < start || end > s.src.Size() || start == end && end != s.src.Size() {
		return fmt.Errorf("its holes are told wrongly after offset %d", off)
	}
	s.start, s.end = start, end
	return nil
}
