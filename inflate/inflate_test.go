package inflate_test

import (
	"bytes"
	stdflate "compress/flate"
	stdzlib "compress/zlib"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
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
				if z {
					decode = inflate.Zlib
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
				if _, err := decode(dst, src[:len(src)/2]); !errors.Is(err, inflate.ErrShort) {
					t.Errorf("%s, half: %v", name, err)
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

// FuzzRaw compares with the standard library: same bytes, or both refuse.
func FuzzRaw(f *testing.F) {
	f.Add(compress(f, text(1000), true, false))
	f.Add(compress(f, text(1000), false, false))
	f.Add([]byte{0x07})
	f.Fuzz(func(t *testing.T, src []byte) {
		const limit = 1 << 16
		want, werr := io.ReadAll(io.LimitReader(stdflate.NewReader(bytes.NewReader(src)), limit+1))
		dst := make([]byte, limit)
		n, err := inflate.Raw(dst, src)
		if len(want) > limit {
			if !errors.Is(err, inflate.ErrTooLong) {
				t.Fatalf("%v, want too long", err)
			}
			return
		}
		if (werr == nil) != (err == nil) && len(want) < limit {
			t.Fatalf("%v, want %v", err, werr)
		}
		if err == nil && !bytes.Equal(dst[:n], want) {
			t.Fatal("bytes differ")
		}
	})
}
