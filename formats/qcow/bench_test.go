package qcow_test

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"imgferry/formats/formatstest"
)

// BenchmarkReadAt reads 64 MiB in blocks of 2 MiB, the program's unit, by one goroutine and by two.
func BenchmarkReadAt(b *testing.B) {
	const size, block = 64 << 20, 2 << 20
	var pieces []formatstest.Piece
	for i := range int64(size / block) {
		p := formatstest.Piece{Offset: i * block, Data: text(uint64(i), block)}
		if i%3 == 0 {
			p.Data = noise(uint64(i), block)
		}
		pieces = append(pieces, p)
	}
	from := rawFile(b, size, pieces)
	plain, packed := filepath.Join(b.TempDir(), "plain"), filepath.Join(b.TempDir(), "packed")
	formatstest.Tool(b, "qemu-img", "convert", "-f", "raw", "-O", "qcow", from, plain)
	compress(b, from, packed)
	for _, path := range []string{plain, packed} {
		for _, readers := range []int{1, 2} {
			b.Run(fmt.Sprint(filepath.Base(path), " ", readers), func(b *testing.B) {
				img := openFile(b, table, path)
				b.SetBytes(size)
				b.ReportAllocs()
				for b.Loop() {
					var next atomic.Int64
					var wg sync.WaitGroup
					for range readers {
						wg.Go(func() {
							p := make([]byte, block)
							for {
								off := (next.Add(1) - 1) * block
								if off >= size {
									return
								}
								if _, err := img.ReadAt(p, off); err != nil {
									b.Error(err)
									return
								}
							}
						})
					}
					wg.Wait()
				}
			})
		}
	}
}
