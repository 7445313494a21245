package qcow2_test

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/qcow2"
)

// tiny is a hand-made image with clusters of 512 bytes: header, L1 table, L2 table, then data
// clusters, of which the disk uses as many as it is large.
const (
	tinyCluster = 512
	tinyL1      = 1 * tinyCluster
	tinyL2      = 2 * tinyCluster
	tinyData    = 3 * tinyCluster
	tinyCount   = 4 // clusters of disk and of data
	tinyExt     = 104
)

type imageBytes []byte

func tiny(version uint32) imageBytes {
	p := make(imageBytes, tinyData+tinyCount*tinyCluster)
	p.u32(0, 0x514649fb).u32(4, version).u32(20, 9).u64(24, tinyCount*tinyCluster)
	p.u32(36, 1).u64(40, tinyL1).u64(48, 0x10000).u32(56, 1)
	if version >= 3 {
		p.u32(96, 4).u32(100, 104)
	}
	p.u64(tinyL1, 1<<63|tinyL2)
	for i := range tinyCount {
		p.u64(tinyL2+8*i, 1<<63|uint64(tinyData+i*tinyCluster))
	}
	copy(p[tinyData:], formatstest.Noise(9, tinyCount*tinyCluster))
	return p
}

func (p imageBytes) u8(off int, v uint8) imageBytes { p[off] = v; return p }
func (p imageBytes) u32(off int, v uint32) imageBytes {
	binary.BigEndian.PutUint32(p[off:], v)
	return p
}
func (p imageBytes) u64(off int, v uint64) imageBytes {
	binary.BigEndian.PutUint64(p[off:], v)
	return p
}
func (p imageBytes) str(off int, s string) imageBytes { copy(p[off:], s); return p }

// ext puts a header extension at off.
func (p imageBytes) ext(off int, typ uint32, data string) imageBytes {
	return p.u32(off, typ).u32(off+4, uint32(len(data))).str(off+8, data)
}

// more appends clusters of zeros.
func (p imageBytes) more(n int) imageBytes { return append(p, make([]byte, n*tinyCluster)...) }

func TestHostile(t *testing.T) {
	const dataFile, luks = 1 << 2, 2
	names := string([]byte{0, 9}) + "shiny" + strings.Repeat("\x00", 41)
	for _, c := range []struct {
		name  string
		image imageBytes
		class error
		text  string // part of the message
		late  bool   // Info finds nothing wrong
	}{
		{"magic", tiny(3).u8(0, 'q'), formats.ErrCorrupt, "magic", false},
		{"version 1", tiny(3).u32(4, 1), formats.ErrUnsupported, "version 1", false},
		{"version 4", tiny(3).u32(4, 4), formats.ErrUnsupported, "version 4", false},
		{"ends in header 2", tiny(2)[:71], formats.ErrCorrupt, "within the header", false},
		{"ends in header 3", tiny(3)[:103], formats.ErrCorrupt, "within the header", false},
		{"ends before compression type", tiny(3).u32(100, 112)[:104], formats.ErrCorrupt, "within the header", false},
		{"clusters of 256", tiny(3).u32(20, 8), formats.ErrCorrupt, "cluster_bits is 8", false},
		{"clusters of 4 MiB", tiny(3).u32(20, 22), formats.ErrCorrupt, "cluster_bits is 22", false},
		{"clusters of 2^4G", tiny(3).u32(20, math.MaxUint32), formats.ErrCorrupt, "cluster_bits is 4294967295", false},
		{"short header", tiny(3).u32(100, 96), formats.ErrCorrupt, "96 bytes", false},
		{"long header", tiny(3).u32(100, 520), formats.ErrCorrupt, "more than a cluster", false},
		{"endless header", tiny(3).u32(100, math.MaxUint32), formats.ErrCorrupt, "more than a cluster", false},
		{"refcounts", tiny(3).u32(96, 7), formats.ErrCorrupt, "refcount_order is 7", false},

		{"size 2^63", tiny(3).u64(24, 1<<63), formats.ErrCorrupt, "beyond 63 bits", false},
		{"size 2^63-1", tiny(3).u64(24, 1<<63-1), formats.ErrCorrupt, "too few", false},
		{"size beyond L1", tiny(3).u64(24, 64*512+1), formats.ErrCorrupt, "too few", false},
		{"no L1", tiny(3).u32(36, 0), formats.ErrCorrupt, "too few", false},
		{"L1 over 32 MiB", tiny(3).u32(36, 32<<20/8+1), formats.ErrCorrupt, "at most", false},
		{"L1 of 32 GiB", tiny(3).u32(36, math.MaxUint32), formats.ErrCorrupt, "at most", false},
		{"L1 of 32 MiB, not there", tiny(3).u32(36, 32<<20/8).u64(24, 128<<30), formats.ErrCorrupt, "past the end", false},
		{"L1 at 0", tiny(3).u64(40, 0), formats.ErrCorrupt, "L1 table's offset", false},
		{"L1 unaligned", tiny(3).u64(40, tinyL1+8), formats.ErrCorrupt, "L1 table's offset", false},
		{"L1 at the end", tiny(3).u64(40, tinyData+tinyCount*tinyCluster), formats.ErrCorrupt, "past the end", false},
		{"L1 at 2^63", tiny(3).u64(40, 1<<63), formats.ErrCorrupt, "past the end", false},
		{"L1 at 2^64", tiny(3).u64(40, -512&math.MaxUint64), formats.ErrCorrupt, "past the end", false},

		{"AES", tiny(2).u32(32, 1), formats.ErrUnsupported, "AES", false},
		{"LUKS", tiny(3).u32(32, luks), formats.ErrUnsupported, "LUKS", false},
		{"other cipher", tiny(3).u32(32, 77), formats.ErrUnsupported, "method 77", false},
		{"data file", tiny(3).u64(72, dataFile).ext(tinyExt, 0x44415441, "/etc/shadow"), formats.ErrNotAllowed, `external data file "/etc/shadow"`, true},
		{"data file without a name", tiny(3).u64(72, dataFile), formats.ErrUnsupported, "does not name its external data file", false},
		{"data file by URL", tiny(3).u64(72, dataFile).ext(tinyExt, 0x44415441, "https://example.com/x"), formats.ErrNotAllowed, `external data file "https://example.com/x" is not the name of a file`, false},
		{"subclusters of 16 bytes", tiny(3).u64(72, 1<<4), formats.ErrCorrupt, "at least 14", false},
		{"unknown features", tiny(3).u64(72, 1<<63|1<<9).ext(tinyExt, 0x6803f857, names), formats.ErrUnsupported, `bit 9 ("shiny"), bit 63`, false},
		{"unknown and encrypted", tiny(3).u64(72, 1<<5).u32(32, 1), formats.ErrUnsupported, "bit 5", false},
		{"zstd without its bit", tiny(3).u32(100, 112).u8(104, 1), formats.ErrCorrupt, "contradicts", false},
		{"bit without zstd", tiny(3).u32(100, 112).u64(72, 1<<3), formats.ErrCorrupt, "contradicts", false},
		{"bit without the field", tiny(3).u64(72, 1<<3), formats.ErrCorrupt, "contradicts", false},
		{"compression 2", tiny(3).u32(100, 112).u64(72, 1<<3).u8(104, 2), formats.ErrUnsupported, "compression type 2", false},

		{"backing file", tiny(3).u64(8, 300).u32(16, 11).str(300, "/etc/shadow"), formats.ErrNotAllowed, `backing file "/etc/shadow"`, true},
		{"backing file of version 2", tiny(2).u64(8, 300).u32(16, 9).str(300, "base\n.img"), formats.ErrNotAllowed, `backing file "base\n.img"`, true},
		{"backing file in JSON", tiny(3).u64(8, 300).u32(16, 25).str(300, `json:{"file.driver":"nbd"}`), formats.ErrNotAllowed, "of a protocol", false},
		{"backing file over nbd", tiny(3).u64(8, 300).u32(16, 8).str(300, "nbd:host"), formats.ErrNotAllowed, "of a protocol", false},
		{"backing name with a zero byte", tiny(3).u64(8, 300).u32(16, 8).str(300, "base\x00img"), formats.ErrNotAllowed, "zero byte", false},
		{"backing name outside", tiny(3).u64(8, 513).u32(16, 1), formats.ErrCorrupt, "outside the first cluster", false},
		{"backing name at 2^64", tiny(3).u64(8, math.MaxUint64).u32(16, 1), formats.ErrCorrupt, "outside the first cluster", false},
		{"backing name too long", tiny(3).u64(8, 500).u32(16, 13), formats.ErrCorrupt, "too long", false},
		{"backing name of 4 GiB", tiny(3).u64(8, 500).u32(16, math.MaxUint32), formats.ErrCorrupt, "too long", false},
		{"backing name cut", tiny(3).u64(8, 300).u32(16, 11)[:305], formats.ErrCorrupt, "backing file's name reaches past", false},

		{"long extension", tiny(3).ext(tinyExt, 0x12345678, "").u32(tinyExt+4, 512-104-8+1), formats.ErrCorrupt, "header extension", false},
		{"extension of 2 GiB", tiny(3).ext(tinyExt, 0x12345678, "").u32(tinyExt+4, math.MaxInt32), formats.ErrCorrupt, "header extension", false},
		{"extension of 4 GiB", tiny(3).ext(tinyExt, 0x12345678, "").u32(tinyExt+4, math.MaxUint32), formats.ErrCorrupt, "header extension", false},
		{"extension into the backing name", tiny(3).ext(tinyExt, 1, strings.Repeat("x", 200)).u64(8, 300).u32(16, 1), formats.ErrCorrupt, "header extension", false},

		{"L1 entry unaligned for its clusters", tiny(3).u32(20, 10).u64(40, 1024).u64(1024, 1024+512), formats.ErrCorrupt, "L1 entry 0 points into the middle", true},
		{"L1 entry, reserved bits", tiny(3).u64(tinyL1, 1<<56|tinyL2), formats.ErrCorrupt, "L1 entry 0 has reserved bits", true},
		{"L1 entry, low bits", tiny(3).u64(tinyL1, 1|tinyL2), formats.ErrCorrupt, "L1 entry 0 has reserved bits", true},
		{"L1 entry, only reserved bits", tiny(3).u64(tinyL1, 1), formats.ErrCorrupt, "L1 entry 0 has reserved bits", true},
		{"L2 table past the end", tiny(3).u64(tinyL1, tinyData+tinyCount*tinyCluster), formats.ErrCorrupt, "L2 table reaches past", true},
		{"L2 table far past the end", tiny(3).u64(tinyL1, 0x00fffffffffffe00), formats.ErrCorrupt, "L2 table reaches past", true},
		{"L2 table cut", tiny(3).u64(tinyL1, tinyData+tinyCount*tinyCluster).more(1)[:tinyData+tinyCount*tinyCluster+511], formats.ErrCorrupt, "L2 table reaches past", true},
		{"more L2 tables than clusters", tiny(3).more(1).u32(36, 64).u64(24, 9*64*512).shareL2(9), formats.ErrCorrupt, "room for 8", true},

		{"L2 entry unaligned", tiny(3).u32(20, 10).u64(24, 1024).u64(40, 1024).u64(1024, 2048).u64(2048, 2048+512), formats.ErrCorrupt, "disk offset 0 points into the middle", true},
		{"L2 entry, reserved bits", tiny(3).u64(tinyL2+8, 1<<61|tinyData), formats.ErrCorrupt, "disk offset 512 has reserved bits", true},
		{"L2 entry, low bits", tiny(3).u64(tinyL2+8, 2|tinyData), formats.ErrCorrupt, "disk offset 512 has reserved bits", true},
		{"data past the end", tiny(3).u64(tinyL2+8, tinyData+tinyCount*tinyCluster), formats.ErrCorrupt, "disk offset 512 points past the end", true},
		{"data far past the end", tiny(3).u64(tinyL2+24, 0x00fffffffffffe00), formats.ErrCorrupt, "disk offset 1536 points past the end", true},
		{"data cut", tiny(3)[:tinyData+tinyCount*tinyCluster-1], formats.ErrCorrupt, "disk offset 1536 points past the end", true},
		{"zero cluster of version 2", tiny(2).u64(tinyL2, 1), formats.ErrCorrupt, "version 2 does not have", true},
		{"compressed past the end", tiny(3).u64(tinyL2, 1<<62|tinyData+tinyCount*tinyCluster), formats.ErrCorrupt, "disk offset 0 points past the end", true},
		{"compressed far past the end", tiny(3).u64(tinyL2, 1<<62|(1<<56-1)), formats.ErrCorrupt, "disk offset 0 points past the end", true},
		{"compressed, reserved bits", tiny(3).u64(tinyL2, 1<<62|1<<56|tinyData), formats.ErrCorrupt, "disk offset 0 has reserved bits", true},
		{"compressed noise", tiny(3).str(tinyData, "\x07").u64(tinyL2, 1<<62|tinyData), formats.ErrCorrupt, "can't decompress", true},
		{"compressed, too short", tiny(3).str(tinyData, deflated(511)).u64(tinyL2, 1<<62|tinyData), formats.ErrCorrupt, "less than a cluster", true},
		{"compressed, too long", tiny(3).str(tinyData, deflated(513)).u64(tinyL2, 1<<62|tinyData), formats.ErrCorrupt, "more than a cluster", true},
		{"deflate bomb", tiny(3).str(tinyData, deflated(300_000)).u64(tinyL2, 1<<62|tinyData), formats.ErrCorrupt, "more than a cluster", true},
		{"zstd noise", tiny(3).zstd().u64(tinyL2, 1<<62|tinyData), formats.ErrCorrupt, "can't decompress", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			formatstest.CheckRefused(t, qcow2.Format(), formatstest.NewSource(c.image), nil, c.class, c.text, c.late)
		})
	}
}

// aaa is what deflated compresses.
func aaa(n int) []byte { return bytes.Repeat([]byte("a"), n) }

// deflated is a raw deflate stream of n bytes.
func deflated(n int) string {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		panic(err)
	}
	w.Write(aaa(n))
	w.Close()
	return b.String()
}

// shareL2 lets the first n L1 entries point at the same L2 table.
func (p imageBytes) shareL2(n int) imageBytes {
	for i := range n {
		p.u64(tinyL1+8*i, tinyL2)
	}
	return p
}

// zstd declares the image's codec.
func (p imageBytes) zstd() imageBytes { return p.u32(100, 112).u64(72, 1<<3).u8(104, 1) }

// TestTolerated are oddities that a reader must not stumble over.
func TestTolerated(t *testing.T) {
	want := formatstest.Noise(9, tinyCount*tinyCluster)
	zeros := make([]byte, tinyCluster)
	packed := tiny(3).str(tinyData+600, deflated(512)).u64(tinyL2, 1<<62|(tinyData+600))
	for _, c := range []struct {
		name  string
		image imageBytes
		want  []byte
	}{
		{"as it is", tiny(3), want},
		{"version 2", tiny(2), want},
		{"dirty and corrupt", tiny(3).u64(72, 3), want},
		{"unknown compatible features", tiny(3).u64(80, math.MaxUint64).u64(88, math.MaxUint64), want},
		{"longer header", tiny(3).u32(100, 160).str(112, strings.Repeat("\xff", 48)), want},
		{"unknown extension", tiny(3).ext(tinyExt, 0x12345678, "odd length").ext(tinyExt+24, 0xe2792aca, "raw"), want},
		{"extensions without an end", tiny(3).ext(tinyExt, 0x12345678, strings.Repeat("x", 400)), want},
		{"backing offset, no name", tiny(3).u64(8, 300), want},
		{"snapshots anywhere", tiny(3).u32(60, 7).u64(64, math.MaxUint64), want},
		{"refcounts anywhere", tiny(3).u64(48, math.MaxUint64).u32(56, math.MaxUint32), want},
		{"L1 longer than needed", tiny(3).u32(36, 32<<20/8), want},
		{"refcount not one", tiny(3).u64(tinyL1, tinyL2).u64(tinyL2, tinyData), want},
		{"zero cluster", tiny(3).u64(tinyL2, 1), append(zeros, want[512:]...)},
		{"preallocated zero cluster", tiny(3).u64(tinyL2, tinyData|1), append(zeros, want[512:]...)},
		{"unallocated with bit 63", tiny(3).u64(tinyL2, 1<<63), append(zeros, want[512:]...)},
		{"no L2 table", tiny(3).u64(tinyL1, 0), make([]byte, len(want))},
		{"no L2 table, bit 63", tiny(3).u64(tinyL1, 1<<63), make([]byte, len(want))},
		{"size not of sectors", tiny(3).u64(24, 1537), want[:1537]},
		{"file ends with the disk", tiny(3).u64(24, 1537)[:tinyData+1537], want[:1537]},
		{"empty disk", tiny(3).u64(24, 0), nil},
		{"empty disk without L1", tiny(3).u64(24, 0).u32(36, 0).u64(40, 0), nil},
		{"header as data", tiny(3).u64(tinyL2, tinyL2), append(tiny(3).u64(tinyL2, tinyL2)[tinyL2:][:512:512], want[512:]...)},
		{"the same data twice", tiny(3).u64(tinyL2+8, tinyData), append(append(want[:512:512], want[:512]...), want[1024:]...)},
		{"clusters swapped", tiny(3).u64(tinyL2, 1<<63|(tinyData+512)).u64(tinyL2+8, 1<<63|tinyData),
			slices.Concat(want[512:1024], want[:512], want[1024:])},
		{"compressed", packed, append(aaa(512), packed[tinyData+512:]...)},
		{"compressed up to the end, sectors beyond", append(tiny(3), deflated(512)...).u64(tinyL2, 1<<62|1<<61|(tinyData+2048)), append(aaa(512), want[512:]...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := formatstest.ReadAll(qcow2.Format(), formatstest.NewSource(c.image), nil)
			if err != nil || !bytes.Equal(got, c.want) {
				t.Errorf("%v; equal content: %v", err, bytes.Equal(got, c.want))
			}
			in, err := qcow2.Format().Info(context.Background(), formatstest.NewSource(c.image))
			if err != nil || in.Problem != nil || in.VirtualSize != int64(len(c.want)) {
				t.Errorf("info: %+v, %v", in, err)
			}
		})
	}
}

// TestLoopingTables: an L2 table that is its own data, or the L1 table, ends in wrong bytes or an
// error, at once.
func TestLoopingTables(t *testing.T) {
	for _, table := range []uint64{tinyL1, tinyL2} {
		for _, entry := range []uint64{0, tinyL1, tinyL2, 1<<62 | tinyL1, 1<<62 | tinyL2} {
			p := tiny(3).u64(tinyL1, table)
			for i := 1; i < 64; i++ {
				p.u64(tinyL2+8*i, entry)
			}
			if _, err := formatstest.ReadAll(qcow2.Format(), formatstest.NewSource(p), nil); err != nil && !errors.Is(err, formats.ErrCorrupt) {
				t.Errorf("table %d, entries %#x: %v", table, entry, err)
			}
		}
	}
}

// TestInfoOfUnreadable: the header of an image that can't be opened still tells all it can.
func TestInfoOfUnreadable(t *testing.T) {
	p := tiny(3).u64(72, 1|1<<1).u64(8, 400).u32(16, 4).str(400, "base").u32(60, 2).
		ext(tinyExt, 0xe2792aca, "vmdk").u32(32, 2).u64(80, 1).u32(96, 6)
	in, err := qcow2.Format().Info(context.Background(), formatstest.NewSource(p))
	if err != nil {
		t.Fatal(err)
	}
	if in.Format != "qcow2" || in.VirtualSize != 2048 || in.ClusterSize != 512 || !in.Encrypted || !in.Dirty {
		t.Errorf("%+v", in)
	}
	if len(in.Refs) != 1 || in.Refs[0] != (formats.Ref{Kind: formats.Backing, Name: "base", Format: "vmdk"}) {
		t.Errorf("%+v", in.Refs)
	}
	want := []formats.Property{
		{Name: "compat", Value: "1.1"}, {Name: "compression type", Value: "zlib"}, {Name: "lazy refcounts", Value: true},
		{Name: "refcount bits", Value: int64(64)}, {Name: "encrypt", Value: "luks"}, {Name: "corrupt", Value: true},
		{Name: "extended l2", Value: false},
		{Name: "snapshot table", Value: "qcow2: corrupt image: the snapshot table's offset 0x0 is not that of a cluster (at file offset 64)"},
	}
	if len(in.Specific) != len(want) {
		t.Fatalf("%+v", in.Specific)
	}
	for i, w := range want {
		if in.Specific[i] != w {
			t.Errorf("%+v, want %+v", in.Specific[i], w)
		}
	}
	if !errors.Is(in.Problem, formats.ErrUnsupported) {
		t.Errorf("%v", in.Problem)
	}
}

// TestInfoReadsLittle: at most the first cluster, here out of a file of 70 MiB.
func TestInfoReadsLittle(t *testing.T) {
	p := append(tiny(3).u32(20, 21).u32(100, 104).u64(40, 2<<20), make([]byte, 70<<20)...)
	src := &formatstest.Counted{Source: formatstest.NewSource(p)}
	in, err := qcow2.Format().Info(context.Background(), src)
	if err != nil || in.Problem != nil {
		t.Fatalf("%v, %v", in.Problem, err)
	}
	if src.N > 2<<20+4096 {
		t.Errorf("info read %d bytes", src.N)
	}
}

// TestLyingL1DoesNotAllocate: 32 MiB of L1 table are claimed by a file of 4 KiB, many times.
func TestLyingL1DoesNotAllocate(t *testing.T) {
	p := tiny(3).u32(36, 32<<20/8).u64(24, 128<<30)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 100 {
		if _, err := formatstest.ReadAll(qcow2.Format(), formatstest.NewSource(p), nil); !errors.Is(err, formats.ErrCorrupt) {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
		t.Errorf("%d bytes allocated", n)
	}
}
