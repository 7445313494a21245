package vmdk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/vmdk"
	"imgferry/pipeline"
)

// esxSectors is a disk of three tables, the last of which is cut within a grain; the one in the middle is not
// there.
const esxSectors = 2*esxSpan/sector + 20*buildGrain + 3

func esxContent(seed uint64) content {
	c := content{0: formatstest.Noise(seed, grainLen), 1: formatstest.Noise(seed+1, grainLen), 4095: formatstest.Noise(seed+2, grainLen),
		2 * 4096: formatstest.Noise(seed+3, grainLen), 2*4096 + 20: formatstest.Noise(seed+4, 3*sector)}
	for i := int64(100); i < 140; i += 3 {
		c[i] = formatstest.Noise(seed+uint64(i), grainLen)
	}
	return c
}

// other are grains of zeros and unmapped ones, over what the parent has.
var other = map[int64]uint64{2: 2, 3: 1, 101: 2, 4096 + 7: 2, 2*4096 + 1: 1}

// overlaid is what the disk reads as over its parent's bytes.
func overlaid(below []byte, size int64, c content, others map[int64]uint64) []byte {
	p := make([]byte, size)
	copy(p, below)
	for i, g := range c {
		copy(p[i*grainLen:], g)
	}
	for i := range others {
		clear(p[i*grainLen:][:grainLen])
	}
	return p
}

// chain is files of disks on each other, and what the last one reads as.
type chain struct {
	name  string
	files map[string][]byte
	open  string // the descriptor
	want  []byte
}

func chains() []chain {
	const size = esxSectors * sector
	a, b, c := esxContent(10), esxContent(300), content{5: formatstest.Noise(900, grainLen), 4097: formatstest.Noise(901, grainLen), 100: formatstest.Noise(902, grainLen)}
	flat := make([]byte, size)
	for off := 0; off < len(flat); off += 1 << 20 {
		copy(flat[off:], formatstest.Noise(uint64(off), 5000))
	}
	line := func(typ, file string) string { return fmt.Sprintf("RW %d %s %q", esxSectors, typ, file) }
	files := map[string][]byte{
		"cowd.vmdk":            describeChild("vmfsSparse", 0xa, 0xffffffff, "", line("VMFSSPARSE", "cowd-delta.vmdk")),
		"cowd-delta.vmdk":      buildCOWD(esxSectors, a).file,
		"se.vmdk":              describeChild("seSparse", 0xb, 0xffffffff, "", line("SESPARSE", "se-sesparse.vmdk")),
		"se-sesparse.vmdk":     buildSE(esxSectors, a, other).file,
		"flat.vmdk":            describeChild("vmfs", 0xc, 0xffffffff, "", line("VMFS", "flat-flat.vmdk")),
		"flat-flat.vmdk":       flat,
		"flat-1.vmdk":          describeChild("vmfsSparse", 0x10, 0xc, "flat.vmdk", line("VMFSSPARSE", "flat-1-delta.vmdk")),
		"flat-1-delta.vmdk":    buildCOWD(esxSectors, a).file,
		"flat-2.vmdk":          describeChild("seSparse", 0x11, 0x10, "flat-1.vmdk", line("SESPARSE", "flat-2-sesparse.vmdk")),
		"flat-2-sesparse.vmdk": buildSE(esxSectors, b, other).file,
		"flat-3.vmdk":          describeChild("twoGbMaxExtentSparse", 0x12, 0x11, "flat-2.vmdk", line("SPARSE", "flat-3-s001.vmdk")),
		"flat-3-s001.vmdk":     buildPlain(1, esxSectors, c, nil, "").file,
	}
	own := strings.Replace(selfDescriptor("monolithicSparse", esxSectors), "parentCID=ffffffff", "parentCID=0000000c\nparentFileNameHint=\"flat.vmdk\"", 1)
	files["mono.vmdk"] = buildPlain(1, esxSectors, c, []int64{6, 200}, own).file
	one := overlaid(flat, size, a, nil)
	two := overlaid(one, size, b, other)
	return []chain{
		{"vmfsSparse", files, "cowd.vmdk", overlaid(nil, size, a, nil)},
		{"seSparse", files, "se.vmdk", overlaid(nil, size, a, other)},
		{"vmfsSparse over flat", files, "flat-1.vmdk", one},
		{"seSparse over vmfsSparse over flat", files, "flat-2.vmdk", two},
		{"four layers", files, "flat-3.vmdk", overlaid(two, size, c, nil)},
		{"monolithicSparse over flat", files, "mono.vmdk", overlaid(flat, size, c, map[int64]uint64{6: 2, 200: 2})},
	}
}

// TestESX compares what the builder makes with what we and qemu-img read: content, map and info.
func TestESX(t *testing.T) {
	formatstest.NeedTool(t, "qemu-img")
	dir := t.TempDir()
	for i, c := range chains() {
		if i == 0 {
			for name, p := range c.files {
				if err := os.WriteFile(filepath.Join(dir, name), p, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(dir, c.open)
			want, err := os.ReadFile(qemu.Content(t, path))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(want, c.want) {
				t.Error("qemu-img reads other content than was built")
			}
			img := qemu.Open(t, path)
			got, err := io.ReadAll(io.NewSectionReader(img, 0, img.Size()))
			if err != nil || !bytes.Equal(got, c.want) {
				t.Errorf("%v, or other content", err)
			}
			qemu.SameMap(t, path)
			qemu.SameInfo(t, path)
			if list, _ := qemu.Check(t, path); len(list) > 0 {
				t.Errorf("check: %+v", list)
			}
		})
	}
	for _, name := range []string{"cowd-delta.vmdk", "se-sesparse.vmdk", "flat-2-sesparse.vmdk"} {
		list, sums := qemu.Check(t, filepath.Join(dir, name))
		if n := int64(len(esxContent(0))); len(list) > 0 || sums.Allocated != n || sums.Clusters != 2*4096+21 {
			t.Errorf("%s: %+v, %+v", name, list, sums)
		}
		in := qemu.Info(t, filepath.Join(dir, name))
		if !errors.Is(in.Problem, formats.ErrUnsupported) || !strings.Contains(in.Problem.Error(), "one extent of a disk") || in.VirtualSize != esxSectors*sector {
			t.Errorf("%s: %+v", name, in)
		}
	}
}

// TestESXSuite runs the suite over the chain of all kinds.
func TestESXSuite(t *testing.T) {
	var cases []formatstest.Case
	for _, c := range chains() {
		if c.open == "flat-3.vmdk" || c.open == "mono.vmdk" {
			cases = append(cases, formatstest.Case{Name: c.name, Image: c.files[c.open], Size: int64(len(c.want)), Content: bytes.NewReader(c.want),
				Resolver: formatstest.Files{Bytes: c.files}, AnyCut: c.open == "flat-3.vmdk"})
		}
	}
	formatstest.Run(t, vmdk.Format(), cases)
}

// TestHostileESX: what can be wrong in the extents of ESX, refused by place.
func TestHostileESX(t *testing.T) {
	cowd, se := buildCOWD(esxSectors, esxContent(1)), buildSE(esxSectors, esxContent(1), other)
	c, u := formats.ErrCorrupt, formats.ErrUnsupported
	end := int64(len(se.file))
	first := se.gt + 2*64*sector // the table of the disk's begin is the last one
	for _, x := range []struct {
		name   string
		image  file // of the extent
		class  error
		text   string
		offset int64
	}{
		{"COWD: header cut", cowd.file[:2047], c, "ends within the header", 2047},
		{"COWD: version", cowd.clone().u32(4, 2), u, "version 2", 4},
		{"COWD: capacity 0", cowd.clone().u32(12, 0), c, "capacity of 0", 12},
		{"COWD: grain of 0", cowd.clone().u32(16, 0), c, "grain size is 0", 16},
		{"COWD: grain of 3", cowd.clone().u32(16, 3), c, "grain size is 3", 16},
		{"COWD: grain of 2 TiB", cowd.clone().u32(16, 1<<31), c, "grain size is 2147483648", 16},
		{"COWD: directory too small", cowd.clone().u32(24, 2), c, "grain directory has 2 entries", 24},
		{"COWD: directory past the end", cowd.clone().u32(20, math.MaxUint32), c, "grain directory at sector 4294967295 reaches past", 20},
		{"COWD: no directory", cowd.clone().u32(20, 0), c, "no grain directory", 20},
		{"COWD: table past the end", cowd.clone().u32(cowd.gd, math.MaxUint32), c, "table for disk offset 0 reaches past", cowd.gd},
		{"COWD: grain past the end", cowd.clone().u32(cowd.gt, math.MaxUint32), c, "points past the end", cowd.gt},
		{"COWD: grain 1", cowd.clone().u32(cowd.gt, 1), c, "is a zeroed grain", cowd.gt},
		{"COWD: another size", buildCOWD(esxSectors+8, content{}).file, c, "the descriptor says", 88},
		{"COWD: in a hosted extent", buildPlain(1, esxSectors, content{}, nil, "").file, c, "not an extent of the type VMFSSPARSE", 0},

		{"SE: header cut", se.file[:511], c, "ends within the header", 511},
		{"SE: version", se.clone().u64(8, 0x200000002), u, "version 0x200000002", 8},
		{"SE: grain size", se.clone().u64(24, 16), u, "grain size is 16", 24},
		{"SE: table size", se.clone().u64(32, 128), u, "grain table size is 128", 32},
		{"SE: flags", se.clone().u64(40, 1), u, "flags field is 1", 40},
		{"SE: reserved", se.clone().u64(72, 1), u, "reserved field is 1", 72},
		{"SE: capacity 0", se.clone().u64(16, 0), c, "capacity of 0", 16},
		{"SE: capacity 2^64", se.clone().u64(16, math.MaxUint64), c, "63 bits", 16},
		{"SE: capacity over 64 TiB", se.clone().u64(16, 1<<37+1), c, "grain tables, at most 4194304", 16},
		{"SE: volatile header past the end", se.clone().u64(80, uint64(end/sector)), c, "volatile header at sector", 80},
		{"SE: volatile header at 2^64", se.clone().u64(80, math.MaxUint64), c, "volatile header at sector", 80},
		{"SE: volatile header's magic", se.clone().u64(sector, 0xcafebabe), c, "volatile header's magic", sector},
		{"SE: journal", se.clone().u64(sector+24, 1), u, "journal holds changes", sector + 24},
		{"SE: directory too small", se.clone().u64(136, 0), c, "grain directory has 0 entries", 136},
		{"SE: directory of 2^64", se.clone().u64(136, math.MaxUint64).u64(128, uint64(end/sector)), c, "grain directory at sector", 128},
		{"SE: directory at 2^64", se.clone().u64(128, math.MaxUint64), c, "grain directory", 128},
		{"SE: tables in the header", se.clone().u64(144, 0), c, "grain tables begin at sector 0", 144},
		{"SE: tables past the end", se.clone().u64(144, math.MaxUint64), c, "grain tables begin", 144},
		{"SE: grains in the header", se.clone().u64(192, 0), c, "grains begin at sector 0", 192},
		{"SE: grains past the end", se.clone().u64(192, math.MaxUint64), c, "grains begin", 192},
		{"SE: table's type", se.clone().u32(se.gd+4, 0x20000000), c, "directory's entry for disk offset 0 has an unknown type", se.gd},
		{"SE: table past the end", se.clone().u32(se.gd, math.MaxUint32), c, "table for disk offset 0 reaches past", se.gd},
		{"SE: grain's type", se.clone().u64(first, 4<<60), c, "has an unknown type", first},
		{"SE: grain of no type", se.clone().u64(first, 1), c, "has an unknown type", first},
		{"SE: grain past the end", se.clone().u64(first, 3<<60|1<<40), c, "points past the end", first},
		{"SE: grain at 2^60", se.clone().u64(first, math.MaxUint64>>2&^(1<<61)|3<<60), c, "points past the end", first},
	} {
		t.Run(x.name, func(t *testing.T) {
			typ, create := "VMFSSPARSE", "vmfsSparse"
			if strings.HasPrefix(x.name, "SE") {
				typ, create = "SESPARSE", "seSparse"
			}
			p := describe(create, fmt.Sprintf("RW %d %s \"e\"", esxSectors, typ))
			for _, text := range []string{x.text, fmt.Sprintf("(at file offset %d)", x.offset)} {
				files := formatstest.Files{Bytes: map[string][]byte{"e": x.image}}
				formatstest.CheckRefused(t, vmdk.Format(), formatstest.NewSource(p), files, x.class, text, true)
			}
			// The extent's own check knows too, unless it is about the descriptor.
			found := 0
			_, err := vmdk.Format().Check(context.Background(), formatstest.NewSource(x.image), func(formats.Finding) { found++ })
			if found == 0 && err == nil && !strings.Contains(x.text, "the descriptor says") && !strings.Contains(x.text, "not an extent") {
				t.Error("check finds nothing")
			}
		})
	}
}

// TestSharedTablesESX: small files of large disks, all of whose directory entries have the same table.
func TestSharedTablesESX(t *testing.T) {
	const tables = 4096
	cowd, se := buildCOWD(24, esxContent(1)), buildSE(24, esxContent(1), nil)
	cowdAt, seAt := cowd.sectors(), se.sectors()
	p := append(cowd.clone(), make(file, tables*4)...).u32(12, tables*4096*buildGrain).u32(20, cowdAt).u32(24, tables)
	q := append(se.clone(), make(file, tables*8)...).u64(16, tables*4096*buildGrain).u64(128, uint64(seAt)).u64(136, tables*8/sector)
	for i := range int64(tables) {
		p.u32(int64(cowdAt)*sector+i*4, uint32(cowd.gt/sector))
		q.u64(int64(seAt)*sector+i*8, 0x10000000<<32)
	}
	for name, p := range map[string]file{"vmfsSparse": p, "seSparse": q} {
		list, _ := formatstest.Check(t, vmdk.Format(), formatstest.NewSource(p))
		if len(list) != 1 || !strings.Contains(list[0].What, "has 4096 grain tables, the file has room for") {
			t.Errorf("%s: %+v", name, list)
		}
	}
}

// TestParents: a parent must be the one meant.
func TestParents(t *testing.T) {
	all := chains()[0].files
	with := func(change map[string][]byte) formatstest.Files {
		files := maps.Clone(all)
		maps.Copy(files, change)
		return formatstest.Files{Bytes: files}
	}
	line := fmt.Sprintf(`RW %d VMFSSPARSE "flat-1-delta.vmdk"`, esxSectors)
	named := func(hint string) []byte { return describeChild("vmfsSparse", 1, 0xc, hint, line) }
	larger := describeChild("vmfs", 0xc, 0xffffffff, "", `RW 5 VMFS "flat-flat.vmdk"`, `RW 5 ZERO`)
	c, u, n := formats.ErrCorrupt, formats.ErrUnsupported, formats.ErrNotAllowed
	for _, x := range []struct {
		name  string
		image []byte
		files formats.Resolver
		class error
		text  string
		late  bool // info has no problem with it
	}{
		{"drive", named(`C:\vm\flat.vmdk`), with(nil), n, `"C:\\vm\\flat.vmdk" has a drive`, true},
		{"share", named(`\\host\flat.vmdk`), with(nil), n, "a share", true},
		{"URL", named("nbd:x"), with(nil), n, "protocol", true},
		{"JSON", named("json:{}"), with(nil), n, "protocol", true},
		{"another parent", named("flat.vmdk"), with(map[string][]byte{"flat.vmdk": describeChild("vmfs", 0xd, 0xffffffff, "", `RW 5 VMFS "flat-flat.vmdk"`)}), c,
			`the parent disk "flat.vmdk" has the CID 0000000d, the disk is based on 0000000c`, true},
		{"another size", named("flat.vmdk"), with(map[string][]byte{"flat.vmdk": larger}), c, `its parent disk "flat.vmdk" 5120: they must be equal`, true},
		{"parent is an extent", named("flat-1-delta.vmdk"), with(nil), c, "has no descriptor", true},
		{"parent is none", named("flat.vmdk"), with(map[string][]byte{"flat.vmdk": make([]byte, 4096)}), c, `in "flat.vmdk": vmdk: corrupt image: not a VMDK file`, true},
		{"parent lacks an extent", named("flat.vmdk"), with(map[string][]byte{"flat-flat.vmdk": nil}), c, `in "flat.vmdk": vmdk: corrupt image: the extent file "flat-flat.vmdk" has 0 bytes`, true},
		{"no name", named(""), with(nil), c, "doesn't name it", false},
		{"a name without a CID", describeChild("vmfsSparse", 1, 0xffffffff, "flat.vmdk", line), with(nil), c, "says that there is none", false},
		{"flat", describeChild("vmfs", 1, 0xc, "flat.vmdk", `RW 5 VMFS "flat-flat.vmdk"`), with(nil), u, "a vmfs disk with the parent disk", false},
	} {
		t.Run(x.name, func(t *testing.T) {
			formatstest.CheckRefused(t, vmdk.Format(), formatstest.NewSource(x.image), x.files, x.class, x.text, x.late)
		})
	}
	// Nobody allowed the parent, which is embedded in a disk that needs nothing else.
	_, err := formatstest.ReadAll(vmdk.Format(), formatstest.NewSource(all["mono.vmdk"]), nil)
	if !errors.Is(err, n) || !strings.Contains(err.Error(), `needs the parent disk "flat.vmdk"`) {
		t.Error(err)
	}
	// Backslashes are for directories.
	in, err := vmdk.Format().Info(context.Background(), formatstest.NewSource(named(`..\base\flat.vmdk`)))
	if err != nil || in.Refs[len(in.Refs)-1].Name != "../base/flat.vmdk" {
		t.Errorf("%+v, %v", in.Refs, err)
	}
}

// TestQEMUChain: disks on each other that QEMU made and wrote to. After a write to the one below, neither reads the
// one above.
func TestQEMUChain(t *testing.T) {
	formatstest.NeedTool(t, "qemu-img")
	formatstest.NeedTool(t, "qemu-io")
	for _, options := range []string{"subformat=monolithicSparse", "subformat=monolithicSparse,zeroed_grain=on", "subformat=twoGbMaxExtentSparse"} {
		t.Run(options, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			base, middle, top := filepath.Join(dir, "base.vmdk"), filepath.Join(dir, "middle.vmdk"), filepath.Join(dir, "top.vmdk")
			qemu.Make(t, base, formatstest.Recipe{Size: 3 << 20, Pieces: formatstest.Disk(3 << 20), Options: options})
			for _, x := range [][2]string{{"base.vmdk", middle}, {"middle.vmdk", top}} {
				formatstest.Tool(t, "qemu-img", "create", "-q", "-f", "vmdk", "-o", options+",backing_fmt=vmdk,backing_file="+x[0], x[1])
				qemu.IO(t, x[1], "write -P 7 100k 200k", "write -P 9 1M 1k", "write -z 640k 128k", "write -P 3 2900k 100k")
			}
			for _, path := range []string{middle, top} {
				qemu.SameContent(t, path)
				qemu.SameMap(t, path)
				qemu.SameInfo(t, path)
			}
			qemu.IO(t, base, "write -P 1 0 1k")
			if out, err := exec.Command("qemu-img", "convert", "-f", "vmdk", "-O", "raw", middle, middle+".raw").CombinedOutput(); err == nil {
				t.Errorf("qemu-img reads it\n%s", out)
			}
			res := formatstest.Folder{Dir: dir, Formats: qemu.Formats, Source: qemu.Source}
			_, err := formatstest.ReadAll(vmdk.Format(), qemu.OpenSource(t, top), res)
			if !errors.Is(err, formats.ErrCorrupt) || !strings.Contains(err.Error(), `in "middle.vmdk": vmdk: corrupt image: the parent disk "base.vmdk" has the CID`) {
				t.Error(err)
			}
		})
	}
}

// TestCycle: a disk that says it is its own parent is refused by the user's Resolver.
func TestCycle(t *testing.T) {
	dir := t.TempDir()
	files := map[string][]byte{
		"self":  describeChild("vmfsSparse", 0xa, 0xa, "self", `RW 24 VMFSSPARSE "delta"`),
		"delta": buildCOWD(24, content{}).file,
	}
	for name, p := range files {
		if err := os.WriteFile(filepath.Join(dir, name), p, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	o := pipeline.Opener{Table: []formats.Format{vmdk.Format()}, Allow: []string{dir}}
	_, err := o.Open(context.Background(), filepath.Join(dir, "self"), "")
	if !errors.Is(err, formats.ErrCorrupt) || !strings.Contains(err.Error(), `"self" leads back to a disk that is based on it`) {
		t.Error(err)
	}
}
