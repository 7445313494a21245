package upload

import (
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
)

const (
	testMiB = 1 << 20
	testGiB = 1 << 30
	testTiB = 1 << 40
)

// planned plans an object of size bytes with data in runs, and checks what a store and the disk demand of
// every plan.
func planned(t *testing.T, size, partSize int64, runs ...dataRun) SparsePlan {
	t.Helper()
	collect := func() *DataMap {
		m := NewDataMap(size)
		for _, r := range runs {
			m.Add(r.start, r.end)
		}
		return m
	}
	m := collect()
	p, err := m.Plan(partSize)
	if err != nil {
		t.Fatalf("%d bytes in parts of %d: %v", size, partSize, err)
	}
	for range 2 {
		again, err := m.Plan(partSize)
		if err != nil || again.ID() != p.ID() || !slices.Equal(again.parts, p.parts) {
			t.Fatalf("the same disk has another plan: %v", err)
		}
		m = collect()
	}
	fail := func(what string, i int) {
		t.Helper()
		t.Fatalf("%d bytes in parts of %d: part %d of %d %s: %+v", size, partSize, i+1, p.Count, what, p.parts[i])
	}
	var at, data int64
	left := runs
	for i, q := range p.parts {
		last := i == len(p.parts)-1
		most := int64(MaxPartSize)
		if q.zeros {
			most = zeroPartSize(size)
		} else if partSize > 2*minZeros {
			most = roundUp(partSize, sectorSize)
		} else if partSize > 0 {
			most = 2*minZeros + sectorSize
		}
		switch {
		case q.offset != at:
			fail("is in another place", i)
		case q.size < minZeros && !last || q.size < 1:
			fail("is too short", i)
		case q.size > most:
			fail("is too long", i)
		case q.offset%sectorSize != 0 || q.size%sectorSize != 0 && !last:
			fail("cuts a sector", i)
		}
		at += q.size
		if !q.zeros {
			data += q.size
		}
		for len(left) > 0 && left[0].start < at {
			if q.zeros && left[0].end > q.offset {
				fail("of zeros has data", i)
			}
			if left[0].end > at {
				break
			}
			left = left[1:]
		}
	}
	most := MaxParts
	if partSize == 0 {
		most = MaxParts - HeadParts // SetMetadata numbers its parts from HeadParts + 1
	}
	if at != size || data != p.Data || p.Size != size || p.Count != len(p.parts) || p.Count > most {
		t.Fatalf("%d bytes in parts of %d: %d parts of %d bytes, %d of data: %+v", size, partSize, len(p.parts), at, data, p.Count)
	}
	return p
}

// pages is so many sectors, in bytes.
func pages(n int64) int64 { return n * sectorSize }

// Every part but the object's last is long enough for the store, however long a run of data is and wherever it
// lies: rounding to sectors must not be paid for by one part.
func TestSparsePartsAreLongEnough(t *testing.T) {
	planned(t, 200*testMiB, 5*testMiB, dataRun{0, 50*testMiB + 4096})
	planned(t, testGiB, 5*testMiB, dataRun{0, pages(12801)})
	for _, n := range []int64{7*262144 - 780, 10*262144 - 1500, 16*262144 - 1500, 20*262144 - 1500, 20*262144 - 800} {
		planned(t, 40*testGiB, 0, dataRun{0, pages(n)})
	}
	// Around each multiple of the size of parts, at the start, in the middle and at the end.
	for _, partSize := range []int64{minZeros, minZeros + 1, minZeros + 4096, minPartSize, 10*testMiB - 4096} {
		for _, k := range []int64{1, 2, 3, 10, 128, 1000} {
			for d := int64(-3); d <= 3; d++ {
				length := roundUp(k*partSize, sectorSize) + pages(d)
				for _, tail := range []int64{0, 512, 4095} {
					size := length + 300*testMiB + tail
					planned(t, size, partSize, dataRun{0, length})
					planned(t, size, partSize, dataRun{20 * testMiB, 20*testMiB + length})
					planned(t, size, partSize, dataRun{size - tail - length, size - tail})
				}
			}
		}
	}
}

// The bytes behind the last whole sector go to the last part, which has room for them.
func TestSparsePartsHaveRoom(t *testing.T) {
	for _, tail := range []int64{-4095, -3584, -1, 0, 1, 512, 4095, 4096} {
		planned(t, 2*testGiB+tail, 0)
		planned(t, 10*minPartSize+tail, minPartSize, dataRun{0, 10*minPartSize + tail})
	}
}

// So it is for scattered data: runs and gaps that are shorter than a part, many of them, at the edges, and in
// objects of any size.
func TestSparsePlansOfAnything(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	// some is a length of up to 2^most sectors, small ones as often as large ones.
	some := func(most int) int64 { return pages(1 + r.Int64N(1<<r.IntN(most+1))) }
	partSizes := []int64{0, 0, 0, minZeros, minZeros + 1, minPartSize, 100 * testMiB, MaxPartSize / 2}
	cases := 300
	if os.Getenv("IMGFERRY_LONG") != "" {
		cases = 6000
	}
	for range cases {
		size := min(some(34), planParts*MaxPartSize)
		if r.IntN(3) == 0 {
			size -= 512 * r.Int64N(8)
		}
		most := 1 + r.IntN(32) // of this disk's runs and gaps, in powers of two sectors
		var runs []dataRun
		for at := int64(0); at < size && len(runs) < 3000; {
			if len(runs) > 0 || r.IntN(2) == 0 {
				at += some(most)
			}
			end := at + some(most)
			if at < size {
				runs = append(runs, dataRun{at, min(end, roundUp(size, sectorSize))})
			}
			at = end
		}
		partSize := partSizes[r.IntN(len(partSizes))]
		if partSize < size/2000 {
			partSize = 0 // it need not fit
		}
		planned(t, size, partSize, runs...)
	}
}

// An object smaller than a part is one part; zeros that are hardly worth a copy are sent.
func TestSmallSparsePlans(t *testing.T) {
	for _, size := range []int64{1, 512, 4095, 4096, 4097, minZeros - 1, minZeros, minZeros + 1, 2*minZeros - 1} {
		if p := planned(t, size, minZeros); p.Count != 1 || p.Data != size {
			t.Errorf("%d bytes: %+v", size, p)
		}
		if p := planned(t, size, 0, dataRun{0, size}); p.Count != 1 || p.Data != size {
			t.Errorf("%d bytes of data: %+v", size, p)
		}
	}
}

// Of a large disk no more is sent than of a small one: zeros take larger parts then.
func TestLargeSparsePlans(t *testing.T) {
	for _, c := range []struct{ size, zeros int64 }{
		{testTiB, testGiB},
		{zeroParts * testGiB, testGiB},
		{zeroParts*testGiB + 4096, 2 * testGiB},
		{8 * testTiB, 3 * testGiB},
		{9 * testTiB, 4 * testGiB},
		{16 * testTiB, 5 * testGiB},
		{32 * testTiB, 5 * testGiB},
		{planParts * MaxPartSize, 5 * testGiB},
	} {
		if got := zeroPartSize(c.size); got != c.zeros {
			t.Errorf("%d bytes: parts of %d zeros, not %d", c.size, got, c.zeros)
		}
		const some = 2 * testGiB
		for _, runs := range [][]dataRun{
			{{0, some}},
			{{0, some / 2}, {c.size - some/2, c.size}},
			{{c.size / 2 &^ 4095, c.size/2&^4095 + some}},
		} {
			if p := planned(t, c.size, 0, runs...); p.Data != some {
				t.Errorf("%d bytes: %d are sent of %d", c.size, p.Data, some)
			}
		}
		if p := planned(t, c.size, 0, dataRun{0, c.size}); p.Data != c.size {
			t.Errorf("%d bytes: %d are sent", c.size, p.Data)
		}
		if p := planned(t, c.size, 0); p.Data != 0 {
			t.Errorf("%d zeros: %d are sent", c.size, p.Data)
		}
	}
}

// What no store takes is refused before there is a map of its data; a size of parts that does not suffice
// for the zeros as well is refused with one that does.
func TestSparsePlanLimits(t *testing.T) {
	for size, want := range map[int64]string{0: "0 bytes", -1: "-1 bytes", planParts*MaxPartSize + 1: "9500", 48 * testTiB: "48 TiB are too much"} {
		if err := CheckSparse(size, 0); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d bytes: %v", size, err)
		}
		if _, err := NewDataMap(size).Plan(0); err == nil {
			t.Errorf("%d bytes are planned", size)
		}
	}
	if err := CheckSparse(planParts*MaxPartSize, minZeros); err != nil {
		t.Error(err)
	}
	var part *PartSizeError
	for _, size := range []int64{1, minZeros - 1, MaxPartSize} {
		if err := CheckSparse(testTiB, size); !errors.As(err, &part) {
			t.Errorf("parts of %d: %v", size, err)
		}
	}
	m := NewDataMap(zeroParts * testGiB)
	m.Add(0, 40*testGiB)
	if _, err := m.Plan(minZeros); !errors.As(err, &part) || part.Size != minZeros || part.Least <= minZeros {
		t.Fatal(err)
	}
	if _, err := m.Plan(part.Least); err != nil {
		t.Errorf("parts of %d, which were proposed: %v", part.Least, err)
	}
}

// The ID tells places, sizes and kinds of parts.
func TestPlanID(t *testing.T) {
	base := SparsePlan{Count: 2, parts: []sparsePart{{0, 10, false}, {10, 20, true}}}
	ids := map[string]bool{base.ID(): true}
	for _, parts := range [][]sparsePart{
		{{0, 10, false}, {10, 20, false}},
		{{0, 10, false}, {11, 20, true}},
		{{0, 11, false}, {10, 20, true}},
		{{0, 10, false}},
		{{10, 20, true}, {0, 10, false}},
	} {
		ids[SparsePlan{Count: len(parts), parts: parts}.ID()] = true
	}
	for _, partSize := range []int64{0, minZeros} {
		p, err := PlanRaw(testGiB, partSize)
		if err != nil {
			t.Fatal(err)
		}
		ids[p.ID()] = true
	}
	if len(ids) != 8 {
		t.Errorf("%d of 8 plans differ", len(ids))
	}
	a := planned(t, testGiB, 0, dataRun{0, 50 * testMiB})
	if b := planned(t, testGiB, 0, dataRun{4096, 49 * testMiB}, dataRun{49 * testMiB, 50 * testMiB}); a.ID() != b.ID() {
		t.Error("the same parts have different IDs")
	}
}
