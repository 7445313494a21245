package mapped

import (
	"errors"
	"math"

	"imgferry/formats"
)

// holes finds, for one walk, what the files under Data runs never stored. Reading such a hole costs
// less than asking for it, but a walk tells others what they need not read.
type holes struct {
	m *image
	// found are the last answers, by Run.File: a file in one piece is asked about once.
	found map[int]stretch
}

// stretch is a run of data in a file, and the hole before it: all of [from, start) is a hole, and all
// of [start, end) is data. Bytes.
type stretch struct{ from, start, end int64 }

// cut shortens r, a Data run, to what its file stores in one way, and makes it Zero if that is a hole.
func (h *holes) cut(r Run) (Run, error) {
	s, ok := h.found[r.File]
	if !ok || r.Host < s.from || r.Host >= s.end {
		var err error
		if s, err = h.m.files[r.File].stretch(r.Host); err != nil {
			return r, h.m.Reader.Cause(err)
		}
		h.found[r.File] = s
	}
	if r.Host < s.start {
		return Run{Kind: Zero, Length: min(r.Length, s.start-r.Host)}, nil
	}
	r.Length = min(r.Length, s.end-r.Host)
	return r, nil
}

// stretch asks the file system what lies at off. What it can't tell, and what can't be, is data.
func (r *Reader) stretch(off int64) (stretch, error) {
	data := stretch{off, off, math.MaxInt64}
	f, ok := r.src.(formats.HoleFinder)
	if !ok {
		return data, nil
	}
	start, end, err := f.NextData(off)
	switch {
	case err != nil:
		return data, formats.ReadFailed(r.format, off, "where data lies", err)
	case start < off || end <= off || end > r.Size() || end <= start && start < r.Size():
		return data, nil
	}
	return stretch{off, start, end}, nil
}

// Flat is the Table of a disk that lies in a file byte for byte, from the offset Host on.
type Flat struct {
	Host int64 // bytes
	File int   // as in Run
}

// Map takes everything for data.
func (f Flat) Map(off, limit int64) (Run, error) {
	return Run{Kind: Data, Length: limit, Host: f.Host + off, File: f.File}, nil
}

// Decode is never called: nothing is encoded.
func (Flat) Decode([]byte, int64, Run) error { return errors.ErrUnsupported }
