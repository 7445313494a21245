package vmdk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgferry/bitmap"
	"imgferry/convert"
	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/raw"
	"imgferry/formats/vmdk"
)

// kinds are the disks that can be written.
var kinds = map[string]func(to *memory, o vmdk.WriterOptions) (*vmdk.Writer, error){
	"streamOptimized":  func(to *memory, o vmdk.WriterOptions) (*vmdk.Writer, error) { return vmdk.NewStreamWriter(to, o) },
	"monolithicSparse": func(to *memory, o vmdk.WriterOptions) (*vmdk.Writer, error) { return vmdk.NewSparseWriter(to, o) },
}

// memory is a file that must not have more than a few MiB, unless file is set.
type memory struct {
	file   *os.File
	p      []byte
	failAt int // the number of the write that fails, from 1; 0: none
	writes int
}

var errDiskFull = errors.New("no space left on device")

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if m.writes++; m.writes == m.failAt {
		return 0, errDiskFull
	}
	if m.file != nil {
		return m.file.WriteAt(p, off)
	}
	if end := int(off) + len(p); end > len(m.p) {
		m.p = append(m.p, make([]byte, end-len(m.p))...)
	}
	return copy(m.p[off:], p), nil
}

// Write appends, as to a pipe.
func (m *memory) Write(p []byte) (int, error) {
	if m.file != nil {
		return m.file.Write(p)
	}
	return m.WriteAt(p, int64(len(m.p)))
}

// writeTo converts the pieces of a disk.
func writeTo(t testing.TB, kind string, to *memory, o vmdk.WriterOptions, pieces ...formatstest.Piece) {
	t.Helper()
	w, err := kinds[kind](to, o)
	if err != nil {
		t.Fatal(err)
	}
	img, err := raw.Format().Open(context.Background(), formatstest.NewSparseSource(o.Size, pieces...), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if _, err := convert.Stream(context.Background(), img, w, convert.Options{Workers: 3}); err != nil {
		t.Fatal(err)
	}
}

func writeFile(t testing.TB, kind string, o vmdk.WriterOptions, pieces ...formatstest.Piece) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.vmdk")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	writeTo(t, kind, &memory{file: f}, o, pieces...)
	return path
}

// expectGood writes the disk, compares it with what QEMU and this package read, and lets both check it.
func expectGood(t *testing.T, kind string, o vmdk.WriterOptions, pieces ...formatstest.Piece) {
	t.Helper()
	path := writeFile(t, kind, o, pieces...)
	in, _ := qemu.SameInfo(t, path)
	size := (o.Size + 511) &^ 511
	if in.VirtualSize != size {
		t.Errorf("the disk has %d bytes, want %d", in.VirtualSize, size)
	}
	if sums := qemu.QEMUCheck(t, path); sums.Corruptions+sums.Leaks != 0 {
		t.Errorf("qemu-img check: %+v", sums)
	}
	findings, sums := qemu.Check(t, path)
	if f, err := os.Stat(path); len(findings) > 0 || err != nil || len(pieces) > 0 && f.Size() != sums.End {
		t.Errorf("check: %+v, found %+v; the file has %d bytes", sums, findings, f.Size())
	}
	disk := formatstest.RawFile(t, size, pieces)
	formatstest.Tool(t, "qemu-img", "compare", "-f", "raw", "-F", "vmdk", disk, path)
	a, err := raw.Format().Open(context.Background(), qemu.OpenSource(t, disk), nil)
	if err != nil {
		t.Fatal(err)
	}
	if at, err := convert.Compare(context.Background(), a, qemu.Open(t, path), convert.Options{}); err != nil || at >= 0 {
		t.Errorf("our reader sees another byte at %d (%v)", at, err)
	}
}

func TestWriter(t *testing.T) {
	for kind := range kinds {
		for size, pieces := range map[int64][]formatstest.Piece{
			1:            {{Data: []byte{1}}},
			1 << 20:      {},
			4 << 20:      formatstest.Disk(4 << 20),
			2 << 20:      {{Data: formatstest.Noise(1, 2<<20)}},
			5<<20 + 1234: append(formatstest.Disk(5<<20+1234), formatstest.Piece{Offset: 5<<20 + 1233, Data: []byte{1}}),
			// Two tables with nothing between them, and some in the middle of one.
			140 << 20: {{Offset: 9 << 20, Data: []byte{1}}, {Offset: 31 << 20, Data: formatstest.Text(1, 2<<20)}, {Offset: 100<<20 + 5, Data: []byte{2}}},
		} {
			t.Run(fmt.Sprintf("%s-%d", kind, size), func(t *testing.T) {
				expectGood(t, kind, vmdk.WriterOptions{Size: size}, pieces...)
			})
		}
		for l := range vmdk.LevelBest + 1 {
			expectGood(t, kind, vmdk.WriterOptions{Size: 1 << 20, Level: l}, formatstest.Disk(1<<20)...)
		}
	}
}

// TestWrittenDescriptor compares the embedded text with the one of QEMU for the same options.
func TestWrittenDescriptor(t *testing.T) {
	text := func(path string) string {
		p := make([]byte, 20*512)
		if err := formats.ReadFull(qemu.OpenSource(t, path), p, 512); err != nil {
			t.Fatal(err)
		}
		var lines []string
		for line := range strings.Lines(strings.TrimRight(string(p), "\x00")) {
			if !strings.HasPrefix(line, "CID=") && strings.TrimSpace(line) != "" {
				lines = append(lines, strings.TrimSpace(line))
			}
		}
		return strings.Join(lines, "\n")
	}
	for kind := range kinds {
		for _, o := range []vmdk.WriterOptions{{}, {AdapterType: "lsilogic", HardwareVersion: 13}} {
			o.Size, o.Name = 3<<30, "disk.vmdk"
			path := filepath.Join(t.TempDir(), o.Name)
			options := "subformat=" + kind
			if o.AdapterType != "" {
				options += fmt.Sprintf(",adapter_type=%s,hwversion=%d", o.AdapterType, o.HardwareVersion)
			}
			formatstest.Tool(t, "qemu-img", "create", "-f", "vmdk", "-o", options, path, fmt.Sprint(o.Size))
			if got, want := text(writeFile(t, kind, o)), text(path); got != want {
				t.Errorf("%s:\n%s\nQEMU:\n%s", kind, got, want)
			}
		}
	}
}

// TestWriterSuite: what any image must do, ours do. And two files of a disk are the same.
func TestWriterSuite(t *testing.T) {
	var cases []formatstest.Case
	const size = 3<<20 + 512
	for kind := range kinds {
		var a, b memory
		o := vmdk.WriterOptions{Size: size}
		writeTo(t, kind, &a, o, formatstest.Disk(size)...)
		if writeTo(t, kind, &b, o, formatstest.Disk(size)...); !bytes.Equal(a.p, b.p) {
			t.Error("two files of a disk differ")
		}
		cases = append(cases, formatstest.Case{Name: kind, Image: a.p, Size: size, Content: formatstest.Sparse(formatstest.Disk(size)...)})
	}
	formatstest.Run(t, vmdk.Format(), cases)
}

// TestWrittenIsPure: what comes out of Encode doesn't depend on what went through it before.
func TestWrittenIsPure(t *testing.T) {
	for kind, make := range kinds {
		w, err := make(nil, vmdk.WriterOptions{Size: 64 << 20})
		if err != nil {
			t.Fatal(err)
		}
		want := map[int64][]byte{}
		for round := range 3 {
			for i := range int64(4) {
				block := formatstest.Text(uint64(i), w.BlockSize())
				if i == 2 {
					block = formatstest.Noise(2, w.BlockSize())
				}
				p, err := w.Encode([]byte("xy"), i, block)
				if err != nil || string(p[:2]) != "xy" || len(p)-2 > w.MaxEncodedSize() || round > 0 && !bytes.Equal(p, want[i]) {
					t.Errorf("%s: block %d, round %d: %d bytes, %v", kind, i, round, len(p), err)
				}
				want[i] = p
			}
		}
	}
}

// TestWriterFails fails each write in turn: the error comes out and sticks, and no write follows it.
func TestWriterFails(t *testing.T) {
	content := formatstest.Sparse(formatstest.Piece{Offset: 1 << 20, Data: formatstest.Text(1, 2<<20)}, formatstest.Piece{Offset: 40 << 20, Data: []byte{1}})
	for _, make1 := range kinds {
		for failAt := 1; ; failAt++ {
			m := memory{failAt: failAt}
			w, err := make1(&m, vmdk.WriterOptions{Size: 64 << 20})
			if err != nil {
				t.Fatal(err)
			}
			block := make([]byte, w.BlockSize())
			var first error
			for _, i := range []int64{0, 1, 20} {
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
				if failAt < 8 || m.writes != failAt-1 || w.Close() == nil || w.WriteBlock(21, nil) == nil || m.writes != failAt-1 {
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

func TestWriterRefuses(t *testing.T) {
	full := bytes.Repeat([]byte{1}, 2<<20)
	for kind, make := range kinds {
		for text, o := range map[string]vmdk.WriterOptions{
			"a disk of 0 bytes":             {},
			"the most is":                   {Size: 64<<40 + 1},
			"can't be written":              {Size: 1, Name: "a/b"},
			"at most 255":                   {Size: 1, Name: strings.Repeat("x", 256)},
			"unknown adapter type \"scsi\"": {Size: 1, AdapterType: "scsi"},
			"must be positive":              {Size: 1, HardwareVersion: -1},
			"unknown compression level":     {Size: 1, Level: 4},
		} {
			if _, err := make(nil, o); err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%+v: %v, want %q", o, err, text)
			}
		}
		for what, use := range map[string]func(w *vmdk.Writer) error{
			"a block before": func(w *vmdk.Writer) error { _, err := w.Encode(nil, -1, full); return err },
			"a block behind": func(w *vmdk.Writer) error { _, err := w.Encode(nil, 3, full); return err },
			"a short block":  func(w *vmdk.Writer) error { _, err := w.Encode(nil, 0, full[1:]); return err },
			"data behind":    func(w *vmdk.Writer) error { _, err := w.Encode(nil, 2, full); return err },
			"too little":     func(w *vmdk.Writer) error { p, _ := w.Encode(nil, 0, full); return w.WriteBlock(0, p[:len(p)-1]) },
			"another block":  func(w *vmdk.Writer) error { return w.WriteBlock(0, full) },
			"twice": func(w *vmdk.Writer) error {
				p, _ := w.Encode(nil, 0, full)
				w.WriteBlock(0, p)
				return w.WriteBlock(0, p)
			},
		} {
			w, err := make(new(memory), vmdk.WriterOptions{Size: 5 << 20})
			if err != nil {
				t.Fatal(err)
			}
			if err := use(w); err == nil || !strings.HasPrefix(err.Error(), "vmdk: ") {
				t.Errorf("%s: %s: %v", kind, what, err)
			}
		}
	}
}

// TestWriterSize compares the size of a stream with that of QEMU's. The disk is this test's program: real
// content. zlib, which QEMU uses, makes somewhat less of it than any deflate encoder for Go.
func TestWriterSize(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	all, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	disk := formatstest.Piece{Data: all[:4<<20]}
	theirs := filepath.Join(t.TempDir(), "qemu.vmdk")
	qemu.Make(t, theirs, formatstest.Recipe{Size: 4 << 20, Pieces: []formatstest.Piece{disk}, Options: "subformat=streamOptimized", Compress: true})
	want, err := os.Stat(theirs)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.Stat(writeFile(t, "streamOptimized", vmdk.WriterOptions{Size: 4 << 20}, disk))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes, QEMU %d", got.Size(), want.Size())
	if got.Size() > want.Size()*106/100 {
		t.Errorf("%d bytes, QEMU writes %d", got.Size(), want.Size())
	}
}

// TestWriterLarge: an empty disk of 1 TiB takes next to nothing, and one byte at its end is found. QEMU
// takes a minute to compare or check a disk of this size, so it only reads.
func TestWriterLarge(t *testing.T) {
	const size = 1 << 40
	for kind := range kinds {
		path := writeFile(t, kind, vmdk.WriterOptions{Size: size})
		qemu.SameInfo(t, path)
		if findings, _ := qemu.Check(t, path); len(findings) > 0 {
			t.Errorf("%s: found %+v", kind, findings)
		}
		if n := stored(t, path); n > 1<<20 {
			t.Errorf("%s: the empty disk takes %d bytes", kind, n)
		}
		path = writeFile(t, kind, vmdk.WriterOptions{Size: size}, formatstest.Piece{Offset: size - 1, Data: []byte{5}})
		if findings, _ := qemu.Check(t, path); len(findings) > 0 {
			t.Errorf("%s: found %+v", kind, findings)
		}
		formatstest.Tool(t, "qemu-io", "-r", "-f", "vmdk", "-c", "read -P 0 0 64k", "-c", fmt.Sprintf("read -P 5 %d 1", size-1),
			"-c", fmt.Sprintf("read -P 0 %d 1023", size-1024), path)
		p := make([]byte, 1024)
		if err := formats.ReadFull(qemu.Open(t, path), p, size-1024); err != nil || p[1023] != 5 || !bitmap.IsZero(p[:1023]) {
			t.Errorf("%s: the end reads as %x (%v)", kind, p[1000:], err)
		}
	}
}

// stored returns how many bytes of the file at path are no holes.
func stored(t *testing.T, path string) (n int64) {
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

func BenchmarkEncode(b *testing.B) {
	for kind, make1 := range kinds {
		for l := range vmdk.LevelBest {
			b.Run(fmt.Sprintf("%s-%d", kind, l), func(b *testing.B) {
				w, err := make1(nil, vmdk.WriterOptions{Size: formatstest.BenchSize, Level: l})
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
			})
		}
	}
}
