package qcow2

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"imgferry/formats/mapped"
)

// append is the inverse of parseHeader.
func (h header) append(dst []byte) []byte {
	be := binary.BigEndian
	p := make([]byte, max(int(h.headerLen), headerLenV2))
	be.PutUint32(p[offMagic:], magic)
	be.PutUint32(p[offVersion:], h.version)
	be.PutUint64(p[offBackingOffset:], h.backingOffset)
	be.PutUint32(p[offBackingSize:], h.backingSize)
	be.PutUint32(p[offClusterBits:], h.clusterBits)
	be.PutUint64(p[offSize:], h.size)
	be.PutUint32(p[offCryptMethod:], h.cryptMethod)
	be.PutUint32(p[offL1Entries:], h.l1Entries)
	be.PutUint64(p[offL1Offset:], h.l1Offset)
	be.PutUint32(p[offSnapshots:], h.snapshots)
	if h.version >= 3 {
		be.PutUint64(p[offIncompatible:], h.incompatible)
		be.PutUint64(p[offCompatible:], h.compatible)
		be.PutUint32(p[offRefcountOrder:], h.refcountOrder)
		be.PutUint32(p[offHeaderLen:], h.headerLen)
		if h.headerLen > offCompressionType {
			p[offCompressionType] = h.compressionTyp
		}
	}
	return append(dst, p...)
}

func TestHeaderRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		h := header{
			version: 2, backingOffset: r.Uint64(), backingSize: r.Uint32(), clusterBits: r.Uint32(), size: r.Uint64(),
			cryptMethod: r.Uint32(), l1Entries: r.Uint32(), l1Offset: r.Uint64(), snapshots: r.Uint32(),
			refcountOrder: 4, headerLen: headerLenV2,
		}
		if r.IntN(2) == 1 {
			h.version, h.incompatible, h.compatible, h.refcountOrder = 3, r.Uint64(), r.Uint64(), r.Uint32()
			if h.headerLen = minHeaderLenV3; r.IntN(2) == 1 {
				h.headerLen, h.compressionTyp = 112, uint8(r.Uint32())
			}
		}
		got, err := parseHeader(h.append(nil))
		if err != nil || got != h {
			t.Fatalf("%+v, %v; want %+v", got, err, h)
		}
		_ = got.checkSizes()
	}
}

// TestCompressedDescriptor: the widths of both fields depend on the cluster size.
func TestCompressedDescriptor(t *testing.T) {
	for bits := uint32(minClusterBits); bits <= maxClusterBits; bits++ {
		h := header{version: 3, clusterBits: bits}
		offsetBits := 70 - bits
		for _, host := range []uint64{1, 512, 1000, 1<<min(offsetBits, 56) - 1} {
			for _, more := range []uint64{0, 1, 1<<(bits-8) - 1} {
				for _, copied := range []uint64{0, 1 << 63} {
					c, what := h.parseL2Entry(copied | entryCompressed | more<<offsetBits | host)
					want := cluster{kind: mapped.Encoded, host: int64(host), stored: int64(more+1)*512 - int64(host%512)}
					if c != want || what != "" {
						t.Errorf("2^%d: %+v %s, want %+v", bits, c, what, want)
					}
				}
			}
		}
	}
}
