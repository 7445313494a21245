package inflate_test

import (
	"bytes"
	stdflate "compress/flate"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/flate"

	"imgferry/inflate"
)

// benchBytes is how many bytes of each content are decoded per round: so few that all decoders meet
// the same state of the machine, and that many rounds run without a break.
const benchBytes = 2 << 20

// systemFiles is a folder of what disks are full of: programs, libraries, data.
const systemFiles = "/usr"

// BenchmarkDecode compares decoders of raw deflate on one core, each in turn over the same blocks:
// this package, klauspost/compress, the standard library, and C zlib if there is a C compiler. It
// reports the MB/s of each one's best round, and as x the median of its speed relative to klauspost's
// in the same round. Neither depends much on what else the machine does.
func BenchmarkDecode(b *testing.B) {
	contents := []struct {
		name string
		data []byte
	}{
		{"files", sample(b, systemFiles, "")}, {"text", sample(b, goroot(b), ".go")}, {"random", random(benchBytes)},
	}
	zlib := buildZlib(b)
	for _, c := range contents {
		for _, size := range []int{4 << 10, 64 << 10, 2 << 20} {
			b.Run(fmt.Sprintf("%s/%dKiB", c.name, size>>10), func(b *testing.B) { compare(b, c.data, size, zlib) })
		}
	}
}

// A contestant decodes all blocks once and returns how long that took.
type contestant struct {
	name   string
	decode func() time.Duration
}

func compare(b *testing.B, data []byte, size int, zlib string) {
	var blocks [][]byte
	packed := 0
	for p := range slices.Chunk(data, size) {
		z := compress(b, p, true, false)
		packed += len(z)
		blocks = append(blocks, z)
	}
	dst := make([]byte, size)
	reader := func(r io.Reader) func(src []byte) (int, error) {
		in := bytes.NewReader(nil)
		return func(src []byte) (int, error) {
			in.Reset(src)
			if err := r.(flate.Resetter).Reset(in, nil); err != nil {
				return 0, err
			}
			return io.ReadFull(r, dst)
		}
	}
	all := func(decode func(src []byte) (int, error)) func() time.Duration {
		return func() time.Duration {
			start := time.Now()
			for _, z := range blocks {
				if n, err := decode(z); n != size || err != nil {
					b.Fatal(n, err)
				}
			}
			return time.Since(start)
		}
	}
	contestants := []contestant{
		{"klauspost", all(reader(flate.NewReader(nil)))},
		{"inflate", all(func(src []byte) (int, error) { return inflate.Raw(dst, src) })},
		{"std", all(reader(stdflate.NewReader(nil)))},
	}
	if zlib != "" {
		contestants = append(contestants, contestant{"zlib", runZlib(b, zlib, size, blocks)})
	}
	seconds := make([][]float64, len(contestants))
	ratios := make([][]float64, len(contestants))
	for b.Loop() {
		for i, c := range contestants {
			s := c.decode().Seconds()
			seconds[i] = append(seconds[i], s)
			ratios[i] = append(ratios[i], seconds[0][len(seconds[0])-1]/s)
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(100*float64(packed)/float64(len(data)), "%size")
	for i, c := range contestants {
		b.ReportMetric(float64(len(data))/1e6/slices.Min(seconds[i]), c.name+"-MB/s")
		if i > 0 {
			b.ReportMetric(median(ratios[i]), c.name+"-x")
		}
	}
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// buildZlib builds the program that decodes with C zlib. It returns "" if it can't.
func buildZlib(b *testing.B) (program string) {
	program = filepath.Join(b.TempDir(), "zlib")
	if out, err := exec.Command("cc", "-O2", "-o", program, filepath.Join("testdata", "zlib.c"), "-lz").CombinedOutput(); err != nil {
		b.Logf("without C zlib (apt-get install gcc libc6-dev zlib1g-dev): %v: %s", err, out)
		return ""
	}
	return program
}

// runZlib starts the program and hands it the blocks.
func runZlib(b *testing.B, program string, size int, blocks [][]byte) func() time.Duration {
	c := exec.Command(program)
	in, err := c.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		if err := c.Wait(); err != nil {
			b.Error("C zlib:", err)
		}
	})
	msg := binary.LittleEndian.AppendUint32(nil, uint32(size))
	msg = binary.LittleEndian.AppendUint32(msg, uint32(len(blocks)))
	for _, z := range blocks {
		msg = append(binary.LittleEndian.AppendUint32(msg, uint32(len(z))), z...)
	}
	if _, err := in.Write(msg); err != nil {
		b.Fatal(err)
	}
	return func() time.Duration {
		var ns [8]byte
		in.Write([]byte{1})
		if _, err := io.ReadFull(out, ns[:]); err != nil {
			b.Fatal(err)
		}
		return time.Duration(binary.LittleEndian.Uint64(ns[:]))
	}
}

// goroot is where Go's own sources are.
func goroot(b *testing.B) string {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		b.Fatal(err)
	}
	return string(bytes.TrimSpace(out))
}

// sample returns benchBytes of the regular files below root whose names end in suffix, in pieces from
// all over them.
func sample(b *testing.B, root, suffix string) []byte {
	type file struct {
		path       string
		start, end int64 // in all of them, one behind the other
	}
	var all []file
	var total int64
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !strings.HasSuffix(path, suffix) {
			return nil // what can't be read is left out
		}
		if st, err := d.Info(); err == nil {
			all = append(all, file{path, total, total + st.Size()})
			total += st.Size()
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	const piece = 64 << 10
	step := total / (benchBytes / piece)
	if step < piece {
		b.Skipf("only %d bytes of %q files in %s", total, suffix, root)
	}
	var p []byte
	for want := int64(0); len(p) < benchBytes; want += step {
		i := slices.IndexFunc(all, func(f file) bool { return f.end > want })
		if i < 0 {
			b.Skipf("too little of %s can be read", root)
		}
		for end := min(benchBytes, len(p)+piece); len(p) < end && i < len(all); i++ {
			content, err := os.ReadFile(all[i].path)
			if err != nil {
				continue
			}
			content = content[min(int(max(0, want-all[i].start)), len(content)):]
			p = append(p, content[:min(len(content), end-len(p))]...)
		}
	}
	return p
}

func random(n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{}).Read(p)
	return p
}
