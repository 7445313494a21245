package qcow2

import (
	"errors"
	"sync"

	"github.com/klauspost/compress/zstd"

	"imgferry/inflate"
)

// decodeSlack is how many bytes of capacity beyond its output let the zstd decoder copy in whole
// words. They are scratch.
const decodeSlack = 16

// maxZstdWindow is the largest window in bytes that libzstd, and with it QEMU, decodes unasked. It
// costs no memory here: frames are decoded in one piece.
const maxZstdWindow = 128 << 20

var (
	errShort   = errors.New("it holds less than a cluster")
	errTooLong = errors.New("it holds more than a cluster")
	errFrame   = errors.New("its zstd frame is damaged")
)

// decodeDeflate fills dst with the raw deflate stream at the start of src.
func decodeDeflate(dst, src []byte) error {
	n, err := inflate.Raw(dst, src)
	switch {
	case errors.Is(err, inflate.ErrTooLong):
		return errTooLong
	case err != nil:
		return err
	case n < len(dst):
		return errShort
	}
	return nil
}

// zstdDecoders start no goroutines: they are only used for DecodeAll.
var zstdDecoders = sync.Pool{New: func() any {
	d, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderLowmem(false), // 128 KiB of literals once, instead of growing
		zstd.WithDecoderMaxMemory(maxZstdWindow),
		zstd.WithDecodeAllCapLimit(true)) // output never outgrows its cluster
	if err != nil {
		panic(err) // constant options
	}
	return d
}}

// zstdRooms are where clusters are decoded that have no room behind them (*[]byte): to copy one costs
// less than the decoder's careful way does.
var zstdRooms = sync.Pool{New: func() any { return new([]byte) }}

// decodeZstd fills dst with the zstd frames at the start of src. What follows them is ignored: the
// next cluster's data, or padding. Up to decodeSlack bytes of dst's capacity beyond its length may
// be overwritten.
func decodeZstd(dst, src []byte) error {
	if cap(dst)-len(dst) < decodeSlack {
		room := zstdRooms.Get().(*[]byte)
		defer zstdRooms.Put(room)
		if cap(*room) < len(dst)+decodeSlack {
			*room = make([]byte, len(dst)+decodeSlack)
		}
		copied := (*room)[:len(dst)]
		err := decodeZstd(copied, src)
		copy(dst, copied)
		return err
	}
	d := zstdDecoders.Get().(*zstd.Decoder)
	defer zstdDecoders.Put(d)
	limit := min(cap(dst), len(dst)+decodeSlack)
	for n := 0; n < len(dst); {
		// The decoder takes whatever follows a frame for another frame: find the frame's end.
		frame, err := zstdFrame(src)
		if err != nil {
			return err
		}
		out, err := d.DecodeAll(frame, dst[n:n:limit])
		switch {
		case errors.Is(err, zstd.ErrDecoderSizeExceeded) || err == nil && len(out) > len(dst)-n:
			return errTooLong
		case err != nil:
			return err
		}
		copy(dst[n:], out) // a no-op unless the decoder needed room and moved
		n += len(out)
		if src = src[len(frame):]; n < len(dst) && len(src) == 0 {
			return errShort
		}
	}
	return nil
}

// zstdFrame returns the first frame of src (RFC 8878, 3.1).
func zstdFrame(src []byte) ([]byte, error) {
	var h zstd.Header
	if err := h.Decode(src); err != nil {
		return nil, errFrame
	}
	end := int64(h.HeaderSize)
	if h.Skippable {
		end += int64(h.SkippableSize)
	} else {
		for last := false; !last; {
			if end+3 > int64(len(src)) {
				return nil, errShort
			}
			b := src[end:]
			blockHeader := int64(b[0]) | int64(b[1])<<8 | int64(b[2])<<16
			last = blockHeader&1 != 0
			size := blockHeader >> 3
			if blockHeader>>1&3 == 1 { // RLE: one byte, repeated
				size = 1
			}
			end += 3 + size
		}
		if h.HasCheckSum {
			end += 4
		}
	}
	if end > int64(len(src)) {
		return nil, errShort
	}
	return src[:end], nil
}
