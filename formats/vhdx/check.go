package vhdx

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"imgferry/formats"
	"imgferry/formats/mapped"
)

// check looks at both headers and region tables, and for blocks that lie outside the file or over
// something else. Memory is that of open.
func check(ctx context.Context, src formats.Source, found func(formats.Finding)) (formats.Checked, error) {
	s, err := readStructure(ctx, src)
	if err != nil {
		return formats.Checked{}, err
	}
	if err := s.checkCopies(ctx, found); err != nil {
		return formats.Checked{}, err
	}
	return s.verify(ctx, func(f formats.Finding) error { found(f); return nil })
}

// checkCopies says what is wrong with the header and the region table that are not needed.
func (s *structure) checkCopies(ctx context.Context, found func(formats.Finding)) error {
	for _, off := range headerOffsets {
		_, good, err := headerAt(ctx, s.src, off)
		if err != nil {
			return err
		}
		if !good {
			found(formats.Finding{Offset: off, What: "one of the two headers is damaged"})
		}
	}
	for _, off := range regionTableOffsets {
		list, good, err := regionsAt(ctx, s.src, off)
		switch {
		case err != nil:
			return err
		case !good:
			found(formats.Finding{Offset: off, What: "one of the two region tables is damaged"})
		case !slices.EqualFunc(list, s.regions, func(a, b region) bool { a.at = b.at; return a == b }):
			found(formats.Finding{Offset: off, What: "the two region tables differ"})
		}
	}
	return nil
}

// verifier goes through the block allocation table.
type verifier struct {
	*structure
	used  []uint64 // a bit for each unit of the file
	found func(formats.Finding) error
	formats.Checked
	next int64 // where the block would lie that follows the last one stored
	// partial is whether a block of the chunk at hand is partially present: it needs the sector bitmap.
	partial bool
	bitmaps *formats.Tables
}

// verify reports blocks in an unknown state, outside the file, or over something else, and counts
// what is stored. It ends with the first error that found returns.
func (s *structure) verify(ctx context.Context, found func(formats.Finding) error) (formats.Checked, error) {
	v := &verifier{structure: s, used: make([]uint64, s.fileSize/unit/64+1), found: found, bitmaps: formats.NewTables(ctx, name, s.src)}
	v.Clusters = s.blocks()
	v.take(0, headerSection)
	if s.log.size > 0 {
		v.takeExtent(s.log)
	}
	for _, r := range s.regions {
		v.takeExtent(r.extent)
	}
	p := make([]byte, sliceBytes)
	for off, end := int64(0), s.entries()*8; off < end; off += sliceBytes {
		p := p[:min(sliceBytes, end-off)]
		if err := formats.ReadAt(ctx, name, s.src, p, s.entryAt(off/8), "the block allocation table"); err != nil {
			return v.Checked, err
		}
		for i := int64(0); i < int64(len(p)); i += 8 {
			if err := v.entry((off+i)/8, binary.LittleEndian.Uint64(p[i:])); err != nil {
				return v.Checked, err
			}
		}
	}
	return v.Checked, nil
}

// takeExtent marks what of e lies in the file.
func (v *verifier) takeExtent(e extent) {
	if e.off < uint64(v.fileSize) {
		v.take(int64(e.off), int64(min(e.size, uint64(v.fileSize)-e.off)))
	}
}

// take marks the n bytes at off, which lie in the file and start on a unit. It reports whether all
// of them were free.
func (v *verifier) take(off, n int64) bool {
	v.End = max(v.End, off+n)
	for u := off / unit; u*unit < off+n; u++ {
		if v.used[u/64]&(1<<(u%64)) != 0 {
			return false
		}
		v.used[u/64] |= 1 << (u % 64)
	}
	return true
}

// entry looks at entry index of the table.
func (v *verifier) entry(index int64, e uint64) error {
	if e == stateNotPresent && !v.partial { // most of the entries of most images
		return nil
	}
	chunk := int64(1)<<v.chunkBits() + 1 // entries
	if index%chunk == chunk-1 {
		return v.bitmapEntry(index, e)
	}
	i := index - index/chunk
	if i >= v.blocks() {
		return nil // the rest of a differencing disk's last chunk
	}
	b, what := v.parseEntry(e)
	if what == "" && b.kind == mapped.Data {
		what = v.place(b.host, min(int64(v.blockSize), int64(v.size)-i*int64(v.blockSize)))
	}
	if what != "" {
		return v.found(formats.Finding{Offset: v.entryAt(index), What: v.entryFault(i, what)})
	}
	if b.kind != mapped.Data {
		return nil
	}
	v.partial = v.partial || b.partial
	if v.Allocated > 0 && b.host != v.next {
		v.Fragmented++
	}
	v.Allocated++
	v.next = b.host + int64(v.blockSize)
	return nil
}

// bitmapEntry looks at the entry of a sector bitmap block. Only differencing disks have those, and those
// that are needed must be there (2.5.1.2).
func (v *verifier) bitmapEntry(index int64, e uint64) error {
	needed := v.partial
	v.partial = false
	f, what := formats.Finding{Offset: v.entryAt(index)}, ""
	switch state := e & stateMask; {
	case state == stateNotPresent && !needed:
		return nil
	case !v.hasParent:
		f.Leak, f.What = true, "a sector bitmap is stored, which only differencing disks use"
		return v.found(f)
	case state == stateNotPresent:
		what = "is missing, but blocks are partially present"
	case state != statePresent:
		what = fmt.Sprintf("has the unknown state %d", state)
	default:
		if what = v.place(entryOffset(e), bitmapBlockBytes); what == "" {
			// Bitmaps in a hole of the file cost nobody anything to make, and much to read.
			_, err := v.bitmaps.Add(entryOffset(e), bitmapBlockBytes, v.entryAt(index))
			return err
		}
	}
	f.What = fmt.Sprintf("the sector bitmap in entry %d %s", index, what)
	return v.found(f)
}

// place takes the n bytes at off, or says why it can't.
func (v *verifier) place(off, n int64) (what string) {
	switch {
	case off > v.fileSize-n:
		return fmt.Sprintf("lies at %d, past the end of the file", off)
	case !v.take(off, n):
		return fmt.Sprintf("lies at %d, over something else", off)
	}
	return ""
}

// entryFault is what in a sentence about block i.
func (d *disk) entryFault(i int64, what string) string {
	return fmt.Sprintf("the block for disk offset %d %s", i*int64(d.blockSize), what)
}
