package vhdx

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"

	"imgferry/formats"
)

// The sections named here are those of [MS-VHDX]. All integers are little-endian, GUIDs too in
// their first three fields.

const name = "vhdx"

const (
	mib = 1 << 20
	// unit is what regions, log and blocks are aligned to, in bytes (2.2.2, 2.2.3.2, 2.5.1).
	unit = mib
	// maxFileSize bounds the map of the file that finds overlaps, a bit per MiB, to 32 MiB. A file
	// needs little more than the largest disk.
	maxFileSize = 256 << 40
)

// The header section, which is the first MiB of the file (2.2).
const (
	headerSection  = mib
	fileSignature  = "vhdxfile" // 2.2.1
	creatorOffset  = 8
	creatorSize    = 512
	headerBytes    = 4 << 10 // 2.2.2
	headerSign     = "head"
	checksumOffset = 4 // in headers and region tables alike
	offSequence    = 8
	offDataWrite   = 32
	offLogGUID     = 48
	offLogVersion  = 64
	offVersion     = 66
	offLogLength   = 68
	offLogOffset   = 72

	regionTableBytes = 64 << 10 // 2.2.3
	regionSign       = "regi"
	offRegionCount   = 8
	regionEntries    = 16
	regionEntryBytes = 32
	maxEntries       = 2047 // of a region table and of the metadata table
)

// Where the two headers and the two region tables lie.
var (
	headerOffsets      = [2]int64{64 << 10, 128 << 10}
	regionTableOffsets = [2]int64{192 << 10, 256 << 10}
)

// guid is as in the file.
type guid [16]byte

// scanGUID reads the usual spelling, in either case.
func scanGUID(s string) (g guid, ok bool) {
	var a uint32
	var b, c uint16
	var d, e uint64
	if n, err := fmt.Sscanf(s, "%08x-%04x-%04x-%04x-%012x", &a, &b, &c, &d, &e); n != 5 || err != nil {
		return g, false
	}
	p := binary.LittleEndian.AppendUint32(nil, a)
	p = binary.LittleEndian.AppendUint16(p, b)
	p = binary.LittleEndian.AppendUint16(p, c)
	g = guid(binary.BigEndian.AppendUint64(p, d<<48|e))
	return g, strings.EqualFold(g.String(), s)
}

// parseGUID is scanGUID for constants: others panic.
func parseGUID(s string) guid {
	g, ok := scanGUID(s)
	if !ok {
		panic("bad GUID " + s)
	}
	return g
}

// String is the usual spelling.
func (g guid) String() string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08X-%04X-%04X-%X-%X", le.Uint32(g[:]), le.Uint16(g[4:]), le.Uint16(g[6:]), g[8:10], g[10:])
}

// Known regions (2.2.3.2) and metadata items (2.6.2).
var (
	guidBAT      = parseGUID("2DC27766-F623-4200-9D64-115E9BFD4A08")
	guidMetadata = parseGUID("8B7CA206-4790-4B9A-B8FE-575F050F886E")

	guidFileParameters = parseGUID("CAA16737-FA36-4D43-B3B6-33F0AA44E76B")
	guidDiskSize       = parseGUID("2FA54224-CD1B-4876-B211-5DBED83BF4B8")
	guidDiskID         = parseGUID("BECA12AB-B2E6-4523-93EF-C309E000C746")
	guidLogicalSector  = parseGUID("8141BF1D-A96F-4709-BA47-F233A8FAAB5F")
	guidPhysicalSector = parseGUID("CDA348C7-445D-4471-9CC9-E9885251C556")
	guidParentLocator  = parseGUID("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksumGood reports whether the CRC-32C in p is that of p with zeros in its place.
func checksumGood(p []byte) bool {
	crc := crc32.Update(0, castagnoli, p[:checksumOffset])
	crc = crc32.Update(crc, castagnoli, make([]byte, 4))
	crc = crc32.Update(crc, castagnoli, p[checksumOffset+4:])
	return crc == binary.LittleEndian.Uint32(p[checksumOffset:])
}

// header is one of the two headers.
type header struct {
	sequence   uint64
	dataWrite  guid // changes with the disk's content (2.2.2)
	logGUID    guid // not zero: the log holds what was not written to its place
	logVersion uint16
	version    uint16
	log        extent
}

// parseHeader reads the headerBytes bytes p; good is whether signature and checksum are right.
func parseHeader(p []byte) (h header, good bool) {
	le := binary.LittleEndian
	if string(p[:len(headerSign)]) != headerSign || !checksumGood(p) {
		return h, false
	}
	return header{
		sequence:   le.Uint64(p[offSequence:]),
		dataWrite:  guid(p[offDataWrite:]),
		logGUID:    guid(p[offLogGUID:]),
		logVersion: le.Uint16(p[offLogVersion:]),
		version:    le.Uint16(p[offVersion:]),
		log:        extent{off: le.Uint64(p[offLogOffset:]), size: uint64(le.Uint32(p[offLogLength:]))},
	}, true
}

// check refuses a header, at offset at of the file, that this package can't read.
func (h *header) check(at int64) error {
	switch {
	case h.version != 1:
		return formats.Unsupported(name, at+offVersion, "version %d (known is 1)", h.version)
	case h.log.size > 0 && !h.log.placed():
		return formats.Corrupt(name, at+offLogOffset, "the log, %d bytes at %d, doesn't lie on whole MiB behind the headers", h.log.size, h.log.off)
	}
	return nil
}

// extent is a run of bytes of the file.
type extent struct{ off, size uint64 }

// placed reports whether the extent lies where regions and the log may (2.2.2, 2.2.3.2): on whole units, and
// behind the header section.
func (e extent) placed() bool {
	return e.off%unit == 0 && e.size%unit == 0 && e.size > 0 && e.off >= unit && e.off+e.size > e.off
}

// holds reports whether the extent has n bytes, and the file of fileSize bytes has them too.
func (e extent) holds(n, fileSize int64) bool {
	return uint64(n) <= e.size && e.off <= uint64(fileSize) && uint64(n) <= uint64(fileSize)-e.off
}

// region is an entry of the region table (2.2.3.2).
type region struct {
	id guid
	extent
	required bool
	at       int64 // where the entry lies, bytes
}

// parseRegions reads a region table of regionTableBytes, which lies at offset at of the file. good
// is whether signature and checksum are right; nothing else is judged but the count.
func parseRegions(p []byte, at int64) (list []region, good bool, err error) {
	le := binary.LittleEndian
	if string(p[:len(regionSign)]) != regionSign || !checksumGood(p) {
		return nil, false, nil
	}
	n := le.Uint32(p[offRegionCount:])
	if n > maxEntries {
		return nil, true, formats.Corrupt(name, at+offRegionCount, "the region table has %d entries, at most %d are allowed", n, maxEntries)
	}
	for i := range int(n) {
		off := regionEntries + i*regionEntryBytes
		e := p[off:][:regionEntryBytes]
		list = append(list, region{
			id:       guid(e),
			extent:   extent{off: le.Uint64(e[16:]), size: uint64(le.Uint32(e[24:]))},
			required: le.Uint32(e[28:])&1 != 0,
			at:       at + int64(off),
		})
	}
	return list, true, nil
}
