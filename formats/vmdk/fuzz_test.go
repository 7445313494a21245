package vmdk_test

import (
	"bytes"
	"context"
	"errors"
	"io"
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
	plain := seed("monolithicSparse", 1, noise(1, sector))
	stream := seed("streamOptimized", 1|1<<16|1<<17, packedGrain(1, deflate(bytes.Repeat([]byte("vmdk"), sector/4))))
	f.Add([]byte(plain), []byte(nil))
	f.Add([]byte(plain.clone().u32(8, 1|4).u32(4*sector, 1)), []byte(nil))          // a zeroed grain
	f.Add([]byte(plain.clone().u32(8, 1|2).u64(48, 3).u64(56, 1<<40)), []byte(nil)) // redundant only
	f.Add([]byte(stream), []byte(nil))
	f.Add([]byte(append(stream.clone()[:3*sector], marker(0, 0)...).u64(56, 1<<64-1).u64(64, 2)), []byte(nil))
	f.Add([]byte(slices.Concat(stream, make(file, sector-8), marker(1, 3), stream[:sector], marker(0, 0)).u64(56, 1<<64-1)), []byte(nil))
	f.Add(describe("twoGbMaxExtentSparse", `RW 3 SPARSE "x"`, "RW 3 ZERO"), []byte(plain))
	f.Add(describe("vmfs", `RW 2 VMFS "x" 1`, "NOACCESS 3 ZERO", `RDONLY 1 FLAT "x"`), noise(3, 3*sector))
	f.Add([]byte("COWD"), []byte("KDMV"))

	f.Fuzz(func(t *testing.T, p, extent []byte) {
		ctx := context.Background()
		format := vmdk.Format()
		if _, err := format.Probe(formatstest.NewSource(p)); err != nil {
			t.Fatalf("probe: %v", err)
		}
		in, err := format.Info(ctx, formatstest.NewSource(p))
		if err != nil {
			t.Fatalf("info: %v", err)
		}
		for _, q := range [][]byte{p, extent} {
			if _, err := format.Check(ctx, formatstest.NewSource(q), func(formats.Finding) {}); err != nil {
				checkClass(t, err)
			}
		}
		img, err := format.Open(ctx, formatstest.NewSource(p), anyName(extent))
		if err != nil {
			checkClass(t, err)
			return
		}
		defer img.Close()
		if in.Problem != nil || in.VirtualSize != img.Size() {
			t.Fatalf("info says %d bytes, problem %v; it opened with %d", in.VirtualSize, in.Problem, img.Size())
		}
		// A walk is bounded by the file, not by the virtual size; reading is bounded here.
		var pos int64
		budget := int64(4 << 20)
		for e, err := range img.Extents(ctx) {
			if err != nil {
				checkClass(t, err)
				return
			}
			if e.Offset != pos || e.Length <= 0 || e.Length > img.Size()-pos {
				t.Fatalf("run %+v, expected one at %d of %d", e, pos, img.Size())
			}
			pos += e.Length
			n := min(e.Length, budget, 1<<20)
			budget -= n
			if n > 0 {
				file := p
				if e.File != "" {
					file = extent
				}
				checkRun(t, img, file, e, n)
			}
		}
		if pos != img.Size() {
			t.Fatalf("runs cover %d of %d bytes", pos, img.Size())
		}
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

// checkRun reads the first n bytes of a run in one piece and in three.
func checkRun(t *testing.T, img formats.Image, file []byte, e formats.Extent, n int64) {
	whole := bytes.Repeat([]byte{0xdb}, int(n))
	k, err := img.ReadAt(whole, e.Offset)
	if err != nil && err != io.EOF {
		if !e.Compressed {
			t.Fatalf("%+v can't be read: %v", e, err)
		}
		checkClass(t, err)
		return
	}
	if int64(k) != n {
		t.Fatalf("%+v: %d of %d bytes", e, k, n)
	}
	if e.Zero && !bytes.Equal(whole, make([]byte, n)) {
		t.Fatalf("%+v is not zero", e)
	}
	if e.HostOffset >= 0 && !bytes.Equal(whole, file[e.HostOffset:][:n]) {
		t.Fatalf("%+v does not lie there", e)
	}
	parts := make([]byte, n)
	for _, r := range [][2]int64{{n / 3, n / 2}, {0, n / 3}, {n / 2, n}} {
		if k, err := img.ReadAt(parts[r[0]:r[1]], e.Offset+r[0]); int64(k) != r[1]-r[0] || err != nil && err != io.EOF {
			t.Fatalf("%+v, bytes %v: %d, %v", e, r, k, err)
		}
	}
	if !bytes.Equal(whole, parts) {
		t.Fatalf("%+v reads differently in parts", e)
	}
}

func checkClass(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, formats.ErrCorrupt) && !errors.Is(err, formats.ErrUnsupported) && !errors.Is(err, formats.ErrNotAllowed) {
		t.Fatalf("an error without a class: %v", err)
	}
}
