package zvhd2

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// machineBlocks returns up to n blocks of real files: programs of this machine, end to end.
func machineBlocks(b *testing.B, n int) [][]byte {
	files, _ := filepath.Glob("/usr/bin/*")
	var readers []io.Reader
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil || !st.Mode().IsRegular() {
			continue
		}
		if r, err := os.Open(f); err == nil {
			defer r.Close()
			readers = append(readers, r)
		}
	}
	all := io.MultiReader(readers...)
	var blocks [][]byte
	for range n {
		p := make([]byte, BlockSize)
		if _, err := io.ReadFull(all, p); err != nil {
			break
		}
		blocks = append(blocks, p)
	}
	if len(blocks) == 0 {
		b.Skip("no programs in /usr/bin")
	}
	return blocks
}

// eachBlock calls f with the blocks in turn, one a loop.
func eachBlock(b *testing.B, blocks [][]byte, f func(i int, block []byte)) {
	b.SetBytes(BlockSize)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		f(i%len(blocks), blocks[i%len(blocks)])
	}
}

func BenchmarkEncode(b *testing.B) {
	blocks := machineBlocks(b, 32)
	dst := make([]byte, 0, ChunkBound)
	b.Run("bare EncodeAll", func(b *testing.B) {
		z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
		if err != nil {
			b.Fatal(err)
		}
		eachBlock(b, blocks, func(_ int, block []byte) { z.EncodeAll(block, dst) })
	})
	for _, o := range []Options{{}, {Level: LevelFastest}, {Level: LevelBetter}, {Codec: Zlib}} {
		o.OrigSize = int64(len(blocks)) * BlockSize
		z, err := NewWriter(io.Discard, o)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(z.enc.name(), func(b *testing.B) {
			eachBlock(b, blocks, func(i int, block []byte) {
				if _, err := z.Encode(dst, int64(i), block); err != nil {
					b.Fatal(err)
				}
			})
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	blocks := machineBlocks(b, 32)
	sparse := make([]byte, BlockSize)
	copy(sparse, "one sector of a block that is zero otherwise")
	dst := make([]byte, BlockSize)
	for _, codec := range []Codec{Zstd, Zlib} {
		e := encoder{codec: codec}
		encode := func(block []byte) []byte {
			p, err := e.append(nil, block)
			if err != nil {
				b.Fatal(err)
			}
			return p
		}
		var payloads [][]byte
		for _, block := range blocks {
			payloads = append(payloads, encode(block))
		}
		for name, payloads := range map[string][][]byte{"files": payloads, "sparse": {encode(sparse)}} {
			b.Run(codec.String()+" "+name, func(b *testing.B) {
				eachBlock(b, payloads, func(_ int, payload []byte) {
					if err := codec.decode(dst, payload); err != nil {
						b.Fatal(err)
					}
				})
			})
		}
	}
}
