package qcow_test

import (
	"bytes"
	"compress/flate"
	"encoding/binary"

	"imgferry/formats/formatstest"
)

// tiny is a hand-made image with clusters and L2 tables of 512 bytes: header and L1 table, an L2
// table, then the data clusters of the whole disk.
const (
	tinyCluster = 512
	tinyL1      = 48
	tinyL2      = 1 * tinyCluster
	tinyData    = 2 * tinyCluster
	tinyCount   = 4
	tinyName    = 300 // where the backing file's name goes
	tinyEntries = tinyCluster / 8
)

type imageBytes []byte

func tiny() imageBytes {
	p := make(imageBytes, tinyData+tinyCount*tinyCluster)
	p.u32(0, 0x514649fb).u32(4, 1).u64(24, tinyCount*tinyCluster).u8(32, 9).u8(33, 6).u64(40, tinyL1)
	p.u64(tinyL1, tinyL2)
	for i := range tinyCount {
		p.u64(tinyL2+8*i, uint64(tinyData+i*tinyCluster))
	}
	copy(p[tinyData:], tinyContent())
	return p
}

func (p imageBytes) u8(off int, v uint8) imageBytes { p[off] = v; return p }
func (p imageBytes) u32(off int, v uint32) imageBytes {
	binary.BigEndian.PutUint32(p[off:], v)
	return p
}
func (p imageBytes) u64(off int, v uint64) imageBytes {
	binary.BigEndian.PutUint64(p[off:], v)
	return p
}
func (p imageBytes) str(off int, s string) imageBytes { copy(p[off:], s); return p }

// backing names the disk below.
func (p imageBytes) backing(name string) imageBytes {
	return p.u64(8, tinyName).u32(16, uint32(len(name))).str(tinyName, name)
}

// packed puts compressed data at off and makes it the disk's cluster i. bits is cluster_bits.
func (p imageBytes) packed(i, off int, data string, bits int) imageBytes {
	return p.str(off, data).u64(tinyL2+8*i, 1<<63|uint64(len(data))<<(63-bits)|uint64(off))
}

// tinyContent is what the disk of an unchanged tiny image holds.
func tinyContent() []byte { return formatstest.Noise(9, tinyCount*tinyCluster) }

// deflated is p as a deflate stream, with its end.
func deflated(p []byte) string {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, 9)
	w.Write(p)
	w.Close()
	return b.String()
}

// built are images that qemu-img doesn't write.
func built() []formatstest.Case {
	data := tinyContent()
	piece := func(cluster, from int) formatstest.Piece {
		return formatstest.Piece{Offset: int64(cluster) * tinyCluster, Data: data[from*tinyCluster:][:tinyCluster]}
	}
	base := formatstest.Files{Bytes: map[string][]byte{"base.raw": formatstest.Noise(5, 700)}, Formats: table}
	words := bytes.Repeat([]byte("word"), tinyCluster/4)
	return []formatstest.Case{
		{Name: "plain", Image: tiny(), Size: tinyCount * tinyCluster, Content: bytes.NewReader(data)},
		{Name: "out of order", Image: tiny().u64(tinyL2, tinyData+2*tinyCluster).u64(tinyL2+16, tinyData),
			Size: tinyCount * tinyCluster, Content: formatstest.Sparse(piece(0, 2), piece(1, 1), piece(2, 0), piece(3, 3))},
		{Name: "holes", Image: tiny().u64(tinyL2, 0).u64(tinyL2+16, 0),
			Size: tinyCount * tinyCluster, Content: formatstest.Sparse(piece(1, 1), piece(3, 3))},
		{Name: "a size of no sectors, and a last cluster as short", Image: tiny()[:tinyData+3*tinyCluster+100].u64(24, 3*tinyCluster+100),
			Size: 3*tinyCluster + 100, Content: bytes.NewReader(data)},
		{Name: "second L2 table", Image: tiny().u64(24, (tinyEntries+2)*tinyCluster).u64(tinyL1+8, tinyL2).u64(tinyL1, 0),
			Size: (tinyEntries + 2) * tinyCluster, Content: formatstest.Sparse(piece(tinyEntries, 0), piece(tinyEntries+1, 1))},
		{Name: "no table", Image: tiny()[:tinyL2].u64(24, 57*tinyEntries*tinyCluster).u64(tinyL1, 0), Size: 57 * tinyEntries * tinyCluster},
		{Name: "compressed, packed, backwards, between data", Image: tiny().packed(0, tinyData+50, deflated(words), 9).packed(2, tinyData+1, deflated(make([]byte, tinyCluster)), 9),
			Size: tinyCount * tinyCluster, Content: formatstest.Sparse(formatstest.Piece{Data: words}, piece(1, 1), piece(3, 3))},
		{Name: "compressed, neighbours backwards", Image: tiny().packed(0, tinyData+50, deflated(words), 9).packed(1, tinyData+1, deflated(make([]byte, tinyCluster)), 9),
			Size: tinyCount * tinyCluster, Content: formatstest.Sparse(formatstest.Piece{Data: words}, piece(2, 2), piece(3, 3))},
		{Name: "short backing file", Image: tiny().backing("base.raw").u64(tinyL2, 0).u64(tinyL2+8, 0).u64(tinyL2+16, 0),
			Size: tinyCount * tinyCluster, Resolver: base, Content: formatstest.Sparse(formatstest.Piece{Data: formatstest.Noise(5, 700)}, piece(3, 3))},
		{Name: "an empty name of a backing file", Image: tiny().backing(""), Size: tinyCount * tinyCluster, Content: bytes.NewReader(data)},
		large(),
	}
}

// large has the largest clusters and L2 tables there are, with two compressed clusters.
func large() formatstest.Case {
	const cluster = 1 << 16
	first, last := formatstest.Text(7, cluster), formatstest.Text(8, cluster)
	p := make(imageBytes, 3*cluster)
	p.u32(0, 0x514649fb).u32(4, 1).u64(24, 8192*cluster).u8(32, 16).u8(33, 13).u64(40, tinyL1).u64(tinyL1, cluster)
	for i, data := range []string{deflated(first), deflated(last)} {
		off := 2*cluster + i*cluster/2
		p.str(off, data).u64(cluster+i*8191*8, 1<<63|uint64(len(data))<<47|uint64(off))
	}
	return formatstest.Case{Name: "largest clusters and tables", Image: p, Size: 8192 * cluster,
		Content: formatstest.Sparse(formatstest.Piece{Data: first}, formatstest.Piece{Offset: 8191 * cluster, Data: last})}
}
