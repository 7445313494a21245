package qed_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/qed"
	"imgferry/formats/raw"
	"imgferry/source"
)

// table is what the images of these tests and their backing files are of.
var table = []formats.Format{qed.Format(), raw.Format()}

var qemu = formatstest.QEMU{Formats: table, Source: func(path string) (formats.Source, error) { return source.Open(path) }}

func Example() {
	img, err := qed.Format().Open(context.Background(), formatstest.NewSource(tiny().u64(tinyL2+8, 1)), nil)
	if err != nil {
		panic(err)
	}
	defer img.Close()
	for e, err := range img.Extents(context.Background()) {
		fmt.Println(e.Offset, e.Length, e.Zero, e.HostOffset, err)
	}
	// Output:
	// 0 4096 false 20480 <nil>
	// 4096 4096 true -1 <nil>
	// 8192 8192 false 28672 <nil>
}

func TestBuilt(t *testing.T) { formatstest.Run(t, qed.Format(), built()) }

// made are images that qemu-img and qemu-io write.
var made = []struct {
	name    string
	size    int64
	options string
	io      []string // qemu-io commands afterwards
}{
	{"sector", 512, "cluster_size=4096", nil},
	{"usual", 1_016_832, "", nil},
	{"small clusters", 1_016_832, "cluster_size=4096,table_size=2", nil},
	{"two L1 entries", 5_000_192, "cluster_size=4096,table_size=2", []string{"write -P 9 4200k 5000"}},
	{"large tables", 1_016_832, "cluster_size=4096,table_size=16", nil},
	{"clusters of 1 MiB", 5_000_192, "cluster_size=1M,table_size=2", nil},
	{"odd tables", 1_016_832, "cluster_size=8192,table_size=2", []string{"write -P 1 500000 70000"}},
	{"zero clusters", 1_016_832, "cluster_size=4096", []string{"write -z 0 16k", "write -z 340000 30000", "write -P 3 8k 4k"}},
	{"discarded", 1_016_832, "cluster_size=4096", []string{"discard 0 32k"}},
	{"backwards", 1_016_832, "cluster_size=4096", []string{"write -P 4 900k 4k", "write -P 5 800k 4k", "write -P 6 700k 9k"}},
	{"empty", 1 << 20, "cluster_size=64K", nil},
}

// writeMade writes image i of made and returns its path.
func writeMade(t testing.TB, i int) string {
	t.Helper()
	m := made[i]
	pieces := formatstest.Disk(m.size)
	if m.name == "empty" {
		pieces = nil
	}
	path := filepath.Join(t.TempDir(), "disk.qed")
	qemu.Make(t, path, formatstest.Recipe{Size: m.size, Pieces: pieces, Options: m.options, IO: m.io})
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
	formatstest.Run(t, qed.Format(), cases)
}

// TestChains lets qemu-img and us read the same chains of disks.
func TestChains(t *testing.T) {
	formatstest.NeedTool(t, "qemu-img")
	for _, c := range []struct {
		name   string
		base   string // its format
		grow   int64
		depth  int
		writes []string
	}{
		{"raw", "raw", 0, 1, []string{"write -P 7 100k 200k"}},
		{"raw, shorter", "raw", 1 << 20, 1, []string{"write -P 7 1000k 200k", "write -z 0 64k"}},
		{"raw, longer", "raw", -512 * 1000, 1, []string{"write -P 7 10k 1k"}},
		{"qed", "qed", 0, 1, []string{"write -z 320k 64k", "write -P 7 100k 200k"}},
		{"three layers", "qed", 1 << 20, 3, []string{"write -P 7 0 5000", "write -z 600k 200k"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			const size = 1_016_832
			below := formatstest.RawFile(t, size, formatstest.Disk(size))
			dir := filepath.Dir(below)
			if c.base != "raw" {
				formatstest.Tool(t, "qemu-img", "convert", "-f", "raw", "-O", c.base, below, filepath.Join(dir, "base"))
				below = filepath.Join(dir, "base")
			}
			for layer := range c.depth {
				path := filepath.Join(dir, fmt.Sprint("layer", layer))
				format := c.base
				if layer > 0 {
					format = "qed"
				}
				formatstest.Tool(t, "qemu-img", "create", "-q", "-f", "qed", "-b", filepath.Base(below), "-F", format,
					"-o", fmt.Sprint("cluster_size=", 4096<<layer), path, fmt.Sprint(size+c.grow*int64(layer+1)))
				qemu.IO(t, path, c.writes[layer%len(c.writes):]...)
				below = path
			}
			qemu.SameContent(t, below)
			qemu.SameMap(t, below)
		})
	}
}

// TestInfo compares with qemu-img info.
func TestInfo(t *testing.T) {
	for i := range 3 {
		path := writeMade(t, i)
		qemu.SameInfo(t, path)
	}
}

func TestInfoOfDirtyAndBased(t *testing.T) {
	in, err := qed.Format().Info(context.Background(), formatstest.NewSource(tiny().backing("dir/base.raw", 2|4)))
	refs := []formats.Ref{{Kind: formats.Backing, Name: "dir/base.raw", Format: "raw"}}
	specific := []formats.Property{{Name: "table size", Value: int64(2)}}
	if err != nil || !in.Dirty || in.Problem != nil || !slices.Equal(in.Refs, refs) || !slices.Equal(in.Specific, specific) {
		t.Errorf("%+v, %v", in, err)
	}
	in, err = qed.Format().Info(context.Background(), formatstest.NewSource(tiny().backing("base", 0)))
	if err != nil || in.Dirty || in.Problem != nil || !slices.Equal(in.Refs, []formats.Ref{{Kind: formats.Backing, Name: "base"}}) {
		t.Errorf("%+v, %v", in, err)
	}
	// Whatever is wrong, what could be read is there.
	in, err = qed.Format().Info(context.Background(), formatstest.NewSource(tiny().u64(16, 1<<20)))
	if err != nil || in.VirtualSize != tinyCount*tinyCluster || in.ClusterSize != tinyCluster || !errors.Is(in.Problem, formats.ErrUnsupported) {
		t.Errorf("%+v, %v", in, err)
	}
	// The bit alone names no file, and an empty name is none.
	for _, p := range []imageBytes{tiny().u64(16, 4), tiny().u64(16, 1)} {
		if in, err := qed.Format().Info(context.Background(), formatstest.NewSource(p)); err != nil || in.Problem != nil || in.Refs != nil {
			t.Errorf("%+v, %v", in, err)
		}
	}
}

// TestEmptyTebibyte: a walk over nothing is one step.
func TestEmptyTebibyte(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.qed")
	formatstest.Tool(t, "qemu-img", "create", "-q", "-f", "qed", path, "1T")
	runs := formatstest.Extents(t, qemu.Open(t, path))
	if want := []formats.Extent{{Length: 1 << 40, Zero: true, Absent: true, HostOffset: -1}}; !slices.Equal(runs, want) {
		t.Errorf("%+v", runs)
	}
}

// TestCheck: qemu-img check counts the same.
func TestCheck(t *testing.T) {
	end := uint64(tinyData + tinyCount*tinyCluster)
	for _, c := range []struct {
		name  string
		image imageBytes
		want  int // findings
	}{
		{"good", tiny(), 0},
		{"zero cluster", tiny().u64(tinyL2, 1).u64(tinyL2+8, 0), 1},
		{"leaks in two runs", tiny().u64(tinyL2, 0).u64(tinyL2+16, 0).more(3), 3},
		{"leak behind the header", tiny().more(2).u64(40, end).u64(int(end), tinyL2), 1},
		{"data twice", tiny().u64(tinyL2, tinyData+tinyCluster), 2},
		{"data over the L1 table", tiny().u64(tinyL2, tinyL1), 2},
		{"data over the L2 table", tiny().u64(tinyL2, tinyL2+4096), 2},
		{"data in the header", tiny().u64(tinyL2, 4096-8), 2},
		{"data unaligned", tiny().u64(tinyL2, tinyData+8), 2},
		{"data past the end", tiny().u64(tinyL2, end).u64(tinyL2+8, 1<<63), 3},
		{"data in a cut cluster", append(tiny().u64(tinyL2, end), 1, 2, 3), 2},
		{"L2 table past the end", tiny().u64(tinyL1+8, end), 1},
		{"L2 table at 1", tiny().u64(tinyL1+8, 1), 1},
		{"L2 table twice", tiny().u64(tinyL1+8, tinyL2), 1},
		{"L2 table over the L1 table", tiny().u64(tinyL1+8, tinyL1), 1},
		{"L2 table half over data", tiny().u64(tinyL1+8, end).more(2).u64(tinyL2, end+4096), 2},
		{"fragments", tiny().u64(tinyL2, tinyData+8192).u64(tinyL2+16, tinyData), 0},
		{"entries beyond the disk", tiny().u64(48, 4*4096-512).u64(tinyL2+32, tinyData), 1},
		{"tables of four clusters", tiny().u32(8, 4), 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			list, got := formatstest.Check(t, qed.Format(), formatstest.NewSource(c.image))
			if len(list) != c.want {
				t.Errorf("%d findings, want %d: %+v", len(list), c.want, list[:min(len(list), 5)])
			}
			formatstest.NeedTool(t, "qemu-img")
			path := filepath.Join(t.TempDir(), "disk.qed")
			if err := os.WriteFile(path, c.image, 0o600); err != nil {
				t.Fatal(err)
			}
			want := qemu.QEMUCheck(t, path)
			want.End = got.End // it doesn't say
			if c.name == "entries beyond the disk" {
				// It counts what is no part of the disk.
				want.Allocated--
				want.Fragmented--
			}
			if got != want {
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
		if list, _ := formatstest.Check(t, qed.Format(), formatstest.NewSource(p)); len(list) > 0 {
			t.Errorf("%s: %+v", m.name, list)
		}
	}
}

func TestCheckEnds(t *testing.T) {
	checked, err := qed.Format().Check(context.Background(), formatstest.NewSource(tiny().u64(tinyL2+24, 0)), func(formats.Finding) {})
	if want := (formats.Checked{Clusters: 4, Allocated: 3, End: tinyData + 3*tinyCluster}); err != nil || checked != want {
		t.Errorf("%+v, %v", checked, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := qed.Format().Check(ctx, formatstest.NewSource(tiny()), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
	if _, err := qed.Format().Check(context.Background(), formatstest.NewSource(tiny().u32(4, 5)), nil); !errors.Is(err, formats.ErrCorrupt) {
		t.Errorf("a bad header: %v", err)
	}
}
