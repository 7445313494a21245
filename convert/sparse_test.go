package convert_test

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"imgferry/bitmap"
	"imgferry/convert"
	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/source"
)

// sparseWays are all there are.
var sparseWays = []convert.Sparse{convert.SparseZeros, convert.SparseHoles, convert.SparseNone}

// openSource is the file at path.
func openSource(t *testing.T, path string) formats.Source {
	t.Helper()
	src, err := source.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	return src
}

// expectedUnits says which units of the disk a target stores.
func expectedUnits(t *testing.T, d *disk, unit int64, sparse convert.Sparse) []bool {
	t.Helper()
	content := d.bytes()
	units := make([]bool, (d.size+unit-1)/unit)
	for i := range units {
		from, to := int64(i)*unit, min(int64(i+1)*unit, d.size)
		units[i] = sparse == convert.SparseNone || sparse == convert.SparseZeros && !bitmap.IsZero(content[from:to])
	}
	if sparse != convert.SparseHoles {
		return units
	}
	for e, err := range d.Extents(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		for i := e.Offset / unit; i*unit < e.Offset+e.Length; i++ {
			units[i] = units[i] || !e.Zero
		}
	}
	return units
}

// qemuUnits says which units of the image are data, says qemu-img map.
func qemuUnits(t *testing.T, path, format string, size, unit int64) []bool {
	t.Helper()
	var runs []struct {
		Start, Length int64
		Data          bool
	}
	if err := json.Unmarshal(formatstest.Tool(t, "qemu-img", "map", "--output=json", "-f", format, path), &runs); err != nil {
		t.Fatal(err)
	}
	units := make([]bool, (size+unit-1)/unit)
	for _, r := range runs {
		for i := r.Start / unit; r.Data && i*unit < min(r.Start+r.Length, size); i++ {
			units[i] = true
		}
	}
	return units
}

// expectUnits compares two lists of units.
func expectUnits(t *testing.T, got, want []bool) {
	t.Helper()
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("unit %d of %d: stored: %v, want %v", i, len(want), got[i], want[i])
			return
		}
	}
}

// TestSparseUnits: formats whose unit of storage is smaller than a block store the units that they are
// meant to, and no others.
func TestSparseUnits(t *testing.T) {
	for _, sparse := range sparseWays {
		for _, c := range []struct {
			target, options string
			unit            int64 // bytes
		}{
			{"qcow2", "", 64 << 10}, {"qcow2", "cluster_size=4K", 4 << 10}, {"qcow2", "cluster_size=2M", 2 << 20},
			{"qcow2", "compression_type=zlib", 64 << 10}, {"qcow2", "compression_type=zstd,cluster_size=512", 512},
			{"vmdk", "", 64 << 10}, {"vmdk", "subformat=monolithicSparse", 64 << 10},
		} {
			t.Run(strings.Join([]string{sparse.String(), c.target, c.options}, " "), func(t *testing.T) {
				d := small()
				path := sparseFile(t, d, c.target, c.options, sparse)
				qemuFinds(t, path, c.target, d)
				expectUnits(t, qemuUnits(t, path, c.target, d.size, c.unit), expectedUnits(t, d, c.unit, sparse))
			})
		}
	}
}

// sparseFile is d as a target, which must read as d here.
func sparseFile(t *testing.T, d *disk, target, options string, sparse convert.Sparse) string {
	t.Helper()
	var list []string
	if options != "" {
		list = append(list, options)
	}
	path, _ := written(t, d, target, list, convert.Options{Sparse: sparse, Workers: 2})
	if at, err := convert.Compare(t.Context(), d, reopened(t, path, target), convert.Options{}); err != nil || at >= 0 {
		t.Errorf("differs at %d, %v", at, err)
	}
	return path
}

// TestSparseVHD looks at the sector bitmaps of a dynamic disk, and at what the file of a fixed one has
// no holes for.
func TestSparseVHD(t *testing.T) {
	const (
		sector  = 512
		tableAt = 3 * sector // behind the footer's copy and the header
	)
	for _, sparse := range sparseWays {
		d := small()
		path := sparseFile(t, d, "vpc", "", sparse)
		qemuFinds(t, path, "vpc", d)
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want := expectedUnits(t, d, sector, sparse)
		got := make([]bool, len(want))
		for i := range got {
			const inBlock = convert.BlockSize / sector
			entry := binary.BigEndian.Uint32(file[tableAt+i/inBlock*4:])
			if entry != ^uint32(0) {
				at := i % inBlock
				got[i] = file[int(entry)*sector+at/8]&(0x80>>(at%8)) != 0
			}
		}
		expectUnits(t, got, want)

		path = sparseFile(t, d, "vpc", "subformat=fixed", sparse)
		qemuFinds(t, path, "vpc", d)
		src := openSource(t, path).(formats.HoleFinder)
		units := expectedUnits(t, d, convert.BlockSize, sparse)
		for i := range units {
			off := int64(i) * convert.BlockSize
			start, end, err := src.NextData(off)
			if err != nil {
				t.Fatal(err)
			}
			if units[i] && (start >= off+convert.BlockSize || start == end) {
				t.Errorf("fixed, %s: block %d is a hole", sparse, i)
			}
		}
	}
}

// TestSparseBeyondTheEnd: nothing is stored behind the end of a disk, however short its last block.
func TestSparseBeyondTheEnd(t *testing.T) {
	for _, size := range []int64{512, 64<<10 + 512, convert.BlockSize - 512, convert.BlockSize, convert.BlockSize + 512} {
		d := &disk{size: size, pieces: map[int64][]byte{}}
		for _, target := range []string{"qcow2", "vpc", "vmdk"} {
			for _, options := range map[string][]string{
				"qcow2": {"", "compression_type=zstd,cluster_size=512"}, "vpc": {"", "subformat=fixed"}, "vmdk": {"", "subformat=monolithicSparse"},
			}[target] {
				for _, sparse := range sparseWays {
					path := sparseFile(t, d, target, options, sparse)
					img := reopened(t, path, target)
					if img.Size() != size {
						t.Errorf("%s %s: %d bytes became %d", target, options, size, img.Size())
					}
					if sparse == convert.SparseNone { // the most that is stored
						qemuFinds(t, path, target, d)
					}
				}
			}
		}
	}
}
