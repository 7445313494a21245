package vmdk_test

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"sync"

	"imgferry/formats/formatstest"
)

// The images here are made from VMware's note, without the reader's code.

const sector = 512

// file is the bytes of a file under construction. Numbers are little-endian.
type file []byte

func (p file) u8(off int64, v uint8) file   { p[off] = v; return p }
func (p file) u16(off int64, v uint16) file { binary.LittleEndian.PutUint16(p[off:], v); return p }
func (p file) u32(off int64, v uint32) file { binary.LittleEndian.PutUint32(p[off:], v); return p }
func (p file) u64(off int64, v uint64) file { binary.LittleEndian.PutUint64(p[off:], v); return p }
func (p file) str(off int64, s string) file { copy(p[off:], s); return p }
func (p file) cut(n int) file               { return p[: len(p)-n : len(p)-n] }

// pad fills up the last sector.
func (p file) pad() file { return append(p, make([]byte, -len(p)&(sector-1))...) }

// sectors is the length in sectors, of a file that was padded.
func (p file) sectors() uint32 { return uint32(len(p) / sector) }

// clone lets one image be damaged in many ways.
func (p file) clone() file { return bytes.Clone(p) }

const (
	buildGrain = 8 // sectors: the smallest that VMware's note allows is more, which costs only bytes
	buildGTEs  = 16
	grainLen   = buildGrain * sector
	tableSpan  = buildGTEs * grainLen
)

// text of a descriptor for one file.
func selfDescriptor(createType string, capacity int64) string {
	return fmt.Sprintf("# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=%q\n\n# Extent description\nRW %d SPARSE \"self.vmdk\"\n\n#DDB\nddb.adapterType = \"ide\"\n", createType, capacity)
}

// describe is a descriptor of extent lines.
func describe(createType string, lines ...string) []byte {
	s := "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"" + createType + "\"\n"
	for _, l := range lines {
		s += l + "\n"
	}
	return []byte(s)
}

// content of a disk: whole grains and the last one, by their number.
type content map[int64][]byte

// pieces is the content for the suite.
func (c content) pieces() []formatstest.Piece {
	var list []formatstest.Piece
	for i, p := range c {
		list = append(list, formatstest.Piece{Offset: i * grainLen, Data: p})
	}
	return list
}

// sample is content for a disk of that many grains: one in three is stored.
func sample(grains int64) content {
	c := content{}
	for i := range grains {
		if i%3 == 0 || i == grains-1 {
			if i%2 == 0 {
				c[i] = formatstest.Text(uint64(i), grainLen)
			} else {
				c[i] = formatstest.Noise(uint64(i), grainLen)
			}
		}
	}
	return c
}

// tables is how many grain tables the capacity in sectors takes.
func tables(capacity int64) int64 { return (capacity*sector + tableSpan - 1) / tableSpan }

// header is the first sector of a sparse extent. Directories are for the caller.
func header(version, flags uint32, capacity int64) file {
	p := make(file, sector).str(0, "KDMV").u32(4, version).u32(8, flags).u64(12, uint64(capacity)).u64(20, buildGrain)
	p.u32(44, buildGTEs).str(73, "\n \r\n")
	if flags&(1<<16) != 0 {
		p.u16(77, 1)
	}
	return p
}

// plain is where things are in a plain sparse extent.
type plain struct {
	file
	rgd, rgt, gd, gt int64 // bytes
	grains           int64
}

// buildPlain makes a sparse extent with both directories. zeroed are grains of zeros that are stored
// as such. An empty descriptor is left out.
func buildPlain(version uint32, capacity int64, c content, zeroed []int64, descriptor string) plain {
	flags := uint32(3)
	if len(zeroed) > 0 {
		flags |= 4
	}
	b := plain{file: header(version, flags, capacity)}
	if descriptor != "" {
		b.u64(28, uint64(b.sectors())).u64(36, 4)
		b.file = append(b.file, make(file, 4*sector).str(0, descriptor)...)
	}
	n := tables(capacity)
	add := func() (gd, gt int64) {
		gd = int64(len(b.file))
		b.file = append(b.file, make(file, n*4)...).pad()
		gt = int64(len(b.file))
		b.file = append(b.file, make(file, n*sector)...)
		for i := range n {
			b.u32(gd+i*4, uint32(gt/sector+i))
		}
		return gd, gt
	}
	b.rgd, b.rgt = add()
	b.gd, b.gt = add()
	b.file = append(b.file, make(file, -len(b.file)&(grainLen-1))...)
	b.grains = int64(len(b.file))
	b.u64(48, uint64(b.rgd/sector)).u64(56, uint64(b.gd/sector)).u64(64, uint64(b.grains/sector))
	for i := range n * buildGTEs {
		if p, ok := c[i]; ok {
			b.entry(i, b.sectors())
			b.file = append(b.file, p...)
			b.file = append(b.file, make(file, grainLen-len(p))...)
		}
	}
	for _, i := range zeroed {
		b.entry(i, 1)
	}
	return b
}

// entryAt is where the primary table's entry of grain i is.
func (b plain) entryAt(i int64) int64 { return b.gt + i/buildGTEs*sector + i%buildGTEs*4 }

// entry sets the entry of grain i in both tables.
func (b plain) entry(i int64, v uint32) {
	b.u32(b.entryAt(i), v).u32(b.entryAt(i)-b.gt+b.rgt, v)
}

// deflaters are zlib writers: each new one takes some 800 KiB, much more than a grain.
var deflaters = sync.Pool{New: func() any { return zlib.NewWriter(nil) }}

func deflate(p []byte) []byte {
	w := deflaters.Get().(*zlib.Writer)
	defer deflaters.Put(w)
	var z bytes.Buffer
	w.Reset(&z)
	w.Write(p)
	w.Close()
	return z.Bytes()
}

// grain is a compressed grain with its marker, padded. lba is in sectors.
func packedGrain(lba uint64, stored []byte) file {
	return append(make(file, 12).u64(0, lba).u32(8, uint32(len(stored))), stored...).pad()
}

func marker(value uint64, typ uint32) file { return make(file, sector).u64(0, value).u32(12, typ) }

// stream is where things are in a stream-optimized extent.
type stream struct {
	file
	grains map[int64]int64 // markers by grain, bytes
	gtAt   int64           // first grain table, bytes
	gd     int64
	footer int64
}

// buildStream makes a stream-optimized extent as VMware writes it: each grain table follows its
// grains, then come the directory, the footer and the end.
func buildStream(version uint32, capacity int64, c content) stream {
	head := header(version, 1|1<<16|1<<17, capacity).u64(28, 1).u64(36, 4).u64(56, 1<<64-1).u64(64, buildGrain)
	b := stream{file: append(head.clone(), make(file, (buildGrain-1)*sector)...), grains: map[int64]int64{}}
	b.str(sector, selfDescriptor("streamOptimized", capacity))
	gd := make(file, tables(capacity)*4)
	for i := range tables(capacity) {
		gt := make(file, buildGTEs*4)
		some := false
		for k := range int64(buildGTEs) {
			n := i*buildGTEs + k
			if p, ok := c[n]; ok {
				some = true
				gt.u32(k*4, b.sectors())
				b.grains[n] = int64(len(b.file))
				b.file = append(b.file, packedGrain(uint64(n*buildGrain), deflate(p))...)
			}
		}
		if some {
			b.file = append(b.file, marker(1, 1)...)
			gd.u32(i*4, b.sectors())
			if b.gtAt == 0 {
				b.gtAt = int64(len(b.file))
			}
			b.file = append(b.file, gt...).pad()
		}
	}
	b.file = append(b.file, marker(uint64(len(gd.pad())/sector), 2)...)
	b.gd = int64(len(b.file))
	b.file = append(b.file, gd...).pad()
	b.footer = int64(len(b.file))
	b.file = append(b.file, marker(1, 3)...)
	b.file = append(b.file, head.u64(56, uint64(b.gd/sector))...)
	b.file = append(b.file, marker(0, 0)...)
	return b
}
