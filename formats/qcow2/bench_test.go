package qcow2_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"imgferry/formats/formatstest"
)

// BenchmarkReadAt reads in blocks of 2 MiB, the program's unit.
func BenchmarkReadAt(b *testing.B) {
	pieces := formatstest.BenchPieces()
	for _, r := range []recipe{
		{name: "plain"}, {name: "plain", options: "cluster_size=4096"}, {name: "plain", options: "extended_l2=on"},
		{name: "zlib", compress: true}, {name: "zlib", options: "cluster_size=2M", compress: true},
		{name: "zstd", options: "compression_type=zstd", compress: true}, {name: "zstd", options: "compression_type=zstd,cluster_size=2M", compress: true},
	} {
		b.Run(r.name+" "+r.options, func(b *testing.B) {
			r.size, r.pieces = formatstest.BenchSize, pieces
			path := filepath.Join(b.TempDir(), "disk.qcow2")
			r.make(b, path)
			formatstest.BenchReadAt(b, qemu.Open(b, path), 2<<20)
		})
	}
}

// BenchmarkSmallReads reads 4 KiB at a time, as a reader of a file system does.
func BenchmarkSmallReads(b *testing.B) {
	for _, o := range []string{"plain", "zlib"} {
		b.Run(o, func(b *testing.B) {
			r := recipe{size: formatstest.BenchSize, pieces: formatstest.BenchPieces(), compress: o == "zlib"}
			path := filepath.Join(b.TempDir(), "disk.qcow2")
			r.make(b, path)
			formatstest.BenchReadAt(b, qemu.Open(b, path), 4096)
		})
	}
}

// BenchmarkExtents walks tables: empty ones, and those of a preallocated disk.
func BenchmarkExtents(b *testing.B) {
	for _, c := range [][2]string{{"1T", "preallocation=off"}, {"100G", "preallocation=metadata"}, {"100G", "preallocation=metadata,extended_l2=on"}} {
		b.Run(fmt.Sprint(c[0], " ", c[1]), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "disk.qcow2")
			formatstest.Tool(b, "qemu-img", "create", "-f", "qcow2", "-o", c[1], path, c[0])
			b.ReportAllocs()
			for b.Loop() {
				img := qemu.Open(b, path)
				for _, err := range img.Extents(context.Background()) {
					if err != nil {
						b.Fatal(err)
					}
				}
				img.Close()
			}
		})
	}
}

// BenchmarkCheck counts the references of a preallocated disk.
func BenchmarkCheck(b *testing.B) {
	for _, c := range [][2]string{{"1T", "preallocation=metadata"}, {"100G", "preallocation=metadata,cluster_size=16384"}} {
		b.Run(fmt.Sprint(c[0], " ", c[1]), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "disk.qcow2")
			formatstest.Tool(b, "qemu-img", "create", "-f", "qcow2", "-o", c[1], path, c[0])
			b.ReportAllocs()
			for b.Loop() {
				if findings, _ := qemu.Check(b, path); len(findings) > 0 {
					b.Fatal(findings[0])
				}
			}
		})
	}
}
