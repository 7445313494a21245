package vhdx_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/vhdx"
	"imgferry/source"
)

var qemu = formatstest.QEMU{
	Formats: []formats.Format{vhdx.Format()},
	Source:  func(path string) (formats.Source, error) { return source.Open(path) },
}

func Example() {
	disk := spec{size: 3 * mib, content: formatstest.Sparse(formatstest.Piece{Data: []byte("first block")}), stored: []int{2, 0}}
	img, err := vhdx.Format().Open(context.Background(), formatstest.NewSource(disk.whole()), nil)
	if err != nil {
		panic(err)
	}
	defer img.Close()
	for e, err := range img.Extents(context.Background()) {
		fmt.Println(e.Offset, e.Length, e.Zero, e.HostOffset, err)
	}
	// Output:
	// 0 1048576 false 5242880 <nil>
	// 1048576 1048576 true -1 <nil>
	// 2097152 1048576 false 4194304 <nil>
}

func TestBuilt(t *testing.T) {
	fixed := tiny()
	fixed.flags, fixed.stored = 1, []int{0, 1, 2, 3, 4}
	sectors := tiny()
	sectors.sector, sectors.size = 4096, 4*mib+8192
	states := tiny()
	states.stored, states.states = []int{4}, map[int]uint64{0: 1 | 7<<20, 1: 2 | 4<<20, 2: 3 | 4<<20, 3: 5}
	larger := spec{size: 2*mib + 512, block: 2 * mib, stored: []int{1, 0}, content: tiny().content}
	var cases []formatstest.Case
	for name, s := range map[string]spec{
		"dynamic": tiny(), "fixed": fixed, "sectors of 4096": sectors, "every state": states, "blocks of 2 MiB": larger,
	} {
		cases = append(cases, formatstest.Case{Name: name, Image: s.whole(), Size: s.size, Content: s.expected()})
	}
	formatstest.Run(t, vhdx.Format(), cases)
}

// TestTolerated are oddities that a reader must not stumble over, and damage for which there is a
// second copy.
func TestTolerated(t *testing.T) {
	want := make([]byte, tiny().size)
	tiny().expected().ReadAt(want, 0)
	for _, c := range []struct {
		name   string
		change func(image) image
		found  int // by Check
	}{
		{"last block cut in the file", func(p image) image { return p[:blocksAt+2*mib+6*512] }, 0},
		{"first header only", func(p image) image { return p.u8(header2+8, 99) }, 1},
		{"second header only", func(p image) image { return p.u8(header1+100, 99) }, 1},
		{"first header newer", func(p image) image { return p.u64(header1+8, 1<<63).u16(header2+66, 9).seal() }, 0},
		{"same headers", func(p image) image { return p.u64(header2+8, 7).seal() }, 0},
		{"first region table only", func(p image) image { return p.u8(regions2+20, 99) }, 1},
		{"second region table only", func(p image) image { return p.u8(regions1+20, 99) }, 1},
		{"no log", func(p image) image { return p.u32(header1+68, 0).u32(header2+68, 0).seal() }, 0},
		{"unknown optional region", func(p image) image {
			for _, at := range []int{regions1, regions2} {
				p.u32(at+8, 3).str(at+80, "an unknown guid!").u64(at+96, 1<<40).u32(at+104, mib)
			}
			return p.seal()
		}, 0},
		{"unknown and user items", func(p image) image {
			const at = metadataAt + 32 + 32*5
			p.u16(metadataAt+10, 7).str(at, "an unknown guid!").u32(at+16, 70<<10).u32(at+20, 3)
			return p.str(at+32, diskSize).u32(at+56, 1)
		}, 0},
	} {
		p := c.change(tiny().whole())
		img, err := vhdx.Format().Open(context.Background(), formatstest.NewSource(p), nil)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := make([]byte, len(want))
		if _, err := img.ReadAt(got, 0); err != nil && err != io.EOF || !bytes.Equal(got, want) {
			t.Errorf("%s: %v, or other content", c.name, err)
		}
		img.Close()
		if list, _, err := findings(formatstest.NewSource(p)); len(list) != c.found || err != nil {
			t.Errorf("%s: check: %v, %v", c.name, list, err)
		}
	}
}

// TestChunks: the entries of sector bitmaps lie between those of the blocks.
func TestChunks(t *testing.T) {
	for _, sector := range []uint32{512, 4096} {
		const block = 256 * mib
		ratio := int64(sector) << 23 / block
		s := spec{size: 2*ratio*block + mib, block: block, sector: sector, stored: []int{int(2 * ratio)}}
		s.content = formatstest.Sparse(formatstest.Piece{Offset: 2 * ratio * block, Data: formatstest.Noise(1, mib)})
		p, blocks, size := s.make()
		// The bitmaps' own entries say nothing about the disk.
		p.u64(int(batAt+8*ratio), 6|1<<40)
		src := formatstest.NewSparseSource(size, append(blocks, formatstest.Piece{Data: p})...)
		img, err := vhdx.Format().Open(context.Background(), src, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer img.Close()
		got := formatstest.Extents(t, img)
		if len(got) != 2 || got[0] != (formats.Extent{Length: 2 * ratio * block, Zero: true, HostOffset: -1}) ||
			got[1] != (formats.Extent{Offset: 2 * ratio * block, Length: mib, HostOffset: blocksAt}) {
			t.Errorf("%+v", got)
		}
		if list, c, err := findings(src); err != nil || c.Allocated != 1 || len(list) != 1 || !list[0].Leak {
			t.Errorf("check: %+v, %+v, %v", list, c, err)
		}
	}
}

// TestLargeTable: a table of 64 MiB, much more than is cached, for 8 TiB of the smallest blocks.
func TestLargeTable(t *testing.T) {
	const entries = 8<<20 + 8<<20/4096 - 1
	p, _, _ := spec{size: 8 << 40}.make()
	for _, at := range []int{regions1, regions2} {
		p.u32(at+40, 65*mib)
	}
	last := image(make([]byte, 8)).u64(0, 600*mib|6)
	src := formatstest.NewSparseSource(601*mib, formatstest.Piece{Data: p.seal()}, formatstest.Piece{Offset: batAt + (entries-1)*8, Data: last})
	img, err := vhdx.Format().Open(context.Background(), src, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if got := formatstest.Extents(t, img); len(got) != 2 || got[1] != (formats.Extent{Offset: 8<<40 - mib, Length: mib, HostOffset: 600 * mib}) {
		t.Errorf("%+v", got)
	}
}

// TestEmptyTerabyte: blocks that are not present are one extent.
func TestEmptyTerabyte(t *testing.T) {
	p, _, size := spec{size: 1 << 40, block: 16 * mib}.make()
	img, err := vhdx.Format().Open(context.Background(), formatstest.NewSparseSource(size, formatstest.Piece{Data: p}), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if got := formatstest.Extents(t, img); len(got) != 1 || got[0] != (formats.Extent{Length: 1 << 40, Zero: true, HostOffset: -1}) {
		t.Errorf("%+v", got)
	}
}

func TestReadsDoNotAllocate(t *testing.T) {
	img, err := vhdx.Format().Open(context.Background(), formatstest.NewSource(tiny().whole()), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	p := make([]byte, 3*mib)
	if n := testing.AllocsPerRun(100, func() { img.ReadAt(p, 100) }); n > 0 {
		t.Errorf("%v allocations a read", n)
	}
}

// TestSample reads an image that Hyper-V made, with data that qemu-io wrote.
func TestSample(t *testing.T) {
	path := formatstest.Unpack(t, "testdata/iotest-dynamic-1G.vhdx.bz2")
	compare(t, path, 1<<30)
	if list, _, err := findings(qemu.OpenSource(t, path)); len(list) > 0 || err != nil {
		t.Errorf("check: %v, %v", list, err)
	}
}

// compare reads the data of the image at path, and compares content and header with what qemu-img
// reads. What is zero by our extents must be zero for qemu-img, whose map knows no zeros at all.
func compare(t *testing.T, path string, size int64) {
	t.Helper()
	want := qemu.OpenSource(t, qemu.Content(t, path))
	img := qemu.Open(t, path)
	if img.Size() != size || want.Size() != size {
		t.Errorf("size %d, for qemu-img %d, want %d", img.Size(), want.Size(), size)
	}
	p, q := make([]byte, 4<<20), make([]byte, 4<<20)
	for _, e := range formatstest.Extents(t, img) {
		for off := e.Offset; off < e.Offset+e.Length; off += int64(len(p)) {
			if start, _, err := want.(formats.HoleFinder).NextData(off); err == nil && e.Zero && start > off {
				off = start &^ 511 // qemu-img left a hole: zeros, and nothing to read
			}
			n := min(int64(len(p)), e.Offset+e.Length-off)
			if n <= 0 {
				break
			}
			if _, err := img.ReadAt(p[:n], off); err != nil && err != io.EOF {
				t.Fatal(err)
			}
			if err := formats.ReadFull(want, q[:n], off); err != nil || !bytes.Equal(p[:n], q[:n]) {
				t.Fatalf("%+v: other content at %d, %v", e, off, err)
			}
		}
	}
	qemu.SameInfo(t, path)
}

func recipes() []formatstest.Recipe {
	disk := func(size int64) []formatstest.Piece {
		return []formatstest.Piece{{Offset: 0, Data: formatstest.Noise(1, 40_000)}, {Offset: size / 2, Data: formatstest.Noise(2, 300_000)}, {Offset: size - 5120, Data: formatstest.Noise(3, 5000)}}
	}
	// Blocks that lie in the file in another order than on the disk.
	worn := []string{"write -P 7 9M 100k", "write -P 9 5M 1k", "write -P 1 13000k 3M", "write -z 9M 64k"}
	var list []formatstest.Recipe
	for _, sub := range []string{"dynamic", "fixed"} {
		for _, o := range []string{"", ",block_size=1M", ",block_size=4M", ",block_size=1M,block_state_zero=off", ",log_size=3M"} {
			if sub == "dynamic" && o == ",block_state_zero=off" {
				continue // qemu-img says not to convert so
			}
			o = "subformat=" + sub + o
			list = append(list,
				formatstest.Recipe{Size: 3<<20 + 512*77, Pieces: disk(3<<20 + 512*77), Options: o},
				formatstest.Recipe{Size: 20 << 20, Pieces: disk(20 << 20), Options: o, IO: worn})
		}
	}
	// The first chunk ends at 4 GiB.
	return append(list, formatstest.Recipe{Size: 4<<30 + 20<<20, Pieces: []formatstest.Piece{
		{Offset: 4<<30 - 70_000, Data: formatstest.Noise(4, 140_000)}, {Offset: 4<<30 + 3<<20 + 512, Data: formatstest.Noise(4, 70_000)},
	}, Options: "block_size=1M"})
}

// TestQemuImages reads what qemu-img writes, and compares content with what qemu-img reads.
func TestQemuImages(t *testing.T) {
	formatstest.NeedTool(t, "qemu-img")
	formatstest.NeedTool(t, "qemu-io")
	for i, r := range recipes() {
		t.Run(fmt.Sprint(i, " ", r.Options, " ", r.Size), func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "disk.vhdx")
			qemu.Make(t, path, r)
			compare(t, path, r.Size)
			compareCheck(t, path, true)
			if i%5 == 0 {
				want := qemu.OpenSource(t, path+".content")
				formatstest.Run(t, vhdx.Format(), []formatstest.Case{{Name: "suite", Path: path, Size: r.Size, Content: want}})
			}
		})
	}
}

// compareCheck compares with the verdict of qemu-img check.
func compareCheck(t *testing.T, path string, good bool) {
	t.Helper()
	formatstest.NeedTool(t, "qemu-img")
	err := exec.Command("qemu-img", "check", "-f", "vhdx", path).Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	list, _, checkErr := findings(qemu.OpenSource(t, path))
	if ours := checkErr == nil && len(list) == 0; ours != good || (err == nil) != good {
		t.Errorf("check: %v, %v; qemu-img: %v; want good: %v", list, checkErr, err, good)
	}
}
