package deflate

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"fmt"
	"io"
	"slices"
	"testing"

	"imgferry/formats/formatstest"
	"imgferry/inflate"
)

var (
	allLevels  = []Level{Default, Fastest, Better, Best}
	levelNames = []string{"default", "fastest", "better", "best"}
)

// expectRoundTrip compresses src with an encoder that was used before and with a new one, and
// decompresses it with the standard library and with package inflate. It returns what src came to.
func expectRoundTrip(t testing.TB, used *Encoder, level Level, src []byte) []byte {
	t.Helper()
	p := used.Raw([]byte("xy"), src)
	if string(p[:2]) != "xy" || !bytes.Equal(p[2:], New(level, used.windowBits).Raw(nil, src)) {
		t.Fatalf("%d bytes come out other than from a new encoder", len(src))
	}
	p = p[2:]
	if n := Bound(len(src)); len(p) > n {
		t.Errorf("%d bytes came to %d: the bound is %d", len(src), len(p), n)
	}
	if got, err := io.ReadAll(flate.NewReader(bytes.NewReader(p))); err != nil || !bytes.Equal(got, src) {
		t.Fatalf("%d bytes come back as %d (%v)", len(src), len(got), err)
	}
	got := make([]byte, len(src))
	if n, err := inflate.Raw(got, p); err != nil || n != len(src) || !bytes.Equal(got, src) {
		t.Fatalf("package inflate makes %d of %d bytes (%v)", n, len(src), err)
	}
	return p
}

// contents are kinds of buffers of n bytes.
func contents(n int) map[string][]byte {
	mixed := slices.Concat(formatstest.Text(1, n/4), make([]byte, n/4), formatstest.Noise(2, n/4), []byte(fmt.Sprint(make([]int, n))))
	return map[string][]byte{
		"text":   formatstest.Text(uint64(n), n),
		"noise":  formatstest.Noise(uint64(n), n),
		"one":    bytes.Repeat([]byte{7}, n),
		"two":    bytes.Repeat([]byte("ab"), n)[:n],
		"zeros":  make([]byte, n),
		"mixed":  mixed[:n],
		"nibble": bytes.Map(func(r rune) rune { return 'a' + r&3 }, formatstest.Noise(3, n)),
	}
}

func TestRaw(t *testing.T) {
	for _, level := range allLevels {
		for _, bits := range []int{MinWindowBits, 12, MaxWindowBits} {
			e := New(level, bits)
			for _, n := range []int{0, 1, 3, 4, 5, 9, 259, 4097, 65536} {
				for _, src := range contents(n) {
					expectRoundTrip(t, e, level, src)
				}
			}
			for kind, src := range contents(150_000) {
				p := expectRoundTrip(t, e, level, src)
				if kind == "noise" != (len(p) > len(src)) {
					t.Errorf("level %d, window %d, %s: %d bytes came to %d", level, bits, kind, len(src), len(p))
				}
			}
		}
	}
}

// TestTablesBeginAnew: positions don't overflow.
func TestTablesBeginAnew(t *testing.T) {
	text := formatstest.Text(9, 100_000)
	for _, level := range allLevels {
		e := New(level, MaxWindowBits)
		expectRoundTrip(t, e, level, text)
		e.end = 1<<30 + 1
		expectRoundTrip(t, e, level, text)
		if e.end > 1<<29 {
			t.Errorf("positions go on at %d", e.end)
		}
	}
}

func TestZlib(t *testing.T) {
	src := formatstest.Text(1, 70_000)
	for bits := MinWindowBits; bits <= MaxWindowBits; bits++ {
		p := New(Default, bits).Zlib([]byte("x"), src)[1:]
		r, err := zlib.NewReader(bytes.NewReader(p))
		if err != nil {
			t.Fatalf("window %d: %v", bits, err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, src) {
			t.Errorf("window %d: %d bytes (%v)", bits, len(got), err)
		}
		got := make([]byte, len(src))
		if n, err := inflate.Zlib(got, p); err != nil || n != len(src) || !bytes.Equal(got, src) {
			t.Errorf("window %d: package inflate makes %d bytes (%v)", bits, n, err)
		}
		if p[0]>>4 != byte(bits-8) {
			t.Errorf("window %d: the head is %#x", bits, p[:2])
		}
	}
}

// TestWindow: what lies further back than the window is not seen, what lies nearer is.
func TestWindow(t *testing.T) {
	noise := formatstest.Noise(1, 80_000)
	for _, level := range allLevels {
		for bits := MinWindowBits; bits <= MaxWindowBits; bits++ {
			e, window := New(level, bits), 1<<bits
			for period, shrinks := range map[int]bool{window - 96: true, window - 1: true, window + 1: false, window + window/2: false} {
				src := bytes.Repeat(noise[:period], 3)
				p := expectRoundTrip(t, e, level, src)
				if (len(p) < 2*period) != shrinks || !shrinks && len(p) < len(src) {
					t.Errorf("level %d: %d bytes with a period of %d came to %d", level, len(src), period, len(p))
				}
			}
		}
	}
}

// TestSmaller: an encoder that finds nothing would pass the tests above. The standard library's default
// is the bound.
func TestSmaller(t *testing.T) {
	src := sources(t)
	src = src[:min(len(src), 256<<10)]
	var w bytes.Buffer
	f, err := flate.NewWriter(&w, flate.DefaultCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(src); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	var sizes []int
	for _, level := range []Level{Best, Better, Default, Fastest} {
		sizes = append(sizes, len(expectRoundTrip(t, New(level, MaxWindowBits), level, src)))
	}
	if !slices.IsSorted(sizes) || sizes[2] > w.Len() || sizes[3] > w.Len()*5/4 {
		t.Errorf("best to fastest: %d, compress/flate: %d", sizes, w.Len())
	}
}

// TestSplits: where the content changes, codes do.
func TestSplits(t *testing.T) {
	src := slices.Concat(bytes.Map(func(r rune) rune { return 'a' + r&15 }, formatstest.Noise(1, 30_000)),
		bytes.Map(func(r rune) rune { return 'A' + r&15 }, formatstest.Noise(2, 30_000)))
	p := expectRoundTrip(t, New(Default, MaxWindowBits), Default, src)
	if len(p) > len(src)*55/100 { // four bits a byte; with a common code, five
		t.Errorf("%d bytes came to %d", len(src), len(p))
	}
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []struct {
		level Level
		bits  int
	}{{Best + 1, 15}, {Default, 8}, {Default, 16}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("level %d with a window of %d bits is taken", c.level, c.bits)
				}
			}()
			New(c.level, c.bits)
		}()
	}
}

// TestAllocatesNothing: an encoder that was used before needs room for its output only.
func TestAllocatesNothing(t *testing.T) {
	for kind, src := range contents(65536) {
		e, dst := New(Default, MaxWindowBits), make([]byte, 0, Bound(len(src))+wordBytes)
		if n := testing.AllocsPerRun(5, func() { e.Zlib(dst, src) }); n > 0 {
			t.Errorf("%s: %v allocations", kind, n)
		}
	}
}

// TestCodeLengths: counts that grow like Fibonacci's numbers make the longest codes. A cut code must be
// complete as well, and give no rarer symbol a shorter code.
func TestCodeLengths(t *testing.T) {
	var b builder
	for _, most := range []int{7, maxCodeLen} {
		for _, n := range []int{2, 3, 7, 8, 9, 15, 16, 17, 30} {
			if n > 1<<most {
				continue
			}
			counts, lens := make([]uint32, n), make([]uint8, n)
			for i, x, y := 0, uint32(1), uint32(1); i < n; i, x, y = i+1, y, x+y {
				counts[i] = x
			}
			b.lengths(lens, counts, most)
			sum := 0
			for i, l := range lens {
				sum += 1 << (most - int(l))
				if l == 0 || int(l) > most || i > 0 && l > lens[i-1] {
					t.Errorf("%d symbols, at most %d bits: %v", n, most, lens)
				}
			}
			if sum != 1<<most {
				t.Errorf("%d symbols, at most %d bits: incomplete: %v", n, most, lens)
			}
		}
	}
}

// TestSymbols compares the tables with some rows of RFC 1951, 3.2.5.
func TestSymbols(t *testing.T) {
	for length, want := range map[int][3]uint32{3: {257, 3, 0}, 10: {264, 10, 0}, 11: {265, 11, 1}, 12: {265, 11, 1}, 13: {266, 13, 1},
		114: {279, 99, 4}, 115: {280, 115, 4}, 257: {284, 227, 5}, 258: {285, 258, 0}} {
		s := lengthSymbol[length-minMatch]
		if got := [3]uint32{endOfBlock + 1 + uint32(s), lengthBase[s], lengthExtra[s]}; got != want {
			t.Errorf("length %d: %d, want %d", length, got, want)
		}
	}
	for distance, want := range map[uint32][3]uint32{1: {0, 1, 0}, 4: {3, 4, 0}, 5: {4, 5, 1}, 6: {4, 5, 1}, 24: {8, 17, 3}, 32768: {29, 24577, 13}} {
		s := distSymbol(distance - 1)
		if got := [3]uint32{s, distBase[s] + 1, distExtra[s]}; got != want {
			t.Errorf("distance %d: %d, want %d", distance, got, want)
		}
	}
}
