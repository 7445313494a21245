//go:build conformance

package conformance

import (
	"context"
	"iter"
	"testing"

	"imgferry/formats"
)

// broken is a reader with one fault.
type broken struct {
	formats.Image
	flip   int64 // this byte of the disk reads wrong; -1: none
	change func(formats.Extent) formats.Extent
}

func (b broken) ReadAt(p []byte, off int64) (int, error) {
	n, err := b.Image.ReadAt(p, off)
	if i := b.flip - off; b.flip >= 0 && i >= 0 && i < int64(n) {
		p[i] ^= 1
	}
	return n, err
}

func (b broken) Extents(ctx context.Context) iter.Seq2[formats.Extent, error] {
	return func(yield func(formats.Extent, error) bool) {
		for e, err := range b.Image.Extents(ctx) {
			if err == nil && b.change != nil {
				e = b.change(e)
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// expectCaught runs readers that are broken on purpose: each must be found out.
func expectCaught(t *testing.T, img formats.Image, q truth) {
	t.Helper()
	data := formats.Extent{Offset: -1}
	for e, err := range img.Extents(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		if !e.Zero {
			data = e
		}
	}
	if data.Offset < 0 {
		t.Fatal("the disk has no data: nothing could be broken")
	}
	at := func(change func(*formats.Extent)) func(formats.Extent) formats.Extent {
		return func(e formats.Extent) formats.Extent {
			if e.Offset == data.Offset {
				change(&e)
			}
			return e
		}
	}
	for name, b := range map[string]broken{
		"wrong byte":   {img, data.Offset + data.Length - 1, nil},
		"data as zero": {img, -1, at(func(e *formats.Extent) { e.Zero, e.HostOffset, e.Compressed = true, -1, false })},
		"wrong layer":  {img, -1, at(func(e *formats.Extent) { e.Depth++ })},
		"wrong place":  {img, -1, at(func(e *formats.Extent) { e.HostOffset += 512 })},
	} {
		if data.Compressed && name == "wrong place" || q.runs == nil && name != "wrong byte" && name != "data as zero" {
			continue
		}
		if q.check(b) == nil {
			t.Errorf("a reader with a fault passes: %s", name)
		}
	}
}
