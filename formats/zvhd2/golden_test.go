package zvhd2

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"imgferry/formats"
	"imgferry/formats/hwstream"

	"github.com/klauspost/compress/zstd"
)

// manifest is testdata/manifest.json: what the vendor's driver wrote, and from which content.
type manifest struct {
	Raws  map[string]rawDisk
	Files []goldenFile
}

type goldenFile struct {
	File, Packed, Raw string
	CompressMethod    string            `json:"compress_method"`
	OrigSize          int64             `json:"orig_size_field"`
	CurrSize          int64             `json:"curr_size_field"`
	ImageSHA256       string            `json:"image_sha256"`
	LastFooter        map[string]uint64 `json:"last_footer"`
}

// rawDisk is a disk as a recipe.
type rawDisk struct {
	Size        int64
	RoundedSize int64 `json:"size_rounded_to_512"`
	SHA256      string
	Recipe      []piece
	NonZero     int64 `json:"non_zero_block_count"`
	Blocks      []struct {
		Block  int64
		SHA256 string `json:"sha256_of_2MiB_zero_padded"`
	} `json:"non_zero_blocks"`
}

type piece struct {
	Offset, Length int64
	Fill           string
	Count, Stride  int64
	SeedStep       uint64 `json:"seed_step"`
}

// fill makes the bytes of one piece of a recipe, by the rules in the manifest's recipe_format.
func fill(t testing.TB, rule string, n int64, seedStep uint64) []byte {
	p := make([]byte, n)
	kind, arg, _ := strings.Cut(rule, ":")
	switch kind {
	case "byte":
		v, err := strconv.ParseUint(arg, 0, 8)
		if err != nil {
			t.Fatal(err)
		}
		for i := range p {
			p[i] = byte(v)
		}
	case "text":
		for i := range p {
			p[i] = arg[i%len(arg)]
		}
	case "lcg":
		x, err := strconv.ParseUint(arg, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		x += seedStep
		for i := 0; i < len(p); i += 8 {
			x = x*6364136223846793005 + 1442695040888963407
			z := (x ^ x>>33) * 0xff51afd7ed558ccd
			z ^= z >> 33
			copy(p[i:], binary.LittleEndian.AppendUint64(nil, z))
		}
	default:
		t.Fatalf("unknown fill %q", rule)
	}
	return p
}

// block makes block i of the disk, padded with zeros.
func (r rawDisk) block(t testing.TB, i int64) []byte {
	b := make([]byte, BlockSize)
	for _, p := range r.Recipe {
		first, last := int64(0), max(p.Count, 1)-1
		if p.Stride > 0 {
			first = max(0, (i*BlockSize-p.Offset-p.Length)/p.Stride)
			last = min(last, ((i+1)*BlockSize-p.Offset)/p.Stride)
		}
		for k := first; k <= last; k++ {
			at := p.Offset + k*p.Stride - i*BlockSize
			if at+p.Length <= 0 || at >= BlockSize {
				continue
			}
			data := fill(t, p.Fill, p.Length, uint64(k)*p.SeedStep)
			copy(b[max(at, 0):], data[max(-at, 0):])
		}
	}
	return b
}

func readManifest(t testing.TB) manifest {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// unpack returns the image in a file of testdata.
func unpack(t testing.TB, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	switch filepath.Ext(file) {
	case ".gz":
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		b, err = io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
	case ".zst":
		z, err := zstd.NewReader(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		if b, err = z.DecodeAll(b, nil); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// memory is a source in memory.
type memory struct{ *bytes.Reader }

func (memory) Close() error     { return nil }
func (memory) Identity() string { return "" }

func inMemory(p []byte) formats.Source { return memory{bytes.NewReader(p)} }

func mustOpen(t testing.TB, image []byte) formats.Image {
	t.Helper()
	im, err := Format().Open(context.Background(), inMemory(image), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { im.Close() })
	return im
}

// storedBlocks returns the blocks that the extents of im say hold data.
func storedBlocks(t testing.TB, im formats.Image) []int64 {
	t.Helper()
	var blocks []int64
	end := int64(0)
	for e, err := range im.Extents(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Offset != end || e.Length <= 0 || e.HostOffset != -1 || e.Zero == e.Compressed {
			t.Fatalf("extent %+v behind %d", e, end)
		}
		end += e.Length
		if e.Compressed {
			for o := e.Offset; o < end; o += BlockSize {
				blocks = append(blocks, o/BlockSize)
			}
		}
	}
	if end != im.Size() {
		t.Fatalf("extents end at %d of %d", end, im.Size())
	}
	return blocks
}

func TestRecipe(t *testing.T) {
	// The manifest's own proofs of its generator.
	p := fill(t, "lcg:77", BlockSize, 0)
	if sum := sha256.Sum256(p); hex.EncodeToString(sum[:]) != "d5f182f10d6fd1e53ef0de1b74f58489b295e190de89c68274a28c3db2727bd3" {
		t.Fatal("lcg:77")
	}
	for name, r := range readManifest(t).Raws {
		for _, b := range r.Blocks {
			if sum := sha256.Sum256(r.block(t, b.Block)); hex.EncodeToString(sum[:]) != b.SHA256 {
				t.Errorf("%s: block %d", name, b.Block)
			}
		}
	}
}

// contentDigests are known: SHA-256 over a head and the number and SHA-256 of each block that isn't
// all zero.
var contentDigests = map[string]string{
	"allzero":  "BCj3htRMSNOXHgus1QJSY3lHW-e6j4m-jJg9CvO26VQ",
	"odd5m512": "4jJrJH3uSSyip27gRXQl4lqpBFuq3gFUApmPWMT_It8",
	"sparse3g": "O7jtUl4pcqmcSma6LeDEuBeDMuMBHPzKLfpQJMsNCPI",
}

// TestGolden reads what the vendor's driver wrote, and writes it again. IMGFERRY_LONG=1 has it decode
// all of the 64 GiB disk with every block stored too, which takes minutes.
func TestGolden(t *testing.T) {
	m := readManifest(t)
	for _, g := range m.Files {
		t.Run(g.File, func(t *testing.T) {
			image := unpack(t, g.File)
			if sum := sha256.Sum256(image); hex.EncodeToString(sum[:]) != g.ImageSHA256 {
				t.Fatal("testdata is damaged")
			}
			t.Run("read", func(t *testing.T) { readGolden(t, g, m.Raws[g.Raw], image) })
			t.Run("rewrite", func(t *testing.T) { rewriteGolden(t, g, m.Raws[g.Raw], image) })
		})
	}
}

// readGolden compares sizes, extents and content with the recipe.
func readGolden(t *testing.T, g goldenFile, raw rawDisk, image []byte) {
	long := os.Getenv("IMGFERRY_LONG") != ""
	if ok, err := Format().Probe(inMemory(image)); !ok || err != nil {
		t.Fatalf("probe: %v, %v", ok, err)
	}
	im := mustOpen(t, image)
	if im.Size() != raw.RoundedSize || im.Size() != g.OrigSize {
		t.Fatalf("size %d, want %d", im.Size(), raw.RoundedSize)
	}
	stored := storedBlocks(t, im)
	if int64(len(stored)) != raw.NonZero {
		t.Fatalf("%d blocks, want %d", len(stored), raw.NonZero)
	}
	huge := len(stored) > 1000 // 64 GiB to decode
	want, known := contentDigests[g.Raw]
	digest := sha256.New()
	io.WriteString(digest, "imgferry content v1\n")
	for i, b := range stored {
		if len(raw.Blocks) > 0 && raw.Blocks[i].Block != b {
			t.Fatalf("block %d is stored, want %d", b, raw.Blocks[i].Block)
		}
		if huge && !long && i%1024 > 1 && b < 32766 {
			continue
		}
		got := make([]byte, BlockSize)
		if n, err := im.ReadAt(got, b*BlockSize); int64(n) != min(BlockSize, im.Size()-b*BlockSize) || n == BlockSize && err != nil {
			t.Fatalf("block %d: %d bytes, %v", b, n, err)
		}
		if !bytes.Equal(got, raw.block(t, b)) {
			t.Fatalf("block %d differs", b)
		}
		if known {
			sum := sha256.Sum256(got)
			digest.Write(binary.BigEndian.AppendUint64(nil, uint64(b)))
			digest.Write(sum[:])
		}
	}
	if known && base64.RawURLEncoding.EncodeToString(digest.Sum(nil)) != want {
		t.Errorf("content digest is not %s", want)
	}
	if raw.Size < 64<<20 {
		h := sha256.New()
		if _, err := io.Copy(h, io.NewSectionReader(im, 0, raw.Size)); err != nil || hex.EncodeToString(h.Sum(nil)) != raw.SHA256 {
			t.Errorf("whole content: %v", err)
		}
	}
	if huge && !long {
		return
	}
	if err := Check(context.Background(), inMemory(image), runtime.GOMAXPROCS(0), nil); err != nil {
		t.Error(err)
	}
}

// rewriteGolden gives the vendor's chunks to our Writer: the same file must come out, byte for byte
// where the vendor's driver doesn't leave garbage, time and UUID aside. It spoils image.
func rewriteGolden(t *testing.T, g goldenFile, raw rawDisk, image []byte) {
	tr, index, err := load(context.Background(), inMemory(image))
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]uint64{
		"index_lba": tr.indexPos, "bitmap_lba": tr.bitmapPos, "index_size": uint64(tr.indexSize),
		"bitmap_size": uint64(tr.bitmapSize), "non_zero_blk_num": uint64(tr.stored),
		"compress_method": uint64(tr.method), "index_contains_zero_blk": uint64(tr.fullIndex),
	} {
		if g.LastFooter[name] != v {
			t.Errorf("%s is %d, the manifest says %d", name, v, g.LastFooter[name])
		}
	}
	if int64(tr.CurrSize) != g.CurrSize {
		t.Errorf("curr_size is %d, the manifest says %d", tr.CurrSize, g.CurrSize)
	}

	var out bytes.Buffer
	codec := map[string]Codec{"zlib": Zlib, "zstd": Zstd}[g.CompressMethod]
	z, err := NewWriter(&out, Options{OrigSize: raw.Size, Codec: codec, Timestamp: tr.Timestamp})
	if err != nil {
		t.Fatal(err)
	}
	for k, c := range index[:len(index)-1] {
		if err := z.WriteBlock(int64(c.Block), image[c.Pos():index[k+1].Pos()]); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if tr.fullIndex != 0 {
		return // we write dense ones only
	}
	ours := out.Bytes()
	if len(ours) != len(image) {
		t.Fatalf("%d bytes, want %d", len(ours), len(image))
	}
	for _, p := range [][]byte{ours, image} { // mask what may differ
		for _, pos := range []int{0, int(tr.indexPos) - page, len(p) - page} {
			clear(p[pos+hwstream.OffChecksum : pos+offSaved])
			clear(p[pos+footerSize : pos+page])
		}
		clear(p[int(tr.indexPos)+int(tr.stored)*indexEntrySize : tr.bitmapPos])
	}
	if !bytes.Equal(ours, image) {
		for i := range ours {
			if ours[i] != image[i] {
				t.Fatalf("byte %d is %#x, the vendor's is %#x", i, ours[i], image[i])
			}
		}
	}
}
