package vmdk_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/vmdk"
	"imgferry/source"
)

// text is data that compresses: words in random order. noise doesn't. Both depend on the seed only.
func text(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	words := make([][]byte, 256)
	for i := range words {
		words[i] = noise(seed<<8|uint64(i), 3+r.IntN(60))
	}
	p := make([]byte, 0, n+64)
	for len(p) < n {
		p = append(p, words[r.IntN(len(words))]...)
	}
	return p[:n]
}

func noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 2))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

// directory is a resolver that opens the files of a directory by their plain names.
type directory string

func (d directory) Resolve(_ context.Context, r formats.Ref) (formats.Source, formats.Resolver, error) {
	if r.Kind != formats.ExtentOf || r.Name != filepath.Base(r.Name) {
		return nil, nil, fmt.Errorf("the test doesn't open %+v", r)
	}
	src, err := source.Open(filepath.Join(string(d), r.Name))
	return src, nil, err
}

func (d directory) Open(context.Context, formats.Ref) (formats.Image, error) {
	return nil, fmt.Errorf("extents are not disks")
}

// recipe is an image made with qemu-img and qemu-io.
type recipe struct {
	subformat string
	options   string // more of qemu-img convert -o
	size      int64
	pieces    []formatstest.Piece
	io        []string // qemu-io commands afterwards
	leaks     bool     // QEMU forgets grains that it overwrites with zeros
}

func (r recipe) String() string {
	return fmt.Sprintf("%s %s %d %d", r.subformat, r.options, r.size, len(r.io))
}

// disk is what most recipes hold: runs that compress, that don't, and zeros in between.
func disk(size int64) []formatstest.Piece {
	return []formatstest.Piece{
		{Offset: 0, Data: text(1, int(min(size, 40_000)))},
		{Offset: size / 3, Data: noise(2, int(size/20))},
		{Offset: size/3 + size/20, Data: text(3, int(size/20))},
		{Offset: size - size/100, Data: text(4, int(size/100))},
	}
}

// make writes the image to path.
func (r recipe) make(t testing.TB, path string) {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "raw")
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
	options := "subformat=" + r.subformat
	if r.options != "" {
		options += "," + r.options
	}
	formatstest.Tool(t, "qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", options, raw, path)
	if len(r.io) > 0 {
		args := []string{"-f", "vmdk"}
		for _, c := range r.io {
			args = append(args, "-c", c)
		}
		formatstest.Tool(t, "qemu-io", append(args, path)...)
	}
}

var subformats = []string{"monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"}

// recipes covers the subformats that qemu-img writes, disks that end within a grain, several
// extents, and what a running machine leaves.
func recipes() []recipe {
	var list []recipe
	for _, s := range subformats {
		for _, size := range []int64{512, 65536, 1_000_448, 3<<20 + 512*607} {
			list = append(list, recipe{subformat: s, size: size, pieces: disk(size)})
		}
		list = append(list, recipe{subformat: s, size: 5<<30 + 1024, pieces: []formatstest.Piece{
			{Offset: 0, Data: text(5, 1000)},
			{Offset: 2<<30 - 70_000, Data: noise(6, 140_000)}, // over the border of two extents
			{Offset: 4<<30 - 512, Data: noise(7, 1024)},
			{Offset: 5<<30 + 512, Data: text(8, 512)},
		}})
		if s == "streamOptimized" {
			continue // QEMU can't write to it again
		}
		list = append(list, recipe{subformat: s, size: 3 << 20, pieces: disk(3 << 20),
			io: []string{"write -P 7 100k 200k", "write -P 9 600k 1k", "write -P 11 3071k 512", "write -P 13 2000k 3k"}})
	}
	zeroed := []string{"write -P 7 100k 200k", "write -z 128k 128k", "write -z 1M 512k", "write -P 5 1088k 1k", "write -z 2944k 128k"}
	for _, s := range []string{"monolithicSparse", "twoGbMaxExtentSparse"} {
		list = append(list,
			recipe{subformat: s, options: "zeroed_grain=on", size: 3 << 20, pieces: disk(3 << 20), io: zeroed, leaks: true},
			recipe{subformat: s, options: "zeroed_grain=on,compat6=on", size: 1_000_448, pieces: disk(1_000_448)})
	}
	return list
}

// TestQemuImages reads what qemu-img writes, and compares content, map and info with what qemu-img
// reads. The checker finds nothing.
func TestQemuImages(t *testing.T) {
	formatstest.NeedTool(t, "qemu-img")
	formatstest.NeedTool(t, "qemu-io")
	for _, r := range recipes() {
		t.Run(r.String(), func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "disk.vmdk")
			r.make(t, path)
			compareWithQemu(t, path, r.size, r.leaks && r.subformat == "monolithicSparse")
			files, err := filepath.Glob(filepath.Join(dir, "disk*.vmdk"))
			if err != nil || len(files) == 0 {
				t.Fatal(files, err)
			}
			for _, f := range files {
				if strings.Contains(r.subformat, "Flat") && f != path {
					continue
				}
				for _, got := range checkFile(t, f) {
					if !r.leaks || !got.Leak {
						t.Errorf("%s: %+v", filepath.Base(f), got)
					}
				}
			}
		})
	}
}

// compareWithQemu runs the suite against what qemu-img reads from the disk of size bytes at path.
func compareWithQemu(t *testing.T, path string, size int64, faulty bool) {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "raw")
	formatstest.Tool(t, "qemu-img", "convert", "-f", "vmdk", "-O", "raw", path, raw)
	want, err := os.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	formatstest.Run(t, vmdk.Format(), []formatstest.Case{
		{Name: "suite", Path: path, Size: size, Content: want, Resolver: directory(filepath.Dir(path)), Faulty: faulty},
	})
	compareMap(t, path)
	compareInfo(t, path)
}

// mapEntry is a line of qemu-img map --output=json.
type mapEntry struct {
	Start, Length       int64
	Depth               int
	Present, Zero, Data bool
	Offset              *int64
}

// compareMap compares our extents with qemu-img's, piece by piece.
func compareMap(t *testing.T, path string) {
	t.Helper()
	var want []mapEntry
	if err := json.Unmarshal(formatstest.Tool(t, "qemu-img", "map", "-f", "vmdk", "--output=json", path), &want); err != nil {
		t.Fatal(err)
	}
	ours := collect(t, openFile(t, path))
	for _, w := range want {
		for pos := w.Start; pos < w.Start+w.Length; {
			for ours[0].Offset+ours[0].Length <= pos {
				ours = ours[1:]
			}
			e := ours[0]
			// QEMU calls what a flat extent's file does not store zeros and data at once.
			unwritten := e.Zero && !e.Absent && w.Zero && w.Data
			same := e.Depth == w.Depth && e.Absent == !w.Present && e.Zero == w.Zero && e.Zero == !w.Data && (e.HostOffset >= 0) == (w.Offset != nil)
			if !same && !unwritten {
				t.Errorf("%+v, qemu-img says %+v", e, w)
			}
			if e.HostOffset >= 0 && w.Offset != nil && e.HostOffset+pos-e.Offset != *w.Offset+pos-w.Start {
				t.Errorf("%+v lies elsewhere for qemu-img: %+v at %d", e, w, *w.Offset)
			}
			pos = min(e.Offset+e.Length, w.Start+w.Length)
		}
	}
}

// compareInfo compares with qemu-img info.
func compareInfo(t *testing.T, path string) {
	t.Helper()
	var want struct {
		VirtualSize int64 `json:"virtual-size"`
		ClusterSize int64 `json:"cluster-size"`
		Specific    struct {
			Data map[string]any
		} `json:"format-specific"`
	}
	if err := json.Unmarshal(formatstest.Tool(t, "qemu-img", "info", "-f", "vmdk", "--output=json", path), &want); err != nil {
		t.Fatal(err)
	}
	in := infoFile(t, path)
	if in.ClusterSize == 0 {
		want.ClusterSize = 0 // of the extents, which info doesn't open
	}
	if in.VirtualSize != want.VirtualSize || in.ClusterSize != want.ClusterSize || in.Problem != nil || in.Dirty {
		t.Errorf("%+v, qemu-img says %+v", in, want)
	}
	for _, key := range []string{"cid", "parent cid", "create type"} {
		w := want.Specific.Data[strings.ReplaceAll(key, " ", "-")]
		if f, ok := w.(float64); ok {
			w = int64(f)
		}
		if got := property(in, key); got != fmt.Sprint(w) {
			t.Errorf("%s: %s, qemu-img says %v", key, got, w)
		}
	}
}

func property(in formats.Info, key string) string {
	for _, p := range in.Specific {
		if p.Name == key {
			return fmt.Sprint(p.Value)
		}
	}
	return ""
}

func openFile(t testing.TB, path string) formats.Image {
	t.Helper()
	src, err := source.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	img, err := vmdk.Format().Open(context.Background(), src, directory(filepath.Dir(path)))
	if err != nil {
		src.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	return img
}

func infoFile(t testing.TB, path string) formats.Info {
	t.Helper()
	src, err := source.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	in, err := vmdk.Format().Info(context.Background(), src)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func checkFile(t testing.TB, path string) []formats.Finding {
	t.Helper()
	src, err := source.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	list, _ := runCheck(t, src)
	return list
}

func runCheck(t testing.TB, src formats.Source) ([]formats.Finding, formats.Checked) {
	t.Helper()
	var list []formats.Finding
	sums, err := vmdk.Format().Check(context.Background(), src, func(f formats.Finding) { list = append(list, f) })
	if err != nil {
		t.Fatalf("check: %v", err)
	}
	return list, sums
}

func collect(t testing.TB, img formats.Image) []formats.Extent {
	t.Helper()
	var list []formats.Extent
	for e, err := range img.Extents(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
	return list
}

// TestEmptyTerabyte: runs of directory entries without a grain, and of tables without one.
func TestEmptyTerabyte(t *testing.T) {
	for _, s := range []string{"monolithicSparse", "streamOptimized"} {
		path := filepath.Join(t.TempDir(), "disk.vmdk")
		formatstest.Tool(t, "qemu-img", "create", "-f", "vmdk", "-o", "subformat="+s, path, "1T")
		img := openFile(t, path)
		got := collect(t, img)
		if len(got) != 1 || got[0] != (formats.Extent{Length: 1 << 40, Zero: true, Absent: true, HostOffset: -1}) {
			t.Errorf("%s: %+v", s, got)
		}
		p := bytes.Repeat([]byte{1}, 8192)
		if n, err := img.ReadAt(p, 1<<40-4096); n != 4096 || err != io.EOF || !bytes.Equal(p[:n], make([]byte, n)) {
			t.Errorf("%s, the end: %d, %v", s, n, err)
		}
	}
}

// TestPlainReadsDoNotAllocate: the engine reads a disk of a TiB in half a million blocks.
func TestPlainReadsDoNotAllocate(t *testing.T) {
	for _, s := range []string{"monolithicSparse", "twoGbMaxExtentFlat"} {
		path := filepath.Join(t.TempDir(), "disk.vmdk")
		recipe{subformat: s, size: 1 << 20, pieces: []formatstest.Piece{{Data: noise(1, 1<<20)}}}.make(t, path)
		img := openFile(t, path)
		p := make([]byte, 100_000)
		read := func() {
			if _, err := img.ReadAt(p, 100_000); err != nil {
				t.Fatal(err)
			}
		}
		if n := testing.AllocsPerRun(100, read); n > 0 {
			t.Errorf("%s: %v allocations a read", s, n)
		}
	}
}
