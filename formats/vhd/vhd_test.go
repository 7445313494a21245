package vhd_test

import (
	"bytes"
	"compress/bzip2"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgferry/bitmap"
	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/vhd"
	"imgferry/source"
)

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
		"fixed, 511":            {kind: 2, size: 5120, content: noise(3, 5120), old: true},
		"dynamic, 511":          {size: 8192, content: noise(3, 8192), stored: []int{1}, old: true},
		"odd size":              {kind: 2, size: 1001, content: noise(4, 1001)},
		"odd size, dynamic":     {size: 5001, content: noise(4, 8192), stored: []int{0, 1}},
		"blocks of 512":         {size: 5120, block: 512, content: noise(5, 5120), stored: []int{9, 8, 1, 2, 5}},
		"bitmap of two sectors": {size: 5 << 20, block: 4 << 20, content: noise(6, 8<<20), stored: []int{1, 0}},
		"longer table":          {size: 8192, content: noise(7, 8192), stored: []int{1}, entries: 400},
		"nothing stored":        {size: 1 << 20},
		"no copy":               {size: 8192, content: noise(8, 8192), stored: []int{0}, noCopy: true},
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

// sample unpacks a file of testdata, with holes where it has zeros.
func sample(t *testing.T, name string) string {
	t.Helper()
	r, err := os.Open(filepath.Join("testdata", name+".bz2"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	path := filepath.Join(t.TempDir(), name)
	w, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	unpacked := bzip2.NewReader(r)
	p := make([]byte, 64<<10)
	for off := int64(0); ; off += int64(len(p)) {
		n, err := io.ReadFull(unpacked, p)
		if !bitmap.IsZero(p[:n]) {
			if _, err := w.WriteAt(p[:n], off); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Truncate(off + int64(n)); err != nil {
			t.Fatal(err)
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return path
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestDisk2vhd: every block is stored, all of them zeros; and the geometry says less than the size.
func TestDisk2vhd(t *testing.T) {
	path := sample(t, "d2v-zerofilled.vhd")
	img := openFile(t, path)
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
	compareMap(t, path, false)
	compareInfo(t, path)
}

func TestHyperV(t *testing.T) {
	path := sample(t, "hyperv2012r2-dynamic.vhd")
	formatstest.Run(t, vhd.Format(), []formatstest.Case{{Name: "suite", Path: path, Size: 136365211648}})
	compareMap(t, path, false)
	compareInfo(t, path)
}

// recipe is an image made with qemu-img and qemu-io.
type recipe struct {
	size    int64
	pieces  []formatstest.Piece
	options string
	io      []string // qemu-io commands afterwards
}

func (r recipe) make(t testing.TB, path string) {
	t.Helper()
	raw := path + ".raw"
	w, err := os.Create(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Truncate(r.size); err != nil {
		t.Fatal(err)
	}
	for _, p := range r.pieces {
		if _, err := w.WriteAt(p.Data, p.Offset); err != nil {
			t.Fatal(err)
		}
	}
	formatstest.Tool(t, "qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", r.options, raw, path)
	if len(r.io) > 0 {
		args := []string{"-f", "vpc"}
		for _, c := range r.io {
			args = append(args, "-c", c)
		}
		formatstest.Tool(t, "qemu-io", append(args, path)...)
	}
}

func recipes() []recipe {
	disk := func(size int64) []formatstest.Piece {
		return []formatstest.Piece{{Offset: 0, Data: noise(1, 40_000)}, {Offset: size / 2, Data: noise(2, 300_000)}, {Offset: size - 5000, Data: noise(3, 5000)}}
	}
	// Blocks that lie in the file in another order than on the disk.
	worn := []string{"write -P 7 9M 100k", "write -P 9 5M 1k", "write -P 1 13000k 3M", "write -z 9M 64k"}
	var list []recipe
	for _, o := range []string{"subformat=dynamic", "subformat=fixed", "subformat=dynamic,force_size=on", "subformat=fixed,force_size=on"} {
		for _, size := range []int64{1 << 20, 3<<20 + 512*77, 17 << 20} {
			list = append(list, recipe{size: size, pieces: disk(size), options: o})
		}
		list = append(list, recipe{size: 20 << 20, pieces: disk(20 << 20), options: o, io: worn}, recipe{size: 16 << 20, options: o, io: worn})
	}
	return append(list,
		recipe{size: 200 << 30, pieces: []formatstest.Piece{{Offset: 140 << 30, Data: noise(4, 70_000)}}, options: "subformat=dynamic"},
		recipe{size: 200 << 30, pieces: []formatstest.Piece{{Offset: 140 << 30, Data: noise(4, 70_000)}}, options: "subformat=dynamic,force_size=on"},
		recipe{size: 2040 << 30, pieces: []formatstest.Piece{{Offset: 2039 << 30, Data: noise(4, 70_000)}}, options: "subformat=dynamic,force_size=on"})
}

// TestQemuImages reads what qemu-img writes, and compares content and map with what qemu-img reads.
func TestQemuImages(t *testing.T) {
	formatstest.NeedTool(t, "qemu-img")
	formatstest.NeedTool(t, "qemu-io")
	for i, r := range recipes() {
		t.Run(fmt.Sprint(i, " ", r.options, " ", r.size), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk.vhd")
			r.make(t, path)
			formatstest.Tool(t, "qemu-img", "convert", "-f", "vpc", "-O", "raw", path, path+".raw")
			want, err := os.Open(path + ".raw")
			if err != nil {
				t.Fatal(err)
			}
			defer want.Close()
			st, err := want.Stat()
			if err != nil {
				t.Fatal(err)
			}
			if st.Size() < r.size {
				t.Fatalf("qemu-img made %d bytes of %d", st.Size(), r.size)
			}
			if r.size < 4<<20 || r.size > 1<<30 { // the suite reads each disk many times
				formatstest.Run(t, vhd.Format(), []formatstest.Case{{Name: "suite", Path: path, Size: st.Size(), Content: want}})
			} else {
				compareContent(t, path, want, st.Size())
			}
			compareMap(t, path, strings.Contains(r.options, "fixed"))
			compareInfo(t, path)
			p, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if list, c, err := findings(p); len(list) > 0 || err != nil || c.End != int64(len(p)) {
				t.Errorf("check: %v, %+v, %v", list, c, err)
			}
		})
	}
}

// compareContent reads all of the disk at path.
func compareContent(t *testing.T, path string, want io.ReaderAt, size int64) {
	t.Helper()
	img := openFile(t, path)
	p, q := make([]byte, size), make([]byte, size)
	if err := formats.ReadFull(img, p, 0); err != nil || img.Size() != size {
		t.Fatalf("%d bytes, %v; want %d", img.Size(), err, size)
	}
	if err := formats.ReadFull(want, q, 0); err != nil || !bytes.Equal(p, q) {
		t.Errorf("%v, or other content", err)
	}
}

// mapEntry is a line of qemu-img map --output=json.
type mapEntry struct {
	Start, Length       int64
	Depth               int
	Present, Zero, Data bool
	Offset              *int64
}

// compareMap compares our extents with qemu-img's: they must be the same after merging.
func compareMap(t *testing.T, path string, fixed bool) {
	t.Helper()
	var want []mapEntry
	if err := json.Unmarshal(formatstest.Tool(t, "qemu-img", "map", "-f", "vpc", "--output=json", path), &want); err != nil {
		t.Fatal(err)
	}
	var got []mapEntry
	for e, err := range openFile(t, path).Extents(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		m := mapEntry{Start: e.Offset, Length: e.Length, Depth: e.Depth, Present: !e.Absent, Zero: e.Zero, Data: !e.Zero}
		if e.HostOffset >= 0 {
			m.Offset = &e.HostOffset
		}
		got = append(got, m)
	}
	show := func(list []mapEntry) string {
		var b strings.Builder
		for _, m := range list {
			fmt.Fprintf(&b, "%d+%d depth %d present %v zero %v", m.Start, m.Length, m.Depth, m.Present, m.Zero)
			switch {
			case m.Zero && fixed: // QEMU calls a hole in the file stored, and says where: here it is as in a raw file
			case m.Offset != nil:
				fmt.Fprintf(&b, " data %v at %d", m.Data, *m.Offset)
			default:
				fmt.Fprintf(&b, " data %v", m.Data)
			}
			b.WriteString("\n")
		}
		return b.String()
	}
	if g, w := show(got), show(want); g != w {
		t.Errorf("map:\n%sqemu-img:\n%s", g, w)
	}
}

// compareInfo compares with qemu-img info.
func compareInfo(t *testing.T, path string) {
	t.Helper()
	var want struct {
		VirtualSize int64 `json:"virtual-size"`
		ClusterSize int64 `json:"cluster-size"`
	}
	if err := json.Unmarshal(formatstest.Tool(t, "qemu-img", "info", "-f", "vpc", "--output=json", path), &want); err != nil {
		t.Fatal(err)
	}
	src, err := source.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	in, err := vhd.Format().Info(context.Background(), src)
	if err != nil || in.VirtualSize != want.VirtualSize || in.ClusterSize != want.ClusterSize {
		t.Errorf("%+v, %v; qemu-img says %+v", in, err, want)
	}
}

func openFile(t testing.TB, path string) formats.Image {
	t.Helper()
	src, err := source.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	img, err := vhd.Format().Open(context.Background(), src, nil)
	if err != nil {
		src.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	return img
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
		compareInfo(t, path)
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
