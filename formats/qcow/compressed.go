package qcow

import (
	"encoding/binary"
	"errors"

	"imgferry/formats"
	"imgferry/formats/mapped"
	"imgferry/inflate"
)

var errShort = errors.New("it holds less than a cluster")

// Decode fills p with the compressed clusters from disk offset off on. Whole clusters are decoded
// into p, parts of one go through the cache.
func (t *table) Decode(p []byte, off int64, r mapped.Run) error {
	for entries := r.Entries; len(p) > 0; {
		in := off & (t.cluster() - 1)
		count, n := int64(1), int64(0) // clusters, bytes
		if in != 0 || int64(len(p)) < t.cluster() {
			whole, err := t.decoded.Get(int64(binary.BigEndian.Uint64(entries)))
			if err != nil {
				return err
			}
			n = int64(copy(p, whole[in:]))
		} else {
			var err error
			if count, err = t.decodeBatch(p, entries); err != nil {
				return err
			}
			n = count * t.cluster()
		}
		p, off, entries = p[n:], off+n, entries[count*entrySize:]
	}
	return nil
}

// loadDecoded decompresses the cluster of an L2 entry; it is the load function of the cache
// t.decoded.
func (t *table) loadDecoded(e int64) ([]byte, error) {
	p := make([]byte, t.cluster())
	_, err := t.decodeBatch(p, binary.BigEndian.AppendUint64(nil, uint64(e)))
	return p, err
}

// decodeBatch decompresses into p as many of its whole clusters, at least one, as follow each other
// closely enough in the file to be read in one go, and returns how many. entries are of compressed
// clusters that Map has found to be good.
func (t *table) decodeBatch(p []byte, entries []byte) (count int64, err error) {
	first := t.entryAt(entries, 0)
	end := first.host + first.stored
	for count = 1; (count+1)*t.cluster() <= int64(len(p)); count++ {
		c := t.entryAt(entries, count)
		if c.host < end || c.host > end+batchGap || c.host+c.stored > first.host+batchBytes {
			break
		}
		end = c.host + c.stored
	}
	err = t.file.With(first.host, end-first.host, "compressed clusters", func(stored []byte) error {
		for i := range count {
			c := t.entryAt(entries, i)
			dst := p[i*t.cluster() : (i+1)*t.cluster()]
			n, err := inflate.Raw(dst, stored[c.host-first.host:][:c.stored])
			if err == nil && n < len(dst) {
				err = errShort
			}
			if err != nil {
				return formats.Corrupt(name, c.host, "can't decompress a cluster: %v", err)
			}
		}
		return nil
	})
	return count, err
}

// entryAt decodes entry i.
func (t *table) entryAt(entries []byte, i int64) cluster {
	return t.parseL2Entry(binary.BigEndian.Uint64(entries[i*entrySize:]))
}
