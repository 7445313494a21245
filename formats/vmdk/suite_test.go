package vmdk_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/vmdk"
)

const (
	evenSectors = 3 * buildGTEs * buildGrain              // three full grain tables
	oddSectors  = 2*buildGTEs*buildGrain + buildGrain + 3 // the last grain is cut
)

// cutSample is sample for oddSectors: the last grain holds 3 sectors.
func cutSample() content {
	c := sample(2*buildGTEs + 2)
	last := int64(2*buildGTEs + 1)
	c[last] = c[last][:3*sector]
	return c
}

// gap is a disk with a grain table that has nothing, and one that isn't there.
func gap() content {
	return content{0: formatstest.Text(1, grainLen), buildGTEs*2 + 1: formatstest.Noise(2, grainLen), buildGTEs*2 + 2: formatstest.Text(3, grainLen)}
}

// built are the images that no tool here writes.
func built() []formatstest.Case {
	var list []formatstest.Case
	add := func(name string, p file, sectors int64, c content) *formatstest.Case {
		list = append(list, formatstest.Case{Name: name, Image: p, Size: sectors * sector, Content: formatstest.Sparse(c.pieces()...)})
		return &list[len(list)-1]
	}
	even, odd := sample(3*buildGTEs), cutSample()
	self := selfDescriptor("monolithicSparse", evenSectors)
	for version := uint32(1); version <= 3; version++ {
		add(fmt.Sprint("plain ", version), buildPlain(version, evenSectors, even, nil, self).file, evenSectors, even)
		add(fmt.Sprint("plain cut ", version), buildPlain(version, oddSectors, odd, nil, self).file, oddSectors, odd)
		add(fmt.Sprint("zeroed ", version), buildPlain(version, evenSectors, gap(), []int64{3, 4, 5, 20, 47}, self).file, evenSectors, gap())
		add(fmt.Sprint("stream ", version), buildStream(version, evenSectors, even).file, evenSectors, even)
		add(fmt.Sprint("stream cut ", version), buildStream(version, oddSectors, odd).file, oddSectors, odd)
		add(fmt.Sprint("stream gap ", version), buildStream(version, evenSectors, gap()).file, evenSectors, gap())
	}
	add("CRLF", buildPlain(1, evenSectors, even, nil, strings.ReplaceAll(self, "\n", "\r\n")).file, evenSectors, even)
	add("unclean", buildPlain(1, evenSectors, even, nil, self).u8(72, 1), evenSectors, even)
	unused := buildPlain(1, evenSectors, even, nil, self)
	add("leak", append(unused.clone(), make(file, grainLen)...), evenSectors, even).Faulty = true

	// The primary directory is unusable.
	for name, damage := range map[string]func(plain) file{
		"elsewhere": func(b plain) file { return b.u64(56, 1<<40) },
		"missing":   func(b plain) file { return b.u64(56, 0) },
		"entry":     func(b plain) file { return b.u32(b.gd+4, 1<<31) },
	} {
		add("redundant directory, primary "+name, damage(buildPlain(1, evenSectors, even, nil, self)), evenSectors, even).Faulty = true
	}
	// The stream's directory is lost.
	for name, damage := range map[string]func(stream) file{
		"elsewhere":    func(b stream) file { return b.u64(b.footer+sector+56, 1<<40) },
		"missing":      func(b stream) file { return b.u64(b.footer+sector+56, 0) },
		"entry":        func(b stream) file { return b.u32(b.gd, 1<<31) },
		"footer":       func(b stream) file { return b.str(b.footer+sector, "kdmv") },
		"no footer":    func(b stream) file { return append(b.file[:b.footer:b.footer], marker(0, 0)...) },
		"no directory": func(b stream) file { return append(b.file[:b.gd-sector:b.gd-sector], marker(0, 0)...) },
		"progress": func(b stream) file {
			return append(append(b.file[:b.footer:b.footer], append(marker(1, 4), make(file, sector)...)...), marker(0, 0)...)
		},
	} {
		add("rebuilt, directory "+name, damage(buildStream(3, oddSectors, odd)), oddSectors, odd).Faulty = true
	}
	// VMware's own writer puts the directory before the grains, and ends the stream.
	front := buildStream(1, evenSectors, even)
	add("directory without footer", append(front.u64(56, uint64(front.gd/sector)).clone()[:front.footer], marker(0, 0)...), evenSectors, even)

	return append(list, several()...)
}

// several are disks of several extents.
func several() []formatstest.Case {
	a, b := sample(2*buildGTEs), cutSample()
	flat := formatstest.Noise(20, 10*sector)
	// The disk: a, 24 sectors of zeros, b.
	join := func() content {
		c := content{}
		for i, p := range a {
			c[i] = p
		}
		for i, p := range b {
			c[i+2*buildGTEs+3] = p
		}
		return c
	}()
	const aSectors = 2 * buildGTEs * buildGrain
	files := formatstest.Files{Bytes: map[string][]byte{
		"d-s001.vmdk": buildPlain(1, aSectors, a, nil, "").file,
		"d-s002.vmdk": buildPlain(3, oddSectors, b, nil, "").file,
		// The capacity is rounded up to a grain.
		"d-s003.vmdk": buildPlain(1, oddSectors+5, b, nil, "").file,
		"d-flat.vmdk": flat,
		"ä ö.vmdk":    flat,
	}}
	sparseLines := []string{
		fmt.Sprintf(`RW %d SPARSE "d-s001.vmdk"`, aSectors), "RW 24 ZERO", fmt.Sprintf(`RDONLY %d SPARSE "d-s002.vmdk"`, oddSectors),
	}
	rounded := append(sparseLines[:2:2], fmt.Sprintf(`RW %d SPARSE "d-s003.vmdk"`, oddSectors))
	sparse := describe("twoGbMaxExtentSparse", sparseLines...)
	flatContent := func(parts ...[]byte) io.ReaderAt { return bytes.NewReader(bytes.Join(parts, nil)) }
	size := int64(aSectors+24+oddSectors) * sector
	zeros := make([]byte, 7*sector)

	list := []formatstest.Case{
		{Name: "several sparse", Image: sparse, Size: size, Content: formatstest.Sparse(join.pieces()...), Resolver: files},
		{Name: "several sparse, rounded", Image: describe("twoGbMaxExtentSparse", rounded...), Size: size, Content: formatstest.Sparse(join.pieces()...), Resolver: files},
		{Name: "wrapped descriptor", Image: append(header(1, 1, 0).u64(28, 1).u64(36, 2), make(file, 2*sector).str(0, string(sparse))...),
			Size: size, Content: formatstest.Sparse(join.pieces()...), Resolver: files},
		{Name: "flat", Image: describe("monolithicFlat", `RW 10 FLAT "d-flat.vmdk" 0`), Size: 10 * sector, Content: flatContent(flat), Resolver: files},
		{Name: "flat pieces of one file", Image: describe("twoGbMaxExtentFlat", `RW 3 FLAT "d-flat.vmdk" 7`, "NOACCESS 7 ZERO", `RDONLY 7 FLAT "d-flat.vmdk"`),
			Size: 17 * sector, Content: flatContent(flat[7*sector:], zeros, flat[:7*sector]), Resolver: files},
		{Name: "vmfs", Image: describe("vmfs", `RW 10 VMFS "ä ö.vmdk"`), Size: 10 * sector, Content: flatContent(flat), Resolver: files},
		{Name: "later version, spaces", Image: []byte("# a comment\r\n\r\nversion=3\r\n  CID = 1234ABCD \r\nparentCID=ffffffff\r\nencoding=\"UTF-8\"\r\ncreateType = \"vmfs\"\r\nchangeTrackPath=\"x\"\r\nRW  10  VMFS  \"d-flat.vmdk\"\r\n"),
			Size: 10 * sector, Content: flatContent(flat), Resolver: files},
	}
	left := list[len(list)-1] // as QEMU leaves it when it writes a shorter CID
	left.Name, left.Image = "remains of a longer text", append(left.Image[:len(left.Image):len(left.Image)], "\x00\"\nRW 1 ZERO\n"...)
	list = append(list, left)
	for i := range list {
		list[i].AnyCut = true // a text may end behind any line
	}
	return list
}

func TestSuite(t *testing.T) {
	formatstest.Run(t, vmdk.Format(), built())
}

// TestSample compares VMware's own image with what qemu-img reads.
func TestSample(t *testing.T) {
	path := formatstest.Unpack(t, "testdata/iotest-version3.vmdk.bz2")
	compareWithQemu(t, path, 16<<30, false)
	if got, _ := qemu.Check(t, path); len(got) > 0 {
		t.Errorf("%+v", got)
	}
	in := qemu.Info(t, path)
	if property(in, "version") != "3" || property(in, "create type") != "streamOptimized" || property(in, "compressed") != "true" || len(in.Refs) != 0 {
		t.Errorf("%+v", in)
	}
}

// TestBuilt compares what the builder makes with what qemu-img reads, where it can: the tests'
// images are no dialect of their own.
func TestBuilt(t *testing.T) {
	formatstest.NeedTool(t, "qemu-img")
	n := 0
	for _, c := range built() {
		if c.Resolver != nil || c.Faulty && c.Name != "leak" {
			continue
		}
		n++
		t.Run(c.Name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk.vmdk")
			if err := os.WriteFile(path, c.Image, 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(qemu.Content(t, path))
			if err != nil {
				t.Fatal(err)
			}
			want := make([]byte, c.Size)
			if _, err := c.Content.ReadAt(want, 0); err != nil && err != io.EOF {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Error("qemu-img reads other content")
			}
			qemu.SameMap(t, path)
		})
	}
	if n < 15 {
		t.Errorf("only %d images", n)
	}
}

// TestExtentsOfSeveral: host offsets count in the extent's file, which is named.
func TestExtentsOfSeveral(t *testing.T) {
	c := several()[4] // flat pieces of one file
	img, err := vmdk.Format().Open(context.Background(), formatstest.NewSource(c.Image), c.Resolver)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	want := []formats.Extent{
		{Offset: 0, Length: 3 * sector, HostOffset: 7 * sector, File: "d-flat.vmdk"},
		{Offset: 3 * sector, Length: 7 * sector, Zero: true, HostOffset: -1},
		{Offset: 10 * sector, Length: 7 * sector, HostOffset: 0, File: "d-flat.vmdk"},
	}
	if got := formatstest.Extents(t, img); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func Example() {
	disk := buildStream(3, evenSectors, content{1: formatstest.Text(1, grainLen), 2: formatstest.Text(2, grainLen)})
	img, err := vmdk.Format().Open(context.Background(), formatstest.NewSource(disk.file), nil)
	if err != nil {
		panic(err)
	}
	defer img.Close()
	for e, err := range img.Extents(context.Background()) {
		if err != nil {
			panic(err)
		}
		fmt.Println(e.Offset, e.Length, e.Compressed)
	}
	// Output:
	// 0 4096 false
	// 4096 8192 true
	// 12288 184320 false
}
