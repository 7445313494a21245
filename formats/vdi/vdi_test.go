package vdi_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/vdi"
	"imgferry/source"
)

var table = []formats.Format{vdi.Format()}

var qemu = formatstest.QEMU{Formats: table, Source: func(path string) (formats.Source, error) { return source.Open(path) }}

func Example() {
	image := tiny().entry(1, 0xfffffffe)
	img, err := vdi.Format().Open(context.Background(), formatstest.NewSource(image), nil)
	if err != nil {
		panic(err)
	}
	defer img.Close()
	for e, err := range img.Extents(context.Background()) {
		fmt.Println(e.Offset, e.Length, e.Zero, e.HostOffset, err)
	}
	// Output:
	// 0 4096 false 1024 <nil>
	// 4096 4096 true -1 <nil>
	// 8192 8192 false 9216 <nil>
}

func TestBuilt(t *testing.T) { formatstest.Run(t, vdi.Format(), built()) }

// recipe is an image that qemu-img and qemu-io write.
type recipe struct {
	name   string
	size   int64
	static bool
	empty  bool
	io     []string // qemu-io commands afterwards
}

var made = []recipe{
	{name: "sector", size: 512},
	{name: "less than a block", size: 1_016_832},
	{name: "usual", size: 9_000_448},
	{name: "whole blocks", size: 4 << 20},
	{name: "written in order", size: 6 << 20, empty: true, io: []string{"write -P 1 0 1M", "write -P 2 1M 1M", "write -P 3 4M 5000"}},
	{name: "written backwards", size: 6 << 20, empty: true, io: []string{"write -P 1 5M 512", "write -P 2 4M 1M", "write -P 3 3M 1M", "write -P 4 100 512"}},
	{name: "static", size: 3_000_320, static: true},
	{name: "static, empty", size: 2 << 20, static: true, empty: true},
	{name: "empty", size: 4 << 20, empty: true},
}

// writeMade writes image i of made and returns its path.
func writeMade(t testing.TB, i int) string {
	t.Helper()
	m := made[i]
	pieces := formatstest.Disk(m.size)
	if m.empty {
		pieces = nil
	}
	path := filepath.Join(t.TempDir(), "disk.vdi")
	r := formatstest.Recipe{Size: m.size, Pieces: pieces, IO: m.io}
	if m.static {
		r.Options = "static=on"
	}
	qemu.Make(t, path, r)
	return path
}

// TestMade: images of QEMU's pass the suite, and have its content and its map.
func TestMade(t *testing.T) {
	var cases []formatstest.Case
	for i, m := range made {
		path := writeMade(t, i)
		qemu.SameContent(t, path)
		qemu.SameMap(t, path)
		p, err := os.ReadFile(path + ".content")
		if err != nil {
			t.Fatal(err)
		}
		cases = append(cases, formatstest.Case{Name: m.name, Path: path, Size: m.size, Content: bytes.NewReader(p)})
	}
	formatstest.Run(t, vdi.Format(), cases)
}

// TestBuiltByQEMU: QEMU reads hand-made images of blocks of 1 MiB as we do, so they are what they
// should be.
func TestBuiltByQEMU(t *testing.T) {
	formatstest.NeedTool(t, "qemu-img")
	for name, p := range map[string]imageBytes{
		"in order":                 usual(4),
		"out of order":             usual(4).entry(0, 3).entry(3, 0),
		"never written, discarded": usual(2).entry(1, 0xffffffff).entry(2, 0xfffffffe).entry(3, 1),
		"no blocks":                usual(0).entry(0, 0xffffffff).entry(1, 0xffffffff).entry(2, 0xfffffffe).entry(3, 0xffffffff),
		"part of a block":          usual(4).u64(368, 3<<20+512),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk.vdi")
			if err := os.WriteFile(path, p, 0o600); err != nil {
				t.Fatal(err)
			}
			qemu.SameContent(t, path)
			qemu.SameMap(t, path)
		})
	}
}

// TestInfo compares with qemu-img info.
func TestInfo(t *testing.T) {
	for _, i := range []int{0, 2, 6} {
		path := writeMade(t, i)
		qemu.SameInfo(t, path)
	}
}

func TestInfoOfOthers(t *testing.T) {
	for typ, word := range map[uint32]string{1: "dynamic", 2: "static", 3: "undo", 4: "differencing", 5: "unknown"} {
		in, err := vdi.Format().Info(context.Background(), formatstest.NewSource(tiny().u32(76, typ)))
		want := []formats.Property{{Name: "type", Value: word}, {Name: "uuid", Value: "00112233-4455-6677-8899-aabbccddeeff"}}
		if err != nil || !slices.Equal(in.Specific, want) || in.VirtualSize != tinyCount*tinyBlock || in.ClusterSize != tinyBlock || errors.Is(in.Problem, formats.ErrUnsupported) != (typ > 2) {
			t.Errorf("%+v, %v", in, err)
		}
	}
}

// TestEmptyTebibyte: a walk over nothing is one step.
func TestEmptyTebibyte(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.vdi")
	formatstest.Tool(t, "qemu-img", "create", "-q", "-f", "vdi", path, "1T")
	runs := formatstest.Extents(t, qemu.Open(t, path))
	if want := []formats.Extent{{Length: 1 << 40, Zero: true, HostOffset: -1}}; !slices.Equal(runs, want) {
		t.Errorf("%+v", runs)
	}
}

// TestCheck: qemu-img check counts the same, where it looks.
func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name  string
		image imageBytes
		want  []int64 // offsets of the findings
		ours  int64   // how many of them QEMU doesn't look for
	}{
		{"good", usual(4), nil, 0},
		{"two stored", usual(2).entry(0, 0xffffffff).entry(1, 0xfffffffe).entry(2, 0).entry(3, 1), nil, 0},
		{"count too small", usual(4).u32(388, 3), []int64{388}, 0},
		{"count too large", usual(4).u32(388, 1<<31), []int64{388}, 0},
		{"twice", usual(4).entry(3, 1), []int64{tinyMap + 12}, 0},
		{"three times", usual(4).entry(2, 1).entry(3, 1), []int64{tinyMap + 8, tinyMap + 12}, 0},
		{"out of range", usual(4).entry(2, 4), []int64{tinyMap + 8, 388}, 0},
		{"far out of range", usual(4).entry(2, 0xfffffffd).entry(1, 1<<31), []int64{tinyMap + 4, tinyMap + 8, 388}, 0},
		{"past the end", usual(4)[:tinyData+3<<20], []int64{tinyMap + 12}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			list, got := formatstest.Check(t, vdi.Format(), formatstest.NewSource(c.image))
			var at []int64
			for _, f := range list {
				at = append(at, f.Offset)
			}
			if !slices.Equal(at, c.want) || got.Leaks > 0 {
				t.Errorf("%+v, want them at %d", list, c.want)
			}
			formatstest.NeedTool(t, "qemu-img")
			path := filepath.Join(t.TempDir(), "disk.vdi")
			if err := os.WriteFile(path, c.image, 0o600); err != nil {
				t.Fatal(err)
			}
			want := qemu.QEMUCheck(t, path)
			if got.Corruptions != want.Corruptions+c.ours {
				t.Errorf("%+v, qemu-img check says %+v", got, want)
			}
		})
	}
}

// TestCheckMade: QEMU's own images have nothing to find.
func TestCheckMade(t *testing.T) {
	for i, m := range made {
		p, err := os.ReadFile(writeMade(t, i))
		if err != nil {
			t.Fatal(err)
		}
		list, sums := formatstest.Check(t, vdi.Format(), formatstest.NewSource(p))
		if blocks := (m.size + 1<<20 - 1) >> 20; len(list) > 0 || sums.Clusters != blocks || m.static && sums.Allocated != blocks || m.empty && !m.static && m.io == nil && sums.Allocated != 0 {
			t.Errorf("%s: %+v, %+v", m.name, list, sums)
		}
	}
}

func TestCheckEnds(t *testing.T) {
	checked, err := vdi.Format().Check(context.Background(), formatstest.NewSource(append(tiny().entry(3, 0xffffffff).entry(0, 2).entry(2, 0).u32(388, 3), 0)), nil)
	if want := (formats.Checked{Clusters: 4, Allocated: 3, Fragmented: 2, End: tinyData + 3*tinyBlock}); err != nil || checked != want {
		t.Errorf("%+v, %v", checked, err)
	}
	if _, err := vdi.Format().Check(context.Background(), formatstest.NewSource(tiny().u32(376, 5)), nil); !errors.Is(err, formats.ErrCorrupt) || !strings.Contains(err.Error(), "blocks of 5 bytes") {
		t.Errorf("a bad header: %v", err)
	}
}
