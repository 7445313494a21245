package mapped

import (
	"encoding/binary"
	"math/bits"
)

// BitRun returns the bit number first of p, and how many bits from there on are like it: at most
// most, and not beyond p. The lowest bit of a byte comes first. Sector bitmaps of differencing disks
// are read with it: most of their runs are long.
func BitRun(p []byte, first, most int64) (set bool, n int64) {
	set = p[first/8]>>(first%8)&1 != 0
	i, end := first, min(first+most, int64(len(p))*8)
	for i < end {
		var differ uint64 // the bits from i on that are not like the first
		width := int64(64)
		if i%64 == 0 && i/8+8 <= int64(len(p)) {
			differ = binary.LittleEndian.Uint64(p[i/8:])
		} else {
			width = 8 - i%8
			differ = uint64(p[i/8] >> (i % 8))
		}
		if set {
			differ = ^differ
		}
		same := min(int64(bits.TrailingZeros64(differ)), width)
		if i += same; same < width {
			break
		}
	}
	return set, min(i, end) - first
}
