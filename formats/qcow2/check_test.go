package qcow2_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/qcow2"
)

// compareCheck compares with qemu-img check. extra is how many corruptions more are found here.
func compareCheck(t testing.TB, path string, extra int64) (formatstest.CheckSums, []formats.Finding) {
	t.Helper()
	findings, got := qemu.Check(t, path)
	want := qemu.QEMUCheck(t, path)
	want.Corruptions += extra
	if got != want {
		t.Errorf("%+v,\nqemu-img says (and %d more) %+v", got, extra, want)
		for i, f := range findings[:min(len(findings), 20)] {
			t.Logf("%d: %+v", i, f)
		}
	}
	for _, f := range findings {
		if f.What == "" || strings.ContainsRune(f.What, '\n') || f.Offset < -1 || f.Count < 1 {
			t.Errorf("%+v", f)
		}
	}
	return got, findings
}

// image is a file that is taken apart to be damaged, by the offsets in its header.
type image []byte

func (p image) u64(off int64) uint64       { return binary.BigEndian.Uint64(p[off:]) }
func (p image) set(off int64, v uint64)    { binary.BigEndian.PutUint64(p[off:], v) }
func (p image) cluster() int64             { return 1 << binary.BigEndian.Uint32(p[20:]) }
func (p image) l1(i int64) int64           { return int64(p.u64(40)) + 8*i }
func (p image) refTable() int64            { return int64(p.u64(48)) }
func (p image) refBlock() int64            { return int64(p.u64(p.refTable())) }
func (p image) at(off int64) int64         { return int64(p.u64(off) & 0x00fffffffffffe00) }
func (p image) l2(i int64) int64           { return p.at(p.l1(0)) + 8*i }
func (p image) count(cluster int64) int64  { return p.refBlock() + 2*cluster } // of 16 bits
func (p image) flip(off int64, bit uint64) { p.set(off, p.u64(off)^bit) }

// first returns the place of the first L2 entry for which is says yes.
func (p image) first(is func(e uint64) bool) int64 {
	for i := range p.cluster() / 8 {
		if is(p.u64(p.l2(i))) {
			return p.l2(i)
		}
	}
	panic("the image has no such entry")
}

func compressed(e uint64) bool { return e>>62&1 == 1 }

// TestCheckOrders: reference counts of every width.
func TestCheckOrders(t *testing.T) {
	formatstest.NeedTool(t, "qemu-img")
	formatstest.NeedTool(t, "qemu-io")
	for order := range 7 {
		r := recipe{size: 3 << 20, pieces: formatstest.Disk(3 << 20), options: fmt.Sprintf("cluster_size=4096,refcount_bits=%d", 1<<order), compress: order > 3,
			io: []string{"write -P 7 100k 200k", "write -z 150k 70k"}, snapshot: order > 0}
		path := filepath.Join(t.TempDir(), "disk")
		r.make(t, path)
		compareCheck(t, path, 0)
		p, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		// The snapshot is lost, and what it shares with the disk is counted twice; the first clusters
		// are not counted at all.
		image(p).put32(60, 0)
		image(p).set(image(p).refBlock(), 0)
		if err := os.WriteFile(path, p, 0o600); err != nil {
			t.Fatal(err)
		}
		if r, _ := compareCheck(t, path, 0); order > 0 && (r.Leaks == 0 || r.Corruptions == 0) {
			t.Errorf("2^%d bits: %+v", order, r)
		}
	}
}

// TestCheckDamage breaks images in many ways, and compares what is found with what QEMU finds.
func TestCheckDamage(t *testing.T) {
	formatstest.NeedTool(t, "qemu-img")
	formatstest.NeedTool(t, "qemu-io")
	dir := t.TempDir()
	const size = 3 << 20
	images := map[string][]byte{}
	for name, r := range map[string]recipe{
		"plain":    {options: "cluster_size=4096", io: []string{"write -P 5 0 100k"}},
		"packed":   {options: "cluster_size=4096", compress: true, io: []string{"write -P 5 0 100k"}},
		"snapshot": {options: "cluster_size=4096", snapshot: true, io: []string{"write -P 5 0 100k"}},
		"one bit":  {options: "cluster_size=4096,refcount_bits=1", io: []string{"write -P 5 0 100k"}},
		"v2":       {options: "cluster_size=4096,compat=0.10", io: []string{"write -P 5 0 100k"}},
		"extended": {options: "cluster_size=16384,extended_l2=on", io: []string{"write -P 5 0 100k", "write -P 5 1000k 1k"}},
	} {
		r.size, r.pieces = size, formatstest.Disk(size)
		path := filepath.Join(dir, name)
		r.make(t, path)
		compareCheck(t, path, 0)
		p, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		images[name] = p
	}
	for _, c := range []struct {
		image, name string
		damage      func(p image) image
		extra       int64
		text        string // of one of the findings
	}{
		{"plain", "refcount 0 of data", func(p image) image { p.flip(p.count(p.at(p.l2(3))/4096)&^7, 0xffffffffffffffff); return p }, 0, "references"},
		{"plain", "refcount 2 of data", func(p image) image { return p.put16(p.count(p.at(p.l2(3))/4096), 2) }, 0, "the reference count is 2, and there are 1 references"},
		{"plain", "leak", func(p image) image { p.set(p.l2(3), 0); return p }, 0, "the reference count is 1, and there are 0 references"},
		{"plain", "two entries, one cluster", func(p image) image { p.set(p.l2(3), p.u64(p.l2(4))); return p }, 0, "there are 2 references"},
		{"plain", "two entries, one cluster, counted", func(p image) image {
			p.set(p.l2(3), p.u64(p.l2(4)))
			return p.put16(p.count(p.at(p.l2(4))/4096), 2)
		}, 0, "flag"},
		{"plain", "flag missing", func(p image) image { p.flip(p.l2(3), 1<<63); return p }, 0, "flag"},
		{"plain", "flag missing in L1", func(p image) image { p.flip(p.l1(0), 1<<63); return p }, 0, "flag"},
		{"plain", "reserved bit in L2", func(p image) image { p.flip(p.l2(3), 1<<58); return p }, 0, "reserved bits"},
		{"plain", "reserved bit in L1", func(p image) image { p.flip(p.l1(0), 1<<58); return p }, 0, "L1 entry 0 has reserved bits"},
		{"plain", "reserved bit in the refcount table", func(p image) image { p.flip(p.refTable(), 1); return p }, 0, "entry 0 of the refcount table has reserved bits"},
		{"plain", "unaligned data", func(p image) image { p.flip(p.l2(3), 512); return p }, 0, "middle of a cluster"},
		{"plain", "unaligned zeros", func(p image) image { p.flip(p.l2(3), 513); return p }, 0, "middle of a cluster"},
		{"plain", "data past the end", func(p image) image { p.set(p.l2(3), 1<<63|1<<40); return p }, 0, "points past the end"},
		{"plain", "data past the end, no flag", func(p image) image { p.set(p.l2(3), 1<<40); return p }, 0, "points past the end"},
		{"plain", "zeros past the end", func(p image) image { p.set(p.l2(3), 1<<63|1<<40|1); return p }, 0, "points past the end"},
		{"plain", "L2 past the end", func(p image) image { p.set(p.l1(1), 1<<63|1<<40); return p }, 0, "L1 entry 1 points past the end"},
		{"plain", "L2 twice", func(p image) image { p.set(p.l1(1), p.u64(p.l1(0))); return p }, 0, "there are 2 references"},
		{"plain", "data in an L2 table", func(p image) image { p.set(p.l2(3), 1<<63|uint64(p.at(p.l1(0)))); return p }, 0, "metadata and something else"},
		{"plain", "data in the L1 table", func(p image) image { p.set(p.l2(3), 1<<63|uint64(p.l1(0))); return p }, 0, "metadata and something else"},
		{"plain", "data in the L1 table, counted", func(p image) image {
			p.set(p.l2(3), uint64(p.l1(0)))
			return p.put16(p.count(p.l1(0)/4096), 2)
		}, 1, "metadata and something else"},
		{"plain", "data in a refcount block", func(p image) image { p.set(p.l2(3), 1<<63|uint64(p.refBlock())); return p }, 0, "the cluster of refcount block 0 is used 2 times"},
		{"plain", "L2 in the refcount table", func(p image) image { p.set(p.l1(1), 1<<63|uint64(p.refTable())); return p }, 0, "metadata and something else"},
		{"plain", "refcount block past the end", func(p image) image { p.set(p.refTable(), 1<<40); return p }, 0, "entry 0 of the refcount table points past the end"},
		{"plain", "second refcount block past the end", func(p image) image { p.set(p.refTable()+8, 1<<40); return p }, 0, "entry 1 of the refcount table points past the end"},
		{"plain", "refcount block twice", func(p image) image { p.set(p.refTable()+8, p.u64(p.refTable())); return p }, 0, "the cluster of refcount block 1 is used 2 times"},
		{"plain", "no refcount block", func(p image) image { p.set(p.refTable(), 0); return p }, 0, "the reference count is 0, and there are 1"},
		{"plain", "dirty", func(p image) image { p.set(72, 1); return p.put16(p.count(p.at(p.l2(3))/4096), 2) }, 0, "not closed properly"},
		{"plain", "corrupt bit", func(p image) image { p.set(72, 2); return p }, 0, ""},
		{"plain", "cut by clusters", func(p image) image { return p[:len(p)-5*4096] }, 0, "points past the end"},
		{"plain", "cut within a cluster", func(p image) image { return p[:len(p)-4096-100] }, 1, "cut by the end"},
		{"plain", "longer", func(p image) image { return append(p, make([]byte, 10_000)...) }, 0, ""},
		{"packed", "flag set", func(p image) image { p.flip(p.first(compressed), 1<<63); return p }, 0, "is compressed, and says"},
		{"packed", "leak", func(p image) image { p.set(p.first(compressed), 0); return p }, 0, ""},
		{"packed", "longer data", func(p image) image { p.flip(p.first(compressed), 15<<58&^(1<<62)); return p }, 0, ""},
		{"packed", "past the end", func(p image) image { p.set(p.first(compressed), 1<<62|1<<40); return p }, 0, "points past the end"},
		{"snapshot", "refcount 1 of shared data", func(p image) image { return p.put16(p.count(p.at(p.first(shared))/4096), 1) }, 0, "there are 2 references"},
		{"snapshot", "leak", func(p image) image { p.set(p.first(shared), 0); return p }, 0, "there are 1 references"},
		{"snapshot", "flag set on shared data", func(p image) image { p.flip(p.first(shared), 1<<63); return p }, 0, "flag"},
		{"snapshot", "reserved bit in its L1", func(p image) image { p.flip(p.at(int64(p.u64(64))), 1<<58); return p }, 0, "reserved bits"},
		{"snapshot", "its L2 unaligned", func(p image) image { p.flip(p.at(int64(p.u64(64)))+8, 1<<40); return p }, 0, ""},
		{"snapshot", "its L1 unaligned", func(p image) image { p.flip(int64(p.u64(64)), 512); return p }, 0, "the L1 table's offset"},
		{"snapshot", "its L1 past the end", func(p image) image { p.set(int64(p.u64(64)), 1<<40); return p }, 0, "the L1 table of snapshot \"before\" reaches past"},
		{"snapshot", "no extra data", func(p image) image { return p.noExtra() }, 0, "must have 16"},
		{"snapshot", "no snapshots", func(p image) image { p.set(60, 0); return p }, 0, "references"},
		{"one bit", "two entries, one cluster", func(p image) image { p.set(p.l2(3), p.u64(p.l2(4))); return p }, 0, "more references than can be counted"},
		{"v2", "zero cluster", func(p image) image { p.set(p.l2(500), 1); return p }, 1, "version 2"},
		{"extended", "both", func(p image) image { p.set(p.at(p.l1(0))+8, 1<<32|1); return p }, 0, "both allocated and zero"},
		{"extended", "allocated nowhere", func(p image) image { p.set(p.at(p.l1(0))+16*150+8, 1); return p }, 0, "allocated subclusters, but no cluster"},
		{"extended", "bit 0", func(p image) image { p.flip(p.at(p.l1(0)), 1); return p }, 1, "reserved bits"},
		{"extended", "compressed", func(p image) image { p.flip(p.at(p.l1(0)), 3<<62); return p }, 0, "compressed, but has subclusters"},
		{"extended", "unaligned", func(p image) image { p.flip(p.at(p.l1(0)), 512); return p }, 0, "middle of a cluster"},
	} {
		t.Run(c.image+" "+c.name, func(t *testing.T) {
			t.Parallel()
			p := c.damage(image(append([]byte(nil), images[c.image]...)))
			path := filepath.Join(t.TempDir(), "damaged")
			if err := os.WriteFile(path, p, 0o600); err != nil {
				t.Fatal(err)
			}
			_, findings := compareCheck(t, path, c.extra)
			if said := fmt.Sprint(findings); !strings.Contains(said, c.text) {
				t.Errorf("%q is not among %s", c.text, said)
			}
		})
	}
}

func shared(e uint64) bool { return e>>62 == 0 && e > 1 }

func (p image) put16(off int64, v uint16) image { binary.BigEndian.PutUint16(p[off:], v); return p }

func (p image) put32(off int64, v uint32) { binary.BigEndian.PutUint32(p[off:], v) }

// noExtra removes the extra data of the first snapshot.
func (p image) noExtra() image {
	at := int64(p.u64(64))
	n := int64(binary.BigEndian.Uint32(p[at+36:]))
	binary.BigEndian.PutUint32(p[at+36:], 0)
	copy(p[at+40:], p[at+40+n:][:100])
	return p
}

// TestCheckWindows: a file of 32 Mi clusters and some, whose references are counted in three passes. Tables in
// one window point into others.
func TestCheckWindows(t *testing.T) {
	const (
		window   = 16 << 20 * 512 // bytes
		cluster  = 512
		refTable = 1 << 20
		size     = 2*window + 100*cluster
	)
	offsets := func(n int64) int64 { return n*window + 10*cluster } // tables and data of window n
	build := func(t *testing.T, damage func(w func(off int64, v uint64))) string {
		path := filepath.Join(t.TempDir(), "disk")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		write := func(off int64, v uint64) {
			if _, err := f.WriteAt(binary.BigEndian.AppendUint64(nil, v), off); err != nil {
				t.Fatal(err)
			}
		}
		header := tiny(3)[:cluster].u64(24, 3*64*cluster).u32(36, 3).u64(40, cluster).u64(48, refTable).u32(56, size/cluster/256*8/cluster+1)
		if _, err := f.WriteAt(header, 0); err != nil {
			t.Fatal(err)
		}
		// Reference counts are one everywhere where something is; the blocks lie in window 1.
		block := int64(window + 1<<20)
		counted := map[int64]int64{} // the blocks by what they count
		var one func(off int64)
		one = func(off int64) {
			i := off / cluster / 256
			if counted[i] == 0 {
				counted[i] = block
				block += cluster
				write(refTable+8*i, uint64(counted[i]))
				one(counted[i])
			}
			if _, err := f.WriteAt([]byte{0, 1}, counted[i]+off/cluster%256*2); err != nil {
				t.Fatal(err)
			}
		}
		one(0)
		one(cluster)
		for i := range int64(binary.BigEndian.Uint32(header[56:])) {
			one(refTable + i*cluster)
		}
		for n := range int64(3) { // the table of window n points into windows 2-n and 0
			write(cluster+8*n, 1<<63|uint64(offsets(n)))
			one(offsets(n))
			for i, off := range []int64{offsets(2-n) + cluster, (100 + n) * cluster} {
				write(offsets(n)+8*int64(i), 1<<63|uint64(off))
				one(off)
			}
		}
		damage(write)
		return path
	}
	for _, c := range []struct {
		name   string
		damage func(w func(off int64, v uint64))
		faults int64
		qemu   bool
	}{
		{"as it is", func(func(int64, uint64)) {}, 0, false},
		// In this order: an entry that points at a table of window 2; one whose flag is missing there;
		// what they pointed at before; an L1 entry without its flag.
		{"damaged", func(w func(int64, uint64)) {
			w(offsets(1), 1<<63|uint64(offsets(2)))
			w(offsets(0), uint64(offsets(2)+cluster))
			w(cluster+16, uint64(offsets(2)))
		}, 4, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := build(t, c.damage)
			_, r := qemu.Check(t, path)
			if c.qemu { // takes long
				compareCheck(t, path, 0)
			}
			if r.Corruptions+r.Leaks != c.faults || r.End <= 2*window {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestCheckBeyondQemu: damage that QEMU doesn't look for, or that keeps it from checking.
func TestCheckBeyondQemu(t *testing.T) {
	bitmap := func() imageBytes { // counted16 with a bitmap of one cluster
		p := counted16().more(3).u64(88, 1).ext(tinyExt, 0x23852875, string(make([]byte, 24))).u32(tinyExt+8, 1).u64(tinyExt+16, 32).u64(tinyExt+24, tinySnap+1024).
			u64(tinySnap+1024, tinySnap+1536).u32(tinySnap+1032, 1).u32(tinySnap+1040, 1<<24|9<<16|1).str(tinySnap+1048, "b").u64(tinySnap+1536, tinySnap+2048)
		for i := range 3 {
			p.u8(tinySnap+512+2*(9+i)+1, 1)
		}
		return p
	}
	snapshot := func() imageBytes { // counted16 with a snapshot that has an L1 table of its own
		p := counted16().more(2).u32(60, 1).u64(64, tinySnap+1024).u64(tinySnap+1024, tinySnap+1536).u32(tinySnap+1032, 1).u32(tinySnap+1036, 1<<16|4).
			u32(tinySnap+1060, 16).u64(tinySnap+1072, 1024).str(tinySnap+1080, "7snap")
		return p.u8(tinySnap+512+2*9+1, 1).u8(tinySnap+512+2*10+1, 1)
	}
	for _, c := range []struct {
		name  string
		image imageBytes
		want  string // in one of the findings; there are none if it is ""
	}{
		{"nothing", counted16(), ""},
		{"a bitmap", bitmap(), ""},
		{"a snapshot", snapshot(), ""},
		{"refcount block unaligned", counted16().u64(tinySnap, tinySnap+1024+8), "entry 0 of the refcount table"},
		{"refcount block unaligned for its clusters", counted16().u32(20, 10).u64(40, 1024).u64(48, 4096).u64(24, 0).u64(4096, 512), "points into the middle"},
		{"refcount block of nothing", counted16().u64(tinySnap+16, tinySnap+512), "the cluster of refcount block 2 is used 2 times"},
		{"L1 entry unaligned", counted16().u32(20, 10).u64(40, 1024).u64(48, 4096).u64(24, 2048).u64(1024, 512), "L1 entry 0 points into the middle"},
		{"L1 past the end", counted16().u64(40, 1<<40), "the L1 table reaches past"},
		{"refcount table past the end", counted16().u64(48, 1<<40), "the refcount table reaches past"},
		{"the snapshot's L1 is too small", snapshot().u64(tinySnap+1072, 1<<20), "too few"},
		{"a bitmap's entry with reserved bits", bitmap().u64(tinySnap+1536, 1<<60), "entry 0 of a bitmap's table has reserved bits"},
		{"a bitmap's entry with both", bitmap().u64(tinySnap+1536, tinySnap+2048|1), "entry 0 of a bitmap's table has reserved bits"},
		{"a bitmap's entry past the end", bitmap().u64(tinySnap+1536, 1<<40), "entry 0 of a bitmap's table points past"},
		{"a bitmap's cluster is also data", bitmap().u64(tinySnap+1536, tinyData), "metadata and something else"},
	} {
		var said []string
		_, err := qcow2.Format().Check(context.Background(), formatstest.NewSource(c.image), func(f formats.Finding) { said = append(said, f.What) })
		all := strings.Join(said, "; ")
		if err != nil || !strings.Contains(all, c.want) || (c.want == "") != (len(said) == 0) {
			t.Errorf("%s: %q, %v; want %q", c.name, all, err, c.want)
		}
	}
}
