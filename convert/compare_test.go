package convert_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"imgferry/convert"
)

func compare(t *testing.T, a, b *disk) int64 {
	t.Helper()
	x, err := convert.Compare(context.Background(), a, b, convert.Options{})
	if err != nil {
		t.Fatal(err)
	}
	y, err := convert.Compare(context.Background(), b, a, convert.Options{Workers: 3})
	if err != nil {
		t.Fatal(err)
	}
	if x != y {
		t.Errorf("%d one way, %d the other", x, y)
	}
	return x
}

// TestCompare against the bytes themselves.
func TestCompare(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	random := func() *disk {
		d := &disk{size: 3*convert.BlockSize + r.Int64N(5000), pieces: map[int64][]byte{}}
		for i := range int64(r.IntN(4)) {
			p := make([]byte, 1+r.IntN(300_000))
			if r.IntN(3) > 0 { // else zeros that the extents call data
				for i := range p {
					p[i] = byte(r.Uint32())
				}
			}
			d.pieces[i*convert.BlockSize+r.Int64N(1_700_000)] = p
		}
		return d
	}
	seen := map[bool]int{}
	for range 60 {
		a := random()
		b := &disk{size: a.size, pieces: map[int64][]byte{}}
		for off, p := range a.pieces {
			b.pieces[off] = bytes.Clone(p)
		}
		switch r.IntN(4) {
		case 0:
			b = random()
		case 1:
			for _, p := range b.pieces {
				p[r.IntN(len(p))] ^= 1
			}
		case 2:
			b.size += r.Int64N(convert.BlockSize)
		}
		want, x, y := int64(-1), a.bytes(), b.bytes()
		for len(x) < len(y) {
			x = append(x, 0)
		}
		for len(y) < len(x) {
			y = append(y, 0)
		}
		for i := range x {
			if x[i] != y[i] {
				want = int64(i)
				break
			}
		}
		if got := compare(t, a, b); got != want {
			t.Fatalf("first difference at %d, want %d", got, want)
		}
		seen[want >= 0]++
	}
	if seen[true] < 10 || seen[false] < 10 {
		t.Errorf("the cases are lopsided: %v", seen)
	}
}

// TestCompareSize: what one disk has beyond the other's end must be zeros.
func TestCompareSize(t *testing.T) {
	a := &disk{size: 1000}
	b := &disk{size: 5 << 20, pieces: map[int64][]byte{}}
	if got := compare(t, a, b); got != -1 {
		t.Errorf("zeros behind the end differ at %d", got)
	}
	b.pieces[5<<20-1] = []byte{1}
	if got := compare(t, a, b); got != 5<<20-1 {
		t.Errorf("the last byte differs, not that at %d", got)
	}
}

func TestCompareFails(t *testing.T) {
	broken := errors.New("broken")
	a, b := sample(), sample()
	b.readErr = broken
	if _, err := convert.Compare(context.Background(), a, b, convert.Options{}); !errors.Is(err, broken) {
		t.Error(err)
	}
	c := &disk{size: a.size, pieces: a.pieces, extentErr: broken}
	c.size += 1 << 20 // zeros, behind which the walk fails
	if _, err := convert.Compare(context.Background(), a, c, convert.Options{}); !errors.Is(err, broken) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(broken)
	if _, err := convert.Compare(ctx, a, sample(), convert.Options{}); !errors.Is(err, broken) {
		t.Error(err)
	}
}
