package vmdk_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/vmdk"
)

// forwardFormat is VMDK whose disks are opened to be read front to back.
func forwardFormat() formats.Format {
	f := vmdk.Format()
	f.Open = func(ctx context.Context, src formats.Source, _ formats.Resolver) (formats.Image, error) {
		return vmdk.OpenForward(ctx, src)
	}
	return f
}

// inFront moves the directory and the tables of a stream before its grains, as QEMU does.
func inFront(capacity int64, c content) file {
	b := buildPlain(3, capacity, nil, nil, selfDescriptor("streamOptimized", capacity))
	b.u32(8, 3|1<<16|1<<17).u16(77, 1)
	for i := range tables(capacity) * buildGTEs {
		if p, ok := c[i]; ok {
			b.entry(i, b.sectors())
			b.file = append(b.file, packedGrain(uint64(i*buildGrain), deflate(p))...)
		}
	}
	return b.file
}

// TestForward: what is read front to back is the same disk, with the same extents.
func TestForward(t *testing.T) {
	var cases []formatstest.Case
	for _, c := range built() {
		if strings.HasPrefix(c.Name, "stream ") {
			cases = append(cases, c)
		}
	}
	if len(cases) < 9 {
		t.Fatalf("%d streams", len(cases))
	}
	odd := cutSample()
	cases = append(cases, formatstest.Case{Name: "tables in front", Image: inFront(oddSectors, odd), Size: oddSectors * sector, Content: formatstest.Sparse(odd.pieces()...)})
	formatstest.Run(t, forwardFormat(), cases)
}

// tape is a source that notes how often a read goes back by more than 4 MiB, but for its first MiB and its
// last 4.
type tape struct {
	formats.Source
	pos   int64
	backs int
}

func (s *tape) ReadAt(p []byte, off int64) (int, error) {
	end := off + int64(len(p))
	if end > 1<<20 && off < s.Size()-4<<20 {
		if off < s.pos-4<<20 {
			s.backs++
		}
		s.pos = end
	}
	return s.Source.ReadAt(p, off)
}

// TestForwardGoesBackOnce: after the pass for the tables all is read in order.
func TestForwardGoesBackOnce(t *testing.T) {
	const grains = 3072 // a file of 10 MiB
	c := content{}
	for i := range int64(grains) {
		if i%5 != 2 {
			c[i] = formatstest.Noise(uint64(i), grainLen)
		}
	}
	const capacity = grains * buildGrain
	for name, b := range map[string]struct {
		file
		backs int
	}{"VMware": {buildStream(3, capacity, c).file, 1}, "QEMU": {inFront(capacity, c), 0}} {
		src := &tape{Source: formatstest.NewSource(b.file)}
		img, err := vmdk.OpenForward(t.Context(), src)
		if err != nil {
			t.Fatal(name, err)
		}
		for range img.Extents(t.Context()) {
		}
		if _, err := io.Copy(io.Discard, io.NewSectionReader(img, 0, img.Size())); err != nil || src.backs != b.backs {
			t.Errorf("%s: went back %d times, %v", name, src.backs, err)
		}
		img.Close()
	}
}

// TestForwardDoubts: what is not in order, or not whole, is left to Open.
func TestForwardDoubts(t *testing.T) {
	c := sample(3 * buildGTEs)
	good := buildStream(3, evenSectors, c)
	if img, err := vmdk.OpenForward(t.Context(), formatstest.NewSource(good.clone())); err != nil {
		t.Fatal(err)
	} else {
		img.Close()
	}
	front := inFront(evenSectors, c)
	swapped := good.clone() // two grains, and their entries
	swapped.u32(good.gtAt, uint32(good.grains[3]/sector)).u32(good.gtAt+3*4, uint32(good.grains[0]/sector))
	for name, p := range map[string]file{
		"a plain disk":      buildPlain(1, evenSectors, c, nil, selfDescriptor("monolithicSparse", evenSectors)).file,
		"a descriptor":      describe("monolithicFlat", `RW 16 FLAT "x" 0`),
		"nothing":           {},
		"a header":          good.clone()[:sector],
		"a cut stream":      good.clone()[:good.gd],
		"no end":            good.clone().cut(sector),
		"two grains":        swapped,
		"a shared table":    good.clone().u32(good.gd+4, uint32(good.gtAt/sector)),
		"a table elsewhere": good.clone().u32(good.gd, uint32(good.grains[0]/sector)),
		"a lost directory":  good.clone().u64(good.footer+sector+56, 1<<40),
		"a wild marker":     good.clone().u32(good.grains[3]+8, 1<<30),
		"tables at 2^40":    front.clone().u64(56, 1<<40).u64(48, 1<<40),
		"tables of 2^32":    front.clone().u32(44, 1<<32-1),
	} {
		src := formatstest.NewSource(p)
		img, err := vmdk.OpenForward(t.Context(), src)
		if err == nil {
			img.Close()
			if name != "a lost directory" { // its markers say where all is
				t.Errorf("%s: opened", name)
			}
		} else if !errors.Is(err, vmdk.ErrOutOfOrder) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := vmdk.OpenForward(ctx, formatstest.NewSource(good.clone())); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// FuzzForward: what is opened to be read front to back is what Open opens.
func FuzzForward(f *testing.F) {
	c := content{0: formatstest.Text(1, grainLen), 20: formatstest.Text(2, grainLen)}
	f.Add([]byte(buildStream(3, 2*buildGTEs*buildGrain, c).file))
	f.Add([]byte(inFront(2*buildGTEs*buildGrain, c)))
	f.Fuzz(func(t *testing.T, p []byte) {
		img, err := vmdk.OpenForward(t.Context(), formatstest.NewSource(p))
		if err != nil {
			if !errors.Is(err, vmdk.ErrOutOfOrder) {
				t.Fatal(err)
			}
			return
		}
		defer img.Close()
		want, err := vmdk.Format().Open(t.Context(), formatstest.NewSource(p), nil)
		if err != nil || want.Size() != img.Size() {
			t.Fatalf("%d bytes, Open: %v", img.Size(), err)
		}
		defer want.Close()
		a, b := make([]byte, grainLen), make([]byte, grainLen)
		for off := int64(0); off < min(img.Size(), 1<<20); off += grainLen {
			n, err := img.ReadAt(a, off)
			m, wantErr := want.ReadAt(b, off)
			if n != m || (err == nil) != (wantErr == nil) || !bytes.Equal(a[:n], b[:m]) {
				t.Fatalf("at %d: %d bytes, %v; Open: %d, %v", off, n, err, m, wantErr)
			}
		}
	})
}
