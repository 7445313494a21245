package pipeline

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"github.com/dustin/go-humanize/english"

	"imgferry/convert"
	"imgferry/formats"
	"imgferry/formats/zvhd2"
	"imgferry/upload"
)

// Where the level changes on the way, what the store has of an upload says nothing of where, and only the
// journal knows. Without it, the levels are found again: each part that is stored is encoded at the level
// of the one before, and where that is not what is stored, at the others.

// maxForeign is how many parts in a row may be missing, or be stored as something else, before the search
// ends. Those of a killed run are as many as it had under way.
const maxForeign = 32

// recall returns an unfinished upload to resume where the level may have changed and no journal knows how:
// one of which the store has at least one of this disk's first parts; nil if there is none.
func (p *Push) recall(ctx context.Context, size int64, c upload.Config) (*upload.Resume, error) {
	if c.JournalOnly || c.ResumeNone || !p.changesLevel() {
		return nil, nil
	}
	found, err := upload.Recall(ctx, p.Bucket, p.Retry, c.Key, func(stored map[int]upload.StoredPart) ([]upload.JournalPart, error) {
		p.Notice(fmt.Sprintf("finding out at which levels an unfinished upload was encoded, of which the store has %s", english.Plural(len(stored), "part", "")))
		return p.levelsOf(ctx, size, stored)
	})
	if err != nil || found == nil {
		return nil, err
	}
	p.Notice(fmt.Sprintf("the unfinished upload %s is resumed: the store has %s of this disk", found.UploadID, english.Plural(len(found.Parts), "part", "")))
	if c.Journal != nil {
		if err := c.Journal.Adopt(found); err != nil {
			p.Notice(fmt.Sprintf("no journal of the upload is kept: %v", err))
		}
	}
	return found, nil
}

// levelsOf finds out of which blocks, encoded at which level, the parts of an unfinished upload were made,
// as the journal would have it. There are none where the upload is not one of this disk.
func (p *Push) levelsOf(ctx context.Context, size int64, stored map[int]upload.StoredPart) ([]upload.JournalPart, error) {
	blocks, err := convert.Count(ctx, p.Disk.Image)
	if err != nil {
		return nil, err
	}
	plan, err := p.planStream(size, blocks)
	if err != nil {
		return nil, err
	}
	r := &recaller{img: p.Disk.Image, size: size, first: p.Level, partSize: plan.PartSize, stored: stored, number: 1, level: p.Level}
	for n := range stored {
		r.last = max(r.last, n)
	}
	for foreign := 0; r.number <= r.last && foreign < maxForeign && !r.end; {
		before := r.number
		if _, ok := stored[r.number]; ok {
			for _, level := range r.levels() {
				if err := r.try(ctx, level, p.threads(plan)); err != nil {
					return nil, err
				}
				if r.number > before {
					break
				}
				r.end = false // at another level there may be more parts
			}
		}
		if r.number > before {
			foreign = 0
			continue
		}
		if r.number == upload.HeadParts && len(r.known) == 0 {
			break // it is another disk's
		}
		// Whatever is there, if anything: only where the part ended is of interest.
		foreign++
		r.pass = true
		if err := r.try(ctx, r.level, p.threads(plan)); err != nil {
			return nil, err
		}
	}
	return r.known, nil
}

// recaller is a target of the engine that compares what it gets with the parts that are stored.
type recaller struct {
	img      formats.Image
	size     int64 // bytes, of the disk
	first    zvhd2.Level
	partSize int64 // bytes
	stored   map[int]upload.StoredPart

	known  []upload.JournalPart // found so far
	number int                  // of the part that comes next
	last   int                  // number that is stored
	block  int64                // that the next part begins with, or one before
	level  zvhd2.Level          // of the part before
	pass   bool                 // the next part need not be the stored one
	end    bool                 // the disk ended within a part

	// Of the try under way.
	trying  zvhd2.Level
	encoder *zvhd2.Writer
	file    *zvhd2.Writer // of the first part, which has the header; nil for others
	sum     hash.Hash
	length  int64 // bytes of the part under way
	chunks  []upload.Chunk
	next    [sha256.Size]byte // of the block that comes next
}

// errEnough ends a try.
var errEnough = errors.New("the next part is not the stored one")

// levels are those to try for the next part, the likeliest first.
func (r *recaller) levels() []zvhd2.Level {
	if r.number <= steadyParts {
		return []zvhd2.Level{r.first}
	}
	others := slices.DeleteFunc(slices.Clone(effort[:]), func(l zvhd2.Level) bool { return l == r.level })
	return append([]zvhd2.Level{r.level}, others...)
}

// try encodes parts at a level, from the next one on, while they are those that are stored.
func (r *recaller) try(ctx context.Context, level zvhd2.Level, workers int) (err error) {
	r.trying = level
	if r.encoder, err = zvhd2.NewWriter(io.Discard, zvhd2.Options{OrigSize: r.size, Level: level}); err != nil {
		return err
	}
	r.begin()
	if r.number == 1 {
		if r.file, err = zvhd2.NewWriter(r, zvhd2.Options{OrigSize: r.size, Level: r.first}); err != nil {
			return err
		}
	}
	_, err = convert.Stream(ctx, without{r.img, []blockRange{{0, r.block}}}, r, convert.Options{Workers: workers, Memory: engineMemory, Sum: r.Sum})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// begin begins a part.
func (r *recaller) begin() {
	r.sum, r.length, r.chunks, r.file = md5.New(), 0, nil, nil
}

// Write takes bytes of the part under way.
func (r *recaller) Write(p []byte) (int, error) {
	r.length += int64(len(p))
	return r.sum.Write(p)
}

// BlockSize returns the unit of the engine in bytes.
func (r *recaller) BlockSize() int { return zvhd2.BlockSize }

// MaxEncodedSize returns the most bytes that Encode appends.
func (r *recaller) MaxEncodedSize() int { return zvhd2.ChunkBound }

// Encode appends the block's chunk. Safe for concurrent use.
func (r *recaller) Encode(dst []byte, index int64, block []byte) ([]byte, error) {
	return r.encoder.Encode(dst, index, block)
}

// Sum takes the SHA-256 of the block that comes next.
func (r *recaller) Sum(_ int64, sum [sha256.Size]byte) { r.next = sum }

// WriteBlock takes what Encode made, ascending.
func (r *recaller) WriteBlock(index int64, encoded []byte) (err error) {
	if r.file != nil {
		err = r.file.WriteBlock(index, encoded)
	} else {
		_, err = r.Write(encoded)
	}
	if err != nil {
		return err
	}
	r.chunks = append(r.chunks, upload.Chunk{Block: index, Length: int64(len(encoded)), Sum: r.next})
	if r.length < r.partSize {
		return nil
	}
	have, ok := r.stored[r.number]
	sum := [md5.Size]byte(r.sum.Sum(nil))
	switch same := ok && have.Size == r.length && have.ETag == hex.EncodeToString(sum[:]); {
	case same:
		r.known = append(r.known, upload.JournalPart{
			Number: r.number, Level: uint8(r.trying), Size: r.length, MD5: sum, ETag: have.ETag, Chunks: r.chunks})
	case !r.pass:
		return errEnough
	}
	r.pass = false
	r.number, r.block, r.level = r.number+1, index+1, r.trying
	r.begin()
	if r.number > r.last {
		return errEnough
	}
	return nil
}

// Close hears that the disk has no more blocks: the part under way is the last, which has the file's tail
// and is always made again.
func (r *recaller) Close() error {
	r.end = true
	return nil
}
