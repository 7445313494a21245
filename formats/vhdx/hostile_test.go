package vhdx_test

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/vhdx"
)

// changed is tiny's file with a change in its first 4 MiB, of size bytes; its checksums are right.
func changed(size int64, change func(p image)) formats.Source {
	p, blocks, _ := tiny().make()
	change(p)
	return formatstest.NewSparseSource(size, append(blocks, formatstest.Piece{Data: p.seal()})...)
}

// twice changes both headers or both region tables.
func twice(first, second int, change func(p image, at int)) formats.Source {
	return changed(tinyEnd, func(p image) { change(p, first); change(p, second) })
}

func headers(change func(p image, at int)) formats.Source { return twice(header1, header2, change) }
func regions(change func(p image, at int)) formats.Source { return twice(regions1, regions2, change) }

// items changes the metadata.
func items(change func(p image)) formats.Source { return changed(tinyEnd, change) }

// entry changes the table's entry of a block.
func entry(block int, e uint64) formats.Source {
	return changed(tinyEnd, func(p image) { p.u64(batAt+8*block, e) })
}

// Entries in tiny's tables, by their order.
const (
	batEntry       = 16
	metadataEntry  = 48
	unknownEntry   = 80
	parametersItem = metadataAt + 32
	sizeItem       = parametersItem + 32
	sixthItem      = parametersItem + 5*32
)

func TestHostile(t *testing.T) {
	for _, c := range []struct {
		name   string
		src    formats.Source
		class  error
		text   string // part of the message
		offset int64
		late   bool // headers and metadata are fine
	}{
		{"nothing", formatstest.NewSparseSource(0), formats.ErrCorrupt, "file ends before the file type identifier", 0, false},
		{"zeros", formatstest.NewSparseSource(8 * mib), formats.ErrCorrupt, "signature is missing", 0, false},
		{"signature alone", formatstest.NewSparseSource(600, formatstest.Piece{Data: []byte("vhdxfile")}), formats.ErrCorrupt, "file ends before the headers", 600, false},
		{"a file of 257 TiB", changed(257<<40, func(image) {}), formats.ErrUnsupported, "more than any disk needs", -1, false},
		{"ends in the region tables", changed(regions2-1, func(p image) { p.u8(regions1, 0) }), formats.ErrCorrupt, "file ends before the region tables", regions2 - 1, false},

		{"no headers", headers(func(p image, at int) { p.u8(at, 0) }), formats.ErrCorrupt, "neither header", header1, false},
		{"header version", headers(func(p image, at int) { p.u16(at+66, 2) }), formats.ErrUnsupported, "version 2", header2 + 66, false},
		{"equal numbers", changed(tinyEnd, func(p image) { p.u64(header2+8, 7).u32(header2+68, 2*mib) }), formats.ErrCorrupt, "both headers have", header2 + 8, false},
		{"log unaligned", headers(func(p image, at int) { p.u64(at+72, mib+4096) }), formats.ErrCorrupt, "the log", header2 + 72, false},
		{"log in the headers", headers(func(p image, at int) { p.u64(at+72, 0) }), formats.ErrCorrupt, "the log", header2 + 72, false},
		{"log of half a MiB", headers(func(p image, at int) { p.u32(at+68, mib/2) }), formats.ErrCorrupt, "the log", header2 + 72, false},
		{"log at 2^64", headers(func(p image, at int) { p.u64(at+72, -mib&math.MaxUint64).u32(at+68, 2*mib) }), formats.ErrCorrupt, "the log", header2 + 72, false},
		{"log over the metadata", headers(func(p image, at int) { p.u32(at+68, 2*mib) }), formats.ErrCorrupt, "overlap", regions1 + metadataEntry, false},

		{"no region tables", regions(func(p image, at int) { p.u8(at, 0) }), formats.ErrCorrupt, "neither region table", regions1, false},
		{"2048 regions", regions(func(p image, at int) { p.u32(at+8, 2048) }), formats.ErrCorrupt, "2048 entries", regions1 + 8, false},
		{"2^32-1 regions", regions(func(p image, at int) { p.u32(at+8, math.MaxUint32) }), formats.ErrCorrupt, "4294967295 entries", regions1 + 8, false},
		{"2047 regions", regions(func(p image, at int) { p.u32(at+8, 2047) }), formats.ErrCorrupt, "doesn't lie on whole MiB", regions1 + unknownEntry, false},
		{"no regions", regions(func(p image, at int) { p.u32(at+8, 0) }), formats.ErrCorrupt, "lacks", regions1, false},
		{"no metadata", regions(func(p image, at int) { p.u32(at+8, 1) }), formats.ErrCorrupt, "lacks", regions1, false},
		{"the BAT twice", regions(func(p image, at int) { p.str(at+metadataEntry, batRegion) }), formats.ErrCorrupt, "listed twice", regions1 + metadataEntry, false},
		{"region unaligned", regions(func(p image, at int) { p.u64(at+batEntry+16, batAt+512) }), formats.ErrCorrupt, "doesn't lie on whole MiB", regions1 + batEntry, false},
		{"region in the headers", regions(func(p image, at int) { p.u64(at+batEntry+16, 0) }), formats.ErrCorrupt, "doesn't lie on whole MiB", regions1 + batEntry, false},
		{"region of 0", regions(func(p image, at int) { p.u32(at+batEntry+24, 0) }), formats.ErrCorrupt, "doesn't lie on whole MiB", regions1 + batEntry, false},
		{"region around 2^64", regions(func(p image, at int) { p.u64(at+batEntry+16, -mib&math.MaxUint64).u32(at+batEntry+24, 2*mib) }), formats.ErrCorrupt, "doesn't lie on whole MiB", regions1 + batEntry, false},
		{"regions overlap", regions(func(p image, at int) { p.u32(at+metadataEntry+24, 2*mib) }), formats.ErrCorrupt, "overlap", regions1 + batEntry, false},
		{"unknown region required", regions(func(p image, at int) {
			p.u32(at+8, 3).str(at+unknownEntry, "an unknown guid!").u64(at+unknownEntry+16, 64*mib).u32(at+unknownEntry+24, mib).u32(at+unknownEntry+28, 1)
		}), formats.ErrUnsupported, "75206E61-6B6E-6F6E-776E-206775696421 is required", regions1 + unknownEntry, false},
		{"metadata past the end", regions(func(p image, at int) { p.u64(at+metadataEntry+16, 1<<62) }), formats.ErrCorrupt, "metadata table reaches past", regions1 + metadataEntry, false},
		{"table past the end", regions(func(p image, at int) { p.u64(at+batEntry+16, 1<<40) }), formats.ErrCorrupt, "needs 5 entries", regions1 + batEntry, false},
		{"table cut", changed(batAt+39, func(p image) {}), formats.ErrCorrupt, "needs 5 entries", regions1 + batEntry, false},
		{"table too small", items(func(p image) { p.u64(itemsAt+8, 200<<30) }), formats.ErrCorrupt, "needs 204849 entries", regions1 + batEntry, false},

		{"metadata signature", items(func(p image) { p.u8(metadataAt, 0) }), formats.ErrCorrupt, "metadata table's signature", metadataAt, false},
		{"2048 items", items(func(p image) { p.u16(metadataAt+10, 2048) }), formats.ErrCorrupt, "2048 entries", metadataAt + 10, false},
		{"65535 items", items(func(p image) { p.u16(metadataAt+10, 65535) }), formats.ErrCorrupt, "65535 entries", metadataAt + 10, false},
		{"2047 items", items(func(p image) { p.u16(metadataAt+10, 2047) }), formats.ErrCorrupt, "listed twice", sixthItem + 32, false},
		{"no items", items(func(p image) { p.u16(metadataAt+10, 0) }), formats.ErrCorrupt, "lack the file parameters", metadataAt, false},
		{"no physical sector size", items(func(p image) { p.u16(metadataAt+10, 4) }), formats.ErrCorrupt, "lack the physical sector size", metadataAt, false},
		{"a user's disk size", items(func(p image) { p.u32(sizeItem+24, 1) }), formats.ErrCorrupt, "lack the virtual disk size", metadataAt, false},
		{"an item twice", items(func(p image) { p.str(sizeItem, fileParameters) }), formats.ErrCorrupt, "listed twice", sizeItem, false},
		{"item in the table", items(func(p image) { p.u32(sizeItem+16, 65535) }), formats.ErrCorrupt, "outside its region", sizeItem, false},
		{"item past the region", items(func(p image) { p.u32(sizeItem+16, mib-7) }), formats.ErrCorrupt, "outside its region", sizeItem, false},
		{"item at 2^32", items(func(p image) { p.u32(sizeItem+16, math.MaxUint32) }), formats.ErrCorrupt, "outside its region", sizeItem, false},
		{"item of 4 GiB", items(func(p image) { p.u32(sizeItem+20, math.MaxUint32) }), formats.ErrCorrupt, "outside its region", sizeItem, false},
		{"item without bytes", items(func(p image) { p.u32(sizeItem+16, 0).u32(sizeItem+20, 0) }), formats.ErrCorrupt, "has 0 bytes, must have 8", sizeItem, false},
		{"item too long", items(func(p image) { p.u32(sizeItem+16, 80<<10).u32(sizeItem+20, 9) }), formats.ErrCorrupt, "has 9 bytes, must have 8", sizeItem, false},
		{"items overlap", items(func(p image) { p.u32(sizeItem+16, 64<<10+7) }), formats.ErrCorrupt, "overlap", sizeItem, false},
		{"unknown item required", items(func(p image) { p.u16(metadataAt+10, 6).str(sixthItem, "an unknown guid!").u32(sixthItem+24, 4) }), formats.ErrUnsupported, "is required", sixthItem, false},
		{"unknown user item required", items(func(p image) { p.u16(metadataAt+10, 6).str(sixthItem, diskSize).u32(sixthItem+24, 5) }), formats.ErrUnsupported, "is required", sixthItem, false},
		{"items cut", changed(itemsAt+15, func(p image) {}), formats.ErrCorrupt, "file ends before the metadata item virtual disk size", itemsAt + 15, false},

		{"blocks of 0", items(func(p image) { p.u32(itemsAt, 0) }), formats.ErrCorrupt, "block size is 0", metadataAt, false},
		{"blocks of 512 KiB", items(func(p image) { p.u32(itemsAt, mib/2) }), formats.ErrCorrupt, "block size is 524288", metadataAt, false},
		{"blocks of 3 MiB", items(func(p image) { p.u32(itemsAt, 3*mib) }), formats.ErrCorrupt, "block size is 3145728", metadataAt, false},
		{"blocks of 512 MiB", items(func(p image) { p.u32(itemsAt, 512*mib) }), formats.ErrCorrupt, "block size is 536870912", metadataAt, false},
		{"size 0", items(func(p image) { p.u64(itemsAt+8, 0) }), formats.ErrCorrupt, "virtual size is 0", metadataAt, false},
		{"size over 64 TiB", items(func(p image) { p.u64(itemsAt+8, 64<<40+512) }), formats.ErrCorrupt, "virtual size", metadataAt, false},
		{"size 2^64-1", items(func(p image) { p.u64(itemsAt+8, math.MaxUint64) }), formats.ErrCorrupt, "virtual size", metadataAt, false},
		{"half a sector", items(func(p image) { p.u64(itemsAt+8, 4*mib+256) }), formats.ErrCorrupt, "not a multiple", metadataAt, false},
		{"sectors of 1024", items(func(p image) { p.u32(itemsAt+32, 1024) }), formats.ErrCorrupt, "logical sector size is 1024", metadataAt, false},
		{"sectors of 0", items(func(p image) { p.u32(itemsAt+32, 0) }), formats.ErrCorrupt, "logical sector size is 0", metadataAt, false},
		{"physical sectors of 520", items(func(p image) { p.u32(itemsAt+36, 520) }), formats.ErrCorrupt, "physical sector size is 520", metadataAt, false},
		{"parent without a locator", items(func(p image) { p.u32(itemsAt+4, 2) }), formats.ErrCorrupt, "no parent locator", metadataAt, false},

		{"block past the end", entry(0, tinyEnd|6), formats.ErrCorrupt, "disk offset 0 lies at 7340032, past the end", batAt, true},
		{"block far past the end", entry(0, 0xfffffffffff00006), formats.ErrCorrupt, "past the end", batAt, true},
		{"block in the headers", entry(2, 0|6), formats.ErrCorrupt, "disk offset 2097152 lies at 0, over something else", batAt + 16, true},
		{"block in the log", entry(2, logAt|6), formats.ErrCorrupt, "over something else", batAt + 16, true},
		{"block in the metadata", entry(2, metadataAt|6), formats.ErrCorrupt, "over something else", batAt + 16, true},
		{"block in the table", entry(2, batAt|6), formats.ErrCorrupt, "over something else", batAt + 16, true},
		{"the same block twice", entry(2, blocksAt|6), formats.ErrCorrupt, "over something else", batAt + 24, true},
		{"partially present", entry(1, blocksAt|7), formats.ErrCorrupt, "disk offset 1048576 is partially present", batAt + 8, true},
		{"state 4", entry(1, 4), formats.ErrCorrupt, "unknown state 4", batAt + 8, true},
		{"file cut", changed(tinyEnd-mib+6*512-1, func(p image) {}), formats.ErrCorrupt, "past the end", batAt + 32, true},
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
			expect("open", use(c.src))
			in, err := vhdx.Format().Info(context.Background(), c.src)
			if err != nil {
				t.Fatalf("info: %v", err)
			}
			if c.late {
				if in.Problem != nil {
					t.Errorf("info: %v", in.Problem)
				}
				if list, _, err := findings(c.src); err != nil || len(list) != 1 || list[0].Leak || list[0].Offset != c.offset {
					t.Errorf("check: %+v, %v", list, err)
				}
				return
			}
			expect("info", in.Problem)
		})
	}
}

func TestInfo(t *testing.T) {
	s := tiny()
	s.flags, s.sector, s.size = 3, 4096, 4*mib+8192
	s.parent = append(linked(""), [][2]string{{"volume_path", `\\?\Volume{1}\p.vhdx`}, {"absolute_win32_path", `C:\p.vhdx`}}...)
	s.dataWrite = "fedcba9876543210"
	p := s.whole()
	logOf(nil).write(p)
	p.dirty()
	in, err := vhdx.Format().Info(context.Background(), formatstest.NewSource(p))
	if err != nil || in.Format != "vhdx" || in.VirtualSize != s.size || in.ClusterSize != mib || !in.Dirty {
		t.Fatalf("%+v, %v", in, err)
	}
	if len(in.Refs) != 1 || in.Refs[0] != (formats.Ref{Kind: formats.Parent, Name: `\\?\Volume{1}\p.vhdx`, Format: "vhdx"}) {
		t.Errorf("%+v", in.Refs)
	}
	want := []formats.Property{
		{Name: "creator", Value: "imgferry test"}, {Name: "log entries replayed", Value: int64(1)}, {Name: "subformat", Value: "differencing"}, {Name: "logical sector size", Value: int64(4096)},
		{Name: "physical sector size", Value: int64(4096)}, {Name: "virtual disk id", Value: "33323130-3534-3736-3839-616263646566"},
		{Name: "data write guid", Value: "63646566-6162-3839-3736-353433323130"}, {Name: "parent's data write guid", Value: parentLink},
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

// TestCheck: what is wrong is found, all of it, and what is right is counted.
func TestCheck(t *testing.T) {
	whole := formats.Checked{Clusters: 5, Allocated: 3, Fragmented: 2, End: blocksAt + 2*mib + 6*512}
	differencing := tiny()
	differencing.flags, differencing.parent = 2, linked("p")
	p := differencing.whole().u64(batAt+0, 7|tinyEnd).u64(batAt+8*4096, 6|(tinyEnd+mib))
	for _, c := range []struct {
		name string
		src  formats.Source
		want []string
		c    formats.Checked
	}{
		{"good", changed(tinyEnd, func(image) {}), nil, whole},
		{"header 1", changed(tinyEnd, func(p image) { p.u8(header1, 0) }), []string{"headers is damaged"}, whole},
		{"header 2", changed(tinyEnd, func(p image) { p.u8(header2, 0) }), []string{"headers is damaged"}, whole},
		{"region table 1", changed(tinyEnd, func(p image) { p.u8(regions1, 0) }), []string{"region tables is damaged"}, whole},
		{"region tables differ", changed(tinyEnd, func(p image) { p.u8(regions2+8, 1) }), []string{"region tables differ"}, whole},
		{"two faults", changed(tinyEnd, func(p image) { p.u64(batAt, 4).u64(batAt+16, 6|1<<40) }), []string{"unknown state 4", "past the end"}, whole},
		{"differencing", formatstest.NewSource(append(p, make([]byte, 2*mib)...)), nil,
			formats.Checked{Clusters: 5, Allocated: 4, Fragmented: 3, End: tinyEnd + 2*mib}},
		{"lost bitmap", formatstest.NewSource(p), []string{"disk offset 0 lies at 7340032, past the end", "sector bitmap in entry 4096 lies at 8388608, past the end"}, whole},
	} {
		list, got, err := findings(c.src)
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
	if _, _, err := findings(formatstest.NewSparseSource(mib)); !errors.Is(err, formats.ErrCorrupt) {
		t.Errorf("check of no image: %v", err)
	}
}

// TestQemuRefusesToo: what is broken here is for qemu-img check.
func TestQemuRefusesToo(t *testing.T) {
	for name, change := range map[string]func(p image){
		"good":               nil,
		"dirty":              func(p image) { p.str(header2+48, "x").u16(header2+64, 1) },
		"no headers":         func(p image) { p.u8(header1, 0).u8(header2, 0) },
		"region table":       func(p image) { p.u8(regions1, 0).u8(regions2, 0) },
		"regions overlap":    func(p image) { p.u32(regions1+72, 2*mib).u32(regions2+72, 2*mib) },
		"unknown item":       func(p image) { p.u16(metadataAt+10, 6).str(sixthItem, "an unknown guid!").u32(sixthItem+24, 4) },
		"block past the end": func(p image) { p.u64(batAt, tinyEnd|6) },
		"blocks of 3 MiB":    func(p image) { p.u32(itemsAt, 3*mib) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk.vhdx")
			p := tiny().whole()
			if change != nil {
				change(p)
			}
			if err := os.WriteFile(path, p.seal(), 0o600); err != nil {
				t.Fatal(err)
			}
			compareCheck(t, path, change == nil)
		})
	}
}

// TestLyingSizeDoesNotAllocate: 64 TiB of table are claimed by a file of a few MiB, many times.
func TestLyingSizeDoesNotAllocate(t *testing.T) {
	src := items(func(p image) { p.u64(itemsAt+8, 64<<40) })
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 20 {
		if err := use(src); !errors.Is(err, formats.ErrCorrupt) {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 {
		t.Errorf("%d bytes allocated", n)
	}
}

// TestInfoReadsLittle: tables and metadata, but not the block allocation table.
func TestInfoReadsLittle(t *testing.T) {
	src := &formatstest.Counted{Source: changed(tinyEnd, func(image) {})}
	if in, err := vhdx.Format().Info(context.Background(), src); err != nil || in.Problem != nil {
		t.Fatalf("%v, %v", in.Problem, err)
	}
	if src.N > 256<<10 {
		t.Errorf("info read %d bytes", src.N)
	}
}
