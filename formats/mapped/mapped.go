// Package mapped makes an Image of what a format knows: where each run of the disk lies.
//
// Nearly all formats are a table from disk offsets to file offsets. A format writes the table
// (Table); reading, zeros, the disk below, extents, cancellation and closing are done here, once. It
// knows no format, and is not for formats without such a table.
package mapped

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"imgferry/formats"
)

// Kind is how a run is stored.
type Kind uint8

// The kinds of runs.
const (
	// Hole is not stored: it reads as the disk below does, or as zeros where there is none.
	Hole Kind = iota
	// Zero reads as zeros, whatever is below.
	Zero
	// Data lies in a file byte for byte.
	Data
	// Encoded is stored in another form, mostly compressed: the table reads it.
	Encoded
)

// Run is a stretch of the disk that is stored in one way.
type Run struct {
	Kind   Kind
	Length int64 // bytes of disk, at least 1
	// Host is where the first byte lies in the file, for Data.
	Host int64
	// File is which of Config.Files holds it, from 1, for Data; 0 is the image's own file.
	File int
	// Unplaced says that Data is not in the file as it is, but as its Reader shows it (with a log that
	// was replayed, for example): no HostOffset is told.
	Unplaced bool
	// Entries is the table's own, from the run's first cluster on, for Encoded.
	Entries []byte
}

// Table says where the runs of a disk lie. Its methods are called by many goroutines at once, with
// offsets inside the disk only.
type Table interface {
	// Map returns the run that starts at off: at most limit bytes of it, and not always the longest
	// there is. Nothing of a run may lie outside its file.
	Map(off, limit int64) (Run, error)
	// Decode fills p with the bytes at off, all within r, an Encoded run that starts at off. The
	// bytes between len(p) and cap(p) are the caller's own and may be written to.
	Decode(p []byte, off int64, r Run) error
}

// File is another file that holds bytes of the disk.
type File struct {
	Name   string // as the image spells it
	Reader *Reader
}

// Config is an image. All but Files and what follows must be set.
type Config struct {
	// Reader is the image's own file. The image owns it from New on.
	Reader *Reader
	Size   int64 // virtual size, bytes
	Table  Table
	// Unit is how many bytes of an Encoded run are decoded at once, as formats.Extent has it.
	Unit int64
	// Files are the other files that Data runs lie in, read by siblings of Reader. The image owns
	// them.
	Files []File
	// Below is the disk that holes are read from; nil: they are zeros. What lies past its end reads
	// as zeros. The image owns it.
	Below formats.Image
	// BelowName is how the image spells Below's name.
	BelowName string
	// Holes says that Data runs may lie in holes of their files, where those are formats.HoleFinders:
	// Extents then shows them as zeros. Reading is not concerned.
	Holes bool
}

// maxStep bounds what is done between two looks at the context, in bytes of disk.
const maxStep = 8 << 20

// image is a Config that is open.
type image struct {
	Config
	files []*Reader // by Run.File
}

// New returns the image. It can't fail: what can is the caller's to do before.
func New(c Config) formats.Image {
	m := &image{Config: c, files: []*Reader{c.Reader}}
	for _, f := range c.Files {
		m.files = append(m.files, f.Reader)
	}
	return m
}

// Size returns the virtual size in bytes.
func (m *image) Size() int64 { return m.Config.Size }

// Sequential is true where what is below should be read in order.
func (m *image) Sequential() bool { return m.Below != nil && m.Below.Sequential() }

// Close ends reads under way and closes all files.
func (m *image) Close() error {
	m.Reader.end()
	var errs []error
	for _, f := range m.files {
		errs = append(errs, f.src.Close())
	}
	if m.Below != nil {
		errs = append(errs, m.Below.Close())
	}
	return errors.Join(errs...)
}

// ReadAt reads guest bytes. Data goes straight from the file into p, one read for each run that
// lies in one piece.
func (m *image) ReadAt(p []byte, off int64) (int, error) {
	if err := m.Reader.Err(); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, fmt.Errorf("%s: negative offset %d", m.Reader.format, off)
	}
	if off >= m.Size() {
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), m.Size()-off)]
	for n := 0; n < len(want); {
		if err := m.Reader.Err(); err != nil {
			return n, err
		}
		at := off + int64(n)
		r, err := m.mapRun(at, min(int64(len(want)-n), maxStep))
		if err != nil {
			return n, err
		}
		// The capacity ends with the caller's bytes: decoders use what lies before it as scratch.
		k, err := m.fill(want[n:n+int(r.Length):len(want)], at, r)
		if n += k; err != nil {
			return n, err
		}
	}
	if len(want) < len(p) {
		return len(want), io.EOF
	}
	return len(want), nil
}

// mapRun is Table.Map, cut to limit. A table's bug must not become an endless loop.
func (m *image) mapRun(off, limit int64) (Run, error) {
	r, err := m.Table.Map(off, limit)
	if err != nil {
		return Run{}, m.Reader.Cause(err)
	}
	if r.Length <= 0 {
		return Run{}, fmt.Errorf("%s: no run at disk offset %d", m.Reader.format, off)
	}
	r.Length = min(r.Length, limit)
	return r, nil
}

// fill reads all of r, which starts at off, into p, and returns how many bytes are good.
func (m *image) fill(p []byte, off int64, r Run) (int, error) {
	var err error
	switch r.Kind {
	case Data:
		return m.files[r.File].read(p, r.Host, "data")
	case Encoded:
		err = m.Reader.Cause(m.Table.Decode(p, off, r))
	case Hole:
		err = m.fillBelow(p, off)
	default:
		clear(p)
	}
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// fillBelow reads p from the disk below, and zeros past its end.
func (m *image) fillBelow(p []byte, off int64) error {
	if m.Below == nil || off >= m.Below.Size() {
		clear(p)
		return nil
	}
	n := min(int64(len(p)), m.Below.Size()-off)
	if _, err := m.Below.ReadAt(p[:n:n], off); err != nil && err != io.EOF {
		return InFile(m.BelowName, m.Reader.Cause(err))
	}
	clear(p[n:])
	return nil
}

// Extents walks the table, and the disk below beside it.
func (m *image) Extents(ctx context.Context) iter.Seq2[formats.Extent, error] {
	return merged(func(yield func(formats.Extent, error) bool) {
		below := m.walkBelow(ctx)
		defer below.stop()
		holes := &holes{m, map[int]*formats.Holes{}}
		for off := int64(0); off < m.Size(); {
			r, err := m.nextRun(ctx, off)
			if err == nil && r.Kind == Data && m.Holes {
				r, err = holes.cut(r)
			}
			if err != nil {
				yield(formats.Extent{}, err)
				return
			}
			if r.Kind != Hole {
				if !yield(m.extent(off, r), nil) {
					return
				}
			} else if !below.cover(off, off+r.Length, yield) {
				return
			}
			off += r.Length
		}
	})
}

// nextRun maps up to the disk's end, unless ctx or the image's context has ended.
func (m *image) nextRun(ctx context.Context, off int64) (Run, error) {
	if err := m.Reader.Err(); err != nil {
		return Run{}, err
	}
	if ctx.Err() != nil {
		return Run{}, context.Cause(ctx)
	}
	return m.mapRun(off, m.Size()-off)
}

// extent is r as others see it.
func (m *image) extent(off int64, r Run) formats.Extent {
	e := formats.Extent{Offset: off, Length: r.Length, HostOffset: -1}
	switch r.Kind {
	case Data:
		if r.Unplaced {
			break
		}
		e.HostOffset = r.Host
		if r.File > 0 {
			e.File = m.Files[r.File-1].Name
		}
	case Encoded:
		e.Compressed, e.Unit = true, m.Unit
	default:
		e.Zero = true
	}
	return e
}
