package qed_test

import (
	"context"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/qed"
)

// TestTablesInHoles: L2 tables that lie in a hole of the file are no tables, and are not read; the
// length of the file is no room for others.
func TestTablesInHoles(t *testing.T) {
	large := func(l2 func(i int) uint64) *formatstest.Counted {
		p := tiny().u64(48, tinyEntries*tinyEntries*tinyCluster)
		for i := range tinyEntries {
			p.u64(tinyL1+8*i, l2(i))
		}
		return &formatstest.Counted{Source: formatstest.NewSparseSource(1<<40, formatstest.Piece{Data: p})}
	}
	src := large(func(i int) uint64 { return 1<<39 + uint64(i)*2*tinyCluster })
	img, err := qed.Format().Open(context.Background(), src, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if list := formatstest.Extents(t, img); len(list) != 1 || !list[0].Absent {
		t.Errorf("%+v", list)
	}
	if src.N > 64<<10 || src.Asked > 20 {
		t.Errorf("%d bytes read, asked for data %d times", src.N, src.Asked)
	}
	shared := large(func(int) uint64 { return tinyL2 })
	formatstest.CheckRefused(t, qed.Format(), shared, nil, formats.ErrCorrupt, "the tables have more bytes than the file has data", true)
}

// TestCheckSkipsHoles: what of a table lies in a hole is not read.
func TestCheckSkipsHoles(t *testing.T) {
	const cluster = 1 << 26
	p := tiny()[:64].u32(4, cluster).u32(8, 16).u64(40, cluster).u64(48, 1<<40)
	src := &formatstest.Counted{Source: formatstest.NewSparseSource(1<<36, formatstest.Piece{Data: p},
		formatstest.Piece{Offset: cluster, Data: make(imageBytes, 8).u64(0, 20*cluster)},
		formatstest.Piece{Offset: 20 * cluster, Data: make(imageBytes, 8).u64(0, 40*cluster)})}
	if list, sums := formatstest.Check(t, qed.Format(), src); sums.Corruptions != 0 || sums.Allocated != 1 || src.N > 1<<20 {
		t.Errorf("%+v, %+v, %d bytes read", list, sums, src.N)
	}
}
