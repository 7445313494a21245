package qcow2_test

import (
	"bytes"
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/qcow2"
	"imgferry/formats/raw"
	"imgferry/source"
)

var update = flag.Bool("update", false, "make testdata anew with qemu-img")

var qemu = formatstest.QEMU{
	Formats: []formats.Format{qcow2.Format(), raw.Format()},
	Source:  func(path string) (formats.Source, error) { return source.Open(path) },
}

func Example() {
	src, err := source.Open("testdata/v3-zstd.qcow2")
	if err != nil {
		panic(err)
	}
	img, err := qcow2.Format().Open(context.Background(), src, nil)
	if err != nil {
		src.Close()
		panic(err)
	}
	defer img.Close()
	for e, err := range img.Extents(context.Background()) {
		if err != nil {
			panic(err)
		}
		if !e.Zero {
			fmt.Println(e.Offset, e.Length, e.Compressed)
		}
	}
	// Output:
	// 0 49152 true
	// 327680 16384 true
	// 344064 49152 false
	// 393216 49152 true
	// 999424 17408 true
}

// recipe is an image made with qemu-img and qemu-io.
type recipe struct {
	name     string
	size     int64
	pieces   []formatstest.Piece
	options  string   // for qemu-img convert -o
	compress bool     // qemu-img convert -c
	io       []string // qemu-io commands afterwards
	snapshot bool     // taken before the qemu-io commands
}

// make writes the image to path.
func (r recipe) make(t testing.TB, path string) {
	t.Helper()
	qemu.Make(t, path, formatstest.Recipe{Size: r.size, Pieces: r.pieces, Options: r.options, Compress: r.compress})
	if r.snapshot {
		formatstest.Tool(t, "qemu-img", "snapshot", "-c", "before", path)
	}
	qemu.IO(t, path, r.io...)
}

// golden are the images in testdata: small, and enough to test without qemu-img. Their sizes are
// multiples of 512: qemu-img rounds others up.
var golden = []recipe{
	{name: "v2-zlib", size: 1_016_832, pieces: formatstest.Disk(1_016_832), options: "compat=0.10,cluster_size=4096", compress: true},
	{name: "v3-plain", size: 500_224, pieces: formatstest.Disk(500_224), options: "compat=1.1,cluster_size=512"},
	{name: "v3-zlib", size: 1_016_832, pieces: formatstest.Disk(1_016_832), options: "compat=1.1", compress: true},
	{name: "v3-zstd", size: 1_016_832, pieces: formatstest.Disk(1_016_832), options: "compat=1.1,cluster_size=16384,compression_type=zstd", compress: true},
}

func (r recipe) testdata() string { return filepath.Join("testdata", r.name+".qcow2") }

func TestGolden(t *testing.T) {
	var cases []formatstest.Case
	for _, r := range golden {
		if *update {
			r.make(t, r.testdata())
		}
		cases = append(cases, formatstest.Case{
			Name: r.name, Path: r.testdata(), Size: r.size, Content: formatstest.Sparse(r.pieces...),
		})
	}
	formatstest.Run(t, qcow2.Format(), cases)
}

// recipes cover every cluster size, both versions, both codecs, and what only writes to an existing
// image produce.
func recipes() []recipe {
	var list []recipe
	add := func(r recipe) {
		r.name = strings.Trim(strings.Join([]string{fmt.Sprint(len(list)), r.options, cmp.Or(map[bool]string{true: "compressed"}[r.compress], "plain")}, " "), " ")
		list = append(list, r)
	}
	for bits := 9; bits <= 21; bits++ {
		if (bits == 11 || bits == 13 || bits == 17 || bits == 19) && os.Getenv("IMGFERRY_LONG") == "" {
			continue // they are as their neighbours
		}
		// Several L2 tables of the small cluster sizes, a few clusters of the large ones, and a last
		// cluster that is cut.
		size := max(2<<20+512*607, int64(2)<<bits+512*9)
		o := fmt.Sprintf("cluster_size=%d", 1<<bits)
		add(recipe{size: size, pieces: formatstest.Disk(size), options: o + ",compat=0.10", compress: bits%2 == 0})
		add(recipe{size: size, pieces: formatstest.Disk(size), options: o, compress: bits%2 == 1})
		if bits%3 == 0 {
			add(recipe{size: size, pieces: formatstest.Disk(size), options: o + ",compression_type=zstd", compress: true})
		}
	}
	for _, o := range []string{
		"preallocation=metadata", "preallocation=falloc", "preallocation=full", "lazy_refcounts=on", "refcount_bits=1", "refcount_bits=64",
		"preallocation=metadata,compat=0.10",
	} {
		add(recipe{size: 1_000_448, pieces: formatstest.Disk(1_000_448), options: o})
	}
	// What a running machine leaves: rewritten compressed clusters, zero clusters with and without
	// a host cluster, discarded ones, and the state before all that in a snapshot.
	worn := []string{
		"write -P 7 100k 200k", "write -z 150k 70k", "write -z -u 300k 130k", "discard 512k 128k", "write -P 9 600k 1k",
		"write -P 11 3071k 512",
	}
	for _, o := range []string{"cluster_size=4096", "compression_type=zstd", "compat=0.10", "cluster_size=2M", "lazy_refcounts=on,cluster_size=512"} {
		for _, c := range []bool{false, true} {
			add(recipe{size: 3 << 20, pieces: formatstest.Disk(3 << 20), options: o, compress: c, io: worn, snapshot: c})
		}
	}
	// Subclusters, down to those of one sector.
	worn = append(worn, "write -P 13 200k 700", "write -z 201k 9k", "write -z -u 700k 3k", "discard 800k 4k", "write -P 15 2000k 2k")
	for i, o := range []string{"cluster_size=16384", "compression_type=zstd", "cluster_size=2M", "cluster_size=65536", "preallocation=metadata", "lazy_refcounts=on"} {
		add(recipe{size: 3 << 20, pieces: formatstest.Disk(3 << 20), options: o + ",extended_l2=on", compress: i%2 == 1 && i < 5, io: worn, snapshot: i%2 == 1})
	}
	add(recipe{size: 512, pieces: formatstest.Disk(512)})
	add(recipe{size: 70 << 30, pieces: []formatstest.Piece{{Offset: 0, Data: formatstest.Text(5, 1000)}, {Offset: 66 << 30, Data: formatstest.Noise(6, 70_000)}}, compress: true})
	add(recipe{size: 70 << 30, pieces: []formatstest.Piece{{Offset: 0, Data: formatstest.Text(5, 1000)}, {Offset: 66 << 30, Data: formatstest.Noise(6, 70_000)}}})
	return list
}

// TestQemuImages reads what qemu-img writes, and compares content and map with what qemu-img reads.
func TestQemuImages(t *testing.T) {
	formatstest.NeedTool(t, "qemu-img")
	formatstest.NeedTool(t, "qemu-io")
	for i, r := range recipes() {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "disk.qcow2")
			r.make(t, path)
			if i%3 == 0 || r.size > 1<<30 { // the suite reads each disk many times
				want := qemu.OpenSource(t, qemu.Content(t, path))
				formatstest.Run(t, qcow2.Format(), []formatstest.Case{{Name: "suite", Path: path, Size: r.size, Content: want}})
			} else {
				qemu.SameContent(t, path)
			}
			compareMap(t, path, qemu.Open(t, path))
			compareInfo(t, path)
			compareCheck(t, path, 0)
		})
	}
}

// compareMap compares our extents with qemu-img's. They differ in that qemu-img
//   - asks the file system below for holes, so what is data in the tables, or in a raw disk below, may
//     be zeros for it (never the other way round);
//   - tells where preallocated zeros and unallocated subclusters lie, although nothing of the disk is
//     there.
func compareMap(t *testing.T, path string, img formats.Image) {
	t.Helper()
	ours := formatstest.Extents(t, img)
	for i := range ours[1:] {
		if a, b := ours[i], ours[i+1]; a.Zero && b.Zero && a.Absent == b.Absent && a.Depth == b.Depth || a.Compressed && b.Compressed && a.Depth == b.Depth {
			t.Errorf("%+v and %+v are one run", a, b)
		}
	}
	for _, w := range qemu.Map(t, path) {
		for pos := w.Start; pos < w.Start+w.Length; {
			for ours[0].Offset+ours[0].Length <= pos {
				ours = ours[1:]
			}
			e := ours[0]
			switch {
			case e.Zero && !w.Zero:
				t.Errorf("%+v is zero here, qemu-img says %+v", e, w)
			case !e.Zero && w.Zero && !w.Data && !strings.HasSuffix(e.File, "raw"):
				t.Errorf("%+v is data here, qemu-img says %+v", e, w)
			case !e.Zero && e.Compressed == (w.Offset != nil):
				t.Errorf("compressed here: %+v; qemu-img says %+v", e, w)
			case e.HostOffset >= 0 && w.Offset != nil && e.HostOffset+pos-e.Offset != *w.Offset+pos-w.Start:
				t.Errorf("%+v lies elsewhere for qemu-img: %+v at %d", e, w, *w.Offset)
			case e.Absent == w.Present || e.Depth != w.Depth:
				t.Errorf("%+v is of another layer for qemu-img: %+v", e, w)
			}
			pos = min(e.Offset+e.Length, w.Start+w.Length)
		}
	}
}

// compareInfo compares with qemu-img info.
func compareInfo(t *testing.T, path string) {
	in, want := qemu.SameInfo(t, path)
	if len(in.Snapshots) != len(want.Snapshots) {
		t.Fatalf("snapshots %+v, qemu-img says %+v", in.Snapshots, want.Snapshots)
	}
	for i, w := range want.Snapshots {
		s := in.Snapshots[i]
		if s.ID != w.ID || s.Name != w.Name || s.StateSize != w.State || !s.Taken.Equal(time.Unix(w.Sec, w.Nano)) || s.Clock.Nanoseconds() != w.ClockSec*1e9+w.ClockNano {
			t.Errorf("snapshot %+v, qemu-img says %+v", s, w)
		}
	}
	for _, p := range in.Specific {
		key := strings.ReplaceAll(p.Name, " ", "-")
		if p.Name == "bitmap count" { // qemu-img lists them
			key = "bitmaps"
			list, _ := want.Specific.Data[key].([]any)
			want.Specific.Data[key] = len(list)
		}
		if got, w := fmt.Sprint(p.Value), fmt.Sprint(want.Specific.Data[key]); got != w {
			t.Errorf("%s: %s, qemu-img says %s", p.Name, got, w)
		}
		delete(want.Specific.Data, key)
	}
	if len(want.Specific.Data) > 0 {
		t.Errorf("qemu-img also knows %v", want.Specific.Data)
	}
}

// TestEmptyTerabyte: runs of L1 entries without a table are one extent, found without reading.
func TestEmptyTerabyte(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	formatstest.Tool(t, "qemu-img", "create", "-f", "qcow2", path, "1T")
	img := qemu.Open(t, path)
	got := formatstest.Extents(t, img)
	if len(got) != 1 || got[0] != (formats.Extent{Length: 1 << 40, Zero: true, Absent: true, HostOffset: -1}) {
		t.Errorf("%+v", got)
	}
	p := bytes.Repeat([]byte{1}, 8192)
	if n, err := img.ReadAt(p, 1<<40-4096); n != 4096 || err != io.EOF || !bytes.Equal(p[:n], make([]byte, n)) {
		t.Errorf("the end: %d, %v", n, err)
	}
}

// TestMerged: a plain disk written front to back is one extent, over all of its L2 tables.
func TestMerged(t *testing.T) {
	r := recipe{size: 4 << 20, pieces: []formatstest.Piece{{Offset: 0, Data: formatstest.Noise(1, 4<<20)}}, options: "cluster_size=2M"}
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	r.make(t, path)
	if got := formatstest.Extents(t, qemu.Open(t, path)); len(got) != 1 || got[0].Length != r.size || got[0].HostOffset <= 0 {
		t.Errorf("%+v", got)
	}
}

// TestPlainReadsDoNotAllocate: the engine reads a disk of a TiB in half a million blocks.
func TestPlainReadsDoNotAllocate(t *testing.T) {
	img := qemu.Open(t, "testdata/v3-plain.qcow2")
	p := make([]byte, 100_000)
	read := func() {
		if _, err := img.ReadAt(p, 100_000); err != nil {
			t.Fatal(err)
		}
	}
	if n := testing.AllocsPerRun(100, read); n > 0 {
		t.Errorf("%v allocations a read", n)
	}
}

// TestDecodersStayInside: the zstd decoder may use bytes behind a cluster as scratch, but not those
// behind the caller's buffer, even if its capacity reaches further.
func TestDecodersStayInside(t *testing.T) {
	const guard = 64
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	for period := 1; period < 200; period += 3 { // the last match ends closer to or further from the end
		want := bytes.Repeat(formatstest.Noise(1, period), tinyCluster/period+1)[:tinyCluster]
		p := tiny(3).zstd().u64(tinyL2, 1<<62|tinyData).str(tinyData, string(w.EncodeAll(want, nil)))
		img, err := qcow2.Format().Open(context.Background(), formatstest.NewSource(p), nil)
		if err != nil {
			t.Fatal(err)
		}
		buf := bytes.Repeat([]byte{0xdb}, tinyCluster+guard)
		if _, err := img.ReadAt(buf[:tinyCluster], 0); err != nil || !bytes.Equal(buf[:tinyCluster], want) {
			t.Errorf("period %d: %v", period, err)
		}
		if !bytes.Equal(buf[tinyCluster:], bytes.Repeat([]byte{0xdb}, guard)) {
			t.Errorf("period %d: written beyond the buffer", period)
		}
		img.Close()
	}
}
