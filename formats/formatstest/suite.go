// Package formatstest is the suite that every format must pass: what formats.Image and
// formats.Format promise, tested from outside on a list of images.
//
// It is for tests only. It knows nothing of any one format; what a format's own tables can get
// wrong is tested beside that format.
package formatstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"

	"imgferry/formats"
)

// Case is an image and what it must read as.
type Case struct {
	Name string
	// Image holds the bytes of the image file. If it is nil, Path is read into memory.
	Image []byte
	Path  string
	// Size is the expected virtual size in bytes, at least 1.
	Size int64
	// Content holds the expected guest bytes, at least Size of them: a bytes.Reader, Sparse. nil is
	// all zeros.
	Content io.ReaderAt
	// Resolver opens what the image names; nil refuses. With one, extents of other files are not
	// compared with Image.
	Resolver formats.Resolver
	// Faulty says that Check finds something, although the disk can be read.
	Faulty bool
	// AnyCut says that a shortened image file may be a valid image (raw). Otherwise a cut must be
	// an error or change nothing.
	AnyCut bool
}

// wholeLimit is the size in bytes up to which a disk is read whole, several times over. Of a larger
// one, the data runs and the edges of all runs are read.
const wholeLimit = 64 << 20

// Run tests f with each case as a subtest.
func Run(t *testing.T, f formats.Format, cases []Case) {
	if len(cases) == 0 {
		t.Fatal("no cases")
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			if c.Image == nil {
				p, err := os.ReadFile(c.Path)
				if err != nil {
					t.Fatal(err)
				}
				c.Image = p
			}
			s := suite{f, c}
			for _, sub := range []struct {
				name string
				run  func(*testing.T)
			}{
				{"info", s.info}, {"content", s.content}, {"edges", s.edges}, {"extents", s.extents},
				{"concurrent", s.concurrent}, {"cancel", s.cancel}, {"close", s.close}, {"close during reads", s.closeDuringReads},
				{"ownership", s.ownership}, {"broken source", s.brokenSource}, {"cut", s.cut}, {"check", s.check},
			} {
				t.Run(sub.name, sub.run)
			}
		})
	}
}

type suite struct {
	f formats.Format
	c Case
}

func (s suite) open(t *testing.T) formats.Image {
	t.Helper()
	img, err := s.f.Open(context.Background(), NewSource(s.c.Image), s.c.Resolver)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { img.Close() })
	if img.Size() != s.c.Size {
		t.Fatalf("size %d, want %d", img.Size(), s.c.Size)
	}
	return img
}

func (s suite) info(t *testing.T) {
	src := &memory{p: s.c.Image}
	if ok, err := s.f.Probe(src); !ok || err != nil {
		t.Errorf("probe: %v, %v", ok, err)
	}
	in, err := s.f.Info(context.Background(), src)
	if err != nil {
		t.Fatalf("info: %v", err)
	}
	if in.Format != s.f.Name || in.VirtualSize != s.c.Size || in.Problem != nil {
		t.Errorf("info says %q, %d bytes, problem %v; want %q, %d bytes", in.Format, in.VirtualSize, in.Problem, s.f.Name, s.c.Size)
	}
	if src.closes.Load() != 0 {
		t.Error("info closed the source")
	}
	for _, p := range [][]byte{nil, s.c.Image[:min(1, len(s.c.Image))], make([]byte, 1<<20)} {
		if _, err := s.f.Probe(NewSource(p)); err != nil {
			t.Errorf("probe of %d other bytes: %v", len(p), err)
		}
	}
}

// readable returns the runs of the disk that the suite reads: all of a small disk, of a large one
// the data and a little of both ends of every zero run.
func (s suite) readable(t *testing.T, img formats.Image) [][2]int64 {
	if s.c.Size <= wholeLimit {
		return [][2]int64{{0, s.c.Size}}
	}
	const edge = 70_000
	var runs [][2]int64
	for e, err := range img.Extents(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		if end := e.Offset + e.Length; e.Zero && e.Length > 2*edge {
			runs = append(runs, [2]int64{e.Offset, e.Offset + edge}, [2]int64{end - edge, end})
		} else {
			runs = append(runs, [2]int64{e.Offset, end})
		}
	}
	return runs
}

// content reads in steps of several sizes, most of which straddle every boundary there is.
func (s suite) content(t *testing.T) {
	img := s.open(t)
	steps := []int64{100_003, 2 << 20, 7_654_321}
	if s.c.Size <= 2<<20 { // small steps take long, and find what they find on small disks
		steps = append(steps, 511, 4097, 65536)
	}
	for _, step := range steps {
		// Dirty bytes: whoever forgets to write zeros is found out.
		step = min(step, s.c.Size)
		p, dirty, want := make([]byte, step), bytes.Repeat([]byte{0xdb}, int(step)), make([]byte, step)
		for _, r := range s.readable(t, img) {
			for off := r[0]; off < r[1]; off += step {
				q := p[:min(step, r[1]-off)]
				copy(q, dirty)
				n, err := img.ReadAt(q, off)
				if n != len(q) || err != nil && !(err == io.EOF && off+int64(n) == s.c.Size) {
					t.Fatalf("%d bytes at %d: %d, %v", len(q), off, n, err)
				}
				want := want[:n]
				if s.c.fill(want, off); !bytes.Equal(q, want) {
					t.Fatalf("steps of %d: byte %d differs", step, off+diff(q, want))
				}
			}
		}
	}
}

// diff returns the index of the first byte in which a and b, of equal length, differ.
func diff(a, b []byte) int64 {
	for i := range a {
		if a[i] != b[i] {
			return int64(i)
		}
	}
	return int64(len(a))
}

// edges reads around the end and before the start.
func (s suite) edges(t *testing.T) {
	img := s.open(t)
	size := s.c.Size
	// One buffer with a guard behind it: a reader may not touch what lies beyond len(p), even if
	// the capacity reaches there.
	const guard = 64
	for _, off := range []int64{0, size - 4096, size - 513, size - 1, size, size + 1, 1<<63 - 1} {
		for _, n := range []int64{0, 1, 512, 4096, 65536, 65537} {
			if off < 0 {
				continue
			}
			buf := bytes.Repeat([]byte{0xdb}, int(n)+guard)
			got, err := img.ReadAt(buf[:n], off)
			want := max(min(n, size-off), 0)
			if int64(got) != want {
				t.Errorf("%d bytes at %d of %d: got %d, %v", n, off, size, got, err)
				continue
			}
			switch {
			case want < n && err != io.EOF:
				t.Errorf("%d bytes at %d of %d: %v, want io.EOF", n, off, size, err)
			case want == n && n > 0 && err != nil && !(err == io.EOF && off+n == size):
				t.Errorf("%d bytes at %d of %d: %v", n, off, size, err)
			}
			if want > 0 && !bytes.Equal(buf[:want], s.c.expect(off, want)) {
				t.Errorf("%d bytes at %d of %d differ", n, off, size)
			}
			if !bytes.Equal(buf[n:], bytes.Repeat([]byte{0xdb}, guard)) {
				t.Errorf("%d bytes at %d of %d: written beyond the buffer", n, off, size)
			}
		}
	}
	for _, off := range []int64{-1, -4096, -1 << 63} {
		if n, err := img.ReadAt(make([]byte, 512), off); n != 0 || err == nil || err == io.EOF {
			t.Errorf("read at %d: %d, %v", off, n, err)
		}
	}
}

// extents must cover the disk in order, and tell no lies about zeros and host offsets.
func (s suite) extents(t *testing.T) {
	img := s.open(t)
	var pos int64
	for e, err := range img.Extents(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Offset != pos || e.Length <= 0 || e.Length > s.c.Size-pos {
			t.Fatalf("run of %d bytes at %d of %d, expected one at %d", e.Length, e.Offset, s.c.Size, pos)
		}
		pos += e.Length
		if (e.Zero || e.Compressed) && e.HostOffset != -1 || e.Zero && e.Compressed || e.HostOffset < -1 || e.Unit < 0 || e.Unit > 0 && !e.Compressed || e.Absent && !e.Zero {
			t.Errorf("contradiction: %+v", e)
		}
		// Long runs are looked at in their first and last MiB.
		const look = 1 << 20
		for _, r := range [][2]int64{{0, min(e.Length, look)}, {max(0, e.Length-look), e.Length}} {
			want := s.c.expect(e.Offset+r[0], r[1]-r[0])
			if e.Zero && !bytes.Equal(want, make([]byte, len(want))) {
				t.Errorf("%+v is not zero", e)
			}
			if e.HostOffset >= 0 && e.File == "" {
				got := s.c.Image[min(e.HostOffset+r[0], int64(len(s.c.Image))):]
				if len(got) < len(want) || !bytes.Equal(got[:len(want)], want) {
					t.Errorf("%+v does not lie there", e)
				}
			}
		}
	}
	if pos != s.c.Size {
		t.Errorf("runs cover %d bytes of %d", pos, s.c.Size)
	}
	for range img.Extents(context.Background()) {
		break // stopping early must be harmless
	}
}

// concurrent reads at random places from many goroutines, while one walks the extents.
func (s suite) concurrent(t *testing.T) {
	img := s.open(t)
	runs := s.readable(t, img)
	var wg sync.WaitGroup
	for g := range uint64(4) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(g, 1))
			for range 15 {
				run := runs[r.IntN(len(runs))]
				off := run[0] + r.Int64N(run[1]-run[0])
				p := make([]byte, min(1+r.Int64N(300_000), run[1]-off))
				if n, err := img.ReadAt(p, off); n != len(p) || err != nil && err != io.EOF {
					t.Errorf("%d bytes at %d: %d, %v", len(p), off, n, err)
				} else if !bytes.Equal(p, s.c.expect(off, int64(len(p)))) {
					t.Errorf("%d bytes at %d differ", len(p), off)
				}
			}
		})
	}
	wg.Go(func() {
		for _, err := range img.Extents(context.Background()) {
			if err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
}

// cancel ends the contexts of Extents and of Open.
func (s suite) cancel(t *testing.T) {
	done, cancel := context.WithCancel(context.Background())
	cancel()
	img := s.open(t)
	expectOneError(t, img.Extents, done, context.Canceled)
	if _, err := img.ReadAt(make([]byte, 1), 0); err != nil && err != io.EOF {
		t.Errorf("the end of a walk ended reads: %v", err)
	}

	src := &memory{p: s.c.Image}
	if img, err := s.f.Open(done, src, s.c.Resolver); err == nil {
		img.Close()
		t.Error("opened with a context that had ended")
	} else if !errors.Is(err, context.Canceled) || src.closes.Load() != 0 {
		t.Errorf("open with an ended context: %v, %d closes", err, src.closes.Load())
	}

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	img, err := s.f.Open(ctx, NewSource(s.c.Image), s.c.Resolver)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	cancel()
	if _, err := img.ReadAt(make([]byte, 1), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("read after the context of Open ended: %v", err)
	}
	expectOneError(t, img.Extents, context.Background(), context.Canceled)
}

func (s suite) close(t *testing.T) {
	img := s.open(t)
	if err := img.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := img.ReadAt(make([]byte, 512), 0); n != 0 || !errors.Is(err, os.ErrClosed) {
		t.Errorf("read after close: %d, %v", n, err)
	}
	expectOneError(t, img.Extents, context.Background(), os.ErrClosed)
	if img.Size() != s.c.Size {
		t.Errorf("size after close: %d", img.Size())
	}
}

// closeDuringReads: whoever is reading gets right bytes or os.ErrClosed, and is not kept waiting.
func (s suite) closeDuringReads(t *testing.T) {
	img := s.open(t)
	n := min(s.c.Size, 1<<20)
	want := s.c.expect(0, n)
	var reading, done sync.WaitGroup
	for range 3 {
		reading.Add(1)
		done.Go(func() {
			p := make([]byte, n)
			for i := 0; ; i++ {
				_, err := img.ReadAt(p, 0)
				if i == 0 {
					reading.Done()
				}
				runtime.Gosched() // the others need not wait for long
				switch {
				case errors.Is(err, os.ErrClosed):
					return
				case err != nil && err != io.EOF:
					t.Errorf("read while closing: %v", err)
					return
				case !bytes.Equal(p, want):
					t.Error("read while closing: content differs")
					return
				}
			}
		})
	}
	reading.Wait()
	if err := img.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	done.Wait()
}

// ownership: Open keeps the source only if it succeeds, and Close closes it once. Nothing stays
// behind.
func (s suite) ownership(t *testing.T) {
	// Goroutines have the label of the one that started them: other tests may run at once.
	const label = "formatstest.ownership"
	pprof.Do(context.Background(), pprof.Labels(label, t.Name()), func(ctx context.Context) {
		src := &memory{p: s.c.Image}
		img, err := s.f.Open(ctx, src, s.c.Resolver)
		if err != nil {
			t.Fatal(err)
		}
		if src.closes.Load() != 0 {
			t.Error("open closed the source")
		}
		img.Close()
		if n := src.closes.Load(); n != 1 {
			t.Errorf("close closed the source %d times", n)
		}
	})
	var running strings.Builder
	if err := pprof.Lookup("goroutine").WriteTo(&running, 1); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(running.String(), fmt.Sprintf("%q:%q", label, t.Name())) {
		t.Errorf("a goroutine stayed behind:\n%s", running.String())
	}
}

// brokenSource lets each of the first reads fail, then some later ones. Whatever fails then must
// fail with the source's own error: a broken disk is no corrupt image.
func (s suite) brokenSource(t *testing.T) {
	for failAt := int64(1); failAt < 1<<20; failAt += 1 + failAt/4 {
		src := &memory{p: s.c.Image, failAt: failAt}
		img, err := s.f.Open(context.Background(), src, s.c.Resolver)
		if err != nil {
			s.expectDiskError(t, failAt, err)
			if n := src.closes.Load(); n != 0 {
				t.Errorf("a failed open closed the source %d times", n)
			}
			continue
		}
		_, err = s.readAll(img)
		img.Close()
		if err == nil {
			if n := src.reads.Load(); n >= failAt {
				t.Errorf("read %d of %d failed, and nobody noticed", failAt, n)
			}
			return // it takes fewer reads than that
		}
		s.expectDiskError(t, failAt, err)
	}
}

func (s suite) expectDiskError(t *testing.T, failAt int64, err error) {
	t.Helper()
	if !errors.Is(err, errDisk) || formats.BlamesImage(err) {
		t.Errorf("read %d failed: %v (want the source's error)", failAt, err)
	}
}

// readAll walks the extents and reads what is readable, then says whether it is as expected.
func (s suite) readAll(img formats.Image) (same bool, err error) {
	if img.Size() != s.c.Size {
		return false, nil
	}
	var runs []formats.Extent
	for e, err := range img.Extents(context.Background()) {
		if err != nil {
			return false, err
		}
		runs = append(runs, e)
	}
	same = true
	p, want := make([]byte, 256<<10), make([]byte, 256<<10)
	// From the back: that is where what a cut has damaged mostly lies.
	for _, e := range slices.Backward(runs) {
		end := e.Offset + e.Length
		if e.Zero && s.c.Size > wholeLimit {
			end = min(end, e.Offset+int64(len(p)))
		}
		for off := e.Offset; off < end; off += int64(len(p)) {
			q := p[:min(int64(len(p)), end-off)]
			if n, err := img.ReadAt(q, off); n < len(q) {
				if err == nil {
					err = fmt.Errorf("%d bytes at %d: %d without an error", len(q), off, n)
				}
				return false, err
			}
			s.c.fill(want[:len(q)], off)
			same = same && bytes.Equal(q, want[:len(q)])
		}
	}
	return same, nil
}

// cut shortens the image file at many places. None may panic, hang or go unnoticed.
func (s suite) cut(t *testing.T) {
	n := len(s.c.Image)
	at := map[int]bool{}
	for _, k := range []int{0, 1, 4, 8, 72, 104, 511, 512, 4095, 4096, 4097} {
		at[k], at[n-k] = true, true
	}
	for i := range 16 {
		at[n*i/16] = true
	}
	for k := range at {
		if k < 0 || k >= n {
			continue
		}
		img, err := s.f.Open(context.Background(), NewSource(s.c.Image[:k:k]), s.c.Resolver)
		if err != nil {
			continue
		}
		same, err := s.readAll(img)
		if err == nil && !same && !s.c.AnyCut {
			t.Errorf("cut from %d to %d bytes: other content, and no error", n, k)
		}
		img.Close()
	}
}

// expectOneError walks extents that must fail at once, with want, and then yield nothing more.
func expectOneError(t *testing.T, extents func(context.Context) iter.Seq2[formats.Extent, error], ctx context.Context, want error) {
	t.Helper()
	n := 0
	for _, err := range extents(ctx) {
		n++
		if !errors.Is(err, want) {
			t.Errorf("extents: %v, want %v", err, want)
		}
	}
	if n != 1 {
		t.Errorf("extents yielded %d times, want one error", n)
	}
}

// check finds nothing in a good image, keeps its hands off the source, and tells a broken disk from
// a broken image.
func (s suite) check(t *testing.T) {
	if s.f.Check == nil {
		t.Skip("the format has no structure to check")
	}
	src := &memory{p: s.c.Image}
	found := 0
	checked, err := s.f.Check(context.Background(), src, func(f formats.Finding) {
		if found++; !s.c.Faulty {
			t.Errorf("found %+v", f)
		}
	})
	if err != nil || (found > 0) != s.c.Faulty {
		t.Errorf("%d findings, %v", found, err)
	}
	if c := checked; c.Allocated < 0 || c.Allocated > c.Clusters || c.Compressed > c.Allocated || c.Fragmented > c.Allocated || c.End < 0 {
		t.Errorf("%+v can't be", c)
	}
	if n := src.closes.Load(); n != 0 {
		t.Errorf("closed the source %d times", n)
	}
	quiet := func(formats.Finding) {}
	done, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.f.Check(done, NewSource(s.c.Image), quiet); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that had ended: %v", err)
	}
	for failAt := int64(1); failAt < 1<<20; failAt += 1 + failAt/4 {
		src := &memory{p: s.c.Image, failAt: failAt}
		if _, err := s.f.Check(context.Background(), src, quiet); err == nil {
			if n := src.reads.Load(); n >= failAt {
				t.Errorf("read %d of %d failed, and nobody noticed", failAt, n)
			}
			break
		} else {
			s.expectDiskError(t, failAt, err)
		}
	}
}
