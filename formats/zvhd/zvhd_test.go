package zvhd

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/hwstream"
)

// golden is an image that the vendor's driver wrote, and what is on its disk.
type golden struct {
	ImageSHA256 string `json:"image_sha256"`
	Size        int64
	Blocks      []struct {
		Block  int64
		SHA256 string // of the block padded with zeros
	}
}

func goldens(t testing.TB) map[string]golden {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]golden
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	if len(m) < 7 {
		t.Fatalf("%d images", len(m))
	}
	return m
}

// image returns the bytes of a golden image.
func (g golden) image(t testing.TB, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(file, ".zst") {
		z, err := zstd.NewReader(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		if b, err = z.DecodeAll(b, nil); err != nil {
			t.Fatal(err)
		}
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != g.ImageSHA256 {
		t.Fatalf("%s is damaged", file)
	}
	return b
}

// chunks takes an image apart by the specification, sharing nothing with the reader: the numbers of the
// stored blocks, and the payloads of all chunks.
func chunks(t testing.TB, image []byte) (blocks []int64, stream []byte) {
	t.Helper()
	at := 4096
	for ; string(image[at:at+8]) != "stream\x00\x00"; at = (at + 4095) / 4096 * 4096 {
		size := int(binary.LittleEndian.Uint32(image[at+12:]))
		blocks = append(blocks, int64(binary.LittleEndian.Uint32(image[at+16:])))
		stream = append(stream, image[at+48:at+48+size]...)
		at += 48 + size + 4
		if end := (at + 4095) / 4096 * 4096; string(image[end-4:end]) != "end\x00" {
			t.Fatalf("no end of a chunk before %d", end)
		}
	}
	if at+4096 != len(image) {
		t.Fatalf("footer at %d of %d", at, len(image))
	}
	return blocks, stream
}

// content is what the standard library makes of an image.
func content(t testing.TB, image []byte) io.ReaderAt {
	t.Helper()
	blocks, stream := chunks(t, image)
	if len(blocks) == 0 {
		return formatstest.Sparse()
	}
	z, err := zlib.NewReader(bytes.NewReader(stream))
	if err != nil {
		t.Fatal(err)
	}
	var pieces []formatstest.Piece
	for _, b := range blocks {
		p := make([]byte, BlockSize)
		if _, err := io.ReadFull(z, p); err != nil {
			t.Fatal(err)
		}
		pieces = append(pieces, formatstest.Piece{Offset: b * BlockSize, Data: p})
	}
	if n, err := io.ReadFull(z, make([]byte, 1)); n != 0 || err != io.ErrUnexpectedEOF {
		t.Fatalf("the stream doesn't end unfinished: %d, %v", n, err)
	}
	return formatstest.Sparse(pieces...)
}

// TestGolden reads what the vendor's driver wrote.
func TestGolden(t *testing.T) {
	for file, g := range goldens(t) {
		t.Run(file, func(t *testing.T) {
			img := open1(t, g.image(t, file))
			if img.Size() != g.Size || !img.Sequential() {
				t.Errorf("size %d, sequential %v", img.Size(), img.Sequential())
			}
			var stored []int64
			for _, e := range formatstest.Extents(t, img) {
				for off := e.Offset; !e.Zero && off < e.Offset+e.Length; off += BlockSize {
					stored = append(stored, off/BlockSize)
				}
			}
			if len(stored) != len(g.Blocks) {
				t.Fatalf("blocks %v", stored)
			}
			for i := range stored { // back and forth
				for _, k := range []int{i, len(stored) - 1 - i} {
					p := make([]byte, BlockSize)
					n, err := img.ReadAt(p, stored[k]*BlockSize)
					if err != nil && err != io.EOF || int64(n) != min(BlockSize, img.Size()-stored[k]*BlockSize) {
						t.Fatalf("block %d: %d, %v", stored[k], n, err)
					}
					if sum := sha256.Sum256(p); stored[k] != g.Blocks[k].Block || hex.EncodeToString(sum[:]) != g.Blocks[k].SHA256 {
						t.Errorf("block %d differs", stored[k])
					}
				}
			}
		})
	}
}

func open1(t testing.TB, image []byte) formats.Image {
	t.Helper()
	img, err := Format().Open(context.Background(), formatstest.NewSource(image), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	return img
}

// write makes an image of the given disk.
func write(t testing.TB, o Options, blocks map[int64][]byte, last int64) []byte {
	t.Helper()
	var out bytes.Buffer
	z, err := NewWriter(&out, o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range last + 1 {
		if p, ok := blocks[i]; ok {
			chunk, err := z.Encode(nil, i, p)
			if err == nil {
				err = z.WriteBlock(i, chunk)
			}
			if err != nil || len(chunk) > z.MaxEncodedSize() {
				t.Fatal(err, len(chunk))
			}
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if z.Written() != int64(out.Len()) {
		t.Errorf("%d bytes written, it says %d", out.Len(), z.Written())
	}
	if z.Close() == nil {
		t.Error("closed twice")
	}
	return out.Bytes()
}

// disk has text, noise and a short last block.
func disk() (size int64, blocks map[int64][]byte) {
	size = 9<<20 + 512
	last := make([]byte, BlockSize)
	copy(last, formatstest.Text(4, 1<<20+512))
	return size, map[int64][]byte{0: formatstest.Text(1, BlockSize), 1: formatstest.Noise(2, BlockSize), 3: formatstest.Text(3, BlockSize), 4: last}
}

func pieces(blocks map[int64][]byte) io.ReaderAt {
	var list []formatstest.Piece
	for b, p := range blocks {
		list = append(list, formatstest.Piece{Offset: b * BlockSize, Data: p})
	}
	return formatstest.Sparse(list...)
}

func TestSuite(t *testing.T) {
	var cases []formatstest.Case
	for file, g := range goldens(t) {
		if file != "incompr64k.zvhd.zst" && file != "sparse3g.zvhd" {
			image := g.image(t, file)
			cases = append(cases, formatstest.Case{Name: file, Image: image, Size: g.Size, Content: content(t, image)})
		}
	}
	size, blocks := disk()
	cases = append(cases, formatstest.Case{Name: "ours", Image: write(t, Options{OrigSize: size}, blocks, 4), Size: size, Content: pieces(blocks)})
	formatstest.Run(t, Format(), cases)
}

// TestWriter: what we write is one zlib stream that the standard library reads, at every level, and
// depends on nothing but disk and level.
func TestWriter(t *testing.T) {
	size, blocks := disk()
	for level := range 10 {
		image := write(t, Options{OrigSize: size - 100, Level: level}, blocks, 4)
		if !bytes.Equal(image, write(t, Options{OrigSize: size, Level: level}, blocks, 4)) {
			t.Errorf("level %d: the size is not rounded up, or chance is in it", level)
		}
		if string(image[:page]) != string(image[len(image)-page:]) || len(image)%page != 0 {
			t.Errorf("level %d: the footer is not the header", level)
		}
		got, want := content(t, image), pieces(blocks)
		for b := range int64(5) {
			p, q := make([]byte, BlockSize), make([]byte, BlockSize)
			got.ReadAt(p, b*BlockSize)
			want.ReadAt(q, b*BlockSize)
			if !bytes.Equal(p, q) {
				t.Errorf("level %d: block %d differs", level, b)
			}
		}
	}
}

// TestFooter: what the vendor's driver wrote into its footers comes out of ours, time and UUID aside.
func TestFooter(t *testing.T) {
	for file, g := range goldens(t) {
		theirs := g.image(t, file)[:hwstream.FooterSize]
		f, err := checkFooter(theirs)
		if err != nil {
			t.Fatal(err)
		}
		if ours := appendFooter(nil, f)[:hwstream.FooterSize]; !bytes.Equal(ours, theirs) {
			t.Errorf("%s:\n%x, the vendor's is\n%x", file, ours[:100], theirs[:100])
		}
	}
}

// TestWindows: places to start from are kept, and there are never too many.
func TestWindows(t *testing.T) {
	tab := &table{Index: make(hwstream.Index, 10_000), windows: map[int][]byte{}, stride: 1}
	for k := range 9000 {
		tab.remember(k+1, []byte{byte(k)})
	}
	if n := len(tab.windows); n > maxWindows || n < maxWindows/2-1 {
		t.Errorf("%d windows", n)
	}
	for k, w := range tab.windows {
		if k%tab.stride != 0 || w[0] != byte(k-1) {
			t.Errorf("window %d: %x", k, w)
		}
	}
}

func TestWriterRefuses(t *testing.T) {
	for name, o := range map[string]Options{
		"no bytes": {}, "negative": {OrigSize: -512}, "too large": {OrigSize: MaxDiskSize + 1}, "level": {OrigSize: 512, Level: 10}, "raw level": {OrigSize: 512, Level: -1},
	} {
		if _, err := NewWriter(io.Discard, o); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	size, blocks := disk()
	broken := errors.New("broken")
	for name, do := range map[string]func(z *Writer) error{
		"beyond the end": func(z *Writer) error { _, err := z.Encode(nil, 5, blocks[0]); return err },
		"short":          func(z *Writer) error { _, err := z.Encode(nil, 0, blocks[0][:512]); return err },
		"behind the end": func(z *Writer) error { _, err := z.Encode(nil, 4, blocks[0]); return err },
		"garbage":        func(z *Writer) error { return z.WriteBlock(0, make([]byte, page)) },
		"twice": func(z *Writer) error {
			p, _ := z.Encode(nil, 0, blocks[0])
			if err := z.WriteBlock(0, p); err != nil {
				return nil
			}
			return z.WriteBlock(0, p)
		},
	} {
		z, err := NewWriter(io.Discard, Options{OrigSize: size})
		if err != nil {
			t.Fatal(err)
		}
		if do(z) == nil {
			t.Errorf("%s: taken", name)
		}
	}
	z, _ := NewWriter(failing{broken}, Options{OrigSize: size})
	p, _ := z.Encode(nil, 0, blocks[0])
	if err := z.WriteBlock(0, p); !errors.Is(err, broken) || !errors.Is(z.Close(), broken) {
		t.Errorf("a failed write: %v, then %v", err, z.Close())
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// TestCorrupt damages one thing at a time.
func TestCorrupt(t *testing.T) {
	size, blocks := disk()
	good := write(t, Options{OrigSize: size}, blocks, 4)
	// resum makes both footers whole again after a change of the header.
	resum := func(p []byte) {
		binary.LittleEndian.PutUint32(p[hwstream.OffChecksum:], hwstream.Checksum(p))
		copy(p[len(p)-page:], p[:page])
	}
	second := func(p []byte) int { // where the second chunk is
		return int(4096 + hwstream.Length(int64(binary.LittleEndian.Uint32(p[4096+12:]))))
	}
	for what, c := range map[string]struct {
		damage func(p []byte) []byte
		text   string
		class  error
		late   bool
	}{
		"cut to a page":     {func(p []byte) []byte { return p[:4096] }, "cut short", formats.ErrCorrupt, false},
		"odd length":        {func(p []byte) []byte { return p[:len(p)-1] }, "cut short", formats.ErrCorrupt, false},
		"no footer":         {func(p []byte) []byte { return p[:len(p)-4096] }, "", formats.ErrCorrupt, false},
		"header checksum":   {func(p []byte) []byte { p[70]++; return p }, "checksum", formats.ErrCorrupt, false},
		"other footer":      {func(p []byte) []byte { p[len(p)-4096+70]++; return p }, "not a copy", formats.ErrCorrupt, false},
		"size 0":            {func(p []byte) []byte { clear(p[40:48]); resum(p); return p }, "disk size", formats.ErrCorrupt, false},
		"odd size":          {func(p []byte) []byte { p[40]++; resum(p); return p }, "disk size", formats.ErrCorrupt, false},
		"huge":              {func(p []byte) []byte { p[47] = 0x7f; resum(p); return p }, "the most is", formats.ErrUnsupported, false},
		"rounded size":      {func(p []byte) []byte { p[55]++; resum(p); return p }, "rounded up", formats.ErrCorrupt, false},
		"reserved":          {func(p []byte) []byte { p[100]++; resum(p); return p }, "not zero", formats.ErrCorrupt, false},
		"fewer blocks":      {func(p []byte) []byte { binary.LittleEndian.PutUint64(p[40:], 4<<20); resum(p); return p }, "may follow", formats.ErrCorrupt, false},
		"chunk prefix":      {func(p []byte) []byte { p[second(p)]++; return p }, "begins with", formats.ErrCorrupt, false},
		"chunk size":        {func(p []byte) []byte { p[second(p)+15] = 1; return p }, "left before the footer", formats.ErrCorrupt, false},
		"no payload":        {func(p []byte) []byte { clear(p[4096+12 : 4096+16]); return p }, "no payload", formats.ErrCorrupt, false},
		"chunk block":       {func(p []byte) []byte { p[second(p)+16] = 0; return p }, "may follow", formats.ErrCorrupt, false},
		"chunk zeros":       {func(p []byte) []byte { p[second(p)+30] = 1; return p }, "not zero", formats.ErrCorrupt, false},
		"chunk postfix":     {func(p []byte) []byte { p[second(p)-1] = 1; return p }, "end with", formats.ErrCorrupt, false},
		"zlib head":         {func(p []byte) []byte { p[4096+48]++; return p }, "valid head", formats.ErrCorrupt, true},
		"data of the first": {func(p []byte) []byte { p[4096+60] ^= 0xff; return p }, "can't be decoded", formats.ErrCorrupt, true},
		"no flush":          {func(p []byte) []byte { p[4096+48+binary.LittleEndian.Uint32(p[4096+12:])-1] = 0; return p }, "flushed", formats.ErrCorrupt, true},
	} {
		t.Run(what, func(t *testing.T) {
			formatstest.CheckRefused(t, Format(), formatstest.NewSource(c.damage(bytes.Clone(good))), nil, c.class, c.text, c.late)
		})
	}
}

// TestStreamLies: payloads that inflate to more or less than a block, or that end the stream.
func TestStreamLies(t *testing.T) {
	deflate := func(n int, finish bool) []byte {
		var b bytes.Buffer
		z := zlib.NewWriter(&b)
		z.Write(make([]byte, n))
		if z.Flush(); finish {
			z.Close()
		}
		return b.Bytes()
	}
	for what, c := range map[string]struct {
		payload []byte
		want    string
	}{
		"whole":    {deflate(BlockSize, false), ""},
		"short":    {deflate(BlockSize-1, false), "exactly"},
		"long":     {deflate(BlockSize+1, false), "exactly"},
		"finished": {deflate(BlockSize, true), "flushed"},
		"nothing":  {[]byte{0x78, 0x9c}, "flushed"},
		"one byte": {[]byte{0x78}, "head"},
	} {
		chunk := hwstream.Seal(append(hwstream.AppendHead(nil, 7, 0), c.payload...), 0)
		err := decodeChunk(make([]byte, BlockSize), chunk, nil, true, page, 7)
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, formats.ErrCorrupt) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func Example() {
	var file bytes.Buffer
	z, err := NewWriter(&file, Options{OrigSize: 4 << 20})
	if err != nil {
		panic(err)
	}
	block := make([]byte, BlockSize)
	copy(block, "hello")
	chunk, err := z.Encode(nil, 1, block)
	if err == nil {
		err = z.WriteBlock(1, chunk)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		panic(err)
	}
	img, err := Format().Open(context.Background(), formatstest.NewSource(file.Bytes()), nil)
	if err != nil {
		panic(err)
	}
	defer img.Close()
	p := make([]byte, 5)
	img.ReadAt(p, BlockSize)
	fmt.Printf("%q\n", p)
	// Output: "hello"
}
