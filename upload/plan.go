package upload

import (
	"context"
	"fmt"
	"io"
	"iter"

	"github.com/dustin/go-humanize"
)

// Limits of the S3 multipart protocol, which OBS shares, and our margins inside them.
const (
	// MaxParts is how many parts an upload may have, and MaxPartSize is the largest size of one, in bytes:
	// the protocol's.
	MaxParts    = 10_000
	MaxPartSize = 5 << 30
	// planParts is how many parts we plan for: 5 % below the limit, because a stream's parts end
	// at chunk boundaries and its tail is only estimated.
	planParts = 9_500
	// minPartSize keeps requests few and stays above the 5 MiB that S3 demands (OBS: 100 KB).
	minPartSize = 8 << 20
	// streamStep rounds a stream's part size, so that a slightly different worst case still gives
	// the same part boundaries and an unfinished upload can be resumed.
	streamStep = 1 << 20
	// rawStep is the block that zero detection and the block bitmap work in.
	rawStep = 2 << 20
)

// MaxChunk is the largest write that is never split between two parts, in bytes: a 2 MiB block
// that did not compress, with one page of framing.
const MaxChunk = 2<<20 + 4<<10

// DefaultMemory is what part buffers may take together unless told otherwise, in bytes. It leaves
// about 100 MiB for encoders and the runtime below the peak of 320 MiB that a push promises.
const DefaultMemory = 224 << 20

// minBuffers lets one part fill while another is sent.
const minBuffers = 2

// Plan says how a stream of unknown length becomes parts.
type Plan struct {
	// PartSize is the size that ends a part: a part ends at the first chunk that reaches it. Bytes.
	PartSize int64
	// BufferSize is the capacity of one part buffer, PartSize plus the largest chunk. Bytes.
	BufferSize int64
	// Buffers is the number of part buffers.
	Buffers int
}

// MemoryError says that the memory allowed does not hold two part buffers. Sizes in bytes.
type MemoryError struct {
	Need, Have int64
}

// Error returns one sentence.
func (e *MemoryError) Error() string {
	return fmt.Sprintf("two part buffers of an upload of this size take %d MiB of memory, and only %s are allowed",
		ceilDiv(e.Need, 1<<20), exactly(e.Have))
}

// exactly is so many bytes in words; where rounding would hide some of them, in bytes.
func exactly(n int64) string {
	words := humanize.IBytes(uint64(n))
	if said, err := humanize.ParseBytes(words); err != nil || said != uint64(n) {
		return fmt.Sprintf("%d bytes", n)
	}
	return words
}

// PartSizeError says that parts of that size won't do.
type PartSizeError struct {
	// Size is what was asked for, Least and Most are what is possible, in bytes.
	Size, Least, Most int64
}

// Error returns one sentence.
func (e *PartSizeError) Error() string {
	return fmt.Sprintf("parts of %s won't do: an upload of this size takes parts of %d MiB to %d MiB",
		exactly(e.Size), ceilDiv(e.Least, 1<<20), e.Most>>20)
}

// checkPartSize refuses a size of parts, in bytes, that the protocol or so many bytes don't allow.
func checkPartSize(size, worstCase int64) error {
	least := max(minZeros, ceilDiv(worstCase, planParts))
	if most := int64(MaxPartSize / 2); size < least || size > most {
		return &PartSizeError{size, least, most}
	}
	return nil
}

// PlanStream plans the parts of a stream of at most worstCase bytes with part buffers of about
// memory bytes together (0: DefaultMemory, which goes up to 4 MiB higher for parts above 110 MiB). The part
// size, unless it is given, depends on worstCase alone: a run with another memory budget can resume the same
// upload. The error is *MemoryError if two buffers do not fit, *PartSizeError if partSize is not possible.
func PlanStream(worstCase, partSize, memory int64) (Plan, error) {
	if worstCase < 0 || memory < 0 {
		return Plan{}, fmt.Errorf("no upload of %d bytes in %d bytes of memory can be planned", worstCase, memory)
	}
	size := roundUp(max(minPartSize, ceilDiv(worstCase, planParts)), streamStep)
	if size > MaxPartSize-MaxChunk {
		return Plan{}, tooLarge(worstCase)
	}
	if partSize != 0 {
		if err := checkPartSize(partSize, worstCase); err != nil {
			return Plan{}, err
		}
		size = partSize
	}
	// A part may go up to one chunk beyond its size, and with chunks of just under 2 MiB most do: a
	// budget counted in part sizes alone would be overrun by a quarter.
	buffer := size + MaxChunk
	need := minBuffers * buffer
	if memory == 0 {
		memory = DefaultMemory
	}
	if memory == DefaultMemory {
		// It is for two parts of a full disk of 1 TiB, 111 MiB each, and what they go beyond that.
		memory = max(memory, min(need, memory+minBuffers*MaxChunk))
	}
	if memory < need {
		return Plan{}, &MemoryError{Need: need, Have: memory}
	}
	return Plan{PartSize: size, BufferSize: buffer, Buffers: int(min(memory/buffer, planParts))}, nil
}

// RawPlan says how an object of known size becomes parts of one size; the last may be shorter.
type RawPlan struct {
	// Size is the object's, PartSize a part's, both in bytes.
	Size, PartSize int64
	// Count is the number of parts.
	Count int
}

// PlanRaw plans an object of size bytes whose parts are whole 2 MiB blocks, unless partSize says how many
// bytes they have (*PartSizeError: it is not possible).
func PlanRaw(size, partSize int64) (RawPlan, error) {
	if size <= 0 {
		return RawPlan{}, fmt.Errorf("no upload of %d bytes can be planned", size)
	}
	part := roundUp(max(minPartSize, ceilDiv(size, planParts)), rawStep)
	if part > MaxPartSize {
		return RawPlan{}, tooLarge(size)
	}
	if partSize != 0 {
		if err := checkPartSize(partSize, size); err != nil {
			return RawPlan{}, err
		}
		part = partSize
	}
	return RawPlan{Size: size, PartSize: part, Count: int(ceilDiv(size, part))}, nil
}

// ID tells this plan from any other.
func (p RawPlan) ID() string { return fmt.Sprintf("%d bytes in parts of %d", p.Size, p.PartSize) }

// Parts returns the plan's parts. Their bytes are read from r while they are sent, and read again
// when a request is repeated, so they take no buffer. r must allow concurrent reads.
func (p RawPlan) Parts(r io.ReaderAt) Sequence {
	return func(context.Context) iter.Seq2[Part, error] {
		return func(yield func(Part, error) bool) {
			for i := range p.Count {
				offset := int64(i) * p.PartSize
				size := min(p.PartSize, p.Size-offset)
				part := Part{Number: i + 1, Size: size, Body: io.NewSectionReader(r, offset, size)}
				if !yield(part, nil) {
					return
				}
			}
		}
	}
}

func tooLarge(size int64) error {
	return fmt.Errorf("%s are too much for one object: a store takes parts of at most 5 GiB, and %d of them are planned at most", exactly(size), planParts)
}

// ceilDiv and roundUp take a >= 0 and b > 0; no sum is formed that could overflow.
func ceilDiv(a, b int64) int64 {
	q := a / b
	if a%b != 0 {
		q++
	}
	return q
}

func roundUp(a, b int64) int64 { return ceilDiv(a, b) * b }
