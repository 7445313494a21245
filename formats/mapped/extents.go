package mapped

import (
	"context"
	"iter"

	"imgferry/formats"
)

// merged joins neighbouring runs of walk that are stored alike.
func merged(walk iter.Seq2[formats.Extent, error]) iter.Seq2[formats.Extent, error] {
	return func(yield func(formats.Extent, error) bool) {
		var last formats.Extent // found, not yet yielded: it may grow
		for e, err := range walk {
			if err != nil {
				if last.Length == 0 || yield(last, nil) {
					yield(formats.Extent{}, err)
				}
				return
			}
			if last.Length > 0 && follows(last, e) {
				last.Length += e.Length
				continue
			}
			if last.Length > 0 && !yield(last, nil) {
				return
			}
			last = e
		}
		if last.Length > 0 {
			yield(last, nil)
		}
	}
}

// follows reports whether b, which starts where a ends, is more of the same.
func follows(a, b formats.Extent) bool {
	want := a
	want.Offset, want.Length = b.Offset, b.Length
	if a.HostOffset >= 0 {
		want.HostOffset += a.Length
	}
	return b == want
}

// belowWalk goes through the extents of the disk below, forward only.
type belowWalk struct {
	m    *image
	next func() (formats.Extent, error, bool)
	stop func()
	e    formats.Extent // the run reached
}

// walkBelow starts a walk; it must be stopped. Nothing is read before the first hole.
func (m *image) walkBelow(ctx context.Context) *belowWalk {
	w := &belowWalk{m: m, stop: func() {}}
	if m.Below != nil {
		w.next, w.stop = iter.Pull2(m.Below.Extents(ctx))
	}
	return w
}

// cover yields what lies below [off, end), and reports whether the walk goes on.
func (w *belowWalk) cover(off, end int64, yield func(formats.Extent, error) bool) bool {
	for off < end {
		e, err := w.at(off)
		if err != nil {
			yield(formats.Extent{}, w.m.Reader.Cause(err))
			return false
		}
		e.Length = min(e.Length, end-off)
		if !yield(e, nil) {
			return false
		}
		off += e.Length
	}
	return true
}

// at returns the run at off as it is seen from above.
func (w *belowWalk) at(off int64) (formats.Extent, error) {
	for w.next != nil && w.e.Offset+w.e.Length <= off {
		e, err, ok := w.next()
		if err != nil {
			return e, err
		}
		if !ok {
			w.next = nil // the disk below is shorter
			break
		}
		w.e = e
	}
	if w.next == nil {
		// As qemu-img has it: what a short disk below leaves open is zeros of this layer's.
		return formats.Extent{Offset: off, Length: w.m.Size() - off, Zero: true, Absent: true, HostOffset: -1}, nil
	}
	e, skip := w.e, off-w.e.Offset
	e.Offset, e.Length = off, e.Length-skip
	e.Depth++
	if e.HostOffset >= 0 {
		e.HostOffset += skip
		if e.File == "" {
			e.File = w.m.BelowName
		}
	}
	return e, nil
}
