package vmdk

import (
	"context"

	"imgferry/formats"
	"imgferry/formats/mapped"
)

// extentOpener opens the extents that a descriptor names.
type extentOpener struct {
	res     formats.Resolver
	disk    disk
	numbers map[string]int // of the files opened, from 1
	sparse  int            // how many sparse extents the descriptor has
	tables  uint64         // grain tables of the sparse extents so far
}

// openExtents opens the extents of d, which was checked. If it fails it leaves nothing open.
func openExtents(ctx context.Context, res formats.Resolver, d descriptor) (_ *disk, err error) {
	o := extentOpener{res: res, numbers: map[string]int{}}
	for _, e := range d.extents {
		if e.sparse() {
			o.sparse++
		}
	}
	defer func() {
		if err != nil {
			o.disk.close()
		}
	}()
	var start int64
	for _, e := range d.extents {
		t, err := o.open(ctx, e)
		if err != nil {
			return nil, err
		}
		o.disk.extents = append(o.disk.extents, extent{start, e.bytes(), e.file, t})
		start += e.bytes()
	}
	return &o.disk, nil
}

// close closes what was opened for a disk that can't be.
func (d *disk) close() {
	for _, f := range d.files {
		f.src.Close()
	}
}

// open returns the table of an extent.
func (o *extentOpener) open(ctx context.Context, e extentLine) (mapped.Table, error) {
	if e.typ == extentZero {
		return zeros{}, nil
	}
	number := o.numbers[e.file]
	if number != 0 && e.sparse() {
		// It would hold the same content twice, and its tables would be walked as often as it is named.
		return nil, formats.Corrupt(name, e.at, "two extents are in the sparse file %q", e.file)
	}
	if number == 0 {
		var err error
		if number, err = o.openFile(ctx, e); err != nil {
			return nil, err
		}
	}
	src := o.disk.files[number-1].src
	if e.sparse() {
		s, err := o.openSparse(ctx, src, e)
		if err != nil {
			return nil, err
		}
		s.number = number
		return s, nil
	}
	host := e.offset * sectorSize
	if host > src.Size() || e.bytes() > src.Size()-host {
		return nil, formats.Corrupt(name, e.at, "the extent file %q has %d bytes, too few for %d at offset %d", e.file, src.Size(), e.bytes(), host)
	}
	return mapped.Flat{Host: host, File: number}, nil
}

// openFile opens the file of an extent and returns its number.
func (o *extentOpener) openFile(ctx context.Context, e extentLine) (int, error) {
	if o.res == nil {
		return 0, formats.NotAllowed(name, e.at, "the disk needs the %s %q", formats.ExtentOf, e.file)
	}
	src, _, err := o.res.Resolve(ctx, extentRef(e))
	if err != nil {
		return 0, err
	}
	o.disk.files = append(o.disk.files, extentFile{e.file, src})
	o.numbers[e.file] = len(o.disk.files)
	return len(o.disk.files), nil
}

// openSparse opens a sparse extent in a file of its own.
func (o *extentOpener) openSparse(ctx context.Context, src formats.Source, e extentLine) (*sparse, error) {
	p, err := readAt(ctx, src, 0, min(probeBytes, src.Size()), "the header")
	if err != nil {
		return nil, mapped.InFile(e.file, err)
	}
	h, err := readExtent(ctx, src, p)
	if err == nil && kindOf(p) != sparseTypes[e.typ] {
		err = formats.Corrupt(name, 0, "the file is not an extent of the type %s", e.typ)
	}
	if err == nil && h.flags&flagCompressed != 0 {
		err = formats.Unsupported(name, offFlags, "a compressed extent in a disk of several")
	}
	if err != nil {
		return nil, mapped.InFile(e.file, err)
	}
	// Some writers round the capacity up to a grain.
	if more := h.bytes() - e.bytes(); more < 0 || more >= h.grainBytes() {
		return nil, formats.Corrupt(name, e.at, "the extent file %q holds %d sectors, the descriptor says %d", e.file, h.capacity, e.sectors)
	}
	if o.tables += h.tables() * uint64(h.entrySize()/entryBytes); o.tables > maxDirectoryBytes/entryBytes {
		return nil, formats.Corrupt(name, e.at, "the disk has more than %d grain tables", maxDirectoryBytes/entryBytes)
	}
	s, err := openSparse(ctx, src, h, o.sparse)
	if err != nil {
		return nil, mapped.InFile(e.file, err)
	}
	s.length = e.bytes()
	return s, nil
}

// attach gives the extents their readers, which end with own, and returns the files for the image.
func (d *disk) attach(own *mapped.Reader) []mapped.File {
	var files []mapped.File
	for _, f := range d.files {
		files = append(files, mapped.File{Name: f.name, Reader: own.Sibling(f.src)})
	}
	for _, e := range d.extents {
		if s, ok := e.table.(*sparse); ok {
			s.file = files[s.number-1].Reader
		}
	}
	return files
}
