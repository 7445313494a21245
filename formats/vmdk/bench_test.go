package vmdk_test

import (
	"path/filepath"
	"sync/atomic"
	"testing"

	"imgferry/formats/formatstest"
)

const benchSize = 64 << 20

// benchPieces are 64 MiB of which a third is noise and the rest text.
func benchPieces() []formatstest.Piece {
	var list []formatstest.Piece
	for i := range 32 {
		p := formatstest.Piece{Offset: int64(i) * 2 << 20}
		if i%3 == 0 {
			p.Data = noise(uint64(i), 2<<20)
		} else {
			p.Data = text(uint64(i), 2<<20)
		}
		list = append(list, p)
	}
	return list
}

// BenchmarkReadAt reads in blocks of 2 MiB, the program's unit, front to back, by as many goroutines
// as -cpu says.
func BenchmarkReadAt(b *testing.B) {
	pieces := benchPieces()
	for _, s := range []string{"monolithicSparse", "monolithicFlat", "streamOptimized"} {
		b.Run(s, func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "disk.vmdk")
			recipe{subformat: s, size: benchSize, pieces: pieces}.make(b, path)
			img := openFile(b, path)
			b.SetBytes(2 << 20)
			b.ReportAllocs()
			b.ResetTimer()
			var next atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				p := make([]byte, 2<<20)
				for pb.Next() {
					off := (next.Add(1) - 1) * int64(len(p)) % benchSize
					if _, err := img.ReadAt(p, off); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
