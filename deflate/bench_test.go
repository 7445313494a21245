package deflate

import (
	"bytes"
	stdflate "compress/flate"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/klauspost/compress/flate"
)

// sources are this program's own: text.
func sources(t testing.TB) (p []byte) {
	t.Helper()
	names, err := filepath.Glob("../formats/*/*.go")
	if err != nil || len(names) < 50 {
		t.Fatalf("%d sources (%v)", len(names), err)
	}
	slices.Sort(names)
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		p = append(p, b...)
	}
	return p
}

// program is the test's own: machine code and tables.
func program(t testing.TB) []byte {
	t.Helper()
	name, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// writer is what the rivals have in common.
type writer interface {
	io.WriteCloser
	Reset(io.Writer)
}

// rivals compress src in one go, with the levels that stand for the same effort.
func rivals(b *testing.B) map[string]func(dst, src []byte) []byte {
	of := func(w writer, err error) func(dst, src []byte) []byte {
		if err != nil {
			b.Fatal(err)
		}
		return func(dst, src []byte) []byte {
			out := bytes.NewBuffer(dst)
			w.Reset(out)
			if _, err := w.Write(src); err != nil {
				b.Fatal(err)
			}
			if err := w.Close(); err != nil {
				b.Fatal(err)
			}
			return out.Bytes()
		}
	}
	k, kerr := flate.NewWriter(nil, 6)
	s, serr := stdflate.NewWriter(nil, 6)
	list := map[string]func(dst, src []byte) []byte{"klauspost 6": of(k, kerr), "compress-flate 6": of(s, serr)}
	for _, l := range allLevels {
		list[levelNames[l]] = New(l, MaxWindowBits).Raw
		list[levelNames[l]+" 4 KiB window"] = New(l, 12).Raw
	}
	return list
}

// BenchmarkRaw compresses clusters of 64 KiB. It reports what they come to as %size.
func BenchmarkRaw(b *testing.B) {
	const cluster, clusters = 64 << 10, 8
	for kind, all := range map[string][]byte{"text": sources(b), "program": program(b)} {
		var src [][]byte
		step := max(len(all)/clusters, cluster)
		for at := 0; at+cluster <= len(all); at += step {
			src = append(src, all[at:][:cluster])
		}
		for name, compress := range rivals(b) {
			b.Run(kind+"/"+name, func(b *testing.B) {
				b.SetBytes(int64(len(src) * cluster))
				b.ReportAllocs()
				dst := make([]byte, 0, Bound(cluster)+wordBytes)
				size := 0
				for b.Loop() {
					size = 0
					for _, p := range src {
						size += len(compress(dst, p))
					}
				}
				b.ReportMetric(100*float64(size)/float64(len(src)*cluster), "%size")
			})
		}
	}
}
