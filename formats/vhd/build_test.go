package vhd_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"io"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/vhd"
)

// image is a VHD file that tests write by hand, by the rules of the specification.
type image []byte

func (p image) u8(off int, v uint8) image   { p[off] = v; return p }
func (p image) u32(off int, v uint32) image { binary.BigEndian.PutUint32(p[off:], v); return p }
func (p image) u64(off int, v uint64) image { binary.BigEndian.PutUint64(p[off:], v); return p }
func (p image) str(off int, s string) image { copy(p[off:], s); return p }

// sum puts the right checksum into the n bytes at off, at field of them.
func (p image) sum(off, n, field int) image {
	p.u32(off+field, 0)
	var sum uint32
	for _, b := range p[off : off+n] {
		sum += uint32(b)
	}
	return p.u32(off+field, ^sum)
}

// spec is what a VHD is to be. Zero values are the usual ones.
type spec struct {
	kind     uint32 // 2 fixed, 3 dynamic (if 0), 4 differencing
	creator  string // "win "
	size     int64  // current size
	chs      [3]int // geometry
	block    int    // bytes, 4096
	stored   []int  // the blocks that are stored, in the file's order
	content  []byte
	entries  int  // table entries beyond those needed
	old      bool // a footer of 511 bytes
	noCopy   bool // no copy of the footer at the start
	parent   string
	relative string // the parent's relative path
	id       string // 16 bytes
	stamp    uint32
	parentID string // 16 bytes
	parentAt uint32 // the parent's time stamp
	// partial says which sectors of a stored block are there, in a differencing disk.
	partial map[int]func(sector int) bool
}

func (s spec) footer() image {
	f := make(image, 512)
	f.str(0, "conectix").u32(8, 2).u32(12, 1<<16).u64(16, 1<<64-1).str(28, cmp.Or(s.creator, "win ")).str(36, "Wi2k")
	if s.kind != 2 {
		f.u64(16, 512)
	}
	f.u64(40, uint64(s.size)).u64(48, uint64(s.size))
	f.u32(56, uint32(s.chs[0])<<16|uint32(s.chs[1])<<8|uint32(s.chs[2])).u32(60, cmp.Or(s.kind, 3)).str(68, cmp.Or(s.id, "0123456789abcdef")).u32(24, s.stamp)
	return f.sum(0, 512, 64)
}

// Where the builder puts things.
const (
	headerAt  = 512
	tableAt   = headerAt + 1024
	locatorAt = tableAt - 64 // in the reserved bytes of the header
)

// make writes the file.
func (s spec) make() image {
	var p image
	footer := s.footer()
	if s.kind == 2 {
		p = append(p, s.content...)
	} else {
		block := cmp.Or(s.block, 4096)
		entries := (int(s.size)+block-1)/block + s.entries
		if p = append(p, footer...); s.noCopy {
			clear(p)
		}
		p = append(p, s.header(block, entries)...)
		table := bytes.Repeat([]byte{0xff}, (entries*4+511)/512*512)
		bitmap := bytes.Repeat([]byte{0xff}, ((block/512+7)/8+511)/512*512)
		var data []byte
		for _, i := range s.stored {
			binary.BigEndian.PutUint32(table[i*4:], uint32((len(p)+len(table)+len(data))/512))
			data = append(append(data, s.bitmap(i, bitmap)...), make([]byte, block)...)
			copy(data[len(data)-block:], s.content[i*block:])
		}
		p = append(append(p, table...), data...)
	}
	if s.old {
		footer = footer[:511]
	}
	return append(p, footer...)
}

// bitmap is the sector bitmap of block i, of the size of all, which has all bits set. The first sector is bit 7.
func (s spec) bitmap(i int, all []byte) []byte {
	has := s.partial[i]
	if has == nil {
		return all
	}
	p := make([]byte, len(all))
	for k := range cmp.Or(s.block, 4096) / 512 {
		if has(k) {
			p[k/8] |= 0x80 >> (k % 8)
		}
	}
	return p
}

// over is what a differencing disk reads as over its parent, which holds the bytes of below.
func (s spec) over(below []byte) []byte {
	p := append([]byte(nil), below[:s.size]...)
	for _, i := range s.stored {
		block := cmp.Or(s.block, 4096)
		for k := range block / 512 {
			at := i*block + k*512
			if has := s.partial[i]; at < len(p) && (has == nil || has(k)) {
				copy(p[at:min(at+512, len(p))], s.content[at:])
			}
		}
	}
	return p
}

func (s spec) header(block, entries int) image {
	h := make(image, 1024)
	h.str(0, "cxsparse").u64(8, 1<<64-1).u64(16, tableAt).u32(24, 1<<16).u32(28, uint32(entries)).u32(32, uint32(block))
	h.str(40, s.parentID).u32(56, s.parentAt)
	for i, r := range s.parent {
		h[64+2*i+1] = byte(r)
	}
	if s.relative != "" {
		// A locator of another platform first, and the text in the header's reserved bytes.
		h.str(576, "MacX").u32(584, 3).u64(592, 0)
		h.str(600, "W2ru").u32(604, 512).u32(608, uint32(2*len(s.relative))).u64(616, locatorAt)
		for i, r := range s.relative {
			h[locatorAt-headerAt+2*i] = byte(r)
		}
	}
	return h.sum(0, 1024, 36)
}

// expected is what the disk reads as.
func (s spec) expected() []byte {
	if s.kind == 2 {
		return s.content
	}
	block := cmp.Or(s.block, 4096)
	p := make([]byte, (int(s.size)+block-1)/block*block)
	for _, i := range s.stored {
		copy(p[i*block:(i+1)*block], s.content[i*block:])
	}
	return p[:s.size]
}

// Layout of tiny.
const (
	tinyBlock  = 4096
	tinyData   = tableAt + 512 // the first block, with its bitmap
	tinyStride = tinyBlock + 512
	tinyEnd    = tinyData + 3*tinyStride // the footer
)

// tiny is a dynamic disk of four blocks, the last of which is cut; block 1 is not stored.
func tiny() spec {
	return spec{size: 3*tinyBlock + 1536, content: formatstest.Noise(1, 4*tinyBlock), stored: []int{2, 0, 3}}
}

// tinyFixed is a fixed disk.
func tinyFixed() spec {
	p := formatstest.Noise(2, 6144)
	return spec{kind: 2, size: int64(len(p)), content: p}
}

// seal makes all checksums of a dynamic image right.
func (p image) seal() image {
	return p.sum(0, 512, 64).sum(headerAt, 1024, 36).sum(len(p)-512, 512, 64)
}

// both changes footer and copy.
func (p image) both(change func(p image, at int)) image {
	change(p, 0)
	change(p, len(p)-512)
	return p.seal()
}

// use opens p and reads all of it, and returns the first error.
func use(p []byte) ([]byte, error) {
	img, err := vhd.Format().Open(context.Background(), formatstest.NewSource(p), nil)
	if err != nil {
		return nil, err
	}
	defer img.Close()
	for _, err := range img.Extents(context.Background()) {
		if err != nil {
			return nil, err
		}
	}
	all := make([]byte, img.Size())
	if _, err := img.ReadAt(all, 0); err != nil && err != io.EOF {
		return nil, err
	}
	return all, nil
}

// findings runs Check.
func findings(p []byte) (list []formats.Finding, c formats.Checked, err error) {
	c, err = vhd.Format().Check(context.Background(), formatstest.NewSource(p), func(f formats.Finding) { list = append(list, f) })
	return list, c, err
}
