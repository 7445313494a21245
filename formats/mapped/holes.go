package mapped

import (
	"errors"

	"imgferry/formats"
)

// holes finds, for one walk, what the files under Data runs never stored. Reading such a hole costs
// less than asking for it, but a walk tells others what they need not read.
type holes struct {
	m *image
	// found are those of the files, by Run.File: a file in one piece is asked about once.
	found map[int]*formats.Holes
}

// cut shortens r, a Data run, to what its file stores in one way, and makes it Zero if that is a hole.
func (h *holes) cut(r Run) (Run, error) {
	f := h.found[r.File]
	if f == nil {
		f = h.m.files[r.File].Holes()
		h.found[r.File] = f
	}
	start, end, err := f.Next(r.Host)
	switch {
	case err != nil:
		return r, h.m.Reader.Cause(err)
	case r.Host < start:
		return Run{Kind: Zero, Length: min(r.Length, start-r.Host)}, nil
	}
	r.Length = min(r.Length, end-r.Host)
	return r, nil
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
