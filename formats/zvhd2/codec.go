package zvhd2

import (
	"errors"
	"fmt"
	"sync"

	"imgferry/formats/hwstream"
	"imgferry/inflate"

	"github.com/klauspost/compress/zstd"
)

// Codec is how blocks are compressed.
type Codec uint8

// The codecs there are. Both are read; Zstd is what the reference writer makes.
const (
	Zstd Codec = iota // one frame per block
	Zlib              // one sync-flushed zlib stream per block
)

// String returns "zstd" or "zlib".
func (c Codec) String() string {
	switch c {
	case Zstd:
		return "zstd"
	case Zlib:
		return "zlib"
	}
	return fmt.Sprintf("codec %d", uint8(c))
}

// The numbers of the codecs in a file (compress_method).
const (
	methodZlib = 0
	methodZstd = 1
)

// method returns the codec's number in a file.
func (c Codec) method() byte {
	if c == Zlib {
		return methodZlib
	}
	return methodZstd
}

// codecOf returns the codec with that number, one of the two.
func codecOf(method byte) Codec {
	if method == methodZlib {
		return Zlib
	}
	return Zstd
}

// Level is how hard the encoder tries.
type Level uint8

// The levels of the encoder: about zstd's own 3 (the default), 1, 8 and 11; zlib's own 1, 1, 6 and 9.
// Decoding costs the same.
const (
	LevelDefault Level = iota
	LevelFastest
	LevelBetter
	LevelBest
)

// String returns "default", "fastest", "better" or "best".
func (l Level) String() string {
	if l > LevelBest {
		return fmt.Sprint(uint8(l))
	}
	return l.zstd().String()
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

// ParseLevel is the inverse of String.
func ParseLevel(s string) (Level, error) {
	for l := LevelDefault; l <= LevelBest; l++ {
		if l.String() == s {
			return l, nil
		}
	}
	return 0, fmt.Errorf("%q is no level: use fastest, default, better or best", s)
}

// zlib returns the level as zlib counts.
func (l Level) zlib() int {
	switch l {
	case LevelBetter:
		return 6
	case LevelBest:
		return 9
	}
	return 1 // that of the reference writer
}

// encoder compresses blocks of BlockSize bytes. It is pure: what it appends depends on the block
// alone, not on blocks before it. Safe for concurrent use; each goroutine costs one state.
type encoder struct {
	codec     Codec
	level     Level
	deflaters hwstream.Deflaters

	mu sync.Mutex
	// idle has as many as were in use at once. A sync.Pool would drop them whenever the garbage collector runs,
	// which is often while part buffers fill the memory, and they are most of what it then has to collect.
	idle []*zstd.Encoder
}

// name returns codec and level, which with the block decide the bytes that append makes.
func (e *encoder) name() string {
	if e.codec == Zlib {
		return fmt.Sprint("zlib ", e.level.zlib())
	}
	return e.codec.String() + " " + e.level.String()
}

// append appends block compressed.
func (e *encoder) append(dst, block []byte) ([]byte, error) {
	if e.codec == Zlib {
		level := e.level.zlib()
		return e.deflaters.Append(append(dst, hwstream.ZlibHead(level)...), block, level)
	}
	return e.appendZstd(dst, block)
}

func (e *encoder) appendZstd(dst, block []byte) ([]byte, error) {
	z := e.take()
	if z == nil {
		var err error
		z, err = zstd.NewWriter(nil,
			zstd.WithEncoderLevel(e.level.zstd()),
			zstd.WithEncoderConcurrency(1),
			// A frame has no more than a block to look back to: the same bytes and speed with
			// 3.5 MiB of memory instead of 17.5.
			zstd.WithWindowSize(BlockSize),
			zstd.WithLowerEncoderMem(true),
			zstd.WithEncoderCRC(false),
			zstd.WithSingleSegment(true)) // puts the content size into the frame
		if err != nil {
			return nil, err
		}
	}
	defer e.giveBack(z)
	return z.EncodeAll(block, dst), nil
}

// take returns an idle encoder, or nil.
func (e *encoder) take() *zstd.Encoder {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := len(e.idle) - 1
	if n < 0 {
		return nil
	}
	z := e.idle[n]
	e.idle = e.idle[:n]
	return z
}

func (e *encoder) giveBack(z *zstd.Encoder) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.idle = append(e.idle, z)
}

var (
	errLength   = errors.New("it doesn't decode to exactly 2 MiB")
	errFinished = errors.New("its zlib stream doesn't end in a sync flush")
	errMethod   = errors.New("unknown compression method")
)

// decode decodes payload into dst, which must become full, exactly.
func (c Codec) decode(dst, payload []byte) error {
	switch c {
	case Zstd:
		return decodeZstd(dst, payload)
	case Zlib:
		if !hwstream.Flushed(payload) { // of no use to anybody who gets the file from us
			return errFinished
		}
		n, err := inflate.ZlibFlushed(dst, payload)
		if err == nil && n != len(dst) {
			err = errLength
		}
		return err
	}
	return errMethod
}

// zstdMaxWindow is the largest window that a frame may ask for: the largest of libzstd on 64 bits.
// It costs nothing, since blocks are decoded in one piece, into their place.
const zstdMaxWindow = 1<<31 + 7<<28

// zstdDecoders holds *zstd.Decoder, all with the options of decodeZstd.
var zstdDecoders sync.Pool

func decodeZstd(dst, payload []byte) error {
	d, ok := zstdDecoders.Get().(*zstd.Decoder)
	if !ok {
		var err error
		d, err = zstd.NewReader(nil,
			zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderLowmem(false), // fixed scratch of some 400 KiB instead of growing
			zstd.WithDecoderMaxWindow(zstdMaxWindow),
			// Output never grows beyond dst by more than the zstd block (128 KiB) that
			// overflows it, whatever the frames announce.
			zstd.WithDecodeAllCapLimit(true))
		if err != nil {
			return err
		}
	}
	defer zstdDecoders.Put(d)
	out, err := d.DecodeAll(payload, dst[:0:len(dst)])
	if err == nil && len(out) != len(dst) {
		err = errLength
	}
	return err
}

// Encoder names the codec and its level: with a block, they decide the block's stored bytes.
func (o Options) Encoder() string {
	return (&encoder{codec: o.Codec, level: o.Level}).name()
}
