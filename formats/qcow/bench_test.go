package qcow_test

import (
	"path/filepath"
	"testing"

	"imgferry/formats/formatstest"
)

// BenchmarkReadAt reads in blocks of 2 MiB, the program's unit.
func BenchmarkReadAt(b *testing.B) {
	from := formatstest.RawFile(b, formatstest.BenchSize, formatstest.BenchPieces())
	plain, packed := filepath.Join(b.TempDir(), "plain"), filepath.Join(b.TempDir(), "packed")
	formatstest.Tool(b, "qemu-img", "convert", "-f", "raw", "-O", "qcow", from, plain)
	compress(b, from, packed)
	for _, path := range []string{plain, packed} {
		b.Run(filepath.Base(path), func(b *testing.B) { formatstest.BenchReadAt(b, qemu.Open(b, path), 2<<20) })
	}
}
