package qcow_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/source"
)

// text is data that compresses: words in random order. noise doesn't. Both depend on the seed only.
func text(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	words := make([][]byte, 256)
	for i := range words {
		words[i] = noise(seed<<8|uint64(i), 3+r.IntN(60))
	}
	p := make([]byte, 0, n+64)
	for len(p) < n {
		p = append(p, words[r.IntN(len(words))]...)
	}
	return p[:n]
}

func noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 2))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

// disk is what most images hold: runs that compress, that don't, and zeros in between.
func disk(size int64) []formatstest.Piece {
	return []formatstest.Piece{
		{Offset: 0, Data: text(1, int(min(size, 40_000)))},
		{Offset: size / 3, Data: noise(2, int(size/20))},
		{Offset: size/3 + size/20, Data: text(3, int(size/20))},
		{Offset: size - size/100, Data: text(4, int(size/100))},
	}
}

// rawFile writes a raw disk with the pieces into a folder of its own and returns its path.
func rawFile(t testing.TB, size int64, pieces []formatstest.Piece) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	w, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for _, p := range pieces {
		if _, err := w.WriteAt(p.Data, p.Offset); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// folder is a resolver that opens all the files of one folder: those of the given formats by what
// the reference says, or by their content.
type folder struct {
	dir     string
	formats []formats.Format
}

func (f folder) Resolve(_ context.Context, r formats.Ref) (formats.Source, formats.Resolver, error) {
	src, err := source.Open(filepath.Join(f.dir, r.Name))
	if err != nil {
		return nil, nil, err
	}
	return src, f, nil
}

func (f folder) Open(ctx context.Context, r formats.Ref) (formats.Image, error) {
	src, res, err := f.Resolve(ctx, r)
	if err != nil {
		return nil, err
	}
	format, err := formats.Detect(f.formats, src)
	if r.Format != "" {
		format, err = formats.ByName(f.formats, r.Format)
	}
	if err != nil {
		return nil, err
	}
	return format.Open(ctx, src, res)
}

// openFile opens the image at path; the files it names lie beside it.
func openFile(t testing.TB, table []formats.Format, path string) formats.Image {
	t.Helper()
	res := folder{filepath.Dir(path), table}
	img, err := res.Open(context.Background(), formats.Ref{Name: filepath.Base(path), Format: table[0].Name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	return img
}

// sameContent compares the image at path with what qemu-img reads from it.
func sameContent(t *testing.T, table []formats.Format, path string) {
	t.Helper()
	img := openFile(t, table, path)
	raw := path + ".content"
	formatstest.Tool(t, "qemu-img", "convert", "-f", table[0].Name, "-O", "raw", path, raw)
	want, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(io.NewSectionReader(img, 0, img.Size()))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the content (%d bytes) is not what qemu-img reads (%d bytes)", len(got), len(want))
	}
}

// mapRun is a line of qemu-img map --output=json.
type mapRun struct {
	Start, Length       int64
	Depth               int
	Present, Zero, Data bool
	Offset              *int64
	host                int64 // Offset of data, or -1
}

// sameMap compares the extents of the image at path with qemu-img's map.
func sameMap(t *testing.T, table []formats.Format, path string) {
	t.Helper()
	var want, got []mapRun
	if err := json.Unmarshal(formatstest.Tool(t, "qemu-img", "map", "--output=json", "-f", table[0].Name, path), &want); err != nil {
		t.Fatal(err)
	}
	for i := range want {
		want[i].host = -1
		if want[i].Data && want[i].Offset != nil {
			want[i].host = *want[i].Offset
		}
		want[i].Offset = nil
	}
	for e, err := range openFile(t, table, path).Extents(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, mapRun{Start: e.Offset, Length: e.Length, Depth: e.Depth, Present: !e.Absent, Zero: e.Zero, Data: !e.Zero, host: e.HostOffset})
	}
	got, want = mergeRuns(got), mergeRuns(want)
	if !slices.Equal(got, want) {
		t.Errorf("extents are\n%v,\nqemu-img map says\n%v", got, want)
	}
}

// mergeRuns joins neighbours that are alike.
func mergeRuns(runs []mapRun) []mapRun {
	var list []mapRun
	for _, r := range runs {
		if n := len(list); n > 0 {
			last := &list[n-1]
			next := *last
			next.Start, next.Length = r.Start, r.Length
			if last.host >= 0 {
				next.host += last.Length
			}
			if next == r {
				last.Length += r.Length
				continue
			}
		}
		list = append(list, r)
	}
	return list
}

// readAll opens p and reads all of it, and returns the first error. Of long runs it reads 1 MiB.
func readAll(f formats.Format, p []byte, res formats.Resolver) ([]byte, error) {
	img, err := f.Open(context.Background(), formatstest.NewSource(p), res)
	if err != nil {
		return nil, err
	}
	defer img.Close()
	var all []byte
	for e, err := range img.Extents(context.Background()) {
		if err != nil {
			return nil, err
		}
		q := make([]byte, min(e.Length, 1<<20))
		if _, err := img.ReadAt(q, e.Offset); err != nil {
			return nil, err
		}
		all = append(all, q...)
	}
	return all, nil
}

// findings runs the check over p and returns what it found, with the sums that qemu-img check gives.
func findings(t testing.TB, f formats.Format, p []byte) (list []formats.Finding, sums checkSums) {
	t.Helper()
	checked, err := f.Check(context.Background(), formatstest.NewSource(p), func(f formats.Finding) {
		list = append(list, f)
		if f.Leak {
			sums.Leaks += max(f.Count, 1)
		} else {
			sums.Corruptions += max(f.Count, 1)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	sums.Total, sums.Allocated, sums.Fragmented = checked.Clusters, checked.Allocated, checked.Fragmented
	return list, sums
}

// checkSums is what qemu-img check --output=json says.
type checkSums struct {
	Corruptions, Leaks int64
	Total              int64 `json:"total-clusters"`
	Allocated          int64 `json:"allocated-clusters"`
	Fragmented         int64 `json:"fragmented-clusters"`
}

// badClass is an error that is of none of the classes that an image's bytes can lead to.
func badClass(err error) bool {
	return !errors.Is(err, formats.ErrCorrupt) && !errors.Is(err, formats.ErrUnsupported) && !errors.Is(err, formats.ErrNotAllowed)
}

// fuzzOne opens, walks, reads and checks whatever it is given. Besides panics and hangs it looks for
// contradictions: between Info and Open, between extents and content, and between two ways to read.
func fuzzOne(t *testing.T, f formats.Format, p []byte) {
	ctx := context.Background()
	if _, err := f.Probe(formatstest.NewSource(p)); err != nil {
		t.Fatalf("probe: %v", err)
	}
	in, err := f.Info(ctx, formatstest.NewSource(p))
	if err != nil {
		t.Fatalf("info: %v", err)
	}
	if _, err := f.Check(ctx, formatstest.NewSource(p), func(formats.Finding) {}); err != nil && badClass(err) {
		t.Fatalf("check: an error without a class: %v", err)
	}
	img, err := f.Open(ctx, formatstest.NewSource(p), nil)
	if err != nil {
		if badClass(err) {
			t.Fatalf("open: an error without a class: %v", err)
		}
		return
	}
	defer img.Close()
	if in.Problem != nil || in.VirtualSize != img.Size() {
		t.Fatalf("info says %d bytes, problem %v; it opened with %d", in.VirtualSize, in.Problem, img.Size())
	}
	// A walk is bounded by the file, not by the virtual size; reading is bounded here.
	var pos int64
	budget := int64(4 << 20)
	for e, err := range img.Extents(ctx) {
		if err != nil {
			if badClass(err) {
				t.Fatalf("extents: an error without a class: %v", err)
			}
			return
		}
		if e.Offset != pos || e.Length <= 0 || e.Length > img.Size()-pos {
			t.Fatalf("run %+v, expected one at %d of %d", e, pos, img.Size())
		}
		pos += e.Length
		if n := min(e.Length, budget, 1<<20); n > 0 {
			budget -= n
			fuzzRun(t, img, p, e, n)
		}
	}
	if pos != img.Size() {
		t.Fatalf("runs cover %d of %d bytes", pos, img.Size())
	}
}

// fuzzRun reads the first n bytes of a run in one piece and in three.
func fuzzRun(t *testing.T, img formats.Image, file []byte, e formats.Extent, n int64) {
	whole := bytes.Repeat([]byte{0xdb}, int(n))
	k, err := img.ReadAt(whole, e.Offset)
	if err != nil && err != io.EOF {
		if !e.Compressed || badClass(err) {
			t.Fatalf("%+v can't be read: %v", e, err)
		}
		return
	}
	if int64(k) != n {
		t.Fatalf("%+v: %d of %d bytes", e, k, n)
	}
	if e.Zero && !bytes.Equal(whole, make([]byte, n)) {
		t.Fatalf("%+v is not zero", e)
	}
	if e.HostOffset >= 0 && !bytes.Equal(whole, file[e.HostOffset:][:n]) {
		t.Fatalf("%+v does not lie there", e)
	}
	parts := make([]byte, n)
	for _, r := range [][2]int64{{n / 3, n / 2}, {0, n / 3}, {n / 2, n}} {
		if k, err := img.ReadAt(parts[r[0]:r[1]], e.Offset+r[0]); int64(k) != r[1]-r[0] || err != nil && err != io.EOF {
			t.Fatalf("%+v, bytes %v: %d, %v", e, r, k, err)
		}
	}
	if !bytes.Equal(whole, parts) {
		t.Fatalf("%+v reads differently in parts", e)
	}
}
