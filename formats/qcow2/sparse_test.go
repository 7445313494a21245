package qcow2_test

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/qcow2"
)

// spread is a tiny image in a file of 1 TiB, with an L1 table of count entries: entry i gives at(i).
func spread(p imageBytes, count int, at func(i int) uint64) *formatstest.Counted {
	const l1 = 1 << 20
	table := make([]byte, count*8)
	for i := range count {
		binary.BigEndian.PutUint64(table[i*8:], at(i))
	}
	p = p.u32(36, uint32(count)).u64(24, uint64(count)*64*tinyCluster).u64(40, l1)
	return &formatstest.Counted{Source: formatstest.NewSparseSource(1<<40, formatstest.Piece{Data: p}, formatstest.Piece{Offset: l1, Data: table})}
}

// TestTablesInHoles: L2 tables that lie in a hole of the file are no tables, and are not read.
func TestTablesInHoles(t *testing.T) {
	const count = 1 << 17
	src := spread(tiny(3), count, func(i int) uint64 {
		if i == 1 {
			return tinyL2
		}
		return 1<<39 + uint64(i)*tinyCluster
	})
	img, err := qcow2.Format().Open(context.Background(), src, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	const cover = 64 * tinyCluster
	list := formatstest.Extents(t, img)
	if len(list) != 3 || !list[0].Absent || list[0].Length != cover || list[1].HostOffset != tinyData || !list[2].Absent {
		t.Errorf("%+v", list)
	}
	if src.N > 2<<20 || src.Asked > 20 {
		t.Errorf("%d bytes read, asked for data %d times", src.N, src.Asked)
	}
	src.N, src.Asked = 0, 0
	formatstest.Check(t, qcow2.Format(), src)
	if src.N > 4<<20 || src.Asked > 100 {
		t.Errorf("check: %d bytes read, asked for data %d times", src.N, src.Asked)
	}
}

// TestSharedTablesInSparseFile: the length of the file is no room for tables.
func TestSharedTablesInSparseFile(t *testing.T) {
	src := spread(tiny(3), 1<<17, func(int) uint64 { return tinyL2 })
	formatstest.CheckRefused(t, qcow2.Format(), src, nil, formats.ErrCorrupt, "the tables have more bytes than the file has data", true)
}

// TestSnapshotsInHoles: the L1 tables of snapshots are not read where they lie in a hole, and not
// again and again where they share data.
func TestSnapshotsInHoles(t *testing.T) {
	const count, entries, at = 2000, 4 << 20, 1 << 20
	for _, c := range []struct {
		place uint64
		err   error
	}{{1 << 39, nil}, {2 << 20, formats.ErrCorrupt}} {
		table := make(imageBytes, count*56)
		for i := range count {
			table[i*56:].u64(0, c.place).u32(8, entries).u32(36, 16)
		}
		p := tiny(3).u32(60, count).u64(64, at)
		src := &formatstest.Counted{Source: formatstest.NewSparseSource(1<<40, formatstest.Piece{Data: p}, formatstest.Piece{Offset: at, Data: table},
			formatstest.Piece{Offset: 2 << 20, Data: make([]byte, 1<<20)})}
		_, err := qcow2.Format().Check(context.Background(), src, func(formats.Finding) {})
		if !errors.Is(err, c.err) || src.N > 16<<20 {
			t.Errorf("tables at %#x: %v; %d bytes read", c.place, err, src.N)
		}
	}
}
