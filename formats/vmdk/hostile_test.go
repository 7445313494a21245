package vmdk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/vmdk"
)

// hostile is an image that must be refused.
type hostile struct {
	name  string
	image []byte
	class error
	text  string // part of the message
	late  bool   // the head is fine: info has no problem with it
}

func tinyPlain() plain {
	return buildPlain(1, evenSectors, sample(3*buildGTEs), nil, selfDescriptor("monolithicSparse", evenSectors))
}

func tinyStream() stream { return buildStream(3, evenSectors, sample(3*buildGTEs)) }

func hostileSparse() []hostile {
	const packed = 1<<16 | 1<<17
	c, u := formats.ErrCorrupt, formats.ErrUnsupported
	child := strings.Replace(selfDescriptor("monolithicSparse", evenSectors), "ffffffff", "11112222", 1) + "parentFileNameHint=\"/etc/base.vmdk\"\n"
	text := func(old, new string) file {
		s := selfDescriptor("monolithicSparse", evenSectors)
		if !strings.Contains(s, old) {
			panic(old)
		}
		return buildPlain(1, evenSectors, content{}, nil, strings.Replace(s, old, new, 1)).file
	}
	p := tinyPlain()
	g := p.entryAt(0)
	end := uint32(p.sectors())
	return []hostile{
		{"magic", p.clone().str(0, "KDMW"), c, "neither a header nor a descriptor", false},
		{"empty file", nil, c, "neither a header nor a descriptor", false},
		{"header cut", p.clone()[:511], c, "ends within the header (at file offset 511)", false},
		{"version 0", p.clone().u32(4, 0), u, "version 0", false},
		{"version 4", p.clone().u32(4, 4), u, "version 4", false},
		{"unknown flag", p.clone().u32(8, 3|1<<18), u, "unknown flags 0x40000", false},
		{"text transfer", p.clone().str(73, "\n \n\n"), c, "transfer as text", false},
		{"compression 2", p.clone().u16(77, 2), u, "compression algorithm 2", false},
		{"compression without flag", p.clone().u16(77, 1), c, "contradicts", false},
		{"flag without compression", p.clone().u32(8, 3|packed), c, "contradicts", false},
		{"compressed without markers", p.clone().u32(8, 3|1<<16).u16(77, 1), u, "without markers", false},
		{"markers without compression", p.clone().u32(8, 3|1<<17), u, "without compressed", false},

		{"capacity 0", p.clone().u64(12, 0).u64(28, 0), c, "capacity of 0", false},
		{"capacity 2^64", p.clone().u64(12, math.MaxUint64), c, "63 bits", false},
		{"capacity 2^54", p.clone().u64(12, 1<<54), c, "63 bits", false},
		{"capacity 2^53", p.clone().u64(12, 1<<53), c, "grain tables, at most", false},
		{"capacity beyond the directory", p.clone().u64(12, 1<<20), c, "grain", true},
		{"grain of 0", p.clone().u64(20, 0), c, "grain size is 0", false},
		{"grain of 7", p.clone().u64(20, 7), c, "grain size is 7", false},
		{"grain of 2 GiB", p.clone().u64(20, 1<<22), c, "grain size is 4194304", false},
		{"grain of 2^63", p.clone().u64(20, 1<<63), c, "grain size", false},
		{"compressed grain of 4 MiB", tinyStream().u64(20, 8192), u, "compressed grains of 8192 sectors", false},
		{"no entries", p.clone().u32(44, 0), c, "0 entries", false},
		{"513 entries", p.clone().u32(44, 513), c, "513 entries", false},
		{"2^32 entries", p.clone().u32(44, math.MaxUint32), c, "4294967295 entries", false},
		{"overhead past the end", p.clone().u64(64, uint64(end)+1), c, "past the end", false},
		{"overhead 2^64", p.clone().u64(64, math.MaxUint64), c, "past the end", false},
		{"descriptor past the end", p.clone().u64(28, uint64(end)), c, "descriptor reaches past", false},
		{"descriptor at 2^64", p.clone().u64(28, math.MaxUint64), c, "descriptor reaches past", false},
		{"descriptor of 1 MiB", p.clone().u64(36, 2049), c, "2049 sectors", false},
		{"descriptor of 2^64", p.clone().u64(36, math.MaxUint64), c, "at most 2048", false},
		{"no descriptor", p.clone().u64(28, 0), u, "one extent of a disk", false},
		{"wrapping cut", header(1, 1, 0).u64(28, 1).u64(36, 1), c, "descriptor reaches past", false},

		{"directory past the end", p.clone().u32(8, 1).u64(56, uint64(end)), c, "grain directory at sector", true},
		{"directory at 2^63", p.clone().u32(8, 1).u64(56, 1<<63), c, "grain directory at sector", true},
		{"directory at 0", p.clone().u32(8, 1).u64(56, 0), c, "no grain directory", true},
		{"directory at the end of what is no stream", p.clone().u32(8, 1).u64(56, math.MaxUint64), c, "no footer", true},
		{"both directories lost", p.clone().u64(56, 1<<40).u64(48, 1<<41), c, "grain directory at sector 1099511627776", true},
		{"table past the end", p.clone().u32(8, 1).u32(p.gd+4, end), c, fmt.Sprintf("table for disk offset %d reaches past the end of the file (at file offset %d)", tableSpan, p.gd+4), true},
		{"table at 2 TiB", p.clone().u32(8, 1).u32(p.gd, math.MaxUint32), c, "table for disk offset 0 reaches past", true},
		{"shared tables", sharedTables(), c, "the file has room for", true},

		{"grain past the end", p.clone().u32(g, end), c, fmt.Sprintf("entry for disk offset 0 points past the end of the file (at file offset %d)", g), true},
		{"grain at 2 TiB", p.clone().u32(p.entryAt(3), math.MaxUint32), c, fmt.Sprintf("disk offset %d points past", 3*grainLen), true},
		{"grain cut", p.cut(1), c, "points past the end", true},
		{"zeroed grain undeclared", p.clone().u32(g, 1), c, "zeroed grain, which the header says there are none of", true},

		{"text inside: another kind", text("monolithicSparse", "monolithicFlat"), u, "inside one of its extents", false},
		{"text inside: unknown kind", text("monolithicSparse", "fullDevice"), u, `createType "fullDevice"`, false},
		{"text inside: two extents", text("#DDB\n", "RW 1 SPARSE \"b\"\n"), u, "of 2 extents", false},
		{"text inside: flat", text("SPARSE", "FLAT"), u, `type "FLAT"`, false},
		{"text inside: garbage", text("#DDB", "DDB"), c, "neither a value nor an extent", false},
		{"child", buildPlain(1, evenSectors, content{}, nil, child).file, fs.ErrNotExist, `parent disk "/etc/base.vmdk"`, true},
	}
}

// sharedTables is a small file of a large disk: all directory entries have the same table.
func sharedTables() file {
	p := tinyPlain()
	p.u32(8, 1).u64(12, 64*1024*buildGTEs*buildGrain).u64(56, uint64(p.sectors()))
	gd := make(file, 64*1024*4)
	for i := range int64(64 * 1024) {
		gd.u32(i*4, uint32(p.gt/sector))
	}
	return append(p.file, gd...)
}

// oneGrain is a whole stream of a disk of one grain, whose marker is followed by stored.
func oneGrain(stored []byte) file {
	b := buildStream(3, buildGrain, content{0: formatstest.Noise(1, grainLen)})
	g := b.grains[0]
	p := append(b.clone()[:g:g], packedGrain(0, stored)...)
	p = append(append(p, marker(1, 1)...), make(file, sector).u32(0, uint32(g/sector))...)
	table := p.sectors() - 1
	p = append(append(p, marker(1, 2)...), make(file, sector).u32(0, table)...)
	foot := b.clone()[:sector].u64(56, uint64(p.sectors()-1))
	return slices.Concat(p, marker(1, 3), foot, marker(0, 0))
}

// cutStream is as oneGrain, but the disk ends 3 sectors into the grain.
func cutStream(stored []byte) file {
	p := oneGrain(stored)
	p.u64(12, 3)
	return p.u64(int64(len(p))-2*sector+12, 3)
}

func hostileStream() []hostile {
	c, u := formats.ErrCorrupt, formats.ErrUnsupported
	s := tinyStream()
	g := s.grains[0]
	next := s.grains[3]
	size := uint32(len(deflate(formatstest.Text(0, grainLen))))
	damaged := func(at int) []byte { p := deflate(formatstest.Noise(1, grainLen)); p[at] ^= 0x20; return p }
	stored := deflate(formatstest.Noise(1, grainLen))
	// lost is the stream without its directory.
	lost := func() file { return s.clone().u64(s.footer+sector+56, 1<<40) }
	return []hostile{
		{"footer of another disk", s.clone().u64(s.footer+sector+12, evenSectors+1), c, "footer contradicts", false},
		{"footer with other grains", s.clone().u64(s.footer+sector+20, 16), c, "footer contradicts", false},
		{"marker of another grain", s.clone().u64(g, buildGrain), c, fmt.Sprintf("marker is of disk sector 8, the grain table says 0 (at file offset %d)", g), true},
		{"marker between grains", s.clone().u64(g, 3), c, "disk sector 3", true},
		{"no marker", s.clone().u32(g+8, 0), c, "no compressed grain", true},
		{"grain into the next", s.clone().u32(g+8, uint32(next-g)), c, "reach into the next grain", true},
		{"grain of 4 GiB", s.clone().u32(g+8, math.MaxUint32), c, "reach into the next grain", true},
		{"last grain of 4 GiB", oneGrain(stored).u32(grainLen+8, math.MaxUint32), c, "are too many", true},
		{"two entries for one grain", s.clone().u32(s.gtAt+4, uint32(g/sector)), c, "the grain table says 8", true},
		{"entry past the end", s.clone().u32(s.gtAt, s.sectors()), c, "points past the end", true},
		{"zeroed grain undeclared", s.clone().u32(s.gtAt, 1), c, "zeroed grain", true},

		{"noise", oneGrain(formatstest.Noise(3, 600)), c, "can't decompress a grain", true},
		{"preset dictionary", oneGrain(damaged(1)), c, "can't decompress a grain", true},
		{"checksum", oneGrain(damaged(len(stored) - 1)), c, "match its checksum", true},
		{"content", oneGrain(damaged(100)), c, "match its checksum", true},
		{"cut before the checksum", oneGrain(stored[:len(stored)-4]), c, "cut short", true},
		{"cut", oneGrain(stored[:len(stored)/2]), c, "cut short", true},
		{"less than a grain", oneGrain(deflate(formatstest.Noise(1, grainLen-1))), c, "less than a grain", true},
		{"more than a grain", oneGrain(deflate(formatstest.Noise(1, grainLen+1))), c, "more than a grain", true},
		{"bomb", oneGrain(deflate(make([]byte, 4<<20))), c, "more than a grain", true},
		{"less than the rest", cutStream(deflate(formatstest.Noise(1, 3*sector-1))), c, "less than a grain", true},

		{"lost directory, cut", lost()[:s.footer], c, "without an end-of-stream marker", true},
		{"lost directory, cut in the grains", lost()[:next], c, "without an end-of-stream marker", true},
		{"lost directory, hole in the grains", append(lost()[:next:next], append(make(file, 4*sector), lost()[next:]...)...), c, "end-of-stream marker is not at the end", true},
		{"lost directory, marker between grains", lost().u64(g, 3), c, "no grain begins", true},
		{"lost directory, marker beyond the disk", lost().u64(g, evenSectors), c, "no grain begins", true},
		{"lost directory, grain twice", lost().u64(next, 0), c, "twice", true},
		{"lost directory, grain too long", lost().u32(g+8, 2*grainLen), c, "at most", true},
		{"lost directory, grain past the end", lost()[:g+sector], c, "past the end", true},
		{"lost directory, unknown marker", lost().u32(s.gd-sector+12, 5), c, "unknown type 5", true},
		{"lost directory, endless metadata", lost().u64(s.gd-sector, math.MaxUint64), c, "behind a marker reach past", true},
		{"lost directory, many tables", manyTables(), u, "of more than", true},
		{"size shrunk", s.clone().u32(g+8, size-1), c, "can't decompress", true},
	}
}

// manyTables is a stream without a directory that has one grain in each of very many tables.
func manyTables() file {
	const n, gtes = 16_000, 512
	p := header(3, 1|1<<16|1<<17, n*gtes*buildGrain).u32(44, gtes).u64(28, 1).u64(36, 4).u64(56, math.MaxUint64).u64(64, buildGrain)
	p = append(p, make(file, (buildGrain-1)*sector)...).str(sector, selfDescriptor("streamOptimized", n*gtes*buildGrain))
	z := deflate(make([]byte, grainLen))
	for i := range n {
		p = append(p, packedGrain(uint64(i)*gtes*buildGrain, z)...)
	}
	return append(p, marker(0, 0)...)
}

func hostileDescriptors() []hostile {
	c, u, n := formats.ErrCorrupt, formats.ErrUnsupported, formats.ErrNotAllowed
	flat := func(lines ...string) []byte { return describe("monolithicFlat", lines...) }
	one := `RW 10 FLAT "d-flat.vmdk" 0`
	return []hostile{
		{"no version", bytes.Replace(flat(one), []byte("version=1\n"), nil, 1), c, "no version", false},
		{"version 5", bytes.Replace(flat(one), []byte("version=1"), []byte("version=5"), 1), u, "descriptor version 5", false},
		{"version x", bytes.Replace(flat(one), []byte("version=1"), []byte("version=x"), 1), c, "no valid number (at file offset 22)", false},
		{"version twice", append(flat(one), "VERSION=1\n"...), c, "repeats a key", false},
		{"createType twice", append(flat(one), "createtype=\"vmfs\"\n"...), c, "repeats a key", false},
		{"no createType", []byte("# Disk DescriptorFile\nversion=1\n" + one + "\n"), c, "no createType", false},
		{"parentCID twice", append(flat(one), "PARENTCID=1ffffffff\n"...), c, "repeats a key", false},
		{"CID is no number", bytes.Replace(flat(one), []byte("CID=12345678"), []byte("CID=1ffffffff"), 1), c, "no valid number", false},
		{"stray quotation mark", append(flat(one), "ddb.x = \"a\"b\"\n"...), c, "stray quotation", false},
		{"no value", append(flat(one), "what is this\n"...), c, `"what is this" is neither`, false},
		{"too large", append(flat(one), bytes.Repeat([]byte("#\n"), 1<<19)...), c, "at most 1048576", false},

		{"no extents", flat(), c, "names no extents", false},
		{"too many extents", flat(slices.Repeat([]string{"RW 1 ZERO"}, 8193)...), c, "more extents", false},
		{"2^63 bytes", flat("RW 9007199254740992 ZERO", "RW 9007199254740992 ZERO"), c, "larger disk", false},
		{"2^64 sectors", flat("RW 18446744073709551616 ZERO"), c, "no valid size", false},
		{"0 sectors", flat("RW 0 ZERO"), c, "no valid size", false},
		{"-1 sectors", flat("RW -1 ZERO"), c, "no valid size", false},
		{"incomplete", flat("RW 10"), c, "is incomplete", false},
		{"no name", flat("RW 10 FLAT"), c, "names no file", false},
		{"empty name", flat(`RW 10 FLAT "" 0`), c, "name of 0 bytes", false},
		{"endless name", flat(`RW 10 FLAT "abc`), c, "without an end", false},
		{"long name", flat(`RW 10 FLAT "` + strings.Repeat("x", 1024) + `"`), c, "name of 1024 bytes", false},
		{"zeros in a file", flat(`RW 10 ZERO "/etc/shadow"`), c, `zeros names the file "/etc/shadow"`, false},
		{"offset -1", flat(`RW 10 FLAT "d-flat.vmdk" -1`), c, "no valid offset", false},
		{"offset 2^54", flat(`RW 10 FLAT "d-flat.vmdk" 18014398509481984`), c, "no valid offset", false},
		{"unknown access", flat(`RX 10 FLAT "d-flat.vmdk" 0`), c, "neither a value nor an extent", false},
		{"no access", flat(`NOACCESS 10 FLAT "d-flat.vmdk" 0`), u, "NOACCESS", false},
		{"offset in a sparse file", describe("twoGbMaxExtentSparse", `RW 10 SPARSE "d-flat.vmdk" 1`), c, "begins within", false},

		{"device", describe("fullDevice", `RW 10 FLAT "/dev/sda" 0`), u, `createType "fullDevice"`, false},
		{"partitions", describe("partitionedDevice", `RW 10 FLAT "/dev/sda" 0`), u, `createType "partitionedDevice"`, false},
		{"raw device map", describe("vmfsRawDeviceMap", `RW 10 VMFSRDM "x-rdm.vmdk"`), u, "vmfsRawDeviceMap", false},
		{"flat in vmfsSparse", describe("vmfsSparse", `RW 10 FLAT "/etc/shadow"`), u, `type "FLAT" in a vmfsSparse`, false},
		{"COWD in seSparse", describe("seSparse", `RW 10 VMFSSPARSE "/etc/shadow"`), u, `type "VMFSSPARSE" in a seSparse`, false},
		{"offset in COWD", describe("vmfsSparse", `RW 10 VMFSSPARSE "x-delta.vmdk" 1`), c, "begins within", false},
		{"made-up type", describe("nonsense", one), u, `"nonsense"`, false},
		{"self-contained kind", describe("monolithicSparse", `RW 10 SPARSE "d-s001.vmdk"`), u, "apart from the disk", false},
		{"sparse in flat", flat(`RW 10 SPARSE "d-s001.vmdk"`), u, `type "SPARSE" in a monolithicFlat`, false},
		{"flat in sparse", describe("twoGbMaxExtentSparse", `RW 10 FLAT "/etc/shadow" 0`), u, `type "FLAT" in a twoGbMaxExtentSparse`, false},
		{"device in flat", flat(`RW 10 VMFSRDM "/etc/shadow"`), u, "VMFSRDM", false},
		{"child", append(flat(one), "parentFileNameHint=\"/base.vmdk\"\n"...), u, `parent disk "/base.vmdk"`, false},
		{"child without a hint", bytes.Replace(flat(one), []byte("ffffffff"), []byte("00000000"), 1), u, "a monolithicFlat disk with the parent disk", false},

		{"nbd address", flat(`RW 10 FLAT "nbd:unix:/run/socket" 0`), n, "not the name of a file", false},
		{"URL", flat(`RW 10 FLAT "https://host/disk" 0`), n, "not the name of a file", false},
		{"JSON", flat(`RW 10 FLAT "json:{}" 0`), n, "not the name of a file", false},
		{"address in sparse", describe("twoGbMaxExtentSparse", `RW 10 SPARSE "nbd:1.2.3.4:10809"`), n, "not the name of a file", false},

		{"file too short", flat(`RW 11 FLAT "d-flat.vmdk" 0`), c, `"d-flat.vmdk" has 5120 bytes, too few for 5632 at offset 0`, true},
		{"file too short for the offset", flat(`RW 10 FLAT "d-flat.vmdk" 1`), c, "too few for 5120 at offset 512", true},
		{"file too short for a far offset", flat(`RW 10 FLAT "d-flat.vmdk" 18014398509481973`), c, "too few", true},
		{"sparse file is flat", describe("twoGbMaxExtentSparse", `RW 10 SPARSE "d-flat.vmdk"`), c, `in "d-flat.vmdk"`, true},
		{"sparse file too small", describe("twoGbMaxExtentSparse", `RW 300 SPARSE "d-s001.vmdk"`), c, "holds 256 sectors, the descriptor says 300", true},
		{"sparse file too large", describe("twoGbMaxExtentSparse", `RW 200 SPARSE "d-s001.vmdk"`), c, "holds 256 sectors, the descriptor says 200", true},
		{"sparse file twice", describe("twoGbMaxExtentSparse", `RW 256 SPARSE "d-s001.vmdk"`, `RW 256 SPARSE "d-s001.vmdk"`), c, "two extents", true},
		{"compressed extent", describe("twoGbMaxExtentSparse", `RW 384 SPARSE "packed.vmdk"`), u, "compressed extent", true},
		{"COWD extent", describe("twoGbMaxExtentSparse", `RW 24 SPARSE "cowd.vmdk"`), c, `in "cowd.vmdk": vmdk: corrupt image: the file is not an extent of the type SPARSE`, true},
		{"damaged extent", describe("twoGbMaxExtentSparse", `RW 384 SPARSE "damaged.vmdk"`), c, `in "damaged.vmdk": vmdk: corrupt image: the grain table entry`, true},
	}
}

// hostileFiles are what the hostile descriptors may open.
func hostileFiles() formatstest.Files {
	files := several()[0].Resolver.(formatstest.Files)
	p := tinyPlain()
	files.Bytes["packed.vmdk"] = tinyStream().file
	files.Bytes["cowd.vmdk"] = buildCOWD(24, content{}).file
	files.Bytes["damaged.vmdk"] = p.u32(p.entryAt(0), math.MaxUint32)
	return files
}

func TestHostile(t *testing.T) {
	files := hostileFiles()
	for _, c := range slices.Concat(hostileSparse(), hostileStream(), hostileDescriptors()) {
		t.Run(c.name, func(t *testing.T) {
			formatstest.CheckRefused(t, vmdk.Format(), formatstest.NewSource(c.image), files, c.class, c.text, c.late)
		})
	}
}

// TestNeedsPermission: no file is opened without a Resolver, and info lists what would be.
func TestNeedsPermission(t *testing.T) {
	p := describe("twoGbMaxExtentFlat", `RW 10 FLAT "/etc/shadow" 0`, `RW 10 FLAT "/etc/shadow" 10`, "RW 3 ZERO", `RW 5 FLAT "..\up" 0`)
	_, err := formatstest.ReadAll(vmdk.Format(), formatstest.NewSource(p), nil)
	if !errors.Is(err, formats.ErrNotAllowed) || !strings.Contains(err.Error(), `extent file "/etc/shadow"`) {
		t.Errorf("%v", err)
	}
	in, err := vmdk.Format().Info(context.Background(), formatstest.NewSource(p))
	want := []formats.Ref{{Kind: formats.ExtentOf, Name: "/etc/shadow", Format: "raw"}, {Kind: formats.ExtentOf, Name: `..\up`, Format: "raw"}}
	if err != nil || in.Problem != nil || in.VirtualSize != 28*sector || !slices.Equal(in.Refs, want) || property(in, "extent count") != "4" {
		t.Errorf("%+v, %v", in, err)
	}
	// The Resolver's refusal is the answer.
	if _, err := formatstest.ReadAll(vmdk.Format(), formatstest.NewSource(p), formatstest.Files{}); err == nil || !strings.Contains(err.Error(), "/etc/shadow") {
		t.Errorf("%v", err)
	}
}

// TestInfoOfChild: a child tells all it can without its parent.
func TestInfoOfChild(t *testing.T) {
	s := strings.Replace(selfDescriptor("monolithicSparse", evenSectors), "parentCID=ffffffff", "parentCID=000000ff\nparentFileNameHint=\"base.vmdk\"", 1)
	in, err := vmdk.Format().Info(context.Background(), formatstest.NewSource(buildPlain(1, evenSectors, content{}, nil, s).u8(72, 1)))
	if err != nil || in.Problem != nil || !in.Dirty || in.ClusterSize != grainLen || in.VirtualSize != evenSectors*sector {
		t.Errorf("%+v, %v", in, err)
	}
	if want := []formats.Ref{{Kind: formats.Parent, Name: "base.vmdk", Format: "vmdk"}}; !slices.Equal(in.Refs, want) {
		t.Errorf("%+v", in.Refs)
	}
	want := []formats.Property{
		{Name: "cid", Value: int64(0x12345678)}, {Name: "parent cid", Value: int64(0xff)}, {Name: "create type", Value: "monolithicSparse"},
		{Name: "version", Value: int64(1)}, {Name: "compressed", Value: false}, {Name: "zeroed grains", Value: false},
	}
	if !slices.Equal(in.Specific, want) {
		t.Errorf("%+v", in.Specific)
	}
}

// trackedSource counts closes.
type trackedSource struct {
	formats.Source
	open *int
}

func (s trackedSource) Close() error { *s.open--; return s.Source.Close() }

// trackedFiles is a resolver that counts what is open.
type trackedFiles struct {
	formatstest.Files
	open *int
}

func (f trackedFiles) Resolve(ctx context.Context, r formats.Ref) (formats.Source, formats.Resolver, error) {
	src, res, err := f.Files.Resolve(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	*f.open++
	return trackedSource{src, f.open}, res, nil
}

// TestExtentFilesAreClosed: by Close, and by an Open that fails.
func TestExtentFilesAreClosed(t *testing.T) {
	open := 0
	res := trackedFiles{hostileFiles(), &open}
	good := several()[0].Image
	img, err := vmdk.Format().Open(context.Background(), formatstest.NewSource(good), res)
	if err != nil || open != 2 {
		t.Fatal(open, err)
	}
	img.Close()
	if open != 0 {
		t.Errorf("%d files open after Close", open)
	}
	bad := describe("twoGbMaxExtentSparse", `RW 256 SPARSE "d-s001.vmdk"`, `RW 384 SPARSE "packed.vmdk"`)
	if _, err := formatstest.ReadAll(vmdk.Format(), formatstest.NewSource(bad), res); err == nil || open != 0 {
		t.Errorf("%d files open after a failed Open: %v", open, err)
	}
}

// TestLyingHeadersTakeNoMemory: nothing is allocated because a header says so.
func TestLyingHeadersTakeNoMemory(t *testing.T) {
	p := tinyPlain()
	for name, image := range map[string][]byte{
		"directory of 32 MiB":                 p.clone().u64(12, 8<<20*buildGTEs*buildGrain),
		"grains of 1 GiB":                     p.clone().u64(20, 1<<21),
		"lost directory of 32 MiB, no stream": tinyStream().cut(sector).u64(12, 8<<20*buildGTEs*buildGrain),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := formatstest.ReadAll(vmdk.Format(), formatstest.NewSource(image), nil)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 2<<20 {
			t.Errorf("%s: %d bytes allocated, %v", name, n, err)
		}
	}
}

// TestOverlappingTables: tables that are their own data, or each other's, end in wrong bytes or an
// error, at once; the checker finds them.
func TestOverlappingTables(t *testing.T) {
	p := tinyPlain()
	for _, entry := range []int64{p.gd, p.gt, p.rgd, 2 * sector} {
		q := p.clone()
		for i := range int64(buildGTEs) {
			q.u32(p.gt+i*4, uint32(entry/sector))
		}
		if _, err := formatstest.ReadAll(vmdk.Format(), formatstest.NewSource(q), nil); err != nil && !errors.Is(err, formats.ErrCorrupt) {
			t.Errorf("%d: %v", entry, err)
		}
		if list, _ := formatstest.Check(t, vmdk.Format(), formatstest.NewSource(q)); len(list) == 0 {
			t.Errorf("%d: the checker finds nothing", entry)
		}
	}
}
