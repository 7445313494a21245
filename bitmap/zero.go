package bitmap

import "encoding/binary"

// IsZero reports whether every byte of p is zero. The empty slice is.
func IsZero(p []byte) bool {
	// Data mostly differs from zero early, zeros must be read whole: 64 bytes a turn reads zeros
	// at memory speed, and the first turn already ends it for data.
	for len(p) >= 64 {
		q := p[:64:64]
		if binary.LittleEndian.Uint64(q[0:])|binary.LittleEndian.Uint64(q[8:])|
			binary.LittleEndian.Uint64(q[16:])|binary.LittleEndian.Uint64(q[24:])|
			binary.LittleEndian.Uint64(q[32:])|binary.LittleEndian.Uint64(q[40:])|
			binary.LittleEndian.Uint64(q[48:])|binary.LittleEndian.Uint64(q[56:]) != 0 {
			return false
		}
		p = p[64:]
	}
	for _, v := range p {
		if v != 0 {
			return false
		}
	}
	return true
}
