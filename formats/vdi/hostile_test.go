package vdi_test

import (
	"bytes"
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/vdi"
)

func TestHostile(t *testing.T) {
	const end = tinyData + tinyCount*tinyBlock
	for _, c := range []struct {
		name  string
		image imageBytes
		class error
		text  string // part of the message
		late  bool   // the header is fine
	}{
		{"signature", tiny().u32(64, 0), formats.ErrCorrupt, "signature", false},
		{"empty", nil, formats.ErrCorrupt, "within the header (at file offset 0)", false},
		{"ends in header", tiny()[:455], formats.ErrCorrupt, "within the header (at file offset 455)", false},
		{"version 0.1", tiny().u32(68, 1), formats.ErrUnsupported, "version 0.1 (known is 1.1) (at file offset 68)", false},
		{"version 1.0", tiny().u32(68, 1<<16), formats.ErrUnsupported, "version 1.0", false},
		{"version 65535.65535", tiny().u32(68, math.MaxUint32), formats.ErrUnsupported, "version 65535.65535", false},
		{"short header", tiny().u32(72, 383), formats.ErrCorrupt, "says it has 383 bytes", false},
		{"endless header", tiny().u32(72, math.MaxUint32), formats.ErrCorrupt, "block map at 512 lies in the header", false},
		{"undo", tiny().u32(76, 3), formats.ErrUnsupported, "undo image", false},
		{"differencing", tiny().u32(76, 4).str(424, "\x01\x00\x00\x00\x02\x00\x03\x00\x04\x05\x06\x07\x08\x09\x0a\x0b"), formats.ErrUnsupported, "differencing image: its parent disk is known by UUID 00000001-0002-0003-0405-060708090a0b only (at file offset 76)", false},
		{"type 0", tiny().u32(76, 0), formats.ErrUnsupported, "image type 0", false},
		{"type 2^32-1", tiny().u32(76, math.MaxUint32), formats.ErrUnsupported, "image type 4294967295", false},
		{"linked", tiny().str(439, "\x01"), formats.ErrUnsupported, "parent disk with UUID 00000000-0000-0000-0000-000000000001 (at file offset 424)", false},
		{"linked to a state", tiny().str(440, "\x01"), formats.ErrUnsupported, "parent disk with UUID 00000001-0000-0000-0000-000000000000 (at file offset 440)", false},
		{"sectors of 4096", tiny().u32(360, 4096), formats.ErrUnsupported, "sectors of 4096 bytes", false},

		{"blocks of 0", tiny().u32(376, 0), formats.ErrCorrupt, "blocks of 0 bytes", false},
		{"blocks of 256", tiny().u32(376, 256), formats.ErrCorrupt, "blocks of 256 bytes", false},
		{"blocks of 5000", tiny().u32(376, 5000), formats.ErrCorrupt, "blocks of 5000 bytes", false},
		{"blocks of 512 MiB", tiny().u32(376, 1<<29), formats.ErrCorrupt, "blocks of 536870912 bytes", false},
		{"extra bytes", tiny().u32(380, 4097), formats.ErrCorrupt, "4097 extra bytes", false},
		{"4 GiB of extra bytes", tiny().u32(380, math.MaxUint32), formats.ErrCorrupt, "4294967295 extra bytes", false},
		{"size beyond the map", tiny().u64(368, 4*4096+1), formats.ErrCorrupt, "4 blocks of 4096 bytes are too few for 16385 bytes", false},
		{"size 2^63-1", tiny().u64(368, 1<<63-1), formats.ErrCorrupt, "too few", false},
		{"size 2^63", tiny().u64(368, 1<<63), formats.ErrCorrupt, "beyond 63 bits", false},
		{"no blocks", tiny().u32(384, 0), formats.ErrCorrupt, "too few", false},
		{"4 Gi blocks", tiny().u32(384, math.MaxUint32), formats.ErrCorrupt, "block map of 17179869180 bytes reaches past the end", false},
		{"map in the header", tiny().u32(340, 471), formats.ErrCorrupt, "block map at 471 lies in the header", false},
		{"map at 0", tiny().u32(340, 0), formats.ErrCorrupt, "block map at 0 lies in the header", false},
		{"map past the end", tiny().u32(340, end-15), formats.ErrCorrupt, "reaches past the end", false},
		{"map at 4 GiB", tiny().u32(340, math.MaxUint32), formats.ErrCorrupt, "reaches past the end", false},
		{"data in the map", tiny().u32(344, tinyMap+15), formats.ErrCorrupt, "data at 527 lies in the block map, which ends at 528", false},
		{"data at 0", tiny().u32(344, 0), formats.ErrCorrupt, "data at 0 lies in the block map", false},

		{"data past the end", tiny().u32(344, math.MaxUint32), formats.ErrCorrupt, "has 4 stored blocks, the file has room for 0 (at file offset 512)", true},
		{"block shared", tiny().u32(384, 64).sharing(64).u64(368, 64*4096), formats.ErrCorrupt, "has 64 stored blocks, the file has room for 4", true},
		{"block stored twice", tiny().entry(2, 1), formats.ErrCorrupt, "block 2 is stored where another one is, as block 1 (at file offset 520)", true},
		{"block past the end", tiny().entry(1, 4), formats.ErrCorrupt, "block 1 is stored past the end of the file, as block 4 (at file offset 516)", true},
		{"block far past the end", tiny().entry(1, 0xfffffffd), formats.ErrCorrupt, "block 1 is stored past the end of the file, as block 4294967293", true},
		{"block cut", tiny()[:end-1], formats.ErrCorrupt, "block 3 is stored past the end", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			formatstest.CheckRefused(t, vdi.Format(), formatstest.NewSource(c.image), nil, c.class, c.text, c.late)
		})
	}
}

// sharing lets n blocks be stored in one place.
func (p imageBytes) sharing(n int) imageBytes {
	for i := range n {
		p.entry(i, 0)
	}
	return p
}

// TestLargest: the largest map is read, a larger one refused before there is memory for it, and the
// largest offsets don't overflow.
func TestLargest(t *testing.T) {
	const blocks, block = 8 << 20, 256 << 20
	p := tiny().entry(1, math.MaxUint32).entry(2, math.MaxUint32).entry(3, math.MaxUint32)[:tinyMap+16].u32(376, block).u32(380, block).u32(344, math.MaxUint32).u32(384, blocks).u64(368, blocks*block)
	unused := bytes.Repeat([]byte{0xff}, blocks*4)
	sparse := func(p imageBytes) formats.Source {
		return formatstest.NewSparseSource(1<<63-1, formatstest.Piece{Offset: tinyMap, Data: unused}, formatstest.Piece{Data: p})
	}
	img, err := vdi.Format().Open(context.Background(), sparse(p.entry(0, 0xfffffffd)), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	want := int64(math.MaxUint32) + 0xfffffffd*2*block + block
	for e, err := range img.Extents(context.Background()) {
		if err != nil || e.HostOffset != want || e.Length != block {
			t.Errorf("%+v, %v; want it at %d", e, err, want)
		}
		break
	}
	src := sparse(p.u32(384, blocks+1))
	if _, err := vdi.Format().Open(context.Background(), src, nil); !errors.Is(err, formats.ErrUnsupported) || !strings.Contains(err.Error(), "block map of 33554436 bytes") {
		t.Errorf("%v", err)
	}
}
