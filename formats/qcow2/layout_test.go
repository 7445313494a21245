package qcow2

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"imgferry/formats"
	"imgferry/formats/mapped"
)

func TestHeaderRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		h := header{
			version: 2, backingOffset: r.Uint64(), backingSize: r.Uint32(), clusterBits: r.Uint32(), size: r.Uint64(),
			cryptMethod: r.Uint32(), l1Entries: r.Uint32(), l1Offset: r.Uint64(), snapshots: r.Uint32(),
			refTableOffset: r.Uint64(), refClusters: r.Uint32(), snapshotTable: r.Uint64(),
			refcountOrder: 4, headerLen: headerLenV2,
		}
		if r.IntN(2) == 1 {
			h.version, h.incompatible, h.compatible, h.autoclear, h.refcountOrder = 3, r.Uint64(), r.Uint64(), r.Uint64(), r.Uint32()
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

// append is the inverse of parseSnapshot.
func (s snapshot) append(dst []byte) []byte {
	be := binary.BigEndian
	p := make([]byte, snapFixedLen+s.extra)
	be.PutUint64(p[snapL1Offset:], s.l1.offset)
	be.PutUint32(p[snapL1Entries:], s.l1.entries)
	be.PutUint16(p[snapIDLen:], uint16(len(s.ID)))
	be.PutUint16(p[snapNameLen:], uint16(len(s.Name)))
	be.PutUint32(p[snapSeconds:], uint32(s.Taken.Unix()))
	be.PutUint32(p[snapNanos:], uint32(s.Taken.Nanosecond()))
	be.PutUint64(p[snapClock:], uint64(s.Clock))
	be.PutUint32(p[snapStateSize:], uint32(s.StateSize))
	be.PutUint32(p[snapExtraLen:], uint32(s.extra))
	if s.extra >= 8 {
		be.PutUint64(p[snapFixedLen+extraStateSize:], uint64(s.StateSize))
	}
	if s.extra >= 16 {
		be.PutUint64(p[snapFixedLen+extraDiskSize:], s.l1.size)
	}
	return append(append(append(dst, p...), s.ID...), s.Name...)
}

func TestSnapshotRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	const diskSize = 12345
	for _, extra := range []int{0, 7, 8, 15, 16, 24, 1024} {
		s := snapshot{
			Snapshot: formats.Snapshot{
				ID: "17", Name: "before the \u00e4nderung", VirtualSize: diskSize, StateSize: int64(r.Uint32()),
				Taken: time.Unix(int64(r.Uint32()), r.Int64N(1e9)).UTC(), Clock: time.Duration(r.Int64()),
			},
			l1:    l1Table{offset: r.Uint64(), entries: r.Uint32(), size: diskSize},
			extra: extra,
		}
		if extra >= 8 {
			s.StateSize = r.Int64()
		}
		if extra >= 16 {
			s.VirtualSize = r.Int64()
			s.l1.size = uint64(s.VirtualSize)
		}
		p := s.append(nil)
		if n := snapshotLen(p); n != int64(len(p)) {
			t.Errorf("%d bytes of extra data: %d bytes long, want %d", extra, n, len(p))
		}
		if got := parseSnapshot(p, diskSize); got != s {
			t.Errorf("%d bytes of extra data: %+v, want %+v", extra, got, s)
		}
	}
}

// TestRefcountAt: entries narrower than a byte begin with its low bits.
func TestRefcountAt(t *testing.T) {
	p := []byte{0x1b, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18}
	for order, want := range [][]uint64{
		{1, 1, 0, 1, 1, 0, 0, 0, 0, 1},
		{3, 2, 1, 0, 2, 0},
		{0xb, 0x1, 0x2, 0x0},
		{0x1b, 0x02, 0x03},
		{0x1b02, 0x0304},
		{0x1b020304, 0x05060708},
		{0x1b02030405060708, 0x1112131415161718},
	} {
		for i, w := range want {
			if got := refcountAt(p, int64(i), uint32(order)); got != w {
				t.Errorf("order %d, entry %d: %#x, want %#x", order, i, got, w)
			}
			if max := uint64(maxRefcount(uint32(order))); order < 6 && max != 1<<(1<<order)-1 {
				t.Errorf("order %d: at most %d", order, max)
			}
		}
	}
}

// TestExtendedEntry: what the subclusters are, by the two halves of the bitmap.
func TestExtendedEntry(t *testing.T) {
	h := header{version: 3, clusterBits: 16, incompatible: featureExtendedL2}
	c, what := h.parseExtended(entryCopied|0x50000, 0x8000_0002_0000_0005)
	if what != "" || c.host != 0x50000 || c.needed(&h) != 3*2048 {
		t.Fatalf("%+v, %s", c, what)
	}
	for sub, want := range map[int64]mapped.Kind{0: mapped.Data, 1: mapped.Zero, 2: mapped.Data, 3: mapped.Hole, 31: mapped.Zero} {
		if got := c.kindOf(sub); got != want {
			t.Errorf("subcluster %d: %d, want %d", sub, got, want)
		}
	}
	if c, what := h.parseExtended(entryCompressed|0x1000, 0); what != "" || c.kindOf(31) != mapped.Encoded {
		t.Errorf("%+v, %s", c, what)
	}
}
