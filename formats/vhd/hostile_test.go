package vhd_test

import (
	"bytes"
	"context"
	"errors"
	"math"
	"runtime"
	"strings"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/vhd"
)

// end is the footer at the end, without a copy that could stand in for it.
func end(change func(p image, at int)) image {
	s := tiny()
	s.noCopy = true
	p := s.make()
	change(p, len(p)-512)
	return p.sum(len(p)-512, 512, 64)
}

// head changes the dynamic disk header.
func head(change func(p image)) image {
	p := tiny().make()
	change(p)
	return p.seal()
}

// entry changes a table entry.
func entry(i int, sector uint32) image { return tiny().make().u32(tableAt+4*i, sector) }

func TestHostile(t *testing.T) {
	fixed := tinyFixed().make()
	for _, c := range []struct {
		name   string
		image  image
		class  error
		text   string // part of the message
		offset int64
		late   bool // the headers are fine
	}{
		{"nothing", nil, formats.ErrCorrupt, "footer is missing", 0, false},
		{"no footer", make(image, 4096), formats.ErrCorrupt, "footer is missing", 3584, false},
		{"short file", make(image, 511), formats.ErrCorrupt, "footer is missing", 0, false},
		{"fixed, checksum", tinyFixed().make().u8(6144+64, 1), formats.ErrCorrupt, "footer's checksum", 6144 + 64, false},
		{"dynamic, both checksums", tiny().make().u8(100, 1).u8(tinyEnd+100, 1), formats.ErrCorrupt, "footer's checksum", tinyEnd + 64, false},
		{"fixed disk's first sector is no copy", append(append(tinyFixed().footer(), fixed[512:6144]...), make(image, 512)...), formats.ErrCorrupt, "footer is missing", 6144, false},
		{"version 2", end(func(p image, at int) { p.u32(at+12, 2<<16) }), formats.ErrUnsupported, "version 2.0", tinyEnd + 12, false},
		{"version 0", end(func(p image, at int) { p.u32(at+12, 0) }), formats.ErrUnsupported, "version 0.0", tinyEnd + 12, false},
		{"type 0", end(func(p image, at int) { p.u32(at+60, 0) }), formats.ErrUnsupported, "disk type 0", tinyEnd + 60, false},
		{"type 5", end(func(p image, at int) { p.u32(at+60, 5) }), formats.ErrUnsupported, "disk type 5", tinyEnd + 60, false},
		{"type 2^32-1", end(func(p image, at int) { p.u32(at+60, math.MaxUint32) }), formats.ErrUnsupported, "disk type 4294967295", tinyEnd + 60, false},

		{"size 0", end(func(p image, at int) { p.u64(at+48, 0) }), formats.ErrCorrupt, "no bytes", tinyEnd + 48, false},
		{"size over 2040 GiB", end(func(p image, at int) { p.u64(at+48, 2040<<30+1) }), formats.ErrUnsupported, "virtual size", tinyEnd + 48, false},
		{"size 2^63", end(func(p image, at int) { p.u64(at+48, 1<<63) }), formats.ErrUnsupported, "virtual size", tinyEnd + 48, false},
		{"size 2^64-1", end(func(p image, at int) { p.u64(at+48, math.MaxUint64) }), formats.ErrUnsupported, "virtual size", tinyEnd + 48, false},
		{"fixed, size over file", spec{kind: 2, size: 6145, content: formatstest.Noise(1, 6144)}.make(), formats.ErrCorrupt, "the file holds 6144", 6144 + 48, false},
		{"fixed, geometry over file", spec{kind: 2, creator: "vpc ", chs: [3]int{65535, 255, 255}, size: 512, content: formatstest.Noise(1, 512)}.make(), formats.ErrCorrupt, "the file holds 512", 512 + 48, false},
		{"fixed, a footer alone", spec{kind: 2, size: 512}.make(), formats.ErrCorrupt, "the file holds 0", 48, false},

		{"header past the end", end(func(p image, at int) { p.u64(at+16, uint64(len(p)-1023)) }), formats.ErrCorrupt, "header reaches past", tinyEnd + 16, false},
		{"header at 2^63", end(func(p image, at int) { p.u64(at+16, 1<<63) }), formats.ErrCorrupt, "header reaches past", tinyEnd + 16, false},
		{"header nowhere", end(func(p image, at int) { p.u64(at+16, math.MaxUint64) }), formats.ErrCorrupt, "header reaches past", tinyEnd + 16, false},
		{"header's cookie", tiny().make().u8(headerAt, 'C'), formats.ErrCorrupt, "header is missing", headerAt, false},
		{"header's checksum", tiny().make().u8(headerAt+900, 1), formats.ErrCorrupt, "header's checksum", headerAt + 36, false},
		{"header's version", head(func(p image) { p.u32(headerAt+24, 3<<16|1) }), formats.ErrUnsupported, "version 3.1", headerAt + 24, false},
		{"blocks of 0", head(func(p image) { p.u32(headerAt+32, 0) }), formats.ErrCorrupt, "block size is 0", headerAt + 32, false},
		{"blocks of 256", head(func(p image) { p.u32(headerAt+32, 256) }), formats.ErrCorrupt, "block size is 256", headerAt + 32, false},
		{"blocks of 4097", head(func(p image) { p.u32(headerAt+32, 4097) }), formats.ErrCorrupt, "block size is 4097", headerAt + 32, false},
		{"blocks of 2^32-1", head(func(p image) { p.u32(headerAt+32, math.MaxUint32) }), formats.ErrCorrupt, "block size is 4294967295", headerAt + 32, false},
		{"blocks of 2 GiB", head(func(p image) { p.u32(headerAt+32, 1<<31) }), formats.ErrCorrupt, "reaches past the end", tableAt, true},
		{"table of 0", head(func(p image) { p.u32(headerAt+28, 0) }), formats.ErrCorrupt, "too few", headerAt + 28, false},
		{"table of 3", head(func(p image) { p.u32(headerAt+28, 3) }), formats.ErrCorrupt, "too few", headerAt + 28, false},
		{"table past the end", head(func(p image) { p.u64(headerAt+16, tinyEnd+512-15) }), formats.ErrCorrupt, "table reaches past", headerAt + 16, false},
		{"table of 16 GiB", head(func(p image) { p.u32(headerAt+28, math.MaxUint32) }), formats.ErrCorrupt, "table reaches past", headerAt + 16, false},
		{"table at 2^64", head(func(p image) { p.u64(headerAt+16, math.MaxUint64) }), formats.ErrCorrupt, "table reaches past", headerAt + 16, false},

		{"block in the footer", entry(1, tinyEnd/512), formats.ErrCorrupt, "disk offset 4096, at file offset 15872, reaches past", tableAt + 4, true},
		{"block's end in the footer", entry(0, (tinyEnd-tinyStride)/512+1), formats.ErrCorrupt, "reaches past", tableAt, true},
		{"block far past the end", entry(3, math.MaxUint32-1), formats.ErrCorrupt, "reaches past", tableAt + 12, true},
		{"block in the copy", entry(1, 0), formats.ErrCorrupt, "over the headers", tableAt + 4, true},
		{"block in the header", entry(1, 2), formats.ErrCorrupt, "over the headers", tableAt + 4, true},
		{"block in the table", entry(1, tableAt/512), formats.ErrCorrupt, "over the headers", tableAt + 4, true},
		{"the same block twice", entry(1, tinyData/512), formats.ErrCorrupt, "two blocks overlap", tinyData, true},
		{"blocks that touch", entry(1, tinyData/512+1), formats.ErrCorrupt, "two blocks overlap", tinyData + 512, true},
		{"file cut", tiny().make()[:tinyEnd-1], formats.ErrCorrupt, "reaches past", tableAt + 12, true},
		{"file cut in the table", tiny().make()[:tableAt+15], formats.ErrCorrupt, "table reaches past", headerAt + 16, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			expect := func(what string, err error) {
				t.Helper()
				var e *formats.Error
				if !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.text) || strings.ContainsRune(err.Error(), '\n') ||
					!errors.As(err, &e) || e.Offset != c.offset {
					t.Errorf("%s: %v; want %v and %q at %d", what, err, c.class, c.text, c.offset)
				}
			}
			_, err := use(c.image)
			expect("open", err)
			in, err := vhd.Format().Info(context.Background(), formatstest.NewSource(c.image))
			if err != nil {
				t.Fatalf("info: %v", err)
			}
			if c.late {
				if in.Problem != nil {
					t.Errorf("info: %v", in.Problem)
				}
				list, _, err := findings(c.image)
				if err != nil || len(list) == 0 || list[len(list)-1].Leak {
					t.Errorf("check: %+v, %v", list, err)
				}
				return
			}
			expect("info", in.Problem)
		})
	}
}

func differencing(parent, relative string) spec {
	s := tiny()
	s.kind, s.parent, s.relative, s.parentID, s.parentAt = 4, parent, relative, "0123456789abcdef", 1000
	return s
}

// TestParentNames: the relative path is the best name, whatever order the locators have.
func TestParentNames(t *testing.T) {
	withAbsolute := differencing("name.vhd", `.\r.vhd`).make().str(headerAt+576, "W2ku").u32(headerAt+584, 4).u64(headerAt+592, locatorAt).seal()
	for name, c := range map[string]struct {
		image image
		want  string
	}{
		"name":                  {differencing("name.vhd", "").make(), "name.vhd"},
		"relative":              {differencing("name.vhd", `.\r.vhd`).make(), "./r.vhd"},
		"relative and absolute": {withAbsolute, "./r.vhd"},
		"absolute":              {append(image(nil), withAbsolute...).str(headerAt+600, "none").seal(), "./"},
		"locator at NULs":       {differencing("name.vhd", `.\r.vhd`).make().u64(headerAt+616, 400).seal(), "name.vhd"},
		"NULs behind":           {differencing("name.vhd", ".\\r.vhd\x00\x00").make(), "./r.vhd"},
		"drives":                {differencing(`d:\name.vhd`, `c:\r.vhd`).make(), `c:\r.vhd`},
		"drive, then a name":    {differencing(`..\name.vhd`, `c:\r.vhd`).make(), "../name.vhd"},
	} {
		in, err := vhd.Format().Info(context.Background(), formatstest.NewSource(c.image))
		if err != nil || len(in.Refs) != 1 || in.Refs[0] != (formats.Ref{Kind: formats.Parent, Name: c.want, Format: "vpc"}) {
			t.Errorf("%s: %+v, %v; want %q", name, in.Refs, err, c.want)
		}
	}
}

// TestProbe judges by the cookie, wherever it may lie.
func TestProbe(t *testing.T) {
	for name, c := range map[string]struct {
		image image
		want  bool
	}{
		"dynamic":      {tiny().make(), true},
		"fixed":        {tinyFixed().make(), true},
		"511":          {spec{kind: 2, size: 600, content: formatstest.Noise(1, 600), old: true}.make(), true},
		"bad checksum": {tinyFixed().make().u8(6144+100, 1), true},
		"only a copy":  {tiny().make()[:tinyEnd], true},
		"zeros":        {make(image, 4096), false},
		"elsewhere":    {make(image, 4096).str(1, "conectix"), false},
		"cut":          {image("conectix"), false},
	} {
		if ok, err := vhd.Format().Probe(formatstest.NewSource(c.image)); ok != c.want || err != nil {
			t.Errorf("%s: %v, %v", name, ok, err)
		}
	}
}

func TestInfo(t *testing.T) {
	s := tiny()
	s.creator, s.chs = "qemu", [3]int{3, 2, 3}
	in, err := vhd.Format().Info(context.Background(), formatstest.NewSource(s.make().both(func(p image, at int) { p.u8(at+84, 1) })))
	if err != nil || in.Problem != nil || in.Format != "vpc" || in.VirtualSize != 9216 || in.ClusterSize != tinyBlock {
		t.Fatalf("%+v, %v", in, err)
	}
	want := []formats.Property{
		{Name: "subformat", Value: "dynamic"}, {Name: "creator", Value: "qemu"}, {Name: "size by", Value: "geometry"},
		{Name: "current size", Value: uint64(s.size)}, {Name: "geometry", Value: "3/2/3"},
		{Name: "unique id", Value: "30313233-3435-3637-3839-616263646566"}, {Name: "saved state", Value: true},
	}
	if len(in.Specific) != len(want) {
		t.Fatalf("%+v", in.Specific)
	}
	for i, w := range want {
		if in.Specific[i] != w {
			t.Errorf("%+v, want %+v", in.Specific[i], w)
		}
	}
}

// TestFooterCounts: where footer and copy differ, the footer is right, as the specification has it.
func TestFooterCounts(t *testing.T) {
	p := tiny().make().u64(48, 4096).seal()
	if got, err := use(p); err != nil || !bytes.Equal(got, tiny().expected()) {
		t.Errorf("%v, or other content", err)
	}
}

// TestCheck: what is wrong is found, all of it, and what is right is counted.
func TestCheck(t *testing.T) {
	whole := formats.Checked{Clusters: 4, Allocated: 3, Fragmented: 2, End: tinyEnd + 512}
	for _, c := range []struct {
		name  string
		image image
		want  []string
		c     formats.Checked
	}{
		{"dynamic", tiny().make(), nil, whole},
		{"fixed", tinyFixed().make(), nil, formats.Checked{End: 6144 + 512}},
		{"in order", spec{size: 8192, content: formatstest.Noise(1, 8192), stored: []int{0, 1}}.make(), nil,
			formats.Checked{Clusters: 2, Allocated: 2, End: tinyData + 2*tinyStride + 512}},
		{"footer lost", tiny().make()[:tinyEnd], []string{"footer at the end is damaged"},
			formats.Checked{Clusters: 4, Allocated: 3, Fragmented: 2, End: tinyEnd}},
		{"copy lost", tiny().make().u8(0, 0), []string{"copy of the footer is damaged"}, whole},
		{"copy damaged", tiny().make().u8(7, 1).u8(100, 1), []string{"copy of the footer is damaged"}, whole},
		{"copy differs", tiny().make().u64(48, 8192).seal(), []string{"differs from the footer"}, whole},
		{"three faults", entry(0, 0).u32(tableAt+4, 1<<30).u32(tableAt+12, tinyData/512+3),
			[]string{"disk offset 0, at file offset 0, lies over", "disk offset 4096, at file offset 549755813888, reaches past", "two blocks overlap"},
			formats.Checked{Clusters: 4, Allocated: 4, Fragmented: 3, End: 1<<39 + tinyStride}},
	} {
		list, got, err := findings(c.image)
		if err != nil || got != c.c || len(list) != len(c.want) {
			t.Errorf("%s: %+v, %+v, %v; want %+v", c.name, list, got, err, c.c)
			continue
		}
		for i, f := range list {
			if !strings.Contains(f.What, c.want[i]) || f.Leak {
				t.Errorf("%s: %+v, want %q", c.name, f, c.want[i])
			}
		}
	}
	if _, _, err := findings(make([]byte, 1024)); !errors.Is(err, formats.ErrCorrupt) {
		t.Errorf("check of no image: %v", err)
	}
}

// TestLyingTableDoesNotAllocate: 16 GiB of table are claimed by a file of a few KiB, many times.
func TestLyingTableDoesNotAllocate(t *testing.T) {
	p := tiny().make().u32(headerAt+28, math.MaxUint32).both(func(p image, at int) { p.u64(at+48, 2040<<30) })
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 100 {
		if _, err := use(p); !errors.Is(err, formats.ErrCorrupt) {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
		t.Errorf("%d bytes allocated", n)
	}
}

// TestSmallBlocks: a table that would not be kept in memory is refused, even if it is there.
func TestSmallBlocks(t *testing.T) {
	s := spec{size: 16<<30 + 1, block: 2048}
	_, err := vhd.Format().Open(context.Background(), formatstest.NewSource(s.make()), nil)
	if !errors.Is(err, formats.ErrUnsupported) || !strings.Contains(err.Error(), "blocks of 2048 bytes are too small") {
		t.Error(err)
	}
}
