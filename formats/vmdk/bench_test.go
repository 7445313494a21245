package vmdk_test

import (
	"path/filepath"
	"testing"

	"imgferry/formats/formatstest"
)

// BenchmarkReadAt reads in blocks of 2 MiB, the program's unit.
func BenchmarkReadAt(b *testing.B) {
	pieces := formatstest.BenchPieces()
	for _, s := range []string{"monolithicSparse", "monolithicFlat", "streamOptimized"} {
		b.Run(s, func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "disk.vmdk")
			recipe{subformat: s, size: formatstest.BenchSize, pieces: pieces}.make(b, path)
			formatstest.BenchReadAt(b, qemu.Open(b, path), 2<<20)
		})
	}
}
