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
	one := content{1: formatstest.Noise(4, grainLen)}
	f.Add(describe("vmfsSparse", `RW 24 VMFSSPARSE "x"`), []byte(buildCOWD(24, one).file))
	f.Add(describe("seSparse", `RW 24 SESPARSE "x"`), []byte(buildSE(24, one, map[int64]uint64{0: 2}).file))
	f.Add(describeChild("seSparse", 1, 0x12345678, "parent", `RW 24 SESPARSE "x"`), []byte(buildSE(24, content{}, nil).file))
	f.Add(describeChild("twoGbMaxExtentSparse", 1, 0x12345678, "parent", `RW 3 SPARSE "x"`, "RW 21 ZERO"), []byte(plain))

	f.Fuzz(func(t *testing.T, p, extent []byte) {
		_, err := vmdk.Format().Check(context.Background(), formatstest.NewSource(extent), func(formats.Finding) {})
		formatstest.ExpectClass(t, "check of the extent", err)
		formatstest.Fuzzed{
			Format: vmdk.Format(), Source: func() formats.Source { return formatstest.NewSource(p) },
			Resolver: anyName(extent), File: fileOf(p, extent), Budget: 4 << 20,
		}.Run(t)
	})
}

// fileOf returns what anyName opens for the disk p: its parent's name is not also that of an extent.
func fileOf(p, extent []byte) func(string) []byte {
	in, err := vmdk.Format().Info(context.Background(), formatstest.NewSource(p))
	if err != nil || len(in.Refs) == 0 || in.Refs[len(in.Refs)-1].Kind != formats.Parent {
		return func(string) []byte { return extent }
	}
	return nil
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

// anyName is a resolver that opens the same bytes as every extent, and a disk of 24 sectors as every parent.
type anyName []byte

// fuzzParent has the CID 12345678, as all descriptors here.
var fuzzParent = buildPlain(1, 24, content{0: formatstest.Noise(5, grainLen)}, nil, selfDescriptor("monolithicSparse", 24)).file

func (a anyName) Resolve(_ context.Context, r formats.Ref) (formats.Source, formats.Resolver, error) {
	switch {
	case r.Name == "":
		panic("an empty name")
	case r.Kind == formats.ExtentOf:
		return formatstest.NewSource(a), a, nil
	case r.Kind == formats.Parent:
		return formatstest.NewSource(fuzzParent), nil, nil
	}
	panic("a name that is none of an extent or a parent")
}

func (a anyName) Open(context.Context, formats.Ref) (formats.Image, error) {
	panic("extents are no disks")
}
