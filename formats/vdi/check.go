package vdi

import (
	"context"

	"imgferry/bitmap"
	"imgferry/formats"
)

// check finds blocks that are stored outside the file or twice in one place, and compares the
// header's count of stored blocks with the map.
func check(ctx context.Context, src formats.Source, found func(formats.Finding)) (formats.Checked, error) {
	h, err := readHeader(ctx, src)
	if err != nil {
		return formats.Checked{}, err
	}
	t := &table{fileSize: src.Size(), header: h}
	if t.blockMap, err = h.readMap(ctx, src); err != nil {
		return formats.Checked{}, err
	}
	blocks := int64(h.blocks)
	result := formats.Checked{Clusters: blocks, End: int64(h.dataOffset)}
	used := bitmap.New(blocks) // stored blocks
	var inRange int64
	last := int64(-1)
	for i := range blocks {
		e := int64(t.entry(i))
		if e >= entryDiscarded {
			continue
		}
		at := int64(h.mapOffset) + i*entrySize
		result.Allocated++
		if last >= 0 && e != last+1 {
			result.Fragmented++
		}
		last = e
		if e >= blocks {
			// No writer stores more blocks than the disk has.
			found(formats.Finding{Offset: at, What: "a block is stored beyond the last place for blocks"})
			continue
		}
		inRange++
		switch {
		case used.Get(e):
			found(formats.Finding{Offset: at, What: "a block is stored where another one is"})
		case i*h.block() < int64(h.diskSize) && !h.inFile(uint32(e), i*h.block(), t.fileSize):
			found(formats.Finding{Offset: at, What: "a block is stored past the end of the file"})
		}
		used.Set(e)
		result.End = max(result.End, min(h.host(uint32(e))+h.block(), t.fileSize))
	}
	if inRange != int64(h.allocated) {
		found(formats.Finding{Offset: offBlocksAllocated, What: "the header's count of stored blocks is not that of the map"})
	}
	return result, nil
}
