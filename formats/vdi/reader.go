// Package vdi reads VirtualBox's disk images, dynamic and static ones, version 1.1.
//
// It doesn't write, and doesn't read snapshots: a differencing image gives its parent's UUID and not
// its name, and is refused.
//
// An open image holds its block map: 4 bytes per block, which is 4 MiB for a disk of 1 TiB, and at
// most 32 MiB. Opening and Check take one bit more for each block.
//
// Where this package and QEMU differ: blocks may have any power of two from 512 bytes to 256 MiB and may be
// preceded by extra bytes, as in VirtualBox, while QEMU knows blocks of 1 MiB only and overlooks the
// extra bytes; maps and data need no alignment. A map that overlaps the header or the data, and
// blocks that lie past the end of the file or in the place of another, are errors here. A virtual size that is not a multiple
// of 512 is kept; QEMU rounds it up.
package vdi

import (
	"context"
	"encoding/binary"
	"errors"
	"math"

	"imgferry/bitmap"
	"imgferry/formats"
	"imgferry/formats/mapped"
)

// Format returns the VDI format. Open refuses, with formats.ErrUnsupported, versions other than 1.1
// and differencing and undo images.
func Format() formats.Format {
	return formats.Format{Name: name, Probe: probe, Open: open, Info: info, Check: check}
}

func probe(src formats.Source) (bool, error) {
	var p [4]byte
	if src.Size() < offSignature+int64(len(p)) {
		return false, nil
	}
	if err := formats.ReadFull(src, p[:], offSignature); err != nil {
		return false, err
	}
	return binary.LittleEndian.Uint32(p[:]) == signature, nil
}

// readHeader reads and checks the header. The fields that could be read are filled in even if there
// is an error.
func readHeader(ctx context.Context, src formats.Source) (header, error) {
	p := make([]byte, min(headerLen, src.Size()))
	if err := formats.ReadAt(ctx, name, src, p, 0, "the header"); err != nil {
		return header{}, err
	}
	h, err := parseHeader(p)
	if err == nil {
		err = h.check(src.Size())
	}
	return h, err
}

// readMap reads the block map, which check has found to lie in the file.
func (h *header) readMap(ctx context.Context, src formats.Source) ([]byte, error) {
	p := make([]byte, h.mapBytes())
	return p, formats.ReadAt(ctx, name, src, p, int64(h.mapOffset), "the block map")
}

func info(ctx context.Context, src formats.Source) (formats.Info, error) {
	h, err := readHeader(ctx, src)
	if err != nil && !formats.BlamesImage(err) {
		return formats.Info{}, err
	}
	in := formats.Info{Format: name, VirtualSize: int64(min(h.diskSize, math.MaxInt64)), Problem: err}
	if h.goodBlockSize() {
		in.ClusterSize = h.block()
	}
	if h.version != 0 {
		in.Specific = []formats.Property{{Name: "type", Value: h.typeName()}, {Name: "uuid", Value: h.id.String()}}
	}
	return in, nil
}

// typeName is in the words of VirtualBox's and QEMU's users.
func (h *header) typeName() string {
	switch h.typ {
	case typeDynamic:
		return "dynamic"
	case typeStatic:
		return "static"
	case typeUndo:
		return "undo"
	case typeDifferencing:
		return "differencing"
	}
	return "unknown"
}

// table is the mapping of an open VDI file.
type table struct {
	fileSize int64 // bytes
	header
	blockMap []byte // as in the file
}

func open(ctx context.Context, src formats.Source, _ formats.Resolver) (formats.Image, error) {
	h, err := readHeader(ctx, src)
	if err != nil {
		return nil, err
	}
	t := &table{fileSize: src.Size(), header: h}
	if t.blockMap, err = h.readMap(ctx, src); err != nil {
		return nil, err
	}
	if err := t.checkShared(); err != nil {
		return nil, err
	}
	return mapped.New(mapped.Config{Reader: mapped.NewReader(ctx, name, src), Size: int64(h.diskSize), Table: t, Holes: h.typ == typeStatic}), nil
}

// checkShared refuses a map that stores more blocks than the file has room for, or two in one place:
// who writes to one would change the other, and a small file would be a large disk of data. The last
// block may be cut.
func (t *table) checkShared() error {
	var stored int64
	twice := int64(-1)                  // the first block that is stored where another is
	used := bitmap.New(int64(t.blocks)) // stored blocks; no writer numbers more than the disk has
	for i := range int64(t.blocks) {
		e := t.entry(i)
		if e >= entryDiscarded {
			continue
		}
		stored++
		switch {
		case int64(e) >= used.Len():
		case used.Get(int64(e)) && twice < 0:
			twice = i
		default:
			used.Set(int64(e))
		}
	}
	if room := (max(t.fileSize-int64(t.dataOffset), 0) + t.stride() - 1) / t.stride(); stored > room {
		return formats.Corrupt(name, int64(t.mapOffset), "the block map has %d stored blocks, the file has room for %d", stored, room)
	}
	if twice >= 0 {
		return formats.Corrupt(name, int64(t.mapOffset)+twice*entrySize, "block %d is stored where another one is, as block %d", twice, t.entry(twice))
	}
	return nil
}

// entry is the map's entry for block i of the disk.
func (t *table) entry(i int64) uint32 { return binary.LittleEndian.Uint32(t.blockMap[i*entrySize:]) }

// Map returns the run that starts at off.
func (t *table) Map(off, limit int64) (mapped.Run, error) {
	in := off & (t.block() - 1)
	index := (off - in) / t.block()
	first := t.entry(index)
	if first < entryDiscarded && !t.inFile(first, off-in, t.fileSize) {
		return mapped.Run{}, formats.Corrupt(name, int64(t.mapOffset)+index*entrySize, "block %d is stored past the end of the file, as block %d", index, first)
	}
	length := t.block() - in
	for i := index + 1; length < limit && t.follows(index, i); i++ {
		length += t.block()
	}
	r := mapped.Run{Kind: mapped.Zero, Length: min(length, limit)}
	if first < entryDiscarded {
		r.Kind, r.Host = mapped.Data, t.host(first)+in
	}
	return r, nil
}

// follows reports whether block i of the disk goes on what block first began.
func (t *table) follows(first, i int64) bool {
	f, e := t.entry(first), t.entry(i)
	if f >= entryDiscarded {
		return e >= entryDiscarded // both kinds read as zeros: there is no disk below
	}
	// A fault in a later entry is for the read that comes to it.
	return t.blockExtra == 0 && e < entryDiscarded && int64(e) == int64(f)+i-first && t.inFile(e, i*t.block(), t.fileSize)
}

// Decode is never called: nothing is encoded.
func (t *table) Decode([]byte, int64, mapped.Run) error { return errors.ErrUnsupported }
