package vmdk

import (
	"encoding/binary"
	"errors"

	"imgferry/formats"
	"imgferry/formats/mapped"
	"imgferry/inflate"
)

const (
	// batchBytes bounds the neighbouring compressed grains that are read in one go, in bytes of
	// file; the gaps between them that are read along are at most batchGap.
	batchBytes = 1 << 20
	batchGap   = 64 << 10
)

// Decode fills p with the compressed grains from offset off on. Whole grains are decoded into p,
// parts of one, and one that the disk's end cuts, go through the cache.
func (s *sparse) Decode(p []byte, off int64, r mapped.Run) error {
	size, entries := s.grainBytes(), r.Entries
	for len(p) > 0 {
		in := off & (size - 1)
		count, n := int64(1), int64(0)
		if in != 0 || int64(len(p)) < size {
			whole, err := s.decoded.Get(off - in)
			if err != nil {
				return err
			}
			n = int64(copy(p, whole[in:]))
		} else {
			var err error
			if count, err = s.decodeBatch(p, off, entries); err != nil {
				return err
			}
			n = count * size
		}
		p, off, entries = p[n:], off+n, entries[count*entryBytes:]
	}
	return nil
}

// loadDecoded decompresses the grain at disk offset guest of the extent; it is the load function of
// the cache s.decoded.
func (s *sparse) loadDecoded(guest int64) ([]byte, error) {
	index := guest / s.tableSpan()
	table, err := s.tables.Get(index)
	if err != nil {
		return nil, err
	}
	p := make([]byte, s.grainBytes())
	_, err = s.decodeBatch(p, guest, table[(guest-index*s.tableSpan())/s.grainBytes()*entryBytes:])
	return p, err
}

// decodeBatch decompresses into p as many of its whole grains, at least one, as lie close enough in
// the file to be read in one go, and returns how many. The first is at disk offset guest of the
// extent. Writers of streams put grains end to end.
func (s *sparse) decodeBatch(p []byte, guest int64, entries []byte) (count int64, err error) {
	size := s.grainBytes()
	lo := s.hostOf(entries)
	hi, err := s.storedEnd(entries)
	if err != nil {
		return 0, err
	}
	for count = 1; (count+1)*size <= int64(len(p)); count++ {
		host := s.hostOf(entries[count*entryBytes:])
		if host <= s.hostOf(entries[(count-1)*entryBytes:]) || host > hi+batchGap {
			break
		}
		end, err := s.storedEnd(entries[count*entryBytes:])
		if err != nil || end-lo > batchBytes {
			break // an error is for the batch that begins there
		}
		hi = end
	}
	err = s.file.With(lo, hi-lo, "compressed grains", func(stored []byte) error {
		for i := range count {
			host, end := s.hostOf(entries[i*entryBytes:]), hi
			if i < count-1 {
				end = s.hostOf(entries[(i+1)*entryBytes:])
			}
			if err := s.decodeGrain(p[i*size:(i+1)*size], stored[host-lo:end-lo], guest+i*size, host); err != nil {
				return err
			}
		}
		return nil
	})
	return count, err
}

// hostOf is where the first of entries, which Map has found to be a good compressed grain, lies.
func (s *sparse) hostOf(entries []byte) int64 {
	return int64(binary.LittleEndian.Uint32(entries)) * sectorSize
}

// storedEnd is the end of the file's bytes that are to be read for the grain of the first of
// entries. Only its marker knows how many it has; mostly the next grain is known to follow it, and
// saves a read.
func (s *sparse) storedEnd(entries []byte) (int64, error) {
	host := s.hostOf(entries)
	most := min(host+s.maxStoredBytes(), s.fileSize)
	for later := entries[entryBytes:]; len(later) > 0; later = later[entryBytes:] {
		if next := s.hostOf(later); next > host && next < most {
			return next, nil
		}
	}
	var p [grainMarkerLen]byte
	if err := s.file.Read(p[:], host, "a grain's marker"); err != nil {
		return 0, err
	}
	return min(host+grainMarkerLen+int64(parseMarker(p[:]).size), most), nil
}

// decodeGrain fills dst with the grain at disk offset guest of the extent. stored begins with its
// marker, which lies at host, and holds all that can belong to it.
func (s *sparse) decodeGrain(dst, stored []byte, guest, host int64) error {
	m := parseMarker(stored[:grainMarkerLen])
	switch {
	case m.size == 0:
		return formats.Corrupt(name, host, "there is no compressed grain, which disk offset %d should have there", guest)
	case m.value != uint64(guest)/sectorSize:
		return formats.Corrupt(name, host, "the marker is of disk sector %d, the grain table says %d", m.value, guest/sectorSize)
	case grainMarkerLen+int64(m.size) > min(int64(len(stored)), s.maxStoredBytes()):
		return formats.Corrupt(name, host, "the compressed grain's %d bytes are too many, or reach into the next grain or past the end", m.size)
	}
	need := min(int64(len(dst)), s.length-guest)
	if err := inflateGrain(dst, stored[grainMarkerLen:][:m.size], need); err != nil {
		return formats.Corrupt(name, host, "can't decompress a grain: %v", err)
	}
	return nil
}

var (
	errShort   = errors.New("it holds less than a grain")
	errTooLong = errors.New("it holds more than a grain")
)

// inflateGrain decodes the zlib stream at the start of src into dst. It must hold need bytes at least;
// what dst holds beyond them lies behind the disk's end.
func inflateGrain(dst, src []byte, need int64) error {
	n, err := inflate.Zlib(dst, src)
	switch {
	case errors.Is(err, inflate.ErrTooLong):
		return errTooLong
	case err != nil:
		return err
	case int64(n) < need:
		return errShort
	}
	return nil
}
