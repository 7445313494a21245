package vhdx_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/vhdx"
	"imgferry/pipeline"
)

// Contents that are made once.
var (
	parentContent = formatstest.Sparse(formatstest.Piece{Data: formatstest.Noise(40, 5*mib)})
	childContent  = formatstest.Sparse(formatstest.Piece{Data: formatstest.Noise(41, 5*mib)})
)

// parentDisk is the disk below child.
func parentDisk() spec {
	return spec{
		size: 4*mib + 6*512, dataWrite: parentGUID, stored: []int{0, 1, 3, 4},
		content: parentContent,
	}
}

// child has blocks of every state: all of them its own, some of their sectors, the parent's, zeros.
func child() spec {
	return spec{
		size: 4*mib + 6*512, flags: 2, parent: linked(`.\p.vhdx`), stored: []int{4, 1, 0},
		content: childContent,
		states:  map[int]uint64{2: 3, 3: 0},
		partial: map[int]func(int) bool{
			1: func(k int) bool { return k < 7 || k%97 < 13 || k >= 2000 },
			4: func(k int) bool { return k == 0 || k == 4 || k == 5 }, // the disk ends behind sector 5
		},
	}
}

// below are files that the resolver opens.
func below(files map[string]image) formats.Resolver {
	res := formatstest.Files{Bytes: map[string][]byte{}, Formats: []formats.Format{vhdx.Format()}}
	for name, p := range files {
		res.Bytes[name] = p
	}
	return res
}

// bytesOf is what the disk s reads as over the bytes of its parent.
func bytesOf(s spec, under []byte) io.ReaderAt { return bytes.NewReader(s.over(under)) }

func TestDifferencing(t *testing.T) {
	under := parentDisk().over(nil)
	res := below(map[string]image{"./p.vhdx": parentDisk().whole()})
	sectors, sectorsBelow := child(), parentDisk()
	sectors.sector, sectors.size, sectorsBelow.sector, sectorsBelow.size = 4096, 4*mib+8192, 4096, 4*mib+8192
	sectors.partial = map[int]func(int) bool{1: func(k int) bool { return k%3 == 1 }, 4: func(k int) bool { return k == 1 }}
	larger, smaller := parentDisk(), parentDisk()
	larger.size = 5 * mib
	smaller.size, smaller.stored = mib+512*9, []int{0, 1}
	blocks := child() // of another size than the parent's
	blocks.block, blocks.stored, blocks.states = 2*mib, []int{2, 0}, nil
	blocks.partial = map[int]func(int) bool{0: func(k int) bool { return k%1000 < 500 }, 2: child().partial[4]}
	merging := child()
	merging.parent = append([][2]string{{"parent_linkage", "{00000000-0000-0000-0000-000000000001}"}, {"parent_linkage2", "{" + strings.ToLower(parentLink) + "}"}}, merging.parent[1:]...)
	dirty := child().whole()
	good := bytes.Clone(dirty)
	copy(dirty[batAt:], formatstest.Noise(2, 4096))
	logOf([]change{page(good, batAt)}).write(dirty)

	for _, c := range []formatstest.Case{
		{Name: "every state", Image: child().whole(), Resolver: res, Content: bytesOf(child(), under)},
		{Name: "sectors of 4096", Image: sectors.whole(), Resolver: below(map[string]image{"./p.vhdx": sectorsBelow.whole()}), Content: bytesOf(sectors, sectorsBelow.over(nil))},
		{Name: "larger parent", Image: child().whole(), Resolver: below(map[string]image{"./p.vhdx": larger.whole()}), Content: bytesOf(child(), larger.over(nil))},
		{Name: "smaller parent", Image: child().whole(), Resolver: below(map[string]image{"./p.vhdx": smaller.whole()}), Content: bytesOf(child(), smaller.over(nil))},
		{Name: "other blocks", Image: blocks.whole(), Resolver: res, Content: bytesOf(blocks, under)},
		{Name: "while merging", Image: merging.whole(), Resolver: res, Content: bytesOf(merging, under)},
		{Name: "dirty", Image: dirty.dirty(), Resolver: res, Content: bytesOf(child(), under)},
	} {
		img, err := vhdx.Format().Open(context.Background(), formatstest.NewSource(c.Image), c.Resolver)
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		want := make([]byte, img.Size())
		c.Content.ReadAt(want, 0)
		got := make([]byte, img.Size())
		if _, err := img.ReadAt(got, 0); err != nil && err != io.EOF || !bytes.Equal(got, want) {
			t.Errorf("%s: %v, or other content", c.Name, err)
		}
		img.Close()
		if list, _, err := findings(formatstest.NewSource(c.Image)); len(list) > 0 || err != nil {
			t.Errorf("%s: check: %v, %v", c.Name, list, err)
		}
	}
	formatstest.Run(t, vhdx.Format(), []formatstest.Case{{Name: "suite", Image: child().whole(), Size: child().size, Resolver: res, Content: bytesOf(child(), under)}})
}

// TestThreeLayers: runs are of the layer that has them.
func TestThreeLayers(t *testing.T) {
	middle := child()
	middle.dataWrite = "fedcba9876543210"
	top := spec{size: child().size, flags: 2, stored: []int{0}, content: formatstest.Sparse(formatstest.Piece{Data: formatstest.Noise(42, mib)}),
		parent:  [][2]string{{"parent_linkage", "{63646566-6162-3839-3736-353433323130}"}, {"absolute_win32_path", `\\?\d:\m.vhdx`}, {"relative_path", `..\m.vhdx`}},
		partial: map[int]func(int) bool{0: func(k int) bool { return k >= 2000 }}}
	res := below(map[string]image{"../m.vhdx": middle.whole(), "./p.vhdx": parentDisk().whole()})
	img, err := vhdx.Format().Open(context.Background(), formatstest.NewSource(top.whole()), res)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	want := top.over(middle.over(parentDisk().over(nil)))
	got := make([]byte, len(want))
	if _, err := img.ReadAt(got, 0); err != nil && err != io.EOF || !bytes.Equal(got, want) {
		t.Errorf("%v, or other content", err)
	}
	list := formatstest.Extents(t, img)
	for i, e := range []formats.Extent{
		{Offset: 0, Length: 2000 * 512, HostOffset: blocksAt + 2*mib, File: "../m.vhdx", Depth: 1},
		{Offset: 2000 * 512, Length: 48 * 512, HostOffset: blocksAt + 2000*512},
		{Offset: mib, Length: 13 * 512, HostOffset: blocksAt + mib, File: "../m.vhdx", Depth: 1},
		{Offset: mib + 13*512, Length: (97 - 13) * 512, HostOffset: blocksAt + mib + 13*512, File: "./p.vhdx", Depth: 2},
	} {
		if i >= len(list) || list[i] != e {
			t.Fatalf("extent %d: want %+v in %+v", i, e, list)
		}
	}
}

// TestChunksOfBitmaps: each chunk has a sector bitmap of its own.
func TestChunksOfBitmaps(t *testing.T) {
	const block = 256 * mib
	s := spec{block: block, flags: 2, parent: linked("p")}
	last := s.ratio() + 1 // the second block of the second chunk
	s.size = int64(last+1) * block
	s.stored, s.partial = []int{last}, map[int]func(int) bool{last: func(k int) bool { return k == 300_000 }}
	const sector = 300_000 * 512
	at := int64(last)*block + sector
	s.content = formatstest.Sparse(formatstest.Piece{Offset: at, Data: formatstest.Noise(1, 512)})
	p, pieces, size := s.make()
	parent := spec{block: block, size: s.size, dataWrite: parentGUID}
	img, err := vhdx.Format().Open(context.Background(), formatstest.NewSparseSource(size, append(pieces, formatstest.Piece{Data: p})...), below(map[string]image{"p": parent.whole()}))
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	list := formatstest.Extents(t, img)
	if len(list) != 3 || list[1] != (formats.Extent{Offset: at, Length: 512, HostOffset: blocksAt + sector}) {
		t.Errorf("%+v", list)
	}
}

// TestHostileParents: what can be wrong between a disk and its parent, refused by place.
func TestHostileParents(t *testing.T) {
	locatorAt := int64(itemsAt + 8 + 8 + 16 + 4 + 4)
	with := func(change func(s *spec)) spec { s := child(); change(&s); return s }
	named := func(entries ...[2]string) image {
		return with(func(s *spec) { s.parent = append(linked("")[:1], entries...) }).whole()
	}
	raw := func(change func(p image, at int)) image { p := child().whole(); change(p, int(locatorAt)); return p }
	parent := func(change func(s *spec)) map[string]image {
		s := parentDisk()
		change(&s)
		return map[string]image{"./p.vhdx": s.whole()}
	}
	same := parent(func(*spec) {})
	c, u, n := formats.ErrCorrupt, formats.ErrUnsupported, formats.ErrNotAllowed
	for _, x := range []struct {
		name   string
		image  image
		files  map[string]image // nil: no resolver
		class  error
		text   string
		offset int64
		late   bool // info has no problem with it
	}{
		{"not allowed", child().whole(), nil, n, `needs the parent disk "./p.vhdx"`, locatorAt, true},
		{"drive", named([2]string{"absolute_win32_path", `C:\p.vhdx`}), same, n, `"C:\\p.vhdx" has a drive`, locatorAt, true},
		{"long path", named([2]string{"absolute_win32_path", `\\?\C:\p.vhdx`}), same, n, `has a drive, a share`, locatorAt, true},
		{"share", named([2]string{"relative_path", `\\server\share\p.vhdx`}), same, n, `has a drive, a share`, locatorAt, true},
		{"volume", named([2]string{"volume_path", `\\?\Volume{1}\p.vhdx`}), same, n, `has a drive, a share`, locatorAt, true},
		{"URL", named([2]string{"relative_path", `nbd://x/p`}), same, n, "protocol", locatorAt, true},
		{"json", named([2]string{"relative_path", `json:{"driver":"raw"}`}), same, n, "protocol", locatorAt, true},
		{"NUL", named([2]string{"relative_path", "p.vhdx\x00x"}), same, n, "zero byte", locatorAt, true},
		{"no name", named(), same, n, "it is empty", locatorAt, true},

		{"another parent", child().whole(), parent(func(s *spec) { s.dataWrite = "another disk id!" }), c,
			"has the data write GUID 746F6E61-6568-2072-6469-736B20696421, the disk is based on " + parentLink, locatorAt, true},
		{"parent's sectors", with(func(s *spec) { s.sector, s.size, s.partial = 4096, 4*mib+8192, nil }).whole(), same, c, "logical sectors of 512 bytes, the disk of 4096", locatorAt, true},
		{"parent is none", child().whole(), map[string]image{"./p.vhdx": make(image, 4096)}, c, `in "./p.vhdx": vhdx: corrupt image: not a VHDX image`, 0, true},
		{"parent is broken", child().whole(), map[string]image{"./p.vhdx": parentDisk().whole().u64(batAt, 4)}, c, `in "./p.vhdx": vhdx: corrupt image: the block for disk offset 0 has the unknown state 4`, batAt, true},

		{"locator of another type", raw(func(p image, at int) { p.u8(at, 0) }), same, u, "unknown type", locatorAt, false},
		{"65535 keys", raw(func(p image, at int) { p.u16(at+18, 65535) }), same, c, "has 65535 keys", locatorAt + 18, false},
		{"more keys than room", raw(func(p image, at int) { p.u16(at+18, 20) }), same, c, "has 20 keys", locatorAt + 18, false},
		{"key past the end", raw(func(p image, at int) { p.u32(at+20, 1<<32-1) }), same, c, "key 0", locatorAt + 20, false},
		{"value past the end", raw(func(p image, at int) { p.u32(at+32+4, 1000) }), same, c, "key 1", locatorAt + 32, false},
		{"long value", raw(func(p image, at int) { p.u16(at+32+10, 65534) }), same, c, "key 1", locatorAt + 32, false},
		{"odd length", raw(func(p image, at int) { p.u16(at+32+10, 7) }), same, c, "key 1", locatorAt + 32, false},
		{"half a pair", raw(func(p image, at int) { p.u16(len(locatorHead(p, at)), 0xd800) }), same, c, "key 0", locatorAt + 20, false},
		{"key twice", named([2]string{"relative_path", "a"}, [2]string{"relative_path", "b"}), same, c, "key 2 of the parent locator is there twice", locatorAt + 44, false},
		{"no linkage", with(func(s *spec) { s.parent = s.parent[1:] }).whole(), same, c, `parent_linkage is ""`, locatorAt, false},
		{"linkage without braces", with(func(s *spec) { s.parent[0][1] = parentLink }).whole(), same, c, "must be a GUID in braces", locatorAt, false},
		{"linkage of other letters", with(func(s *spec) { s.parent[0][1] = "{" + parentLink[:35] + "x}" }).whole(), same, c, "must be a GUID in braces", locatorAt, false},
		{"linkage with signs", with(func(s *spec) { s.parent[0][1] = "{+" + parentLink[1:] + "}" }).whole(), same, c, "must be a GUID in braces", locatorAt, false},
		{"second linkage", with(func(s *spec) { s.parent = append(s.parent, [2]string{"parent_linkage2", "{}"}) }).whole(), same, c, "parent_linkage2 is", locatorAt, false},

		{"bitmap missing", child().whole().u64(batAt+8*4096, 0), same, c, "sector bitmap in entry 4096 is missing", batAt + 8*4096, true},
		{"bitmap's state", child().whole().u64(batAt+8*4096, 7*mib|7), same, c, "sector bitmap in entry 4096 has the unknown state 7", batAt + 8*4096, true},
		{"bitmap past the end", child().whole().u64(batAt+8*4096, 1<<40|6), same, c, "sector bitmap in entry 4096 lies at 1099511627776, past the end", batAt + 8*4096, true},
		{"bitmap over a block", child().whole().u64(batAt+8*4096, blocksAt|6), same, c, "sector bitmap in entry 4096 lies at 4194304, over something else", batAt + 8*4096, true},
		{"bitmap cut", child().whole()[:blocksAt+4*mib-1], same, c, "past the end", batAt + 8*4096, true},
	} {
		t.Run(x.name, func(t *testing.T) {
			var res formats.Resolver
			if x.files != nil {
				res = below(x.files)
			}
			for _, text := range []string{x.text, fmt.Sprintf("(at file offset %d)", x.offset)} {
				formatstest.CheckRefused(t, vhdx.Format(), formatstest.NewSource(x.image), res, x.class, text, x.late)
			}
		})
	}
	// What the resolver says is handed on.
	if _, err := vhdx.Format().Open(context.Background(), formatstest.NewSource(child().whole()), below(nil)); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Error(err)
	}
}

// locatorHead is p up to the first key of the locator at at.
func locatorHead(p image, at int) image {
	return p[:at+int(uint32(p[at+20])|uint32(p[at+21])<<8)]
}

// TestCycle: a disk that says it is its own parent is refused by the user's Resolver.
func TestCycle(t *testing.T) {
	dir := t.TempDir()
	s := child()
	s.dataWrite, s.parent = parentGUID, linked(`.\self`)
	if err := os.WriteFile(filepath.Join(dir, "self"), s.whole(), 0o600); err != nil {
		t.Fatal(err)
	}
	o := pipeline.Opener{Table: []formats.Format{vhdx.Format()}, Allow: []string{dir}}
	_, err := o.Open(context.Background(), filepath.Join(dir, "self"), "")
	if !errors.Is(err, formats.ErrCorrupt) || !strings.Contains(err.Error(), `"./self" leads back to a disk that is based on it`) {
		t.Error(err)
	}
}
