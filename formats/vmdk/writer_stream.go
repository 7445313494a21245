package vmdk

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"imgferry/deflate"
)

// Level is how hard the deflate encoder tries.
type Level uint8

// The levels, which are package deflate's.
const (
	LevelDefault Level = iota
	LevelFastest
	LevelBetter
	LevelBest
)

func (l Level) deflate() deflate.Level {
	return [...]deflate.Level{deflate.Default, deflate.Fastest, deflate.Better, deflate.Best}[l]
}

// streamOverhead is where the first grain of a stream is, in bytes: as in VMware's.
const streamOverhead = 128 * sectorSize

// NewStreamWriter returns a Writer of a streamOptimized disk to a file or pipe, to which it writes
// nothing yet: compressed grains, each table behind the grains it lists, the directory and a footer at
// the end.
func NewStreamWriter(to io.Writer, o WriterOptions) (*Writer, error) {
	w, err := newWriter(o, header{
		version:     3,
		flags:       flagCompressed | flagMarkers,
		gdOffset:    gdAtEnd,
		overHead:    streamOverhead / sectorSize,
		compression: compressionZlib,
	})
	if err != nil {
		return nil, err
	}
	w.form = &stream{
		to:        to,
		head:      w.head,
		level:     o.Level,
		directory: make([]byte, w.head.tables()*entryBytes),
		open:      -1,
	}
	return w, nil
}

// stream is the form of streamOptimized disks.
type stream struct {
	to    io.Writer
	head  header
	level Level
	pool  sync.Pool // *deflate.Encoder

	at        int64 // bytes written
	directory []byte
	open      int64           // number of the open table, or -1
	table     [tableSize]byte // its entries
}

func (*stream) createType() string { return streamOptimized }

func (*stream) maxEncoded() int {
	return grainsInBlock * int(roundUp(grainMarkerLen+int64(deflate.Bound(grainSize))))
}

// encode appends each grain with its marker, filled up to a sector.
func (s *stream) encode(dst []byte, index int64, block []byte, stored uint32) []byte {
	d, ok := s.pool.Get().(*deflate.Encoder)
	if !ok {
		d = deflate.New(s.level.deflate(), deflate.MaxWindowBits)
	}
	defer s.pool.Put(d)
	for i := range grainsInBlock {
		if stored>>i&1 == 0 {
			continue
		}
		start := len(dst)
		dst = marker{value: uint64(index*grainsInBlock+int64(i)) * s.head.grainSectors}.append(dst)[:start+grainMarkerLen]
		dst = d.Zlib(dst, block[i*grainSize:][:grainSize])
		binary.LittleEndian.PutUint32(dst[start+8:], uint32(len(dst)-start-grainMarkerLen))
		dst = append(dst, zeroSector[:-(len(dst)-start)&(sectorSize-1)]...)
	}
	return dst
}

var zeroSector [sectorSize]byte

func (s *stream) begin(top []byte) error {
	return s.write(append(top, make([]byte, streamOverhead-len(top))...))
}

func (s *stream) put(index int64, encoded []byte) error {
	if err := s.openTable(index * blockSize / tableSpan); err != nil {
		return err
	}
	for pos := int64(0); pos < int64(len(encoded)); {
		left := int64(len(encoded)) - pos
		if left < sectorSize {
			return fmt.Errorf("%s: an encoded block ends within a grain's marker", name)
		}
		m := parseMarker(encoded[pos:][:grainMarkerLen])
		grain := int64(m.value / s.head.grainSectors)
		length := roundUp(grainMarkerLen + int64(m.size))
		if m.size == 0 || length > left || grain/grainsInBlock != index {
			return fmt.Errorf("%s: an encoded block has a grain of %d bytes for sector %d", name, m.size, m.value)
		}
		e, err := entryAt(s.at + pos)
		if err != nil {
			return err
		}
		binary.LittleEndian.PutUint32(s.table[grain%gtesPerGT*entryBytes:], e)
		pos += length
	}
	return s.write(encoded)
}

// openTable makes table i the open one.
func (s *stream) openTable(i int64) error {
	if i == s.open {
		return nil
	}
	if err := s.closeTable(); err != nil {
		return err
	}
	s.open = i
	return nil
}

// closeTable writes the open table.
func (s *stream) closeTable() error {
	if s.open < 0 {
		return nil
	}
	e, err := entryAt(s.at + sectorSize)
	if err != nil {
		return err
	}
	binary.LittleEndian.PutUint32(s.directory[s.open*entryBytes:], e)
	if err := s.writeMarked(markerTable, s.table[:]); err != nil {
		return err
	}
	clear(s.table[:])
	return nil
}

func (s *stream) finish() error {
	if err := s.closeTable(); err != nil {
		return err
	}
	footer := s.head
	footer.gdOffset = uint64(s.at/sectorSize) + 1
	if err := s.writeMarked(markerDirectory, s.directory); err != nil {
		return err
	}
	if err := s.writeMarked(markerFooter, footer.append(nil)); err != nil {
		return err
	}
	return s.write(zeroSector[:]) // the end-of-stream marker
}

// writeMarked writes p, in whole sectors, behind a marker.
func (s *stream) writeMarked(typ markerType, p []byte) error {
	size := roundUp(int64(len(p)))
	out := marker{value: uint64(size / sectorSize), typ: typ}.append(make([]byte, 0, sectorSize+size))
	out = append(out[:sectorSize], p...)
	return s.write(out[:sectorSize+size])
}

func (s *stream) write(p []byte) error {
	n, err := s.to.Write(p)
	s.at += int64(n)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return err
}

// append appends the marker as parseMarker reads it.
func (m marker) append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, m.value)
	dst = binary.LittleEndian.AppendUint32(dst, m.size)
	return binary.LittleEndian.AppendUint32(dst, uint32(m.typ))
}
