package vhdx_test

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"unicode/utf16"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/vhdx"
)

// Where the builder puts things. The metadata items lie one after the other.
const (
	mib        = 1 << 20
	header1    = 64 << 10
	header2    = 128 << 10
	regions1   = 192 << 10
	regions2   = 256 << 10
	logAt      = 1 * mib
	metadataAt = 2 * mib
	itemsAt    = metadataAt + 64<<10
	batAt      = 3 * mib
	blocksAt   = 4 * mib
)

// GUIDs as in the file.
var (
	batRegion      = mixed("2DC27766F62342009D64115E9BFD4A08")
	metadataRegion = mixed("8B7CA20647904B9AB8FE575F050F886E")
	fileParameters = mixed("CAA16737FA364D43B3B633F0AA44E76B")
	diskSize       = mixed("2FA54224CD1B4876B2115DBED83BF4B8")
	diskID         = mixed("BECA12ABB2E6452393EFC309E000C746")
	logicalSector  = mixed("8141BF1DA96F4709BA47F233A8FAAB5F")
	physicalSector = mixed("CDA348C7445D44719CC9E9885251C556")
	parentLocator  = mixed("A8D35F2DB30B454DABF7D3D84834AB0C")
)

// mixed turns digits in the order of print into the order of the file.
func mixed(digits string) string {
	p, err := hex.DecodeString(digits)
	if err != nil {
		panic(err)
	}
	slices.Reverse(p[:4])
	slices.Reverse(p[4:6])
	slices.Reverse(p[6:8])
	return string(p)
}

// image is a VHDX file, or the start of one, that tests write by hand.
type image []byte

func (p image) u8(off int, v uint8) image   { p[off] = v; return p }
func (p image) u16(off int, v uint16) image { binary.LittleEndian.PutUint16(p[off:], v); return p }
func (p image) u32(off int, v uint32) image { binary.LittleEndian.PutUint32(p[off:], v); return p }
func (p image) u64(off int, v uint64) image { binary.LittleEndian.PutUint64(p[off:], v); return p }
func (p image) str(off int, s string) image { copy(p[off:], s); return p }

// sum puts the right checksum into the n bytes at off.
func (p image) sum(off, n int) image {
	p.u32(off+4, 0)
	return p.u32(off+4, crc32.Checksum(p[off:off+n], crc32.MakeTable(crc32.Castagnoli)))
}

// seal makes all checksums right.
func (p image) seal() image {
	return p.sum(header1, 4096).sum(header2, 4096).sum(regions1, 65536).sum(regions2, 65536)
}

// spec is what a VHDX is to be. Zero values are the usual ones.
type spec struct {
	size    int64
	block   int64 // bytes, 1 MiB
	sector  uint32
	flags   uint32 // of the file parameters
	stored  []int  // the blocks that are stored, in the file's order
	states  map[int]uint64
	content io.ReaderAt
	parent  [][2]string // the parent locator's keys and values
	// partial says which sectors of a stored block are there, of blocks that are partially present.
	partial   map[int]func(sector int) bool
	dataWrite string // GUID, 16 bytes
}

// ratio is how many blocks a chunk has.
func (s spec) ratio() int { return int(8388608 * int64(cmp.Or(s.sector, 512)) / cmp.Or(s.block, mib)) }

// entry is where in the table a block is.
func (s spec) entry(block int) int { return block/s.ratio()*(s.ratio()+1) + block%s.ratio() }

// bitmaps are the sector bitmap blocks that are needed, by chunk.
func (s spec) bitmaps() map[int][]byte {
	list := map[int][]byte{}
	sectors := int(cmp.Or(s.block, mib)) / int(cmp.Or(s.sector, 512)) // of a block
	for i, has := range s.partial {
		chunk := i / s.ratio()
		if list[chunk] == nil {
			list[chunk] = make([]byte, mib)
		}
		for k := range sectors {
			if bit := i%s.ratio()*sectors + k; has(k) {
				list[chunk][bit/8] |= 1 << (bit % 8)
			}
		}
	}
	return list
}

// make writes the file up to the blocks, and says what blocks follow.
func (s spec) make() (p image, blocks []formatstest.Piece, size int64) {
	p = make(image, blocksAt)
	p.str(0, "vhdxfile").str(8, wide("imgferry test"))
	for i, at := range []int{header1, header2} {
		p.str(at, "head").str(at+32, s.dataWrite).u64(at+8, uint64(i)+7).u16(at+66, 1).u32(at+68, mib).u64(at+72, logAt)
	}
	for _, at := range []int{regions1, regions2} {
		p.str(at, "regi").u32(at+8, 2)
		p.str(at+16, batRegion).u64(at+32, batAt).u32(at+40, mib).u32(at+44, 1)
		p.str(at+48, metadataRegion).u64(at+64, metadataAt).u32(at+72, mib).u32(at+76, 1)
	}
	items := []struct{ id, data string }{
		{fileParameters, string(image(make([]byte, 8)).u32(0, uint32(cmp.Or(s.block, mib))).u32(4, s.flags))},
		{diskSize, string(image(make([]byte, 8)).u64(0, uint64(s.size)))},
		{diskID, "0123456789abcdef"},
		{logicalSector, string(image(make([]byte, 4)).u32(0, cmp.Or(s.sector, 512)))},
		{physicalSector, string(image(make([]byte, 4)).u32(0, 4096))},
	}
	if s.parent != nil {
		items = append(items, struct{ id, data string }{parentLocator, s.locator()})
	}
	p.str(metadataAt, "metadata").u16(metadataAt+10, uint16(len(items)))
	for i, next := 0, itemsAt; i < len(items); i++ {
		at := metadataAt + 32 + 32*i
		p.str(at, items[i].id).u32(at+16, uint32(next-metadataAt)).u32(at+20, uint32(len(items[i].data))).u32(at+24, 4)
		p.str(next, items[i].data)
		next += len(items[i].data)
	}
	for i, state := range s.states {
		p.u64(batAt+8*s.entry(i), state)
	}
	block := cmp.Or(s.block, mib)
	size = blocksAt
	for _, i := range s.stored {
		state := uint64(6)
		if s.partial[i] != nil {
			state = 7
		}
		p.u64(batAt+8*s.entry(i), uint64(size)|state)
		n := min(block, s.size-int64(i)*block)
		data := make([]byte, n)
		s.content.ReadAt(data, int64(i)*block)
		blocks = append(blocks, formatstest.Piece{Offset: size, Data: data})
		size += (n + mib - 1) / mib * mib
	}
	for chunk, data := range s.bitmaps() {
		p.u64(batAt+8*((chunk+1)*(s.ratio()+1)-1), uint64(size)|6)
		blocks = append(blocks, formatstest.Piece{Offset: size, Data: data})
		size += mib
	}
	return p.seal(), blocks, size
}

// whole writes the whole file.
func (s spec) whole() image {
	p, blocks, size := s.make()
	p = append(p, make([]byte, size-blocksAt)...)
	for _, b := range blocks {
		copy(p[b.Offset:], b.Data)
	}
	return p
}

// locator is a parent locator.
func (s spec) locator() string {
	p := make(image, 20+12*len(s.parent))
	p.str(0, mixed("B04AEFB7D19E4A81B78925B8E9445913")).u16(18, uint16(len(s.parent)))
	for i, kv := range s.parent {
		at := 20 + 12*i
		key, value := wide(kv[0]), wide(kv[1])
		p.u32(at, uint32(len(p))).u32(at+4, uint32(len(p)+len(key))).u16(at+8, uint16(len(key))).u16(at+10, uint16(len(value)))
		p = append(p, key+value...)
	}
	return string(p)
}

func wide(s string) string {
	var b strings.Builder
	for _, u := range utf16.Encode([]rune(s)) {
		b.WriteByte(byte(u))
		b.WriteByte(byte(u >> 8))
	}
	return b.String()
}

// expected is what the disk reads as.
func (s spec) expected() io.ReaderAt {
	block := cmp.Or(s.block, mib)
	var list []formatstest.Piece
	for _, i := range s.stored {
		data := make([]byte, min(block, s.size-int64(i)*block))
		s.content.ReadAt(data, int64(i)*block)
		list = append(list, formatstest.Piece{Offset: int64(i) * block, Data: data})
	}
	return formatstest.Sparse(list...)
}

// over is what the disk reads as over its parent, which holds the bytes of below.
func (s spec) over(below []byte) []byte {
	block, sector := cmp.Or(s.block, mib), int64(cmp.Or(s.sector, 512))
	p := make([]byte, s.size)
	copy(p, below)
	for i, state := range s.states {
		if state&7 != 0 {
			clear(p[int64(i)*block : min(int64(i+1)*block, s.size)])
		}
	}
	for _, i := range s.stored {
		for at := int64(i) * block; at < min(int64(i+1)*block, s.size); at += sector {
			if has := s.partial[i]; has == nil || has(int(at%block/sector)) {
				s.content.ReadAt(p[at:at+sector], at)
			}
		}
	}
	return p
}

// linked are the parent locator's entries for the parent of that name, whose data write GUID is parentGUID.
func linked(name string) [][2]string {
	return [][2]string{{"parent_linkage", "{" + parentLink + "}"}, {"relative_path", name}}
}

// The same, as it is written in headers and in locators.
const (
	parentGUID = "0123456789abcdef"
	parentLink = "33323130-3534-3736-3839-616263646566"
)

// tinyContent is made once.
var tinyContent = formatstest.Sparse(formatstest.Piece{Data: formatstest.Noise(1, 5*mib)})

// tiny is a disk of five blocks of 1 MiB, the last of which is cut.
func tiny() spec {
	return spec{
		size: 4*mib + 6*512, content: tinyContent, stored: []int{3, 1, 4},
		states: map[int]uint64{0: 2, 2: 0},
	}
}

// Layout of tiny.
const (
	tinyEnd   = blocksAt + 3*mib
	tinyFirst = 3 // the block that lies first
)

// use opens src and walks it, and returns the first error.
func use(src formats.Source) error {
	img, err := vhdx.Format().Open(context.Background(), src, nil)
	if err != nil {
		return err
	}
	defer img.Close()
	for _, err := range img.Extents(context.Background()) {
		if err != nil {
			return err
		}
	}
	return nil
}

// findings runs Check.
func findings(src formats.Source) (list []formats.Finding, c formats.Checked, err error) {
	c, err = vhdx.Format().Check(context.Background(), src, func(f formats.Finding) { list = append(list, f) })
	return list, c, err
}
