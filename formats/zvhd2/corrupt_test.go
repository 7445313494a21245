package zvhd2

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"imgferry/formats"
	"imgferry/formats/hwstream"

	"github.com/klauspost/compress/zstd"
)

// imageFault reports whether err is a finding about the image, with a place if it should have one.
func imageFault(err error, place bool) bool {
	var e *formats.Error
	return errors.As(err, &e) && formats.BlamesImage(err) && (e.Offset >= 0 || !place) && !strings.Contains(err.Error(), "\n")
}

// layoutOf returns where the pieces of an image lie.
func layoutOf(t testing.TB, image []byte) (tr footer, index hwstream.Index) {
	t.Helper()
	tr, index, err := load(context.Background(), inMemory(image))
	if err != nil {
		t.Fatal(err)
	}
	return tr, index
}

// TestFlips changes each byte that the format has checked, one at a time.
func TestFlips(t *testing.T) {
	d := newDisk(6<<20+512, 0, 2, 3)
	for _, codec := range []Codec{Zstd, Zlib} {
		image := imageOf(t, d, Options{Codec: codec})
		tr, index := layoutOf(t, image)
		checked := map[string][]int{}
		add := func(what string, from, n int) {
			for i := range n {
				checked[what] = append(checked[what], from+i)
			}
		}
		endOfData := int(tr.indexPos) - page
		add("header", 0, footerSize)
		add("end-of-data footer", endOfData, hwstream.OffChecksum)
		add("end-of-data footer", endOfData+hwstream.OffUUID, footerSize-hwstream.OffUUID)
		add("index", int(tr.indexPos), int(tr.stored)*indexEntrySize)
		add("bitmap", int(tr.bitmapPos), int(tr.bitmapSize))
		add("trailer", len(image)-page, footerSize)
		for k, c := range index[:tr.stored] {
			add("chunk head", int(c.Pos()), hwstream.HeadSize)
			add("chunk postfix", int(index[k+1].Pos())-len(hwstream.Postfix), len(hwstream.Postfix))
		}
		for what, places := range checked {
			for _, i := range places {
				bit := byte(1) << (i % 8)
				image[i] ^= bit
				if err := Check(context.Background(), inMemory(image), 1, nil); !imageFault(err, true) {
					t.Fatalf("%v: %s, byte %d flipped by %#x: %v", codec, what, i, bit, err)
				}
				image[i] ^= bit
			}
		}

		// What the vendor's driver fills with garbage may be anything.
		garbage := func(from, to int) {
			for i := from; i < to; i++ {
				image[i] = 0xdd
			}
		}
		for _, pos := range []int{0, endOfData, len(image) - page} {
			garbage(pos+footerSize, pos+page)
		}
		garbage(endOfData+hwstream.OffChecksum, endOfData+hwstream.OffUUID)
		garbage(int(tr.indexPos)+int(tr.stored)*indexEntrySize, int(tr.bitmapPos))
		for k, c := range index[:tr.stored] {
			chunk := image[c.Pos():index[k+1].Pos()]
			size := int(binary.LittleEndian.Uint32(chunk[hwstream.OffPayloadSize:]))
			garbage(int(c.Pos())+hwstream.HeadSize+size, int(index[k+1].Pos())-len(hwstream.Postfix))
		}
		if err := Check(context.Background(), inMemory(image), 1, nil); err != nil {
			t.Errorf("%v: garbage where it may be: %v", codec, err)
		}
	}
}

// TestLies changes fields of the trailer and makes header, end-of-data footer and checksums agree
// with it: only the sense of the fields is left to notice it.
func TestLies(t *testing.T) {
	image := imageOf(t, newDisk(6<<20+512, 0, 2, 3), Options{})
	for name, c := range map[string]struct {
		lie  func(f *footer)
		want error
	}{
		"truth":                {func(f *footer) {}, nil},
		"timestamp":            {func(f *footer) { f.Timestamp = 5 }, nil},
		"creator":              {func(f *footer) { f.CreatorApp, f.CreatorVersion, f.CreatorOS = [4]byte{1}, 0x00010003, 7 }, nil},
		"UUID":                 {func(f *footer) { f.UUID[3]++ }, nil},
		"geometry":             {func(f *footer) { f.Geometry++ }, nil},
		"features":             {func(f *footer) { f.Features = 3 }, formats.ErrUnsupported},
		"version":              {func(f *footer) { f.Version = 0x00020000 }, formats.ErrUnsupported},
		"data offset":          {func(f *footer) { f.DataOffset = 512 }, formats.ErrCorrupt},
		"disk type":            {func(f *footer) { f.DiskType = 3 }, formats.ErrUnsupported},
		"align":                {func(f *footer) { f.align64 = 1 }, formats.ErrUnsupported},
		"zvhd2 version":        {func(f *footer) { f.zvhd2Version = 2 }, formats.ErrUnsupported},
		"method":               {func(f *footer) { f.method = 2 }, formats.ErrUnsupported},
		"other method":         {func(f *footer) { f.method = methodZlib }, formats.ErrCorrupt},
		"index mode":           {func(f *footer) { f.fullIndex = 2 }, formats.ErrUnsupported},
		"other index mode":     {func(f *footer) { f.fullIndex = 1 }, formats.ErrCorrupt},
		"block size 1 MiB":     {func(f *footer) { f.blockSize = 1 << 20 }, formats.ErrUnsupported},
		"block size 0":         {func(f *footer) { f.blockSize = 0 }, formats.ErrUnsupported},
		"no size":              {func(f *footer) { f.OrigSize = 0 }, formats.ErrCorrupt},
		"odd size":             {func(f *footer) { f.OrigSize++ }, formats.ErrCorrupt},
		"huge size":            {func(f *footer) { f.OrigSize = 1 << 63 }, formats.ErrUnsupported},
		"size above cap":       {func(f *footer) { f.OrigSize = MaxDiskSize + 512 }, formats.ErrUnsupported},
		"size of the cap":      {func(f *footer) { f.OrigSize = MaxDiskSize }, formats.ErrCorrupt},
		"a block less":         {func(f *footer) { f.OrigSize -= BlockSize; f.maxBlocks-- }, formats.ErrCorrupt},
		"a sector less":        {func(f *footer) { f.OrigSize -= 512; f.maxBlocks-- }, formats.ErrCorrupt},
		"curr_size":            {func(f *footer) { f.CurrSize = f.OrigSize }, formats.ErrCorrupt},
		"blocks":               {func(f *footer) { f.maxBlocks++ }, formats.ErrCorrupt},
		"stored":               {func(f *footer) { f.stored-- }, formats.ErrCorrupt},
		"nothing stored":       {func(f *footer) { f.stored = 0 }, formats.ErrCorrupt},
		"all stored":           {func(f *footer) { f.stored = f.maxBlocks }, formats.ErrCorrupt},
		"more stored":          {func(f *footer) { f.stored = 1 << 31 }, formats.ErrCorrupt},
		"index position":       {func(f *footer) { f.indexPos += page }, formats.ErrCorrupt},
		"index far out":        {func(f *footer) { f.indexPos = 1 << 63 }, formats.ErrCorrupt},
		"bitmap position":      {func(f *footer) { f.bitmapPos -= page }, formats.ErrCorrupt},
		"index size":           {func(f *footer) { f.indexSize = 1 << 31 }, formats.ErrCorrupt},
		"bitmap size":          {func(f *footer) { f.bitmapSize = 0 }, formats.ErrCorrupt},
		"index segment size":   {func(f *footer) { f.indexSegSize *= 2 }, formats.ErrCorrupt},
		"bitmap segment size":  {func(f *footer) { f.bitmapSegSize *= 2 }, formats.ErrCorrupt},
		"index segments":       {func(f *footer) { f.indexSegs++ }, formats.ErrCorrupt},
		"bitmap segments":      {func(f *footer) { f.bitmapSegs++ }, formats.ErrCorrupt},
		"shifted by a segment": {func(f *footer) { f.indexPos -= indexSegmentSize; f.indexSize *= 2; f.indexSegs++ }, formats.ErrCorrupt},
	} {
		lied := bytes.Clone(image)
		tr := parseFooter(lied[len(lied)-page:])
		endOfData := int(tr.indexPos) - page
		c.lie(&tr)
		copy(lied, tr.header().append(nil))
		copy(lied[endOfData:], tr.endOfData().append(nil))
		copy(lied[len(lied)-page:], tr.append(nil))
		err := Check(context.Background(), inMemory(lied), 1, nil)
		if !errors.Is(err, c.want) || err != nil && !imageFault(err, true) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		in, err := Format().Info(context.Background(), inMemory(lied))
		if err != nil || name != "other method" && !errors.Is(in.Problem, c.want) {
			t.Errorf("%s: info %+v, %v", name, in, err)
		}
	}
}

// TestIndexLies changes entries of the index.
func TestIndexLies(t *testing.T) {
	image := imageOf(t, newDisk(12<<20, 0, 2, 5), Options{})
	full := unpack(t, "sparse3g.zstd-indexzero.zvhd2.gz") // stored: 0, 1, 511, ...
	for name, c := range map[string]struct {
		image []byte
		entry int
		lie   func(e *indexEntry)
	}{
		"wrong block":            {image, 1, func(e *indexEntry) { e.block = 3 }},
		"block twice":            {image, 1, func(e *indexEntry) { e.block = 0 }},
		"block behind the disk":  {image, 2, func(e *indexEntry) { e.block = 6 }},
		"later block":            {image, 1, func(e *indexEntry) { e.block = 5 }},
		"no position":            {image, 1, func(e *indexEntry) { e.pos = 0 }},
		"no length":              {image, 1, func(e *indexEntry) { e.length = 0 }},
		"other chunk":            {image, 1, func(e *indexEntry) { e.pos -= page }},
		"odd position":           {image, 1, func(e *indexEntry) { e.pos++ }},
		"odd length":             {image, 1, func(e *indexEntry) { e.length++ }},
		"longer":                 {image, 1, func(e *indexEntry) { e.length += page }},
		"shorter last":           {image, 2, func(e *indexEntry) { e.length -= page }},
		"longer last":            {image, 2, func(e *indexEntry) { e.length += page }},
		"longest":                {image, 0, func(e *indexEntry) { e.length = 0xfffff000 }},
		"full: zero block":       {full, 2, func(e *indexEntry) { *e = indexEntry{4096, 2, 4096} }},
		"full: no entry":         {full, 1, func(e *indexEntry) { *e = indexEntry{} }},
		"full: wrong block":      {full, 1, func(e *indexEntry) { e.block = 2 }},
		"full: last block empty": {full, 1535, func(e *indexEntry) { e.pos = 0 }},
	} {
		lied := bytes.Clone(c.image)
		tr, _ := layoutOf(t, c.image)
		at := int(tr.indexPos) + c.entry*indexEntrySize
		e := parseEntry(lied[at:])
		c.lie(&e)
		copy(lied[at:], e.append(nil))
		if err := Check(context.Background(), inMemory(lied), 1, nil); !errors.Is(err, formats.ErrCorrupt) || !imageFault(err, true) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCuts cuts images everywhere, and adds bytes.
func TestCuts(t *testing.T) {
	image := imageOf(t, newDisk(6<<20+512, 0, 2), Options{})
	cuts := []int{0, 1, 7, 8, 511, 512, 4095, len(image) - 1, len(image) - footerSize, len(image) - page + 1}
	for n := page; n < len(image); n += page {
		cuts = append(cuts, n)
	}
	for _, n := range cuts {
		src := inMemory(image[:n])
		if ok, err := Format().Probe(src); ok != (n >= len(cookie)) || err != nil {
			t.Errorf("cut at %d: probe %v, %v", n, ok, err)
		}
		if err := Check(context.Background(), src, 1, nil); !errors.Is(err, formats.ErrCorrupt) || !imageFault(err, false) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
	for _, more := range [][]byte{{0}, make([]byte, 512), make([]byte, page), image[len(image)-page:], image} {
		if err := Check(context.Background(), inMemory(slices.Concat(image, more)), 1, nil); !imageFault(err, true) {
			t.Errorf("%d bytes more: %v", len(more), err)
		}
	}
}

func TestProbe(t *testing.T) {
	image := imageOf(t, newDisk(1<<20), Options{})
	headless := bytes.Clone(image)
	clear(headless[:page])
	for name, c := range map[string]struct {
		image []byte
		want  bool
	}{
		"image": {image, true}, "no header": {headless, true}, "no trailer": {image[:page+1], true}, "empty": {nil, false},
		"zeros": {make([]byte, 1<<20), false}, "short": {[]byte(cookie)[:7], false}, "zvhd": {[]byte("stream\x00\x00 and so on"), false},
	} {
		if ok, err := Format().Probe(inMemory(c.image)); ok != c.want || err != nil {
			t.Errorf("%s: %v, %v", name, ok, err)
		}
	}
}

func TestInfo(t *testing.T) {
	image := imageOf(t, newDisk(6<<20+512, 0, 2), Options{Codec: Zlib, Timestamp: 86400})
	broken := bytes.Clone(image)
	broken[len(broken)-1000+4096-page]++ // garbage area: no harm
	broken[len(broken)-page+offStored]++ // trailer: the header answers
	for name, p := range map[string][]byte{"image": image, "trailer broken": broken, "cut": image[:len(image)/2]} {
		in, err := Format().Info(context.Background(), inMemory(p))
		if err != nil || in.Format != "zvhd2" || in.VirtualSize != 6<<20+512 || in.ClusterSize != BlockSize {
			t.Errorf("%s: %+v, %v", name, in, err)
		}
		if (in.Problem == nil) != (name == "image") {
			t.Errorf("%s: problem %v", name, in.Problem)
		}
		if i := slices.Index(in.Specific, formats.Property{Name: "created", Value: "2000-01-02T00:00:00Z"}); i < 0 {
			t.Errorf("%s: %v", name, in.Specific)
		}
		if !slices.Contains(in.Specific, formats.Property{Name: "compression type", Value: "zlib"}) {
			t.Errorf("%s: %v", name, in.Specific)
		}
	}
	if in, err := Format().Info(context.Background(), inMemory([]byte("nothing of the kind"))); err != nil || in.Problem == nil {
		t.Errorf("no image: %+v, %v", in, err)
	}
}

// oneBlock returns the image of a disk of one block, all 'x', stored with that payload.
func oneBlock(t testing.TB, codec Codec, payload []byte) []byte {
	t.Helper()
	chunk := append(hwstream.AppendHead(nil, 0, uint32(len(payload))), payload...)
	chunk = append(chunk, make([]byte, int(hwstream.Length(int64(len(payload))))-len(chunk))...)
	copy(chunk[len(chunk)-len(hwstream.Postfix):], hwstream.Postfix)
	h := newFooter(BlockSize, codec, 0)
	tr := h.trailer(page+int64(len(chunk))+page, 1)
	image := append(h.append(nil), chunk...)
	image = tr.endOfData().append(image)
	image = append(image, indexEntry{page, 0, uint32(len(chunk))}.append(nil)...)
	image = append(image, make([]byte, indexSegmentSize-indexEntrySize)...)
	image = append(image, 1)
	image = append(image, make([]byte, bitmapSegmentSize-1)...)
	return tr.append(image)
}

// TestPayloads: what the vendor's reader takes is read, what it refuses is refused, and no payload
// makes more memory than a block.
func TestPayloads(t *testing.T) {
	content := bytes.Repeat([]byte("x"), BlockSize)
	frame := func(p []byte, o ...zstd.EOption) []byte {
		z, err := zstd.NewWriter(nil, append(o, zstd.WithEncoderConcurrency(1))...)
		if err != nil {
			t.Fatal(err)
		}
		return z.EncodeAll(p, nil)
	}
	// streamed makes a frame without content size that asks for a window.
	streamed := func(p []byte, window int) []byte {
		var b bytes.Buffer
		z, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window))
		if err != nil {
			t.Fatal(err)
		}
		for len(p) > 0 {
			n := min(len(p), 300000)
			z.Write(p[:n])
			z.Flush()
			p = p[n:]
		}
		z.Close()
		return b.Bytes()
	}
	skippable := slices.Concat([]byte{0x5a, 0x2a, 0x4d, 0x18, 5, 0, 0, 0}, []byte("12345"))
	half := BlockSize / 2
	cut := func(p []byte, finish bool) []byte { // zlib
		e := encoder{codec: Zlib}
		b, err := e.append(nil, p)
		if err != nil {
			t.Fatal(err)
		}
		if finish { // a final empty block and an Adler-32
			b = append(b, 0x03, 0x00, 0x12, 0x34, 0x56, 0x78)
		}
		return b
	}
	for name, c := range map[string]struct {
		codec   Codec
		payload []byte
		ok      bool
	}{
		"zstd with checksum":        {Zstd, frame(content, zstd.WithEncoderCRC(true)), true},
		"zstd best":                 {Zstd, frame(content, zstd.WithEncoderLevel(zstd.SpeedBestCompression)), true},
		"zstd streamed":             {Zstd, streamed(content, 1<<17), true},
		"zstd streamed, window":     {Zstd, streamed(content, 64<<20), true},
		"zstd several frames":       {Zstd, slices.Concat(frame(content[:half]), streamed(content[half:], 1<<20)), true},
		"zstd three frames":         {Zstd, slices.Concat(streamed(content[:100], 1<<20), frame(content[100:half]), frame(content[half:])), true},
		"zstd empty frame":          {Zstd, slices.Concat(frame(nil, zstd.WithZeroFrames(true)), frame(content)), true},
		"zstd skippable":            {Zstd, slices.Concat(skippable, frame(content[:half]), skippable, frame(content[half:]), skippable), true},
		"zstd only skippable":       {Zstd, skippable, false},
		"zstd short":                {Zstd, frame(content[1:]), false},
		"zstd long":                 {Zstd, frame(append(content, 1)), false},
		"zstd long, streamed":       {Zstd, streamed(append(content, 1), 1<<20), false},
		"zstd long in two":          {Zstd, slices.Concat(frame(content), frame([]byte("x"))), false},
		"zstd bomb":                 {Zstd, frame(make([]byte, 16<<20)), false},
		"zstd bomb, streamed":       {Zstd, streamed(make([]byte, 16<<20), 1<<20), false},
		"zstd and garbage":          {Zstd, append(frame(content), "garbage"...), false},
		"zstd and one byte":         {Zstd, append(frame(content), 0x28), false},
		"zstd cut":                  {Zstd, frame(content)[:12], false},
		"zstd in a zlib file":       {Zlib, frame(content), false},
		"zlib":                      {Zlib, cut(content, false), true},
		"zlib finished":             {Zlib, cut(content, true), false},
		"zlib short":                {Zlib, cut(content[1:], false), false},
		"zlib long":                 {Zlib, cut(append(content, 1), false), false},
		"zlib bomb":                 {Zlib, cut(make([]byte, 16<<20), false), false},
		"raw deflate":               {Zlib, cut(content, false)[2:], false},
		"zlib without flush marker": {Zlib, bytes.TrimSuffix(cut(content, false), []byte("\x00\x00\xff\xff")), false},
		"zlib in a zstd file":       {Zstd, cut(content, false), false},
		"empty":                     {Zstd, nil, false},
	} {
		image := oneBlock(t, c.codec, c.payload)
		err := Check(context.Background(), inMemory(image), 1, nil)
		if c.ok && err != nil || !c.ok && (!errors.Is(err, formats.ErrCorrupt) || !imageFault(err, true)) {
			t.Errorf("%s: %v", name, err)
		}
		if !c.ok {
			continue
		}
		for _, part := range [][2]int64{{0, BlockSize}, {5, 100}} {
			got := make([]byte, part[1])
			if _, err := mustOpen(t, image).ReadAt(got, part[0]); err != nil || !bytes.Equal(got, content[:part[1]]) {
				t.Errorf("%s: read at %d: %v", name, part[0], err)
			}
		}
	}
}

// TestBombMemory decodes bombs into a block: what is allocated on the way stays within two blocks.
func TestBombMemory(t *testing.T) {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	sized := z.EncodeAll(make([]byte, 128<<20), nil)
	var b bytes.Buffer
	z.Reset(&b)
	for range 64 {
		z.Write(make([]byte, 1<<20))
		z.Flush()
	}
	z.Close()
	dst := make([]byte, BlockSize)
	for name, payload := range map[string][]byte{"sized": sized, "unsized": b.Bytes()} {
		Zstd.decode(dst, payload) // warms the pool
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if Zstd.decode(dst, payload) == nil {
			t.Errorf("%s: decoded", name)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 2*BlockSize {
			t.Errorf("%s: %d bytes allocated", name, n)
		}
	}
}

// TestDataBehindTheEnd: the last block is padded with zeros. The reader doesn't show it, Check
// refuses it.
func TestDataBehindTheEnd(t *testing.T) {
	payload, err := (&encoder{}).append(nil, bytes.Repeat([]byte("x"), BlockSize))
	if err != nil {
		t.Fatal(err)
	}
	image := oneBlock(t, Zstd, payload)
	tr := parseFooter(image[len(image)-page:])
	endOfData := int(tr.indexPos) - page
	tr.OrigSize -= 512
	copy(image, tr.header().append(nil))
	copy(image[endOfData:], tr.endOfData().append(nil))
	copy(image[len(image)-page:], tr.append(nil))
	if err := Check(context.Background(), inMemory(image), 1, nil); !errors.Is(err, formats.ErrCorrupt) {
		t.Errorf("check: %v", err)
	}
	if im := mustOpen(t, image); im.Size() != BlockSize-512 {
		t.Errorf("size %d", im.Size())
	}
}

// TestStoredZeros: a stored block of zeros wastes space and is legal.
func TestStoredZeros(t *testing.T) {
	d := disk{5 << 20, map[int64][]byte{1: make([]byte, BlockSize)}}
	image := imageOf(t, d, Options{})
	if err := Check(context.Background(), inMemory(image), 1, nil); err != nil {
		t.Error(err)
	}
	if got := storedBlocks(t, mustOpen(t, image)); len(got) != 1 {
		t.Errorf("stored %v", got)
	}
}

// failing is a source whose reads at and behind a place fail.
type failing struct {
	formats.Source
	from int64
}

var errBadSector = errors.New("bad sector")

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.from {
		return 0, errBadSector
	}
	return f.Source.ReadAt(p, off)
}

// TestBadDisk: a read that fails is no finding about the image.
func TestBadDisk(t *testing.T) {
	image := imageOf(t, newDisk(6<<20+512, 0, 2), Options{})
	tr, _ := layoutOf(t, image)
	for _, from := range []int64{0, 100, page, int64(tr.indexPos), int64(tr.bitmapPos), int64(len(image)) - page + 100} {
		src := failing{inMemory(image), from}
		for name, err := range map[string]error{
			"check": Check(context.Background(), src, 1, nil),
			"info":  func() error { _, err := Format().Info(context.Background(), src); return err }(),
		} {
			if !errors.Is(err, errBadSector) || formats.BlamesImage(err) {
				t.Errorf("%s, bad from %d: %v", name, from, err)
			}
		}
	}
	if _, err := Format().Probe(failing{inMemory(image), 0}); !errors.Is(err, errBadSector) {
		t.Errorf("probe: %v", err)
	}
}

func TestCheckProgress(t *testing.T) {
	image := imageOf(t, newDisk(12<<20, 0, 1, 2, 4, 5), Options{})
	var seen []string
	if err := Check(context.Background(), inMemory(image), 3, func(done, total int64) { seen = append(seen, fmt.Sprintf("%d/%d", done, total)) }); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(seen, " "); got != "1/5 2/5 3/5 4/5 5/5" {
		t.Error(got)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	err := Check(ctx, inMemory(image), 1, func(done, total int64) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled after a block: %v", err)
	}
}
