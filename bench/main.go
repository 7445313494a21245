//go:build unix

// Command bench measures, on this machine and in one run, the ratios that the README states. It
// compares pairs A B A B..., reports medians, and discards pairs in which the machine gave a side
// less CPU than it should have.
//
// It is not a test: it never fails because something is slow.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"

	"imgferry/convert"
	"imgferry/formats/raw"
	"imgferry/formats/zvhd2"
	"imgferry/source"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == measureFlag {
		measureChild(os.Args[2:])
		return
	}
	from := flag.String("from", "/usr", "folder whose files are the data")
	mib := flag.Int64("mib", 1536, "MiB of data")
	pairs := flag.Int("pairs", 5, "pairs that must count")
	dir := flag.String("dir", ".bench", "folder for inputs")
	only := flag.String("only", "", "only what matches this `expression`: encoder, program, readers, uploads, or the name of a conversion or an upload")
	flag.Parse()
	if err := run(*from, *mib<<20, *pairs, *dir, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(from string, size int64, pairs int, dir, only string) error {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	packed := filepath.Join(dir, fmt.Sprintf("files-%d.raw", size))
	if err := pack(packed, from, size); err != nil {
		return err
	}
	program, disk := filepath.Join(dir, "imgferry"), filepath.Join(dir, "disk.raw")
	if out, err := exec.Command("go", "build", "-o", program, "./cmd/imgferry").CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %v: %s", err, out)
	}
	if err := spread(disk, packed, 10<<30); err != nil {
		return err
	}
	fmt.Printf("%s %s/%s, %d CPUs; %d MiB of files from %s\n", runtime.Version(), runtime.GOOS, runtime.GOARCH,
		runtime.GOMAXPROCS(0), size>>20, from)
	for _, part := range []struct {
		name    string
		measure func() error
	}{
		{"encoder", func() error { return encoder(packed, pairs) }},
		{"program", func() error { return programs(dir, disk, program, 3) }},
		{"", func() error { return rivals(dir, packed, disk, program, pairs, wanted) }}, // each has a name
		{"readers", func() error { return readers(dir, disk, program, pairs) }},
		{"", func() error { return uploads(dir, packed, disk, program, pairs, wanted) }},
	} {
		if part.name != "" && !wanted.MatchString(part.name) {
			continue
		}
		if err := part.measure(); err != nil {
			return err
		}
	}
	return nil
}

// encoder compares converting to ZVHD2 with encoding the same blocks in memory.
func encoder(disk string, pairs int) error {
	data, err := os.ReadFile(disk)
	if err != nil {
		return err
	}
	fmt.Printf("\n%-38s %8s %8s %9s %9s %6s %s\n", "A (bare zstd.EncodeAll) against B", "A MB/s", "B MB/s", "A cpu s", "B cpu s", "speed", "discarded")
	bare := func() error { return encodeAll(data) }
	for _, c := range []struct {
		name   string
		digest bool
	}{{"raw -> zvhd2", false}, {"raw -> zvhd2 with digest", true}} {
		a, b, lost, err := compare(pairs, bare, func() error { return engine(disk, c.digest) })
		if err != nil {
			return err
		}
		printPairs(c.name, int64(len(data)), a, b, lost)
	}
	return nil
}

// printPairs prints the speeds of A and B over n bytes, their CPU seconds, and how many times as fast
// as A B is.
func printPairs(name string, n int64, as, bs []sample, lost int) {
	ratios := make([]float64, len(as))
	for i := range as {
		ratios[i] = as[i].wall.Seconds() / bs[i].wall.Seconds()
	}
	rate := func(s []sample) float64 { return float64(n) / 1e6 / median(walls(s)) }
	fmt.Printf("%-38s %8.0f %8.0f %9.2f %9.2f %5.0f%% %d\n", name, rate(as), rate(bs), median(cpus(as)), median(cpus(bs)), 100*median(ratios), lost)
}

// pack fills a file with the regular files below from, one behind the other, until it has size
// bytes. It is made once.
func pack(name, from string, size int64) error {
	if st, err := os.Stat(name); err == nil && st.Size() == size {
		return nil
	}
	out, err := os.Create(name)
	if err != nil {
		return err
	}
	defer out.Close()
	left := size
	err = filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // what can't be read is left out
		}
		f, err := os.Open(path)
		if err != nil {
			return nil
		}
		defer f.Close()
		n, err := io.CopyN(out, f, left)
		if left -= n; left == 0 {
			return fs.SkipAll
		}
		if err != nil && err != io.EOF {
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	if left > 0 {
		return fmt.Errorf("%s has only %d MiB of files: use -mib", from, (size-left)>>20)
	}
	return out.Close()
}

// encodeAll is the limit of the primitive: as many goroutines as the engine uses, each with its
// own encoder, over blocks that are in memory.
func encodeAll(data []byte) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range convert.DefaultWorkers(convert.DefaultMemory) {
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
		if err != nil {
			return err
		}
		wg.Go(func() {
			var dst []byte
			for {
				off := (next.Add(1) - 1) * convert.BlockSize
				if off >= int64(len(data)) {
					return
				}
				dst = enc.EncodeAll(data[off:min(off+convert.BlockSize, int64(len(data)))], dst[:0])
			}
		})
	}
	wg.Wait()
	return nil
}

// engine converts the disk to nowhere.
func engine(disk string, digest bool) error {
	ctx := context.Background()
	src, err := source.Open(disk)
	if err != nil {
		return err
	}
	img, err := raw.Format().Open(ctx, src, nil)
	if err != nil {
		src.Close()
		return err
	}
	defer img.Close()
	w, err := zvhd2.NewWriter(io.Discard, zvhd2.Options{OrigSize: img.Size()})
	if err != nil {
		return err
	}
	_, err = convert.Stream(ctx, img, w, convert.Options{Digest: digest})
	return err
}

// sample is one run: wall time, and user and system CPU seconds.
type sample struct {
	wall time.Duration
	cpu  float64
}

func (s sample) parallel() float64 { return s.cpu / s.wall.Seconds() }

// minShare is the share of a side's best parallelism below which a run doesn't count: the machine
// then gave two threads one core.
const minShare = 0.7

// compare measures two functions of this process in turn.
func compare(pairs int, a, b func() error) (as, bs []sample, discarded int, err error) {
	return inTurn(pairs, func() (sample, error) { return measure(a) }, func() (sample, error) { return measure(b) })
}

// inTurn runs pairs until enough of them count, and at most three times as many.
func inTurn(pairs int, a, b func() (sample, error)) (as, bs []sample, discarded int, err error) {
	var alla, allb []sample
	for range 3 * pairs {
		for _, side := range []struct {
			f  func() (sample, error)
			to *[]sample
		}{{a, &alla}, {b, &allb}} {
			s, err := side.f()
			if err != nil {
				return nil, nil, 0, err
			}
			*side.to = append(*side.to, s)
		}
		besta, bestb := best(alla), best(allb)
		as, bs = nil, nil
		for i := range alla {
			if alla[i].parallel() >= minShare*besta && allb[i].parallel() >= minShare*bestb {
				as, bs = append(as, alla[i]), append(bs, allb[i])
			}
		}
		if len(as) >= pairs {
			break
		}
	}
	return as, bs, len(alla) - len(as), nil
}

func measure(f func() error) (sample, error) {
	runtime.GC()
	before, start := cpuTime(), time.Now()
	err := f()
	return sample{time.Since(start), cpuTime() - before}, err
}

// cpuTime is the user and system seconds of this process so far.
func cpuTime() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}

func best(s []sample) float64 {
	var m float64
	for _, x := range s {
		m = max(m, x.parallel())
	}
	return m
}

func walls(s []sample) []float64 {
	var v []float64
	for _, x := range s {
		v = append(v, x.wall.Seconds())
	}
	return v
}

func cpus(s []sample) []float64 {
	var v []float64
	for _, x := range s {
		v = append(v, x.cpu)
	}
	return v
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
