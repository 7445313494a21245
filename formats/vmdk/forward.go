package vmdk

import (
	"context"
	"errors"
	"slices"

	"imgferry/bitmap"
	"imgferry/formats"
	"imgferry/formats/mapped"
)

// ErrOutOfOrder: the file has to be read here and there.
var ErrOutOfOrder = errors.New("the image can't be read front to back")

// OpenForward opens a streamOptimized disk in a source in which it is costly to go back, but not by less
// than 4 MiB: something compressed, for example. All its tables are found in one pass at most, whether
// they follow their grains (VMware) or precede them (QEMU), so that Extents is exact. Then grains read in
// ascending order lie one behind the other.
//
// It fails with ErrOutOfOrder at disks of other kinds, grains in another order, more than 32 MiB of tables,
// and whatever it is not sure of: such a file is to be given to Open, which can say what is wrong with it.
// It takes ownership of src only if it returns no error. ctx bounds every later read.
func OpenForward(ctx context.Context, src formats.Source) (formats.Image, error) {
	img, err := openForward(ctx, src)
	if fault := new(formats.Error); errors.As(err, &fault) && fault.Format == name && judged(fault.Class) {
		return nil, ErrOutOfOrder
	}
	return img, err
}

// judged says that an error of this class blames the image, not the reading of it.
func judged(class error) bool {
	return class == formats.ErrCorrupt || class == formats.ErrUnsupported || class == formats.ErrNotAllowed
}

func openForward(ctx context.Context, src formats.Source) (formats.Image, error) {
	p, err := readAt(ctx, src, 0, min(probeBytes, src.Size()), "the header")
	if err != nil {
		return nil, err
	}
	if kindOf(p) != sparseFile {
		return nil, ErrOutOfOrder
	}
	front, err := parseHeader(p, 0)
	if err != nil {
		return nil, err
	}
	found := foundTables{tables: map[int64][]byte{}, tableBytes: front.tableBytes()}
	if front.stream {
		// Before the footer is looked at, which is at the end.
		if err := front.check(src.Size()); err != nil {
			return nil, err
		}
		if err := found.walk(ctx, src, front); err != nil {
			return nil, err
		}
	}
	h, err := readHead(ctx, src)
	switch {
	case err != nil:
		return nil, err
	case !h.own() || !h.header.packed() || h.based():
		return nil, ErrOutOfOrder
	}
	if err := h.check(); err != nil {
		return nil, err
	}
	s, err := openSparse(ctx, src, h.header, 1)
	if err != nil {
		return nil, err
	}
	if !front.stream {
		if err := found.load(ctx, src, s.dir); err != nil {
			return nil, err
		}
	}
	if s.dir, err = found.directory(s.dir); err != nil {
		return nil, err
	}
	if !s.ascending() {
		return nil, ErrOutOfOrder
	}
	s.file = mapped.NewReader(ctx, name, src)
	return mapped.New(mapped.Config{Reader: s.file, Size: s.length, Table: s, Unit: s.grainBytes()}), nil
}

// foundTables are the grain tables of a disk by their sectors; nil is one without a grain.
type foundTables struct {
	tables     map[int64][]byte
	tableBytes int64
	took       int64 // bytes of memory
}

// walk finds the tables of a stream between its grains.
func (f *foundTables) walk(ctx context.Context, src formats.Source, h header) error {
	return walkMarkers(ctx, src, h, func(at int64, m marker) error {
		if m.typ != markerTable || m.isGrain() || m.value != uint64(roundUp(f.tableBytes)/sectorSize) {
			return nil
		}
		return f.read(ctx, src, at/sectorSize+1)
	})
}

// load reads the tables of dir in the order of the file.
func (f *foundTables) load(ctx context.Context, src formats.Source, dir directory) error {
	if dir.rebuilt != nil {
		return ErrOutOfOrder
	}
	var sectors []int64
	for i := range dir.count() {
		if e := dir.at(i); e != 0 {
			sectors = append(sectors, e) // 8 bytes for an entry of 4, of at most 32 MiB
		}
	}
	slices.Sort(sectors)
	for _, sector := range slices.Compact(sectors) {
		if err := f.read(ctx, src, sector); err != nil {
			return err
		}
	}
	return nil
}

// read keeps the table at that sector.
func (f *foundTables) read(ctx context.Context, src formats.Source, sector int64) error {
	p, err := readAt(ctx, src, sector*sectorSize, f.tableBytes, "a grain table")
	if err != nil {
		return err
	}
	f.took += rebuiltOverhead
	if bitmap.IsZero(p) {
		p = nil
	}
	if f.took += int64(len(p)); f.took > maxRebuiltBytes {
		return ErrOutOfOrder
	}
	f.tables[sector] = p
	return nil
}

// directory is dir with the tables in memory.
func (f *foundTables) directory(dir directory) (directory, error) {
	if dir.rebuilt != nil {
		return dir, nil
	}
	in := directory{header: dir.header, entries: make([]byte, len(dir.entries)), rebuilt: [][]byte{}}
	for i := range dir.count() {
		e := dir.at(i)
		if e == 0 {
			continue
		}
		table, ok := f.tables[e]
		if !ok {
			return in, ErrOutOfOrder
		}
		if table != nil {
			in.rebuilt = append(in.rebuilt, table)
			in.setRebuilt(i, len(in.rebuilt))
		}
	}
	return in, nil
}

// ascending says that each grain lies behind the one before it on the disk. The tables are in memory.
func (s *sparse) ascending() bool {
	last := int64(0)
	for i := range s.dir.count() {
		k := s.dir.at(i)
		if k == 0 {
			continue
		}
		for table := s.dir.rebuilt[k-1]; len(table) > 0; table = table[entryBytes:] {
			g := s.header.grain(table)
			if g.kind != mapped.Encoded {
				continue // nothing is read there; a bad entry is for the read that comes to it
			}
			if g.host <= last {
				return false
			}
			last = g.host
		}
	}
	return true
}
