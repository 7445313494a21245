package vmdk

import (
	"context"
	"strings"

	"imgferry/formats"
)

// Format returns the VMDK format: monolithicSparse, streamOptimized, monolithicFlat,
// twoGbMaxExtentSparse, twoGbMaxExtentFlat, vmfs, vmfsSparse and seSparse disks.
//
// Open refuses, by name, what is not read: devices, an extent of a disk without its descriptor, a
// space-efficient extent whose journal must be replayed (formats.ErrUnsupported). The extent files that a
// descriptor names are opened by the Resolver, and so is the parent that a disk is based on, which must have
// the CID that the disk says; a nil one, and names that are addresses, are formats.ErrNotAllowed. Info answers for
// all of these.
//
// Check looks at one file: a descriptor, or a sparse extent with its tables and markers.
func Format() formats.Format {
	return formats.Format{Name: name, Probe: probe, Open: open, Info: info, Check: check}
}

// fileKind is what a file is, by its first bytes.
type fileKind int

const (
	foreign fileKind = iota
	sparseFile
	descriptorFile
	cowdFile
	seSparseFile
)

// probeBytes is how much of a file is looked at to find out its kind: comments may precede a
// descriptor's first line.
const probeBytes = 4096

// kindOf tells from the first probeBytes of a file, or all of it, what it is.
func kindOf(p []byte) fileKind {
	s := string(p)
	switch {
	case strings.HasPrefix(s, magicSparse):
		return sparseFile
	case strings.HasPrefix(s, magicCOWD):
		return cowdFile
	case strings.HasPrefix(s, magicSESparse):
		return seSparseFile
	case strings.HasPrefix(s, descriptorMark):
		return descriptorFile
	}
	// QEMU takes a file for a descriptor if its first line but comments is the version.
	for line := range strings.Lines(s) {
		switch line = strings.TrimRight(line, "\r\n"); {
		case strings.Trim(line, " ") == "" || line[0] == '#':
		case line == "version=1" || line == "version=2" || line == "version=3" || line == "version=4":
			return descriptorFile
		default:
			return foreign
		}
	}
	return foreign
}

func probe(src formats.Source) (bool, error) {
	p := make([]byte, min(probeBytes, src.Size()))
	if err := formats.ReadFull(src, p, 0); err != nil {
		return false, err
	}
	return kindOf(p) != foreign, nil
}

// head is what a file says of itself, without its tables and other files.
type head struct {
	kind   fileKind
	header header // of a sparse extent
	// described says that there is a descriptor, embedded or not.
	described bool
	descriptor
}

// readHead reads the header and the descriptor, and nothing else. What could be read is filled in
// even if there is an error.
func readHead(ctx context.Context, src formats.Source) (head, error) {
	h := head{descriptor: descriptor{parentCID: noParent}} // until a descriptor says otherwise
	p, err := readAt(ctx, src, 0, min(probeBytes, src.Size()), "the header")
	if err != nil {
		return h, err
	}
	switch h.kind = kindOf(p); h.kind {
	case sparseFile:
		return h, h.readSparse(ctx, src, p)
	case descriptorFile:
		if src.Size() > maxDescriptorBytes {
			return h, formats.Corrupt(name, 0, "the descriptor has %d bytes, at most %d are allowed", src.Size(), maxDescriptorBytes)
		}
		return h, h.readDescriptor(ctx, src, 0, src.Size())
	case cowdFile, seSparseFile:
		h.header, err = readExtent(ctx, src, p)
		return h, err
	}
	return h, formats.Corrupt(name, 0, "not a VMDK file: neither a header nor a descriptor")
}

// readSparse reads a sparse extent's header, which p begins with, its footer and its descriptor.
func (h *head) readSparse(ctx context.Context, src formats.Source, p []byte) error {
	var err error
	if h.header, err = parseHeader(p, 0); err != nil {
		return err
	}
	if h.header.capacity == 0 && h.header.descriptorOffset != 0 {
		// QEMU takes the file for a mere wrapping of the descriptor.
		h.kind = descriptorFile
		if err = h.header.checkDescriptor(src.Size()); err != nil {
			return err
		}
	} else if err = h.header.check(src.Size()); err != nil {
		return err
	} else if h.header, err = withFooter(ctx, src, h.header); err != nil {
		return err
	}
	if h.header.descriptorOffset == 0 || h.header.descriptorSize == 0 {
		return nil
	}
	return h.readDescriptor(ctx, src, int64(h.header.descriptorOffset)*sectorSize, int64(h.header.descriptorSize)*sectorSize)
}

// withFooter returns h with what only the footer knows, if there is one. h stays as it is where the
// footer is missing or damaged: the grain directory is then unknown, the grains may not be lost.
func withFooter(ctx context.Context, src formats.Source, h header) (header, error) {
	at := src.Size() - footerLen
	if !h.stream || at < headerLen {
		return h, nil
	}
	p, err := readAt(ctx, src, at, footerLen, "the footer")
	if err != nil {
		return h, err
	}
	f, err := parseFooter(p, at)
	if err != nil {
		return h, nil
	}
	if !h.agrees(f) {
		return h, formats.Corrupt(name, at+sectorSize, "the footer contradicts the header")
	}
	h.gdOffset, h.rgdOffset, h.unclean = f.gdOffset, f.rgdOffset, f.unclean
	return h, nil
}

func (h *head) readDescriptor(ctx context.Context, src formats.Source, at, n int64) error {
	p, err := readAt(ctx, src, at, n, "the descriptor")
	if err != nil {
		return err
	}
	if h.own() && len(p) > 0 && p[0] == 0 {
		return nil // QEMU reserves room in every extent
	}
	h.described = true
	h.descriptor, err = parseDescriptor(p, at)
	return err
}

// readAt returns n bytes of src, which the caller has bounded.
func readAt(ctx context.Context, src formats.Source, off, n int64, what string) ([]byte, error) {
	p := make([]byte, n)
	return p, formats.ReadAt(ctx, name, src, p, off, what)
}

// own says that the file holds its disk itself, or is an extent of one.
func (h *head) own() bool { return h.kind != descriptorFile && h.kind != foreign }

// check says whether the disk can be read, as far as the head tells.
func (h *head) check() error {
	if !h.described && h.own() && h.header.packed() {
		return nil // a stream is no part of anything
	}
	if !h.described && !h.own() {
		return formats.Corrupt(name, 0, "the file is to hold a descriptor, but has none")
	}
	if !h.described {
		return formats.Unsupported(name, 0, "the file is one extent of a disk; the disk is in the descriptor that names it")
	}
	return h.descriptor.check(h.own())
}

// size is the virtual size in bytes as far as it is known.
func (h *head) size() int64 {
	if !h.own() {
		return h.descriptor.size()
	}
	if h.header.capacity > maxDiskSectors {
		return 0
	}
	return h.header.bytes()
}

func info(ctx context.Context, src formats.Source) (formats.Info, error) {
	h, err := readHead(ctx, src)
	switch {
	case err == nil:
		err = h.check()
	case !formats.BlamesImage(err):
		return formats.Info{}, err
	}
	in := formats.Info{
		Format:      name,
		VirtualSize: h.size(),
		Dirty:       h.header.unclean,
		Refs:        h.refs(h.own()),
		Specific:    h.properties(),
		Problem:     err,
	}
	if h.own() && h.header.grainSectors <= maxGrainSectors {
		in.ClusterSize = h.header.grainBytes()
	}
	return in, nil
}

// properties are named and ordered as in qemu-img info; those after "create type" are ours.
func (h *head) properties() []formats.Property {
	var list []formats.Property
	if h.described {
		list = append(list,
			formats.Property{Name: "cid", Value: int64(h.cid)},
			formats.Property{Name: "parent cid", Value: int64(h.parentCID)},
			formats.Property{Name: "create type", Value: h.createType})
	}
	if h.own() {
		return append(list,
			formats.Property{Name: "version", Value: int64(h.header.version)},
			formats.Property{Name: "compressed", Value: h.header.flags&flagCompressed != 0},
			formats.Property{Name: "zeroed grains", Value: h.header.flags&flagZeroedGrains != 0})
	}
	if h.described {
		list = append(list, formats.Property{Name: "extent count", Value: int64(len(h.extents))})
	}
	return list
}
