package qcow2

import (
	"encoding/binary"
	"math"
)

// refcountReserved are the bits of a refcount table's entry that are no offset ("Host cluster
// management").
const refcountReserved = 0x1ff

// refcountAt returns entry i of a refcount block whose entries have 2^order bits.
func refcountAt(p []byte, i int64, order uint32) uint64 {
	switch order {
	case 0, 1, 2:
		bits, perByte := int64(1)<<order, int64(8)>>order
		return uint64(p[i/perByte]) >> (i % perByte * bits) & (1<<bits - 1)
	case 3:
		return uint64(p[i])
	case 4:
		return uint64(binary.BigEndian.Uint16(p[i*2:]))
	case 5:
		return uint64(binary.BigEndian.Uint32(p[i*4:]))
	}
	return binary.BigEndian.Uint64(p[i*8:])
}

// maxRefcount is the largest count that 2^order bits hold, as far as a check can tell counts apart.
func maxRefcount(order uint32) uint32 {
	if order >= 5 {
		return math.MaxUint32
	}
	return 1<<(1<<order) - 1
}

// refcountsPerBlock is how many clusters a refcount block, which fills one cluster, counts.
func (h *header) refcountsPerBlock() int64 { return 8 << h.clusterBits >> h.refcountOrder }
