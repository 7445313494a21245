package hwstream

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"imgferry/formats"
)

// Offsets in the footer structure of both formats; ZVHD2 goes on at OffSaved.
const (
	offCookie         = 0 // 8 bytes, which tell the format
	OffFeatures       = 8
	OffVersion        = 12
	OffDataOffset     = 16 // 8 bytes
	offTimestamp      = 24
	offCreatorApp     = 28
	offCreatorVersion = 32
	offCreatorOS      = 36
	OffOrigSize       = 40 // 8 bytes
	OffCurrSize       = 48 // 8 bytes
	offGeometry       = 56
	OffDiskType       = 60
	OffChecksum       = 64
	OffUUID           = 68 // 16 bytes
	OffSaved          = 84

	// FooterSize is the checksummed part of a footer in bytes; what follows it in its page may be
	// garbage.
	FooterSize = 512
)

// What the fields of a footer that never differ hold.
const (
	Features       = 2
	FileVersion    = 0x00010000
	NoDataOffset   = 0xFFFFFFFFFFFFFFFF
	DiskType       = 4
	creatorApp     = "tap\x00"
	creatorVersion = 0x00010004
)

// gib is the unit that CurrSize is rounded up to, in bytes.
const gib = 1 << 30

// Footer is the common part of a footer structure. The cookie and the checksum are no fields.
type Footer struct {
	Features, Version uint32
	DataOffset        uint64
	Timestamp         uint32 // seconds since 2000-01-01T00:00:00Z; 0 keeps the clock out of the file
	CreatorApp        [4]byte
	CreatorVersion    uint32
	CreatorOS         uint32
	OrigSize          uint64 // bytes, of the disk that was converted
	CurrSize          uint64 // bytes, OrigSize rounded up to 1 GiB: what the reference driver shows
	Geometry          uint32
	DiskType          uint32
	UUID              [16]byte
}

// NewFooter returns that of a new file. size is in bytes, a multiple of SectorSize up to MaxDiskSize.
func NewFooter(size int64, timestamp uint32) Footer {
	return Footer{
		Features:       Features,
		Version:        FileVersion,
		DataOffset:     NoDataOffset,
		Timestamp:      timestamp,
		CreatorApp:     [4]byte([]byte(creatorApp)),
		CreatorVersion: creatorVersion,
		OrigSize:       uint64(size),
		CurrSize:       CurrSize(size),
		Geometry:       geometry(size),
		DiskType:       DiskType,
	}
}

// CurrSize returns what a footer says beside the size of a disk, both in bytes.
func CurrSize(size int64) uint64 { return uint64(RoundUp(size, gib)) }

// ParseFooter reads the structure at the start of b, which has FooterSize bytes.
func ParseFooter(b []byte) Footer {
	le := binary.LittleEndian
	return Footer{
		Features:       le.Uint32(b[OffFeatures:]),
		Version:        le.Uint32(b[OffVersion:]),
		DataOffset:     le.Uint64(b[OffDataOffset:]),
		Timestamp:      le.Uint32(b[offTimestamp:]),
		CreatorApp:     [4]byte(b[offCreatorApp:]),
		CreatorVersion: le.Uint32(b[offCreatorVersion:]),
		CreatorOS:      le.Uint32(b[offCreatorOS:]),
		OrigSize:       le.Uint64(b[OffOrigSize:]),
		CurrSize:       le.Uint64(b[OffCurrSize:]),
		Geometry:       le.Uint32(b[offGeometry:]),
		DiskType:       le.Uint32(b[OffDiskType:]),
		UUID:           [16]byte(b[OffUUID:]),
	}
}

// Append appends the structure, padded to a page. rest, unless nil, fills in what the format has from
// OffSaved on; the checksum comes last.
func (f Footer) Append(dst []byte, cookie string, rest func(b []byte)) []byte {
	le := binary.LittleEndian
	start := len(dst)
	dst = append(dst, zeros[:]...)
	b := dst[start:]
	copy(b[offCookie:], cookie)
	le.PutUint32(b[OffFeatures:], f.Features)
	le.PutUint32(b[OffVersion:], f.Version)
	le.PutUint64(b[OffDataOffset:], f.DataOffset)
	le.PutUint32(b[offTimestamp:], f.Timestamp)
	copy(b[offCreatorApp:], f.CreatorApp[:])
	le.PutUint32(b[offCreatorVersion:], f.CreatorVersion)
	le.PutUint32(b[offCreatorOS:], f.CreatorOS)
	le.PutUint64(b[OffOrigSize:], f.OrigSize)
	le.PutUint64(b[OffCurrSize:], f.CurrSize)
	le.PutUint32(b[offGeometry:], f.Geometry)
	le.PutUint32(b[OffDiskType:], f.DiskType)
	copy(b[OffUUID:], f.UUID[:])
	if rest != nil {
		rest(b)
	}
	le.PutUint32(b[OffChecksum:], Checksum(b))
	return dst
}

// CheckSize checks the size of the disk that the footer at file offset pos gives, and returns it in
// bytes. format is the name in errors, here and below.
func (f Footer) CheckSize(format string, pos int64) (int64, error) {
	if f.OrigSize > MaxDiskSize {
		return 0, formats.Unsupported(format, pos+OffOrigSize, "disk of %d bytes: the most is %d", f.OrigSize, int64(MaxDiskSize))
	}
	size := int64(f.OrigSize)
	if size == 0 || size%SectorSize != 0 {
		return 0, formats.Corrupt(format, pos+OffOrigSize, "disk size of %d bytes is no positive multiple of %d", size, SectorSize)
	}
	return size, nil
}

// epoch is where the formats' clock begins.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// Properties returns what Info tells of f and, between, what the format adds.
func (f Footer) Properties(own ...formats.Property) []formats.Property {
	u := f.UUID
	list := []formats.Property{{Name: "uuid", Value: fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])}}
	list = append(list, own...)
	if f.Timestamp != 0 {
		created := epoch.Add(time.Duration(f.Timestamp) * time.Second).Format(time.RFC3339)
		list = append(list, formats.Property{Name: "created", Value: created})
	}
	return list
}

// DeriveUUID returns a UUID (RFC 9562, version 8) that depends on the disk and the encoder alone, so that
// the same disk makes the same file anywhere. writer names the format and the edition of its writer, size
// is that of the disk in bytes, and first the SHA-256 of its first stored block; all zeros stand for a disk
// without one.
func DeriveUUID(writer string, size int64, encoder string, first [sha256.Size]byte) [16]byte {
	h := sha256.New()
	io.WriteString(h, writer)
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(size)))
	io.WriteString(h, encoder+"\x00")
	h.Write(first[:])
	u := [16]byte(h.Sum(nil))
	u[6] = u[6]&0x0f | 0x80 // version 8
	u[8] = u[8]&0x3f | 0x80 // variant
	return u
}

// Checksum returns the one's complement of the sum of a footer's bytes, its own four bytes left out.
func Checksum(b []byte) uint32 {
	var sum uint32
	for i, v := range b[:FooterSize] {
		if i < OffChecksum || i >= OffChecksum+4 {
			sum += uint32(v)
		}
	}
	return ^sum
}

// CheckChecksum checks the checksum of the footer b at file offset pos, which what names.
func CheckChecksum(format string, b []byte, pos int64, what string) error {
	if stored, sum := binary.LittleEndian.Uint32(b[OffChecksum:]), Checksum(b); stored != sum {
		return formats.Corrupt(format, pos+OffChecksum, "%s has checksum %#08x, its bytes give %#08x", what, stored, sum)
	}
	return nil
}

// geometry returns the cylinders, heads and sectors of a disk of size bytes as c<<16 | h<<8 | s, by
// the algorithm in the appendix of the VHD specification. It is for show: disks above 127 GiB
// don't fit in it.
func geometry(size int64) uint32 {
	sectors := min(size/SectorSize, 65535*16*255)
	var perTrack, heads, tracks int64
	if sectors >= 65535*16*63 {
		perTrack, heads = 255, 16
		tracks = sectors / perTrack
	} else {
		perTrack = 17
		tracks = sectors / perTrack
		heads = max((tracks+1023)/1024, 4)
		if tracks >= heads*1024 || heads > 16 {
			perTrack, heads = 31, 16
			tracks = sectors / perTrack
		}
		if tracks >= heads*1024 {
			perTrack, heads = 63, 16
			tracks = sectors / perTrack
		}
	}
	return uint32(tracks/heads<<16 | heads<<8 | perTrack)
}
