package zvhd2

import (
	"bytes"
	"imgferry/formats/hwstream"
	"testing"
)

// TestParseAppend: the vendor's structures, parsed and appended again, are the same bytes.
func TestParseAppend(t *testing.T) {
	image := unpack(t, "sparse3g.zstd.zvhd2.gz")
	for _, pos := range []int{0, len(image) - page} {
		b := image[pos : pos+footerSize]
		f := parseFooter(b)
		got := f.append([]byte("x"))
		if len(got) != 1+page || !bytes.Equal(got[1:1+footerSize], b) {
			t.Errorf("footer at %d differs", pos)
		}
		if !bytes.Equal(got[1+footerSize:], make([]byte, page-footerSize)) {
			t.Errorf("footer at %d is not padded with zeros", pos)
		}
	}
	at := int(parseFooter(image[len(image)-page:]).indexPos)
	for i := range 8 {
		b := image[at+i*indexEntrySize:][:indexEntrySize]
		e := parseEntry(b)
		if !bytes.Equal(e.append(nil), b) || e.zero() != (i == 7) {
			t.Errorf("entry %d: %+v", i, e)
		}
	}
}

func TestGeometry(t *testing.T) {
	for size, want := range map[int64][3]uint32{ // cylinders, heads, sectors
		// The vendor's driver.
		10485760: {301, 4, 17}, 3221225472: {6241, 16, 63}, 70866960384: {33924, 16, 255}, 5243392: {150, 4, 17},
		// VHD files that qemu-img 7.2 made.
		557056: {16, 4, 17}, 2123776: {61, 4, 17}, 41953280: {964, 5, 17}, 524353536: {1016, 16, 63},
		8590417920: {16645, 16, 63}, 33822351360: {16191, 16, 255}, 70867968000: {33925, 16, 255},
		// The ends: less than a cylinder, and more than fits.
		512: {0, 4, 17}, 1 << 40: {65535, 16, 255}, MaxDiskSize: {65535, 16, 255},
	} {
		if got := hwstream.Geometry(size); got != want[0]<<16|want[1]<<8|want[2] {
			t.Errorf("%d bytes: %d/%d/%d, want %v", size, got>>16, got>>8&0xff, got&0xff, want)
		}
	}
}

func TestTailSize(t *testing.T) {
	for _, c := range []struct{ stored, blocks, want int64 }{
		{0, 5, 3 * page}, // with the header 16384 bytes, as the vendor's file
		{1, 5, 3*page + indexSegmentSize},
		{32768, 32768, 3*page + indexSegmentSize},
		{32769, 32769, 4*page + 2*indexSegmentSize},
	} {
		if got := TailSize(c.stored, c.blocks); got != c.want {
			t.Errorf("%d of %d blocks: %d, want %d", c.stored, c.blocks, got, c.want)
		}
	}
}
