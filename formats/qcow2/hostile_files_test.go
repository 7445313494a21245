package qcow2_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/qcow2"
)

// subclustered is a hand-made image with clusters of 16 KiB, extended L2 entries and one cluster of
// data, of which the last subcluster is allocated, and the one before zero.
const subCluster = 16 << 10

func subclustered() imageBytes {
	p := make(imageBytes, 4*subCluster)
	p.u32(0, 0x514649fb).u32(4, 3).u32(20, 14).u64(24, 4*subCluster)
	p.u32(36, 1).u64(40, subCluster).u64(48, 1<<40).u64(72, 1<<4).u32(96, 4).u32(100, 104)
	p.u64(subCluster, 1<<63|2*subCluster)
	p.u64(2*subCluster, 1<<63|3*subCluster).u64(2*subCluster+8, 1<<31|1<<62)
	copy(p[3*subCluster:], formatstest.Noise(5, subCluster))
	return p
}

func TestSubclusters(t *testing.T) {
	zeros := make([]byte, 4*subCluster)
	last := formatstest.Noise(5, subCluster)[subCluster-512:]
	want := bytes.Clone(zeros)
	copy(want[subCluster-512:], last)
	for _, c := range []struct {
		name  string
		image imageBytes
		want  []byte
		fault string
	}{
		{"as it is", subclustered(), want, ""},
		{"cut behind the subclusters in use", subclustered().u64(2*subCluster+8, 1)[:3*subCluster+512], append(formatstest.Noise(5, 512), zeros[512:]...), ""},
		{"cut in a subcluster", subclustered().u64(2*subCluster+8, 1)[:3*subCluster+511], nil, "points past the end"},
		{"allocated, nothing in use", subclustered().u64(2*subCluster+8, 0)[:3*subCluster], zeros, ""},
		{"no cluster, zero subclusters", subclustered().u64(2*subCluster, 0).u64(2*subCluster+8, 5<<32), zeros, ""},
		{"no cluster, a subcluster in use", subclustered().u64(2*subCluster, 0), nil, "allocated subclusters, but no cluster"},
		{"both", subclustered().u64(2*subCluster+8, 1|1<<32), nil, "both allocated and zero"},
		{"zero bit", subclustered().u64(2*subCluster, 1|3*subCluster), nil, "reserved bits"},
		{"compressed with subclusters", subclustered().u64(2*subCluster, 1<<62|3*subCluster), nil, "compressed, but has subclusters"},
		{"compressed", subclustered().str(3*subCluster, deflated(subCluster)).u64(2*subCluster, 1<<62|3*subCluster).u64(2*subCluster+8, 0),
			append(aaa(subCluster), zeros[subCluster:]...), ""},
		{"two compressed", subclustered().str(3*subCluster, deflated(subCluster)).u64(2*subCluster, 1<<62|3*subCluster).u64(2*subCluster+8, 0).
			u64(2*subCluster+16, 1<<62|3*subCluster), append(aaa(2*subCluster), zeros[2*subCluster:]...), ""},
	} {
		got, err := formatstest.ReadAll(qcow2.Format(), formatstest.NewSource(c.image), nil)
		switch {
		case c.fault != "" && (!errors.Is(err, formats.ErrCorrupt) || !strings.Contains(err.Error(), c.fault)):
			t.Errorf("%s: %v, want %q", c.name, err, c.fault)
		case c.fault == "" && (err != nil || !bytes.Equal(got, c.want)):
			t.Errorf("%s: content differs, %v", c.name, err)
		}
	}
}

func TestHostileDataFile(t *testing.T) {
	data := formatstest.Noise(1, tinyCount*tinyCluster)
	for _, c := range []struct {
		name  string
		image imageBytes
		data  []byte
		fault string
	}{
		{"as it is", withDataFile(0), data, ""},
		{"raw", withDataFile(2), data, ""},
		{"not all of the last cluster", withDataFile(0).u64(24, 2000), data[:2000], ""},
		{"another place", withDataFile(0).u64(tinyL2, 1<<63|tinyCluster), data, "does not point to its own place"},
		{"compressed", withDataFile(0).u64(tinyL2, 1<<62|tinyCluster), data, "is compressed"},
		{"data is short", withDataFile(0), data[:len(data)-1], "points past the end"},
	} {
		a := askedFor(map[string][]byte{"data": c.data})
		got, err := formatstest.ReadAll(qcow2.Format(), formatstest.NewSource(c.image), a)
		switch {
		case c.fault != "" && (!errors.Is(err, formats.ErrCorrupt) || !strings.Contains(err.Error(), c.fault)):
			t.Errorf("%s: %v, want %q", c.name, err, c.fault)
		case c.fault == "" && (err != nil || !bytes.Equal(got, c.data)):
			t.Errorf("%s: content differs, %v", c.name, err)
		}
		if *a.closes != 1 {
			t.Errorf("%s: closed %d times", c.name, *a.closes)
		}
	}
}

// snapshotted is a tiny image with a snapshot called "snap", id "7", whose L1 table is the disk's.
// The table is in the cluster behind the data.
const tinySnap = tinyData + tinyCount*tinyCluster

func snapshotted() imageBytes {
	p := tiny(3).more(1).u32(60, 1).u64(64, tinySnap)
	return p.u64(tinySnap, tinyL1).u32(tinySnap+8, 1).u32(tinySnap+12, 1<<16|4).u32(tinySnap+36, 16).
		u64(tinySnap+48, 1024).str(tinySnap+56, "7snap")
}

func TestHostileSnapshots(t *testing.T) {
	for _, c := range []struct {
		name   string
		image  imageBytes
		wanted string
		class  error
		text   string
	}{
		{"as it is", snapshotted(), "snap", nil, ""},
		{"by id", snapshotted(), "7", nil, ""},
		{"another", snapshotted(), "x", formats.ErrNoSnapshot, `can't open snapshot "x" (there are "snap")`},
		{"none", tiny(3), "x", formats.ErrNoSnapshot, `can't open snapshot "x" (there are none)`},
		{"no name", snapshotted(), "", formats.ErrNoSnapshot, `there are "snap"`},
		{"too many", snapshotted().u32(60, math.MaxUint32), "snap", formats.ErrCorrupt, "at most 65536"},
		{"more than there are", snapshotted().u32(60, 65536), "snap", formats.ErrCorrupt, "snapshot table reaches past"},
		{"table unaligned", snapshotted().u64(64, tinySnap+8), "snap", formats.ErrCorrupt, "not that of a cluster"},
		{"table past the end", snapshotted().u64(64, 1<<62), "snap", formats.ErrCorrupt, "snapshot table reaches past"},
		{"table at the end", snapshotted().u64(64, tinySnap+512), "snap", formats.ErrCorrupt, "snapshot table reaches past"},
		{"extra data of 4 GiB", snapshotted().u32(tinySnap+36, math.MaxUint32), "snap", formats.ErrCorrupt, "extra data"},
		{"long name", snapshotted().u32(tinySnap+12, math.MaxUint32), "snap", formats.ErrCorrupt, "snapshot table reaches past"},
		{"L1 unaligned", snapshotted().u64(tinySnap, tinyL1+8), "snap", formats.ErrCorrupt, "not that of a cluster"},
		{"L1 past the end", snapshotted().u64(tinySnap, 1<<62), "snap", formats.ErrCorrupt, "L1 table reaches past"},
		{"L1 over 32 MiB", snapshotted().u32(tinySnap+8, math.MaxUint32), "snap", formats.ErrCorrupt, "at most"},
		{"L1 too small", snapshotted().u64(tinySnap+48, 1<<20), "snap", formats.ErrCorrupt, "too few"},
		{"2^64 bytes", snapshotted().u64(tinySnap+48, math.MaxUint64), "snap", formats.ErrCorrupt, "beyond 63 bits"},
		{"encrypted", snapshotted().u32(32, 2), "snap", formats.ErrUnsupported, "LUKS"},
		{"with a data file", snapshotted().u64(72, 4).ext(tinyExt, 0x44415441, "data"), "snap", formats.ErrCorrupt, "external data file has snapshots"},
		{"with a backing file", snapshotted().u64(8, 300).u32(16, 4).str(300, "base"), "snap", formats.ErrNotAllowed, `"base"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := &formatstest.Counted{Source: formatstest.NewSource(c.image)}
			img, err := qcow2.Format().OpenSnapshot(context.Background(), src, nil, c.wanted)
			if err == nil {
				defer img.Close()
			}
			if c.class == nil {
				p := make([]byte, 1024)
				if err != nil || img.Size() != 1024 {
					t.Fatalf("%v", err)
				} else if n, _ := img.ReadAt(p, 0); n != 1024 || !bytes.Equal(p, formatstest.Noise(9, 1024)) {
					t.Error("content differs")
				}
				return
			}
			if !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.text) || strings.ContainsRune(err.Error(), '\n') {
				t.Errorf("%v; want %v and %q", err, c.class, c.text)
			}
			// The active disk, and what the header says of it, don't suffer from broken snapshots.
			if in, err := qcow2.Format().Info(context.Background(), src); err != nil || (in.Problem != nil) != (c.image.u64at(32)>>32 != 0) {
				t.Errorf("info: %v, %v", in.Problem, err)
			}
			if src.N > 1<<20 {
				t.Errorf("%d bytes were read", src.N)
			}
		})
	}
}

func (p imageBytes) u64at(off int64) uint64 { return image(p).u64(off) }

// TestManySnapshots: the table is read up to 4 MiB, and Info shows those that lie before.
func TestManySnapshots(t *testing.T) {
	const n = 60_000
	p := append(tiny(3).u32(60, n).u64(64, tinySnap), make([]byte, n*88)...)
	for i := range n {
		at := tinySnap + i*88
		p.u64(at, tinyL1).u32(at+8, 1).u32(at+12, 5<<16|27).u32(at+36, 16).u64(at+48, 1024).str(at+56, fmt.Sprintf("%05d%027d", i, i))
	}
	src := &formatstest.Counted{Source: formatstest.NewSource(p)}
	in, err := qcow2.Format().Info(context.Background(), src)
	if err != nil || in.Problem != nil || len(in.Snapshots) < 40_000 || src.N > 5<<20 {
		t.Errorf("%d snapshots, %d bytes read, %v, %v", len(in.Snapshots), src.N, in.Problem, err)
	}
	_, err = qcow2.Format().OpenSnapshot(context.Background(), formatstest.NewSource(p), nil, "00000")
	if !errors.Is(err, formats.ErrUnsupported) {
		t.Errorf("%v", err)
	}
	_, err = qcow2.Format().OpenSnapshot(context.Background(), formatstest.NewSource(p.u32(60, 40_000)), nil, "nobody")
	if !errors.Is(err, formats.ErrNoSnapshot) || len(err.Error()) > 2000 {
		t.Errorf("%v", err)
	}
}

// TestHostileChecks: what a check refuses to go on with, and what must not keep it busy.
func TestHostileChecks(t *testing.T) {
	counts := func(p imageBytes) imageBytes { // with a refcount table and nothing in it
		return p.u64(48, tinyL1)
	}
	shared := snapshotted().u32(60, 1000)
	shared = append(shared, make([]byte, 100_000)...)
	for i := range 1000 { // their L1 tables are the same 1800 bytes
		copy(shared[tinySnap+i*64:], shared[tinySnap:tinySnap+61])
		shared.u32(tinySnap+i*64+8, 225)
	}
	bitmaps := func(count uint32, dir uint64, n uint64) imageBytes {
		return counts(tiny(3)).more(2).u64(88, 1).ext(tinyExt, 0x23852875, string(make([]byte, 24))).
			u32(tinyExt+8, count).u64(tinyExt+16, n).u64(tinyExt+24, dir)
	}
	dir := func() imageBytes { // one good bitmap
		return bitmaps(1, tinySnap, 32).u64(tinySnap, tinySnap+512).u32(tinySnap+8, 1).u32(tinySnap+16, 1<<24|9<<16|1).str(tinySnap+24, "b")
	}
	for _, c := range []struct {
		name  string
		image imageBytes
		class error
		text  string
	}{
		{"not qcow2", tiny(3).u32(0, 1), formats.ErrCorrupt, "magic"},
		{"unknown features", tiny(3).u64(72, 1<<9), formats.ErrUnsupported, "bit 9"},
		{"refcount table unaligned", tiny(3).u64(48, 520), formats.ErrCorrupt, "not that of a cluster"},
		{"refcount table at 2^64", tiny(3).u64(48, 1<<64-512), formats.ErrCorrupt, "not that of a cluster"},
		{"refcount table of 2 TiB", counts(tiny(3)).u32(56, math.MaxUint32), formats.ErrCorrupt, "at most"},
		{"L1 of 32 GiB", counts(tiny(3)).u32(36, math.MaxUint32), formats.ErrCorrupt, "at most"},
		{"L1 unaligned", counts(tiny(3)).u64(40, 520), formats.ErrCorrupt, "not that of a cluster"},
		{"snapshots past the end", counts(tiny(3)).u32(60, 1).u64(64, 1<<40), formats.ErrCorrupt, "past the end"},
		{"snapshots share their L1", counts(shared), formats.ErrCorrupt, "larger than the file"},
		{"bitmaps", dir(), nil, ""},
		{"no bitmaps", bitmaps(0, tinySnap, 32), formats.ErrCorrupt, "0 bitmaps"},
		{"too many bitmaps", bitmaps(65536, tinySnap, 32), formats.ErrCorrupt, "65536 bitmaps"},
		{"bitmap directory of 0", bitmaps(1, tinySnap, 0), formats.ErrCorrupt, "directory has 0 bytes"},
		{"bitmap directory of 2^64", bitmaps(1, tinySnap, math.MaxUint64), formats.ErrCorrupt, "must have"},
		{"bitmap directory too long", bitmaps(1, tinySnap, 4096), formats.ErrCorrupt, "in the file"},
		{"bitmap directory unaligned", bitmaps(1, tinySnap+8, 32), formats.ErrCorrupt, "not that of a cluster"},
		{"bitmap directory far away", bitmaps(1, 1<<63, 32), formats.ErrCorrupt, "not that of a cluster"},
		{"half an entry", bitmaps(1, tinySnap, 20), formats.ErrCorrupt, "ends within"},
		{"long name", dir().u32(tinySnap+16, 1<<24|9<<16|60000), formats.ErrCorrupt, "ends within"},
		{"second entry", dir().u64(tinyExt+16, 64), formats.ErrCorrupt, "more entries"},
		{"unknown type", dir().u32(tinySnap+16, 2<<24|9<<16|1), formats.ErrCorrupt, "unknown type 2"},
		{"granularity", dir().u32(tinySnap+16, 1<<24|32<<16|1), formats.ErrCorrupt, "2^32"},
		{"flags", dir().u32(tinySnap+12, 4), formats.ErrCorrupt, "unknown flags"},
		{"extra data", dir().u32(tinySnap+20, 8), formats.ErrCorrupt, "extra data"},
		{"bitmap table of 1 GiB", dir().u32(tinySnap+8, 1<<27), formats.ErrCorrupt, "entries"},
		{"bitmap table larger than the file", dir().u32(tinySnap+8, 1<<19), formats.ErrCorrupt, "larger than the file"},
		{"bitmap table unaligned", dir().u64(tinySnap, 520), formats.ErrCorrupt, "not that of a cluster"},
		{"bitmap too small", dir().u64(24, 2<<20+1).u32(36, 65), formats.ErrCorrupt, "too small"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := 0
			_, err := qcow2.Format().Check(context.Background(), formatstest.NewSource(c.image), func(formats.Finding) { n++ })
			if c.class == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v; want %v and %q", err, c.class, c.text)
			}
		})
	}
}

// sparse is a source with zeros behind its bytes.
type sparse struct {
	formats.Source
	p    imageBytes
	size int64
}

func (s sparse) Size() int64 { return s.size }

func (s sparse) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off < int64(len(s.p)) {
		copy(p, s.p[off:])
	}
	return len(p), nil
}

// TestCheckOfHugeFile: what nothing uses is not looked at, and numbers stay in their range.
func TestCheckOfHugeFile(t *testing.T) {
	p := tiny(3).u64(48, tinyData).u64(tinyL2, 0).u64(tinyL2+16, 1<<63|1<<40)
	check := func(size int64) (formats.Checked, int, error) {
		n := 0
		sum, err := qcow2.Format().Check(context.Background(), sparse{formatstest.NewSource(nil), p, size}, func(formats.Finding) { n++ })
		return sum, n, err
	}
	if sum, n, err := check(2<<40 - 1024); err != nil || sum.End != 1<<40+512 || n == 0 {
		t.Errorf("%+v, %d findings, %v", sum, n, err)
	}
	for _, size := range []int64{2 << 40, math.MaxInt64} {
		if _, _, err := check(size); !errors.Is(err, formats.ErrUnsupported) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// breaking is a source that breaks at a read.
type breaking struct {
	formats.Source
	at int // number of the read
	n  *int
}

var errBroken = errors.New("the disk under the image is broken")

func (b breaking) ReadAt(p []byte, off int64) (int, error) {
	if *b.n++; *b.n >= b.at {
		return 0, errBroken
	}
	return b.Source.ReadAt(p, off)
}

// TestBrokenSource: a failed read of a check or of a snapshot's opening is told as what it is.
func TestBrokenSource(t *testing.T) {
	p := snapshotted().more(2).u64(48, tinySnap+512).u64(tinySnap+512, tinySnap+1024)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for what, run := range map[string]func(context.Context, formats.Source) error{
		"check": func(ctx context.Context, src formats.Source) error {
			_, err := qcow2.Format().Check(ctx, src, func(formats.Finding) {})
			return err
		},
		"snapshot": func(ctx context.Context, src formats.Source) error {
			img, err := qcow2.Format().OpenSnapshot(ctx, src, nil, "snap")
			if err == nil {
				img.Close()
			}
			return err
		},
		"info": func(ctx context.Context, src formats.Source) error {
			_, err := qcow2.Format().Info(ctx, src)
			return err
		},
	} {
		if err := run(ctx, formatstest.NewSource(p)); !errors.Is(err, context.Canceled) {
			t.Errorf("%s, canceled: %v", what, err)
		}
		for at := 1; ; at++ {
			n := 0
			err := run(context.Background(), breaking{formatstest.NewSource(p), at, &n})
			if n < at {
				if err != nil || at < 3 {
					t.Errorf("%s takes %d reads, %v", what, n, err)
				}
				break
			}
			if !errors.Is(err, errBroken) || errors.Is(err, formats.ErrCorrupt) {
				t.Errorf("%s, read %d broken: %v", what, at, err)
			}
		}
	}
}
