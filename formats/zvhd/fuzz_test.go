package zvhd

import (
	"bytes"
	"encoding/binary"
	"testing"

	"imgferry/bitmap"
	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/hwstream"
)

// FuzzOpen opens, walks, reads and checks an image that may be anything. Where the first page is a
// header but for its checksum, it gets one, and the last page becomes its copy: so the fuzzer gets
// behind them.
func FuzzOpen(f *testing.F) {
	for _, file := range []string{"allzero.zvhd", "tailzero.zvhd", "odd3m100.zvhd"} {
		f.Add(goldens(f)[file].image(f, file))
	}
	f.Add([]byte(cookie))
	f.Fuzz(func(t *testing.T, image []byte) {
		if len(image) >= 2*page && string(image[:len(cookie)]) == cookie {
			image = bytes.Clone(image)
			binary.LittleEndian.PutUint32(image[hwstream.OffChecksum:], hwstream.Checksum(image))
			copy(image[len(image)-page:], image[:page])
		}
		formatstest.Fuzzed{
			Format: Format(), Source: func() formats.Source { return formatstest.NewSource(image) }, Budget: 8 << 20, OpenVerifies: true,
		}.Run(t)
	})
}

// FuzzInflate decodes payloads.
func FuzzInflate(f *testing.F) {
	block := make([]byte, BlockSize)
	copy(block[BlockSize/2:], "a few words in a block of zeros, a few words again, and the end")
	z, err := NewWriter(nil, Options{OrigSize: BlockSize})
	if err != nil {
		f.Fatal(err)
	}
	p, err := z.deflaters.Append(nil, block, z.level)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p, block[BlockSize-windowSize:])
	f.Fuzz(func(t *testing.T, payload, window []byte) {
		guarded := bytes.Repeat([]byte{0xdd}, BlockSize+64)
		inflate(guarded[:BlockSize], payload, window[:min(len(window), windowSize)])
		if !bytes.Equal(guarded[BlockSize:], bytes.Repeat([]byte{0xdd}, 64)) {
			t.Fatal("written behind the block")
		}
	})
}

// FuzzRoundTrip writes a disk with a piece of data and reads it.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("data"), int64(5<<20+512), int64(2<<20-2))
	f.Add([]byte{}, int64(1), int64(0))
	f.Fuzz(func(t *testing.T, data []byte, size, off int64) {
		if size <= 0 || size > 64<<20 || off < 0 || off > size-int64(len(data)) {
			return
		}
		blocks := map[int64][]byte{}
		for at := off; len(data) > 0; {
			b := blocks[at/BlockSize]
			if b == nil {
				b = make([]byte, BlockSize)
				blocks[at/BlockSize] = b
			}
			n := copy(b[at%BlockSize:], data)
			data, at = data[n:], at+int64(n)
		}
		img := open1(t, write(t, Options{OrigSize: size}, blocks, bitmap.Blocks(size)-1))
		for b, want := range blocks {
			got := make([]byte, BlockSize)
			img.ReadAt(got, b*BlockSize)
			if !bytes.Equal(got, want) {
				t.Fatalf("block %d differs", b)
			}
		}
	})
}
