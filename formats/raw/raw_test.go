package raw_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/raw"
	"imgferry/source"
)

func noise(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

func Example() {
	img, err := raw.Format().Open(context.Background(), formatstest.NewSource([]byte("a very small disk")), nil)
	if err != nil {
		panic(err)
	}
	defer img.Close()
	for e, err := range img.Extents(context.Background()) {
		fmt.Println(e.Offset, e.Length, e.Zero, err)
	}
	p := make([]byte, 4)
	n, err := img.ReadAt(p, 7)
	fmt.Println(img.Size(), string(p[:n]), err)
	// Output:
	// 0 17 false <nil>
	// 17 smal <nil>
}

func TestSuite(t *testing.T) {
	var cases []formatstest.Case
	for _, n := range []int{1, 512, 513, 65536, 3_000_001} {
		p := noise(n)
		cases = append(cases, formatstest.Case{
			Name: fmt.Sprint(n, " bytes"), Image: p, Size: int64(n), Content: bytes.NewReader(p), AnyCut: true,
		})
	}
	formatstest.Run(t, raw.Format(), cases)
}

func TestEmpty(t *testing.T) {
	src := formatstest.NewSource(nil)
	if _, err := raw.Format().Open(context.Background(), src, nil); !errors.Is(err, formats.ErrCorrupt) || !strings.Contains(err.Error(), "empty") {
		t.Errorf("open: %v", err)
	}
	if in, err := raw.Format().Info(context.Background(), src); err != nil || !errors.Is(in.Problem, formats.ErrCorrupt) {
		t.Errorf("info: %+v, %v", in, err)
	}
}

// finder is a source whose holes are as the test says.
type finder struct {
	formats.Source
	next func(off int64) (start, end int64, err error)
}

func (f finder) NextData(off int64) (start, end int64, err error) { return f.next(off) }

func TestExtentsOfHoles(t *testing.T) {
	broken := errors.New("broken")
	runs := func(runs ...[2]int64) func(int64) (int64, int64, error) {
		return func(off int64) (int64, int64, error) {
			for _, r := range runs {
				if off < r[1] {
					return max(off, r[0]), r[1], nil
				}
			}
			return 100, 100, nil
		}
	}
	for name, c := range map[string]struct {
		next func(off int64) (start, end int64, err error)
		want string
	}{
		"all data":       {runs([2]int64{0, 100}), "data 0+100@0; "},
		"all hole":       {runs(), "zero 0+100; "},
		"hole first":     {runs([2]int64{10, 20}), "zero 0+10; data 10+10@10; zero 20+80; "},
		"data at end":    {runs([2]int64{0, 7}, [2]int64{90, 100}), "data 0+7@0; zero 7+83; data 90+10@90; "},
		"going back":     {func(off int64) (int64, int64, error) { return 0, 10, nil }, "data 0+100@0; "},
		"standing still": {func(off int64) (int64, int64, error) { return off, off, nil }, "data 0+100@0; "},
		"past the end":   {func(off int64) (int64, int64, error) { return 0, 101, nil }, "data 0+100@0; "},
		"broken":         {func(off int64) (int64, int64, error) { return 0, 0, broken }, "error; "},
	} {
		img, err := raw.Format().Open(context.Background(), finder{formatstest.NewSource(make([]byte, 100)), c.next}, nil)
		if err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for e, err := range img.Extents(context.Background()) {
			switch {
			case errors.Is(err, broken):
				got.WriteString("error; ")
			case err != nil:
				t.Errorf("%s: %v", name, err)
			case e.Zero:
				fmt.Fprintf(&got, "zero %d+%d; ", e.Offset, e.Length)
			default:
				fmt.Fprintf(&got, "data %d+%d@%d; ", e.Offset, e.Length, e.HostOffset)
			}
		}
		if got.String() != c.want {
			t.Errorf("%s: %s, want %s", name, got.String(), c.want)
		}
		img.Close()
	}
}

// TestSparseFile reads a file of 1 TiB with one run of data, through the file system's own answers.
func TestSparseFile(t *testing.T) {
	const size, at = 1 << 40, 700 << 30
	data := noise(1 << 20)
	path := filepath.Join(t.TempDir(), "sparse.raw")
	w, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Truncate(size); err != nil {
		t.Skipf("this file system takes no file of 1 TiB: %v", err)
	}
	if _, err := w.WriteAt(data, at); err != nil {
		t.Skipf("this file system takes no file of 1 TiB: %v", err)
	}
	src, err := source.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	img, err := raw.Format().Open(context.Background(), src, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	var pos, stored int64
	for e, err := range img.Extents(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Offset != pos {
			t.Fatalf("run at %d, expected at %d", e.Offset, pos)
		}
		pos += e.Length
		if !e.Zero {
			stored += e.Length
		} else if e.Offset < at+int64(len(data)) && pos > at {
			t.Errorf("data lies in the hole %+v", e)
		}
	}
	if pos != size || stored < int64(len(data)) {
		t.Errorf("runs cover %d bytes, %d of data", pos, stored)
	}
	p := make([]byte, len(data))
	if _, err := img.ReadAt(p, at); err != nil || !bytes.Equal(p, data) {
		t.Errorf("data: %v", err)
	}
}

// TestShrunk: a file that became shorter is an I/O failure, never zeros.
func TestShrunk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(path, noise(10_000), 0o600); err != nil {
		t.Fatal(err)
	}
	src, err := source.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	img, err := raw.Format().Open(context.Background(), src, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if err := os.Truncate(path, 5000); err != nil {
		t.Fatal(err)
	}
	if n, err := img.ReadAt(make([]byte, 10_000), 0); n != 5000 || !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, formats.ErrCorrupt) {
		t.Errorf("%d, %v", n, err)
	}
}

// TestInfoContent: what a disk holds is told by its first bytes.
func TestInfoContent(t *testing.T) {
	at := func(off int, s string) []byte {
		p := make([]byte, 64<<10)
		copy(p[off:], s)
		return p
	}
	hybrid := at(32769, "CD001")
	copy(hybrid[32808:], "DEBIAN 12 ")
	copy(hybrid[510:], "\x55\xaa")
	for _, c := range []struct {
		p    []byte
		want string
	}{
		{at(510, "\x55\xaa"), "[{partition table MBR}]"},
		{at(512, "EFI PART"), "[{partition table GPT}]"},
		{at(4096, "EFI PART"), "[{partition table GPT}]"},
		{at(32769, "CD001"), "[{content ISO 9660 file system}]"},
		{hybrid, "[{content ISO 9660 file system} {volume DEBIAN 12} {partition table MBR}]"},
		{at(32768, "CD001"), "[]"},
		{[]byte("short"), "[]"},
		{hybrid[:32774], "[{content ISO 9660 file system} {partition table MBR}]"},
	} {
		in, err := raw.Format().Info(context.Background(), formatstest.NewSource(c.p))
		if got := fmt.Sprint(in.Specific); err != nil || got != c.want {
			t.Errorf("%s, %v; want %s", got, err, c.want)
		}
	}
}
