package vmdk_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/vmdk"
)

// TestCheckFinds: each contradiction is found, in its place, and nothing else is.
func TestCheckFinds(t *testing.T) {
	p, s := tinyPlain(), tinyStream()
	end := int64(len(p.file))
	lost := func() file { return s.clone().u64(s.footer+sector+56, 1<<40) }
	both := func(i int64, v uint32) file { q := tinyPlain(); q.entry(i, v); return q.file }
	for _, c := range []struct {
		name  string
		image []byte
		want  []string // "offset: what", or "leak: what" with a count
	}{
		{"good", p.clone(), nil},
		{"good stream", s.clone(), nil},
		{"part of a disk", buildPlain(1, evenSectors, gap(), nil, "").file, nil},
		{"descriptor", describe("vmfs", `RW 10 VMFS "/etc/shadow"`), nil},
		{"descriptor without extents", describe("vmfs"), []string{"0: the descriptor names no extents"}},
		{"bad descriptor", describe("vmfs", "RW x VMFS"), []string{"82: the extent line"}},
		{"bad descriptor inside", p.clone().str(sector, "x"), []string{"512: the descriptor's line \"x Disk DescriptorFile\" is neither"}},
		{"header", p.clone().u64(20, 3), []string{"20: the grain size is 3"}},

		{"primary directory", p.clone().u64(56, 1<<40), []string{"56: the grain directory at sector 1099511627776 reaches past"}},
		{"redundant directory", p.clone().u64(48, 1<<40), []string{"48: the grain directory at sector 1099511627776 reaches past"}},
		{"both directories", p.clone().u64(48, 0).u64(56, 0), []string{"56: there is no grain directory", "48: there is no grain directory"}},
		{"table past the end", p.clone().u32(p.gd, math.MaxUint32), []string{fmt.Sprint(p.gd, ": the grain table for disk offset 0 reaches past")}},
		{"tables differ", p.clone().u32(p.rgt+sector+4, 0).u32(p.rgt+sector+8, 0), []string{fmt.Sprint(p.rgd+4, ": the redundant grain table for disk offset 65536 differs")}},
		{"table missing", p.clone().u32(p.rgd+8, 0), []string{fmt.Sprint(p.rgd+8, ": the redundant grain table for disk offset 131072 differs")}},

		{"grain past the end", both(0, uint32(end/sector)), []string{fmt.Sprint(p.gt, ": the grain for disk offset 0 reaches past"), "leak 1: grains that nothing refers to"}},
		{"zeroed grain undeclared", both(0, 1), []string{fmt.Sprint(p.gt, ": the entry for disk offset 0 is a zeroed grain"), "leak 1: grains"}},
		{"grain twice", both(1, uint32(p.grains/sector)), []string{fmt.Sprint(p.grains, ": the grain for disk offset 4096 overlaps")}},
		{"grains overlap", both(1, uint32(p.grains/sector)+1), []string{fmt.Sprint(p.grains+sector, ": the grain for disk offset 4096 overlaps")}},
		{"grain in a table", both(1, uint32(p.gt/sector)), []string{fmt.Sprint(p.gt, ": the grain for disk offset 4096 overlaps")}},
		{"grain in the header", both(1, uint32(p.rgd/sector)-2), []string{fmt.Sprint(p.rgd-2*sector, ": the grain for disk offset 4096 overlaps")}},
		{"table twice", p.clone().u32(p.gd+4, uint32(p.gt/sector)).u32(p.rgd+4, uint32(p.gt/sector)), []string{
			fmt.Sprint(p.gt, ": the grain table for disk offset 65536 overlaps"), fmt.Sprint(p.gt, ": the redundant grain table for disk offset 65536 overlaps"),
			"8192: the grain for disk offset 65536 overlaps", "12288: the grain", "16384: the grain", "20480: the grain", "24576: the grain", "28672: the grain",
			"leak 5: grains that nothing refers to"}},
		{"directory over the descriptor", p.clone().u64(36, uint64(p.rgd/sector)), []string{fmt.Sprint(p.rgd, ": the redundant grain directory overlaps")}},
		{"leaks", append(p.clone(), make(file, 3*grainLen+sector)...), []string{"leak 3: grains that nothing refers to"}},
		{"leaks between", both(0, 0), []string{"leak 1: grains that nothing refers to"}},
		{"too many grains", crowd(), []string{"-1: the grain tables have 2048 grains, the file has room for"}},

		{"other marker", s.clone().u64(s.grains[3], 8), []string{fmt.Sprint(s.grains[3], ": the marker of the grain for disk offset 12288 is another one (sector 8")}},
		{"no marker", s.clone().u32(s.grains[3]+8, 0), []string{
			fmt.Sprint(s.grains[3], ": the marker of the grain for disk offset 12288 is another one (sector 24, 0 bytes)"), fmt.Sprint(s.grains[3], ": a marker of the unknown type")}},
		{"grain too long", s.clone().u32(s.grains[3]+8, 10_000), []string{
			fmt.Sprint(s.grains[3], ": the compressed grain has 10000 bytes, at most 8180"), fmt.Sprint(s.grains[3], ": the compressed grain has 10000 bytes")}},
		{"grains of a stream overlap", s.clone().u32(s.grains[0]+8, uint32(s.grains[3]-s.grains[0])), []string{
			fmt.Sprint(s.grains[3], ": the grain for disk offset 12288 overlaps"), fmt.Sprint(s.grains[3]+sector, ": the marker is of disk sector")}},
		{"grain of a stream past the end", s.clone().u32(s.gtAt, math.MaxUint32), []string{fmt.Sprint(s.gtAt, ": the grain for disk offset 0 lies past the end")}},
		{"grain of a stream left out", s.clone().u32(s.gtAt, 0), []string{"leak 1: grains of the stream that nothing refers to"}},
		{"lost directory", lost(), []string{"56: the grain directory at sector"}},
		{"lost directory and end", lost()[:s.footer], []string{"56: the grain directory is at the end, and no footer", fmt.Sprint(s.footer, ": the stream ends without")}},
		{"footer contradicts", s.clone().u64(s.footer+sector+20, 16), []string{fmt.Sprint(s.footer+sector, ": the footer contradicts"), "56: the grain directory is at the end, and no footer"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			list, _ := formatstest.Check(t, vmdk.Format(), formatstest.NewSource(c.image))
			var got []string
			for _, f := range list {
				if f.Leak {
					got = append(got, fmt.Sprintf("leak %d: %s", f.Count, f.What))
				} else {
					got = append(got, fmt.Sprintf("%d: %s", f.Offset, f.What))
				}
			}
			if !slices.EqualFunc(got, c.want, strings.HasPrefix) {
				t.Errorf("found %q, want %q", got, c.want)
			}
		})
	}
}

// crowd is a small file whose tables, of all of its sectors, have far more grains than it has room
// for.
func crowd() file {
	const gtes, tables = 128, 16
	p := header(1, 1, gtes*tables*buildGrain).u32(44, gtes).u64(56, 1).u64(64, 2)
	p = append(p, make(file, sector)...)
	for i := range int64(tables) {
		p.u32(sector+i*4, uint32(2+i))
	}
	for range gtes * tables {
		p = append(p, 2, 0, 0, 0)
	}
	return p
}

// TestCheckCounts compares the sums with what was built.
func TestCheckCounts(t *testing.T) {
	p, s := tinyPlain(), tinyStream()
	n := int64(len(sample(3 * buildGTEs)))
	shuffled := tinyPlain()
	shuffled.entry(0, uint32(p.grains/sector)+buildGrain)
	shuffled.entry(3, uint32(p.grains/sector))
	for _, c := range []struct {
		name  string
		image file
		want  formatstest.CheckSums
	}{
		{"plain", p.file, formatstest.CheckSums{Clusters: 3 * buildGTEs, Allocated: n, End: int64(len(p.file))}},
		{"swapped", shuffled.file, formatstest.CheckSums{Clusters: 3 * buildGTEs, Allocated: n, Fragmented: 2, End: int64(len(p.file))}},
		{"room behind", append(p.clone(), make(file, sector)...), formatstest.CheckSums{Clusters: 3 * buildGTEs, Allocated: n, End: int64(len(p.file))}},
		// Tables with their markers stand between the grains of two tables.
		{"stream", s.file, formatstest.CheckSums{Clusters: 3 * buildGTEs, Allocated: n, Compressed: n, Fragmented: 2, End: int64(len(s.file))}},
	} {
		if list, got := formatstest.Check(t, vmdk.Format(), formatstest.NewSource(c.image)); got != c.want || len(list) > 0 {
			t.Errorf("%s: %+v, want %+v; %+v", c.name, got, c.want, list)
		}
	}
}

// TestCheckRefuses what it doesn't know, without calling it damaged.
func TestCheckRefuses(t *testing.T) {
	for _, p := range []file{make(file, 4096).u64(0, 0xcafebabe), tinyPlain().u32(4, 9)} {
		_, err := vmdk.Format().Check(context.Background(), formatstest.NewSource(p), func(f formats.Finding) { t.Errorf("%+v", f) })
		if !errors.Is(err, formats.ErrUnsupported) {
			t.Error(err)
		}
	}
}
