package vmdk_test

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/vmdk"
)

// FuzzOpen opens, walks, reads and checks whatever it is given. Besides panics and hangs it looks
// for contradictions: between Info and Open, between extents and content, and between two ways to
// read. extent is the file that a descriptor may open, whatever it calls it.
func FuzzOpen(f *testing.F) {
	// Small seeds only: the fuzzer spends its time on minimising large ones.
	plain := seed("monolithicSparse", 1, formatstest.Noise(1, sector))
	stream := seed("streamOptimized", 1|1<<16|1<<17, packedGrain(1, deflate(bytes.Repeat([]byte("vmdk"), sector/4))))
	f.Add([]byte(plain), []byte(nil))
	f.Add([]byte(plain.clone().u32(8, 1|4).u32(4*sector, 1)), []byte(nil))          // a zeroed grain
	f.Add([]byte(plain.clone().u32(8, 1|2).u64(48, 3).u64(56, 1<<40)), []byte(nil)) // redundant only
	f.Add([]byte(stream), []byte(nil))
	f.Add([]byte(append(stream.clone()[:3*sector], marker(0, 0)...).u64(56, 1<<64-1).u64(64, 2)), []byte(nil))
	f.Add([]byte(slices.Concat(stream, make(file, sector-8), marker(1, 3), stream[:sector], marker(0, 0)).u64(56, 1<<64-1)), []byte(nil))
	f.Add(describe("twoGbMaxExtentSparse", `RW 3 SPARSE "x"`, "RW 3 ZERO"), []byte(plain))
	f.Add(describe("vmfs", `RW 2 VMFS "x" 1`, "NOACCESS 3 ZERO", `RDONLY 1 FLAT "x"`), formatstest.Noise(3, 3*sector))
	f.Add([]byte("COWD"), []byte("KDMV"))

	f.Fuzz(func(t *testing.T, p, extent []byte) {
		_, err := vmdk.Format().Check(context.Background(), formatstest.NewSource(extent), func(formats.Finding) {})
		formatstest.ExpectClass(t, "check of the extent", err)
		formatstest.Fuzzed{
			Format: vmdk.Format(), Source: func() formats.Source { return formatstest.NewSource(p) },
			Resolver: anyName(extent), File: func(string) []byte { return extent }, Budget: 4 << 20,
		}.Run(t)
	})
}

// seed is a sparse extent of three grains of a sector, the second of which is stored. The table has
// no more than its entries.
func seed(createType string, flags uint32, grain file) file {
	p := header(1, flags, 3).u64(20, 1).u32(44, 2).u64(28, 1).u64(36, 1).u64(56, 3)
	p = append(p, make(file, sector).str(0, "version=1\ncreateType=\""+createType+"\"\n")...)
	p = append(p, grain...)
	p = append(p, make(file, sector).u32(0, 4)...)
	return append(p, make(file, 8).u32(4, 2)...)
}

// anyName is a resolver that opens the same bytes under every name.
type anyName []byte

func (a anyName) Resolve(_ context.Context, r formats.Ref) (formats.Source, formats.Resolver, error) {
	if r.Kind != formats.ExtentOf || r.Name == "" {
		panic("a name that is none of an extent")
	}
	return formatstest.NewSource(a), a, nil
}

func (a anyName) Open(context.Context, formats.Ref) (formats.Image, error) {
	panic("extents are no disks")
}
