package inflate_test

import (
	"bytes"
	stdflate "compress/flate"
	stdzlib "compress/zlib"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgferry/inflate"
)

func compress(t testing.TB, p []byte, finish, zlib bool) []byte {
	t.Helper()
	var b bytes.Buffer
	var w interface {
		io.WriteCloser
		Flush() error
	}
	if zlib {
		w = stdzlib.NewWriter(&b)
	} else {
		w, _ = stdflate.NewWriter(&b, 6)
	}
	w.Write(p)
	if finish {
		w.Close()
	} else {
		w.Flush()
	}
	return b.Bytes()
}

func text(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte('a' + r.IntN(7))
	}
	return p
}

func ExampleZlib() {
	var z bytes.Buffer
	w := stdzlib.NewWriter(&z)
	io.WriteString(w, "one whole cluster")
	w.Close()
	dst := make([]byte, 17)
	n, err := inflate.Zlib(dst, z.Bytes())
	fmt.Println(string(dst[:n]), err)
	// Output: one whole cluster <nil>
}

func TestDecode(t *testing.T) {
	for _, n := range []int{0, 1, 511, 4096, 65536, 2 << 20} {
		for _, finish := range []bool{true, false} {
			for _, z := range []bool{true, false} {
				want := text(n)
				src := compress(t, want, finish, z)
				decode := inflate.Raw
				switch {
				case z && finish:
					decode = inflate.Zlib
				case z:
					decode = inflate.ZlibFlushed
				}
				name := fmt.Sprintf("%d bytes finish=%v zlib=%v", n, finish, z)
				dst := make([]byte, n)
				if m, err := decode(dst, src); m != n || err != nil || !bytes.Equal(dst, want) {
					t.Errorf("%s: %d, %v", name, m, err)
				}
				// Padding behind the stream belongs to nobody.
				if m, err := decode(dst, append(bytes.Clone(src), make([]byte, 512)...)); finish && (m != n || err != nil) {
					t.Errorf("%s, padded: %d, %v", name, m, err)
				}
				if n == 0 {
					continue
				}
				if _, err := decode(make([]byte, n-1), src); !errors.Is(err, inflate.ErrTooLong) {
					t.Errorf("%s into one byte less: %v", name, err)
				}
				if m, err := decode(make([]byte, n+1), src); finish && (m != n || err != nil) || !finish && !errors.Is(err, inflate.ErrShort) {
					t.Errorf("%s into one byte more: %d, %v", name, m, err)
				}
				if _, err := decode(dst, src[:len(src)/4]); !errors.Is(err, inflate.ErrShort) {
					t.Errorf("%s, a quarter: %v", name, err)
				}
			}
		}
	}
}

func TestRefuses(t *testing.T) {
	for name, src := range map[string][]byte{
		"block type 3": {0x07}, "stored length": {0x01, 1, 0, 0, 0},
	} {
		if _, err := inflate.Raw(make([]byte, 100), src); !errors.Is(err, inflate.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	good := compress(t, text(100), true, true)
	for name, head := range map[string][2]byte{"method": {0x79, 0x9c}, "window": {0x88, 0x1c}, "check": {0x78, 0x9d}, "dictionary": {0x78, 0xbb}} {
		bad := bytes.Clone(good)
		bad[0], bad[1] = head[0], head[1]
		if _, err := inflate.Zlib(make([]byte, 100), bad); !errors.Is(err, inflate.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestStreams decodes what C zlib made in all its ways.
func TestStreams(t *testing.T) {
	files, err := filepath.Glob("testdata/streams/*.deflate")
	if err != nil || len(files) < 50 {
		t.Fatal(len(files), err)
	}
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want, err := standard(src, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		got, err := guarded(t, inflate.Raw, src, len(want))
		if sum := fmt.Sprintf("-%08x.deflate", crc32.ChecksumIEEE(got)); err != nil || !strings.HasSuffix(file, sum) {
			t.Errorf("%s: %s, %v", file, sum, err)
		}
		for _, room := range []int{-300, -1, 1, 300} {
			compareRaw(t, src, max(0, len(want)+room))
		}
		for i := range 20 {
			compareRaw(t, src[:len(src)*i/20], len(want))
		}
	}
}

// TestMade decodes made streams: whole, into other sizes, cut, and damaged.
func TestMade(t *testing.T) {
	for part := range uint64(4) {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			for seed := part; seed < 800; seed += 4 {
				src, out := makeStream(seed)
				if got, err := guarded(t, inflate.Raw, src, len(out)); err != nil || !bytes.Equal(got, out) {
					t.Fatalf("seed %d: %v, or bytes differ", seed, err)
				}
				r := rand.New(rand.NewPCG(seed, 1))
				compareRaw(t, src, r.IntN(len(out)+300))
				compareRaw(t, src[:r.IntN(len(src))], len(out))
				src[r.IntN(len(src))] ^= 1 << r.IntN(8)
				compareRaw(t, src, len(out)+r.IntN(100))
			}
		})
	}
}

// TestSmallest decodes the streams with which zlib's infcover.c reaches each of its own errors and
// corners, into every size. The last column is what zlib says.
func TestSmallest(t *testing.T) {
	for _, c := range []struct {
		src  string // hexadecimal bytes
		want error
		why  string
	}{
		{"00 00 00 00 00", inflate.ErrCorrupt, "invalid stored block lengths"},
		{"03 00", nil, "fixed"},
		{"06", inflate.ErrCorrupt, "invalid block type"},
		{"01 01 00 fe ff 00", nil, "stored"},
		{"fc 00 00", inflate.ErrCorrupt, "too many length or distance symbols"},
		{"04 00 fe ff", inflate.ErrCorrupt, "invalid code lengths set"},
		{"04 00 24 49 00", inflate.ErrCorrupt, "invalid bit length repeat"},
		{"04 00 24 e9 ff ff", inflate.ErrCorrupt, "invalid bit length repeat"},
		{"04 80 49 92 24 49 92 24 71 ff ff 93 11 00", inflate.ErrCorrupt, "invalid literal/lengths set"},
		{"04 80 49 92 24 49 92 24 0f b4 ff ff c3 84", inflate.ErrCorrupt, "invalid distances set"},
		{"04 c0 81 08 00 00 00 00 20 7f eb 0b 00 00", inflate.ErrCorrupt, "invalid literal/length code"},
		{"02 7e ff ff", inflate.ErrCorrupt, "invalid distance code"},
		{"0c c0 81 00 00 00 00 00 90 ff 6b 04 00", inflate.ErrCorrupt, "invalid distance too far back"},
		{"05 c0 21 0d 00 00 00 80 b0 fe 6d 2f 91 6c", nil, "pull 17"},
		{"05 e0 81 91 24 cb b2 2c 49 e2 0f 2e 8b 9a 47 56 9f fb fe ec d2 ff 1f", nil, "long code"},
		{"ed c0 01 01 00 00 00 40 20 ff 57 1b 42 2c 4f", nil, "length extra"},
		{"ed cf c1 b1 2c 47 10 c4 30 fa 6f 35 1d 01 82 59 3d fb be 2e 2a fc 0f 0c", nil, "long distance and extra"},
		{"ed c0 81 00 00 00 00 80 a0 fd a9 17 a9 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 06", nil, "window end"},
	} {
		src, err := hex.DecodeString(strings.ReplaceAll(c.src, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := guarded(t, inflate.Raw, src, 1<<16); !errors.Is(err, c.want) {
			t.Errorf("%s (%s): %v", c.src, c.why, err)
		}
		for size := 0; size < 600; size += 7 {
			compareRaw(t, src, size)
		}
	}
}

func TestChecksum(t *testing.T) {
	src := compress(t, text(5000), true, true)
	dst := make([]byte, 5000)
	for i := range 4 {
		bad := bytes.Clone(src)
		bad[len(bad)-1-i] ^= 1
		if _, err := inflate.Zlib(dst, bad); !errors.Is(err, inflate.ErrChecksum) {
			t.Errorf("sum is wrong: %v", err)
		}
		if n, err := inflate.ZlibFlushed(dst, bad); n != len(dst) || err != nil {
			t.Errorf("flushed, sum is wrong: %d, %v", n, err)
		}
		if _, err := inflate.Zlib(dst, src[:len(src)-1-i]); !errors.Is(err, inflate.ErrShort) {
			t.Errorf("sum is cut: %v", err)
		}
	}
}

func TestAllocatesNothing(t *testing.T) {
	p := text(100_000)
	raw, zlib := compress(t, p, true, false), compress(t, p, true, true)
	dst := make([]byte, len(p))
	if n := testing.AllocsPerRun(100, func() {
		inflate.Raw(dst, raw)
		inflate.Zlib(dst, zlib)
		inflate.Raw(dst[:50], raw)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
