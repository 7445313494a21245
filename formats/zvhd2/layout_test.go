package zvhd2

import (
	"bytes"
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
