package bitmap_test

import (
	"bytes"
	"image"
	"image/png"
	"testing"

	"imgferry/bitmap"
)

// decode decodes the PNG of a picture.
func decode(t *testing.T, p *bitmap.Picture) image.Image {
	t.Helper()
	var b bytes.Buffer
	if err := p.WritePNG(&b); err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(&b)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// TestPicture looks at the cells by their place and color.
func TestPicture(t *testing.T) {
	const size = 1 << 40
	p := bitmap.NewPicture("a disk", size)
	cell := int64(size / (128 * 64))
	p.Add(0, cell, bitmap.Stored)
	p.Add(cell, cell, bitmap.Compressed)
	p.Add(2*cell, cell, bitmap.Zeros)
	p.Add(3*cell, cell-1, bitmap.Absent)
	p.Add(4*cell-1, 1, bitmap.Stored) // a single byte
	p.Add(4*cell, size-5*cell, bitmap.Absent)
	p.Add(size-cell, cell, bitmap.Stored)
	img := decode(t, p)
	at := func(i int) [3]uint32 {
		r, g, b, _ := img.At(84+i%128*8+3, 40+i/128*8+3).RGBA()
		return [3]uint32{r >> 8, g >> 8, b >> 8}
	}
	stored, compressed, zeros, absent := at(0), at(1), at(2), at(5)
	for i, want := range map[int][3]uint32{0: {0x08, 0x45, 0x94}, 1: {0xe6, 0x6a, 0x0a}, 2: {0xb7, 0xd7, 0xee}, 5: {0xea, 0xea, 0xea}, 8191: stored, 8190: absent} {
		if at(i) != want {
			t.Errorf("cell %d is %x, want %x", i, at(i), want)
		}
	}
	if single := at(3); single == absent || single == stored || single == compressed || single == zeros {
		t.Errorf("a byte among nothing does not show: %x", single)
	}
}

// TestPictureSizes: any size makes a picture of bounded size.
func TestPictureSizes(t *testing.T) {
	for _, size := range []int64{0, 1, 511, 512, 513, 64 << 10, 4 << 20, 4<<20 + 1, 64 << 40, 1<<63 - 1} {
		p := bitmap.NewPicture("", size)
		p.Add(0, size, bitmap.Stored)
		if b := decode(t, p).Bounds(); b.Dx() > 1200 || b.Dy() > 700 || b.Dy() < 60 {
			t.Errorf("%d bytes: %v", size, b)
		}
	}
}
