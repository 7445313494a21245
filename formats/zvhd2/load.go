package zvhd2

import (
	"context"

	"imgferry/bitmap"
	"imgferry/formats"
	"imgferry/formats/hwstream"
)

// load reads and checks everything but the chunks.
func load(ctx context.Context, src formats.Source) (footer, hwstream.Index, error) {
	t, err := readFooters(ctx, src)
	if err != nil {
		return t, nil, err
	}
	index, err := readIndex(ctx, src, t)
	return t, index, err
}

// readFooters reads the trailer and checks that it is sound and that the header and the end-of-data
// footer agree with it.
func readFooters(ctx context.Context, src formats.Source) (footer, error) {
	// Header, end of data, one segment of bitmap, trailer.
	const least = 4 * page
	size := src.Size()
	if size < least {
		return footer{}, formats.Corrupt(name, -1, "file of %d bytes is cut short: the least is %d", size, least)
	}
	if size > hwstream.MaxFileSize {
		return footer{}, formats.Unsupported(name, -1, "file of %d bytes: the most is %d", size, int64(hwstream.MaxFileSize))
	}
	pos := size - page
	b, err := readFooter(ctx, src, pos, "trailer")
	if err != nil {
		return footer{}, err
	}
	t := parseFooter(b)
	if err := hwstream.CheckChecksum(name, b, pos, "trailer"); err != nil {
		return footer{}, err
	}
	if err := t.check(b, pos); err != nil {
		return footer{}, err
	}

	b, err = readFooter(ctx, src, 0, "header")
	if err != nil {
		return footer{}, err
	}
	if err := hwstream.CheckChecksum(name, b, 0, "header"); err != nil {
		return footer{}, err
	}
	if err := agree(b, t.header(), 0, "header"); err != nil {
		return footer{}, err
	}

	// The reference writer leaves a wrong checksum in the end-of-data footer of every file with a
	// stored block, so it isn't looked at there; each other byte is.
	pos = int64(t.indexPos) - page
	b, err = readFooter(ctx, src, pos, "end-of-data footer")
	if err != nil {
		return footer{}, err
	}
	return t, agree(b, t.endOfData(), pos, "end-of-data footer")
}

// readFooter reads the footer structure at pos, and checks its cookie.
func readFooter(ctx context.Context, src formats.Source, pos int64, what string) ([]byte, error) {
	b := make([]byte, footerSize)
	if err := formats.ReadAt(ctx, name, src, b, pos, "the "+what); err != nil {
		return nil, err
	}
	if string(b[:len(cookie)]) != cookie {
		return nil, formats.Corrupt(name, pos, "no %s where it must be", what)
	}
	return b, nil
}

// agree checks that the footer structure b at pos is want, its checksum aside.
func agree(b []byte, want footer, pos int64, what string) error {
	for i, v := range want.append(nil)[:footerSize] {
		if b[i] != v && (i < hwstream.OffChecksum || i >= hwstream.OffUUID) {
			return formats.Corrupt(name, pos+int64(i), "byte %d of the %s doesn't agree with the trailer", i, what)
		}
	}
	return nil
}

// check checks the fields of a trailer, read from b at pos, against each other and against its
// place. What only describes (who wrote it and when, geometry, UUID) may be anything.
func (f footer) check(b []byte, pos int64) error {
	type field struct {
		off       int
		got, want uint64
		what      string
	}
	for _, c := range []field{
		{hwstream.OffFeatures, uint64(f.Features), hwstream.Features, "features"},
		{hwstream.OffVersion, uint64(f.Version), hwstream.FileVersion, "file format version"},
		{hwstream.OffDiskType, uint64(f.DiskType), hwstream.DiskType, "disk type"},
		{offAlign64, uint64(f.align64), 0, "align_64"},
		{offZVHD2Version, uint64(f.zvhd2Version), zvhd2Version, "zvhd2_version"},
		{offBlockSize, uint64(f.blockSize), BlockSize, "block size"},
	} {
		if c.got != c.want {
			return formats.Unsupported(name, pos+int64(c.off), "%s is %d, only %d is known", c.what, c.got, c.want)
		}
	}
	for i, v := range b[offReserved:] {
		if v != 0 {
			return formats.Unsupported(name, pos+offReserved+int64(i), "reserved bytes are in use")
		}
	}
	if f.method != methodZlib && f.method != methodZstd {
		return formats.Unsupported(name, pos+offMethod, "compression method %d", f.method)
	}
	if f.fullIndex > 1 {
		return formats.Unsupported(name, pos+offFullIndex, "index_contains_zero_blk is %d, only 0 and 1 are known", f.fullIndex)
	}
	size, err := f.CheckSize(name, pos)
	if err != nil {
		return err
	}
	blocks := bitmap.Blocks(size)
	if int64(f.stored) > blocks {
		return formats.Corrupt(name, pos+offStored, "%d stored blocks of a disk of %d blocks", f.stored, blocks)
	}
	// blocks and stored are now known to be right or small, so that nothing below overflows.
	indexSegs := segments(int64(f.stored), entriesPerSegment)
	if f.fullIndex != 0 {
		indexSegs = segments(blocks, entriesPerSegment)
	}
	bitmapSize := bitmap.StoredSize(blocks)
	indexSize := indexSegs * indexSegmentSize
	indexPos := pos - bitmapSize - indexSize
	for _, c := range []field{
		{hwstream.OffDataOffset, f.DataOffset, hwstream.NoDataOffset, "data offset"},
		{hwstream.OffCurrSize, f.CurrSize, hwstream.CurrSize(size), "size rounded up to 1 GiB"},
		{offMaxBlocks, uint64(f.maxBlocks), uint64(blocks), "number of blocks"},
		{offIndexSegSize, uint64(f.indexSegSize), indexSegmentSize, "index segment size"},
		{offBitmapSegSize, uint64(f.bitmapSegSize), bitmapSegmentSize, "bitmap segment size"},
		{offIndexSegs, uint64(f.indexSegs), uint64(indexSegs), "number of index segments"},
		{offBitmapSegs, uint64(f.bitmapSegs), uint64(bitmapSize / bitmapSegmentSize), "number of bitmap segments"},
		{offIndexSize, uint64(f.indexSize), uint64(indexSize), "index size"},
		{offBitmapSize, uint64(f.bitmapSize), uint64(bitmapSize), "bitmap size"},
		{offBitmapPos, f.bitmapPos, uint64(pos - bitmapSize), "bitmap position"},
		{offIndexPos, f.indexPos, uint64(indexPos), "index position"},
	} {
		if c.got != c.want {
			return formats.Corrupt(name, pos+int64(c.off), "%s is %d, not %d", c.what, c.got, c.want)
		}
	}
	// Room for the header, a page for each chunk, and the end-of-data footer.
	if need := (int64(f.stored) + 2) * page; indexPos%page != 0 || indexPos < need {
		return formats.Corrupt(name, pos+offIndexPos, "index position %d leaves no room for %d stored blocks before it", indexPos, f.stored)
	}
	return nil
}

// readIndex reads bitmap and index of the file with trailer t and checks that they tell the same
// blocks, and that the chunks fill the file from the header to the end-of-data footer.
func readIndex(ctx context.Context, src formats.Source, t footer) (hwstream.Index, error) {
	bits, err := readBitmap(ctx, src, t)
	if err != nil {
		return nil, err
	}
	// check has made sure that the file has room for that many chunks.
	index := make(hwstream.Index, 0, t.stored+1)
	next, end := uint64(page), t.indexPos-page // where the next chunk begins, and the data ends
	blocks := int64(0)                         // blocks below it are dealt with
	total := t.indexEntries()
	buf := make([]byte, min(total*indexEntrySize, indexSegmentSize))
	for i := range total {
		at := int64(t.indexPos) + i*indexEntrySize
		in := i % entriesPerSegment * indexEntrySize
		if in == 0 { // the unused end of the last segment may be garbage
			buf = buf[:min((total-i)*indexEntrySize, indexSegmentSize)]
			if err := formats.ReadAt(ctx, name, src, buf, at, "the index"); err != nil {
				return nil, err
			}
		}
		e := parseEntry(buf[in:])
		switch {
		case t.fullIndex != 0 && e.zero() && !bits.Get(i):
			continue
		case e.zero():
			return nil, formats.Corrupt(name, at, "index entry %d is empty, but its block is stored", i)
		case t.fullIndex != 0 && int64(e.block) != i:
			return nil, formats.Corrupt(name, at, "index entry %d names block %d", i, e.block)
		case int64(e.block) < blocks || int64(e.block) >= bits.Len():
			return nil, formats.Corrupt(name, at, "index entry %d names block %d, but blocks are in ascending order up to %d", i, e.block, bits.Len()-1)
		case !bits.Get(int64(e.block)):
			return nil, formats.Corrupt(name, at, "index entry %d names block %d, which the bitmap says isn't stored", i, e.block)
		case e.pos != next:
			return nil, formats.Corrupt(name, at, "index entry %d has its chunk at %d, but the chunk before it ends at %d", i, e.pos, next)
		case e.length%page != 0 || uint64(e.length) > end-next:
			return nil, formats.Corrupt(name, at, "index entry %d has a chunk of %d bytes, with %d left of the data", i, e.length, end-next)
		case e.length > hwstream.MaxChunk:
			return nil, formats.Unsupported(name, at, "index entry %d has a chunk of %d bytes: the most is %d", i, e.length, hwstream.MaxChunk)
		}
		index = append(index, hwstream.Ref{Block: e.block, Page: uint32(next / page)})
		next += uint64(e.length)
		blocks = int64(e.block) + 1
	}
	// As many entries as set bits, ascending, each with its bit set: each is the rank of its bit.
	if next != end {
		return nil, formats.Corrupt(name, int64(next), "the last chunk ends here, but the end-of-data footer is at %d", end)
	}
	return append(index, hwstream.Ref{Block: t.maxBlocks, Page: uint32(end / page)}), nil
}

// readBitmap reads the bitmap and checks that it has as many blocks as the trailer says.
func readBitmap(ctx context.Context, src formats.Source, t footer) (*bitmap.Bitmap, error) {
	pos := int64(t.bitmapPos)
	b := make([]byte, t.bitmapSize)
	if err := formats.ReadAt(ctx, name, src, b, pos, "the bitmap"); err != nil {
		return nil, err
	}
	bits, err := bitmap.Parse(b, int64(t.maxBlocks))
	if err != nil {
		return nil, formats.Corrupt(name, pos, "%v", err)
	}
	if n := bits.Count(); n != int64(t.stored) {
		return nil, formats.Corrupt(name, pos, "bitmap has %d stored blocks, the trailer %d", n, t.stored)
	}
	return bits, nil
}
