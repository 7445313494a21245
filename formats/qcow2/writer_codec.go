package qcow2

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"

	"imgferry/deflate"
)

// Compression is how a Writer stores clusters.
type Compression uint8

// The ways there are.
const (
	Uncompressed Compression = iota
	Zlib                     // raw deflate, which every version of QEMU reads
	Zstd                     // since QEMU 5.1
)

// String returns "none", "zlib" or "zstd".
func (c Compression) String() string {
	switch c {
	case Uncompressed:
		return "none"
	case Zlib:
		return "zlib"
	case Zstd:
		return "zstd"
	}
	return fmt.Sprintf("compression %d", uint8(c))
}

// check refuses what there is not.
func (c Compression) check(l Level) error {
	switch {
	case c > Zstd:
		return fmt.Errorf("%s: unknown %v", name, c)
	case l > LevelBest:
		return fmt.Errorf("%s: unknown compression level %d", name, uint8(l))
	case c == Uncompressed && l != LevelDefault:
		return fmt.Errorf("%s: a compression level without compression", name)
	}
	return nil
}

// Level is how hard the encoder tries.
type Level uint8

// The levels: about zstd's own 3 (the default), 1, 8 and 11; with Zlib, those of package deflate.
const (
	LevelDefault Level = iota
	LevelFastest
	LevelBetter
	LevelBest
)

// windowBits is the size of the window with which QEMU inflates.
const windowBits = 12

func (l Level) deflate() deflate.Level {
	return [...]deflate.Level{deflate.Default, deflate.Fastest, deflate.Better, deflate.Best}[l]
}

func (l Level) zstd() zstd.EncoderLevel {
	switch l {
	case LevelFastest:
		return zstd.SpeedFastest
	case LevelBetter:
		return zstd.SpeedBetterCompression
	case LevelBest:
		return zstd.SpeedBestCompression
	}
	return zstd.SpeedDefault
}

// encoder encodes blocks cluster by cluster. It is pure: what it appends depends on the cluster alone.
// Safe for concurrent use.
type encoder struct {
	codec       Compression
	level       Level
	clusterSize int
	pool        sync.Pool // *zstd.Encoder or *deflate.Encoder
}

// slack is how much longer than a cluster the attempt to compress it may get, in bytes.
func (e *encoder) slack() int {
	if e.codec == Uncompressed {
		return 0
	}
	return 1024 + e.clusterSize/256
}

// appendBlock appends the lengths of the block's clusters, those that are compressed, and the others. Of
// the block, used bytes lie on the disk. Clusters that are empty are not stored.
func (e *encoder) appendBlock(dst, block []byte, used int, empty func(from, to int) bool) []byte {
	cs := e.clusterSize
	start := len(dst)
	n := len(block) / cs
	dst = append(dst, make([]byte, n*lengthBytes)...)
	compress, done := e.begin()
	defer done()
	plain := false
	for i := range n {
		if i*cs >= used || empty(i*cs, i*cs+cs) {
			continue
		}
		src := block[i*cs:][:cs]
		before := len(dst)
		length := cs
		if compress != nil {
			dst = compress(dst, src)
			length = len(dst) - before
		}
		if length >= cs {
			dst, length, plain = dst[:before], cs, true
		}
		binary.LittleEndian.PutUint32(dst[start+i*lengthBytes:], uint32(length))
	}
	if !plain {
		return dst
	}
	for i := range n {
		if int(binary.LittleEndian.Uint32(dst[start+i*lengthBytes:])) == cs {
			dst = append(dst, block[i*cs:][:cs]...)
		}
	}
	return dst
}

// begin returns the function that appends a cluster compressed, nil if none is, and one to call
// afterwards.
func (e *encoder) begin() (compress func(dst, src []byte) []byte, done func()) {
	switch e.codec {
	case Zlib:
		d, ok := e.pool.Get().(*deflate.Encoder)
		if !ok {
			d = deflate.New(e.level.deflate(), windowBits)
		}
		return d.Raw, func() { e.pool.Put(d) }
	case Zstd:
		z, ok := e.pool.Get().(*zstd.Encoder)
		if !ok {
			z = e.newZstd()
		}
		return func(dst, src []byte) []byte { return z.EncodeAll(src, dst) }, func() { e.pool.Put(z) }
	}
	return nil, func() {}
}

func (e *encoder) newZstd() *zstd.Encoder {
	z, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(e.level.zstd()),
		zstd.WithEncoderConcurrency(1),
		// A frame has no more than a cluster to look back to.
		zstd.WithWindowSize(max(e.clusterSize, zstd.MinWindowSize)),
		zstd.WithLowerEncoderMem(true),
		zstd.WithEncoderCRC(false),
		zstd.WithSingleSegment(true)) // puts the content size into the frame
	if err != nil {
		panic(err) // the options are constants but for the window, which is in range
	}
	return z
}
