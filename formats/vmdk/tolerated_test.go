package vmdk_test

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"
	"testing"

	"imgferry/formats/formatstest"
	"imgferry/formats/vmdk"
)

// unordered is a stream whose grains lie in the file in descending order, with gaps between them.
func unordered(c content, capacity int64) stream {
	ordered := buildStream(3, capacity, c)
	var numbers []int64
	for n := range c {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	slices.Reverse(numbers)
	b := stream{file: ordered.clone()[:buildGrain*sector], grains: map[int64]int64{}}
	gt := make(file, tables(capacity)*sector)
	for _, n := range numbers {
		b.grains[n] = int64(len(b.file))
		gt.u32(n/buildGTEs*sector+n%buildGTEs*4, b.sectors())
		b.file = append(b.file, packedGrain(uint64(n*buildGrain), deflate(c[n]))...)
		b.file = append(b.file, make(file, 2*sector)...)
	}
	first := b.sectors()
	b.file = append(b.file, gt...)
	gd := make(file, sector)
	for i := range tables(capacity) {
		gd.u32(i*4, first+uint32(i))
	}
	b.u64(56, uint64(b.sectors()))
	b.file = append(b.file, gd...)
	return b
}

// TestTolerated are oddities that a reader must not stumble over.
func TestTolerated(t *testing.T) {
	c := sample(3 * buildGTEs)
	want := make([]byte, evenSectors*sector)
	for _, p := range c.pieces() {
		copy(want[p.Offset:], p.Data)
	}
	// changed is want with grains taken out or replaced.
	changed := func(from int64, with ...[]byte) []byte {
		p := bytes.Clone(want)
		copy(p[from*grainLen:], bytes.Join(with, nil))
		return p
	}
	grain := func(n int64) []byte { return want[n*grainLen:][:grainLen] }
	zeros := make([]byte, grainLen)

	p := tinyPlain()
	swapped := tinyPlain()
	swapped.entry(0, uint32(p.grains/sector)+buildGrain)
	swapped.entry(3, uint32(p.grains/sector))
	twice := tinyPlain()
	twice.entry(1, uint32(p.grains/sector))
	noTable := tinyPlain().u32(p.gd, 0).u32(p.rgd, 0)
	single := formatstest.Noise(1, grainLen)
	padded := append(deflate(single), make([]byte, 700)...)
	beyond := buildPlain(1, oddSectors, cutSample(), nil, selfDescriptor("monolithicSparse", oddSectors))
	beyond.entry(2*buildGTEs+5, 1<<31)
	odd := make([]byte, oddSectors*sector)
	for _, p := range cutSample().pieces() {
		copy(odd[p.Offset:], p.Data)
	}
	descriptor := func(s string) file {
		return buildPlain(1, evenSectors, c, nil, strings.Replace(selfDescriptor("monolithicSparse", evenSectors), "CID=12345678\nparentCID=ffffffff\n", s, 1)).file
	}
	for _, x := range []struct {
		name  string
		image []byte
		want  []byte
	}{
		{"as it is", p.file, want},
		{"grains swapped", swapped.file, changed(0, grain(3), grain(1), grain(2), grain(0))},
		{"the same grain twice", twice.file, changed(1, grain(0))},
		{"no table", noTable, changed(0, slices.Repeat([][]byte{zeros}, buildGTEs)...)},
		{"unknown flags that may be ignored", tinyPlain().u32(8, 3|1<<9), want},
		{"no newline check", tinyPlain().u32(8, 2).str(73, "\n \n\n"), want},
		{"entries beyond the capacity", beyond.file, odd},
		{"file ends with the disk", beyond.cut((buildGrain - 3) * sector), odd},
		{"no CIDs", descriptor(""), want},
		{"a parent hint of nothing", descriptor("CID=1\nparentCID=ffffffff\nparentFileNameHint=\"\"\n"), want},
		{"spaces and unknown keys", descriptor(" CID = 1\t\n\tparentCID=ffffffff \nisNativeSnapshot=\"no\"\nddb.x=\"=\"\n"), want},
		{"stream without a descriptor", tinyStream().u64(28, 0), want},
		{"stream, unordered", unordered(c, evenSectors).file, want},
		{"stream, compressed size with padding", oneGrain(padded), single},
		{"stream, last grain whole", cutStream(deflate(single)), single[:3*sector]},
		{"stream, last grain cut", cutStream(deflate(single[:3*sector])), single[:3*sector]},
		{"stream, last grain half", cutStream(deflate(single[:5*sector])), single[:3*sector]},
	} {
		t.Run(x.name, func(t *testing.T) {
			got, err := formatstest.ReadAll(vmdk.Format(), formatstest.NewSource(x.image), nil)
			if err != nil || !bytes.Equal(got, x.want) {
				t.Errorf("%v; equal content: %v", err, bytes.Equal(got, x.want))
			}
			in, err := vmdk.Format().Info(context.Background(), formatstest.NewSource(x.image))
			if err != nil || in.Problem != nil || in.VirtualSize != int64(len(x.want)) {
				t.Errorf("info: %+v, %v", in, err)
			}
		})
	}
}

// TestDecodeInAnyPieces: what a read returns doesn't depend on how grains are batched.
func TestDecodeInAnyPieces(t *testing.T) {
	c := content{}
	for i := range int64(3 * buildGTEs) {
		if i%7 != 3 {
			c[i] = formatstest.Text(uint64(i), grainLen)
		}
	}
	for name, p := range map[string]stream{"ordered": buildStream(3, evenSectors, c), "unordered": unordered(c, evenSectors)} {
		img, err := vmdk.Format().Open(context.Background(), formatstest.NewSource(p.file), nil)
		if err != nil {
			t.Fatal(err)
		}
		want := make([]byte, evenSectors*sector)
		for _, q := range c.pieces() {
			copy(want[q.Offset:], q.Data)
		}
		for _, step := range []int64{512, grainLen, 3*grainLen + 100, 5 * grainLen, int64(len(want))} {
			for _, from := range []int64{0, 1, grainLen / 2, grainLen} {
				for off := from; off < int64(len(want)); off += step {
					q := make([]byte, min(step, int64(len(want))-off))
					if n, err := img.ReadAt(q, off); n != len(q) || err != nil && err != io.EOF || !bytes.Equal(q, want[off:][:n]) {
						t.Fatalf("%s: %d bytes at %d: %d, %v", name, step, off, n, err)
					}
				}
			}
		}
		img.Close()
	}
}
