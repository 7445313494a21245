package formatstest

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"imgferry/formats"
)

// Extents returns the runs of img.
func Extents(t testing.TB, img formats.Image) []formats.Extent {
	t.Helper()
	var list []formats.Extent
	for e, err := range img.Extents(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
	return list
}

// ReadAll opens the image in src and reads all of it, but of long runs only 1 MiB. It returns the
// first error.
func ReadAll(f formats.Format, src formats.Source, res formats.Resolver) ([]byte, error) {
	img, err := f.Open(context.Background(), src, res)
	if err != nil {
		return nil, err
	}
	defer img.Close()
	var all []byte
	for e, err := range img.Extents(context.Background()) {
		if err != nil {
			return nil, err
		}
		p := make([]byte, min(e.Length, 1<<20))
		if _, err := img.ReadAt(p, e.Offset); err != nil && err != io.EOF {
			return nil, err
		}
		all = append(all, p...)
	}
	return all, nil
}

// CheckRefused opens and reads an image that must be refused: with an error of class, in one
// sentence that holds text. late says that only tables or data are to blame: Info then has no problem
// with it, and the same one otherwise.
func CheckRefused(t *testing.T, f formats.Format, src formats.Source, res formats.Resolver, class error, text string, late bool) {
	t.Helper()
	expect := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, class) || !strings.Contains(err.Error(), text) || strings.ContainsRune(err.Error(), '\n') {
			t.Errorf("%s: %v; want %v and %q", what, err, class, text)
		}
	}
	in, err := f.Info(context.Background(), src)
	switch {
	case err != nil:
		t.Errorf("info: %v", err)
	case !late:
		expect("info", in.Problem)
	case in.Problem != nil:
		t.Errorf("info: %v", in.Problem)
	}
	_, err = ReadAll(f, src, res) // which closes src
	expect("open", err)
}

// Check runs f's check over src, and returns what it found, with the sums that qemu-img check gives.
func Check(t testing.TB, f formats.Format, src formats.Source) (list []formats.Finding, sums CheckSums) {
	t.Helper()
	c, err := f.Check(context.Background(), src, func(f formats.Finding) {
		list = append(list, f)
		if f.Leak {
			sums.Leaks += max(f.Count, 1)
		} else {
			sums.Corruptions += max(f.Count, 1)
		}
	})
	if err != nil {
		t.Fatalf("check: %v", err)
	}
	sums.Clusters, sums.Allocated, sums.Compressed, sums.Fragmented, sums.End = c.Clusters, c.Allocated, c.Compressed, c.Fragmented, c.End
	return list, sums
}

// BenchSize is the size of the disk that BenchPieces makes, in bytes.
const BenchSize = 64 << 20

// BenchPieces are a disk of which a third is noise and the rest text.
func BenchPieces() []Piece {
	const block = 2 << 20
	var list []Piece
	for i := range uint64(BenchSize / block) {
		p := Piece{Offset: int64(i) * block, Data: Text(i, block)}
		if i%3 == 0 {
			p.Data = Noise(i, block)
		}
		list = append(list, p)
	}
	return list
}

// BenchReadAt reads img, of BenchSize bytes, front to back in the given steps, by as many goroutines
// as -cpu says.
func BenchReadAt(b *testing.B, img formats.Image, step int64) {
	b.SetBytes(step)
	b.ReportAllocs()
	b.ResetTimer()
	var next atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		p := make([]byte, step)
		for pb.Next() {
			if _, err := img.ReadAt(p, (next.Add(1)-1)*step%BenchSize); err != nil {
				b.Error(err)
			}
		}
	})
}
