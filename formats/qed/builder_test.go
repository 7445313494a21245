package qed_test

import (
	"encoding/binary"

	"imgferry/formats/formatstest"
)

// tiny is a hand-made image with clusters of 4096 bytes and tables of two: header, L1 table, L2
// table, then the data clusters of the whole disk. (QEMU can't open tables of one cluster.)
const (
	tinyCluster = 4096
	tinyL1      = 1 * tinyCluster
	tinyL2      = 3 * tinyCluster
	tinyData    = 5 * tinyCluster
	tinyCount   = 4
	tinyEntries = 2 * tinyCluster / 8 // of a table
	tinyName    = 100                 // where the backing file's name goes
)

type imageBytes []byte

func tiny() imageBytes {
	p := make(imageBytes, tinyData+tinyCount*tinyCluster)
	p.str(0, "QED\x00").u32(4, tinyCluster).u32(8, 2).u32(12, 1)
	p.u64(40, tinyL1).u64(48, tinyCount*tinyCluster)
	p.u64(tinyL1, tinyL2)
	for i := range tinyCount {
		p.u64(tinyL2+8*i, uint64(tinyData+i*tinyCluster))
	}
	copy(p[tinyData:], formatstest.Noise(9, tinyCount*tinyCluster))
	return p
}

func (p imageBytes) u32(off int, v uint32) imageBytes {
	binary.LittleEndian.PutUint32(p[off:], v)
	return p
}
func (p imageBytes) u64(off int, v uint64) imageBytes {
	binary.LittleEndian.PutUint64(p[off:], v)
	return p
}
func (p imageBytes) str(off int, s string) imageBytes { copy(p[off:], s); return p }

// backing names the disk below, with further features.
func (p imageBytes) backing(name string, features uint64) imageBytes {
	return p.u64(16, 1|features).u32(56, tinyName).u32(60, uint32(len(name))).str(tinyName, name)
}

// more appends clusters of zeros.
func (p imageBytes) more(n int) imageBytes { return append(p, make([]byte, n*tinyCluster)...) }

// content is what the disk of an unchanged tiny image holds.
func tinyContent() []byte { return formatstest.Noise(9, tinyCount*tinyCluster) }

// built are images that qemu-img doesn't write.
func built() []formatstest.Case {
	data := tinyContent()
	piece := func(cluster, from int) formatstest.Piece {
		return formatstest.Piece{Offset: int64(cluster) * tinyCluster, Data: data[from*tinyCluster:][:tinyCluster]}
	}
	base := formatstest.Files{Bytes: map[string][]byte{"base.raw": formatstest.Noise(5, 2*tinyCluster+512)}, Formats: table}
	return []formatstest.Case{
		{Name: "plain", Image: tiny(), Size: tinyCount * tinyCluster, Content: formatstest.Sparse(piece(0, 0), piece(1, 1), piece(2, 2), piece(3, 3))},
		{Name: "out of order", Image: tiny().u64(tinyL2, tinyData+2*tinyCluster).u64(tinyL2+16, tinyData),
			Size: tinyCount * tinyCluster, Content: formatstest.Sparse(piece(0, 2), piece(1, 1), piece(2, 0), piece(3, 3))},
		{Name: "zero clusters, holes and leaks", Image: tiny().u64(tinyL2, 1).u64(tinyL2+16, 0), Faulty: true,
			Size: tinyCount * tinyCluster, Content: formatstest.Sparse(piece(1, 1), piece(3, 3))},
		{Name: "partial last cluster", Image: tiny().u64(48, 3*tinyCluster+512),
			Size: 3*tinyCluster + 512, Content: formatstest.Sparse(piece(0, 0), piece(1, 1), piece(2, 2), piece(3, 3))},
		{Name: "need check, unknown compatible and autoclear features, a tail", Image: append(tiny().u64(16, 2).u64(24, 1<<40).u64(32, 1<<63), "tail"...),
			Size: tinyCount * tinyCluster, Content: formatstest.Sparse(piece(0, 0), piece(1, 1), piece(2, 2), piece(3, 3))},
		{Name: "second L2 table", Image: tiny().u64(48, (tinyEntries+4)*tinyCluster).u64(tinyL1+8, tinyL2).u64(tinyL1, 0),
			Size: (tinyEntries + 4) * tinyCluster, Content: formatstest.Sparse(
				piece(tinyEntries, 0), piece(tinyEntries+1, 1), piece(tinyEntries+2, 2), piece(tinyEntries+3, 3))},
		{Name: "no table", Image: tiny()[:tinyL2].u64(48, tinyEntries*tinyEntries*tinyCluster).u64(tinyL1, 0),
			Size: tinyEntries * tinyEntries * tinyCluster},
		{Name: "short raw backing file", Image: tiny()[:tinyData+tinyCluster].backing("base.raw", 4).u64(tinyL2, 0).u64(tinyL2+8, 1).u64(tinyL2+16, 0).u64(tinyL2+24, tinyData),
			Size: tinyCount * tinyCluster, Resolver: base, Content: formatstest.Sparse(
				formatstest.Piece{Data: formatstest.Noise(5, 2*tinyCluster+512)[:tinyCluster]},
				formatstest.Piece{Offset: 2 * tinyCluster, Data: formatstest.Noise(5, 2*tinyCluster+512)[2*tinyCluster:]}, piece(3, 0))},
		{Name: "tables of one cluster", Image: tiny().u32(8, 1).u64(tinyL1, tinyL2), Faulty: true,
			Size: tinyCount * tinyCluster, Content: formatstest.Sparse(piece(0, 0), piece(1, 1), piece(2, 2), piece(3, 3))},
	}
}
