package pipeline_test

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgferry/formats"
	"imgferry/formats/all"
	"imgferry/formats/formatstest"
	"imgferry/pipeline"
	"imgferry/source"
)

// envelope is a descriptor as VirtualBox and VMware write it, with those disks by their files.
func envelope(files ...string) string {
	var refs, disks strings.Builder
	for i, f := range files {
		fmt.Fprintf(&refs, `<File ovf:id="file%d" ovf:href="%s"/>`, i, f)
		fmt.Fprintf(&disks, `<Disk ovf:diskId="vmdisk%d" ovf:fileRef="file%d" ovf:capacity="4" ovf:capacityAllocationUnits="byte * 2^20" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>`, i, i)
	}
	return `<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
<References>` + refs.String() + `<File ovf:id="text" ovf:href="notes.txt"/></References>
<DiskSection><Info>disks</Info>` + disks.String() + `<Disk ovf:diskId="empty" ovf:capacity="1"/></DiskSection>
<VirtualSystem ovf:id="vm"/></Envelope>`
}

// box is a folder with a package: vm.ovf, vm.mf, vm-1.vmdk, vm-2.vmdk.
type box struct {
	t    *testing.T
	dir  string
	want [2][]byte // the disks
}

func newBox(t *testing.T) *box {
	b := &box{t: t, dir: t.TempDir()}
	for i := range b.want {
		b.want[i] = make([]byte, 4<<20)
		rand.NewChaCha8([32]byte{byte(i)}).Read(b.want[i][1<<20 : 2<<20])
		b.write("raw", b.want[i])
		formatstest.Tool(t, "qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", b.path("raw"), b.path(fmt.Sprintf("vm-%d.vmdk", i+1)))
	}
	b.write("vm.ovf", []byte(envelope("vm-1.vmdk", "vm-2.vmdk")))
	b.write("one.ovf", []byte(envelope("vm-1.vmdk")))
	b.write("vm.mf", fmt.Appendf(nil, "SHA256(vm.ovf)= %x\nSHA1(vm-1.vmdk)= %x\n\nSHA256(vm-2.vmdk)= %x\n",
		sha256.Sum256(b.read("vm.ovf")), sha1.Sum(b.read("vm-1.vmdk")), sha256.Sum256(b.read("vm-2.vmdk"))))
	return b
}

func (b *box) path(name string) string { return filepath.Join(b.dir, name) }

func (b *box) read(name string) []byte {
	b.t.Helper()
	p, err := os.ReadFile(b.path(name))
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

func (b *box) write(name string, p []byte) {
	b.t.Helper()
	if err := os.WriteFile(b.path(name), p, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// pack makes an archive of those files.
func (b *box) pack(name string, files ...string) string {
	b.t.Helper()
	formatstest.Tool(b.t, "tar", append([]string{"--format=ustar", "-C", b.dir, "-cf", b.path(name)}, files...)...)
	return b.path(name)
}

// opens opens the disk and compares it.
func (b *box) opens(o pipeline.Opener, name string, disk int) {
	b.t.Helper()
	o.Table = all.Table()
	img, err := o.Open(b.t.Context(), name, "")
	if err != nil {
		b.t.Errorf("%s: %v", name, err)
		return
	}
	defer img.Close()
	got, err := io.ReadAll(io.NewSectionReader(img, 0, img.Size()))
	if err != nil || !bytes.Equal(got, b.want[disk]) || img.Format != "vmdk" {
		b.t.Errorf("%s: %d bytes of a %s, %v", name, len(got), img.Format, err)
	}
	if changed, err := img.Disk().Changed(); changed || err != nil {
		b.t.Error(changed, err)
	}
}

func (b *box) fails(o pipeline.Opener, name string, is error, says string) {
	b.t.Helper()
	o.Table = all.Table()
	img, err := o.Open(b.t.Context(), name, "")
	if err == nil {
		img.Close()
	}
	if !errors.Is(err, is) || !strings.Contains(err.Error(), says) {
		b.t.Errorf("%s: %v", name, err)
	}
}

func TestOVA(t *testing.T) {
	b := newBox(t)
	both := b.pack("vm.ova", "vm.ovf", "vm.mf", "vm-1.vmdk", "vm-2.vmdk")
	for which, disk := range map[string]int{"1": 0, "vm-2.vmdk": 1, "vmdisk0": 0, "2": 1} {
		b.opens(pipeline.Opener{Disk: which}, both, disk)
		b.opens(pipeline.Opener{Disk: which}, b.path("vm.ovf"), disk)
	}
	b.fails(pipeline.Opener{}, both, formats.ErrUnsupported, `1 ("vm-1.vmdk") or 2 ("vm-2.vmdk") with --disk`)
	b.fails(pipeline.Opener{Disk: "3"}, both, formats.ErrUnsupported, `no disk "3"`)
	single := b.pack("one.ova", "one.ovf", "vm-1.vmdk")
	b.opens(pipeline.Opener{}, single, 0)

	// One in another.
	formatstest.Tool(t, "gzip", "-k", single)
	b.opens(pipeline.Opener{Unpack: source.UnpackLimits{Dir: t.TempDir()}}, single+".gz", 0)
	formatstest.Tool(t, "gzip", "-k", b.path("vm-1.vmdk"))
	b.write("one.ovf", []byte(envelope("vm-1.vmdk.gz")))
	b.opens(pipeline.Opener{Unpack: source.UnpackLimits{Dir: t.TempDir()}}, b.pack("inner.ova", "one.ovf", "vm-1.vmdk.gz"), 0)

	// Beside a descriptor, only files that can be but its own are read without permission.
	b.fails(pipeline.Opener{}, b.path("one.ovf"), formats.ErrNotAllowed, "vm-1.vmdk.gz")
	b.opens(pipeline.Opener{Allow: []string{b.dir}, Unpack: source.UnpackLimits{Dir: t.TempDir()}}, b.path("one.ovf"), 0)
	for _, name := range []string{"../vm-1.vmdk", "/etc/passwd", "http://host/x", `..\x`, "file:x"} {
		b.write("one.ovf", []byte(envelope(name)))
		b.fails(pipeline.Opener{Allow: []string{b.dir}}, b.path("one.ovf"), formats.ErrCorrupt, "beside the descriptor")
	}

	// What is not as the manifest says.
	p := b.read("vm-2.vmdk")
	p[len(p)/2] ^= 1
	b.write("vm-2.vmdk", p)
	damaged := b.pack("damaged.ova", "vm.ovf", "vm.mf", "vm-1.vmdk", "vm-2.vmdk")
	b.opens(pipeline.Opener{Disk: "1"}, damaged, 0)
	b.fails(pipeline.Opener{Disk: "2"}, damaged, formats.ErrCorrupt, `"vm-2.vmdk" is not the file that the manifest is about`)
	b.fails(pipeline.Opener{Disk: "2"}, b.path("vm.ovf"), formats.ErrCorrupt, `"vm-2.vmdk" is not the file that the manifest is about`)
	b.write("vm.ovf", append(b.read("vm.ovf"), '\n'))
	b.fails(pipeline.Opener{Disk: "1"}, b.pack("edited.ova", "vm.ovf", "vm.mf", "vm-1.vmdk", "vm-2.vmdk"), formats.ErrCorrupt, `"vm.ovf" is not the file`)
	b.fails(pipeline.Opener{Disk: "1"}, b.path("vm.ovf"), formats.ErrCorrupt, `"vm.ovf" is not the file`)
	b.write("vm.mf", []byte("SHA256(vm-1.vmdk)= 00\n"))
	b.fails(pipeline.Opener{Disk: "1"}, b.pack("bad.ova", "vm.ovf", "vm.mf", "vm-1.vmdk"), formats.ErrCorrupt, "line 1 of the manifest")
	b.fails(pipeline.Opener{Disk: "2"}, b.pack("lacking.ova", "vm.ovf", "vm-1.vmdk"), formats.ErrCorrupt, "not in the archive")
	b.fails(pipeline.Opener{}, b.pack("plain.tar", "vm-1.vmdk"), formats.ErrUnsupported, "tar")
}

// TestOVAInfo: a package lists its disks.
func TestOVAInfo(t *testing.T) {
	b := newBox(t)
	o := pipeline.Opener{Table: all.Table()}
	for _, name := range []string{b.pack("vm.ova", "vm.ovf", "vm.mf", "vm-1.vmdk", "vm-2.vmdk"), b.path("vm.ovf")} {
		layers, err := o.Layers(t.Context(), name, "", false)
		if err != nil || len(layers) != 1 || layers[0].Format != strings.TrimPrefix(filepath.Ext(name), ".") || len(layers[0].Disks) != 2 {
			t.Fatalf("%+v, %v", layers, err)
		}
		for i, d := range layers[0].Disks {
			if d.Format != "vmdk" || d.VirtualSize != 4<<20 || d.Problem != nil || !strings.HasSuffix(d.Path, fmt.Sprintf("vm-%d.vmdk", i+1)) {
				t.Errorf("%+v", d)
			}
		}
		chosen := o
		chosen.Disk = "2"
		layers, err = chosen.Layers(t.Context(), name, "", true)
		if err != nil || len(layers) != 1 || layers[0].Format != "vmdk" || len(layers[0].Packed) != 1 {
			t.Errorf("%+v, %v", layers, err)
		}
	}
	// One that can't be read does not hide the others.
	b.write("vm-1.vmdk", []byte("KDMV, and then nothing"))
	layers, err := o.Layers(t.Context(), b.pack("half.ova", "vm.ovf", "vm-1.vmdk", "vm-2.vmdk"), "", false)
	if err != nil || len(layers[0].Disks) != 2 || layers[0].Disks[0].Problem == nil || layers[0].Disks[1].Problem != nil {
		t.Errorf("%+v, %v", layers, err)
	}
}
