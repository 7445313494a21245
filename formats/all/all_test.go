package all_test

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
	"imgferry/formats/all"
	"imgferry/formats/formatstest"
)

func Example() {
	luks := append([]byte("LUKS\xba\xbe\x00\x01"), make([]byte, 1<<20)...)
	f, err := formats.Detect(all.Table(), formatstest.NewSource(luks))
	if err != nil {
		panic(err)
	}
	_, err = f.Open(context.Background(), formatstest.NewSource(luks), nil)
	fmt.Println(f.Name, errors.Is(err, formats.ErrUnsupported))
	// Output: luks true
}

// at returns n bytes with s at off, from the end if off is negative.
func at(n, off int, s string) []byte {
	p := make([]byte, n)
	if off < 0 {
		off += n
	}
	copy(p[off:], s)
	return p
}

// TestDetect: exactly one format but raw knows each of these.
func TestDetect(t *testing.T) {
	cases := []struct {
		name string // of the format
		p    []byte
	}{
		{"qcow", at(512, 0, "QFI\xfb\x00\x00\x00\x01")},
		{"qcow2", at(512, 0, "QFI\xfb\x00\x00\x00\x02")},
		{"qcow2", at(512, 0, "QFI\xfb\x00\x00\x00\x03")},
		{"qcow2", at(512, 0, "QFI\xfb\x00\x00\x00\x04")},
		{"zvhd2", at(8192, 0, "z2strm\x00\x00")},
		{"zvhd", at(8192, 0, "stream\x00\x00")},
		{"qed", at(512, 0, "QED\x00")},
		{"vdi", at(512, 64, "\x7f\x10\xda\xbe")},
		{"vmdk", at(512, 0, "KDMV")},
		{"vmdk", at(512, 0, "COWD")},
		{"vmdk", []byte("# Disk DescriptorFile\nversion=1\n")},
		{"vmdk", at(512, 0, "\xbe\xba\xfe\xca")},
		{"vpc", at(2048, 0, "conectix")},
		{"vpc", at(2048, -512, "conectix")},
		{"vpc", at(2047, -511, "conectix")},
		{"vhdx", at(512, 0, "vhdxfile")},
		{"luks", at(512, 0, "LUKS\xba\xbe\x00\x01")},
		{"gz", []byte("\x1f\x8b\x08\x00")},
		{"xz", []byte("\xfd7zXZ\x00")},
		{"zstd", []byte("\x28\xb5\x2f\xfd")},
		{"bz2", []byte("BZh91AY&SY")},
		{"tar", at(1024, 257, "ustar\x0000")},
		{"tar", at(1024, 257, "ustar  \x00")},
		{"7z", []byte("7z\xbc\xaf\x27\x1c")},
		{"zip", []byte("PK\x03\x04")},
		// Raw disks: boot sector, GPT, ISO 9660, zeros, text, and marks in the wrong place.
		{"raw", at(512, 510, "\x55\xaa")},
		{"raw", at(2048, 512, "EFI PART")},
		{"raw", at(65536, 32769, "CD001")},
		{"raw", make([]byte, 4096)},
		{"raw", []byte("x")},
		{"raw", nil},
		{"raw", []byte("BZh is how this text begins")},
		{"raw", at(512, 1, "QFI\xfb\x00\x00\x00\x02")},
		{"raw", at(512, 0, "QFI\xfb\x00\x00\x00\x00")},
		{"raw", []byte("QFI\xfb")},
	}
	table := all.Table()
	seen := map[string]bool{}
	for _, c := range cases {
		var known []string
		for _, f := range table {
			ok, err := f.Probe(formatstest.NewSource(c.p))
			if err != nil {
				t.Errorf("%s: %v", f.Name, err)
			}
			if ok {
				known = append(known, f.Name)
			}
		}
		want := []string{c.name, "raw"}
		if c.name == "raw" {
			want = want[1:]
		}
		if !slices.Equal(known, want) {
			t.Errorf("%.24q: %v, want %v", c.p, known, want)
		}
		seen[c.name] = true
	}
	for _, f := range table {
		if !seen[f.Name] {
			t.Errorf("%s has no case", f.Name)
		}
	}
}

// TestTestdata: every image that a format keeps for its tests is known by that format, and only by
// that one.
func TestTestdata(t *testing.T) {
	n := 0
	for _, f := range all.Table() {
		paths, err := filepath.Glob(filepath.Join("..", f.Name, "testdata", "*."+f.Name))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			p, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, g := range all.Table() {
				ok, err := g.Probe(formatstest.NewSource(p))
				if want := g.Name == f.Name || g.Name == "raw"; ok != want || err != nil {
					t.Errorf("%s: %s says %v, %v", path, g.Name, ok, err)
				}
			}
			n++
		}
	}
	if n < 4 {
		t.Errorf("only %d images found", n)
	}
}

func TestTable(t *testing.T) {
	table := all.Table()
	if last := table[len(table)-1].Name; last != "raw" {
		t.Errorf("%s is last", last)
	}
	names := map[string]bool{}
	for _, f := range table {
		if names[f.Name] || f.Name != strings.ToLower(f.Name) {
			t.Errorf("%q: used twice, or not lower case", f.Name)
		}
		names[f.Name] = true
	}
}

// TestRecognised: what can't be read says so in one sentence, and leaves the source open.
func TestRecognised(t *testing.T) {
	for _, f := range all.Table() {
		if f.Check != nil || f.Name == "raw" {
			continue // it can be read
		}
		src := formatstest.NewSource(make([]byte, 512))
		img, err := f.Open(context.Background(), src, nil)
		if img != nil || !errors.Is(err, formats.ErrUnsupported) || !strings.Contains(err.Error(), "--source-format raw") {
			t.Errorf("%s: %v", f.Name, err)
		}
		in, err := f.Info(context.Background(), src)
		if err != nil || in.Format != f.Name || !errors.Is(in.Problem, formats.ErrUnsupported) {
			t.Errorf("%s: %+v, %v", f.Name, in, err)
		}
		if err := formats.ReadFull(src, make([]byte, 512), 0); err != nil {
			t.Errorf("%s closed the source: %v", f.Name, err)
		}
	}
}

// TestQemuMakes lets qemu-img write the formats that are only recognised.
func TestQemuMakes(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(disk, bytes.Repeat([]byte("disk"), 1<<18), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]string{
		{"qcow", ""}, {"qcow2", ""}, {"qed", ""}, {"vdi", ""}, {"vmdk", ""}, {"vmdk", "subformat=streamOptimized"},
		{"vmdk", "subformat=monolithicFlat"}, {"vpc", ""}, {"vpc", "subformat=fixed"}, {"vhdx", ""}, {"raw", ""},
	} {
		path := disk + "." + c[0] + c[1]
		args := []string{"convert", "-f", "raw", "-O", c[0]}
		if c[1] != "" {
			args = append(args, "-o", c[1])
		}
		formatstest.Tool(t, "qemu-img", append(args, disk, path)...)
		p, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if f, err := formats.Detect(all.Table(), formatstest.NewSource(p)); err != nil || f.Name != c[0] {
			t.Errorf("%s %s: detected %q, %v", c[0], c[1], f.Name, err)
		}
	}
}
