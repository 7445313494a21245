package vmdk_test

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/vmdk"
	"imgferry/source"
)

var qemu = formatstest.QEMU{
	Formats: []formats.Format{vmdk.Format()},
	Source:  func(path string) (formats.Source, error) { return source.Open(path) },
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

// make writes the image to path.
func (r recipe) make(t testing.TB, path string) {
	t.Helper()
	options := strings.TrimSuffix("subformat="+r.subformat+","+r.options, ",")
	qemu.Make(t, path, formatstest.Recipe{Size: r.size, Pieces: r.pieces, Options: options, IO: r.io})
}

func (r recipe) String() string {
	return fmt.Sprintf("%s %s %d %d", r.subformat, r.options, r.size, len(r.io))
}

var subformats = []string{"monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"}

// recipes covers the subformats that qemu-img writes, disks that end within a grain, several
// extents, and what a running machine leaves.
func recipes() []recipe {
	var list []recipe
	for _, s := range subformats {
		for _, size := range []int64{512, 65536, 1_000_448, 3<<20 + 512*607} {
			list = append(list, recipe{subformat: s, size: size, pieces: formatstest.Disk(size)})
		}
		list = append(list, recipe{subformat: s, size: 5<<30 + 1024, pieces: []formatstest.Piece{
			{Offset: 0, Data: formatstest.Text(5, 1000)},
			{Offset: 2<<30 - 70_000, Data: formatstest.Noise(6, 140_000)}, // over the border of two extents
			{Offset: 4<<30 - 512, Data: formatstest.Noise(7, 1024)},
			{Offset: 5<<30 + 512, Data: formatstest.Text(8, 512)},
		}})
		if s == "streamOptimized" {
			continue // QEMU can't write to it again
		}
		list = append(list, recipe{subformat: s, size: 3 << 20, pieces: formatstest.Disk(3 << 20),
			io: []string{"write -P 7 100k 200k", "write -P 9 600k 1k", "write -P 11 3071k 512", "write -P 13 2000k 3k"}})
	}
	zeroed := []string{"write -P 7 100k 200k", "write -z 128k 128k", "write -z 1M 512k", "write -P 5 1088k 1k", "write -z 2944k 128k"}
	for _, s := range []string{"monolithicSparse", "twoGbMaxExtentSparse"} {
		list = append(list,
			recipe{subformat: s, options: "zeroed_grain=on", size: 3 << 20, pieces: formatstest.Disk(3 << 20), io: zeroed, leaks: true},
			recipe{subformat: s, options: "zeroed_grain=on,compat6=on", size: 1_000_448, pieces: formatstest.Disk(1_000_448)})
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
			t.Parallel()
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
				list, _ := qemu.Check(t, f)
				for _, got := range list {
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
	formatstest.Run(t, vmdk.Format(), []formatstest.Case{{
		Name: "suite", Path: path, Size: size, Content: qemu.OpenSource(t, qemu.Content(t, path)), Faulty: faulty,
		Resolver: formatstest.Folder{Dir: filepath.Dir(path), Formats: qemu.Formats, Source: qemu.Source},
	}})
	qemu.SameMap(t, path)
	in, want := qemu.SameInfo(t, path)
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

// TestEmptyTerabyte: runs of directory entries without a grain, and of tables without one.
func TestEmptyTerabyte(t *testing.T) {
	for _, s := range []string{"monolithicSparse", "streamOptimized"} {
		path := filepath.Join(t.TempDir(), "disk.vmdk")
		formatstest.Tool(t, "qemu-img", "create", "-f", "vmdk", "-o", "subformat="+s, path, "1T")
		img := qemu.Open(t, path)
		got := formatstest.Extents(t, img)
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
		recipe{subformat: s, size: 1 << 20, pieces: []formatstest.Piece{{Data: formatstest.Noise(1, 1<<20)}}}.make(t, path)
		img := qemu.Open(t, path)
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
