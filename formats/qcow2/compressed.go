package qcow2

import (
	"encoding/binary"

	"imgferry/formats"
	"imgferry/formats/mapped"
)

// Decode fills p with the compressed clusters from disk offset off on. Whole clusters are decoded
// into p, parts of one go through the cache.
func (m *table) Decode(p []byte, off int64, r mapped.Run) error {
	cs, entries := m.clusterSize(), r.Entries
	for len(p) > 0 {
		in := off & (cs - 1)
		var n int64
		if in != 0 || int64(len(p)) < cs {
			whole, err := m.decoded.Get(int64(binary.BigEndian.Uint64(entries)))
			if err != nil {
				return err
			}
			n = int64(copy(p, whole[in:]))
			entries = entries[1<<m.entryBits():]
		} else {
			count, err := m.decodeBatch(p, entries)
			if err != nil {
				return err
			}
			n = count * cs
			entries = entries[count<<m.entryBits():]
		}
		p, off = p[n:], off+n
	}
	return nil
}

// loadDecoded decompresses the cluster of an L2 entry; it is the load function of the cache
// m.decoded.
func (m *table) loadDecoded(e int64) ([]byte, error) {
	p := make([]byte, m.clusterSize(), m.clusterSize()+decodeSlack)
	_, err := m.decodeBatch(p, binary.BigEndian.AppendUint64(nil, uint64(e)))
	return p, err
}

// decodeBatch decompresses into p as many of its whole clusters, at least one, as lie close enough
// in the file to be read in one go, and returns how many. Writers put compressed clusters end to
// end, if not always in order.
func (m *table) decodeBatch(p []byte, entries []byte) (count int64, err error) {
	first := m.compressedAt(entries)
	lo, hi := first.host, first.host+first.stored
	for count = 1; (count+1)<<m.clusterBits <= int64(len(p)); count++ {
		c := m.compressedAt(entries[count<<m.entryBits():])
		l, h := min(lo, c.host), max(hi, c.host+c.stored)
		if h-l > batchBytes || c.host > hi+batchGap || c.host+c.stored < lo-batchGap {
			break
		}
		lo, hi = l, h
	}
	err = m.file.With(lo, hi-lo, "compressed clusters", func(stored []byte) error {
		for i := range count {
			c := m.compressedAt(entries[i<<m.entryBits():])
			dst := p[i<<m.clusterBits : (i+1)<<m.clusterBits]
			if err := m.decode(dst, stored[c.host-lo:][:c.stored]); err != nil {
				return formats.Corrupt(name, c.host, "can't decompress a cluster: %v", err)
			}
		}
		return nil
	})
	return count, err
}

// compressedAt decodes the first of entries, which Map has found to be a good compressed one.
// Its data ends with the file.
func (m *table) compressedAt(entries []byte) cluster {
	c, _ := m.parseCompressed(binary.BigEndian.Uint64(entries))
	c.stored = min(c.stored, m.fileSize-c.host)
	return c
}

func (m *table) decode(dst, src []byte) error {
	if m.compressionTyp == compressionZstd {
		return decodeZstd(dst, src)
	}
	return decodeDeflate(dst, src)
}
