package vhdx

import (
	"context"
	"encoding/binary"
	"io"
	"slices"
	"sort"

	"imgferry/formats"
)

// replayed is the file as it is after its log was replayed. The file itself stays as it is.
type replayed struct {
	formats.Source
	log     ring
	updates []update // ascending, apart from each other
	size    int64    // bytes
	entries int      // how many were replayed
}

// update is a run of the file that the log writes anew.
type update struct {
	from, to int64 // of the file, bytes
	// Where in the log the descriptor and the data sector of its first 4 KiB lie; data is below 0 for
	// zeros. An update with data is a sector long.
	descriptor, data int64
}

// replay finds what the log of src says (2.3.3). h is the header, of which check has found the log to be in
// its place, and headerAt where it lies.
func replay(ctx context.Context, src formats.Source, h header, headerAt int64) (*replayed, error) {
	at := int64(h.log.off)
	switch {
	case h.logVersion != 0:
		return nil, formats.Unsupported(name, headerAt+offLogVersion, "version %d of the log (known is 0)", h.logVersion)
	case h.log.size == 0 || !h.log.holds(int64(h.log.size), src.Size()):
		return nil, formats.Corrupt(name, headerAt+offLogOffset, "the log must be replayed, but its %d bytes at %d are not in the file", h.log.size, h.log.off)
	case h.log.size > maxLogBytes:
		return nil, formats.Unsupported(name, headerAt+offLogLength, "the log that must be replayed has %d bytes, at most %d are read: attach the disk in Hyper-V to have it replayed", h.log.size, maxLogBytes)
	}
	log, err := read(ctx, src, int64(h.log.size), at, "the log")
	if err != nil {
		return nil, err
	}
	r := &replayed{Source: src, log: log, size: src.Size()}
	entries, err := r.log.active(h.logGUID, at)
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 {
		return nil, formats.Corrupt(name, at, "the log must be replayed, but holds no complete sequence of entries")
	}
	r.entries = len(entries)
	head := entries[len(entries)-1]
	switch headOffset := at + head.at; {
	case head.flushed > uint64(src.Size()):
		return nil, formats.Corrupt(name, headOffset+offFlushed, "the file has %d bytes, the log says that it had %d: it was cut", src.Size(), head.flushed)
	case head.last > maxFileSize:
		return nil, formats.Corrupt(name, headOffset+offLast, "the log extends the file to %d bytes, at most %d are read", head.last, int64(maxFileSize))
	}
	r.size = max(r.size, int64(head.last))
	var updates []update // the oldest first
	for _, e := range entries {
		if updates, err = r.collect(updates, e, h.log); err != nil {
			return nil, err
		}
	}
	r.updates = newest(updates)
	return r, nil
}

// collect appends the updates of an entry. They may not touch headers and log, which are not written
// through the log.
func (r *replayed) collect(updates []update, e entry, log extent) ([]update, error) {
	le := binary.LittleEndian
	data := e.data()
	for i := range e.descriptors {
		d, at := e.descriptor(r.log, i)
		u := update{descriptor: at, data: -1}
		off, length := le.Uint64(d[offUpdateOffset:]), uint64(logSector)
		if string(d[:len(zeroSign)]) == zeroSign {
			length = le.Uint64(d[offZeroLength:])
		} else {
			u.data = data % int64(len(r.log))
			data += logSector
		}
		fileAt := int64(log.off) + at
		switch {
		case off%logSector != 0 || length%logSector != 0:
			return nil, formats.Corrupt(name, fileAt, "the log writes %d bytes at %d, which is not whole sectors of %d", length, off, logSector)
		case off > maxFileSize || length > maxFileSize-off:
			return nil, formats.Corrupt(name, fileAt, "the log writes %d bytes at %d: files of at most %d bytes are read", length, off, int64(maxFileSize))
		case length > 0 && (off < uint64(regionTableOffsets[0]) || off < log.off+log.size && log.off < off+length):
			return nil, formats.Corrupt(name, fileAt, "the log writes %d bytes at %d, over the headers or itself", length, off)
		}
		u.from, u.to = int64(off), int64(off+length)
		if length > 0 {
			updates = append(updates, u)
			r.size = max(r.size, u.to)
		}
	}
	return updates, nil
}

// newest resolves updates that lie over each other: the last one counts. The result ascends.
func newest(updates []update) []update {
	// The updates cut the file at their ends: between two cuts all is of one update.
	cuts := make([]int64, 0, 2*len(updates))
	for _, u := range updates {
		cuts = append(cuts, u.from, u.to)
	}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	// Going from the last to the first, an update takes what is free. next finds that: each piece
	// that was taken points behind itself.
	owner := make([]int32, len(cuts))
	next := make([]int32, len(cuts))
	for i := range next {
		next[i] = int32(i)
	}
	free := func(i int32) int32 {
		for next[i] != i {
			next[i] = next[next[i]]
			i = next[i]
		}
		return i
	}
	for i, u := range slices.Backward(updates) {
		first, _ := slices.BinarySearch(cuts, u.from)
		for k := free(int32(first)); cuts[k] < u.to; k = free(k) {
			owner[k], next[k] = int32(i)+1, k+1
		}
	}
	var list []update
	for k, o := range owner {
		if o == 0 {
			continue
		}
		u := updates[o-1]
		u.from, u.to = cuts[k], cuts[k+1]
		if n := len(list); n > 0 && u.data < 0 && list[n-1].data < 0 && list[n-1].to == u.from {
			list[n-1].to = u.to
			continue
		}
		list = append(list, u)
	}
	return list
}

// Size is the size of the file after the replay, in bytes.
func (r *replayed) Size() int64 { return r.size }

// ReadAt reads the file as it is after the replay.
func (r *replayed) ReadAt(p []byte, off int64) (int, error) {
	switch {
	case off < 0:
		return r.Source.ReadAt(p, off) // which knows what to say
	case off >= r.size:
		return 0, io.EOF
	}
	n := min(int64(len(p)), r.size-off)
	if there := min(n, r.Source.Size()-off); there > 0 {
		if k, err := r.Source.ReadAt(p[:there], off); int64(k) < there {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return k, err
		}
	}
	clear(p[max(min(n, r.Source.Size()-off), 0):n]) // what the replay extends the file by
	for i := r.find(off); i < len(r.updates) && r.updates[i].from < off+n; i++ {
		r.patch(p[:n], off, r.updates[i])
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// find returns the first update that ends behind off.
func (r *replayed) find(off int64) int {
	return sort.Search(len(r.updates), func(i int) bool { return r.updates[i].to > off })
}

// patch writes what lies in both into p, which is at off of the file.
func (r *replayed) patch(p []byte, off int64, u update) {
	from, to := max(off, u.from), min(off+int64(len(p)), u.to)
	dst := p[from-off : to-off]
	if u.data < 0 {
		clear(dst)
		return
	}
	// A data sector has its signature and sequence number where the descriptor has the data (2.3.1.3).
	var sector [logSector]byte
	d := r.log[u.descriptor:]
	copy(sector[:], r.log[u.data:])
	copy(sector[:leadingBytes], d[offLeading:])
	copy(sector[logSector-trailingBytes:], d[offTrailing:][:trailingBytes])
	copy(dst, sector[from-u.from:])
}

// run returns how many of the n bytes at off are all as in the file, or all not.
func (r *replayed) run(off, n int64) (length int64, asInFile bool) {
	end := r.Source.Size()
	if off >= end {
		return n, false
	}
	if i := r.find(off); i < len(r.updates) {
		if u := r.updates[i]; u.from <= off {
			return min(n, u.to-off), false
		} else {
			end = min(end, u.from)
		}
	}
	return min(n, end-off), true
}
