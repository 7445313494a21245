package vhdx_test

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"hash/crc32"

	"imgferry/formats/formatstest"
)

// change is something that a log entry writes: data of a sector of 4096 bytes, or else n zeros.
type change struct {
	off  int64
	data []byte
	n    int64
}

// logSpec is what a log is to hold: entries one after the other from start on, around the end of the log.
type logSpec struct {
	guid          string // 16 bytes
	first         uint64 // sequence number of the first entry
	start         int
	tail          int // where the entries say that the sequence begins; below 0: at start
	flushed, last uint64
	entries       [][]change
	size          int // of the log, if not 1 MiB
}

const logGUID = "the log's guid!!"

// entry encodes an entry.
func (l logSpec) entry(sequence uint64, changes []change) []byte {
	le := binary.LittleEndian
	p := make(image, (64+32*len(changes)+4095)/4096*4096)
	var data []byte
	for i, c := range changes {
		d := p[64+32*i:]
		le.PutUint64(d[16:], uint64(c.off))
		le.PutUint64(d[24:], sequence)
		if c.data == nil {
			copy(d, "zero")
			le.PutUint64(d[8:], uint64(c.n))
			continue
		}
		copy(d, "desc")
		copy(d[4:8], c.data[4092:])
		copy(d[8:16], c.data[:8])
		s := bytes.Clone(c.data)
		copy(s, "data")
		le.PutUint32(s[4:], uint32(sequence>>32))
		le.PutUint32(s[4092:], uint32(sequence))
		data = append(data, s...)
	}
	p = append(p, data...)
	tail := l.tail
	if tail < 0 {
		tail = l.start
	}
	p.str(0, "loge").u32(8, uint32(len(p))).u32(12, uint32(tail)).u64(16, sequence).u32(24, uint32(len(changes))).str(32, l.guid)
	return p.u64(48, l.flushed).u64(56, l.last).u32(4, crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)))
}

// write puts the log into p and returns where its entries lie in p, and where the next one would.
func (l logSpec) write(p image) (at []int) {
	next := l.start
	size := cmp.Or(l.size, mib)
	for i, changes := range l.entries {
		e := l.entry(l.first+uint64(i), changes)
		at = append(at, logAt+next)
		for k, b := range e {
			p[logAt+(next+k)%size] = b
		}
		next = (next + len(e)) % size
	}
	return append(at, logAt+next)
}

// dirty makes both headers say that the log is to be replayed.
func (p image) dirty() image { return p.str(header1+48, logGUID).str(header2+48, logGUID).seal() }

// page is the sector of 4096 bytes at off of p.
func page(p image, off int) change {
	return change{off: int64(off), data: bytes.Clone(p[off:][:4096])}
}

// lost is tiny's file without its table, its metadata table and the items; good is the file with them.
func lost() (p, good image) {
	good = tiny().whole()
	p = bytes.Clone(good)
	for _, at := range []int{batAt, metadataAt, itemsAt} {
		copy(p[at:], formatstest.Noise(9, 4096))
	}
	return p, good
}

// found are the changes that make lost good.
func found(good image) []change {
	return []change{page(good, batAt), page(good, metadataAt), page(good, itemsAt)}
}

// logOf is a log of these entries that fits tiny.
func logOf(entries ...[]change) logSpec {
	return logSpec{guid: logGUID, first: 1<<32 - 1, tail: -1, flushed: tinyEnd, last: tinyEnd, entries: entries}
}
