package formats_test

import (
	"context"
	"errors"
	"math"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
)

func TestHoles(t *testing.T) {
	src := &formatstest.Counted{Source: formatstest.NewSparseSource(1000,
		formatstest.Piece{Offset: 100, Data: make([]byte, 50)}, formatstest.Piece{Offset: 300, Data: make([]byte, 10)})}
	h := formats.NewHoles(context.Background(), "test", src)
	for _, c := range []struct{ off, start, end, asked int64 }{
		{0, 100, 150, 1}, {60, 100, 150, 1}, {120, 120, 150, 1}, {149, 149, 150, 1}, // one answer
		{150, 300, 310, 2}, {310, 1000, 1000, 3}, {999, 1000, 1000, 3}, {10, 100, 150, 4},
		{1000, 1000, math.MaxInt64, 5}, // past the end, where nothing is said
	} {
		if start, end, err := h.Next(c.off); start != c.start || end != c.end || err != nil || src.Asked != c.asked {
			t.Errorf("%+v: [%d, %d), %v, asked %d times", c, start, end, err, src.Asked)
		}
	}
	for _, c := range []struct {
		off, n int64
		want   bool
	}{{0, 100, true}, {0, 101, false}, {150, 150, true}, {310, 690, true}, {310, 691, false}, {100, 1, false}} {
		if got, err := h.Empty(c.off, c.n); got != c.want || err != nil {
			t.Errorf("%+v: %v, %v", c, got, err)
		}
	}
	whole := formats.NewHoles(context.Background(), "test", formatstest.NewSource(make([]byte, 10)))
	if empty, err := whole.Empty(0, 1); empty || err != nil {
		t.Errorf("a source that can't tell: %v, %v", empty, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := formats.NewHoles(ctx, "test", src).Next(0); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestTables: tables in holes are free, all others need data of their own.
func TestTables(t *testing.T) {
	const n = 64 << 10
	src := formatstest.NewSparseSource(1<<40,
		formatstest.Piece{Data: make([]byte, n)}, formatstest.Piece{Offset: 10 * n, Data: make([]byte, 2*n)})
	tables := formats.NewTables(context.Background(), "test", src)
	for i := range int64(100_000) {
		if empty, err := tables.Add((100+i)*n, n, 7); !empty || err != nil {
			t.Fatalf("%d: %v, %v", i, empty, err)
		}
	}
	for i := range 4 { // of three tables' data
		empty, err := tables.Add(10*n, n, 7)
		if full := i == 3; empty || errors.Is(err, formats.ErrCorrupt) != full || (err != nil) != full {
			t.Fatalf("%d: %v, %v", i, empty, err)
		}
	}
	// Tables with little data in them: as many as 64 MiB and 16 times the data have room for.
	for _, pages := range []int64{1000, 10_000} {
		tables := formats.NewTables(context.Background(), "test", &paged{formatstest.NewSparseSource(1 << 40), pages, n, 512})
		var err error
		for i := int64(0); i < pages && err == nil; i++ {
			_, err = tables.Add(i*n, n, 7)
		}
		if refused := pages > 1024; errors.Is(err, formats.ErrCorrupt) != refused || (err != nil) != refused {
			t.Errorf("%d tables: %v", pages, err)
		}
	}
}

// paged has the given bytes of data at the start of each of the first steps.
type paged struct {
	formats.Source
	count, step, bytes int64
}

func (p *paged) NextData(off int64) (start, end int64, err error) {
	i := off / p.step
	if off >= i*p.step+p.bytes {
		i++
	}
	if i >= p.count {
		return p.Size(), p.Size(), nil
	}
	return max(off, i*p.step), i*p.step + p.bytes, nil
}
