package qcow_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/qcow"
	"imgferry/formats/raw"
	"imgferry/source"
)

// table is what the images of these tests and their backing files are of.
var table = []formats.Format{qcow.Format(), raw.Format()}

var qemu = formatstest.QEMU{Formats: table, Source: func(path string) (formats.Source, error) { return source.Open(path) }}

func Example() {
	words := bytes.Repeat([]byte("word"), tinyCluster/4)
	img, err := qcow.Format().Open(context.Background(), formatstest.NewSource(tiny().packed(1, tinyData+tinyCluster, deflated(words), 9)), nil)
	if err != nil {
		panic(err)
	}
	defer img.Close()
	for e, err := range img.Extents(context.Background()) {
		fmt.Println(e.Offset, e.Length, e.Compressed, e.HostOffset, err)
	}
	p := make([]byte, 8)
	n, err := img.ReadAt(p, 600)
	fmt.Println(string(p[:n]), err)
	// Output:
	// 0 512 false 1024 <nil>
	// 512 512 true -1 <nil>
	// 1024 1024 false 2048 <nil>
	// wordword <nil>
}

func TestBuilt(t *testing.T) { formatstest.Run(t, qcow.Format(), built()) }

// made are images that qemu-img and qemu-io write.
var made = []struct {
	name     string
	size     int64
	compress bool
	empty    bool
	io       []string // qemu-io commands afterwards
}{
	{name: "sector", size: 512},
	{name: "usual", size: 1_016_832},
	{name: "odd cluster at the end", size: 1_016_320},
	{name: "several L2 tables", size: 9_000_448, io: []string{"write -P 9 7M 5000"}},
	{name: "compressed", size: 1_016_832, compress: true},
	{name: "compressed sector", size: 512, compress: true},
	{name: "compressed, several L2 tables", size: 7_000_064, compress: true},
	{name: "compressed, then written", size: 1_016_832, compress: true, io: []string{"write -P 1 0 5000", "write -P 2 350000 9000", "write -P 3 990k 512"}},
	{name: "written zeros", size: 1_016_832, io: []string{"write -z 0 16k", "write -z 600k 9000"}},
	{name: "backwards", size: 1_016_832, io: []string{"write -P 4 900k 4k", "write -P 5 800k 4k", "write -P 6 700k 9k"}},
	{name: "empty", size: 1 << 20, empty: true},
}

// writeMade writes image i of made and returns its path.
func writeMade(t testing.TB, i int) string {
	t.Helper()
	m := made[i]
	pieces := formatstest.Disk(m.size)
	if m.empty {
		pieces = nil
	}
	from := formatstest.RawFile(t, m.size, pieces)
	path := filepath.Join(filepath.Dir(from), "disk.qcow")
	if m.compress {
		compress(t, from, path)
	} else {
		formatstest.Tool(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow", from, path)
	}
	qemu.IO(t, path, m.io...)
	return path
}

// compress makes a compressed image of the raw disk. qemu-img 7.2 writes it and then fails without a
// word, at the empty write that ends a conversion; so compare what it has written.
func compress(t testing.TB, from, path string) {
	t.Helper()
	formatstest.NeedTool(t, "qemu-img")
	err := exec.Command("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow", from, path).Run()
	if e := (*exec.ExitError)(nil); err != nil && !errors.As(err, &e) {
		t.Fatal(err)
	}
	formatstest.Tool(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow", from, path)
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
	formatstest.Run(t, qcow.Format(), cases)
}

// TestBuiltByQEMU: QEMU reads the hand-made images as we do, so they are what they should be.
func TestBuiltByQEMU(t *testing.T) {
	formatstest.NeedTool(t, "qemu-img")
	for _, c := range built() {
		if c.Resolver != nil || c.Size%512 != 0 || c.Size > 8<<20 {
			continue // names a file that is not there; rounded down by QEMU; large
		}
		t.Run(c.Name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk.qcow")
			if err := os.WriteFile(path, c.Image, 0o600); err != nil {
				t.Fatal(err)
			}
			qemu.SameContent(t, path)
			qemu.SameMap(t, path)
		})
	}
}

// TestChains lets qemu-img and us read the same chains of disks. With a backing file QEMU makes
// clusters of 512 bytes and L2 tables of 32 KiB.
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
		{"qcow", "qcow", 0, 1, []string{"write -c 0 512", "write -P 7 100k 200k"}},
		{"three layers", "qcow", 1 << 20, 3, []string{"write -P 7 0 5000", "write -z 600k 200k"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			const size = 1_016_832
			below := formatstest.RawFile(t, size, formatstest.Disk(size))
			dir := filepath.Dir(below)
			if c.base != "raw" {
				compress(t, below, filepath.Join(dir, "base"))
				below = filepath.Join(dir, "base")
			}
			for layer := range c.depth {
				path := filepath.Join(dir, fmt.Sprint("layer", layer))
				format := c.base
				if layer > 0 {
					format = "qcow"
				}
				formatstest.Tool(t, "qemu-img", "create", "-q", "-f", "qcow", "-b", filepath.Base(below), "-F", format,
					path, fmt.Sprint(size+c.grow*int64(layer+1)))
				qemu.IO(t, path, c.writes[layer%len(c.writes):]...)
				below = path
			}
			qemu.SameContent(t, below)
			qemu.SameMap(t, below)
			p, err := os.ReadFile(below)
			if err != nil {
				t.Fatal(err)
			}
			if list, _ := formatstest.Check(t, qcow.Format(), formatstest.NewSource(p)); len(list) > 0 {
				t.Errorf("%+v", list)
			}
		})
	}
}

// TestInfo compares with qemu-img info.
func TestInfo(t *testing.T) {
	for _, i := range []int{0, 1, 4} {
		path := writeMade(t, i)
		qemu.SameInfo(t, path)
	}
}

func TestInfoOfOthers(t *testing.T) {
	in, err := qcow.Format().Info(context.Background(), formatstest.NewSource(tiny().backing("dir/base")))
	if err != nil || in.Problem != nil || !slices.Equal(in.Refs, []formats.Ref{{Kind: formats.Backing, Name: "dir/base"}}) {
		t.Errorf("%+v, %v", in, err)
	}
	in, err = qcow.Format().Info(context.Background(), formatstest.NewSource(tiny().u32(36, 1)))
	if err != nil || !in.Encrypted || in.VirtualSize != tinyCount*tinyCluster || in.ClusterSize != tinyCluster || !errors.Is(in.Problem, formats.ErrUnsupported) {
		t.Errorf("%+v, %v", in, err)
	}
}

// TestEncrypted: what QEMU encrypts is refused by name.
func TestEncrypted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.qcow")
	formatstest.Tool(t, "qemu-img", "create", "-q", "-f", "qcow", "--object", "secret,id=s,data=password",
		"-o", "encrypt.format=aes,encrypt.key-secret=s", path, "1M")
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := formatstest.ReadAll(qcow.Format(), formatstest.NewSource(p), nil); !errors.Is(err, formats.ErrUnsupported) {
		t.Errorf("%v", err)
	}
}

// TestEmptyTebibyte: a walk over nothing is one step.
func TestEmptyTebibyte(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.qcow")
	formatstest.Tool(t, "qemu-img", "create", "-q", "-f", "qcow", path, "1T")
	runs := formatstest.Extents(t, qemu.Open(t, path))
	if want := []formats.Extent{{Length: 1 << 40, Zero: true, Absent: true, HostOffset: -1}}; !slices.Equal(runs, want) {
		t.Errorf("%+v", runs)
	}
}

func TestCheck(t *testing.T) {
	words := deflated(bytes.Repeat([]byte("word"), tinyCluster/4))
	end := uint64(tinyData + tinyCount*tinyCluster)
	for _, c := range []struct {
		name  string
		image imageBytes
		want  []int64 // offsets of the findings
	}{
		{"good", tiny(), nil},
		{"holes", tiny().u64(tinyL2, 0), nil},
		{"compressed, packed", tiny().packed(0, tinyData, words, 9).packed(2, tinyData+len(words), words, 9), nil},
		{"compressed, shared", tiny().packed(0, tinyData, words, 9).packed(2, tinyData, words, 9), nil},
		{"data twice", tiny().u64(tinyL2, tinyData+tinyCluster), []int64{tinyL2 + 8}},
		{"data over the L2 table", tiny().u64(tinyL2, tinyL2), []int64{tinyL2}},
		{"compressed, over the header", tiny().u64(tinyL2, 1<<63|8<<54|40), []int64{tinyL2}},
		{"data over the L1 table", tiny().u64(40, tinyData).u64(tinyData, tinyL2), []int64{tinyL2}},
		{"data over the backing file's name", tiny().backing("base").u64(8, tinyData+100).str(tinyData+100, "base"), []int64{tinyL2}},
		{"compressed, over data", tiny().packed(0, tinyData+tinyCluster, words, 9), []int64{tinyL2 + 8}},
		{"data over compressed", tiny().packed(2, tinyData+tinyCluster, words, 9), []int64{tinyL2 + 16}},
		{"compressed, over the L1 table", tiny().u64(tinyL2, 1<<63|8<<54|55), []int64{tinyL2}},
		{"compressed, without bytes", tiny().u64(tinyL2, 1<<63|tinyData), []int64{tinyL2}},
		{"compressed, past the end", tiny().packed(0, int(end)-len(words), words, 9)[:end-1].u64(tinyL2+24, 0), []int64{tinyL2}},
		{"data past the end", tiny().u64(tinyL2+8, end), []int64{tinyL2 + 8}},
		{"data unaligned", tiny().u64(tinyL2+8, tinyData+513), []int64{tinyL2 + 8}},
		{"L2 table past the end", tiny().u64(tinyL1, end), []int64{tinyL1}},
		{"L2 table unaligned", tiny().u64(tinyL1, tinyL2+8), []int64{tinyL1}},
		{"L2 table twice", tiny().u64(24, 2*tinyEntries*tinyCluster).u64(tinyL1+8, tinyL2),
			[]int64{tinyL1 + 8, tinyL2, tinyL2 + 8, tinyL2 + 16, tinyL2 + 24}},
		{"entries beyond the disk", tiny().u64(24, 2*tinyCluster).u64(tinyL2+16, end), nil},
	} {
		list, _ := formatstest.Check(t, qcow.Format(), formatstest.NewSource(c.image))
		var got []int64
		for _, f := range list {
			got = append(got, f.Offset)
		}
		// Where two overlap, either may be the one that is found.
		if slices.Sort(got); !slices.Equal(got, c.want) {
			t.Errorf("%s: %+v, want them at %d", c.name, list, c.want)
		}
	}
}

// TestCheckMade: QEMU's own images have nothing to find, and the counts are right.
func TestCheckMade(t *testing.T) {
	for i, m := range made {
		path := writeMade(t, i)
		p, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if list, _ := formatstest.Check(t, qcow.Format(), formatstest.NewSource(p)); len(list) > 0 {
			t.Errorf("%s: %+v", m.name, list)
		}
		var stored, packed int64
		for e, err := range qemu.Open(t, path).Extents(context.Background()) {
			if err != nil {
				t.Fatal(err)
			}
			n := (e.Length + 4095) / 4096
			if !e.Zero {
				stored += n
			}
			if e.Compressed {
				packed += n
			}
		}
		checked, err := qcow.Format().Check(context.Background(), formatstest.NewSource(p), nil)
		if err != nil || checked.Allocated != stored || checked.Compressed != packed || checked.Clusters != (m.size+4095)/4096 || checked.End > int64(len(p)) {
			t.Errorf("%s: %+v, %v; extents have %d and %d", m.name, checked, err, stored, packed)
		}
	}
}
