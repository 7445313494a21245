package source

import (
	"bufio"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Packing is a way in which a whole file is compressed.
type Packing string

// The packings, by the endings of their files' names.
const (
	Gzip  Packing = "gz"
	XZ    Packing = "xz"
	Zstd  Packing = "zst"
	Bzip2 Packing = "bz2"
)

const (
	// maxDictionary bounds what one decoder keeps of what it has unpacked, in bytes: xz -9 takes as
	// much, and zstd --ultra -22 twice that.
	maxDictionary = 64 << 20
	maxWindow     = 128 << 20
	// packedBuffer is how much of a packed file is read at once, in bytes.
	packedBuffer = 128 << 10
)

// What packed files fail with, for errors.Is.
var (
	// ErrCorrupt: the packed file contradicts itself, or ends too early.
	ErrCorrupt = errors.New("the compressed file is corrupt")
	// ErrTooLarge: there is more in the packed file than is allowed.
	ErrTooLarge = errors.New("more than is allowed comes out of the compressed file")
	// ErrDictionary: unpacking takes more memory than is allowed.
	ErrDictionary = errors.New("unpacking takes too large a dictionary")
)

// PackingOf tells by its first bytes how src is compressed; "" says that it is not.
func PackingOf(src io.ReaderAt) (Packing, error) {
	var b [10]byte
	n, err := src.ReadAt(b[:], 0)
	if err != nil && err != io.EOF {
		return "", err
	}
	begins := func(magic string) bool { return n >= len(magic) && string(b[:len(magic)]) == magic }
	switch {
	case begins("\x1f\x8b\x08"): // RFC 1952, 2.3.1: deflate is the only method there is
		return Gzip, nil
	case begins("\xfd7zXZ\x00"): // The .xz File Format 1.2, 2.1.1.1
		return XZ, nil
	case begins("\x28\xb5\x2f\xfd"): // RFC 8878, 3.1.1
		return Zstd, nil
	case n == len(b) && begins("BZh") && b[3] >= '1' && b[3] <= '9' && string(b[4:]) == "\x31\x41\x59\x26\x53\x59":
		// bzip2 has no specification: "BZh", the level, and the first block's mark (the digits of pi).
		return Bzip2, nil
	}
	return "", nil
}

// unpacker reads what is in a packed file, once, front to back.
type unpacker struct {
	packing Packing
	in      *noting
	out     io.Reader
	close   func()
}

// unpack begins at the front. ctx ends reads.
func unpack(ctx context.Context, src io.ReaderAt, size int64, packing Packing) (*unpacker, error) {
	in := &noting{ctx: ctx, r: io.NewSectionReader(src, 0, size)}
	u := &unpacker{packing: packing, in: in, close: func() {}}
	buffered := bufio.NewReaderSize(in, packedBuffer)
	var err error
	switch packing {
	case Gzip:
		u.out, err = gzip.NewReader(buffered)
	case XZ:
		u.out, err = xz.NewReader(bufio.NewReader(newXZGuard(buffered)))
	case Zstd:
		var d *zstd.Decoder
		// One goroutine: nothing is left running when nobody reads to the end.
		d, err = zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(math.MaxInt64))
		if err == nil {
			u.out, u.close = d, d.Close
		}
	case Bzip2:
		u.out = bzip2.NewReader(buffered)
	default:
		err = fmt.Errorf("no packing is called %q", packing)
	}
	if err == io.EOF { // in its header
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, u.explain(err)
	}
	return u, nil
}

// Read reads what is inside.
func (u *unpacker) Read(p []byte) (int, error) {
	n, err := u.out.Read(p)
	return n, u.explain(err)
}

// explain tells a file that can't be read from one that is wrong.
func (u *unpacker) explain(err error) error {
	switch {
	case err == nil || err == io.EOF:
		return err
	case u.in.err != nil:
		return u.in.err
	case errors.Is(err, ErrDictionary), errors.Is(err, zstd.ErrWindowSizeExceeded):
		return fmt.Errorf("%w: unpack the %s file with its own program first", ErrDictionary, u.packing)
	}
	return fmt.Errorf("%w (%s): %w", ErrCorrupt, u.packing, err)
}

// noting remembers the first failure of the reader below: decoders replace it by their own words.
type noting struct {
	ctx context.Context
	r   io.Reader
	err error
}

func (n *noting) Read(p []byte) (int, error) {
	if n.err == nil && n.ctx.Err() != nil {
		n.err = context.Cause(n.ctx)
	}
	if n.err != nil {
		return 0, n.err
	}
	m, err := n.r.Read(p)
	if err != nil && err != io.EOF {
		n.err = err
	}
	return m, err
}
