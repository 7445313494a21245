package vhd

import (
	"encoding/binary"
	"io"
)

// Places in the files that are written.
const (
	headerOffset = footerSize // the dynamic disk header, behind the footer's copy
	tableOffset  = headerOffset + headerSize
)

// append appends the footer, with its checksum.
func (f footer) append(dst []byte, timestamp uint32) []byte {
	const (
		offFeatures       = 8
		offTimestamp      = 24
		offCreatorVersion = 32
		offCreatorOS      = 36
		offOriginalSize   = 40
		featureReserved   = 2 // "must always be set to 1"
		creatorVersion    = 1 << 16
		creatorWindows    = "Wi2k" // the specification knows Windows and Macintosh
	)
	p := make([]byte, footerSize)
	be := binary.BigEndian
	copy(p, footerCookie)
	be.PutUint32(p[offFeatures:], featureReserved)
	be.PutUint32(p[offFooterVersion:], f.version)
	be.PutUint64(p[offDataOffset:], f.dataOffset)
	be.PutUint32(p[offTimestamp:], timestamp)
	copy(p[offCreator:][:creatorSize], f.creator)
	be.PutUint32(p[offCreatorVersion:], creatorVersion)
	copy(p[offCreatorOS:], creatorWindows)
	be.PutUint64(p[offOriginalSize:], f.current)
	be.PutUint64(p[offCurrentSize:], f.current)
	be.PutUint16(p[offCylinders:], f.cylinders)
	p[offHeads], p[offSectors] = f.heads, f.sectors
	be.PutUint32(p[offDiskType:], f.diskType)
	copy(p[offUniqueID:], f.id[:])
	if f.saved {
		p[offSavedState] = 1
	}
	be.PutUint32(p[offFooterChecksum:], checksum(p, offFooterChecksum))
	return append(dst, p...)
}

// append appends the header of a disk without a parent, with its checksum.
func (h *dynamicHeader) append(dst []byte) []byte {
	const offNextHeader = 8
	p := make([]byte, headerSize)
	be := binary.BigEndian
	copy(p, headerCookie)
	be.PutUint64(p[offNextHeader:], ^uint64(0)) // there is none
	be.PutUint64(p[offTableOffset:], h.tableOffset)
	be.PutUint32(p[offHeaderVersion:], formatMajorVersion<<16)
	be.PutUint32(p[offMaxEntries:], h.maxEntries)
	be.PutUint32(p[offBlockSize:], h.blockSize)
	be.PutUint32(p[offHeaderChecksum:], checksum(p, offHeaderChecksum))
	return append(dst, p...)
}

// dynamicFile stores the blocks that have data one behind the other, each with its sector bitmap.
type dynamicFile struct {
	to     io.WriterAt
	header dynamicHeader
	table  []byte // the block allocation table
	end    int64  // where the next block goes
}

func newDynamicFile(to io.WriterAt, size int64) *dynamicFile {
	d := &dynamicFile{to: to, header: dynamicHeader{tableOffset: tableOffset, blockSize: blockSize}}
	entries := d.header.needed(size)
	d.header.maxEntries = uint32(entries)
	// It ends with a sector; what is beyond the disk is unused too.
	d.table = make([]byte, (entries*4+sectorSize-1)/sectorSize*sectorSize)
	for i := range d.table {
		d.table[i] = unusedEntry & 0xff
	}
	d.end = tableOffset + int64(len(d.table))
	return d
}

func (d *dynamicFile) put(index int64, sectors, data []byte) error {
	if err := writeAt(d.to, sectors, d.end); err != nil {
		return err
	}
	if err := writeRuns(d.to, sectors, data, d.end+sectorMapSize); err != nil {
		return err
	}
	binary.BigEndian.PutUint32(d.table[index*4:], uint32(d.end/sectorSize))
	d.end += d.header.stride()
	return nil
}

// finish writes the footer at the end last but for its copy, which makes the file a VHD.
func (d *dynamicFile) finish(f footer, timestamp uint32) error {
	if err := writeAt(d.to, append(d.header.append(nil), d.table...), headerOffset); err != nil {
		return err
	}
	p := f.append(nil, timestamp)
	if err := writeAt(d.to, p, d.end); err != nil {
		return err
	}
	return writeAt(d.to, p, 0)
}

// fixedFile stores the disk, with holes where it has zeros.
type fixedFile struct {
	to   io.WriterAt
	size int64
}

func (d *fixedFile) put(index int64, sectors, data []byte) error {
	at := index * blockSize
	return writeRuns(d.to, sectors, data[:min(blockSize, d.size-at)], at)
}

func (d *fixedFile) finish(f footer, timestamp uint32) error {
	return writeAt(d.to, f.append(nil, timestamp), d.size)
}

// fixedStream writes the disk front to back.
type fixedStream struct {
	to   io.Writer
	size int64
	done int64
}

func (d *fixedStream) put(index int64, _, data []byte) error {
	at := index * blockSize
	if err := d.zeros(at); err != nil {
		return err
	}
	return d.write(data[:min(blockSize, d.size-at)])
}

func (d *fixedStream) finish(f footer, timestamp uint32) error {
	if err := d.zeros(d.size); err != nil {
		return err
	}
	return d.write(f.append(nil, timestamp))
}

// zeros writes zeros up to an offset.
func (d *fixedStream) zeros(to int64) error {
	if d.done == to {
		return nil
	}
	p := make([]byte, min(to-d.done, blockSize))
	for d.done < to {
		if err := d.write(p[:min(to-d.done, blockSize)]); err != nil {
			return err
		}
	}
	return nil
}

func (d *fixedStream) write(p []byte) error {
	n, err := d.to.Write(p)
	d.done += int64(n)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return err
}

// writeRuns writes data at an offset, but leaves out units of zeros. A bit of sectors is set for each
// sector that is not zero.
func writeRuns(to io.WriterAt, sectors, data []byte, at int64) error {
	for i := 0; i*unit < len(data); i++ {
		if sectors[i] == 0 {
			continue
		}
		start := i
		for i++; i*unit < len(data) && sectors[i] != 0; i++ {
		}
		run := data[start*unit : min(i*unit, len(data))]
		if err := writeAt(to, run, at+int64(start*unit)); err != nil {
			return err
		}
	}
	return nil
}

func writeAt(to io.WriterAt, p []byte, at int64) error {
	n, err := to.WriteAt(p, at)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return err
}
