package vmdk

import (
	"context"
	"encoding/binary"

	"imgferry/formats"
)

// maxRebuiltBytes bounds the tables made from markers. At the usual sizes they describe 512 GiB of
// data.
const maxRebuiltBytes = 32 << 20

// rebuiltOverhead is what a table made from markers costs besides its entries, in bytes.
const rebuiltOverhead = 64

// windowBytes is how much is read at once: compressed grains are mostly smaller.
const windowBytes = 64 << 10

// window reads small pieces of a file in larger ones.
type window struct {
	ctx context.Context
	src formats.Source
	off int64  // of buf in the file
	buf []byte // what was read there, up to windowBytes
}

func newWindow(ctx context.Context, src formats.Source) *window {
	return &window{ctx: ctx, src: src, buf: make([]byte, 0, windowBytes)}
}

// at returns the n bytes at off, which the file holds. They are valid until the next call.
func (w *window) at(off, n int64, what string) ([]byte, error) {
	if off < w.off || off+n > w.off+int64(len(w.buf)) {
		p := w.buf[:min(windowBytes, w.src.Size()-off)]
		w.buf = w.buf[:0] // until it is read
		if err := formats.ReadAt(w.ctx, name, w.src, p, off, what); err != nil {
			return nil, err
		}
		w.buf, w.off = p, off
	}
	return w.buf[off-w.off:][:n], nil
}

// walkMarkers calls visit for each marker of a stream but the last, those of grains and others, in order of
// the file. What belongs to the marker lies in the file. It fails unless the stream is whole: the
// end-of-stream marker ends the file.
func walkMarkers(ctx context.Context, src formats.Source, h header, visit func(at int64, m marker) error) error {
	w := newWindow(ctx, src)
	at := int64(max(h.overHead, 1)) * sectorSize
	for {
		if at > src.Size()-sectorSize {
			return formats.Corrupt(name, src.Size(), "the stream ends without an end-of-stream marker")
		}
		p, err := w.at(at, markerLen, "a marker")
		if err != nil {
			return err
		}
		m := parseMarker(p)
		var length int64 // of the marker and what follows it
		switch {
		case m.isGrain():
			if err := h.checkGrainMarker(m, at, src.Size()); err != nil {
				return err
			}
			length = grainMarkerLen + int64(m.size)
		case m.typ == markerEndOfStream:
			if src.Size()-at >= 2*sectorSize || m.value != 0 {
				return formats.Corrupt(name, at, "the end-of-stream marker is not at the end")
			}
			return nil
		case m.typ > markerProgress:
			return formats.Corrupt(name, at, "a marker of the unknown type %d", m.typ)
		case m.value > uint64(src.Size()-at)/sectorSize-1:
			return formats.Corrupt(name, at, "the %d sectors behind a marker reach past the end of the file", m.value)
		default:
			length = sectorSize + int64(m.value)*sectorSize
		}
		if err := visit(at, m); err != nil {
			return err
		}
		at += roundUp(length)
	}
}

// checkGrainMarker refuses a grain's marker at offset at that can't be right.
func (h *header) checkGrainMarker(m marker, at, fileSize int64) error {
	switch {
	case m.value >= h.capacity || m.value%h.grainSectors != 0:
		return formats.Corrupt(name, at, "the marker is of disk sector %d, where no grain begins", m.value)
	case grainMarkerLen+int64(m.size) > h.maxStoredBytes():
		return formats.Corrupt(name, at, "the compressed grain has %d bytes, at most %d are allowed", m.size, h.maxStoredBytes()-grainMarkerLen)
	case grainMarkerLen+int64(m.size) > fileSize-at:
		return formats.Corrupt(name, at, "the compressed grain reaches past the end of the file")
	}
	return nil
}

// rebuildDirectory makes the grain directory and its tables from the markers of a stream, in one
// pass.
func rebuildDirectory(ctx context.Context, src formats.Source, h header) (directory, error) {
	if src.Size() > maxAddressed {
		return directory{}, formats.Unsupported(name, -1, "a stream of more than 2 TiB without a grain directory")
	}
	dir := directory{header: &h}
	numbers := map[int64]int{} // of the tables in dir.rebuilt, from 1, by their place in the directory
	err := walkMarkers(ctx, src, h, func(at int64, m marker) error {
		if !m.isGrain() {
			return nil
		}
		i := int64(m.value / h.grainSectors)
		index, inTable := i/int64(h.gtesPerGT), i%int64(h.gtesPerGT)
		k := numbers[index]
		if k == 0 {
			k = len(dir.rebuilt) + 1
			if int64(k)*(h.tableBytes()+rebuiltOverhead) > maxRebuiltBytes {
				return formats.Unsupported(name, at, "a stream without a grain directory, of more than %d grain tables", k-1)
			}
			dir.rebuilt = append(dir.rebuilt, make([]byte, h.tableBytes()))
			numbers[index] = k
		}
		entry := dir.rebuilt[k-1][inTable*entryBytes:]
		if binary.LittleEndian.Uint32(entry) != 0 {
			return formats.Corrupt(name, at, "the stream has the grain at disk offset %d twice", i*h.grainBytes())
		}
		binary.LittleEndian.PutUint32(entry, uint32(at/sectorSize))
		return nil
	})
	if err != nil {
		return directory{}, err
	}
	dir.entries = make([]byte, h.tables()*entryBytes)
	for index, k := range numbers {
		dir.setRebuilt(index, k)
	}
	return dir, nil
}

// setRebuilt makes table k of dir.rebuilt, counted from 1, that of entry i.
func (d directory) setRebuilt(i int64, k int) {
	binary.LittleEndian.PutUint32(d.entries[i*entryBytes:], uint32(k))
}
