package pipeline

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"iter"
	"sync/atomic"

	"imgferry/bitmap"
	"imgferry/convert"
	"imgferry/formats"
	"imgferry/formats/hwstream"
	"imgferry/formats/zvhd2"
	"imgferry/upload"
)

// recorder is the engine's target of a push: a ZVHD2 writer into parts, which tells the journal what they
// are made of. Parts that the journal knows and the store has are not made again: their blocks are
// neither read nor encoded, and the writer only learns how long their chunks are.
type recorder struct {
	img    formats.Image
	parts  *upload.PartWriter
	out    switched // between writer and parts
	writer *zvhd2.Writer
	// encoders make chunks, by level.
	encoders [zvhd2.LevelBest + 1]*zvhd2.Writer
	level    atomic.Uint32 // for blocks from now on
	part     zvhd2.Level   // of the part under way
	auto     *autoLevel    // nil: the level stays
	// turns, if not nil, has as many places as blocks may be encoded at once, WriteBlock's among them: each more
	// would leave an encoder of every level behind.
	turns chan struct{}
	known []upload.JournalPart
	first []byte            // the chunk of the first known block; nil: none
	next  [sha256.Size]byte // of the block that comes next
	sum   *convert.Summer
}

func newRecorder(img formats.Image, size int64, level zvhd2.Level, parts *upload.PartWriter, known []upload.JournalPart) (*recorder, error) {
	r := &recorder{img: img, parts: parts, known: known, sum: convert.NewSummer(), part: level}
	r.out.w = parts
	if n := unbroken(known); n > 0 {
		level = zvhd2.Level(known[n-1].Level) // of what is encoded first
	}
	r.level.Store(uint32(level))
	var err error
	if r.writer, err = zvhd2.NewWriter(&r.out, zvhd2.Options{OrigSize: size, Level: r.part}); err != nil {
		return nil, err
	}
	for l := range r.encoders {
		if r.encoders[l], err = zvhd2.NewWriter(io.Discard, zvhd2.Options{OrigSize: size, Level: zvhd2.Level(l)}); err != nil {
			return nil, err
		}
	}
	if len(known) > 0 && known[0].Number == 1 {
		// The header depends on the first block, so that one is made again. It proves the journal, too.
		err = r.makeFirst(known[0])
	}
	return r, err
}

func (r *recorder) makeFirst(p upload.JournalPart) error {
	chunk, sum, err := r.encode(p.Chunks[0].Block, zvhd2.Level(p.Level))
	if err != nil {
		return err
	}
	if sum != p.Chunks[0].Sum || int64(len(chunk)) != p.Chunks[0].Length {
		return fmt.Errorf("%w: block %d is another one", upload.ErrJournal, p.Chunks[0].Block)
	}
	r.first = chunk
	return nil
}

// encode reads and encodes one block.
func (r *recorder) encode(index int64, level zvhd2.Level) (chunk []byte, sum [sha256.Size]byte, err error) {
	block := make([]byte, convert.BlockSize)
	off := index * convert.BlockSize
	n := min(convert.BlockSize, r.img.Size()-off)
	if n <= 0 || level > zvhd2.LevelBest {
		return nil, sum, fmt.Errorf("%w: there is no block %d of level %d", upload.ErrJournal, index, level)
	}
	if err := formats.ReadFull(r.img, block[:n], off); err != nil {
		return nil, sum, fmt.Errorf("reading the disk at %d: %w", off, err)
	}
	chunk, err = r.encodeAt(level, nil, index, block)
	return chunk, sha256.Sum256(block), err
}

// encodeAt appends the block's chunk. Safe for concurrent use.
func (r *recorder) encodeAt(level zvhd2.Level, dst []byte, index int64, block []byte) ([]byte, error) {
	if r.turns != nil {
		r.turns <- struct{}{}
		defer func() { <-r.turns }()
	}
	return r.encoders[level].Encode(dst, index, block)
}

// BlockSize returns the unit of the engine in bytes.
func (r *recorder) BlockSize() int { return zvhd2.BlockSize }

// MaxEncodedSize returns the most bytes that Encode appends: a chunk and its level.
func (r *recorder) MaxEncodedSize() int { return zvhd2.ChunkBound + 1 }

// Encode appends the block's chunk and its level. Safe for concurrent use.
func (r *recorder) Encode(dst []byte, index int64, block []byte) ([]byte, error) {
	level := zvhd2.Level(r.level.Load())
	dst, err := r.encodeAt(level, dst, index, block)
	return append(dst, byte(level)), err
}

// Sum takes the SHA-256 of the block that comes next.
func (r *recorder) Sum(_ int64, sum [sha256.Size]byte) { r.next = sum }

// WriteBlock takes what Encode made, ascending.
func (r *recorder) WriteBlock(index int64, encoded []byte) error {
	if err := r.replay(index); err != nil {
		return err
	}
	n := len(encoded) - 1
	chunk, sum, level := encoded[:n], r.next, zvhd2.Level(encoded[n])
	// A part between known ones was of the level of the one before: see settled.
	if r.parts.AtStart() && r.auto != nil && len(r.known) == 0 {
		r.setLevel(r.auto.next(r.part, r.parts))
	}
	if level != r.part {
		// It was encoded before the level changed, or for the next part: parts have one level.
		var err error
		if chunk, sum, err = r.encode(index, r.part); err != nil {
			return err
		}
	}
	r.parts.Note(upload.Chunk{Block: index, Length: int64(len(chunk)), Sum: sum}, uint8(r.part))
	r.sum.Add(index, sum)
	return r.writer.WriteBlock(index, chunk)
}

// Close writes what follows the last block.
func (r *recorder) Close() error {
	if err := r.replay(bitmap.Blocks(r.img.Size())); err != nil {
		return err
	}
	r.parts.Note(upload.Chunk{Block: upload.Tail}, uint8(r.part))
	return r.writer.Close()
}

// setLevel sets the level of the part that begins, and of blocks that are encoded from now on.
func (r *recorder) setLevel(l zvhd2.Level) {
	r.part = l
	r.level.Store(uint32(l))
}

// replay tells the writer of the known parts before block.
func (r *recorder) replay(block int64) error {
	for len(r.known) > 0 && r.known[0].Chunks[0].Block < block {
		if err := r.replayPart(r.known[0]); err != nil {
			return err
		}
		r.known = r.known[1:]
	}
	return nil
}

func (r *recorder) replayPart(p upload.JournalPart) error {
	if err := r.parts.Known(p); err != nil {
		return err
	}
	r.out.off = true
	defer func() { r.out.off = false }()
	start := r.writer.Written()
	for _, c := range p.Chunks {
		chunk := r.first
		if start > 0 || r.writer.Written() > 0 {
			chunk = blank(c)
		}
		if err := r.writer.WriteBlock(c.Block, chunk); err != nil {
			return fmt.Errorf("%w: %w", upload.ErrJournal, err)
		}
		r.sum.Add(c.Block, c.Sum)
	}
	if n := r.writer.Written() - start; n != p.Size {
		return fmt.Errorf("%w: part %d has %d bytes, not %d", upload.ErrJournal, p.Number, n, p.Size)
	}
	r.setLevel(zvhd2.Level(p.Level))
	return nil
}

// blank is a chunk of the right length for the right block. Its payload, which nobody reads, is zeros.
func blank(c upload.Chunk) []byte {
	b := hwstream.AppendHead(make([]byte, 0, c.Length), uint32(c.Block), 0)
	b = append(b, make([]byte, c.Length-hwstream.HeadSize-int64(len(hwstream.Postfix)))...)
	return hwstream.Seal(b, 0)
}

// switched is a writer that can be turned off.
type switched struct {
	w   io.Writer
	off bool
}

// Write writes p, or takes it for written.
func (s *switched) Write(p []byte) (int, error) {
	if s.off {
		return len(p), nil
	}
	return s.w.Write(p)
}

// replayable returns the parts of an upload that need not be made again: those of whole chunks of a disk
// of so many blocks, one behind the other. The part with the file's end is not among them. nil where
// they contradict each other.
func replayable(parts []upload.JournalPart, blocks int64) []upload.JournalPart {
	var out []upload.JournalPart
	next := int64(0)
	for _, p := range parts {
		sum := int64(0)
		if p.Number == 1 {
			sum = hwstream.Page // the header
		}
		for _, c := range p.Chunks {
			if c.Block != upload.Tail && (c.Block < next || c.Block >= blocks || c.Length%hwstream.Page != 0 || c.Length > zvhd2.ChunkBound) {
				return nil
			}
			sum += c.Length
			next = c.Block + 1
		}
		if p.Level > uint8(zvhd2.LevelBest) {
			return nil
		}
		if n := len(p.Chunks); n > 0 && p.Chunks[n-1].Block != upload.Tail && sum == p.Size {
			out = append(out, p)
		}
	}
	return out
}

// settled returns the parts up to the first gap on whose two sides the level differs. Parts in a gap are
// encoded at the level of the one before: where that may be wrong, what is behind is not where it would have
// to be, and is compared with what the store has instead.
func settled(parts []upload.JournalPart) []upload.JournalPart {
	for i := 1; i < len(parts); i++ {
		if parts[i].Number != parts[i-1].Number+1 && parts[i].Level != parts[i-1].Level {
			return parts[:i]
		}
	}
	return parts
}

// unbroken returns how many parts there are from the first one on without a gap.
func unbroken(parts []upload.JournalPart) int {
	n := 0
	for n < len(parts) && parts[n].Number == n+1 {
		n++
	}
	return n
}

// blockRange is blocks from first to before end.
type blockRange struct{ first, end int64 }

// covered returns the blocks that the parts were made from, and the zeros between neighbours.
func covered(parts []upload.JournalPart) []blockRange {
	var out []blockRange
	for i, p := range parts {
		r := blockRange{p.Chunks[0].Block, p.Chunks[len(p.Chunks)-1].Block + 1}
		switch {
		case p.Number == 1:
			r.first = 0
		case i > 0 && parts[i-1].Number == p.Number-1:
			out[len(out)-1].end = r.end
			continue
		}
		out = append(out, r)
	}
	return out
}

// without is an image whose extents are zero in some ranges of blocks: the engine leaves them out.
type without struct {
	formats.Image
	hidden []blockRange
}

// Extents yields the image's, cut at the ranges.
func (w without) Extents(ctx context.Context) iter.Seq2[formats.Extent, error] {
	return func(yield func(formats.Extent, error) bool) {
		hidden := w.hidden
		for x, err := range w.Image.Extents(ctx) {
			if err != nil {
				yield(x, err)
				return
			}
			for x.Length > 0 {
				for len(hidden) > 0 && hidden[0].end*convert.BlockSize <= x.Offset {
					hidden = hidden[1:]
				}
				piece, zero := x.Length, false
				if len(hidden) > 0 {
					first, end := hidden[0].first*convert.BlockSize, hidden[0].end*convert.BlockSize
					if zero = x.Offset >= first; zero {
						piece = min(piece, end-x.Offset)
					} else {
						piece = min(piece, first-x.Offset)
					}
				}
				one := x
				one.Length, one.Zero = piece, x.Zero || zero
				if !yield(one, nil) {
					return
				}
				x.Offset, x.Length = x.Offset+piece, x.Length-piece
				if x.HostOffset >= 0 {
					x.HostOffset += piece
				}
			}
		}
	}
}
