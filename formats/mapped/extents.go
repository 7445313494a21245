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

// belowWalk goes through the extents of the disk below.
type belowWalk struct {
	m    *image
	walk *formats.Walk // nil: there is no disk below
}

// walkBelow starts a walk; it must be stopped.
func (m *image) walkBelow(ctx context.Context) *belowWalk {
	w := &belowWalk{m: m}
	if m.Below != nil {
		w.walk = formats.NewWalk(ctx, m.Below)
	}
	return w
}

func (w *belowWalk) stop() {
	if w.walk != nil {
		w.walk.Stop()
	}
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
	// As qemu-img has it: what no disk below covers is zeros of this layer's.
	nothing := formats.Extent{Offset: off, Length: w.m.Size() - off, Zero: true, Absent: true, HostOffset: -1}
	if w.walk == nil {
		return nothing, nil
	}
	e, ok, err := w.walk.At(off)
	if !ok || err != nil {
		return nothing, err
	}
	e.Depth++
	if e.HostOffset >= 0 && e.File == "" {
		e.File = w.m.BelowName
	}
	return e, nil
}
