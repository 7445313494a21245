package qcow2

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"imgferry/formats"
)

// Offsets in an entry of the snapshot table ("Snapshots").
const (
	snapL1Offset   = 0
	snapL1Entries  = 8
	snapIDLen      = 12
	snapNameLen    = 14
	snapSeconds    = 16
	snapNanos      = 20
	snapClock      = 24
	snapStateSize  = 32
	snapExtraLen   = 36
	snapFixedLen   = 40
	extraStateSize = 0 // in the extra data
	extraDiskSize  = 8
	// minExtraV3 is how much extra data version 3 asks for.
	minExtraV3 = 16
)

// Limits of the snapshot table. QEMU's are the same, but for the bytes, of which it reads 64 MiB.
const (
	maxSnapshots     = 65536
	maxSnapshotBytes = 4 << 20
	maxSnapshotExtra = 1024
)

// snapshot is an entry of the snapshot table.
type snapshot struct {
	formats.Snapshot
	l1 l1Table
	// extra is the length of the extra data in bytes.
	extra int
}

// snapshotLen returns the length in bytes of an entry of the snapshot table, of which p holds the
// fixed part.
func snapshotLen(p []byte) int64 {
	be := binary.BigEndian
	return snapFixedLen + int64(be.Uint32(p[snapExtraLen:])) + int64(be.Uint16(p[snapIDLen:])) + int64(be.Uint16(p[snapNameLen:]))
}

// parseSnapshot decodes an entry of the snapshot table, which is all of p. diskSize is that of
// snapshots that don't know theirs: QEMU could not resize disks with snapshots then.
func parseSnapshot(p []byte, diskSize uint64) snapshot {
	be := binary.BigEndian
	extra, rest := p[snapFixedLen:][:be.Uint32(p[snapExtraLen:])], p[snapFixedLen+be.Uint32(p[snapExtraLen:]):]
	id := be.Uint16(p[snapIDLen:])
	s := snapshot{
		Snapshot: formats.Snapshot{
			ID: string(rest[:id]), Name: string(rest[id:]),
			Taken: time.Unix(int64(be.Uint32(p[snapSeconds:])), int64(be.Uint32(p[snapNanos:]))).UTC(),
			Clock: time.Duration(min(be.Uint64(p[snapClock:]), math.MaxInt64)),
		},
		l1:    l1Table{offset: be.Uint64(p[snapL1Offset:]), entries: be.Uint32(p[snapL1Entries:]), size: diskSize},
		extra: len(extra),
	}
	state := uint64(be.Uint32(p[snapStateSize:]))
	if len(extra) >= extraStateSize+8 {
		state = be.Uint64(extra[extraStateSize:])
	}
	if len(extra) >= extraDiskSize+8 {
		s.l1.size = be.Uint64(extra[extraDiskSize:])
	}
	s.StateSize = int64(min(state, math.MaxInt64))
	s.VirtualSize = int64(min(s.l1.size, math.MaxInt64))
	return s
}

// readSnapshots reads the snapshot table, and returns its entries and its length in bytes. Those
// that could be read are returned even with an error.
func (h *header) readSnapshots(ctx context.Context, src formats.Source) (list []snapshot, length int64, err error) {
	switch {
	case h.snapshots == 0:
		return nil, 0, nil
	case h.snapshots > maxSnapshots:
		return nil, 0, formats.Corrupt(name, offSnapshots, "the image has %d snapshots, at most %d are allowed", h.snapshots, maxSnapshots)
	case h.snapshotTable == 0 || h.snapshotTable&uint64(h.clusterSize()-1) != 0:
		return nil, 0, formats.Corrupt(name, offSnapshotTable, "the snapshot table's offset %#x is not that of a cluster", h.snapshotTable)
	case h.snapshotTable > uint64(src.Size()):
		return nil, 0, formats.Corrupt(name, int64(min(h.snapshotTable, math.MaxInt64)), "the snapshot table reaches past the end of the file")
	}
	at := int64(h.snapshotTable)
	r := bufio.NewReaderSize(io.NewSectionReader(src, at, src.Size()-at), 64<<10)
	for range h.snapshots {
		if err := ctx.Err(); err != nil {
			return list, length, err
		}
		s, n, err := h.readSnapshot(r, at+length)
		if err != nil {
			return list, length, err
		}
		list = append(list, s)
		length += n
		if length > maxSnapshotBytes {
			return list, length, formats.Unsupported(name, at, "the snapshot table has more than %d bytes", maxSnapshotBytes)
		}
	}
	return list, length, nil
}

// readSnapshot reads the next entry, which lies at offset at of the file or, since entries are
// aligned to 8 bytes, a little behind it. n is the distance from at to its end.
func (h *header) readSnapshot(r *bufio.Reader, at int64) (s snapshot, n int64, err error) {
	failed := func(err error) error {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return formats.Corrupt(name, at, "the snapshot table reaches past the end of the file")
		}
		return formats.ReadFailed(name, at, "the snapshot table", err)
	}
	padding := -at & 7
	if _, err := r.Discard(int(padding)); err != nil {
		return s, 0, failed(err)
	}
	at += padding
	p, err := r.Peek(snapFixedLen)
	if err != nil {
		return s, 0, failed(err)
	}
	if extra := binary.BigEndian.Uint32(p[snapExtraLen:]); extra > maxSnapshotExtra {
		return s, 0, formats.Corrupt(name, at, "a snapshot has %d bytes of extra data, at most %d are allowed", extra, maxSnapshotExtra)
	}
	p = make([]byte, snapshotLen(p)) // two lengths of 16 bits at most
	if _, err := io.ReadFull(r, p); err != nil {
		return s, 0, failed(err)
	}
	s = parseSnapshot(p, h.size)
	s.l1.at = at
	return s, padding + int64(len(p)), nil
}

// findSnapshot returns the snapshot of this id or else, as QEMU does, of this name; of several that
// share one, the first.
func findSnapshot(list []snapshot, wanted string) (snapshot, error) {
	for _, s := range list {
		if s.ID == wanted {
			return s, nil
		}
	}
	var names []string
	for _, s := range list {
		if s.Name == wanted {
			return s, nil
		}
		names = append(names, fmt.Sprintf("%q", s.Name))
	}
	there := "there are none"
	if len(names) > 0 {
		const most = 20 // names, for a message that can still be read
		there = "there are " + strings.Join(names[:min(len(names), most)], ", ")
		if more := len(names) - most; more > 0 {
			there += fmt.Sprintf(" and %d more", more)
		}
	}
	return snapshot{}, &formats.Error{Format: name, Offset: -1, What: fmt.Sprintf("can't open snapshot %q (%s)", wanted, there), Class: formats.ErrNoSnapshot}
}
