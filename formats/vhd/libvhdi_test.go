package vhd_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"imgferry/formats/formatstest"
)

// TestLibvhdi: what the tests take for a differencing disk's content is what another program reads. Runs
// of sectors end with a byte of the bitmap: libvhdi (2021) takes the sectors behind one that is there, up to
// the byte's end, for there too, in VHD only.
func TestLibvhdi(t *testing.T) {
	const block, size = 2 << 20, 7<<20 + 512
	layer := func(id, parentID string, seed uint64, partial map[int]func(int) bool, stored ...int) spec {
		s := spec{size: size, block: block, content: formatstest.Noise(seed, size), stored: stored, stamp: 900, id: id}
		if parentID != "" {
			s.kind, s.relative, s.parentID, s.parentAt, s.partial = 4, `.\p.vhd`, parentID, 900, partial
		}
		return s
	}
	const p, m, top = "0123456789abcdef", "fedcba9876543210", "0011223344556677"
	bottom := layer(p, "", 30, nil, 0, 2, 3)
	middle := layer(m, p, 31, map[int]func(int) bool{0: func(k int) bool { return k%16 >= 3 }, 1: func(k int) bool { return k%800 > 700 }}, 2, 0, 1)
	last := layer(top, m, 32, map[int]func(int) bool{0: func(k int) bool { return k >= 77 && k < 800 || k%1024 >= 1023 }}, 0)
	under := bottom.expected()
	between := middle.over(under)
	dir := t.TempDir()
	write := func(name string, p image) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, p, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	files := []string{write("top.vhd", last.make()), write("m.vhd", middle.make()), write("p.vhd", bottom.make())}
	for i, want := range [][]byte{last.over(between), between, under} {
		if got := formatstest.Libvhdi(t, files[i:]...); !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, and other ones than the %d expected", filepath.Base(files[i]), len(got), len(want))
		}
	}
}
