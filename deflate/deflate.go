// Package deflate compresses buffers that are whole in memory: clusters, grains and blocks of disk
// images. Its window can be smaller than deflate's largest, which some formats demand and no other
// encoder for Go compresses well with.
//
// It is not for streams (compress/flate and klauspost/compress are): one call makes one whole stream.
// Decoding is package inflate's.
//
// The method is that of libdeflate: hash chains for matches of four bytes and more, the latest place
// only for those of three, and lazy matching that weighs lengths against distances. Sections are those
// of RFC 1951.
package deflate

import (
	"encoding/binary"
	"fmt"
	"hash/adler32"
)

// Level is how hard an Encoder tries.
type Level uint8

// The levels: a bit smaller than zlib's 6 (the default), 4, 8 and 9.
const (
	Default Level = iota
	Fastest
	Better
	Best
)

// effort is how hard the encoder searches.
type effort struct {
	depth int  // candidates to look at; 0: the latest one, and what is found is taken
	nice  int  // a match of as many bytes is good enough
	twice bool // look for better matches two bytes later as well as one
}

var efforts = [...]effort{
	Default: {depth: 20, nice: 65},
	Fastest: {},
	Better:  {depth: 70, nice: 130},
	Best:    {depth: 600, nice: maxMatch, twice: true},
}

// The sizes of windows in bits (RFC 1950, 2.2).
const (
	MinWindowBits = 9
	MaxWindowBits = 15
)

// MaxInput is the most bytes that one call compresses.
const MaxInput = 1 << 28

// Encoder compresses buffers. What it makes of one depends on its bytes, the level and the window alone,
// not on what it compressed before. It belongs to one goroutine at a time, and takes about 0.5 MiB.
type Encoder struct {
	effort
	finder
	block
	windowBits int
}

// New returns an Encoder. No match reaches back further than 1<<windowBits bytes, from MinWindowBits to
// MaxWindowBits. It panics on a level or a window that there is not.
func New(level Level, windowBits int) *Encoder {
	if level > Best || windowBits < MinWindowBits || windowBits > MaxWindowBits {
		panic(fmt.Sprintf("deflate: no level %d with a window of %d bits", level, windowBits))
	}
	e := &Encoder{effort: efforts[level], windowBits: windowBits}
	e.window = 1 << windowBits
	e.tokens = make([]token, 0, maxTokens+maxMatch)
	return e
}

// Bound returns the most bytes that n bytes become, as a zlib stream too.
func Bound(n int) int {
	const (
		zlibBytes   = 2 + 4
		storedBytes = 5 // of head
	)
	// A block has so many bytes, but for the last, and is stored if that is shorter.
	return n + zlibBytes + storedBytes*(n/minBlock+n/maxStored+2)
}

// Raw appends src as a raw deflate stream (RFC 1951). It panics if src has more than MaxInput bytes.
func (e *Encoder) Raw(dst, src []byte) []byte {
	if len(src) > MaxInput {
		panic(fmt.Sprintf("deflate: %d bytes at once: the most is %d", len(src), MaxInput))
	}
	w := bitWriter{out: dst}
	e.begin(len(src))
	if e.depth > 0 {
		e.compress(&w, src)
	} else {
		e.compressFast(&w, src)
	}
	return w.finish()
}

// Zlib appends src as a zlib stream (RFC 1950).
func (e *Encoder) Zlib(dst, src []byte) []byte {
	const (
		deflated     = 8
		defaultLevel = 2 << 6 // which no decoder looks at
	)
	head := uint16(deflated|(e.windowBits-8)<<4)<<8 | defaultLevel
	head += 31 - head%31
	dst = binary.BigEndian.AppendUint16(dst, head)
	dst = e.Raw(dst, src)
	return binary.BigEndian.AppendUint32(dst, adler32.Checksum(src))
}

// compress parses src into literals and matches, and writes them in blocks.
func (e *Encoder) compress(w *bitWriter, src []byte) {
	start := 0 // of the open block
	for pos := 0; pos < len(src); {
		if e.full(pos-start, len(src)-pos) {
			e.flush(w, src[start:pos], false)
			start = pos
		}
		length, distance := e.find(src, pos, minMatch-1, e.depth, e.nice)
		if length < minMatch || length == minMatch && distance > tooFar {
			e.literal(src[pos])
			pos++
			continue
		}
		known := 1 // positions from pos on that the finder knows
		for length < e.nice {
			known = 2
			if n, d := e.find(src, pos+1, length-1, e.depth/2, e.nice); better(n, d, length, distance, 2) {
				e.literal(src[pos])
				pos, length, distance, known = pos+1, n, d, 1
				continue
			}
			if !e.twice {
				break
			}
			known = 3
			if n, d := e.find(src, pos+2, length-1, e.depth/4, e.nice); better(n, d, length, distance, 6) {
				e.literal(src[pos])
				e.literal(src[pos+1])
				pos, length, distance, known = pos+2, n, d, 1
				continue
			}
			break
		}
		e.match(length, distance)
		e.insert(src, pos+known, pos+length)
		pos += length
	}
	e.flush(w, src[start:], true)
}

// compressFast takes the first match it finds, and looks less often the longer it finds none.
func (e *Encoder) compressFast(w *bitWriter, src []byte) {
	// misses shifted by this is how many bytes are literals without a look.
	const patience = 5
	start, misses := 0, 0
	for pos := 0; pos < len(src); {
		if e.full(pos-start, len(src)-pos) {
			e.flush(w, src[start:pos], false)
			start = pos
		}
		length, distance := e.latest(src, pos)
		if length == 0 {
			end := min(pos+1+misses>>patience, len(src))
			for ; pos < end; pos++ {
				e.literal(src[pos])
			}
			misses++
			continue
		}
		misses = 0
		e.match(length, distance)
		pos += length
		e.note(src, pos-1)
	}
	e.flush(w, src[start:], true)
}
