package qcow2

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"imgferry/formats"
)

const (
	// maxL2Tables bounds the tables that are remembered, in 16 bytes each. The largest L1 table has
	// 4 Mi entries.
	maxL2Tables = 5 << 20
	// unsettled is how many of them may be in the list twice.
	unsettled = 1 << 20
)

// l2Table is an L2 table, and how often it is used. Snapshots share most of theirs with the disk:
// each is read once in a pass, and what it points at is counted as often as it is used.
type l2Table struct {
	cluster  uint32 // where it lies in the file
	inactive uint32 // how many L1 entries of snapshots point at it
	active   uint16 // how many of the disk's
	copied   uint16 // how many of those say that the table's reference count is one
	// first and last are the windows that it has references in, once it was read.
	first, last uint8
}

// uses is how many L1 entries point at the table.
func (t *l2Table) uses() int64 { return int64(t.active) + int64(t.inactive) }

// tail is the place of the L2 entry for the last cluster of a disk.
type tail struct {
	table uint32 // where the L2 table lies, in clusters
	index uint32
}

// l2Tables are the tables that all L1 tables point at.
type l2Tables struct {
	list    []l2Table // sorted by cluster up to settled, no cluster twice there
	settled int
	// tails tells how many bytes the last cluster of a disk has.
	tails map[tail]int64
}

func (l *l2Tables) add(t l2Table) error {
	l.list = append(l.list, t)
	if len(l.list)-l.settled < unsettled {
		return nil
	}
	return l.settle()
}

// settle sorts the list, and adds up the entries of each table.
func (l *l2Tables) settle() error {
	slices.SortFunc(l.list, func(a, b l2Table) int { return cmp.Compare(a.cluster, b.cluster) })
	n := 0
	for _, t := range l.list {
		if n == 0 || l.list[n-1].cluster != t.cluster {
			l.list[n] = t
			n++
			continue
		}
		// A table that is used more often than can be counted is used more often than it may be.
		s := &l.list[n-1]
		s.inactive = uint32(min(int64(s.inactive)+int64(t.inactive), math.MaxUint32))
		s.active = uint16(min(int(s.active)+int(t.active), math.MaxUint16))
		s.copied = uint16(min(int(s.copied)+int(t.copied), math.MaxUint16))
	}
	l.list = l.list[:n]
	if l.settled = n; n > maxL2Tables {
		return formats.Unsupported(name, -1, "the image has more than %d L2 tables, too many to check", maxL2Tables)
	}
	return nil
}

func (c *checker) collectActive() error {
	l1 := c.activeL1()
	c.region(l1.offset, uint64(l1.entries)*8, offL1Offset, "the L1 table")
	return c.collectL1(l1, true)
}

// collectSnapshots reads the snapshot table and the L1 tables of the snapshots.
func (c *checker) collectSnapshots() error {
	list, length, err := c.readSnapshots(c.ctx, c.src)
	if err != nil {
		return err
	}
	c.region(c.snapshotTable, uint64(length), offSnapshotTable, "the snapshot table")
	if len(list) > 0 && c.incompatible&featureDataFile != 0 {
		c.corrupt(offSnapshots, 1, "an image with an external data file has snapshots")
	}
	room, tables := c.fileSize, formats.NewTables(c.ctx, name, c.src)
	for _, s := range list {
		if c.version >= 3 && s.extra < minExtraV3 {
			c.corrupt(s.l1.at, 1, fmt.Sprintf("snapshot %q has %d bytes of extra data, must have %d", s.Name, s.extra, minExtraV3))
		}
		if err := c.checkL1Place(s.l1); err != nil {
			c.corrupt(s.l1.at, 1, fmt.Sprintf("snapshot %q: %v", s.Name, err))
			if s.l1.offset&uint64(c.clusterSize()-1) != 0 || s.l1.entries > maxL1Bytes/8 {
				continue
			}
		}
		// Each has clusters of its own: more tables than the file has room for are shared ones, and
		// a small file could keep us busy for days.
		n := int64(s.l1.entries) * 8
		if room -= n; room < 0 {
			return formats.Corrupt(name, s.l1.at, "the L1 tables of the snapshots are larger than the file")
		}
		if n > 0 && s.l1.offset < uint64(c.fileSize) {
			if _, err := tables.Add(int64(s.l1.offset), n, s.l1.at); err != nil {
				return err
			}
		}
		c.region(s.l1.offset, uint64(n), s.l1.at, fmt.Sprintf("the L1 table of snapshot %q", s.Name))
		if err := c.collectL1(s.l1, false); err != nil {
			return err
		}
	}
	return nil
}

// collectL1 notes the L2 tables of an L1 table.
func (c *checker) collectL1(l1 l1Table, active bool) error {
	if l1.offset >= uint64(c.fileSize) {
		return nil // all zeros
	}
	lastIndex := int64(c.l1Needed(l1.size)) - 1
	offset := int64(l1.offset)
	return c.entries(offset, int64(l1.entries), "an L1 table", func(i int64, e uint64) error {
		host, at := e&entryOffset, offset+i*8
		if e&l1Reserved != 0 {
			c.corrupt(at, 1, fmt.Sprintf("L1 entry %d has reserved bits set", i))
		}
		switch {
		case host&uint64(c.clusterSize()-1) != 0:
			c.corrupt(at, 1, fmt.Sprintf("L1 entry %d points into the middle of a cluster", i))
			return nil
		case host == 0:
			return nil
		case host > uint64(c.fileSize-c.clusterSize()):
			c.corrupt(at, 1, fmt.Sprintf("L1 entry %d points past the end of the file", i))
			return c.checkCopiedOutside(host>>c.clusterBits, e, active, at)
		}
		t := l2Table{cluster: uint32(host >> c.clusterBits)}
		switch {
		case !active:
			t.inactive = 1
		case e&entryCopied != 0:
			t.active, t.copied = 1, 1
		default:
			t.active = 1
		}
		c.touch(int64(t.cluster), int64(t.cluster))
		if i == lastIndex {
			c.l2.noteTail(&c.header, t.cluster, l1.size)
		}
		return c.l2.add(t)
	})
}

// noteTail remembers where the last cluster of a disk of size bytes is mapped: of that one, the file
// needn't hold all.
func (l *l2Tables) noteTail(h *header, table uint32, size uint64) {
	if l.tails == nil {
		l.tails = map[tail]int64{}
	}
	last := (size - 1) >> h.clusterBits
	at := tail{table, uint32(last & (1<<h.l2Bits() - 1))}
	l.tails[at] = max(l.tails[at], int64(size-last<<h.clusterBits))
}

// checkCopiedOutside checks the flag of an entry that points past the end of the file.
func (c *checker) checkCopiedOutside(k uint64, e uint64, active bool, at int64) error {
	if !active {
		return nil
	}
	one, err := c.refcountIsOne(int64(k))
	if err == nil && one != (e&entryCopied != 0) {
		c.corrupt(at, 1, copiedWrong)
	}
	return err
}
