package mapped_test

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/mapped"
)

func TestNames(t *testing.T) {
	for _, c := range []struct {
		names []string
		want  string
		ok    bool
	}{
		{[]string{`..\a\b.vhd`}, "../a/b.vhd", true},
		{[]string{"", `C:\x`, `.\b`}, "./b", true},
		{[]string{"/abs", "x"}, "/abs", true},
		{[]string{"", `\\?\d:\x`, `C:x`}, `\\?\d:\x`, false},
		{[]string{`\x`}, `\x`, false},
		{[]string{"//server/share"}, "//server/share", false},
		{[]string{"ab:c"}, "ab:c", true}, // refused by formats.CheckName
		{[]string{"", ""}, "", true},
		{nil, "", true},
	} {
		got := mapped.BestName(c.names...)
		if _, ok := mapped.SlashName(got); got != c.want || ok != c.ok {
			t.Errorf("%q: %q, %v; want %q, %v", c.names, got, ok, c.want, c.ok)
		}
	}
}

func TestDecodeName(t *testing.T) {
	for _, c := range []struct {
		p, want string
		ok      bool
	}{
		{"", "", true},
		{"a\x00\xe4\x00", "aä", true},
		{"a\x00\x00\x00\x00\x00", "a", true},
		{"a\x00\x00\x00b\x00", "a\x00b", true},
		{"\x3d\xd8\x00\xde", "\U0001f600", true},
		{"\x3d\xd8", "", false},
		{"\x00\xdea\x00", "", false},
		{"a\x00b", "", false},
	} {
		got, ok := mapped.DecodeName([]byte(c.p), binary.LittleEndian)
		if ok != c.ok || ok && got != c.want {
			t.Errorf("%q: %q, %v; want %q, %v", c.p, got, ok, c.want, c.ok)
		}
	}
}

// closed counts how often a source is closed.
type closed struct {
	formats.Source
	n *int
}

func (c closed) Close() error { *c.n++; return c.Source.Close() }

// resolver opens a source that counts, under any name.
type resolver struct{ closed }

func (r resolver) Resolve(context.Context, formats.Ref) (formats.Source, formats.Resolver, error) {
	return r.closed, nil, nil
}

func (resolver) Open(context.Context, formats.Ref) (formats.Image, error) { panic("not asked for") }

func TestOpenParent(t *testing.T) {
	var closes int
	res := resolver{closed{formatstest.NewSource([]byte("x")), &closes}}
	wrong := errors.New("the wrong disk")
	open := func(formats.Source, formats.Resolver) (formats.Image, error) { return nil, wrong }
	for _, c := range []struct {
		name string
		res  formats.Resolver
		text string
	}{
		{"p", nil, `needs the parent disk "p"`},
		{"", res, "it is empty"},
		{"a\x00b", res, "zero byte"},
		{"nbd://x", res, "protocol"},
		{`\\server\share\p`, res, "a share or a root of Windows"},
		{`c:\p`, res, "a drive"},
	} {
		_, err := mapped.OpenParent(context.Background(), "test", 7, formats.Ref{Kind: formats.Parent, Name: c.name}, c.res, open)
		var e *formats.Error
		if !errors.Is(err, formats.ErrNotAllowed) || !strings.Contains(err.Error(), c.text) || !errors.As(err, &e) || e.Offset != 7 {
			t.Errorf("%q: %v", c.name, err)
		}
	}
	if _, err := mapped.OpenParent(context.Background(), "test", 7, formats.Ref{Kind: formats.Parent, Name: "p"}, res, open); err != wrong || closes != 1 {
		t.Errorf("%v; closed %d times", err, closes)
	}
}

// TestBitRun compares with counting one by one.
func TestBitRun(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	p := make([]byte, 61)
	for bit := 0; bit < len(p)*8; { // runs of many lengths
		n := min(1+r.IntN(1+r.IntN(150)), len(p)*8-bit)
		for set := r.IntN(2) == 0; n > 0; n, bit = n-1, bit+1 {
			if set {
				p[bit/8] |= 1 << (bit % 8)
			}
		}
	}
	at := func(i int64) bool { return p[i/8]>>(i%8)&1 != 0 }
	size := int64(len(p)) * 8
	for first := range size {
		for _, most := range []int64{1, 7, 64, 65, size, 1 << 40} {
			want := int64(0)
			for want < most && first+want < size && at(first+want) == at(first) {
				want++
			}
			if set, n := mapped.BitRun(p, first, most); set != at(first) || n != want {
				t.Fatalf("at %d, most %d: %v, %d; want %d", first, most, set, n, want)
			}
		}
	}
}
