package convert_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imgferry/convert"
	"imgferry/formats"
	"imgferry/formats/all"
	"imgferry/formats/formatstest"
	"imgferry/source"
)

// small has data in blocks 0, which doesn't compress, 1, 3 and the last, partial; block 2 holds stored zeros.
func small() *disk {
	return &disk{size: 6*convert.BlockSize + 513, pieces: map[int64][]byte{
		0:                          formatstest.Noise(1, 300_000),
		convert.BlockSize + 4097:   formatstest.Text(2, 1<<20),
		2*convert.BlockSize + 100:  make([]byte, 5000),
		6*convert.BlockSize + 506:  []byte("the end"),
		4*convert.BlockSize - 8192: formatstest.Text(3, 8191),
	}}
}

// variants are all targets with settings that make a difference.
var variants = []struct {
	target  string
	options []string
}{
	{"raw", nil},
	{"zvhd2", nil}, {"zvhd2", []string{"level=fastest"}}, {"zvhd2", []string{"codec=zlib,level=better"}},
	{"zvhd", nil}, {"zvhd", []string{"level=fastest"}},
	{"qcow2", nil}, {"qcow2", []string{"compression_type=zlib"}}, {"qcow2", []string{"compression_type=zstd,cluster_size=4K", "level=best"}},
	{"vpc", nil}, {"vpc", []string{"subformat=fixed"}},
	{"vmdk", nil}, {"vmdk", []string{"subformat=monolithicSparse"}},
}

// written is img as a target, in a file.
func written(t *testing.T, img formats.Image, target string, options []string, o convert.Options) (path string, r convert.Result) {
	t.Helper()
	v, err := convert.TargetByName(target)
	if err != nil {
		t.Fatal(err)
	}
	s, err := v.Settings(options)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "disk"+v.Extension)
	f, err := convert.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Discard()
	if r, err = v.Write(t.Context(), img, f, s, o); err == nil {
		err = f.Commit()
	}
	if err != nil {
		t.Fatalf("%s %v: %v", target, options, err)
	}
	return path, r
}

// reopened is the image at path by its format.
func reopened(t testing.TB, path, format string) formats.Image {
	t.Helper()
	f, err := formats.ByName(all.Table(), format)
	if err != nil {
		t.Fatal(err)
	}
	src, err := source.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	img, err := f.Open(context.Background(), src, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	return img
}

// TestTargets writes a disk in every way there is: our readers and qemu-img must find the same disk, and
// a second run the same bytes. What streams must come out of a pipe alike.
func TestTargets(t *testing.T) {
	var seen []string
	for _, c := range variants {
		if !slices.Contains(convert.TargetNames(), c.target) {
			continue
		}
		seen = append(seen, c.target)
		t.Run(c.target+" "+strings.Join(c.options, ","), func(t *testing.T) {
			d := small()
			var p convert.Progress
			path, r := written(t, d, c.target, c.options, convert.Options{Digest: true, Workers: 3, Progress: &p})
			again, _ := written(t, d, c.target, c.options, convert.Options{Workers: 1})
			image, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if other, err := os.ReadFile(again); err != nil || !bytes.Equal(image, other) {
				t.Errorf("two runs differ, %v", err)
			}
			if p.Total.Load() != 5*convert.BlockSize || p.Read.Load() != p.Total.Load() {
				t.Errorf("progress: %d of %d", p.Read.Load(), p.Total.Load())
			}
			img := reopened(t, path, c.target)
			if at, err := convert.Compare(t.Context(), d, img, convert.Options{}); err != nil || at >= 0 {
				t.Errorf("differs at %d, %v", at, err)
			}
			scan, err := convert.Scan(t.Context(), img, convert.Options{Digest: true})
			if err != nil || scan.Digest != r.Digest {
				t.Errorf("digest %v, the disk's is %v, %v", scan.Digest, r.Digest, err)
			}
			qemuFinds(t, path, c.target, d)
			piped(t, d, c.target, c.options, image)
		})
	}
	for _, name := range convert.TargetNames() {
		if !slices.Contains(seen, name) {
			t.Errorf("%s is not tested", name)
		}
	}
}

// qemuFinds lets qemu-img compare and check the image at path, of a format that it knows.
func qemuFinds(t *testing.T, path, format string, d *disk) {
	t.Helper()
	if strings.HasPrefix(format, "zvhd") {
		return
	}
	raw := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(raw, d.bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	formatstest.Tool(t, "qemu-img", "compare", "-f", "raw", "-F", format, raw, path)
	if format == "qcow2" || format == "vmdk" {
		formatstest.Tool(t, "qemu-img", "check", "-f", format, path)
	}
}

// piped compares what goes down a pipe with the file that was written.
func piped(t *testing.T, d *disk, target string, options []string, image []byte) {
	t.Helper()
	v, _ := convert.TargetByName(target)
	s, _ := v.Settings(options)
	if !v.Streams(s) {
		if _, err := v.Write(t.Context(), d, io.Discard, s, convert.Options{}); err == nil {
			t.Error("written to a pipe all the same")
		}
		return
	}
	h := sha256.New()
	if _, err := v.Write(t.Context(), d, struct{ io.Writer }{h}, s, convert.Options{Workers: 2}); err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(image); !bytes.Equal(h.Sum(nil), sum[:]) {
		t.Error("a pipe gets other bytes than a file")
	}
}

// TestSparse: what counts as empty.
func TestSparse(t *testing.T) {
	for _, c := range []struct {
		sparse convert.Sparse
		blocks int64 // stored
	}{{convert.SparseZeros, 4}, {convert.SparseHoles, 5}, {convert.SparseNone, 7}} {
		for _, target := range convert.TargetNames() {
			d := small()
			path, r := written(t, d, target, nil, convert.Options{Sparse: c.sparse, Digest: true})
			if r.Blocks.Count() != c.blocks {
				t.Errorf("%s, %s: %d blocks", target, c.sparse, r.Blocks.Count())
			}
			img := reopened(t, path, target)
			if at, err := convert.Compare(t.Context(), d, img, convert.Options{}); err != nil || at >= 0 {
				t.Errorf("%s, %s: differs at %d, %v", target, c.sparse, at, err)
			}
			again, err := convert.Scan(t.Context(), img, convert.Options{Digest: true, Sparse: c.sparse})
			if err != nil || again.Digest != r.Digest {
				t.Errorf("%s, %s: the digest depends on what is stored, %v", target, c.sparse, err)
			}
			// Of a raw file and of a VHD, the file system's holes count.
			if target != "raw" && target != "vpc" && again.Blocks.Count() != c.blocks {
				t.Errorf("%s, %s: %d blocks read", target, c.sparse, again.Blocks.Count())
			}
		}
		before := small()
		r, err := convert.Scan(t.Context(), before, convert.Options{Sparse: c.sparse})
		if err != nil || r.Blocks.Count() != c.blocks {
			t.Errorf("scan, %s: %d blocks, %v", c.sparse, r.Blocks.Count(), err)
		}
		if n := before.reads.Load(); (n > 0) != (c.sparse == convert.SparseZeros) {
			t.Errorf("scan, %s: %d reads", c.sparse, n)
		}
		if s, err := convert.ParseSparse(c.sparse.String()); err != nil || s != c.sparse {
			t.Errorf("%s is parsed as %v, %v", c.sparse, s, err)
		}
	}
	if _, err := convert.ParseSparse("some"); err == nil {
		t.Error("nonsense is parsed")
	}
}

// TestHolesAreKept: with SparseHoles a raw file gets the zeros that the image stores.
func TestHolesAreKept(t *testing.T) {
	d := sample()
	target := &recorder{p: bytes.Repeat([]byte{0xdb}, int(d.size))}
	if _, err := convert.Raw(t.Context(), d, target, convert.Options{Sparse: convert.SparseHoles}); err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte{0xdb}, int(d.size))
	for e, err := range d.Extents(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if !e.Zero {
			copy(want[e.Offset:e.Offset+e.Length], d.bytes()[e.Offset:])
		}
	}
	if !bytes.Equal(target.p, want) {
		t.Error("not what the extents say")
	}
}

// recorder is a raw target in memory.
type recorder struct {
	p []byte
}

func (r *recorder) Truncate(int64) error { return nil }
func (r *recorder) WriteAt(p []byte, off int64) (int, error) {
	return copy(r.p[off:], p), nil
}

// oldDevice holds old bytes and can make zeros.
type oldDevice struct{ recorder }

func (d *oldDevice) Zero(off, n int64) error { clear(d.p[off : off+n]); return nil }

// TestZeroer: nothing old is left on a device, and nothing behind the disk is touched.
func TestZeroer(t *testing.T) {
	for _, sparse := range []convert.Sparse{convert.SparseZeros, convert.SparseHoles, convert.SparseNone} {
		for _, sequential := range []bool{false, true} {
			d := sample()
			d.sequential = sequential
			old := &oldDevice{recorder{bytes.Repeat([]byte{0xdb}, int(d.size)+100)}}
			if _, err := convert.Raw(t.Context(), d, old, convert.Options{Workers: 2, Sparse: sparse}); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(old.p[:d.size], d.bytes()) {
				t.Errorf("%s: old bytes are left", sparse)
			}
			if !bytes.Equal(old.p[d.size:], bytes.Repeat([]byte{0xdb}, 100)) {
				t.Errorf("%s: written behind the disk", sparse)
			}
		}
	}
}

// TestSettings: options as qemu-img takes them.
func TestSettings(t *testing.T) {
	for target, list := range map[string]map[string]string{
		"qcow2": {"": "", "compression_type=zstd,cluster_size=2M": "", "compression_type=lz4": "use none, zlib, zstd", "cluster_size=many": "no size", "cluster_size": "needs a value", "size=1": "no option", "cluster_size=2M,": "no option", "cluster_size=-1": "no size", "cluster_size=3K": "power of two", "cluster_size=4M": "power of two", "cluster_size=0": "power of two"},
		"raw":   {"level=best": "no options"},
		"zvhd2": {"level=auto": "can't be", "codec=zlib": ""},
	} {
		for text, want := range list {
			v, err := convert.TargetByName(target)
			if err != nil {
				t.Fatal(err)
			}
			options := []string{text}
			if text == "" {
				options = nil
			}
			_, err = v.Settings(options)
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("%s %q: %v", target, text, err)
			}
		}
	}
	if _, err := convert.TargetByName("vdi"); err == nil || !strings.Contains(err.Error(), "qcow2") {
		t.Errorf("vdi: %v", err)
	}
}

// A pipe that breaks, and a caller who has enough, end a run to a pipe.
func TestRawStreamEnds(t *testing.T) {
	for _, sequential := range []bool{false, true} {
		d := sample()
		d.sequential = sequential
		if _, err := convert.RawStream(t.Context(), d, breaking{}, convert.Options{}); err == nil || err != errFull {
			t.Errorf("a broken pipe: %v", err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errBroken)
		if _, err := convert.RawStream(ctx, &disk{size: 1 << 40}, io.Discard, convert.Options{}); err != errBroken {
			t.Errorf("a cancelled run: %v", err)
		}
	}
}

type breaking struct{}

func (breaking) Write([]byte) (int, error) { return 0, errFull }

// TestHead: the beginning of a disk is a disk.
func TestHead(t *testing.T) {
	d := sample()
	for _, size := range []int64{0, 1, 5000, 21 * convert.BlockSize, d.size} {
		h, err := convert.Head(d, size)
		if err != nil || h.Size() != size {
			t.Fatal(err)
		}
		p := make([]byte, size+10)
		if n, err := h.ReadAt(p, 0); int64(n) != size || err != io.EOF || !bytes.Equal(p[:size], d.bytes()[:size]) {
			t.Errorf("%d bytes: %d, %v", size, n, err)
		}
		end := int64(0)
		for e, err := range h.Extents(t.Context()) {
			if err != nil || e.Offset != end || e.Length <= 0 {
				t.Fatalf("%+v, %v", e, err)
			}
			end += e.Length
		}
		if end != size {
			t.Errorf("extents end at %d of %d", end, size)
		}
	}
	if _, err := convert.Head(d, d.size+1); err == nil {
		t.Error("longer than the disk")
	}
}
