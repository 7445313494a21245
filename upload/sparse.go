package upload

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
)

// Limits of a raw object's parts.
const (
	// minZeros is the shortest run of zeros that becomes a part of its own, in bytes: the least that
	// S3 takes as a part (OBS: 100 KB). Data before and behind it is stretched to as much.
	minZeros = 5 << 20
	// sparseParts is how many parts are planned at most; the last gaps are filled until they fit.
	sparseParts = 9_000
	// dataParts is how many of them data alone may take: the rest is for zeros, and for what gaps add.
	dataParts = 6_000
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
	// have at most, but for short ones that are stretched.
	Size, Data, PartSize int64
	// Count is the number of parts.
	Count int
	parts []sparsePart
}

type sparsePart struct {
	offset, size int64
	zeros        bool
}

// Plan plans the parts of the object: partSize (0: as it fits) bounds parts of data. It depends on the
// content and on partSize alone, so that any later run can resume the upload.
func (m *DataMap) Plan(partSize int64) (SparsePlan, error) {
	if m.size <= 0 {
		return SparsePlan{}, fmt.Errorf("no upload of %d bytes can be planned", m.size)
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
	// The shortest gaps go first. Each one gone saves a part or two.
	gaps := make([]int64, 0, len(runs))
	for i := 1; i < len(runs); i++ {
		gaps = append(gaps, runs[i].start-runs[i-1].end)
	}
	slices.Sort(gaps)
	for step := len(gaps)/64 + 1; ; {
		partSize := partSize
		if partSize == 0 {
			partSize = roundUp(max(minPartSize, ceilDiv(total(runs), dataParts)), rawStep)
		}
		if partSize > maxPartSize/2 { // a part may be stretched
			return SparsePlan{}, tooLarge(m.size)
		}
		parts := cut(runs, m.size, partSize)
		if len(parts) <= sparseParts || len(gaps) == 0 {
			s := SparsePlan{Size: m.size, Data: total(runs), PartSize: partSize, Count: len(parts), parts: parts}
			if s.Count > maxParts {
				return s, fmt.Errorf("an object of %d bytes does not fit into %d parts of %d bytes", m.size, maxParts, partSize)
			}
			return s, nil
		}
		n := min(step, len(gaps))
		runs = fill(runs, gaps[n-1]+1)
		gaps = gaps[n:]
	}
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

// cut cuts runs into parts of at most partSize, and what lies between into parts of zeros. None but the
// last is shorter than the store takes: a run is cut into parts of nearly one size.
func cut(runs []dataRun, size, partSize int64) []sparsePart {
	var parts []sparsePart
	add := func(start, end, most int64, zeros bool) {
		n := ceilDiv(end-start, most)
		for n > 1 && (end-start)/n < minZeros {
			n--
		}
		if n == 0 {
			return
		}
		each := roundUp(ceilDiv(end-start, n), sectorSize)
		for ; start < end; start += each {
			parts = append(parts, sparsePart{start, min(each, end-start), zeros})
		}
	}
	at := int64(0)
	for _, r := range runs {
		add(at, r.start, zerosSize, true)
		add(r.start, r.end, partSize, false)
		at = r.end
	}
	add(at, size, zerosSize, true)
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
