package qcow2

import (
	"bytes"
	"compress/flate"
	"io"
	"testing"

	"imgferry/formats/formatstest"
)

// expectRoundTrip compresses src with an encoder that was used before and with a new one, and
// decompresses it with the standard library.
func expectRoundTrip(t *testing.T, used *deflater, src []byte) []byte {
	t.Helper()
	p := used.compress([]byte("xy"), src)
	fresh := deflater{effort: used.effort}
	if !bytes.Equal(p[2:], fresh.compress(nil, src)) || string(p[:2]) != "xy" {
		t.Fatalf("%d bytes come out other than from a new encoder", len(src))
	}
	r := flate.NewReader(bytes.NewReader(p[2:]))
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, src) {
		t.Fatalf("%d bytes come back as %d (%v)", len(src), len(got), err)
	}
	return p[2:]
}

func TestDeflate(t *testing.T) {
	text := formatstest.Text(9, 100_000)
	for l := range LevelBest + 1 {
		d := newDeflater(l)
		for _, n := range []int{1, 2, 3, 4, 5, 512, 4095, 4096, 4097, 65536, 300_000} {
			expectRoundTrip(t, d, formatstest.Text(uint64(n), n))
			expectRoundTrip(t, d, formatstest.Noise(uint64(n), n))
			expectRoundTrip(t, d, bytes.Repeat([]byte{7}, n))
			expectRoundTrip(t, d, bytes.Repeat([]byte("ab"), n)[:n])
		}
		expectRoundTrip(t, d, text)
		d.end = 1<<30 + 1 // its tables begin anew
		expectRoundTrip(t, d, text)
		if d.end > 1<<29 {
			t.Errorf("positions go on at %d", d.end)
		}
	}
}

// TestCodeLengths: counts that grow like Fibonacci's numbers make the longest codes. A cut code must be
// complete as well, and give no rarer symbol a shorter code.
func TestCodeLengths(t *testing.T) {
	var b codeBuilder
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

// TestDeflateWindow: what lies further back than QEMU's window is not seen, what lies nearer is.
func TestDeflateWindow(t *testing.T) {
	noise := formatstest.Noise(1, 8192)
	d := newDeflater(LevelBest)
	for period, shrinks := range map[int]bool{4000: true, deflateWindow - 1: true, deflateWindow + 1: false, 6000: false} {
		src := bytes.Repeat(noise[:period], 3)
		p := expectRoundTrip(t, d, src)
		if (len(p) < period*3/2) != shrinks || !shrinks && len(p) < len(src) {
			t.Errorf("%d bytes with a period of %d came to %d", len(src), period, len(p))
		}
	}
}

func FuzzDeflate(f *testing.F) {
	f.Add([]byte("abcabcabcabcabc"), uint16(3))
	f.Add(bytes.Repeat([]byte{0, 0, 1}, 400), uint16(500))
	used := newDeflater(LevelDefault)
	f.Fuzz(func(t *testing.T, p []byte, times uint16) {
		expectRoundTrip(t, used, bytes.Repeat(p, 1+int(times)%64))
	})
}

// BenchmarkDeflate measures a cluster of text.
func BenchmarkDeflate(b *testing.B) {
	src := formatstest.Text(1, defaultClusterSize)
	for l := range LevelBest + 1 {
		d := newDeflater(l)
		var dst []byte
		b.Run([]string{"default", "fastest", "better", "best"}[l], func(b *testing.B) {
			b.SetBytes(int64(len(src)))
			b.ReportAllocs()
			for b.Loop() {
				dst = d.compress(dst[:0], src)
			}
			b.ReportMetric(float64(len(dst))/float64(len(src)), "ratio")
		})
	}
}
