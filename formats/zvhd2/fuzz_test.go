package zvhd2

import (
	"bytes"
	"context"
	"testing"

	"imgferry/formats"
	"imgferry/formats/hwstream"
)

// tryImage opens, walks, reads and checks an image that may be anything. Failures must be findings
// about the image.
func tryImage(t *testing.T, image []byte) {
	ctx := context.Background()
	if _, err := Format().Info(ctx, inMemory(image)); err != nil {
		t.Fatalf("info: %v", err)
	}
	checked := Check(ctx, inMemory(image), 1, nil)
	if checked != nil && !formats.BlamesImage(checked) {
		t.Fatalf("check: %v", checked)
	}
	im, err := Format().Open(ctx, inMemory(image), nil)
	if err != nil {
		if checked == nil || !formats.BlamesImage(err) {
			t.Fatalf("open: %v, check: %v", err, checked)
		}
		return
	}
	defer im.Close()
	p := make([]byte, BlockSize+10)
	stored := storedBlocks(t, im)
	for _, b := range stored[:min(3, len(stored))] {
		for _, off := range []int64{b * BlockSize, b*BlockSize + 5} {
			if n, err := im.ReadAt(p, off); checked == nil && int64(n) < min(int64(len(p)), im.Size()-off) {
				t.Fatalf("read at %d of a good image: %d, %v", off, n, err)
			}
		}
	}
}

// FuzzOpen starts from images without an index: half a megabyte of it would drown the fuzzer.
func FuzzOpen(f *testing.F) {
	f.Add(unpack(f, "allzero.zstd.zvhd2"))
	f.Add(imageOf(f, newDisk(70<<30), Options{Codec: Zlib}))
	f.Add([]byte(cookie))
	f.Fuzz(tryImage)
}

// FuzzParts builds an image from parts and makes checksums and footers agree, so that the fuzzer
// gets behind them.
func FuzzParts(f *testing.F) {
	for _, file := range []string{"odd3m100.zstd.zvhd2.gz", "tailzero.zstd.zvhd2.gz", "allzero.zlib.zvhd2"} {
		image := unpack(f, file)
		tr, _ := layoutOf(f, image)
		f.Add(image[len(image)-page:][:offReserved], image[page:tr.indexPos-page],
			image[tr.indexPos:][:tr.indexEntries()*indexEntrySize], image[tr.bitmapPos:][:2])
	}
	f.Fuzz(func(t *testing.T, trailer, chunks, index, bits []byte) {
		if len(trailer) < offReserved || len(index) > indexSegmentSize || len(bits) > bitmapSegmentSize {
			return
		}
		tr := parseFooter(trailer)
		chunks = append(chunks, make([]byte, hwstream.RoundUp(int64(len(chunks)), page)-int64(len(chunks)))...)
		image := append(tr.header().append(nil), chunks...)
		image = tr.endOfData().append(image)
		if len(index) > 0 {
			image = append(append(image, index...), make([]byte, indexSegmentSize-len(index))...)
		}
		image = append(append(image, bits...), make([]byte, bitmapSegmentSize-len(bits))...)
		tryImage(t, tr.append(image))
	})
}

// FuzzDecode decodes payloads of both codecs.
func FuzzDecode(f *testing.F) {
	sparse := make([]byte, BlockSize)
	copy(sparse[BlockSize/2:], "a few words in a block of zeros, a few words again, and the end")
	for _, codec := range []Codec{Zstd, Zlib} {
		for _, block := range [][]byte{sparse, make([]byte, BlockSize)} {
			p, err := (&encoder{codec: codec}).append(nil, block)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(byte(codec), p)
		}
	}
	f.Fuzz(func(t *testing.T, codec byte, payload []byte) {
		guarded := bytes.Repeat([]byte{0xdd}, BlockSize+64)
		Codec(codec%2).decode(guarded[:BlockSize], payload)
		if !bytes.Equal(guarded[BlockSize:], bytes.Repeat([]byte{0xdd}, 64)) {
			t.Fatal("written behind the block")
		}
	})
}

// FuzzRoundTrip writes a disk with a piece of data and reads it.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("data"), int64(5<<20+512), int64(2<<20-2), byte(0))
	f.Add([]byte{}, int64(1), int64(0), byte(1))
	f.Add(bytes.Repeat([]byte("1234567"), 1000), int64(1<<30), int64(1<<30-7000), byte(2))
	f.Fuzz(func(t *testing.T, data []byte, size, off int64, kind byte) {
		if size <= 0 || size > 1<<40 || off < 0 || off > size-int64(len(data)) {
			return
		}
		d := disk{size, map[int64][]byte{}}
		for len(data) > 0 {
			b := make([]byte, min(BlockSize, size-off/BlockSize*BlockSize))
			n := copy(b[off%BlockSize:], data)
			d.blocks[off/BlockSize] = b
			data, off = data[n:], off+int64(n)
		}
		o := []Options{{}, {Codec: Zlib}, {Level: LevelFastest}}[kind%3]
		image := imageOf(t, d, o)
		if err := Check(context.Background(), inMemory(image), 1, nil); err != nil {
			t.Fatal(err)
		}
		d.size = hwstream.RoundUp(size, sectorSize)
		im := mustOpen(t, image)
		for b := range d.blocks {
			var got, want [BlockSize + 700]byte
			n, _ := im.ReadAt(got[:], b*BlockSize)
			m, _ := d.ReadAt(want[:], b*BlockSize)
			if n != m || got != want {
				t.Fatalf("block %d differs", b)
			}
		}
	})
}
