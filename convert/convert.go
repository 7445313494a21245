// Package convert is the engine: it walks a disk's extents, reads and encodes blocks of 2 MiB on
// many goroutines, and hands them to one writer in order. It has the local targets too.
//
// It does not open images, knows no store, and starts no goroutine that outlives the call.
package convert

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"runtime"
	"sync/atomic"

	"imgferry/bitmap"
	"imgferry/formats"
)

// BlockSize is the unit of work in bytes.
const BlockSize = bitmap.BlockSize

// MaxSize is the largest virtual size that the engine takes, in bytes: twice the largest cloud disk.
// A header of a few bytes can claim exabytes, and one bit per block is kept in memory: 4 MiB here.
const MaxSize = 64 << 40

// CheckSize refuses a disk above MaxSize, as formats.ErrUnsupported.
func CheckSize(img formats.Image) error {
	if img.Size() > MaxSize {
		return formats.Unsupported("disk", -1, "a virtual size of %d bytes: the most is %d (64 TiB)", img.Size(), int64(MaxSize))
	}
	return nil
}

// Writer is a target that is produced front to back.
type Writer interface {
	// BlockSize is the target's block in bytes; the engine takes 2 MiB only.
	BlockSize() int
	// MaxEncodedSize bounds what Encode appends, in bytes.
	MaxEncodedSize() int
	// Encode appends the stored form of block index to dst. It is pure: many goroutines call it.
	Encode(dst []byte, index int64, block []byte) ([]byte, error)
	// WriteBlock takes encoded blocks, ascending, on one goroutine. It does not keep encoded.
	WriteBlock(index int64, encoded []byte) error
	// Close writes the trailer. It does not close what is below.
	Close() error
}

// SparseWriter is a Writer whose unit of storage is smaller than a block. To the others, a block is empty
// or not.
type SparseWriter interface {
	Writer
	// EncodeSparse is Encode, which leaves out what is zeros, but goes by empty instead: it says whether
	// the bytes of the block in these bounds, a unit of storage, count as empty. They are zeros then. What
	// lies behind the disk's end is left out in any case.
	EncodeSparse(dst []byte, index int64, block []byte, empty func(from, to int) bool) ([]byte, error)
}

// Options tune a run. The zero value is good.
type Options struct {
	// Workers is how many goroutines read and encode; 0 means what DefaultWorkers says.
	Workers int
	// Memory is for the engine's buffers, in bytes; 0 means DefaultMemory. Workers is a stronger wish.
	Memory int64
	// Digest asks for the content digest.
	Digest bool
	// Sum, if not nil, is called with the SHA-256 of each block that has a non-zero byte, padded with zeros to
	// 2 MiB, right before the target gets it.
	Sum func(index int64, sum [sha256.Size]byte)
	// Sparse says which blocks count as empty.
	Sparse Sparse
	// Progress is counted up as blocks are done, if not nil.
	Progress *Progress
}

// Progress is counters that somebody else polls.
type Progress struct {
	// Total is the bytes of the blocks that have to be read; 0 until known.
	Total atomic.Int64
	// Read is the guest bytes read and done with so far, in whole blocks as Total is.
	Read atomic.Int64
	// Stored is how many blocks had data so far.
	Stored atomic.Int64
}

// Result is what a run found out about the disk.
type Result struct {
	// Blocks has a bit for each 2 MiB block that is not empty, as Options.Sparse has it: with
	// SparseZeros, that holds a non-zero byte.
	Blocks *bitmap.Bitmap
	// Digest is the content digest, if it was asked for.
	Digest Digest
	// Read is the guest bytes that were read.
	Read int64
}

// Memory of a run in bytes: each slot holds a block and its encoded form, each worker an encoder.
// There are spare slots so that a worker goes on while the writer waits for an earlier block, and
// while blocks wait to be hashed together.
const (
	spareSlots    = 2 // at least
	slotMemory    = BlockSize + 2_101_248
	readerMemory  = 4 << 20 // what a format's reader takes for one read under way, at most
	encoderMemory = 4 << 20 // measured: zstd's default level on 2 MiB blocks takes 3.5 MiB
	workerMemory  = slotMemory + encoderMemory + readerMemory
	// maxWorkers bounds memory on large machines; a store's link is full long before.
	maxWorkers = 16
)

// DefaultWorkers returns how many workers to run: one per CPU that Go may use, as far as memory
// bytes allow, and at least one.
func DefaultWorkers(memory int64) int {
	n := (memory - spareSlots*slotMemory) / workerMemory
	return int(max(1, min(n, maxWorkers, int64(runtime.GOMAXPROCS(0)))))
}

// DefaultMemory is what a local conversion may use for its buffers, in bytes: 200 MiB of peak RSS
// less the program itself and the garbage collector's slack.
const DefaultMemory = 128 << 20

func (o Options) workers() int {
	if o.Workers > 0 {
		return o.Workers
	}
	return DefaultWorkers(o.memory())
}

func (o Options) memory() int64 { return cmp.Or(o.Memory, DefaultMemory) }

// spare returns how many slots there are beyond one for each worker: of those in which blocks wait to be hashed, as
// many as the memory allows.
func (o Options) spare() int {
	if !o.Digest && o.Sum == nil {
		return spareSlots
	}
	n := (o.memory() - int64(o.workers())*workerMemory) / slotMemory
	return int(max(spareSlots, min(n, int64(spareSlots+hashLanes()-1))))
}

// Stream writes img to w: the blocks that hold data, in order, then w's trailer. The first error
// of img, w or ctx ends it; w is then unfinished and Close was not called.
func Stream(ctx context.Context, img formats.Image, w Writer, o Options) (Result, error) {
	if w.BlockSize() != BlockSize {
		return Result{}, fmt.Errorf("the engine works in blocks of %d bytes, the target in %d", BlockSize, w.BlockSize())
	}
	if err := CheckSize(img); err != nil {
		return Result{}, err
	}
	c := newCollector(img.Size(), o)
	encode := func(s *slot) ([]byte, error) { return w.Encode(s.encoded[:0], s.index, s.block) }
	if sw, ok := w.(SparseWriter); ok && o.Sparse != SparseZeros {
		empty := (*candidate).isEmpty
		if o.Sparse == SparseNone {
			empty = func(*candidate, int, int) bool { return false }
		}
		encode = func(s *slot) ([]byte, error) {
			return sw.EncodeSparse(s.encoded[:0], s.index, s.block, func(from, to int) bool { return empty(&s.candidate, from, to) })
		}
	}
	e := engine{
		img:     img,
		workers: o.workers(),
		spare:   o.spare(),
		all:     o.Sparse == SparseNone,
		buffers: func(s *slot) {
			s.block = newBlock()
			s.encoded = make([]byte, 0, w.MaxEncodedSize())
		},
		work: func(_ context.Context, s *slot) error {
			c.look(s)
			if s.empty {
				return nil
			}
			var err error
			s.encoded, err = encode(s)
			return err
		},
		emit: func(s *slot) error {
			c.add(s)
			if s.empty {
				return nil
			}
			return w.WriteBlock(s.index, s.encoded)
		},
		read: readBlock,
	}
	if err := e.run(ctx); err != nil {
		return Result{}, err
	}
	if err := w.Close(); err != nil {
		return Result{}, err
	}
	return c.result(), nil
}

// Scan reads img and writes nothing: it finds out which blocks hold data, and the digest if asked. It
// reads nothing where neither takes it.
func Scan(ctx context.Context, img formats.Image, o Options) (Result, error) {
	if err := CheckSize(img); err != nil {
		return Result{}, err
	}
	c := newCollector(img.Size(), o)
	if o.Sparse != SparseZeros && !o.Digest { // content plays no part
		for b, err := range candidates(ctx, img, o.Sparse == SparseNone) {
			if err != nil {
				return Result{}, err
			}
			c.blocks.Set(b.index)
		}
		return c.result(), nil
	}
	e := engine{
		img:     img,
		workers: o.workers(),
		spare:   o.spare(),
		all:     o.Sparse == SparseNone,
		buffers: func(s *slot) { s.block = newBlock() },
		work:    func(_ context.Context, s *slot) error { c.look(s); return nil },
		emit:    func(s *slot) error { c.add(s); return nil },
		read:    readBlock,
	}
	if err := e.run(ctx); err != nil {
		return Result{}, err
	}
	return c.result(), nil
}

// decoderRoom is capacity beyond a buffer's length that lets decoders write in whole words.
const decoderRoom = 64

// newBlock returns a buffer for a block.
func newBlock() []byte { return make([]byte, BlockSize, BlockSize+decoderRoom) }

// readBlock fills s.block with the guest bytes of block s.index: what s.spans say, zeros elsewhere and
// beyond the disk's end.
func readBlock(img formats.Image, s *slot) error {
	start := s.index * BlockSize
	done := int64(0) // bytes of the block
	for _, x := range s.spans {
		from := x.off - start
		clear(s.block[done:from])
		done = from + x.n
		if err := formats.ReadFull(img, s.block[from:done], x.off); err != nil {
			return fmt.Errorf("reading the disk at %d: %w", x.off, err)
		}
	}
	clear(s.block[done:])
	return nil
}

// collector gathers what a run finds out, in emit order, and counts progress.
type collector struct {
	blocks *bitmap.Bitmap
	digest *Summer                                  // nil: no digest
	tell   func(index int64, sum [sha256.Size]byte) // nil: nobody
	sparse Sparse
	size   int64
	read   int64
	p      *Progress
}

func newCollector(size int64, o Options) *collector {
	c := &collector{blocks: bitmap.New(bitmap.Blocks(size)), size: size, sparse: o.Sparse, tell: o.Sum, p: o.Progress}
	if o.Digest {
		c.digest = NewSummer()
	}
	if c.p == nil {
		c.p = new(Progress)
	}
	return c
}

// hashes says whether the hashes of blocks are wanted.
func (c *collector) hashes() bool { return c.digest != nil || c.tell != nil }

// look runs on a worker: is the block zero, and if not, is its hash wanted?
func (c *collector) look(s *slot) {
	c.found(s, (c.hashes() || c.sparse == SparseZeros) && bitmap.IsZero(s.block))
}

// found notes what follows for s from whether its block is zero.
func (c *collector) found(s *slot, zero bool) {
	s.empty = zero && c.sparse == SparseZeros
	s.hash = !zero && c.hashes()
}

// add runs on the one emitter.
func (c *collector) add(s *slot) {
	n := min(BlockSize, c.size-s.index*BlockSize)
	c.read += n
	if s.hash {
		if c.digest != nil {
			c.digest.Add(s.index, s.sum)
		}
		if c.tell != nil {
			c.tell(s.index, s.sum)
		}
	}
	if !s.empty {
		c.blocks.Set(s.index)
		c.p.Stored.Add(1)
	}
	c.p.Read.Add(BlockSize)
}

func (c *collector) result() Result {
	r := Result{Blocks: c.blocks, Read: c.read}
	if c.digest != nil {
		r.Digest = c.digest.Digest()
	}
	return r
}
