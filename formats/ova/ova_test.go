package ova_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"imgferry/formats/ova"
)

const vmware = `<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:vmw="http://www.vmware.com/schema/ovf">
  <References>
    <File ovf:href="vm-disk1.vmdk" ovf:id="file1" ovf:size="12345"/>
    <File ovf:href="sub/vm-disk2.vmdk" ovf:id="file2" ovf:chunkSize="100"/>
  </References>
  <DiskSection>
    <Info>Virtual disk information</Info>
    <Disk ovf:capacity="16" ovf:capacityAllocationUnits="byte * 2^30" ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized" ovf:populatedSize="1"/>
    <Disk ovf:capacity="512" ovf:diskId="vmdisk2" ovf:fileRef="file2" ovf:parentRef="vmdisk1"/>
    <Disk ovf:capacity="1" ovf:diskId="vmdisk3"/>
  </DiskSection>
  <VirtualSystem ovf:id="vm"><DiskSection><Disk ovf:diskId="decoy"/></DiskSection></VirtualSystem>
</Envelope>`

func TestParse(t *testing.T) {
	if !ova.Probe([]byte(vmware)) || ova.Probe([]byte("<html>")) || ova.Probe(nil) {
		t.Error("probe")
	}
	p, err := ova.Parse([]byte(vmware))
	if err != nil {
		t.Fatal(err)
	}
	want := []ova.Disk{
		{ID: "vmdisk1", File: "vm-disk1.vmdk", FileSize: 12345, Capacity: 16 << 30, Format: "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"},
		{ID: "vmdisk2", File: "sub/vm-disk2.vmdk", FileSize: -1, Capacity: 512, Parent: "vmdisk1", Chunked: true},
		{ID: "vmdisk3", FileSize: -1, Capacity: 1},
	}
	if fmt.Sprint(p.Disks) != fmt.Sprint(want) {
		t.Errorf("%+v", p.Disks)
	}
}

func TestParseRefuses(t *testing.T) {
	for says, p := range map[string]string{
		"no XML":           "<Envelope><a></Envelope>",
		"begins with":      "<html/>",
		"document type":    `<!DOCTYPE x [<!ENTITY a "b">]><Envelope/>`,
		"no XML: ":         `<Envelope>&a;</Envelope>`,
		"nested":           "<Envelope>" + strings.Repeat("<a>", 100),
		"does not name":    strings.Replace(vmware, `fileRef="file1"`, `fileRef="none"`, 1),
		"two files":        strings.Replace(vmware, `id="file2"`, `id="file1"`, 1),
		"capacity of":      strings.Replace(vmware, `capacity="16"`, `capacity="x"`, 1),
		"units of":         strings.Replace(vmware, "byte * 2^30", "byte * 2^63", 1),
		"capacity of ":     strings.Replace(vmware, `capacity="16"`, `capacity="9000000000000000000"`, 1),
		"not the name":     strings.Replace(vmware, "vm-disk1.vmdk", "../x", 1),
		"not the name of":  strings.Replace(vmware, "vm-disk1.vmdk", "https://x/y", 1),
		"is not the name ": strings.Replace(vmware, "vm-disk1.vmdk", "/x", 1),
		"bytes: the most":  vmware + strings.Repeat(" ", ova.MaxDescriptor),
		"more than 1024":   strings.Replace(vmware, "</DiskSection>", strings.Repeat(`<Disk ovf:diskId="d" ovf:capacity="1"/>`, 1100)+"</DiskSection>", 1),
	} {
		if _, err := ova.Parse([]byte(p)); err == nil || !strings.Contains(err.Error(), strings.TrimRight(says, " ")) {
			t.Errorf("%s: %v", says, err)
		}
	}
}

func TestParseManifest(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	m, err := ova.ParseManifest([]byte("SHA256(a (1).vmdk)= " + sum + "\r\n\nSHA1(b)=" + sum[:40] + "\nsha-512(c)= " + sum + sum + "\n"))
	if err != nil || len(m) != 3 || m["a (1).vmdk"].Algorithm != "SHA256" || m["b"].Algorithm != "SHA1" || len(m["c"].Sum) != 64 {
		t.Errorf("%+v, %v", m, err)
	}
	for says, p := range map[string]string{
		"line 1": "SHA256 a = " + sum, "MD5": "MD5(a)= " + sum[:32], "no SHA1 digest": "SHA1(a)= " + sum, "no SHA256": "SHA256(a) " + sum,
		"line 2 of the manifest is the second": "SHA256(a)= " + sum + "\nSHA256(a)= " + sum, "the most is": strings.Repeat(" ", ova.MaxManifest+1),
	} {
		if _, err := ova.ParseManifest([]byte(p)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}

// FuzzParse: what is returned is in bounds and harmless.
func FuzzParse(f *testing.F) {
	f.Add([]byte(vmware))
	f.Add([]byte(`<Envelope><References><File id="a" href="b"/></References><DiskSection><Disk diskId="c" fileRef="a" capacity="1" capacityAllocationUnits="MegaBytes"/></DiskSection></Envelope>`))
	f.Fuzz(func(t *testing.T, p []byte) {
		pack, err := ova.Parse(p)
		if err != nil {
			return
		}
		for _, d := range pack.Disks {
			if d.Capacity < 0 || d.FileSize < -1 || d.File != "" && !filepath.IsLocal(d.File) || strings.ContainsAny(d.File, ":\\\x00") {
				t.Fatalf("%+v", d)
			}
		}
	})
}

// FuzzParseManifest: each file has a digest of the right length.
func FuzzParseManifest(f *testing.F) {
	f.Add([]byte("SHA1(b)=" + strings.Repeat("ab", 20)))
	f.Fuzz(func(t *testing.T, p []byte) {
		m, err := ova.ParseManifest(p)
		if err != nil {
			return
		}
		for name, d := range m {
			if len(d.Sum) != d.Hash().Size() {
				t.Fatalf("%q: %+v", name, d)
			}
		}
	})
}
