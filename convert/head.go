package convert

import (
	"context"
	"fmt"
	"io"
	"iter"

	"imgferry/formats"
)

// head is the beginning of a disk.
type head struct {
	formats.Image
	size int64
}

// Head returns the first size bytes of img as a disk, which closes img.
func Head(img formats.Image, size int64) (formats.Image, error) {
	if size < 0 || size > img.Size() {
		return nil, fmt.Errorf("%d bytes of a disk of %d", size, img.Size())
	}
	return head{img, size}, nil
}

func (h head) Size() int64 { return h.size }

func (h head) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= h.size {
		if off < 0 {
			return 0, fmt.Errorf("negative offset %d", off)
		}
		return 0, io.EOF
	}
	n, err := h.Image.ReadAt(p[:min(int64(len(p)), h.size-off)], off)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

func (h head) Extents(ctx context.Context) iter.Seq2[formats.Extent, error] {
	return func(yield func(formats.Extent, error) bool) {
		for e, err := range h.Image.Extents(ctx) {
			if e.Length = min(e.Length, h.size-e.Offset); err == nil && e.Length <= 0 || !yield(e, err) {
				return
			}
		}
	}
}
