package qcow2

import (
	"encoding/binary"
	"io"

	"imgferry/bitmap"
)

// layouter places clusters in the file and keeps the tables. Clusters are taken in ascending order,
// so that one refcount block is open at a time; the disk comes in ascending order, so that one group
// of L2 tables is.
type layouter struct {
	plan
	to io.WriterAt

	next int64 // the first cluster that was never taken
	// free is where the next compressed cluster goes if it has room up to the end of its cluster, or
	// if the next cluster of the file follows; a multiple of the cluster size: nowhere.
	free int64

	block  int64  // number of the open refcount block
	counts []byte // its entries

	group int64 // number of the open group of L2 tables, or -1
	// l2 are its tables: those of one L1 entry, or of a block of the disk if that has several.
	l2 []byte
}

func newLayouter(to io.WriterAt, p plan) layouter {
	f := layouter{plan: p, to: to, block: p.firstBlocks - 1, group: -1}
	f.next = p.refBlocks + p.firstBlocks
	f.counts = make([]byte, p.clusterSize)
	f.l2 = make([]byte, max(p.clusterSize, blockSize/p.clusterSize*8))
	// The header and the first tables, those that the open block describes.
	for c := f.block * p.perBlock; c < f.next; c++ {
		f.count(c)
	}
	return f
}

// write writes p at a byte offset.
func (f *layouter) write(p []byte, at int64) error {
	n, err := f.to.WriteAt(p, at)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return err
}

// count adds a reference to a cluster that the open refcount block describes. It doesn't overflow: no
// more than 30,000 compressed clusters fit into one, because of zstd's 3 bytes of head and one of
// content for each 128 KiB, and its frame's head.
func (f *layouter) count(cluster int64) {
	p := f.counts[cluster%f.perBlock*refcountBytes:]
	binary.BigEndian.PutUint16(p, binary.BigEndian.Uint16(p)+1)
}

// take takes clusters that lie together, at least one and at most n. It returns the first and how
// many.
func (f *layouter) take(n int64) (first, taken int64, err error) {
	end := (f.block + 1) * f.perBlock
	if f.next == end {
		if err := f.closeRefBlock(); err != nil {
			return 0, 0, err
		}
		f.block++
		end += f.perBlock
		clear(f.counts)
		f.count(f.next)
		f.next++
		f.free = 0 // its cluster's count was written
	}
	first, taken = f.next, min(n, end-f.next)
	for range taken {
		f.count(f.next)
		f.next++
	}
	return first, taken, nil
}

// pack takes n bytes, less than a cluster, for a compressed cluster, and returns their offset.
func (f *layouter) pack(n int64) (at int64, err error) {
	if used := f.free % f.clusterSize; used == 0 || n > f.clusterSize-used {
		c, _, err := f.take(1)
		if err != nil {
			return 0, err
		}
		if at := c * f.clusterSize; f.free%f.clusterSize == 0 || f.free/f.clusterSize+1 != c {
			f.free = at + n
			return at, nil
		}
		// The next cluster follows: the bytes reach into it.
	}
	at = f.free
	f.count(at / f.clusterSize)
	f.free += n
	return at, nil
}

// putPacked writes the compressed clusters among those from first on, whose lengths are known.
func (f *layouter) putPacked(first int64, lengths, data []byte) error {
	var start, n int64 // what is to be written next: data[:n]
	for i := range int64(len(lengths) / lengthBytes) {
		length := int64(binary.LittleEndian.Uint32(lengths[i*lengthBytes:]))
		if length == 0 || length == f.clusterSize {
			continue
		}
		at, err := f.pack(length)
		if err != nil {
			return err
		}
		if n > 0 && at != start+n {
			if err := f.write(data[:n], start); err != nil {
				return err
			}
			data, n = data[n:], 0
		}
		if n == 0 {
			start = at
		}
		n += length
		f.entry(first+i, f.packedEntry(at, length))
	}
	if n == 0 {
		return nil
	}
	return f.write(data, start)
}

// packedEntry is the L2 entry of a compressed cluster of length bytes.
func (f *layouter) packedEntry(at, length int64) uint64 {
	more := (at+length-1)/512 - at/512
	return entryCompressed | uint64(more)<<(62-(f.clusterBits-8)) | uint64(at)
}

// putPlain writes the clusters from first on that are not compressed.
func (f *layouter) putPlain(first int64, lengths, data []byte) error {
	var start, taken int64 // clusters that were taken and not used yet
	for i := range int64(len(lengths) / lengthBytes) {
		if int64(binary.LittleEndian.Uint32(lengths[i*lengthBytes:])) != f.clusterSize {
			continue
		}
		if taken == 0 {
			var err error
			if start, taken, err = f.take(int64(len(data)) / f.clusterSize); err != nil {
				return err
			}
			if err := f.write(data[:taken*f.clusterSize], start*f.clusterSize); err != nil {
				return err
			}
			data = data[taken*f.clusterSize:]
		}
		f.entry(first+i, entryCopied|uint64(start*f.clusterSize))
		start, taken = start+1, taken-1
	}
	return nil
}

// entry sets the L2 entry of a cluster of the disk that belongs to the open group.
func (f *layouter) entry(cluster int64, e uint64) {
	binary.BigEndian.PutUint64(f.l2[cluster%(int64(len(f.l2))/8)*8:], e)
}

// open opens the group of L2 tables that a cluster of the disk belongs to.
func (f *layouter) open(cluster int64) error {
	group := cluster / (int64(len(f.l2)) / 8)
	if group == f.group {
		return nil
	}
	if err := f.closeGroup(); err != nil {
		return err
	}
	f.group = group
	return nil
}

// closeGroup writes the L2 tables of the open group that are not empty, and their L1 entries.
func (f *layouter) closeGroup() error {
	if f.group < 0 {
		return nil
	}
	tables := int64(len(f.l2)) / f.clusterSize
	l1 := make([]byte, tables*l1EntryBytes)
	var stored []int64 // the tables that are stored; they are moved together
	for i := range tables {
		if t := f.l2[i*f.clusterSize:][:f.clusterSize]; !bitmap.IsZero(t) {
			copy(f.l2[int64(len(stored))*f.clusterSize:], t)
			stored = append(stored, i)
		}
	}
	for data := f.l2; len(stored) > 0; {
		c, n, err := f.take(int64(len(stored)))
		if err != nil {
			return err
		}
		if err := f.write(data[:n*f.clusterSize], c*f.clusterSize); err != nil {
			return err
		}
		for i, table := range stored[:n] {
			binary.BigEndian.PutUint64(l1[table*l1EntryBytes:], entryCopied|uint64((c+int64(i))*f.clusterSize))
		}
		data, stored = data[n*f.clusterSize:], stored[n:]
	}
	clear(f.l2)
	// The last group may reach past the table's end, but not past its cluster: it begins at a
	// multiple of its length.
	return f.write(l1, f.l1*f.clusterSize+f.group*int64(len(l1)))
}

// closeRefBlock writes the open refcount block and its entry of the refcount table.
func (f *layouter) closeRefBlock() error { return f.writeRefBlock(f.block, f.counts) }

func (f *layouter) writeRefBlock(i int64, counts []byte) error {
	at := f.refBlock(i) * f.clusterSize
	if err := f.write(counts, at); err != nil {
		return err
	}
	return f.write(binary.BigEndian.AppendUint64(nil, uint64(at)), f.refTable*f.clusterSize+i*refEntryBytes)
}

// finish writes all tables that were not written yet.
func (f *layouter) finish() error {
	if err := f.closeGroup(); err != nil {
		return err
	}
	if err := f.closeRefBlock(); err != nil {
		return err
	}
	// The blocks before the first one that was open describe the first tables.
	for c := range f.perBlock {
		binary.BigEndian.PutUint16(f.counts[c*refcountBytes:], 1)
	}
	for i := range f.firstBlocks - 1 {
		if err := f.writeRefBlock(i, f.counts); err != nil {
			return err
		}
	}
	return nil
}
