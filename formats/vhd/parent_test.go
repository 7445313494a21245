package vhd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/vhd"
	"imgferry/pipeline"
)

// parentDisk is the disk below child: dynamic, one block is not stored.
func parentDisk() spec {
	return spec{size: tiny().size, content: formatstest.Noise(30, 4*tinyBlock), stored: []int{0, 2, 3}, stamp: 900}
}

// child has all of a block, some sectors of two, and nothing of the last one.
func child() spec {
	s := differencing("", `.\p.vhd`)
	s.id = "fedcba9876543210"
	s.content, s.stored = formatstest.Noise(31, 4*tinyBlock), []int{2, 0, 1}
	s.partial = map[int]func(int) bool{0: func(k int) bool { return k == 0 || k == 3 || k == 4 }, 1: func(k int) bool { return k%2 == 1 }}
	return s
}

func below(files map[string]image) formats.Resolver {
	res := formatstest.Files{Bytes: map[string][]byte{}, Formats: []formats.Format{vhd.Format()}}
	for name, p := range files {
		res.Bytes[name] = p
	}
	return res
}

func TestDifferencing(t *testing.T) {
	res := below(map[string]image{"./p.vhd": parentDisk().make()})
	under := parentDisk().expected()
	fixed := tinyFixed()
	overFixed := child()
	overFixed.size, overFixed.stored = fixed.size, []int{1, 0}
	overFixed.content = formatstest.Noise(32, 2*tinyBlock)
	// A bitmap of several slices: blocks of 32 MiB have 8 KiB of it.
	large := spec{kind: 4, size: 64 << 20, block: 32 << 20, relative: "p", parentID: "0123456789abcdef", stored: []int{1}, content: formatstest.Text(1, 64<<20),
		partial: map[int]func(int) bool{1: func(k int) bool { return k > 100 && k < 40_000 && k%5000 > 7 }}}
	largeBelow := spec{size: 64 << 20, block: 32 << 20}
	cases := []formatstest.Case{
		{Name: "differencing", Image: child().make(), Size: child().size, Resolver: res, Content: bytes.NewReader(child().over(under))},
		{Name: "over a fixed disk", Image: overFixed.make(), Size: fixed.size, Resolver: below(map[string]image{"./p.vhd": fixed.make()}), Content: bytes.NewReader(overFixed.over(fixed.content))},
	}
	formatstest.Run(t, vhd.Format(), cases)
	img, err := vhd.Format().Open(context.Background(), formatstest.NewSource(large.make()), below(map[string]image{"p": largeBelow.make()}))
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	all := make([]byte, large.size)
	if _, err := img.ReadAt(all, 0); err != nil || !bytes.Equal(all, large.over(make([]byte, large.size))) {
		t.Errorf("bitmap of several slices: %v, or other content", err)
	}
}

// TestThreeLayers: a differencing disk may be another one's parent, and runs are of the layer that has them.
func TestThreeLayers(t *testing.T) {
	top := differencing("", `..\m.vhd`)
	top.parentID, top.stored, top.partial = "fedcba9876543210", []int{0}, map[int]func(int) bool{0: func(k int) bool { return k == 3 }}
	res := below(map[string]image{"../m.vhd": child().make(), "./p.vhd": parentDisk().make()})
	img, err := vhd.Format().Open(context.Background(), formatstest.NewSource(top.make()), res)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	all := make([]byte, top.size)
	if n, err := img.ReadAt(all, 0); n < len(all) || !bytes.Equal(all, top.over(child().over(parentDisk().expected()))) {
		t.Errorf("%v, or other content", err)
	}
	list := formatstest.Extents(t, img)
	for i, e := range []formats.Extent{
		{Offset: 0, Length: 512, HostOffset: tinyData + tinyStride + 512, File: "../m.vhd", Depth: 1},
		{Offset: 512, Length: 1024, HostOffset: tinyData + 1024, File: "./p.vhd", Depth: 2},
		{Offset: 1536, Length: 512, HostOffset: tinyData + 512 + 1536},
		{Offset: 2048, Length: 512, HostOffset: tinyData + tinyStride + 512 + 2048, File: "../m.vhd", Depth: 1},
	} {
		if i >= len(list) || list[i] != e {
			t.Fatalf("extent %d: want %+v in %+v", i, e, list)
		}
	}
}

// TestParentsAccepted: what two programs mean by a parent's time stamp, and sizes by another creator.
func TestParentsAccepted(t *testing.T) {
	for name, change := range map[string]func(child, parent *spec){
		"unknown":             func(c, p *spec) { c.parentAt = 0 },
		"of the footer":       func(c, p *spec) { c.parentAt = p.stamp },
		"of the last change":  func(c, p *spec) { c.parentAt = math.MaxUint32 },
		"in local time":       func(c, p *spec) { c.parentAt, p.stamp = 100_000, 100_000+14*3600 },
		"by another program":  func(c, p *spec) { p.creator, p.chs = "vpc ", [3]int{3, 3, 3} },
		"footer of 511 bytes": func(c, p *spec) { c.old, p.old = true, true },
	} {
		c, p := child(), parentDisk()
		change(&c, &p)
		if _, err := formatstest.ReadAll(vhd.Format(), formatstest.NewSource(c.make()), below(map[string]image{"./p.vhd": p.make()})); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestHostileParents: what can be wrong between a disk and its parent, refused by place.
func TestHostileParents(t *testing.T) {
	c, n := formats.ErrCorrupt, formats.ErrNotAllowed
	parent := func(change func(s *spec)) image { s := parentDisk(); change(&s); return s.make() }
	same := parent(func(*spec) {})
	raw := func(change func(p image)) image { p := child().make(); change(p); return p.seal() }
	named := func(name string) image { s := child(); s.relative = name; return s.make() }
	for _, x := range []struct {
		name   string
		image  image
		parent image // nil: no resolver
		class  error
		text   string
		offset int64
		late   bool // info has no problem with it
	}{
		{"not allowed", child().make(), nil, n, `needs the parent disk "./p.vhd"`, headerAt, true},
		{"no name", named(""), same, n, "it is empty", headerAt, true},
		{"drive", named(`C:\p.vhd`), same, n, `"C:\\p.vhd" has a drive`, headerAt, true},
		{"share", named(`\\server\p.vhd`), same, n, "a share", headerAt, true},
		{"URL", named("nbd://x\ny"), same, n, `"nbd://x\ny" is not the name of a file: it is that of a protocol`, headerAt, true},
		{"NUL", named("p.vhd\x00x"), same, n, "zero byte", headerAt, true},

		{"another parent", child().make(), parent(func(s *spec) { s.id = "another disk id!" }), c,
			"unique id 616e6f74-6865-7220-6469-736b20696421, the disk is based on 30313233-3435-3637-3839-616263646566", headerAt + 40, true},
		{"younger parent", child().make(), parent(func(s *spec) { s.stamp = 1000 + 24*3600 + 1 }), c, "made at time stamp 87401, after the one of the disk's parent, 1000", headerAt + 56, true},
		{"larger parent", child().make(), parent(func(s *spec) { s.size += 512 }), c, `the disk has 13824 bytes, its parent disk "./p.vhd" 14336`, tinyEnd + 48, true},
		{"smaller parent", child().make(), parent(func(s *spec) { s.size -= 512 }), c, `the disk has 13824 bytes, its parent disk "./p.vhd" 13312`, tinyEnd + 48, true},
		{"parent is none", child().make(), make(image, 4096), c, `in "./p.vhd": vpc: corrupt image: not a VHD image`, 3584, true},
		{"parent is broken", child().make(), parentDisk().make().u32(tableAt, 1<<30), c, `in "./p.vhd": vpc: corrupt image: the block for disk offset 0`, tableAt, true},

		{"locator past the end", raw(func(p image) { p.u64(headerAt+616, math.MaxUint64-5) }), same, c, "is too long or not in the file", headerAt + 600, false},
		{"locator of 4 GiB", raw(func(p image) { p.u32(headerAt+608, math.MaxUint32) }), same, c, "is too long or not in the file", headerAt + 600, false},
		{"locator longer than the file", raw(func(p image) { p.u32(headerAt+608, 60000) }), same, c, "is too long or not in the file", headerAt + 600, false},
		{"half a pair", raw(func(p image) { p.str(locatorAt, "\x00\xd8") }), same, c, "is not UTF-16", headerAt + 600, false},
		{"half a pair in the header", raw(func(p image) { p.str(headerAt+64, "\xdc\x00") }), same, c, "is not UTF-16", headerAt + 64, false},

		{"bitmap past the end", child().make().u32(tableAt+4, tinyEnd/512), same, c, "reaches past the end", tableAt + 4, true},
	} {
		t.Run(x.name, func(t *testing.T) {
			var res formats.Resolver
			if x.parent != nil {
				res = below(map[string]image{"./p.vhd": x.parent})
			}
			for _, text := range []string{x.text, fmt.Sprintf("(at file offset %d)", x.offset)} {
				formatstest.CheckRefused(t, vhd.Format(), formatstest.NewSource(x.image), res, x.class, text, x.late)
			}
		})
	}
}

// TestCycle: a disk that says it is its own parent is refused by the user's Resolver.
func TestCycle(t *testing.T) {
	dir := t.TempDir()
	s := child()
	s.id, s.relative = s.parentID, `.\self`
	if err := os.WriteFile(filepath.Join(dir, "self"), s.make(), 0o600); err != nil {
		t.Fatal(err)
	}
	o := pipeline.Opener{Table: []formats.Format{vhd.Format()}, Allow: []string{dir}}
	_, err := o.Open(context.Background(), filepath.Join(dir, "self"), "")
	if !errors.Is(err, formats.ErrCorrupt) || !strings.Contains(err.Error(), `"./self" leads back to a disk that is based on it`) {
		t.Error(err)
	}
}
