package vhd_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
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
	"imgferry/formats/raw"
	"imgferry/formats/vhd"
)

// stream writes the pieces of a disk to w.
func stream(t testing.TB, w *vhd.Writer, size int64, pieces ...formatstest.Piece) {
	t.Helper()
	img, err := raw.Format().Open(context.Background(), formatstest.NewSparseSource(size, pieces...), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if _, err := convert.Stream(context.Background(), img, w, convert.Options{Workers: 3}); err != nil {
		t.Fatal(err)
	}
}

func writeTo(t testing.TB, to io.WriterAt, o vhd.WriterOptions, pieces ...formatstest.Piece) {
	t.Helper()
	w, err := vhd.NewWriter(to, o)
	if err != nil {
		t.Fatal(err)
	}
	stream(t, w, o.Size, pieces...)
}

func writeFile(t testing.TB, o vhd.WriterOptions, pieces ...formatstest.Piece) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.vhd")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	writeTo(t, f, o, pieces...)
	return path
}

// samples are disks of sizes that fit nothing and everything.
func samples() map[int64][]formatstest.Piece {
	return map[int64][]formatstest.Piece{
		1:            {{Data: []byte{1}}},
		1 << 20:      {},
		4 << 20:      formatstest.Disk(4 << 20),
		5<<20 + 1234: append(formatstest.Disk(5<<20+1234), formatstest.Piece{Offset: 5<<20 + 1233, Data: []byte{1}}),
	}
}

var kinds = []vhd.WriterOptions{
	{}, {Rounding: vhd.Geometry}, {Rounding: vhd.MiB, Subformat: vhd.Fixed}, {Subformat: vhd.Fixed}, {Subformat: vhd.Fixed, Rounding: vhd.Geometry},
}

func TestWriter(t *testing.T) {
	for _, o := range kinds {
		for size, pieces := range samples() {
			o.Size = size
			t.Run(fmt.Sprintf("%d-%d-%d", o.Subformat, o.Rounding, size), func(t *testing.T) { expectGood(t, o, pieces...) })
		}
	}
}

// expectGood writes the disk, compares it with what QEMU and this package read, and checks it.
func expectGood(t *testing.T, o vhd.WriterOptions, pieces ...formatstest.Piece) {
	t.Helper()
	path := writeFile(t, o, pieces...)
	size, err := o.DiskSize()
	if err != nil {
		t.Fatal(err)
	}
	in, _ := qemu.SameInfo(t, path)
	if in.VirtualSize != size {
		t.Errorf("the disk has %d bytes, want %d", in.VirtualSize, size)
	}
	disk := formatstest.RawFile(t, size, pieces)
	formatstest.Tool(t, "qemu-img", "compare", "-f", "raw", "-F", "vpc", disk, path)
	a, err := raw.Format().Open(context.Background(), qemu.OpenSource(t, disk), nil)
	if err != nil {
		t.Fatal(err)
	}
	if at, err := convert.Compare(context.Background(), a, qemu.Open(t, path), convert.Options{}); err != nil || at >= 0 {
		t.Errorf("our reader sees another byte at %d (%v)", at, err)
	}
	findings, sums := qemu.Check(t, path)
	if f, err := os.Stat(path); len(findings) > 0 || err != nil || o.Subformat == vhd.Dynamic && f.Size() != sums.End {
		t.Errorf("check: %+v, found %+v", sums, findings)
	}
}

// TestRounding compares the sizes of empty disks with those that QEMU chooses.
func TestRounding(t *testing.T) {
	for _, size := range []int64{1, 512, 1 << 20, 3<<20 + 777, 100 << 20, 503<<20 + 512, 504 << 20, 8<<30 - 1, 31 << 30, 32<<30 + 1, 120 << 30, 127 << 30, 128 << 30, 2040 << 30} {
		for r, force := range map[vhd.Rounding]string{vhd.Exact: "on", vhd.Geometry: "off"} {
			path := filepath.Join(t.TempDir(), "qemu.vhd")
			formatstest.Tool(t, "qemu-img", "create", "-f", "vpc", "-o", "force_size="+force, path, fmt.Sprint(size))
			var want formatstest.QEMUInfo
			if err := json.Unmarshal(formatstest.Tool(t, "qemu-img", "info", "-f", "vpc", "--output=json", path), &want); err != nil {
				t.Fatal(err)
			}
			o := vhd.WriterOptions{Size: size, Rounding: r}
			got, err := o.DiskSize()
			if err != nil || got != want.VirtualSize {
				t.Errorf("%d bytes, force_size=%s: %d, %v; QEMU: %d", size, force, got, err, want.VirtualSize)
			}
			// The same footers but for who, when and which, and the sum of these.
			a, b := footerOf(t, path), footerOf(t, writeFile(t, o))
			for _, p := range [][]byte{a, b} {
				clear(p[24:28])
				clear(p[32:36])
				clear(p[64:84])
			}
			if !bytes.Equal(a, b) {
				t.Errorf("%d bytes, force_size=%s: footer\n%x, QEMU:\n%x", size, force, b[:100], a[:100])
			}
		}
	}
	for size, want := range map[int64]int64{1: 1 << 20, 1 << 20: 1 << 20, 5<<30 + 1: 5<<30 + 1<<20, 2040 << 30: 2040 << 30} {
		if got, err := (vhd.WriterOptions{Size: size, Rounding: vhd.MiB}).DiskSize(); got != want || err != nil {
			t.Errorf("%d bytes in MiB: %d, %v", size, got, err)
		}
	}
}

func footerOf(t *testing.T, path string) []byte {
	t.Helper()
	src := qemu.OpenSource(t, path)
	p := make([]byte, 512)
	if err := formats.ReadFull(src, p, src.Size()-512); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestFixedStream: a stream, and raw bytes with Footer, are the same as the file.
func TestFixedStream(t *testing.T) {
	for size, pieces := range samples() {
		for _, r := range []vhd.Rounding{vhd.Exact, vhd.Geometry, vhd.MiB} {
			o := vhd.WriterOptions{Size: size, Subformat: vhd.Fixed, Rounding: r, Timestamp: 77}
			want, err := os.ReadFile(writeFile(t, o, pieces...))
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			w, err := vhd.NewFixedStream(&got, o)
			if err != nil {
				t.Fatal(err)
			}
			stream(t, w, size, pieces...)
			if !bytes.Equal(got.Bytes(), want) {
				t.Errorf("%d bytes: the stream is not the file", size)
			}
			var first [sha256.Size]byte
			block := make([]byte, 2<<20)
			for at := 0; at < len(want)-512; at += len(block) {
				clear(block)
				if copy(block, want[at:len(want)-512]); len(bytes.Trim(block, "\x00")) > 0 {
					first = sha256.Sum256(block)
					break
				}
			}
			if footer, err := vhd.Footer(o, first); err != nil || !bytes.Equal(footer, want[len(want)-512:]) {
				t.Errorf("%d bytes: another footer (%v)", size, err)
			}
		}
	}
}

// memory is a file that must not have more than a few MiB.
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

// Write appends.
func (m *memory) Write(p []byte) (int, error) { return m.WriteAt(p, int64(len(m.p))) }

// TestWriterSuite: what any image must do, ours do.
func TestWriterSuite(t *testing.T) {
	var cases []formatstest.Case
	const size = 3<<20 + 512
	for _, o := range []vhd.WriterOptions{{}, {Subformat: vhd.Fixed}} {
		o.Size = size
		var a, b memory
		writeTo(t, &a, o, formatstest.Disk(size)...)
		if writeTo(t, &b, o, formatstest.Disk(size)...); !bytes.Equal(a.p, b.p) {
			t.Error("two files of a disk differ")
		}
		cases = append(cases, formatstest.Case{
			Name: fmt.Sprint(o.Subformat), Image: a.p, Size: size, Content: formatstest.Sparse(formatstest.Disk(size)...),
		})
	}
	formatstest.Run(t, vhd.Format(), cases)
}

// TestWriterFails fails each write in turn: the error comes out and sticks, and no write follows it.
func TestWriterFails(t *testing.T) {
	content := formatstest.Sparse(formatstest.Piece{Offset: 1 << 20, Data: formatstest.Text(1, 2<<20)})
	for _, o := range kinds {
		o.Size = 5 << 20
		for _, streamed := range []bool{false, o.Subformat == vhd.Fixed} {
			for failAt := 1; ; failAt++ {
				m := memory{failAt: failAt}
				w, err := vhd.NewWriter(&m, o)
				if streamed {
					w, err = vhd.NewFixedStream(&m, o)
				}
				if err != nil {
					t.Fatal(err)
				}
				block := make([]byte, w.BlockSize())
				var first error
				for i := range int64(2) {
					content.ReadAt(block, i*2<<20)
					p, err := w.Encode(nil, i, block)
					if err != nil || len(p) > w.MaxEncodedSize() {
						t.Fatal(err)
					}
					if err := w.WriteBlock(i, p); first == nil {
						first = err
					}
				}
				err = w.Close()
				if err == nil {
					if m.writes != failAt-1 || w.Close() == nil || w.WriteBlock(2, nil) == nil || m.writes != failAt-1 {
						t.Errorf("%d writes, none failed; or a closed writer goes on", m.writes)
					}
					break
				}
				if !errors.Is(err, errDiskFull) || first != nil && first != err || m.writes != failAt {
					t.Fatalf("write %d failed: %v, then %v, and %d writes", failAt, first, err, m.writes)
				}
			}
		}
	}
}

func TestWriterRefuses(t *testing.T) {
	for text, o := range map[string]vhd.WriterOptions{
		"a disk of 0 bytes":   {},
		"the most is":         {Size: 2040<<30 + 1},
		"unknown subformat 2": {Size: 1, Subformat: 2},
		"unknown rounding 3":  {Size: 1, Rounding: 3},
	} {
		if _, err := vhd.NewWriter(nil, o); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%+v: %v, want %q", o, err, text)
		}
	}
	if _, err := vhd.NewFixedStream(nil, vhd.WriterOptions{Size: 1}); err == nil || !strings.Contains(err.Error(), "only a fixed disk") {
		t.Error(err)
	}
	full := bytes.Repeat([]byte{1}, 2<<20)
	for what, use := range map[string]func(w *vhd.Writer) error{
		"a block before": func(w *vhd.Writer) error { _, err := w.Encode(nil, -1, full); return err },
		"a block behind": func(w *vhd.Writer) error { _, err := w.Encode(nil, 3, full); return err },
		"a short block":  func(w *vhd.Writer) error { _, err := w.Encode(nil, 0, full[1:]); return err },
		"data behind":    func(w *vhd.Writer) error { _, err := w.Encode(nil, 2, full); return err },
		"nothing":        func(w *vhd.Writer) error { return w.WriteBlock(0, nil) },
		"twice": func(w *vhd.Writer) error {
			p, _ := w.Encode(nil, 0, full)
			w.WriteBlock(0, p)
			return w.WriteBlock(0, p)
		},
	} {
		w, err := vhd.NewWriter(new(memory), vhd.WriterOptions{Size: 5 << 20})
		if err != nil {
			t.Fatal(err)
		}
		if err := use(w); err == nil || !strings.HasPrefix(err.Error(), "vpc: ") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestWriterLarge: an empty disk of 1 TiB takes next to nothing, and one byte at its end is found.
func TestWriterLarge(t *testing.T) {
	const size = 1 << 40
	for _, sub := range []vhd.Subformat{vhd.Dynamic, vhd.Fixed} {
		o := vhd.WriterOptions{Size: size, Subformat: sub}
		src := qemu.OpenSource(t, writeFile(t, o)).(formats.HoleFinder)
		start, end, err := src.NextData(4 << 20)
		if err != nil || end-start > 4096 {
			t.Errorf("data from %d to %d behind the tables (%v)", start, end, err)
		}
		expectGood(t, o, formatstest.Piece{Offset: size - 1, Data: []byte{5}})
	}
}

func BenchmarkEncode(b *testing.B) {
	w, err := vhd.NewWriter(nil, vhd.WriterOptions{Size: formatstest.BenchSize})
	if err != nil {
		b.Fatal(err)
	}
	block := formatstest.Text(1, w.BlockSize())
	dst := make([]byte, 0, w.MaxEncodedSize())
	b.SetBytes(int64(len(block)))
	b.ReportAllocs()
	for b.Loop() {
		if dst, err = w.Encode(dst[:0], 1, block); err != nil {
			b.Fatal(err)
		}
	}
}
