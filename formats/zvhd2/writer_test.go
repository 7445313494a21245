package zvhd2

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"

	"imgferry/bitmap"
	"imgferry/formats"
	"imgferry/formats/hwstream"
)

// disk is a disk's size and the blocks of it that aren't zero.
type disk struct {
	size   int64
	blocks map[int64][]byte
}

// newDisk returns a disk of size bytes with data, each time other, in blocks.
func newDisk(size int64, blocks ...int64) disk {
	d := disk{size, map[int64][]byte{}}
	for _, b := range blocks {
		p := make([]byte, min(BlockSize, size-b*BlockSize))
		copy(p, fmt.Sprintf("block %d of %d", b, size))
		r := rand.New(rand.NewPCG(uint64(b), 1))
		for i := len(p) / 3; i < min(len(p)/2, len(p)/3+20000); i++ {
			p[i] = byte(r.Uint64())
		}
		p[len(p)-1] = 0xe5
		d.blocks[b] = p
	}
	return d
}

// numbers returns the stored blocks in order.
func (d disk) numbers() []int64 {
	var n []int64
	for b := range d.blocks {
		n = append(n, b)
	}
	slices.Sort(n)
	return n
}

// ReadAt reads the disk as its image should be read.
func (d disk) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) && off < d.size {
		m := int(min(int64(len(p)-n), BlockSize-off%BlockSize, d.size-off))
		clear(p[n : n+m])
		if b := d.blocks[off/BlockSize]; off%BlockSize < int64(len(b)) {
			copy(p[n:n+m], b[off%BlockSize:])
		}
		n, off = n+m, off+int64(m)
	}
	if n < len(p) {
		err = io.EOF
	}
	return n, err
}

// writes remembers the length of each Write, and fails the one numbered failAt.
type writes struct {
	bytes.Buffer
	lengths []int
	failAt  int
}

var errDiskFull = errors.New("disk full")

func (w *writes) Write(p []byte) (int, error) {
	if w.failAt > 0 && len(w.lengths)+1 >= w.failAt {
		return 0, errDiskFull
	}
	w.lengths = append(w.lengths, len(p))
	return w.Buffer.Write(p)
}

// writeDisk writes the image of d.
func writeDisk(t testing.TB, w io.Writer, d disk, o Options) *Writer {
	t.Helper()
	o.OrigSize = d.size
	z, err := NewWriter(w, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range d.numbers() {
		p, err := z.Encode(nil, b, d.blocks[b])
		if err != nil {
			t.Fatal(err)
		}
		if err := z.WriteBlock(b, p); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return z
}

func imageOf(t testing.TB, d disk, o Options) []byte {
	var w bytes.Buffer
	writeDisk(t, &w, d, o)
	return w.Bytes()
}

func TestRoundTrip(t *testing.T) {
	const GiB = 1 << 30
	for _, d := range []disk{
		newDisk(1, 0), newDisk(511, 0), newDisk(512, 0), newDisk(513, 0), newDisk(1<<20, 0), newDisk(2<<20, 0),
		newDisk(2<<20+512, 0, 1), newDisk(2<<20+512, 1), newDisk(2<<20+100, 1), newDisk(64<<20, 0, 1, 2, 7, 30, 31),
		newDisk(GiB-512, 0, 511), newDisk(GiB, 1, 511), newDisk(GiB+512, 511, 512), newDisk(20 << 20),
		newDisk(70*GiB+512, 0, 32767, 32768, 35840), newDisk(1 << 40),
	} {
		for _, codec := range []Codec{Zstd, Zlib} {
			t.Run(fmt.Sprintf("%d bytes %d blocks %v", d.size, len(d.blocks), codec), func(t *testing.T) {
				var w writes
				z := writeDisk(t, &w, d, Options{Codec: codec})
				image := w.Bytes()
				if z.Written() != int64(len(image)) {
					t.Errorf("Written %d, %d bytes", z.Written(), len(image))
				}
				tail := TailSize(int64(len(d.blocks)), bitmap.Blocks(d.size))
				chunks := 0
				for _, n := range w.lengths[1 : 1+len(d.blocks)] {
					chunks += n
				}
				if w.lengths[0] != page || int64(page+chunks)+tail != int64(len(image)) {
					t.Errorf("writes of %v bytes, tail of %d", w.lengths, tail)
				}
				if n := slices.Max(w.lengths); n > ChunkBound {
					t.Errorf("write of %d bytes", n)
				}

				rounded := d
				rounded.size = hwstream.RoundUp(d.size, 512)
				im := mustOpen(t, image)
				if im.Size() != rounded.size {
					t.Fatalf("size %d, want %d", im.Size(), rounded.size)
				}
				if got := storedBlocks(t, im); !slices.Equal(got, d.numbers()) {
					t.Fatalf("stored blocks %v, want %v", got, d.numbers())
				}
				compareReads(t, im, rounded)
				if err := Check(context.Background(), inMemory(image), 2, nil); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// compareReads reads around the edges of d's blocks, in whole blocks, parts and runs.
func compareReads(t *testing.T, im formats.Image, d disk) {
	t.Helper()
	edges := []int64{0, d.size}
	for b := range d.blocks {
		edges = append(edges, b*BlockSize, (b+1)*BlockSize)
	}
	got, want := make([]byte, 3*BlockSize), make([]byte, 3*BlockSize)
	for _, edge := range edges {
		for _, delta := range []int64{-BlockSize, -700, 0, 1} {
			for _, n := range []int{1, 4096, 2*BlockSize + 1} {
				off := edge + delta
				if off < 0 {
					continue
				}
				gn, gerr := im.ReadAt(got[:n], off)
				wn, werr := d.ReadAt(want[:n], off)
				if gn != wn || gerr != werr || !bytes.Equal(got[:gn], want[:wn]) {
					t.Fatalf("read of %d at %d: %d, %v; want %d, %v", n, off, gn, gerr, wn, werr)
				}
			}
		}
	}
}

// TestConcurrentReads reads one image from many goroutines, through the cache and around it.
func TestConcurrentReads(t *testing.T) {
	d := newDisk(40<<20, 0, 1, 2, 5, 6, 7, 8, 19)
	im := mustOpen(t, imageOf(t, d, Options{}))
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 2))
			got, want := make([]byte, 3*BlockSize), make([]byte, 3*BlockSize)
			for range 50 {
				n := 1 + r.IntN(len(got)>>(r.IntN(12)))
				off := r.Int64N(d.size)
				gn, gerr := im.ReadAt(got[:n], off)
				wn, werr := d.ReadAt(want[:n], off)
				if gn != wn || gerr != werr || !bytes.Equal(got[:gn], want[:wn]) {
					t.Errorf("read of %d at %d: %d, %v; want %d, %v", n, off, gn, gerr, wn, werr)
				}
			}
		})
	}
	wg.Wait()
}

// TestEncodeIsPure: what comes out depends neither on what went through the encoder before, nor on
// what lies in the destination.
func TestEncodeIsPure(t *testing.T) {
	d := newDisk(10<<20, 0, 1, 2, 3, 4)
	noise := make([]byte, BlockSize)
	r := rand.New(rand.NewPCG(3, 3))
	for i := range noise {
		noise[i] = byte(r.Uint64())
	}
	d.blocks[2] = noise
	for _, o := range []Options{{}, {Level: LevelFastest}, {Level: LevelBetter}, {Level: LevelBest}, {Codec: Zlib}, {Codec: Zlib, Level: LevelBetter}, {Codec: Zlib, Level: LevelBest}} {
		o.OrigSize = d.size
		used, err := NewWriter(io.Discard, o)
		if err != nil {
			t.Fatal(err)
		}
		for round := range 3 {
			for b, block := range d.blocks { // in random order
				fresh, _ := NewWriter(io.Discard, o)
				want, err := fresh.Encode(nil, b, block)
				if err != nil {
					t.Fatal(err)
				}
				dst := bytes.Repeat([]byte{0xdd}, ChunkBound+3)
				got, err := used.Encode(dst[:3], b, block)
				if err != nil || !bytes.Equal(got[3:], want) || &got[0] != &dst[0] {
					t.Fatalf("%s, round %d, block %d: other bytes, or another place (%v)", used.enc.name(), round, b, err)
				}
				if len(want) > used.MaxEncodedSize() || len(want)%page != 0 {
					t.Fatalf("%s: chunk of %d bytes", used.enc.name(), len(want))
				}
			}
		}
	}
}

// TestEncodeStaysPure takes encoders past the point, some 1000 blocks on, where they shift the
// positions in their tables before these overflow. Small blocks get there as fast as large ones.
func TestEncodeStaysPure(t *testing.T) {
	var blocks [][]byte
	for b := range 5 {
		p := make([]byte, 140_000)
		r := rand.New(rand.NewPCG(uint64(b), 4))
		for i := b * 300; i < len(p)-2000; i += 20_000 {
			for j := range 2000 {
				p[i+j] = byte(r.IntN(1 << (1 + j%5)))
			}
		}
		blocks = append(blocks, p)
	}
	for _, e := range []*encoder{{}, {level: LevelFastest}, {codec: Zlib}} {
		var want [][]byte
		for _, b := range blocks {
			p, err := (&encoder{codec: e.codec, level: e.level}).append(nil, b)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, p)
		}
		var dst []byte
		for i := range 1100 {
			var err error
			dst, err = e.append(dst[:0], blocks[i%5])
			if err != nil || !bytes.Equal(dst, want[i%5]) {
				t.Fatalf("%s: block %d comes out other than from a new encoder (%v)", e.name(), i, err)
			}
		}
	}
}

// TestDeterminism: the same disk makes the same file, and what should tell files apart does.
func TestDeterminism(t *testing.T) {
	d := newDisk(8<<20, 1, 3)
	image := imageOf(t, d, Options{})
	if !bytes.Equal(image, imageOf(t, d, Options{})) {
		t.Error("two files of a disk differ")
	}
	first := make([]byte, BlockSize)
	copy(first, d.blocks[1])
	sum := sha256.Sum256(first)
	uuid := func(encoder string, sum []byte) []byte {
		p := binary.BigEndian.AppendUint64([]byte("imgferry zvhd2 v1"), uint64(d.size))
		u := sha256.Sum256(append(append(p, encoder+"\x00"...), sum...))
		u[6], u[8] = 0x80|u[6]&0xf, 0x80|u[8]&0x3f
		return u[:16]
	}
	for name, c := range map[string]struct {
		o    Options
		d    disk
		want []byte
	}{
		"default": {Options{}, d, uuid("zstd default", sum[:])},
		"best":    {Options{Level: LevelBest}, d, uuid("zstd best", sum[:])},
		"zlib":    {Options{Codec: Zlib}, d, uuid("zlib 1", sum[:])},
		"empty":   {Options{}, newDisk(d.size), uuid("zstd default", make([]byte, 32))},
	} {
		if got := imageOf(t, c.d, c.o)[hwstream.OffUUID:][:16]; !bytes.Equal(got, c.want) {
			t.Errorf("%s: UUID %x, want %x", name, got, c.want)
		}
	}
	if ts := parseFooter(image).Timestamp; ts != 0 {
		t.Errorf("timestamp %d", ts)
	}
	if ts := parseFooter(imageOf(t, d, Options{Timestamp: 77})).Timestamp; ts != 77 {
		t.Errorf("timestamp %d, want 77", ts)
	}
}

// payloads returns the payload of each chunk of an image.
func payloads(t *testing.T, image []byte) map[int64][]byte {
	t.Helper()
	_, index, err := load(context.Background(), inMemory(image))
	if err != nil {
		t.Fatal(err)
	}
	out := map[int64][]byte{}
	for k, c := range index[:len(index)-1] {
		p, err := hwstream.Payload(name, image[c.Pos():index[k+1].Pos()], c.Pos(), c.Block)
		if err != nil {
			t.Fatal(err)
		}
		out[int64(c.Block)] = p
	}
	return out
}

// TestZlibIsCut reads our zlib blocks with the standard library, which misses the end of the stream
// exactly behind the block.
func TestZlibIsCut(t *testing.T) {
	d := newDisk(9<<20, 0, 2, 3)
	for b, p := range payloads(t, imageOf(t, d, Options{Codec: Zlib})) {
		if p[0] != 0x78 || p[1] != 0x01 {
			t.Errorf("block %d begins with %x", b, p[:2])
		}
		z, err := zlib.NewReader(bytes.NewReader(p))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(z)
		if err != io.ErrUnexpectedEOF || !bytes.Equal(got, d.blocks[b]) {
			t.Errorf("block %d: %d bytes, %v", b, len(got), err)
		}
	}
}

// TestZstdCommand reads our zstd blocks with the zstd command: complete frames that know their size
// and have no checksum.
func TestZstdCommand(t *testing.T) {
	if _, err := exec.LookPath("zstd"); err != nil {
		if os.Getenv("CI") != "" || os.Getenv("IMGFERRY_REQUIRE_TOOLS") == "1" {
			t.Fatal("the zstd command is missing: apt-get install zstd")
		}
		t.Skip("needs the zstd command: apt-get install zstd")
	}
	d := newDisk(9<<20, 0, 2, 3)
	for level := LevelDefault; level <= LevelBest; level++ {
		for b, p := range payloads(t, imageOf(t, d, Options{Level: level})) {
			cmd := exec.Command("zstd", "-dc")
			cmd.Stdin = bytes.NewReader(p)
			got, err := cmd.Output()
			if err != nil || !bytes.Equal(got, d.blocks[b]) {
				t.Errorf("level %v, block %d: %d bytes, %v", level, b, len(got), err)
			}
			// RFC 8878, 3.1.1.1.1: content size of 4 bytes, single segment, no checksum, no dictionary.
			if p[4] != 0xa0 || binary.LittleEndian.Uint32(p[5:]) != BlockSize {
				t.Errorf("level %v, block %d: frame head %x", level, b, p[:9])
			}
		}
	}
}

func TestWriterRefuses(t *testing.T) {
	for name, o := range map[string]Options{
		"no bytes": {}, "negative": {OrigSize: -512}, "zlib level": {OrigSize: 512, Codec: Zlib, Level: LevelBest + 1},
		"codec": {OrigSize: 512, Codec: 2}, "level": {OrigSize: 512, Level: 9}, "too large": {OrigSize: MaxDiskSize + 1},
	} {
		if _, err := NewWriter(io.Discard, o); err == nil || errors.Is(err, formats.ErrUnsupported) != (name == "too large") {
			t.Errorf("%s: %v", name, err)
		}
	}
	z, err := NewWriter(io.Discard, Options{OrigSize: 5<<20 + 512})
	if err != nil {
		t.Fatal(err)
	}
	full := bytes.Repeat([]byte{1}, BlockSize)
	for name, c := range map[string]struct {
		index int64
		block []byte
	}{
		"before the disk": {-1, full}, "behind the disk": {3, full}, "short": {0, full[1:]},
		"long": {0, append(full, 1)}, "data behind the end": {2, full},
	} {
		if p, err := z.Encode([]byte("x"), c.index, c.block); err == nil || string(p) != "x" {
			t.Errorf("%s: %d bytes, %v", name, len(p), err)
		}
	}
}

func TestWriteBlockRefuses(t *testing.T) {
	d := newDisk(10<<20, 0, 1, 2)
	encode := func(z *Writer, b int64) []byte {
		p, err := z.Encode(nil, b, d.blocks[b])
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for name, f := range map[string]func(z *Writer) error{
		"backwards":     func(z *Writer) error { z.WriteBlock(1, encode(z, 1)); return z.WriteBlock(0, encode(z, 0)) },
		"twice":         func(z *Writer) error { z.WriteBlock(1, encode(z, 1)); return z.WriteBlock(1, encode(z, 1)) },
		"other number":  func(z *Writer) error { return z.WriteBlock(2, encode(z, 1)) },
		"behind":        func(z *Writer) error { return z.WriteBlock(5, encode(z, 1)) },
		"nothing":       func(z *Writer) error { return z.WriteBlock(1, nil) },
		"two chunks":    func(z *Writer) error { return z.WriteBlock(1, append(encode(z, 1), encode(z, 2)...)) },
		"damaged first": func(z *Writer) error { p := encode(z, 1); p[hwstream.HeadSize] ^= 1; return z.WriteBlock(1, p) },
	} {
		var w bytes.Buffer
		z, err := NewWriter(&w, Options{OrigSize: d.size})
		if err != nil {
			t.Fatal(err)
		}
		err = f(z)
		n := w.Len()
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if z.WriteBlock(3, encode(z, 1)) != err || z.Close() != err || w.Len() != n {
			t.Errorf("%s: the error doesn't stick", name)
		}
	}
}

// TestWriterFails fails each Write in turn: the error comes out, and no Write follows it.
func TestWriterFails(t *testing.T) {
	d := newDisk(10<<20, 0, 2)
	encoded := map[int64][]byte{}
	for failAt := 1; ; failAt++ {
		w := writes{failAt: failAt}
		z, err := NewWriter(&w, Options{OrigSize: d.size})
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range d.numbers() {
			if encoded[b] == nil {
				encoded[b], _ = z.Encode(nil, b, d.blocks[b])
			}
			z.WriteBlock(b, encoded[b])
		}
		err = z.Close()
		if failAt == 8 { // header, 2 chunks, end of data, index, bitmap, trailer
			if err != nil {
				t.Error(err)
			}
			if z.Close() == nil || z.WriteBlock(4, encoded[0]) == nil {
				t.Error("a closed writer goes on")
			}
			return
		}
		if !errors.Is(err, errDiskFull) || len(w.lengths) != failAt-1 {
			t.Errorf("write %d failed: %v, %d writes", failAt, err, len(w.lengths))
		}
	}
}
