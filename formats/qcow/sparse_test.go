package qcow_test

import (
	"context"
	"encoding/binary"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/qcow"
)

// TestTablesInHoles: L2 tables that lie in a hole of the file are no tables, and are not read; the
// length of the file is no room for others.
func TestTablesInHoles(t *testing.T) {
	const count, l1 = 1 << 16, 1 << 20
	large := func(l2 func(i int) uint64) *formatstest.Counted {
		table := make([]byte, count*8)
		for i := range count {
			binary.BigEndian.PutUint64(table[i*8:], l2(i))
		}
		p := tiny().u64(24, count*tinyEntries*tinyCluster).u64(40, l1)
		return &formatstest.Counted{Source: formatstest.NewSparseSource(1<<40, formatstest.Piece{Data: p}, formatstest.Piece{Offset: l1, Data: table})}
	}
	src := large(func(i int) uint64 { return 1<<39 + uint64(i)*tinyCluster })
	img, err := qcow.Format().Open(context.Background(), src, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if list := formatstest.Extents(t, img); len(list) != 1 || !list[0].Absent {
		t.Errorf("%+v", list)
	}
	formatstest.Check(t, qcow.Format(), src)
	if src.N > 2<<20 || src.Asked > 100 {
		t.Errorf("%d bytes read, asked for data %d times", src.N, src.Asked)
	}
	shared := large(func(int) uint64 { return tinyL2 })
	formatstest.CheckRefused(t, qcow.Format(), shared, nil, formats.ErrCorrupt, "the tables have more bytes than the file has data", true)
}
