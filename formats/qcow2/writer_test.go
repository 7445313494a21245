package qcow2_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgferry/convert"
	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/qcow2"
	"imgferry/formats/raw"
)

// writeTo converts the pieces of a disk to what o says.
func writeTo(t testing.TB, to io.WriterAt, o qcow2.WriterOptions, pieces ...formatstest.Piece) {
	t.Helper()
	w, err := qcow2.NewWriter(to, o)
	if err != nil {
		t.Fatal(err)
	}
	if o.Size == 0 { // no raw disk is empty
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return
	}
	src := formatstest.NewSparseSource(o.Size, pieces...)
	img, err := raw.Format().Open(context.Background(), src, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if _, err := convert.Stream(context.Background(), img, w, convert.Options{Workers: 3}); err != nil {
		t.Fatal(err)
	}
}

// writeFile is writeTo a new file, whose path it returns.
func writeFile(t testing.TB, o qcow2.WriterOptions, pieces ...formatstest.Piece) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	writeTo(t, f, o, pieces...)
	return path
}

// expectGood lets QEMU and this package check the image at path, and compare it with the disk.
func expectGood(t testing.TB, path string, size int64, pieces ...formatstest.Piece) formatstest.CheckSums {
	t.Helper()
	want := qemu.QEMUCheck(t, path)
	if want.Corruptions != 0 || want.Leaks != 0 {
		t.Errorf("qemu-img check: %+v", want)
	}
	findings, got := qemu.Check(t, path)
	if len(findings) > 0 || got != want {
		t.Errorf("check: %+v, qemu-img check says %+v; found %+v", got, want, findings)
	}
	if f, err := os.Stat(path); err != nil || f.Size() != want.End {
		t.Errorf("the file has %d bytes, the image ends at %d (%v)", f.Size(), want.End, err)
	}
	qemu.SameInfo(t, path)
	disk := formatstest.RawFile(t, (size+511)&^511, pieces)
	formatstest.Tool(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", disk, path)
	if size == 0 {
		return want
	}
	a, err := raw.Format().Open(context.Background(), qemu.OpenSource(t, disk), nil)
	if err != nil {
		t.Fatal(err)
	}
	if at, err := convert.Compare(context.Background(), a, qemu.Open(t, path), convert.Options{}); err != nil || at >= 0 {
		t.Errorf("our reader sees another byte at %d (%v)", at, err)
	}
	return want
}

// mixed is a disk of a few blocks with all that can be in one: pieces that compress, that don't, by
// turns, and zeros.
func mixed(size int64) []formatstest.Piece {
	list := formatstest.Disk(size)
	for i := range int64(24) {
		p := formatstest.Piece{Offset: size/2 + i*40_000, Data: formatstest.Text(uint64(i), 40_000)}
		if i%3 == 1 {
			p.Data = formatstest.Noise(uint64(i), 40_000)
		}
		if p.Offset+40_000 <= size {
			list = append(list, p)
		}
	}
	return append(list, formatstest.Piece{Offset: size - 1, Data: []byte{1}})
}

var compressions = []qcow2.WriterOptions{
	{}, {Compression: qcow2.Zlib}, {Compression: qcow2.Zstd}, {Compression: qcow2.Zstd, Level: qcow2.LevelFastest},
}

func TestWriter(t *testing.T) {
	for _, o := range compressions {
		for _, cs := range []int{512, 4096, 8192, 0, 2 << 20} {
			if o.Level != 0 && cs != 0 {
				continue
			}
			o.ClusterSize = cs
			t.Run(fmt.Sprintf("%v-%d-%d", o.Compression, o.Level, cs), func(t *testing.T) {
				for _, size := range []int64{0, 1, 65536, 5<<20 + 12345} {
					o.Size = size
					var pieces []formatstest.Piece
					if size > 1<<20 {
						pieces = mixed(size)
					} else if size > 0 {
						pieces = append(pieces, formatstest.Piece{Data: []byte{7}})
					}
					sums := expectGood(t, writeFile(t, o, pieces...), size, pieces...)
					if o.Compression != qcow2.Uncompressed && size > 1<<20 && (sums.Compressed == 0 || sums.Compressed == sums.Allocated) && cs < 2<<20 {
						t.Errorf("%+v: it should have both kinds of clusters", sums)
					}
				}
			})
		}
	}
}

// memory is a file that must not have more than a few bytes.
type memory struct {
	p      []byte
	failAt int // the number of the write that fails, from 1; 0: none
	writes int
}

var errDiskFull = errors.New("no space left on device")

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if m.writes++; m.writes == m.failAt {
		return 0, errDiskFull
	}
	if end := int(off) + len(p); end > len(m.p) {
		m.p = append(m.p, make([]byte, end-len(m.p))...)
	}
	return copy(m.p[off:], p), nil
}

// TestWriterSuite: what any image must do, ours do.
func TestWriterSuite(t *testing.T) {
	var cases []formatstest.Case
	const size = 5<<20 + 512
	for _, o := range compressions {
		o.Size = size
		var m memory
		writeTo(t, &m, o, mixed(size)...)
		cases = append(cases, formatstest.Case{
			Name: fmt.Sprintf("%v-%d", o.Compression, o.Level), Image: m.p, Size: size, Content: formatstest.Sparse(mixed(size)...),
		})
	}
	formatstest.Run(t, qcow2.Format(), cases)
}

// TestWriterIsDeterministic: the file depends on the disk and the options alone, not on how many
// goroutines encode, nor on what went through their encoders before.
func TestWriterIsDeterministic(t *testing.T) {
	const size = 9 << 20
	for _, o := range compressions {
		o.Size = size
		var a, b memory
		writeTo(t, &a, o, mixed(size)...)
		w, err := qcow2.NewWriter(&b, o)
		if err != nil {
			t.Fatal(err)
		}
		content := formatstest.Sparse(mixed(size)...)
		block := make([]byte, w.BlockSize())
		encoded := map[int64][]byte{}
		for _, i := range []int64{3, 1, 4, 0, 2, 1, 0} {
			clear(block)
			content.ReadAt(block[:min(len(block), int(size-i*2<<20))], i*2<<20)
			p, err := w.Encode([]byte("xy"), i, block)
			if err != nil || encoded[i] != nil && !bytes.Equal(encoded[i], p[2:]) || string(p[:2]) != "xy" || len(p)-2 > w.MaxEncodedSize() {
				t.Fatalf("%+v: block %d: %d bytes, %v", o, i, len(p), err)
			}
			encoded[i] = p[2:]
		}
		for i := range int64(5) {
			if bytes.Equal(encoded[i], make([]byte, len(encoded[i]))) {
				continue // zeros
			}
			if err := w.WriteBlock(i, encoded[i]); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a.p, b.p) {
			t.Errorf("%+v: two files of a disk differ", o)
		}
	}
}

// TestWriterFails fails each write in turn: the error comes out and sticks, and no write follows it.
func TestWriterFails(t *testing.T) {
	const size = 5 << 20
	for failAt := 1; ; failAt++ {
		m := memory{failAt: failAt}
		w, err := qcow2.NewWriter(&m, qcow2.WriterOptions{Size: size, Compression: qcow2.Zstd, ClusterSize: 4096})
		if err != nil {
			t.Fatal(err)
		}
		block := make([]byte, w.BlockSize())
		content := formatstest.Sparse(mixed(size)...)
		var first error
		for i := range int64(2) {
			content.ReadAt(block, i*2<<20)
			p, err := w.Encode(nil, i, block)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.WriteBlock(i, p); first == nil {
				first = err
			}
		}
		err = w.Close()
		if err == nil {
			if failAt < 10 || m.writes != failAt-1 {
				t.Errorf("%d writes, none failed", m.writes)
			}
			if w.Close() == nil || w.WriteBlock(2, nil) == nil || m.writes != failAt-1 {
				t.Error("a closed writer goes on")
			}
			return
		}
		if !errors.Is(err, errDiskFull) || first != nil && first != err || m.writes != failAt {
			t.Fatalf("write %d failed: %v, then %v, and %d writes", failAt, first, err, m.writes)
		}
		if _, err := qcow2.Format().Open(context.Background(), formatstest.NewSource(m.p), nil); err == nil {
			t.Errorf("without write %d it looks like an image", failAt)
		}
	}
}

func TestWriterRefuses(t *testing.T) {
	for text, o := range map[string]qcow2.WriterOptions{
		"can have 0 to":           {Size: -1},
		"from 512 to 2097152":     {Size: 1, ClusterSize: 256},
		"not 4194304":             {Size: 1, ClusterSize: 4 << 20},
		"not 65537":               {Size: 1, ClusterSize: 65537},
		"unknown compression 3":   {Size: 1, Compression: 3},
		"compression level 9":     {Size: 1, Compression: qcow2.Zstd, Level: 9},
		"without compression":     {Size: 1, Level: qcow2.LevelBest},
		"choose at least 1024":    {Size: 200 << 30, ClusterSize: 512},
		"choose at least 2097152": {Size: 1 << 60, ClusterSize: 512},
	} {
		if _, err := qcow2.NewWriter(nil, o); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%+v: %v, want %q", o, err, text)
		}
	}
	full := bytes.Repeat([]byte{1}, 2<<20)
	for name, use := range map[string]func(w *qcow2.Writer) error{
		"a block before":  func(w *qcow2.Writer) error { _, err := w.Encode(nil, -1, full); return err },
		"a block behind":  func(w *qcow2.Writer) error { _, err := w.Encode(nil, 3, full); return err },
		"a short block":   func(w *qcow2.Writer) error { _, err := w.Encode(nil, 0, full[1:]); return err },
		"data behind":     func(w *qcow2.Writer) error { _, err := w.Encode(nil, 2, full); return err },
		"nothing":         func(w *qcow2.Writer) error { return w.WriteBlock(0, nil) },
		"too much":        func(w *qcow2.Writer) error { p, _ := w.Encode(nil, 0, full); return w.WriteBlock(0, append(p, 1)) },
		"too little":      func(w *qcow2.Writer) error { p, _ := w.Encode(nil, 0, full); return w.WriteBlock(0, p[:len(p)-1]) },
		"a large cluster": func(w *qcow2.Writer) error { return w.WriteBlock(0, full) },
		"twice": func(w *qcow2.Writer) error {
			p, _ := w.Encode(nil, 0, full)
			w.WriteBlock(0, p)
			return w.WriteBlock(0, p)
		},
	} {
		w, err := qcow2.NewWriter(new(memory), qcow2.WriterOptions{Size: 5 << 20})
		if err != nil {
			t.Fatal(err)
		}
		if err := use(w); err == nil || !strings.HasPrefix(err.Error(), "qcow2: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestWriterLarge: empty disks, and one byte at the end of large ones. Tables that are longer than
// what one refcount block describes, too.
func TestWriterLarge(t *testing.T) {
	for _, o := range []qcow2.WriterOptions{
		{Size: 1 << 40, Compression: qcow2.Zstd}, {Size: 2 << 30, ClusterSize: 512}, {Size: 1<<40 - 1, ClusterSize: 8192},
	} {
		path := writeFile(t, o)
		if got := qemu.QEMUCheck(t, path); got.Corruptions+got.Leaks+got.Allocated != 0 {
			t.Errorf("%+v: %+v", o, got)
		}
		if blocks := fileBlocks(t, path); blocks > 8<<20 {
			t.Errorf("%+v: the empty disk takes %d bytes", o, blocks)
		}
		end := formatstest.Piece{Offset: o.Size - 1, Data: []byte{5}}
		expectGood(t, writeFile(t, o, end), o.Size, end)
	}
}

// TestWriterSize compares the size of the file with that of QEMU's. The disk is this test's program: real
// content.
func TestWriterSize(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	all, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	const size = 6 << 20
	disk := formatstest.Piece{Data: all[:size]}
	for _, c := range []qcow2.Compression{qcow2.Zlib, qcow2.Zstd} {
		ours := writeFile(t, qcow2.WriterOptions{Size: size, Compression: c}, disk)
		theirs := filepath.Join(t.TempDir(), "qemu.qcow2")
		qemu.Make(t, theirs, formatstest.Recipe{Size: size, Pieces: []formatstest.Piece{disk}, Options: fmt.Sprintf("compression_type=%v", c), Compress: true})
		got, want := expectGood(t, ours, size, disk).End, qemu.QEMUCheck(t, theirs).End
		t.Logf("%v: %d bytes, QEMU %d", c, got, want)
		if got > want+want/50+65536 { // files end with a cluster
			t.Errorf("%v: %d bytes, QEMU writes %d", c, got, want)
		}
	}
}

// full is a file that keeps nothing.
type full struct{}

func (full) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

func BenchmarkEncode(b *testing.B) {
	content := formatstest.Sparse(formatstest.BenchPieces()...)
	for _, o := range compressions {
		o.Size = formatstest.BenchSize
		b.Run(fmt.Sprintf("%v-%d", o.Compression, o.Level), func(b *testing.B) {
			w, err := qcow2.NewWriter(full{}, o)
			if err != nil {
				b.Fatal(err)
			}
			block := make([]byte, w.BlockSize())
			content.ReadAt(block, 2<<20)
			dst := make([]byte, 0, w.MaxEncodedSize())
			b.SetBytes(int64(len(block)))
			b.ReportAllocs()
			for b.Loop() {
				if dst, err = w.Encode(dst[:0], 1, block); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// fileBlocks returns how many bytes of the file at path are no holes.
func fileBlocks(t *testing.T, path string) (n int64) {
	t.Helper()
	src := qemu.OpenSource(t, path).(formats.HoleFinder)
	for off := int64(0); ; {
		start, end, err := src.NextData(off)
		if err != nil {
			t.Fatal(err)
		}
		if start == end {
			return n
		}
		n, off = n+end-start, end
	}
}
