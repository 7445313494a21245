package vhd_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"imgferry/bitmap"
	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/vhd"
	"imgferry/source"
)

var qemu = formatstest.QEMU{
	Formats: []formats.Format{vhd.Format()},
	Source:  func(path string) (formats.Source, error) { return source.Open(path) },
}

func Example() {
	disk := spec{size: 3 * 4096, content: bytes.Repeat([]byte("vhd "), 3*1024), stored: []int{2, 0}}
	img, err := vhd.Format().Open(context.Background(), formatstest.NewSource(disk.make()), nil)
	if err != nil {
		panic(err)
	}
	defer img.Close()
	for e, err := range img.Extents(context.Background()) {
		fmt.Println(e.Offset, e.Length, e.Zero, e.HostOffset, err)
	}
	// Output:
	// 0 4096 false 7168 <nil>
	// 4096 4096 true -1 <nil>
	// 8192 4096 false 2560 <nil>
}

func TestBuilt(t *testing.T) {
	var cases []formatstest.Case
	for name, s := range map[string]spec{
		"tiny":                  tiny(),
		"fixed":                 tinyFixed(),
		"fixed, 511":            {kind: 2, size: 5120, content: formatstest.Noise(3, 5120), old: true},
		"dynamic, 511":          {size: 8192, content: formatstest.Noise(3, 8192), stored: []int{1}, old: true},
		"odd size":              {kind: 2, size: 1001, content: formatstest.Noise(4, 1001)},
		"odd size, dynamic":     {size: 5001, content: formatstest.Noise(4, 8192), stored: []int{0, 1}},
		"blocks of 512":         {size: 5120, block: 512, content: formatstest.Noise(5, 5120), stored: []int{9, 8, 1, 2, 5}},
		"bitmap of two sectors": {size: 5 << 20, block: 4 << 20, content: formatstest.Noise(6, 8<<20), stored: []int{1, 0}},
		"longer table":          {size: 8192, content: formatstest.Noise(7, 8192), stored: []int{1}, entries: 400},
		"nothing stored":        {size: 1 << 20},
		"no copy":               {size: 8192, content: formatstest.Noise(8, 8192), stored: []int{0}, noCopy: true},
	} {
		p := s.make()
		if s.entries > 0 { // what lies beyond the disk is nobody's
			p.u32(tableAt+500, 7)
		}
		cases = append(cases, formatstest.Case{Name: name, Image: p, Size: s.size, Content: bytes.NewReader(s.expected()), Faulty: s.noCopy})
	}
	damaged := tiny().make()
	copy(damaged[tinyEnd:], "conectiX")
	for name, p := range map[string]image{"copy counts": damaged, "footer lost": damaged[:tinyEnd], "copy damaged": tiny().make().u8(100, 1)} {
		cases = append(cases, formatstest.Case{Name: name, Image: p, Size: tiny().size, Content: bytes.NewReader(tiny().expected()), Faulty: true})
	}
	formatstest.Run(t, vhd.Format(), cases)
}

// TestDisk2vhd: every block is stored, all of them zeros; and the geometry says less than the size.
func TestDisk2vhd(t *testing.T) {
	path := formatstest.Unpack(t, "testdata/d2v-zerofilled.vhd.bz2")
	img := qemu.Open(t, path)
	if img.Size() != 263454720 {
		t.Errorf("size %d", img.Size())
	}
	p := make([]byte, 1<<20)
	for off := int64(0); off < img.Size(); off += int64(len(p)) {
		n, err := img.ReadAt(p, off)
		if err != nil && err != io.EOF || !bitmap.IsZero(p[:n]) {
			t.Fatalf("%d bytes at %d: %v", n, off, err)
		}
	}
	qemu.SameMap(t, path)
	qemu.SameInfo(t, path)
}

func TestHyperV(t *testing.T) {
	path := formatstest.Unpack(t, "testdata/hyperv2012r2-dynamic.vhd.bz2")
	formatstest.Run(t, vhd.Format(), []formatstest.Case{{Name: "suite", Path: path, Size: 136365211648}})
	qemu.SameMap(t, path)
	qemu.SameInfo(t, path)
}

func recipes() []formatstest.Recipe {
	disk := func(size int64) []formatstest.Piece {
		return []formatstest.Piece{{Offset: 0, Data: formatstest.Noise(1, 40_000)}, {Offset: size / 2, Data: formatstest.Noise(2, 300_000)}, {Offset: size - 5000, Data: formatstest.Noise(3, 5000)}}
	}
	// Blocks that lie in the file in another order than on the disk.
	worn := []string{"write -P 7 9M 100k", "write -P 9 5M 1k", "write -P 1 13000k 3M", "write -z 9M 64k"}
	var list []formatstest.Recipe
	for _, o := range []string{"subformat=dynamic", "subformat=fixed", "subformat=dynamic,force_size=on", "subformat=fixed,force_size=on"} {
		for _, size := range []int64{1 << 20, 3<<20 + 512*77, 17 << 20} {
			list = append(list, formatstest.Recipe{Size: size, Pieces: disk(size), Options: o})
		}
		list = append(list, formatstest.Recipe{Size: 20 << 20, Pieces: disk(20 << 20), Options: o, IO: worn}, formatstest.Recipe{Size: 16 << 20, Options: o, IO: worn})
	}
	return append(list,
		formatstest.Recipe{Size: 200 << 30, Pieces: []formatstest.Piece{{Offset: 140 << 30, Data: formatstest.Noise(4, 70_000)}}, Options: "subformat=dynamic"},
		formatstest.Recipe{Size: 200 << 30, Pieces: []formatstest.Piece{{Offset: 140 << 30, Data: formatstest.Noise(4, 70_000)}}, Options: "subformat=dynamic,force_size=on"},
		formatstest.Recipe{Size: 2040 << 30, Pieces: []formatstest.Piece{{Offset: 2039 << 30, Data: formatstest.Noise(4, 70_000)}}, Options: "subformat=dynamic,force_size=on"})
}

// TestQemuImages reads what qemu-img writes, and compares content and map with what qemu-img reads.
func TestQemuImages(t *testing.T) {
	formatstest.NeedTool(t, "qemu-img")
	formatstest.NeedTool(t, "qemu-io")
	for i, r := range recipes() {
		t.Run(fmt.Sprint(i, " ", r.Options, " ", r.Size), func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "disk.vhd")
			qemu.Make(t, path, r)
			if r.Size < 4<<20 || r.Size > 1<<30 { // the suite reads each disk many times
				want := qemu.OpenSource(t, qemu.Content(t, path))
				if want.Size() < r.Size {
					t.Fatalf("qemu-img made %d bytes of %d", want.Size(), r.Size)
				}
				formatstest.Run(t, vhd.Format(), []formatstest.Case{{Name: "suite", Path: path, Size: want.Size(), Content: want}})
			} else {
				qemu.SameContent(t, path)
			}
			qemu.SameMap(t, path)
			qemu.SameInfo(t, path)
			if list, sums := qemu.Check(t, path); len(list) > 0 || sums.End != qemu.OpenSource(t, path).Size() {
				t.Errorf("check: %v, %+v", list, sums)
			}
		})
	}
}

// TestSizes: which of the two sizes counts depends on the creator, and QEMU agrees.
func TestSizes(t *testing.T) {
	const geometry, current = 4 * 17 * 100 * 512, 5_000_192
	for _, c := range []struct {
		creator string
		chs     [3]int
		want    int64
		qemu    bool // version 7 agrees
	}{
		{"vpc ", [3]int{100, 4, 17}, geometry, true},
		{"qemu", [3]int{100, 4, 17}, geometry, true},
		{"vbox", [3]int{100, 4, 17}, geometry, true},
		{"\x00\x00\x00\x00", [3]int{100, 4, 17}, geometry, true},
		{"win\x00", [3]int{100, 4, 17}, geometry, true},
		{"win ", [3]int{100, 4, 17}, current, true},
		{"d2v ", [3]int{100, 4, 17}, current, true},
		{"tap\x00", [3]int{100, 4, 17}, current, true},
		{"CTXS", [3]int{100, 4, 17}, current, true},
		{"qem2", [3]int{100, 4, 17}, current, true},
		{"wa\x00\x00", [3]int{100, 4, 17}, current, false}, // QEMU 10 knows Azure's
		{"vpc ", [3]int{65535, 16, 255}, current, true},
		{"vpc ", [3]int{65534, 16, 255}, 65534 * 16 * 255 * 512, false}, // larger than the table
		{"vpc ", [3]int{}, current, false},                              // an empty disk for QEMU
	} {
		p := spec{creator: c.creator, chs: c.chs, size: current}.make()
		in, err := vhd.Format().Info(context.Background(), formatstest.NewSource(p))
		if err != nil || in.VirtualSize != c.want {
			t.Errorf("%q %v: %d, %v; want %d", c.creator, c.chs, in.VirtualSize, err, c.want)
		}
		if !c.qemu {
			continue
		}
		path := filepath.Join(t.TempDir(), "disk.vhd")
		if err := os.WriteFile(path, p, 0o600); err != nil {
			t.Fatal(err)
		}
		qemu.SameInfo(t, path)
	}
}

// TestBitmapIgnored: QEMU too reads a block whose bitmap says that nothing is there.
func TestBitmapIgnored(t *testing.T) {
	p := tiny().make()
	clear(p[tinyData:][:512])
	got, err := use(p)
	if err != nil || !bytes.Equal(got, tiny().expected()) {
		t.Errorf("%v, or other content", err)
	}
	path := filepath.Join(t.TempDir(), "disk.vhd")
	if err := os.WriteFile(path, p, 0o600); err != nil {
		t.Fatal(err)
	}
	formatstest.Tool(t, "qemu-img", "convert", "-f", "vpc", "-O", "raw", path, path+".raw")
	if want, err := os.ReadFile(path + ".raw"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v, or qemu-img reads other content", err)
	}
}

// TestEmptyTerabyte: a run of blocks that are not stored is one extent.
func TestEmptyTerabyte(t *testing.T) {
	img, err := vhd.Format().Open(context.Background(), formatstest.NewSource(spec{size: 1 << 40, block: 2 << 20}.make()), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	n := 0
	for e, err := range img.Extents(context.Background()) {
		if err != nil || e != (formats.Extent{Length: 1 << 40, Zero: true, HostOffset: -1}) {
			t.Errorf("%+v, %v", e, err)
		}
		n++
	}
	if n != 1 {
		t.Errorf("%d extents", n)
	}
}

func TestReadsDoNotAllocate(t *testing.T) {
	img, err := vhd.Format().Open(context.Background(), formatstest.NewSource(tiny().make()), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	p := make([]byte, 10_000)
	if n := testing.AllocsPerRun(100, func() { img.ReadAt(p, 100) }); n > 0 {
		t.Errorf("%v allocations a read", n)
	}
}
