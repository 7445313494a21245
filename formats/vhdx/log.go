package vhdx

import (
	"encoding/binary"
	"hash/crc32"
	"slices"

	"imgferry/formats"
)

// The log (2.3), a ring of sectors. Offsets within it may exceed its length, and go around.
const (
	logSector = 4 << 10

	entrySign        = "loge" // 2.3.1.1
	entryHeaderBytes = 64
	offEntryLength   = 8
	offTail          = 12
	offEntrySequence = 16
	offDescriptors   = 24
	offEntryGUID     = 32
	offFlushed       = 48
	offLast          = 56

	zeroSign         = "zero" // 2.3.1.2
	descriptorSign   = "desc" // 2.3.1.3
	descriptorBytes  = 32
	offTrailing      = 4
	offZeroLength    = 8
	offLeading       = 8
	leadingBytes     = 8
	trailingBytes    = 4
	offUpdateOffset  = 16
	offDescrSequence = 24

	dataSign        = "data" // 2.3.1.4
	offSequenceHigh = 4
	offSequenceLow  = logSector - 4

	// maxLogBytes bounds what a log that must be replayed takes in memory. Hyper-V and QEMU write
	// logs of 1 MiB.
	maxLogBytes = 16 << 20
	// maxChecked is how many times the log's length is checksummed at most, to find the newest
	// sequence: more than twice only if entries lie over each other.
	maxChecked = 4
)

// ring is the bytes of a log.
type ring []byte

// from returns the bytes at off up to the end of the ring at least: the rest of a sector is there.
func (r ring) from(off int64) []byte { return r[off%int64(len(r)):] }

// entry is a log entry that is whole.
type entry struct {
	at, length    int64 // in the log, bytes
	tail          int64 // where the sequence begins that ends with this entry
	sequence      uint64
	descriptors   int64
	flushed, last uint64 // FlushedFileOffset and LastFileOffset: file sizes, bytes
}

// descriptor returns descriptor i of the entry, and where in the log it lies.
func (e entry) descriptor(r ring, i int64) (p []byte, at int64) {
	at = (e.at + entryHeaderBytes + i*descriptorBytes) % int64(len(r))
	return r[at:][:descriptorBytes], at
}

// data is where the first data sector of the entry lies.
func (e entry) data() int64 {
	return e.at + (entryHeaderBytes+e.descriptors*descriptorBytes+logSector-1)/logSector*logSector
}

// parseEntry reads the entry at off. It is not ok if anything in it is torn, or not of the log called
// id (2.3.1): it was then never finished, or is what was left of an older log. sound is whether only
// the checksum is to blame, which costs more to find out.
func (r ring) parseEntry(off int64, id guid) (e entry, ok, sound bool) {
	le := binary.LittleEndian
	p := r.from(off)
	if string(p[:len(entrySign)]) != entrySign || guid(p[offEntryGUID:]) != id {
		return e, false, false
	}
	e = entry{
		at:          off,
		length:      int64(le.Uint32(p[offEntryLength:])),
		tail:        int64(le.Uint32(p[offTail:])),
		sequence:    le.Uint64(p[offEntrySequence:]),
		descriptors: int64(le.Uint32(p[offDescriptors:])),
		flushed:     le.Uint64(p[offFlushed:]),
		last:        le.Uint64(p[offLast:]),
	}
	size := int64(len(r))
	if e.length == 0 || e.length%logSector != 0 || e.length > size || e.tail%logSector != 0 || e.tail >= size ||
		e.sequence == 0 || e.data() > off+e.length || !r.wholeUpdates(e) {
		return e, false, false
	}
	return e, r.checksum(e) == le.Uint32(p[checksumOffset:]), true
}

// wholeUpdates says whether all descriptors and data sectors of e are there and bear its sequence number.
func (r ring) wholeUpdates(e entry) bool {
	le := binary.LittleEndian
	data := e.data()
	for i := range e.descriptors {
		d, _ := e.descriptor(r, i)
		sign := string(d[:len(zeroSign)])
		if sign != zeroSign && sign != descriptorSign || le.Uint64(d[offDescrSequence:]) != e.sequence {
			return false
		}
		if sign == zeroSign {
			continue
		}
		if data >= e.at+e.length {
			return false
		}
		s := r.from(data)
		if string(s[:len(dataSign)]) != dataSign ||
			uint64(le.Uint32(s[offSequenceHigh:]))<<32|uint64(le.Uint32(s[offSequenceLow:])) != e.sequence {
			return false
		}
		data += logSector
	}
	return true
}

// checksum is the CRC-32C of the entry with zeros in the checksum's place.
func (r ring) checksum(e entry) uint32 {
	p := r.from(e.at)
	p = p[:min(e.length, int64(len(p)))]
	crc := crc32.Update(0, castagnoli, p[:checksumOffset])
	crc = crc32.Update(crc, castagnoli, make([]byte, 4))
	crc = crc32.Update(crc, castagnoli, p[checksumOffset+4:])
	return crc32.Update(crc, castagnoli, r[:e.length-int64(len(p))])
}

// active returns the newest sequence of entries that is complete, from its tail to its head (2.3.2,
// 2.3.3), or nil. The log lies at offset at of the file.
func (r ring) active(id guid, at int64) ([]entry, error) {
	size := int64(len(r))
	type result struct {
		entry
		ok, known bool
	}
	results := make([]result, size/logSector) // most entries are met several times
	var checked int64
	parse := func(off int64) (entry, bool, error) {
		res := &results[off%size/logSector]
		if !res.known {
			e, ok, sound := r.parseEntry(off%size, id)
			if sound {
				checked += e.length
			}
			if checked > maxChecked*size {
				return e, false, formats.Corrupt(name, at+off%size, "the entries of the log lie over each other")
			}
			*res = result{e, ok, true}
		}
		return res.entry, res.ok, nil
	}
	var best []entry
	for start := int64(0); start < size; {
		var sequence []entry
		end := start
		for {
			e, ok, err := parse(end)
			if err != nil {
				return nil, err
			}
			n := len(sequence)
			if !ok || n > 0 && e.sequence != sequence[n-1].sequence+1 || end+e.length-start > size {
				break
			}
			sequence = append(sequence, e)
			end += e.length
		}
		tail := -1
		if n := len(sequence); n > 0 {
			tail = slices.IndexFunc(sequence, func(e entry) bool { return e.at == sequence[n-1].tail })
		}
		if tail < 0 {
			start += logSector
			continue
		}
		if head := sequence[len(sequence)-1]; len(best) == 0 || head.sequence > best[len(best)-1].sequence {
			best = sequence[tail:]
		}
		start = end
	}
	return best, nil
}
