package main

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
)

// lie is an image that says something that is not so, or asks for what it should not get. It shares no
// code with the readers.
type lie struct {
	format, name string
	image        lying
	beside       lying    // the file "beside" in the same directory, if there is one
	args         []string // for every command
}

// lying is the bytes of an image.
type lying []byte

func (p lying) be32(at int, v uint32) lying   { binary.BigEndian.PutUint32(p[at:], v); return p }
func (p lying) be64(at int, v uint64) lying   { binary.BigEndian.PutUint64(p[at:], v); return p }
func (p lying) le16(at int, v uint16) lying   { binary.LittleEndian.PutUint16(p[at:], v); return p }
func (p lying) le32(at int, v uint32) lying   { binary.LittleEndian.PutUint32(p[at:], v); return p }
func (p lying) le64(at int, v uint64) lying   { binary.LittleEndian.PutUint64(p[at:], v); return p }
func (p lying) str(at int, s string) lying    { copy(p[at:], s); return p }
func (p lying) grow(n int) lying              { return append(p, make(lying, n)...) }
func (p lying) do(change func(p lying)) lying { change(p); return p }
func (p lying) name(at int, name string) lying {
	return p.be64(8, uint64(at)).be32(16, uint32(len(name))).str(at, name)
}
func deflated(n int) string {
	return pack(n, func(b *bytes.Buffer) flusher { w, _ := flate.NewWriter(b, 9); return w })
}
func zlibbed(n int) string {
	return pack(n, func(b *bytes.Buffer) flusher { return zlib.NewWriter(b) })
}

type flusher interface {
	Write([]byte) (int, error)
	Close() error
}

func pack(n int, to func(*bytes.Buffer) flusher) string {
	var b bytes.Buffer
	w := to(&b)
	w.Write(make([]byte, n))
	w.Close()
	return b.String()
}

// lies are images for every row of the table of dangers, for each format that it applies to. canary is
// the path of a file that none of them may make anybody read, zvhd2 a good file of that format.
func lies(canary string, zvhd2 lying) []lie {
	var all []lie
	for _, of := range []struct {
		format string
		list   []lie
	}{
		{"qcow2", qcow2Lies(canary)}, {"qcow", qcowLies(canary)}, {"qed", qedLies(canary)}, {"vdi", vdiLies()}, {"vhd", vhdLies(canary)},
		{"vhdx", vhdxLies(canary)}, {"vmdk", vmdkLies(canary)}, {"zvhd2", zvhd2Lies(zvhd2)}, {"raw", rawLies(canary)},
	} {
		for _, l := range of.list {
			l.format = of.format
			all = append(all, l)
		}
	}
	return all
}

// The tiny qcow2: clusters of 512 bytes; header, L1 table, L2 table, refcount table, refcount block, four
// clusters of data.
func tinyQcow2() lying {
	p := make(lying, 9*512)
	p.be32(0, 0x514649fb).be32(4, 3).be32(20, 9).be64(24, 2048).be32(36, 1).be64(40, 512).be64(48, 1536).be32(56, 1).be32(96, 4).be32(100, 104)
	p.be64(512, 1<<63|1024).be64(1536, 2048)
	for i := range 4 {
		p.be64(1024+8*i, 1<<63|uint64(2560+512*i)).str(2560+512*i, "data of a guest")
	}
	for i := range 9 {
		binary.BigEndian.PutUint16(p[2048+2*i:], 1)
	}
	return p
}

func qcow2Lies(canary string) []lie {
	backing := func(name string) lying { return tinyQcow2().name(300, name).be64(512, 0) }
	dataFile := func(name string) lying {
		return tinyQcow2().be64(72, 1<<2).be32(104, 0x44415441).be32(108, uint32(len(name))).str(112, name)
	}
	packed := func(data string) lying {
		p := tinyQcow2().grow(512 * (1 + len(data)/512))
		return p.str(9*512, data).be64(1024, 1<<62|uint64(len(data)/512)<<61|9*512)
	}
	return []lie{
		{name: "backing file, absolute", image: backing(canary)},
		{name: "backing file, relative", image: backing("canary")},
		{name: "backing file, ..", image: backing("../lies/canary")},
		{name: "backing file, outside", image: backing("../canary"), args: []string{"--allow-backing", "lies", "--backing-format", "raw"}},
		{name: "backing file, a link out", image: backing("link"), args: []string{"--allow-backing", "lies", "--backing-format", "raw"}},
		{name: "backing file, itself", image: backing("this"), args: []string{"--allow-backing", "lies", "--backing-format", "qcow2"}},
		{name: "backing file, no format", image: backing("inside"), args: []string{"--allow-backing", "lies"}},
		{name: "backing file, json:", image: backing(`json:{"driver":"raw","file":{"filename":"canary"}}`), args: []string{"--allow-backing", "lies", "--backing-format", "raw"}},
		{name: "backing file, nbd:", image: backing("nbd:unix:canary"), args: []string{"--allow-backing", "lies", "--backing-format", "raw"}},
		{name: "backing file, https://", image: backing("https://127.0.0.1:1/canary"), args: []string{"--allow-backing", "lies", "--backing-format", "raw"}},
		{name: "external data file", image: dataFile(canary)},
		{name: "external data file, json:", image: dataFile(`json:{}`)},
		{name: "unknown feature bits", image: tinyQcow2().be64(72, 1<<9|1<<63)},
		{name: "encrypted", image: tinyQcow2().be32(32, 2)},
		{name: "cluster_bits 8", image: tinyQcow2().be32(20, 8)},
		{name: "cluster_bits 22", image: tinyQcow2().be32(20, 22)},
		{name: "virtual size 2^63", image: tinyQcow2().be64(24, 1<<63)},
		{name: "virtual size 2^63-512", image: tinyQcow2().be64(24, 1<<63-512)},
		{name: "virtual size 4 EiB, L1 too", image: tinyQcow2().be32(20, 21).be64(24, 1<<62).be32(36, 4<<20)},
		{name: "L1 of 32 GiB", image: tinyQcow2().be32(36, 1<<32-1)},
		{name: "L1 at 2^64", image: tinyQcow2().be64(40, 1<<64-512)},
		{name: "L2 past the end", image: tinyQcow2().be64(512, 1<<63|0x00fffffffffffe00)},
		{name: "data past the end", image: tinyQcow2().be64(1024, 1<<63|0x00fffffffffffe00)},
		{name: "data in the tables", image: tinyQcow2().be64(1024, 1<<63|512)},
		{name: "L2 shared", image: tinyQcow2().be64(24, 20*64*512).be32(36, 20).do(func(p lying) {
			for i := range 20 {
				p.be64(512+8*i, 1<<63|1024)
			}
		})},
		{name: "refcount table of 32 GiB", image: tinyQcow2().be32(56, 1<<26)},
		{name: "bomb in a cluster", image: packed(deflated(400_000))},
		{name: "a byte too many in a cluster", image: packed(deflated(513))},
		{name: "said to be raw", image: backing(canary), args: []string{"--source-format", "raw"}},
	}
}

// The tiny qcow: clusters of 512 bytes; header and L1 table, L2 table, four clusters of data.
func tinyQcow() lying {
	p := make(lying, 6*512)
	p.be32(0, 0x514649fb).be32(4, 1).be64(24, 2048).be64(40, 48).be64(48, 512)
	p[32], p[33] = 9, 6
	for i := range 4 {
		p.be64(512+8*i, uint64(1024+512*i)).str(1024+512*i, "data of a guest")
	}
	return p
}

func qcowLies(canary string) []lie {
	packed := func(data string) lying {
		return tinyQcow().str(1024, data).be64(512, 1<<63|uint64(len(data))<<54|1024)
	}
	return []lie{
		{name: "backing file, absolute", image: tinyQcow().name(300, canary)},
		{name: "backing file, json:", image: tinyQcow().name(300, "json:{}")},
		{name: "encrypted", image: tinyQcow().be32(36, 1)},
		{name: "cluster_bits 255", image: tinyQcow().do(func(p lying) { p[32] = 255 })},
		{name: "virtual size 2^63", image: tinyQcow().be64(24, 1<<63)},
		{name: "virtual size 2^63-1", image: tinyQcow().be64(24, 1<<63-1)},
		{name: "L1 at 2^64", image: tinyQcow().be64(40, 1<<64-8)},
		{name: "L2 past the end", image: tinyQcow().be64(48, 1<<62)},
		{name: "data past the end", image: tinyQcow().be64(512, 1<<62)},
		{name: "bomb in a cluster", image: packed(deflated(200_000))},
	}
}

// The tiny QED: clusters of 4096 bytes; header, L1 table of two, L2 table of two, four clusters of data.
func tinyQED() lying {
	p := make(lying, 9*4096)
	p.str(0, "QED\x00").le32(4, 4096).le32(8, 2).le32(12, 1).le64(40, 4096).le64(48, 4*4096).le64(4096, 3*4096)
	for i := range 4 {
		p.le64(3*4096+8*i, uint64((5+i)*4096)).str((5+i)*4096, "data of a guest")
	}
	return p
}

func qedLies(canary string) []lie {
	backing := func(name string) lying {
		return tinyQED().le64(16, 1).le32(56, 100).le32(60, uint32(len(name))).str(100, name)
	}
	return []lie{
		{name: "backing file, absolute", image: backing(canary)},
		{name: "backing file, json:", image: backing("json:{}")},
		{name: "unknown feature bits", image: tinyQED().le64(16, 1<<40)},
		{name: "clusters of 0", image: tinyQED().le32(4, 0)},
		{name: "tables of 4 Gi clusters", image: tinyQED().le32(8, 1<<32-1)},
		{name: "virtual size 2^63", image: tinyQED().le64(48, 1<<63)},
		{name: "virtual size beyond the tables", image: tinyQED().le64(48, 1<<62)},
		{name: "L1 at 2^64", image: tinyQED().le64(40, 1<<64-4096)},
		{name: "L2 past the end", image: tinyQED().le64(4096, 1<<62)},
		{name: "data past the end", image: tinyQED().le64(3*4096, 1<<62)},
	}
}

// The tiny VDI: header, block map, four blocks of 4096 bytes.
func tinyVDI() lying {
	p := make(lying, 1024+4*4096)
	p.str(0, "<<< a disk >>>\n").le32(64, 0xbeda107f).le32(68, 0x10001).le32(72, 400).le32(76, 1).le32(340, 512).le32(344, 1024).le32(360, 512)
	p.le64(368, 4*4096).le32(376, 4096).le32(384, 4).le32(388, 4)
	for i := range 4 {
		p.le32(512+4*i, uint32(i)).str(1024+4096*i, "data of a guest")
	}
	return p
}

func vdiLies() []lie {
	return []lie{
		{name: "parent disk", image: tinyVDI().le32(76, 4)},
		{name: "blocks of 0", image: tinyVDI().le32(376, 0)},
		{name: "blocks of 5000", image: tinyVDI().le32(376, 5000)},
		{name: "virtual size 2^63", image: tinyVDI().le64(368, 1<<63)},
		{name: "virtual size 2^63-1", image: tinyVDI().le64(368, 1<<63-1)},
		{name: "4 Gi blocks", image: tinyVDI().le32(384, 1<<32-1)},
		{name: "map at 4 GiB", image: tinyVDI().le32(340, 1<<32-1)},
		{name: "data at 4 GiB", image: tinyVDI().le32(344, 1<<32-1)},
		{name: "block past the end", image: tinyVDI().le32(512, 1<<32-3)},
		{name: "block twice", image: tinyVDI().le32(516, 0)},
	}
}

// vhdSum makes the checksum of the n bytes at at right.
func (p lying) vhdSum(at, n, field int) lying {
	p.be32(at+field, 0)
	var sum uint32
	for _, b := range p[at : at+n] {
		sum += uint32(b)
	}
	return p.be32(at+field, ^sum)
}

// tinyVHD is a dynamic VHD of four blocks of 4096 bytes, all stored: copy of the footer, header, table,
// blocks with their bitmaps, footer.
func tinyVHD(change func(footer, header, table lying)) lying {
	footer, header, table := make(lying, 512), make(lying, 1024), make(lying, 512)
	footer.str(0, "conectix").be32(8, 2).be32(12, 1<<16).be64(16, 512).str(28, "win ").str(36, "Wi2k").be64(40, 4*4096).be64(48, 4*4096).be32(60, 3).str(68, "0123456789abcdef")
	header.str(0, "cxsparse").be64(8, 1<<64-1).be64(16, 1536).be32(24, 1<<16).be32(28, 4).be32(32, 4096)
	data := make(lying, 4*4608)
	for i := range 4 {
		table.be32(4*i, uint32(4+9*i))
		copy(data[4608*i:], bytes.Repeat([]byte{0xff}, 512))
		data.str(4608*i+512, "data of a guest")
	}
	change(footer, header, table)
	footer.vhdSum(0, 512, 64)
	header.vhdSum(0, 1024, 36)
	return append(append(append(append(append(lying{}, footer...), header...), table...), data...), footer...)
}

func vhdLies(canary string) []lie {
	f := func(change func(p lying)) lying { return tinyVHD(func(footer, _, _ lying) { change(footer) }) }
	h := func(change func(p lying)) lying { return tinyVHD(func(_, header, _ lying) { change(header) }) }
	t := func(entry int, sector uint32) lying {
		return tinyVHD(func(_, _, table lying) { table.be32(4*entry, sector) })
	}
	return []lie{
		{name: "parent disk", image: tinyVHD(func(footer, header, _ lying) {
			footer.be32(60, 4)
			for i, r := range canary {
				header.str(64+2*i+1, string(r))
			}
		})},
		{name: "checksum", image: tinyVHD(func(_, _, _ lying) {}).do(func(p lying) { p[100]++; p[len(p)-412]++ })},
		{name: "virtual size 2^63", image: f(func(p lying) { p.be64(48, 1<<63) })},
		{name: "virtual size 2^64-1", image: f(func(p lying) { p.be64(48, 1<<64-1) })},
		{name: "header at 2^64", image: f(func(p lying) { p.be64(16, 1<<64-1) })},
		{name: "blocks of 0", image: h(func(p lying) { p.be32(32, 0) })},
		{name: "blocks of 4097", image: h(func(p lying) { p.be32(32, 4097) })},
		{name: "blocks of 2 GiB", image: h(func(p lying) { p.be32(32, 1<<31) })},
		{name: "table of 16 GiB", image: h(func(p lying) { p.be32(28, 1<<32-1) })},
		{name: "table at 2^64", image: h(func(p lying) { p.be64(16, 1<<64-1) })},
		{name: "block past the end", image: t(0, 1<<32-2)},
		{name: "block in the headers", image: t(0, 1)},
		{name: "blocks that overlap", image: t(1, 5)},
	}
}

// tinyVHDX is a disk of two blocks of 1 MiB, one of them stored: headers at 64 and 128 KiB, region tables
// at 192 and 256, log at 1 MiB, metadata at 2, table at 3, the block at 4. All checksums are right after
// the change.
func tinyVHDX(change func(p lying)) lying {
	const kib, mib = 1 << 10, 1 << 20
	p := make(lying, 5*mib)
	p.str(0, "vhdxfile")
	for i, at := range []int{64 * kib, 128 * kib} {
		p.str(at, "head").le64(at+8, uint64(i)+7).le16(at+66, 1).le32(at+68, mib).le64(at+72, mib)
	}
	for _, at := range []int{192 * kib, 256 * kib} {
		p.str(at, "regi").le32(at+8, 2)
		p.str(at+16, "\x66\x77\xc2\x2d\x23\xf6\x00\x42\x9d\x64\x11\x5e\x9b\xfd\x4a\x08").le64(at+32, 3*mib).le32(at+40, mib).le32(at+44, 1)
		p.str(at+48, "\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e").le64(at+64, 2*mib).le32(at+72, mib).le32(at+76, 1)
	}
	items := []struct{ id, data string }{
		{"\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b", string(make(lying, 8).le32(0, mib))},
		{"\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8", string(make(lying, 8).le64(0, 2*mib))},
		{"\xab\x12\xca\xbe\xe6\xb2\x23\x45\x93\xef\xc3\x09\xe0\x00\xc7\x46", "0123456789abcdef"},
		{"\x1d\xbf\x41\x81\x6f\xa9\x09\x47\xba\x47\xf2\x33\xa8\xfa\xab\x5f", string(make(lying, 4).le32(0, 512))},
		{"\xc7\x48\xa3\xcd\x5d\x44\x71\x44\x9c\xc9\xe9\x88\x52\x51\xc5\x56", string(make(lying, 4).le32(0, 4096))},
	}
	p.str(2*mib, "metadata").le16(2*mib+10, uint16(len(items)))
	for i, next := 0, 64*kib; i < len(items); i++ {
		at := 2*mib + 32 + 32*i
		p.str(at, items[i].id).le32(at+16, uint32(next)).le32(at+20, uint32(len(items[i].data))).le32(at+24, 4).str(2*mib+next, items[i].data)
		next += len(items[i].data)
	}
	p.le64(3*mib, 4*mib|6).str(4*mib, "data of a guest")
	change(p)
	for _, of := range [][2]int{{64 * kib, 4096}, {128 * kib, 4096}, {192 * kib, 65536}, {256 * kib, 65536}} {
		at := of[0]
		p.le32(at+4, 0)
		p.le32(at+4, crc32.Checksum(p[at:at+of[1]], crc32.MakeTable(crc32.Castagnoli)))
	}
	return p
}

func vhdxLies(canary string) []lie {
	const kib, mib = 1 << 10, 1 << 20
	both := func(first, second int, change func(p lying, at int)) lying {
		return tinyVHDX(func(p lying) { change(p, first); change(p, second) })
	}
	regions := func(change func(p lying, at int)) lying { return both(192*kib, 256*kib, change) }
	return []lie{
		{name: "CRC of the headers", image: tinyVHDX(func(lying) {}).do(func(p lying) { p[64*kib+100]++; p[128*kib+100]++ })},
		{name: "CRC of the regions", image: tinyVHDX(func(lying) {}).do(func(p lying) { p[192*kib+100]++; p[256*kib+100]++ })},
		{name: "log to be replayed", image: both(64*kib, 128*kib, func(p lying, at int) { p.str(at+48, "log") })},
		{name: "2048 regions", image: regions(func(p lying, at int) { p.le32(at+8, 2048) })},
		{name: "2047 regions", image: regions(func(p lying, at int) { p.le32(at+8, 2047) })},
		{name: "regions overlap", image: regions(func(p lying, at int) { p.le32(at+72, 2*mib) })},
		{name: "region around 2^64", image: regions(func(p lying, at int) { p.le64(at+32, 1<<64-mib).le32(at+40, 2*mib) })},
		{name: "unknown region required", image: regions(func(p lying, at int) {
			p.le32(at+8, 3).str(at+80, "an unknown guid!").le64(at+96, 64*mib).le32(at+104, mib).le32(at+108, 1)
		})},
		{name: "2048 metadata items", image: tinyVHDX(func(p lying) { p.le16(2*mib+10, 2048) })},
		{name: "2047 metadata items", image: tinyVHDX(func(p lying) { p.le16(2*mib+10, 2047) })},
		{name: "virtual size 2^63", image: tinyVHDX(func(p lying) { p.le64(2*mib+64*kib+8, 1<<63) })},
		{name: "virtual size 64 TiB", image: tinyVHDX(func(p lying) { p.le64(2*mib+64*kib+8, 64<<40) })},
		{name: "block past the end", image: tinyVHDX(func(p lying) { p.le64(3*mib, 1<<62|6) })},
		{name: "block in the headers", image: tinyVHDX(func(p lying) { p.le64(3*mib, 6) })},
		{name: "block twice", image: tinyVHDX(func(p lying) { p.le64(3*mib+8, 4*mib|6) })},
		{name: "parent disk", image: tinyVHDX(func(p lying) { p.le32(2*mib+64*kib+4, 2) })},
	}
}

// tinyVMDK is a sparse extent with its descriptor: header, descriptor, directory, table, four grains of 8
// sectors.
func tinyVMDK(change func(p lying)) lying {
	p := make(lying, (16+4*8)*512)
	p.str(0, "KDMV").le32(4, 1).le32(8, 1).le64(12, 32).le64(20, 8).le64(28, 1).le64(36, 4).le32(44, 512).le64(56, 5).le64(64, 16).str(73, "\n \r\n")
	p.str(512, "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"monolithicSparse\"\nRW 32 SPARSE \"x.vmdk\"\n")
	p.le32(5*512, 6)
	for i := range 4 {
		p.le32(6*512+4*i, uint32(16+8*i)).str((16+8*i)*512, "data of a guest")
	}
	change(p)
	return p
}

// streamVMDK is a stream-optimized extent of one grain whose compressed data is packed.
func streamVMDK(packed string) lying {
	head := make(lying, 8*512)
	head.str(0, "KDMV").le32(4, 3).le32(8, 1|1<<16|1<<17).le64(12, 8).le64(20, 8).le64(28, 1).le64(36, 4).le32(44, 512).le64(56, 1<<64-1).le64(64, 8).str(73, "\n \r\n").le16(77, 1)
	head.str(512, "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\nRW 8 SPARSE \"x.vmdk\"\n")
	sector := func(p lying) lying { return p.grow(-len(p) & 511) }
	marker := func(value uint64, typ uint32) lying { return make(lying, 512).le64(0, value).le32(12, typ) }
	p := sector(append(append(lying{}, head...), append(make(lying, 12).le32(8, uint32(len(packed))), packed...)...))
	p = append(p, marker(4, 1)...)
	table := len(p) / 512
	p = append(append(p, make(lying, 4*512).le32(0, 8)...), marker(1, 2)...)
	directory := len(p) / 512
	p = append(append(p, make(lying, 512).le32(0, uint32(table))...), marker(1, 3)...)
	return append(append(p, append(lying{}, head[:512]...).le64(56, uint64(directory))...), marker(0, 0)...)
}

func vmdkLies(canary string) []lie {
	text := func(createType, line string) lying {
		return lying(fmt.Sprintf("# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"%s\"\n%s\n", createType, line))
	}
	flat := func(name string) lying { return text("monolithicFlat", fmt.Sprintf(`RW 16 FLAT "%s" 0`, name)) }
	return []lie{
		{name: "createType of a device", image: text("fullDevice", `RW 16 FLAT "/dev/zero" 0`)},
		{name: "createType made up", image: text("whatever", `RW 16 FLAT "canary" 0`)},
		{name: "createType vmfsRaw", image: text("vmfsRawDeviceMap", `RW 16 VMFSRDM "canary"`)},
		{name: "extent, absolute", image: flat(canary)},
		{name: "extent, relative", image: flat("canary")},
		{name: "extent, ..", image: flat("../canary")},
		{name: "extent, ..\\", image: flat(`..\canary`)},
		{name: "extent, dir/", image: flat("lies/this-flat")},
		{name: "extent, a device", image: flat("/dev/zero")},
		{name: "extent, a link", image: flat("this-link")},
		{name: "extent, a pipe", image: flat("this-pipe")},
		{name: "extent, a folder", image: flat("this-folder")},
		{name: "extent, nbd:", image: flat("nbd:unix:canary")},
		{name: "extent, json:", image: flat("json:{}")},
		{name: "extents of 2^64 sectors", image: text("monolithicFlat", `RW 18446744073709551615 FLAT "this-flat" 0`)},
		{name: "parent disk", image: append(flat("this-flat"), `parentFileNameHint="`+canary+`"`+"\n"...)},
		{name: "capacity 2^63", image: tinyVMDK(func(p lying) { p.le64(12, 1<<63) })},
		{name: "capacity 2^54", image: tinyVMDK(func(p lying) { p.le64(12, 1<<54) })},
		{name: "grains of 0", image: tinyVMDK(func(p lying) { p.le64(20, 0) })},
		{name: "grains of 2 GiB", image: tinyVMDK(func(p lying) { p.le64(20, 1<<22) })},
		{name: "tables of 2^32", image: tinyVMDK(func(p lying) { p.le32(44, 1<<32-1) })},
		{name: "directory at 2^63", image: tinyVMDK(func(p lying) { p.le64(56, 1<<63) })},
		{name: "table past the end", image: tinyVMDK(func(p lying) { p.le32(5*512, 1<<32-1) })},
		{name: "grain past the end", image: tinyVMDK(func(p lying) { p.le32(6*512, 1<<32-1) })},
		{name: "grain in the tables", image: tinyVMDK(func(p lying) { p.le32(6*512, 1) })},
		{name: "bomb in a grain", image: streamVMDK(zlibbed(4 << 20))},
		{name: "a byte too many in a grain", image: streamVMDK(zlibbed(4097))},
		{name: "device in the descriptor inside", image: tinyVMDK(func(p lying) {
			p.str(512, strings.Repeat("\x00", 2048)).str(512, string(text("fullDevice", `RW 32 FLAT "/dev/zero" 0`)))
		})},
	}
}

// zvhd2Sum makes the checksum of the footer structure at at right.
func (p lying) zvhd2Sum(at int) lying {
	p.le32(at+64, 0)
	var sum uint32
	for _, b := range p[at : at+512] {
		sum += uint32(b)
	}
	return p.le32(at+64, ^sum)
}

// zvhd2Lies change a file that the program made, of a disk with data in its first block: header, chunk,
// tables and trailer, which is the last page.
func zvhd2Lies(good lying) []lie {
	both := func(change func(p lying, at int)) lying {
		p := append(lying{}, good...)
		for _, at := range []int{0, len(p) - 4096} {
			change(p, at)
			p.zvhd2Sum(at)
		}
		return p
	}
	trailer := func(change func(p lying, at int)) lying {
		p := append(lying{}, good...)
		change(p, len(p)-4096)
		return p.zvhd2Sum(len(p) - 4096)
	}
	return []lie{
		{name: "checksum", image: append(lying{}, good...).do(func(p lying) { p[len(p)-4096+70]++ })},
		{name: "virtual size 2^63", image: both(func(p lying, at int) { p.le64(at+40, 1<<63).le64(at+48, 1<<63) })},
		{name: "virtual size 1 EiB", image: both(func(p lying, at int) { p.le64(at+40, 1<<60).le64(at+48, 1<<60) })},
		{name: "blocks of 0", image: both(func(p lying, at int) { p.le32(at+88, 0) })},
		{name: "4 Gi blocks", image: both(func(p lying, at int) { p.le32(at+92, 1<<32-1) })},
		{name: "index at 2^64", image: trailer(func(p lying, at int) { p.le64(at+96, 1<<64-4096) })},
		{name: "index of 4 GiB", image: trailer(func(p lying, at int) { p.le32(at+112, 1<<32-1) })},
		{name: "4 Gi stored blocks", image: trailer(func(p lying, at int) { p.le32(at+136, 1<<32-1) })},
		{name: "bitmap at 2^64", image: trailer(func(p lying, at int) { p.le64(at+104, 1<<64-4096) })},
		{name: "codec 77", image: both(func(p lying, at int) { p[at+141] = 77 })},
		{name: "chunk damaged", image: append(lying{}, good...).do(func(p lying) { p.str(4096, "no chunk begins here") })},
		{name: "cut", image: append(lying{}, good[:len(good)-4096]...)},
	}
}

// A raw disk that looks like something else, whatever it is called or said to be.
func rawLies(canary string) []lie {
	nested := append(make(lying, 0), tinyQcow2().name(300, canary)...).grow(1 << 20)
	return []lie{
		{name: "a qcow2 said to be raw", image: nested, args: []string{"--source-format", "raw"}},
		{name: "a descriptor said to be raw", image: vmdkLies(canary)[3].image.grow(1 << 20), args: []string{"--source-format", "raw"}},
		{name: "nothing known", image: bytes.Repeat([]byte("what "), 1000)},
		{name: "nothing at all", image: lying{}},
	}
}
