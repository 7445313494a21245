package vmdk_test

import "fmt"

// The extents of ESX, with grains of grainLen bytes and tables of 4096 of them.
const esxSpan = 4096 * grainLen

// esx is where things are in an extent of ESX.
type esx struct {
	file
	gd, gt, grains int64 // bytes
}

// buildCOWD makes an ESX sparse extent. Tables without a grain are left out.
func buildCOWD(capacity int64, c content) esx {
	tables := (capacity*sector + esxSpan - 1) / esxSpan
	p := make(file, 4*sector).str(0, "COWD").u32(4, 1).u32(8, 3).u32(12, uint32(capacity)).u32(16, buildGrain).u32(20, 4).u32(24, uint32(tables))
	b := esx{file: append(p, make(file, tables*4)...).pad(), gd: 4 * sector}
	b.gt = int64(len(b.file))
	at := map[int64]int64{}
	for i := range tables * 4096 {
		if c[i] != nil && at[i/4096] == 0 {
			at[i/4096] = int64(len(b.file))
			b.u32(b.gd+i/4096*4, b.sectors())
			b.file = append(b.file, make(file, 4096*4)...)
		}
	}
	b.grains = int64(len(b.file))
	for i := range tables * 4096 {
		if c[i] != nil {
			b.u32(at[i/4096]+i%4096*4, b.sectors())
			b.file = append(b.file, append(c[i][:len(c[i]):len(c[i])], make(file, grainLen-len(c[i]))...)...)
		}
	}
	return esx{b.u32(28, b.sectors()), b.gd, b.gt, b.grains}
}

// buildSE makes a space-efficient extent. The tables lie in the file in the opposite order, and the grains too. others
// are the upper four bits of further grains' entries.
func buildSE(capacity int64, c content, others map[int64]uint64) esx {
	tables := (capacity*sector + esxSpan - 1) / esxSpan
	gdSectors := (tables*8 + sector - 1) / sector
	p := make(file, 2*sector).u64(0, 0xcafebabe).u64(8, 0x200000001).u64(16, uint64(capacity)).u64(24, buildGrain).u64(32, 64)
	p.u64(80, 1).u64(88, 1).u64(128, 2).u64(136, uint64(gdSectors)).u64(sector, 0xcafecafe)
	b := esx{file: append(p, make(file, gdSectors*sector)...), gd: 2 * sector}
	b.gt = int64(len(b.file))
	b.u64(144, uint64(b.gt/sector)).u64(152, uint64(tables*64))
	b.file = append(b.file, make(file, tables*64*sector)...)
	b.grains = int64(len(b.file))
	b.u64(192, uint64(b.grains/sector)).u64(200, uint64(len(c)*buildGrain))
	b.file = append(b.file, make(file, len(c)*grainLen)...)
	number := len(c)
	for i := range tables * 4096 {
		entry := others[i] << 60
		if c[i] != nil {
			number--
			entry = 3<<60 | uint64(number&0xfff)<<48 | uint64(number>>12)
			copy(b.file[b.grains+int64(number)*grainLen:], c[i])
		}
		if entry != 0 {
			table := tables - 1 - i/4096
			b.u64(b.gd+i/4096*8, 0x10000000<<32|uint64(table))
			b.u64(b.gt+table*64*sector+i%4096*8, entry)
		}
	}
	return b
}

// describeChild is a descriptor with a parent, unless the hint is empty.
func describeChild(createType string, cid, parentCID uint32, hint string, lines ...string) []byte {
	s := fmt.Sprintf("# Disk DescriptorFile\nversion=1\nCID=%08x\nparentCID=%08x\ncreateType=\"%s\"\n", cid, parentCID, createType)
	if hint != "" {
		s += fmt.Sprintf("parentFileNameHint=\"%s\"\n", hint)
	}
	for _, l := range lines {
		s += l + "\n"
	}
	return []byte(s)
}
