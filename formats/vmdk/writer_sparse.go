package vmdk

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
)

// NewSparseWriter returns a Writer of a monolithicSparse disk to a new file, to which it writes nothing
// yet. What it leaves out must read as zeros. As VMware's and QEMU's, the file begins with room for two
// copies of all tables; where nothing is stored they are holes.
func NewSparseWriter(to io.WriterAt, o WriterOptions) (*Writer, error) {
	w, err := newWriter(o, header{version: 1, flags: flagRedundant})
	if err != nil {
		return nil, err
	}
	h := &w.head
	s := &monolithic{to: to, open: -1}
	s.directorySize = roundUp(int64(h.tables()) * entryBytes)
	copySize := s.directorySize + int64(h.tables())*tableSize
	s.redundant = (descriptorAt + descriptorSectors) * sectorSize
	s.primary = s.redundant + copySize
	s.end = (s.primary + copySize + grainSize - 1) / grainSize * grainSize
	h.rgdOffset = uint64(s.redundant / sectorSize)
	h.gdOffset = uint64(s.primary / sectorSize)
	h.overHead = uint64(s.end / sectorSize)
	s.tables = int64(h.tables())
	s.overHead = s.end
	w.form = s
	return w, nil
}

// monolithic is the form of monolithicSparse disks. Its offsets and sizes are in bytes.
type monolithic struct {
	to                 io.WriterAt
	redundant, primary int64 // offsets of the directories, which their tables follow
	directorySize      int64
	tables             int64 // how many
	overHead           int64 // offset of the first grain

	top   []byte          // header and descriptor
	end   int64           // where the next grain goes
	open  int64           // number of the open table, or -1
	table [tableSize]byte // its entries
}

func (*monolithic) createType() string { return monolithicSparse }

// maskBytes is the size of what an encoded block begins with: a bit for each of its grains that is
// stored, from the lowest on. The grains follow.
const maskBytes = grainsInBlock / 8

func (*monolithic) maxEncoded() int { return maskBytes + blockSize }

func (*monolithic) encode(dst []byte, _ int64, block []byte, stored uint32) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, stored)
	for i := range grainsInBlock {
		if stored>>i&1 != 0 {
			dst = append(dst, block[i*grainSize:][:grainSize]...)
		}
	}
	return dst
}

// begin keeps header and descriptor for the end: without them the file is no disk.
func (s *monolithic) begin(top []byte) error {
	s.top = top
	return nil
}

func (s *monolithic) put(index int64, encoded []byte) error {
	var mask uint32
	if len(encoded) >= maskBytes {
		mask = binary.LittleEndian.Uint32(encoded)
	}
	if len(encoded) != maskBytes+bits.OnesCount32(mask)*grainSize {
		return fmt.Errorf("%s: an encoded block has %d bytes", name, len(encoded))
	}
	if table := index * blockSize / tableSpan; table != s.open {
		if err := s.closeTable(); err != nil {
			return err
		}
		s.open = table
	}
	if err := s.write(encoded[maskBytes:], s.end); err != nil {
		return err
	}
	first := index * grainsInBlock % gtesPerGT
	for i := range int64(grainsInBlock) {
		if mask>>i&1 == 0 {
			continue
		}
		e, err := entryAt(s.end)
		if err != nil {
			return err
		}
		binary.LittleEndian.PutUint32(s.table[(first+i)*entryBytes:], e)
		s.end += grainSize
	}
	return nil
}

// closeTable writes both copies of the open table.
func (s *monolithic) closeTable() error {
	if s.open < 0 {
		return nil
	}
	for _, directory := range []int64{s.redundant, s.primary} {
		if err := s.write(s.table[:], s.tableAt(directory, s.open)); err != nil {
			return err
		}
	}
	clear(s.table[:])
	return nil
}

// tableAt is the offset of the table i that belongs to the directory at an offset.
func (s *monolithic) tableAt(directory, i int64) int64 {
	return directory + s.directorySize + i*tableSize
}

func (s *monolithic) finish() error {
	if err := s.closeTable(); err != nil {
		return err
	}
	for _, at := range []int64{s.redundant, s.primary} {
		directory := make([]byte, 0, s.directorySize)
		for i := range s.tables {
			e, err := entryAt(s.tableAt(at, i))
			if err != nil {
				return err
			}
			directory = binary.LittleEndian.AppendUint32(directory, e)
		}
		if err := s.write(directory, at); err != nil {
			return err
		}
	}
	if s.end == s.overHead { // no grain ends the file where the header says grains begin
		if err := s.write(zeroSector[:], s.end-sectorSize); err != nil {
			return err
		}
	}
	return s.write(s.top, 0)
}

func (s *monolithic) write(p []byte, at int64) error {
	n, err := s.to.WriteAt(p, at)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return err
}
