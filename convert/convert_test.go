package convert_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"imgferry/convert"
	"imgferry/formats"
)

// disk is an image in memory: pieces of data in zeros.
type disk struct {
	size       int64
	pieces     map[int64][]byte // by offset, none crosses another
	sequential bool
	readErr    error         // what a read at errAt or beyond returns
	errAt      int64         //
	extentErr  error         // what Extents ends with
	gate       chan struct{} // if not nil, each read waits for it or for ctx
	ctx        context.Context
	readers    atomic.Int32
	most       atomic.Int32
	reads      atomic.Int64
}

func (d *disk) Size() int64      { return d.size }
func (d *disk) Sequential() bool { return d.sequential }
func (d *disk) Close() error     { return nil }

func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	n := d.readers.Add(1)
	defer d.readers.Add(-1)
	for m := d.most.Load(); n > m && !d.most.CompareAndSwap(m, n); m = d.most.Load() {
	}
	d.reads.Add(1)
	if d.gate != nil {
		select {
		case <-d.gate:
		case <-d.ctx.Done():
			return 0, context.Cause(d.ctx)
		}
	}
	if d.readErr != nil && off >= d.errAt {
		return 0, d.readErr
	}
	clear(p)
	for at, b := range d.pieces {
		if at < off+int64(len(p)) && at+int64(len(b)) > off {
			if at >= off {
				copy(p[at-off:], b)
			} else {
				copy(p, b[off-at:])
			}
		}
	}
	if off+int64(len(p)) > d.size {
		return int(d.size - off), io.EOF
	}
	return len(p), nil
}

// Extents says data for every 64 KiB that a piece touches, zero for the rest.
func (d *disk) Extents(ctx context.Context) iter.Seq2[formats.Extent, error] {
	return func(yield func(formats.Extent, error) bool) {
		const unit = 64 << 10
		touched := map[int64]bool{}
		for at, b := range d.pieces {
			for u := at / unit; u <= (at+int64(len(b))-1)/unit; u++ {
				touched[u] = true
			}
		}
		zeroFrom := int64(0)
		for _, u := range slices.Sorted(maps.Keys(touched)) {
			if u*unit >= d.size {
				break
			}
			if u*unit > zeroFrom && !yield(formats.Extent{Offset: zeroFrom, Length: u*unit - zeroFrom, Zero: true, HostOffset: -1}, nil) {
				return
			}
			zeroFrom = min(d.size, (u+1)*unit)
			if !yield(formats.Extent{Offset: u * unit, Length: zeroFrom - u*unit}, nil) {
				return
			}
		}
		if d.extentErr != nil {
			yield(formats.Extent{}, d.extentErr)
			return
		}
		if zeroFrom < d.size {
			yield(formats.Extent{Offset: zeroFrom, Length: d.size - zeroFrom, Zero: true, HostOffset: -1}, nil)
		}
	}
}

// plain is a Writer that stores blocks as they are, behind their number, and a trailer.
type plain struct {
	bytes.Buffer
	last     int64
	failAt   int64
	closed   bool
	encodeFn func(index int64)
}

func (p *plain) BlockSize() int      { return convert.BlockSize }
func (p *plain) MaxEncodedSize() int { return convert.BlockSize + 8 }

func (p *plain) Encode(dst []byte, index int64, block []byte) ([]byte, error) {
	if p.encodeFn != nil {
		p.encodeFn(index)
	}
	return append(binary.BigEndian.AppendUint64(dst, uint64(index)), block...), nil
}

func (p *plain) WriteBlock(index int64, encoded []byte) error {
	if index <= p.last {
		return fmt.Errorf("block %d after %d", index, p.last)
	}
	if p.failAt > 0 && index >= p.failAt {
		return errFull
	}
	p.last = index
	_, err := p.Write(encoded)
	return err
}

func (p *plain) Close() error { p.closed = true; return nil }

var (
	errFull   = errors.New("target full")
	errBroken = errors.New("bad sector")
)

func newPlain() *plain { return &plain{last: -1} }

// sample has data in blocks 0, 1 (one byte), 3 (the data is zeros), 20 to 29 and the last, partial.
func sample() *disk {
	r := rand.New(rand.NewPCG(1, 2))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32()) | 1
		}
		return b
	}
	d := &disk{size: 31*convert.BlockSize + 513, pieces: map[int64][]byte{
		0:                                 random(1000),
		2*convert.BlockSize - 1:           {7},
		3*convert.BlockSize + 100:         make([]byte, 5000),
		20 * convert.BlockSize:            random(100_000),
		31*convert.BlockSize + 513 - 7:    []byte("the end"),
		30*convert.BlockSize - 4096*3 - 1: random(9000),
	}}
	for i := range int64(9) {
		d.pieces[(21+i)*convert.BlockSize+4096] = random(3000)
	}
	return d
}

func (d *disk) bytes() []byte {
	b := make([]byte, d.size)
	for at, p := range d.pieces {
		copy(b[at:], p)
	}
	return b
}

// want is what plain must hold for d.
func want(d *disk) []byte {
	raw := d.bytes()
	raw = append(raw, make([]byte, (convert.BlockSize-len(raw)%convert.BlockSize)%convert.BlockSize)...)
	var out []byte
	for i := 0; i*convert.BlockSize < len(raw); i++ {
		b := raw[i*convert.BlockSize : (i+1)*convert.BlockSize]
		if len(bytes.Trim(b, "\x00")) > 0 {
			out = append(binary.BigEndian.AppendUint64(out, uint64(i)), b...)
		}
	}
	return out
}

func ExampleStream() {
	img := &disk{size: 1 << 30, pieces: map[int64][]byte{512 << 20: []byte("a gigabyte of almost nothing")}}
	w := newPlain() // any target: formats/zvhd2 has one
	r, err := convert.Stream(context.Background(), img, w, convert.Options{Digest: true})
	fmt.Println(r.Blocks.Count(), "of", r.Blocks.Len(), "blocks stored,", r.Read, "bytes read,", err)
	fmt.Println(r.Digest)
	// Output:
	// 1 of 512 blocks stored, 2097152 bytes read, <nil>
	// N8wB9-85tmagQy8ggrO2JjZ_AVAsAYuvYVSJpUrZBe8
}

func TestStream(t *testing.T) {
	for _, workers := range []int{1, 2, 3, 16} {
		for _, sequential := range []bool{false, true} {
			d := sample()
			d.sequential = sequential
			w := newPlain()
			var p convert.Progress
			r, err := convert.Stream(t.Context(), d, w, convert.Options{Workers: workers, Digest: true, Progress: &p})
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(w.Bytes(), want(d)) || !w.closed {
				t.Errorf("%d workers: the target differs", workers)
			}
			if sequential && d.most.Load() > 1 {
				t.Errorf("%d goroutines read a sequential image", d.most.Load())
			}
			// 14 blocks are candidates, block 3 turns out to be zero.
			if n := r.Blocks.Count(); n != 13 || r.Blocks.Get(3) || !r.Blocks.Get(31) {
				t.Errorf("%d blocks stored", n)
			}
			if r.Read != 13*convert.BlockSize+513 || p.Read.Load() != 14*convert.BlockSize || p.Stored.Load() != 13 {
				t.Errorf("read %d, progress %d, %d stored", r.Read, p.Read.Load(), p.Stored.Load())
			}
			scan, err := convert.Scan(t.Context(), d, convert.Options{Digest: true})
			if err != nil || scan.Digest != r.Digest || !bytes.Equal(scan.Blocks.Append(nil), r.Blocks.Append(nil)) {
				t.Errorf("scan differs: %v", err)
			}
		}
	}
}

// TestHashes compares the hashes, of blocks that are hashed together as they come, with those of one after the other:
// with a slot for many blocks and for few, and whatever counts as empty.
func TestHashes(t *testing.T) {
	type block struct {
		index int64
		sum   [sha256.Size]byte
	}
	var expected []block
	summer := convert.NewSummer()
	for b := want(sample()); len(b) > 0; b = b[8+convert.BlockSize:] {
		x := block{int64(binary.BigEndian.Uint64(b)), sha256.Sum256(b[8:][:convert.BlockSize])}
		expected = append(expected, x)
		summer.Add(x.index, x.sum)
	}
	for _, c := range []struct {
		workers    int
		memory     int64
		sequential bool
		sparse     convert.Sparse
	}{
		{1, 1, false, convert.SparseZeros},
		{2, 0, false, convert.SparseZeros},
		{2, 0, true, convert.SparseHoles},
		{5, 0, false, convert.SparseNone},
		{5, 1, true, convert.SparseZeros},
	} {
		d := sample()
		d.sequential = c.sequential
		for name, run := range map[string]func(convert.Options) (convert.Result, error){
			"stream": func(o convert.Options) (convert.Result, error) { return convert.Stream(t.Context(), d, newPlain(), o) },
			"scan":   func(o convert.Options) (convert.Result, error) { return convert.Scan(t.Context(), d, o) },
			"raw":    func(o convert.Options) (convert.Result, error) { return convert.Raw(t.Context(), d, new(plainFile), o) },
			"device": func(o convert.Options) (convert.Result, error) {
				return convert.Raw(t.Context(), d, &oldDevice{recorder{make([]byte, d.size)}}, o)
			},
			"pipe": func(o convert.Options) (convert.Result, error) {
				return convert.RawStream(t.Context(), d, io.Discard, o)
			},
		} {
			var found []block
			r, err := run(convert.Options{Workers: c.workers, Memory: c.memory, Sparse: c.sparse, Digest: true,
				Sum: func(index int64, sum [sha256.Size]byte) { found = append(found, block{index, sum}) }})
			if err != nil || r.Digest != summer.Digest() || !slices.Equal(found, expected) {
				t.Errorf("%s, %+v: %d blocks, digest %v (%v)", name, c, len(found), r.Digest, err)
			}
		}
	}
}

func TestRaw(t *testing.T) {
	for _, sequential := range []bool{false, true} {
		d := sample()
		d.sequential = sequential
		name := filepath.Join(t.TempDir(), "disk.raw")
		f, err := convert.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Discard()
		r, err := convert.Raw(t.Context(), d, f, convert.Options{Digest: true, Workers: 3})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(name); err == nil {
			t.Fatal("the file has its name before Commit")
		}
		if err := f.Commit(); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(name)
		if err != nil || !bytes.Equal(got, d.bytes()) {
			t.Fatalf("content differs: %v", err)
		}
		scan, err := convert.Scan(t.Context(), d, convert.Options{Digest: true})
		if err != nil || scan.Digest != r.Digest || r.Blocks.Count() != 13 {
			t.Errorf("digest %v, scan's %v, %v", r.Digest, scan.Digest, err)
		}
	}
}

// The three disks of the digest's definition, from the recipes of their images.
func TestDigestVectors(t *testing.T) {
	for _, c := range []struct {
		name   string
		size   int64
		pieces map[int64][]byte
		want   string
	}{
		{"allzero", 10 << 20, nil, "BCj3htRMSNOXHgus1QJSY3lHW-e6j4m-jJg9CvO26VQ"},
		{"odd5m512", 5243392, map[int64][]byte{0: lcg(11, 10000), 4195304: repeat("abc", 50000), 5242880: bytes.Repeat([]byte{0xa5}, 512)},
			"4jJrJH3uSSyip27gRXQl4lqpBFuq3gFUApmPWMT_It8"},
		{"sparse3g", 3 << 30, map[int64][]byte{
			0: lcg(1, 440), 1048576: repeat("zvhd golden block 0\n", 1024),
			2097152:    repeat("The quick brown fox jumps over the lazy dog. ", 65536),
			1073737728: bytes.Repeat([]byte{0xff}, 4096), 1073741824: lcg(2, 4096),
			2147483647: []byte("XY"), 3221224960: bytes.Repeat([]byte{0xee}, 512)},
			"O7jtUl4pcqmcSma6LeDEuBeDMuMBHPzKLfpQJMsNCPI"},
	} {
		r, err := convert.Scan(t.Context(), &disk{size: c.size, pieces: c.pieces}, convert.Options{Digest: true})
		if err != nil || r.Digest.String() != c.want {
			t.Errorf("%s: %v, want %s (%v)", c.name, r.Digest, c.want, err)
		}
		if d, err := convert.ParseDigest(c.want); err != nil || d != r.Digest {
			t.Errorf("%s: parsed %v, %v", c.name, d, err)
		}
	}
	if _, err := convert.ParseDigest("BCj3"); err == nil {
		t.Error("a short digest was parsed")
	}
}

func lcg(seed uint64, n int) []byte {
	var b []byte
	for x := seed; len(b) < n; {
		x = x*6364136223846793005 + 1442695040888963407
		z := x
		z ^= z >> 33
		z *= 0xff51afd7ed558ccd
		z ^= z >> 33
		b = binary.LittleEndian.AppendUint64(b, z)
	}
	return b[:n]
}

func repeat(s string, n int) []byte {
	return bytes.Repeat([]byte(s), n/len(s)+1)[:n]
}

func TestErrors(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*disk, *plain)
		want   error
	}{
		"read":    {func(d *disk, _ *plain) { d.readErr, d.errAt = errBroken, 25*convert.BlockSize }, errBroken},
		"short":   {func(d *disk, _ *plain) { d.readErr = io.EOF }, io.ErrUnexpectedEOF},
		"extents": {func(d *disk, _ *plain) { d.extentErr = errBroken }, errBroken},
		"write":   {func(_ *disk, w *plain) { w.failAt = 22 }, errFull},
	} {
		for _, sequential := range []bool{false, true} {
			d, w := sample(), newPlain()
			d.sequential = sequential
			c.change(d, w)
			before := runtime.NumGoroutine()
			if _, err := convert.Stream(t.Context(), d, w, convert.Options{Workers: 4}); !errors.Is(err, c.want) {
				t.Errorf("%s: %v", name, err)
			}
			if w.closed {
				t.Errorf("%s: the trailer was written", name)
			}
			noneLeft(t, before)
		}
	}
}

// noneLeft waits until no more goroutines run than before: one that was waited for may still be on
// its last instruction.
func noneLeft(t *testing.T, before int) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines left", runtime.NumGoroutine()-before)
		}
		runtime.Gosched()
	}
}

// Whatever a cancelled run was doing, it ends with the caller's reason and leaves nobody behind.
func TestCancel(t *testing.T) {
	stop := errors.New("enough")
	for _, sequential := range []bool{false, true} {
		for after := range int64(8) {
			ctx, cancel := context.WithCancelCause(t.Context())
			d, w := sample(), newPlain()
			d.sequential, d.ctx, d.gate = sequential, ctx, make(chan struct{}, 100)
			for range after {
				d.gate <- struct{}{}
			}
			before := runtime.NumGoroutine()
			done := make(chan error)
			go func() {
				_, err := convert.Stream(ctx, d, w, convert.Options{Workers: 3})
				done <- err
			}()
			for d.reads.Load() <= after {
				runtime.Gosched()
			}
			cancel(stop)
			select {
			case err := <-done:
				if !errors.Is(err, stop) {
					t.Errorf("ended with %v", err)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("still running after the cancel")
			}
			noneLeft(t, before)
			if w.closed {
				t.Error("the trailer was written")
			}
		}
	}
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "a.raw")
	if err := os.WriteFile(name, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := convert.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(f, "new")
	f.Discard()
	if b, _ := os.ReadFile(name); string(b) != "old" {
		t.Errorf("after Discard: %q", b)
	}
	if es, _ := os.ReadDir(dir); len(es) != 1 {
		t.Errorf("left behind: %v", es)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(name, link); err == nil {
		if f, err = convert.Create(link); err != nil {
			t.Fatal(err)
		}
		io.WriteString(f, "new")
		if err := f.Commit(); err != nil {
			t.Fatal(err)
		}
		f.Discard()
		if b, _ := os.ReadFile(name); string(b) != "new" {
			t.Errorf("through a link: %q", b)
		}
		if st, _ := os.Lstat(link); st.Mode()&os.ModeSymlink == 0 {
			t.Error("the link was replaced")
		}
		if st, _ := os.Stat(name); runtime.GOOS != "windows" && st.Mode().Perm() != 0o600 {
			t.Errorf("a private file became %v", st.Mode())
		}
		dangling := filepath.Join(dir, "dangling")
		os.Symlink("nowhere", dangling)
		if f, err := convert.Create(dangling); err == nil {
			f.Discard()
			t.Error("a link to nothing was accepted")
		}
	}
	if f, err := convert.Create(filepath.Join(dir, strings.Repeat("n", 255))); err != nil {
		t.Errorf("a long name: %v", err)
	} else {
		f.Discard()
	}
	for _, bad := range []string{dir, os.DevNull, filepath.Join(dir, "none", "a")} {
		if f, err := convert.Create(bad); err == nil {
			f.Discard()
			t.Errorf("%s was accepted", bad)
		}
	}
}

func TestFirstBlock(t *testing.T) {
	d := &disk{size: 100 << 20, pieces: map[int64][]byte{0: make([]byte, 10), 9<<20 + 5: {1}}}
	i, got, err := convert.FirstBlock(t.Context(), d)
	want := make([]byte, convert.BlockSize)
	want[1<<20+5] = 1
	if i != 4 || err != nil || !bytes.Equal(got, want) {
		t.Errorf("block %d, %v", i, err)
	}
	if _, block, err := convert.FirstBlock(t.Context(), &disk{size: 1 << 20}); block != nil || err != nil {
		t.Errorf("a disk of zeros: %v", err)
	}
}

func TestDefaultWorkers(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(64))
	for memory, want := range map[int64]int{0: 1, 20 << 20: 1, 64 << 20: 4, convert.DefaultMemory: 9, 1 << 40: 16} {
		if n := convert.DefaultWorkers(memory); n != want {
			t.Errorf("%d MiB: %d workers, want %d", memory>>20, n, want)
		}
	}
	runtime.GOMAXPROCS(2)
	if n := convert.DefaultWorkers(1 << 40); n != 2 {
		t.Errorf("%d workers on 2 CPUs", n)
	}
}

// A header can claim any size; nothing is allocated or written for it.
func TestMaxSize(t *testing.T) {
	for _, size := range []int64{convert.MaxSize + 1, 1<<63 - 1} {
		d := &disk{size: size}
		f := &plainFile{}
		_, stream := convert.Stream(t.Context(), d, newPlain(), convert.Options{})
		_, scan := convert.Scan(t.Context(), d, convert.Options{})
		_, raw := convert.Raw(t.Context(), d, f, convert.Options{})
		_, count := convert.Count(t.Context(), d)
		for name, err := range map[string]error{"Stream": stream, "Scan": scan, "Raw": raw, "Count": count} {
			if !errors.Is(err, formats.ErrUnsupported) {
				t.Errorf("%s of %d bytes: %v", name, size, err)
			}
		}
		if f.size != 0 {
			t.Errorf("the target was made %d bytes long", f.size)
		}
	}
}

type plainFile struct{ size int64 }

func (f *plainFile) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (f *plainFile) Truncate(size int64) error              { f.size = size; return nil }
