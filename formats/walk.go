package formats

import (
	"context"
	"iter"
)

// Walk goes through an image's extents beside something else, forward only. It is not safe for
// concurrent use.
type Walk struct {
	next func() (Extent, error, bool)
	stop func()
	e    Extent // the run reached
}

// NewWalk starts at the beginning of img. Nothing is read before At. Stop must follow.
func NewWalk(ctx context.Context, img Image) *Walk {
	w := new(Walk)
	w.next, w.stop = iter.Pull2(img.Extents(ctx))
	return w
}

// At returns what is left of the run at off, which must not be below that of an earlier call. ok is
// false beyond the disk's end.
func (w *Walk) At(off int64) (e Extent, ok bool, err error) {
	for w.e.Offset+w.e.Length <= off {
		e, err, ok := w.next()
		if err != nil || !ok {
			return Extent{}, false, err
		}
		w.e = e
	}
	e, skip := w.e, off-w.e.Offset
	e.Offset, e.Length = off, e.Length-skip
	if e.HostOffset >= 0 {
		e.HostOffset += skip
	}
	return e, true, nil
}

// Stop ends the walk.
func (w *Walk) Stop() { w.stop() }
