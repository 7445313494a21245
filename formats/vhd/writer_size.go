package vhd

// Rounding is how the size of a disk is rounded up, and which of the two sizes in the footer readers
// are to believe.
type Rounding uint8

// The ways to round.
const (
	// Exact rounds up to a multiple of 512 only. The current size counts (QEMU's force_size).
	Exact Rounding = iota
	// Geometry rounds up to what cylinders, heads and sectors can express, up to 127.5 GiB: for Virtual
	// PC, which goes by these. It is QEMU's default.
	Geometry
	// MiB rounds up to a multiple of 1 MiB, as Azure demands, and is like Exact else.
	MiB
)

// Creators that QEMU knows by name: their disks' size is the geometry, or the current size. Other
// readers mostly go by the current size. There is no neutral name: for unknown ones, QEMU goes by the
// geometry.
const (
	creatorGeometry = "qemu"
	creatorExact    = "qem2"
)

func (r Rounding) creator() string {
	if r == Geometry {
		return creatorGeometry
	}
	return creatorExact
}

// round rounds a size in bytes, from 1 to maxSize.
func (r Rounding) round(size int64) int64 {
	up := func(unit int64) int64 { return (size + unit - 1) / unit * unit }
	if r == MiB {
		return up(1 << 20)
	}
	sectors := up(sectorSize) / sectorSize
	if r == Geometry && sectors < maxGeometry {
		sectors = geometryFor(sectors).total()
	}
	return sectors * sectorSize
}

// chs is a geometry.
type chs struct {
	cylinders      uint16
	heads, sectors uint8
}

func (g chs) total() int64 { return int64(g.cylinders) * int64(g.heads) * int64(g.sectors) }

// geometry is that of a disk of size bytes, which are rounded. Where it doesn't count, it is the largest,
// which says "this or more": so a reader that goes by it all the same believes the current size.
func (r Rounding) geometry(size int64) chs {
	if r == Geometry {
		return geometryFor(size / sectorSize)
	}
	return largestGeometry
}

var largestGeometry = chs{65535, 16, 255}

// geometryFor is the least geometry that QEMU finds for at least so many sectors, or the largest.
func geometryFor(sectors int64) chs {
	if sectors >= maxGeometry {
		return largestGeometry
	}
	g := calculateGeometry(sectors)
	for more := int64(1); g.total() < sectors; more++ {
		g = calculateGeometry(sectors + more)
	}
	return g
}

// calculateGeometry is the "CHS Calculation" of the specification's appendix. It mostly comes to fewer
// sectors.
func calculateGeometry(sectors int64) chs {
	sectors = min(sectors, maxGeometry)
	split := func(perTrack, heads int64) chs {
		return chs{uint16(sectors / perTrack / heads), uint8(heads), uint8(perTrack)}
	}
	if sectors >= 65535*16*63 {
		return split(255, 16)
	}
	tracks := sectors / 17
	heads := max((tracks+1023)/1024, 4)
	switch {
	case tracks < heads*1024 && heads <= 16:
		return split(17, heads)
	case sectors/31 < 16*1024:
		return split(31, 16)
	}
	return split(63, 16)
}
