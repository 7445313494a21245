package upload

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
)

// Limits of a raw object's parts.
const (
	// minZeros is the shortest run of zeros that becomes a part of its own, in bytes: the least that
	// S3 takes as a part (OBS: 100 KB). Data before and behind it is stretched to as much.
	minZeros = 5 << 20
	// sparseParts is how many parts are planned at most; the last gaps are filled until they fit.
	sparseParts = 9_000
	// dataParts is how many of them data alone may take, zeroParts how many a disk without any: what
	// gaps add must fit as well.
	dataParts = 6_000
	zeroParts = 3_000
	// spareParts is what is planned above the parts that a disk without data takes, where these are
	// most of sparseParts already: with more than 42 TiB.
	spareParts = 400
	// minSaving is the least of zeros in bytes for which copies are made at all: below, sending the
	// seed and asking so often costs more.
	minSaving = 8 * seedSize
	// maxRuns bounds the memory of a map of data: 16 bytes each. With more, the smallest gaps are
	// filled at once.
	maxRuns = 1 << 17
)

// DataMap collects, front to back, where an object has data: the rest is zeros. Its memory is bounded
// whatever it is told.
type DataMap struct {
	size int64
	runs []dataRun
	gap  int64 // shorter gaps are filled at once; bytes
}

// dataRun is a run [start, end) of data, in bytes.
type dataRun struct{ start, end int64 }

// NewDataMap returns the map of an object of size bytes without data.
func NewDataMap(size int64) *DataMap { return &DataMap{size: size, gap: minZeros} }

// Add says that there is data in [start, end), behind all that was added before, in bytes.
func (m *DataMap) Add(start, end int64) {
	if n := len(m.runs); n > 0 && start-m.runs[n-1].end < m.gap {
		m.runs[n-1].end = end
		return
	}
	m.runs = append(m.runs, dataRun{start, end})
	for len(m.runs) > maxRuns {
		m.gap *= 2
		m.runs = fill(m.runs, m.gap)
	}
}

// fill joins runs with less than gap between them.
func fill(runs []dataRun, gap int64) []dataRun {
	out := runs[:0]
	for _, r := range runs {
		if n := len(out); n > 0 && r.start-out[n-1].end < gap {
			out[n-1].end = r.end
			continue
		}
		out = append(out, r)
	}
	return out
}

// SparsePlan says how an object of known size becomes parts of data and parts of zeros.
type SparsePlan struct {
	// Size is the object's, Data what of it has to be sent, in bytes. PartSize is what parts of data
	// have at most, but for short ones that are stretched, and for the rest of a sector.
	Size, Data, PartSize int64
	// Count is the number of parts.
	Count int
	parts []sparsePart
}

type sparsePart struct {
	offset, size int64
	zeros        bool
}

// CheckSparse says what is known of a plan before its data is: that there is one for an object of size
// bytes, and that partSize may be the size of its parts, in bytes (0: as it fits; else *PartSizeError).
func CheckSparse(size, partSize int64) error {
	if size <= 0 {
		return fmt.Errorf("no upload of %d bytes can be planned", size)
	}
	if size > planParts*MaxPartSize {
		return tooLarge(size)
	}
	if partSize != 0 {
		return checkPartSize(partSize, 0)
	}
	return nil
}

// Plan plans the parts of the object: partSize (0: as it fits) bounds parts of data. It depends on the
// content and on partSize alone, so that any later run can resume the upload. Without a partSize there is
// a plan for all that CheckSparse lets pass; the error for one that does not fit is *PartSizeError.
func (m *DataMap) Plan(partSize int64) (SparsePlan, error) {
	if err := CheckSparse(m.size, partSize); err != nil {
		return SparsePlan{}, err
	}
	runs := stretch(m.runs, m.size)
	if m.size-total(runs) < minSaving {
		runs = []dataRun{{0, m.size}}
	}
	if partSize != 0 {
		if err := checkPartSize(partSize, total(runs)); err != nil {
			return SparsePlan{}, err
		}
	}
	zeros := zeroPartSize(m.size)
	// Of the largest objects zeros alone take nearly sparseParts.
	most := max(sparseParts, ceilDiv(m.size, zeros)+spareParts)
	// The shortest gaps go first. Each one gone saves a part or two.
	gaps := make([]int64, 0, len(runs))
	for i := 1; i < len(runs); i++ {
		gaps = append(gaps, runs[i].start-runs[i-1].end)
	}
	slices.Sort(gaps)
	for step := len(gaps)/64 + 1; ; {
		data := total(runs)
		fits := dataPartSize(data, most-ceilDiv(m.size-data, zeros))
		p := SparsePlan{Size: m.size, Data: data, PartSize: cmp.Or(partSize, fits)}
		p.parts = cut(runs, m.size, p.PartSize, zeros)
		p.Count = len(p.parts)
		if int64(p.Count) <= most {
			return p, nil
		}
		if len(gaps) == 0 {
			// One run is left, with zeros before and behind it: what fits is at most three parts more
			// than planned. Only a partSize that was asked for gives too many.
			if p.Count > MaxParts {
				return SparsePlan{}, &PartSizeError{partSize, fits, MaxPartSize / 2}
			}
			return p, nil
		}
		n := min(step, len(gaps))
		runs = fill(runs, gaps[n-1]+1)
		gaps = gaps[n:]
	}
}

// ID tells this plan from any other: it is the same where all parts have the same places and sizes, and only
// there.
func (p SparsePlan) ID() string {
	h := sha256.New()
	var b []byte
	for _, q := range p.parts {
		b = binary.LittleEndian.AppendUint64(b[:0], uint64(q.offset))
		b = binary.LittleEndian.AppendUint64(b, uint64(q.size))
		b = strconv.AppendBool(b, q.zeros)
		h.Write(b)
	}
	return fmt.Sprintf("%d parts, SHA-256 %x", p.Count, h.Sum(nil))
}

// zeroPartSize is what parts of zeros have at most in an object of size bytes, in bytes: large ones take
// larger copies, or these alone would be too many.
func zeroPartSize(size int64) int64 {
	return min(roundUp(max(zerosSize, ceilDiv(size, zeroParts)), zerosSize), mostZeros)
}

// dataPartSize is the size of parts that so many bytes of data take where there is room for so many parts.
func dataPartSize(data, room int64) int64 {
	return min(roundUp(max(minPartSize, ceilDiv(data, min(dataParts, room))), rawStep), MaxPartSize)
}

func total(runs []dataRun) (n int64) {
	for _, r := range runs {
		n += r.end - r.start
	}
	return n
}

// stretch makes every run, and every gap between two, long enough for a part. Only the object's last
// part may be shorter.
func stretch(runs []dataRun, size int64) []dataRun {
	var out []dataRun
	for _, r := range runs {
		if r.start < minZeros {
			r.start = 0
		}
		r.end = max(r.end, min(r.start+minZeros, size))
		if n := len(out); n > 0 && r.start-out[n-1].end < minZeros {
			out[n-1].end = max(out[n-1].end, r.end)
			continue
		}
		out = append(out, r)
	}
	if n := len(out); n > 0 && size-out[n-1].end < minZeros {
		out[n-1].end = size
	}
	return out
}

// cut cuts runs into parts of at most partSize, and what lies between into parts of zeros of at most zeroSize.
// None but the object's last is shorter than the store takes, so a run is cut into parts of one size, but for
// one sector. Were all but the last rounded up to whole sectors, that one would have to pay for all of them.
func cut(runs []dataRun, size, partSize, zeroSize int64) []sparsePart {
	var parts []sparsePart
	add := func(start, end, most int64, zeros bool) {
		sectors := (end - start) / sectorSize // what is left over goes to the last part
		n := ceilDiv(end-start, most)
		for n > 1 && sectors/n*sectorSize < minZeros {
			n--
		}
		at := start
		for i := range n {
			next := end
			if i < n-1 {
				next = start + ceilDiv(sectors*(i+1), n)*sectorSize
			}
			parts = append(parts, sparsePart{at, next - at, zeros})
			at = next
		}
	}
	at := int64(0)
	for _, r := range runs {
		add(at, r.start, zeroSize, true)
		add(r.start, r.end, partSize, false)
		at = r.end
	}
	add(at, size, zeroSize, true)
	return parts
}

// sectorSize is what parts of a disk begin at, in bytes.
const sectorSize = 4096

// Parts returns the plan's parts. Those of data are read from r while they are sent, and read again when
// a request is repeated, so they take no buffer. r must allow concurrent reads.
func (p SparsePlan) Parts(r io.ReaderAt) Sequence {
	return func(ctx context.Context) iter.Seq2[Part, error] {
		return func(yield func(Part, error) bool) {
			sums, err := zeroSums(ctx, p.zeroLengths())
			if err != nil {
				yield(Part{}, err)
				return
			}
			for i, q := range p.parts {
				part := Part{Number: i + 1, Size: q.size, Zeros: q.zeros}
				if q.zeros {
					part.Body = io.NewSectionReader(zeroBody{q.size}, 0, q.size)
					sum := sums[q.size]
					part.Sum = &sum
				} else {
					part.Body = io.NewSectionReader(r, q.offset, q.size)
				}
				if !yield(part, nil) {
					return
				}
			}
		}
	}
}

// zeroLengths returns the lengths of the parts of zeros, each once, ascending.
func (p SparsePlan) zeroLengths() []int64 {
	var lengths []int64
	for _, q := range p.parts {
		if q.zeros {
			lengths = append(lengths, q.size)
		}
	}
	slices.SortFunc(lengths, cmp.Compare)
	return slices.Compact(lengths)
}
