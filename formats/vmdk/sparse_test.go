package vmdk_test

import (
	"context"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/vmdk"
)

// TestTablesInHoles: grain tables that lie in a hole of the file are no tables, and are not read; the
// length of the file is no room for others.
func TestTablesInHoles(t *testing.T) {
	const count = 1 << 17
	large := func(table func(i int64) uint32) *formatstest.Counted {
		p := tinyPlain()
		p.u32(8, 1).u64(12, count*buildGTEs*buildGrain).u64(56, uint64(p.sectors()))
		gd := make(file, count*4)
		for i := range int64(count) {
			gd.u32(i*4, table(i))
		}
		return &formatstest.Counted{Source: formatstest.NewSparseSource(1<<40, formatstest.Piece{Data: append(p.file, gd...)})}
	}
	src := large(func(i int64) uint32 { return 1<<30 + uint32(i) })
	img, err := vmdk.Format().Open(context.Background(), src, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if list := formatstest.Extents(t, img); len(list) != 1 || !list[0].Absent {
		t.Errorf("%+v", list)
	}
	formatstest.Check(t, vmdk.Format(), src)
	if src.N > 2<<20 || src.Asked > 200 {
		t.Errorf("%d bytes read, asked for data %d times", src.N, src.Asked)
	}
	at := uint32(tinyPlain().gt / sector)
	shared := large(func(int64) uint32 { return at })
	formatstest.CheckRefused(t, vmdk.Format(), shared, nil, formats.ErrCorrupt, "the tables have more bytes than the file has data", true)
	if list, _ := formatstest.Check(t, vmdk.Format(), shared); len(list) == 0 || shared.N > 8<<20 {
		t.Errorf("%d findings, %d bytes read", len(list), shared.N)
	}
}

// TestNoParentInvented: a file without a descriptor, or with one that can't be read, names no parent.
func TestNoParentInvented(t *testing.T) {
	extent := buildPlain(1, evenSectors, content{}, nil, "").file
	for name, p := range map[string]file{"COWD": buildCOWD(24, content{}).file, "an extent": extent, "a cut header": extent[:100], "a long descriptor": append(file("# Disk DescriptorFile\n"), make(file, 64<<20)...)} {
		in, err := vmdk.Format().Info(context.Background(), formatstest.NewSource(p))
		if err != nil || in.Problem == nil || len(in.Refs) != 0 {
			t.Errorf("%s: %+v, %v", name, in, err)
		}
	}
}
