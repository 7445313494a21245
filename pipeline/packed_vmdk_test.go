package pipeline_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgferry/convert"
	"imgferry/formats"
	"imgferry/formats/all"
	"imgferry/formats/formatstest"
	"imgferry/pipeline"
	"imgferry/source"
)

// packers are the programs that others pack with: their arguments, and the endings of their files.
var packers = map[string][]string{"gz": {"gzip", "-k"}, "xz": {"xz", "-k", "-T1", "-0"}, "zst": {"zstd", "-q", "-k"}, "bz2": {"bzip2", "-k", "-1"}}

// TestPackedVMDK: streamOptimized disks of QEMU, whose tables precede the grains, and as VMware writes
// them, whose tables follow, are read out of compressed files without a temporary one, with the extents
// that they have. Others, and what is cut, are not taken for them.
func TestPackedVMDK(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	want := make([]byte, 56<<20)
	noise := rand.NewChaCha8([32]byte{1})
	for i := range 3 { // more than what a stream keeps of what it has read
		noise.Read(want[i*17<<20:][:2<<20])
	}
	if err := os.WriteFile(at("disk.raw"), want, 0o666); err != nil {
		t.Fatal(err)
	}
	formatstest.Tool(t, "qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", at("disk.raw"), at("qemu.vmdk"))
	formatstest.Tool(t, "qemu-img", "convert", "-f", "raw", "-O", "vmdk", at("disk.raw"), at("plain.vmdk"))
	writeVMDK(t, at("disk.raw"), at("vmware.vmdk"))
	for _, name := range []string{"qemu", "vmware"} { // the tables of one lie in front of the cut
		p, err := os.ReadFile(at(name + ".vmdk"))
		if err == nil {
			err = os.WriteFile(at(name+"-cut.vmdk"), p[:len(p)-len(p)/3], 0o666)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var said []string
	o := pipeline.Opener{Table: all.Table(), Unpack: source.UnpackLimits{Dir: t.TempDir(), Notice: func(s string) { said = append(said, s) }}}
	spilled := func() bool { return strings.Contains(strings.Join(said, "\n"), "temporary file") }
	for ending, packer := range packers {
		for _, name := range []string{"qemu", "vmware", "plain", "qemu-cut", "vmware-cut"} {
			if ending != "zst" && ending != "gz" && name != "vmware" || strings.HasSuffix(name, "-cut") && ending != "zst" {
				continue // bzip2 and xz are slow
			}
			formatstest.Tool(t, packer[0], append(packer[1:], at(name+".vmdk"))...)
			said = nil
			img, err := o.Open(t.Context(), at(name+".vmdk."+ending), "")
			var got []byte
			if err == nil {
				if name != "plain" && (!img.Sequential() || spilled()) {
					t.Errorf("%s.%s: not read front to back; said %q", name, ending, said)
				}
				if !strings.HasSuffix(name, "-cut") {
					sameExtents(t, o, img, at(name+".vmdk"))
				}
				got, err = io.ReadAll(io.NewSectionReader(img, 0, img.Size()))
				img.Close()
			}
			if strings.HasSuffix(name, "-cut") {
				if err == nil || bytes.Equal(got, want) {
					t.Errorf("%s.%s: read", name, ending)
				}
				continue
			}
			if err != nil || !bytes.Equal(got, want) || spilled() != (name == "plain") {
				t.Errorf("%s.%s: %d bytes, %v; said %q", name, ending, len(got), err, said)
			}
			if ending != "gz" {
				continue
			}
			// Those who look here and there get a file.
			src, f, err := o.Detect(t.Context(), at(name+".vmdk."+ending), "")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.Check(t.Context(), src, func(x formats.Finding) { t.Errorf("%s.%s: %+v", name, ending, x) }); err != nil || !spilled() {
				t.Errorf("%s.%s: %v; said %q", name, ending, err, said)
			}
			src.Close()
		}
	}
	if left, err := os.ReadDir(o.Unpack.Dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// writeVMDK writes raw as a stream in VMware's order.
func writeVMDK(t *testing.T, raw, name string) {
	t.Helper()
	target, err := convert.TargetByName("vmdk")
	if err != nil {
		t.Fatal(err)
	}
	settings, err := target.Settings([]string{"subformat=streamOptimized"})
	if err != nil {
		t.Fatal(err)
	}
	o := pipeline.Opener{Table: all.Table()}
	img, err := o.Open(t.Context(), raw, "raw")
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	out, err := convert.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Discard()
	if _, err := target.Write(t.Context(), img, out, settings, convert.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := out.Commit(); err != nil {
		t.Fatal(err)
	}
}

// sameExtents compares img's extents with those of the image in the file name.
func sameExtents(t *testing.T, o pipeline.Opener, img formats.Image, name string) {
	t.Helper()
	other, err := o.Open(t.Context(), name, "")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	list := func(img formats.Image) (list []formats.Extent) {
		for e, err := range img.Extents(t.Context()) {
			if err != nil {
				t.Error(name, err)
			}
			list = append(list, e)
		}
		return list
	}
	a, b := list(img), list(other)
	if len(a) != len(b) {
		t.Fatalf("%s: %d extents, not %d", name, len(a), len(b))
	}
	for i := range a {
		if a[i] != b[i] {
			t.Errorf("%s: %+v, not %+v", name, a[i], b[i])
		}
	}
}
