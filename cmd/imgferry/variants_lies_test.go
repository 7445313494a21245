package main

import (
	"archive/tar"
	"bytes"
	"compress/zlib"
	"crypto/sha256"
	"fmt"
	"hash/crc32"
	"strings"
	"unicode/utf16"
)

// Lies of differencing disks, of logs, of the rarer kinds of VMDK, of ZVHD and of packages. Those with a
// parent or an extent name the file "beside".

// allowed lets an image name files in its directory.
var allowed = []string{"--allow-backing", "lies"}

func variantLies(canary string, zvhd lying) []lie {
	var all []lie
	for _, of := range []struct {
		format string
		list   []lie
	}{
		{"vhdx", append(logLies(), vhdxParentLies()...)}, {"vhd", vhdParentLies()}, {"vmdk", append(vmdkParentLies(canary), esxLies()...)},
		{"zvhd", zvhdLies(zvhd)}, {"ova", packageLies(canary)},
	} {
		for _, l := range of.list {
			l.format = of.format
			all = append(all, l)
		}
	}
	return all
}

// loggedVHDX is a VHDX with an entry in its log: one descriptor, whose sign is "zero" or "desc", with data
// for the latter.
func loggedVHDX(sign string, offset, zeros, flushed uint64) lying {
	const kib, mib = 1 << 10, 1 << 20
	p := tinyVHDX(func(p lying) {
		for _, at := range []int{64 * kib, 128 * kib} {
			p.str(at+48, "the log's guid!!")
		}
	})
	entry := make(lying, 4096)
	entry.str(64, sign).le64(64+8, zeros).le64(64+16, offset).le64(64+24, 5)
	if sign == "desc" {
		entry = append(entry, make(lying, 4096).str(0, "data").le32(4092, 5)...)
	}
	entry.str(0, "loge").le32(8, uint32(len(entry))).le64(16, 5).le32(24, 1).str(32, "the log's guid!!").le64(48, flushed).le64(56, flushed)
	entry.le32(4, crc32.Checksum(entry, crc32.MakeTable(crc32.Castagnoli)))
	copy(p[mib:], entry)
	return p
}

func logLies() []lie {
	const mib = 1 << 20
	return []lie{
		{name: "log zeros of 2^60", image: loggedVHDX("zero", 0, 1<<60, 5*mib)},
		{name: "log zeros around 2^64", image: loggedVHDX("zero", 1<<64-4096, 8192, 5*mib)},
		{name: "log over the headers", image: loggedVHDX("desc", 64<<10, 0, 5*mib)},
		{name: "log over itself", image: loggedVHDX("zero", mib, mib, 5*mib)},
		{name: "log of a longer file", image: loggedVHDX("zero", 4*mib, 4096, 1<<40)},
		{name: "log write at 2^63", image: loggedVHDX("desc", 1<<63, 0, 5*mib)},
	}
}

// wideText is s in UTF-16, little-endian.
func wideText(s string) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = append(b, byte(u), byte(u>>8))
	}
	return string(b)
}

// childVHDX is a differencing VHDX.
func childVHDX(parent string, change func(p lying)) lying {
	const kib, mib = 1 << 10, 1 << 20
	return tinyVHDX(func(p lying) {
		p.le32(2*mib+64*kib+4, 2) // has a parent
		entries := [][2]string{{"parent_linkage", "{33323130-3534-3736-3839-616263646566}"}, {"relative_path", parent}}
		locator := make(lying, 20+12*len(entries)).str(0, "\xb7\xef\x4a\xb0\x9e\xd1\x81\x4a\xb7\x89\x25\xb8\xe9\x44\x59\x13").le16(18, uint16(len(entries)))
		for i, kv := range entries {
			key, value := wideText(kv[0]), wideText(kv[1])
			locator.le32(20+12*i, uint32(len(locator))).le32(24+12*i, uint32(len(locator)+len(key))).le16(28+12*i, uint16(len(key))).le16(30+12*i, uint16(len(value)))
			locator = append(locator, key+value...)
		}
		at := 2*mib + 32 + 32*5
		p.le16(2*mib+10, 6).str(at, "\x2d\x5f\xd3\xa8\x0b\xb3\x4d\x45\xab\xf7\xd3\xd8\x48\x34\xab\x0c")
		p.le32(at+16, 68*kib).le32(at+20, uint32(len(locator))).le32(at+24, 4).str(2*mib+68*kib, string(locator))
		change(p)
	})
}

// parentVHDX is what childVHDX is based on.
func parentVHDX(id string) lying {
	return tinyVHDX(func(p lying) { p.str(64<<10+32, id).str(128<<10+32, id) })
}

func vhdxParentLies() []lie {
	const mib = 1 << 20
	// Of the block in the file only those sectors count that a bitmap names.
	bitmap := func(entry uint64) lying {
		return childVHDX("beside", func(p lying) { p.le64(3*mib, 4*mib|7).le64(3*mib+8*4096, entry) })
	}
	good := parentVHDX("0123456789abcdef")
	return []lie{
		{name: "bitmap past the end", image: bitmap(1<<62 | 6), beside: good, args: allowed},
		{name: "bitmap over a block", image: bitmap(4*mib | 6), beside: good, args: allowed},
		{name: "bitmap missing", image: bitmap(0), beside: good, args: allowed},
		{name: "parent of another GUID", image: childVHDX("beside", func(lying) {}), beside: parentVHDX("another data id!"), args: allowed},
		{name: "parent, itself", image: childVHDX("this", func(p lying) { p.str(64<<10+32, "0123456789abcdef").str(128<<10+32, "0123456789abcdef") }), args: allowed},
		{name: "parent, no VHDX", image: childVHDX("canary", func(lying) {}), args: allowed},
		{name: "parent, ..", image: childVHDX(`..\canary`, func(lying) {}), args: allowed},
	}
}

// childVHD is a differencing VHD.
func childVHD(parent string, change func(header lying)) lying {
	return tinyVHD(func(footer, header, _ lying) {
		footer.be32(60, 4).str(68, "a child's own id")
		header.str(40, "0123456789abcdef")
		for i, r := range parent {
			header.str(64+2*i+1, string(r))
		}
		change(header)
	})
}

func vhdParentLies() []lie {
	good := tinyVHD(func(_, _, _ lying) {})
	none := func(lying) {}
	return []lie{
		{name: "parent by URL", image: childVHD("http://127.0.0.1:1/canary", none), args: allowed},
		{name: "parent, a link out", image: childVHD("link", none), args: allowed},
		{name: "parent's name past the end", image: childVHD("beside", func(h lying) { h.str(576, "W2ru").be32(580, 512).be32(584, 20).be64(592, 1<<63) }), beside: good, args: allowed},
		{name: "parent's name of 4 GiB", image: childVHD("beside", func(h lying) { h.str(576, "W2ru").be32(580, 512).be32(584, 1<<32-1).be64(592, 512) }), beside: good, args: allowed},
		{name: "parent of another id", image: childVHD("beside", func(h lying) { h.str(40, "another disk id!") }), beside: good, args: allowed},
		{name: "parent, itself", image: childVHD("this", func(h lying) { h.str(40, "a child's own id") }), args: allowed},
	}
}

func vmdkParentLies(canary string) []lie {
	child := func(parent, cid string) lying {
		return tinyVMDK(func(p lying) {
			p.str(512, "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID="+cid+"\ncreateType=\"monolithicSparse\"\nparentFileNameHint=\""+parent+"\"\nRW 32 SPARSE \"x.vmdk\"\n")
		})
	}
	good := tinyVMDK(func(lying) {})
	return []lie{
		{name: "parent, absolute", image: child(canary, "12345678"), args: allowed},
		{name: "parent, itself", image: child("this", "12345678"), args: allowed},
		{name: "parent of another CID", image: child("beside", "87654321"), beside: good, args: allowed},
		{name: "parent without a CID", image: child("beside", "ffffffff"), beside: good, args: allowed},
		{name: "parent of another size", image: child("beside", "12345678"), beside: tinyVMDK(func(p lying) { p.le64(12, 31) }), args: allowed},
		{name: "parent without a name", image: child("", "12345678"), args: allowed},
	}
}

// esxLies are disks of one extent, "beside".
func esxLies() []lie {
	disk := func(createType, line string) lying {
		return lying(fmt.Sprintf("# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"%s\"\nRW 32 %s \"beside\"\n", createType, line))
	}
	// Header, directory, a table of 4096 entries, four grains.
	cowd := func(change func(p lying)) lie {
		p := make(lying, (5+32+4*8)*512).str(0, "COWD").le32(4, 1).le32(8, 3).le32(12, 32).le32(16, 8).le32(20, 4).le32(24, 1).le32(28, 69).le32(4*512, 5)
		for i := range 4 {
			p.le32(5*512+4*i, uint32(37+8*i)).str((37+8*i)*512, "data of a guest")
		}
		return lie{image: disk("vmfsSparse", "VMFSSPARSE"), beside: p.do(change), args: allowed}
	}
	se := func(change func(p lying)) lie {
		p := make(lying, (3+64+4*8)*512).le64(0, 0xcafebabe).le64(8, 0x200000001).le64(16, 32).le64(24, 8).le64(32, 64)
		p.le64(80, 1).le64(88, 1).le64(128, 2).le64(136, 1).le64(144, 3).le64(152, 64).le64(192, 67).le64(200, 32)
		p.le64(512, 0xcafecafe).le64(2*512, 0x10000000<<32)
		for i := range 4 {
			p.le64(3*512+8*i, 3<<60|uint64(i)<<48).str((67+8*i)*512, "data of a guest")
		}
		return lie{image: disk("seSparse", "SESPARSE"), beside: p.do(change), args: allowed}
	}
	named := func(name string, l lie) lie { l.name = name; return l }
	return []lie{
		named("COWD grain past the end", cowd(func(p lying) { p.le32(5*512, 1<<32-1) })),
		named("COWD table past the end", cowd(func(p lying) { p.le32(4*512, 1<<32-1) })),
		named("COWD of 2^32 tables", cowd(func(p lying) { p.le32(24, 1<<32-1) })),
		named("seSparse grain past the end", se(func(p lying) { p.le64(3*512, 3<<60|1<<47) })),
		named("seSparse table past the end", se(func(p lying) { p.le32(2*512, 1<<32-1) })),
		named("seSparse journal", se(func(p lying) { p[512+24] = 1 })),
		named("seSparse, flat by the descriptor", lie{image: disk("monolithicFlat", "FLAT"), beside: se(func(lying) {}).beside[:100], args: allowed}),
	}
}

// zvhdLies change a file that the program made: header, chunks, footer.
func zvhdLies(good lying) []lie {
	changed := func(change func(p lying)) lying { return append(lying{}, good...).do(change) }
	both := func(change func(p lying, at int)) lying {
		return changed(func(p lying) {
			for _, at := range []int{0, len(p) - 4096} {
				change(p, at)
				p.zvhd2Sum(at) // it is the same one
			}
		})
	}
	return []lie{
		{name: "checksum", image: changed(func(p lying) { p[70]++ })},
		{name: "virtual size 2^63", image: both(func(p lying, at int) { p.le64(at+40, 1<<63).le64(at+48, 1<<63) })},
		{name: "virtual size 1 EiB", image: both(func(p lying, at int) { p.le64(at+40, 1<<60).le64(at+48, 1<<60) })},
		{name: "chunk of 4 GiB", image: changed(func(p lying) { p.le32(4096+12, 1<<32-1) })},
		{name: "chunk of block 2^32-1", image: changed(func(p lying) { p.le32(4096+16, 1<<32-1) })},
		{name: "chunk damaged", image: changed(func(p lying) { p.str(4096, "no chunk begins here") })},
		{name: "stream damaged", image: changed(func(p lying) { p.str(4096+50, "\xff\xff") })},
		{name: "another footer", image: changed(func(p lying) { p[len(p)-4096+80]++ })},
		{name: "cut", image: append(lying{}, good[:len(good)-4096]...)},
		{name: "bomb in a block", image: zvhdBomb(good)},
	}
}

// zvhdBomb is a ZVHD file of one block, which decodes to twice its size.
func zvhdBomb(good lying) lying {
	var z bytes.Buffer
	w := zlib.NewWriter(&z)
	w.Write(make([]byte, 4<<20))
	w.Flush()
	chunk := make(lying, 48).str(0, "hwstream bg\x00").le32(12, uint32(z.Len()))
	chunk = append(chunk, z.Bytes()...)
	chunk = chunk.grow((4096 - (len(chunk)+4)%4096) % 4096)
	return append(append(append(append(lying{}, good[:4096]...), chunk...), "end\x00"...), good[len(good)-4096:]...)
}

// member is a file of an archive.
type member struct {
	name, data, link string
	typ              byte
}

// archive packs them as they are.
func archive(members ...member) lying {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := tar.Header{Name: m.name, Size: int64(len(m.data)), Mode: 0o644, Typeflag: m.typ, Linkname: m.link, Format: tar.FormatUSTAR}
		if err := w.WriteHeader(&h); err != nil {
			panic(err)
		}
		if _, err := w.Write([]byte(m.data)); err != nil {
			panic(err)
		}
	}
	w.Close()
	return b.Bytes()
}

// packageLies are archives and descriptors with the disk that href names.
func packageLies(canary string) []lie {
	ovf := func(href string) string {
		return `<?xml version="1.0"?><Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
<References><File ovf:id="f" ovf:href="` + href + `"/></References>
<DiskSection><Info/><Disk ovf:diskId="d" ovf:fileRef="f" ovf:capacity="16384"/></DiskSection><VirtualSystem ovf:id="v"/></Envelope>`
	}
	disk := string(tinyVMDK(func(lying) {}))
	with := func(href string, members ...member) lying {
		return archive(append([]member{{name: "vm.ovf", data: ovf(href)}}, members...)...)
	}
	good := with("d.vmdk", member{name: "d.vmdk", data: disk})
	manifest := fmt.Sprintf("SHA256(vm.ovf)= %x\nSHA256(d.vmdk)= %x\n", sha256.Sum256([]byte(ovf("d.vmdk"))), sha256.Sum256([]byte("another disk")))
	laughs := `<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "` + strings.Repeat("&a;", 10000) + `">]>` + ovf("&b;")[21:]
	return []lie{
		{name: "disk, a symbolic link", image: with("d.vmdk", member{name: "d.vmdk", link: canary, typ: tar.TypeSymlink})},
		{name: "disk, a hard link", image: with("d.vmdk", member{name: "d.vmdk", link: canary, typ: tar.TypeLink})},
		{name: "disk, ..", image: with("../canary", member{name: "../canary", data: disk})},
		{name: "disk, absolute", image: with(canary, member{name: canary, data: disk})},
		{name: "disk, not in the archive", image: with("canary")},
		{name: "disk twice", image: with("d.vmdk", member{name: "d.vmdk", data: disk}, member{name: "d.vmdk", data: disk})},
		{name: "manifest of another disk", image: with("d.vmdk", member{name: "vm.mf", data: manifest}, member{name: "d.vmdk", data: disk})},
		{name: "manifest without the disk", image: with("d.vmdk", member{name: "vm.mf", data: manifest[:strings.Index(manifest, "SHA256(d.")]}, member{name: "d.vmdk", data: disk})},
		{name: "cut", image: good[:len(good)-8192]},
		{name: "member of 8 EiB", image: append(lying{}, good...).do(func(p lying) { tarSize(p[2*512:], 1<<63-1) })},
		{name: "entities", image: archive(member{name: "vm.ovf", data: laughs}, member{name: "d.vmdk", data: disk})},
		{name: "descriptor, a disk beside", image: lying(ovf("canary"))},
		{name: "descriptor, a disk outside", image: lying(ovf("../canary")), args: allowed},
		{name: "descriptor, a link out", image: lying(ovf("link")), args: allowed},
		{name: "descriptor, a disk by URL", image: lying(ovf("http://127.0.0.1:1/canary")), args: allowed},
	}
}

// tarSize writes the size of a member in base 256, and the sum of its head.
func tarSize(head lying, size uint64) {
	head[124] = 0x80
	head[125], head[126], head[127] = 0, 0, 0
	head.be64(128, size).str(148, "        ")
	var sum int
	for _, b := range head[:512] {
		sum += int(b)
	}
	head.str(148, fmt.Sprintf("%06o\x00 ", sum))
}
