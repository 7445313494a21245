package vhd

import (
	"context"
	"fmt"
	"math"
	"strings"

	"imgferry/formats"
)

// Format returns the format of VHD files, called "vpc" as QEMU calls it.
//
// The parent of a differencing disk is opened by the Resolver, by the name relative to the file if there is one, and
// must have the identity that the disk says. Names with drives or shares are formats.ErrNotAllowed, as are all
// without a Resolver. Info lists the parent among the names.
func Format() formats.Format {
	return formats.Format{Name: name, Probe: probe, Open: open, Info: info, Check: check}
}

// places are where a footer may lie in a file of that size, best first: at the end, of either
// length, then the copy that dynamic and differencing disks begin with.
func places(fileSize int64) []place {
	all := []place{{fileSize - footerSize, footerSize}, {fileSize - oldFooterSize, oldFooterSize}, {0, footerSize}}
	var list []place
	for _, p := range all {
		if p.off >= 0 && p.off+p.size <= fileSize {
			list = append(list, p)
		}
	}
	return list
}

// place is a run of bytes of the file.
type place struct{ off, size int64 }

// footerAt reads the footer at p, if there is one.
func footerAt(ctx context.Context, src formats.Source, p place) (f footer, known bool, err error) {
	buf := make([]byte, p.size)
	if err := formats.ReadAt(ctx, name, src, buf, p.off, "the footer"); err != nil {
		return f, false, err
	}
	f, known = parseFooter(buf)
	return f, known, nil
}

func probe(src formats.Source) (bool, error) {
	for _, p := range places(src.Size()) {
		if _, known, err := footerAt(context.Background(), src, p); known || err != nil {
			return known, err
		}
	}
	return false, nil
}

// headers is what the footer and the dynamic disk header say.
type headers struct {
	footer
	where place // of the footer that counts
	// dataEnd is where blocks and data must end: at the footer, or where the file does if the copy
	// at its start stands in for the footer.
	dataEnd int64
	dynamicHeader
}

// readHeaders reads the footer and the dynamic disk header, and nothing else. The fields that could
// be read are filled in even if there is an error.
func readHeaders(ctx context.Context, src formats.Source) (headers, error) {
	var h headers
	if err := h.findFooter(ctx, src); err != nil {
		return h, err
	}
	if err := h.footer.check(h.where.off); err != nil {
		return h, err
	}
	if h.diskType == typeFixed {
		return h, h.checkFixed()
	}
	at := int64(min(h.dataOffset, math.MaxInt64))
	if at > src.Size()-headerSize {
		return h, formats.Corrupt(name, h.where.off+offDataOffset, "the dynamic disk header reaches past the end of the file")
	}
	p := make([]byte, headerSize)
	err := formats.ReadAt(ctx, name, src, p, at, "the dynamic disk header")
	if err != nil {
		return h, err
	}
	if h.dynamicHeader, err = parseDynamicHeader(p, at); err != nil {
		return h, err
	}
	if h.diskType == typeDifferencing {
		if err := h.readParent(ctx, src, at); err != nil {
			return h, err
		}
	}
	return h, h.dynamicHeader.check(at, h.size(), src.Size())
}

// size is the virtual size in bytes, after footer.check.
func (h *headers) size() int64 { return int64(h.footer.size()) }

// findFooter takes the first footer whose checksum is right, else the first there is.
func (h *headers) findFooter(ctx context.Context, src formats.Source) error {
	found := false
	for _, p := range places(src.Size()) {
		f, known, err := footerAt(ctx, src, p)
		if err != nil {
			return err
		}
		// At the start of a fixed disk lies its first sector: whatever it holds is data.
		isCopy := p.off == 0 && src.Size() > p.size
		if !known || found && !f.good() || isCopy && f.diskType == typeFixed {
			continue
		}
		found = true
		h.footer, h.where, h.dataEnd = f, p, p.off
		if isCopy {
			h.dataEnd = src.Size()
		}
		if f.good() {
			return nil
		}
	}
	if !found {
		return formats.Corrupt(name, max(src.Size()-footerSize, 0), "not a VHD image: the footer is missing")
	}
	return nil
}

// checkFixed refuses a fixed disk that the file has no room for.
func (h *headers) checkFixed() error {
	if h.size() > h.dataEnd {
		return formats.Corrupt(name, h.where.off+offCurrentSize, "the disk has %d bytes, the file holds %d", h.size(), h.dataEnd)
	}
	return nil
}

func info(ctx context.Context, src formats.Source) (formats.Info, error) {
	h, err := readHeaders(ctx, src)
	if err != nil && !formats.BlamesImage(err) {
		return formats.Info{}, err
	}
	return formats.Info{
		Format:      name,
		VirtualSize: int64(min(h.footer.size(), math.MaxInt64)),
		ClusterSize: int64(h.blockSize),
		Refs:        h.refs(),
		Specific:    h.properties(),
		Problem:     err,
	}, nil
}

// properties are ours: qemu-img has none for this format.
func (h *headers) properties() []formats.Property {
	if h.creator == "" {
		return nil
	}
	sizeBy := "geometry"
	if h.bySize() {
		sizeBy = "current size"
	}
	list := []formats.Property{
		{Name: "subformat", Value: h.subformat()},
		{Name: "creator", Value: strings.TrimRight(h.creator, " \x00")},
		{Name: "size by", Value: sizeBy},
		{Name: "current size", Value: h.current},
		{Name: "geometry", Value: fmt.Sprintf("%d/%d/%d", h.cylinders, h.heads, h.sectors)},
		{Name: "unique id", Value: uuid(h.id)},
		{Name: "saved state", Value: h.saved},
	}
	if h.diskType == typeDifferencing {
		list = append(list, formats.Property{Name: "parent's unique id", Value: uuid(h.parent.id)})
	}
	return list
}
