package upload

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"time"
)

// The journal of an upload is a file of records, each
//
//	length of the body (4 bytes), CRC-32C of the body (4 bytes), body
//
// with little-endian integers. The body of the first record is the head in JSON; each further one
// describes a part that the store has:
//
//	part number (4), level (1), length of the ETag (1), number of chunks (4), size (8), MD5 (16),
//	ETag, then for each chunk: number of its block (8), length (4), SHA-256 (32)
//
// A record that is cut short or damaged ends the journal: what is before it still holds.
const (
	recordHeadSize = 8
	partHeadSize   = 4 + 1 + 1 + 4 + 8 + md5.Size
	chunkSize      = 8 + 4 + sha256.Size

	// maxRecord bounds the body of a record in bytes. The largest part has 5 GiB, of chunks of at
	// least a page: 1.3 million of them.
	maxRecord = 64 << 20
	// maxHead bounds the head's body: keys have up to 1,024 bytes, names of files a few thousand.
	maxHead = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Tail is the Chunk.Block of bytes that belong to no block: what follows the last one.
const Tail = -1

// Chunk is a piece of a part: a block of the disk as it was encoded.
type Chunk struct {
	// Block is the number of the block that the chunk was made from, or Tail.
	Block int64
	// Length is the chunk's length in bytes; 0 for Tail, of which only the place is noted.
	Length int64
	// Sum is the SHA-256 of the block, not of the chunk.
	Sum [sha256.Size]byte
}

// JournalPart is a part as the journal has it.
type JournalPart struct {
	Number int
	// Level says how the part was encoded, in whatever way the caller numbers that.
	Level uint8
	// Size is in bytes.
	Size int64
	MD5  [md5.Size]byte
	// ETag is what the store answered. It is the MD5 but for some kinds of server-side encryption.
	ETag string
	// Chunks are the part's, ascending by block; a Tail is the last. Parts that are not made of
	// chunks have none.
	Chunks []Chunk
}

// journalHead is the first record: what the journal is about.
type journalHead struct {
	Version  int       `json:"version"`
	UploadID string    `json:"upload_id"`
	Begun    time.Time `json:"begun"`
	JournalID
}

const journalVersion = 1

var errRecord = errors.New("the record is damaged")

// appendRecord appends a record of body.
func appendRecord(dst, body []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(body)))
	dst = binary.LittleEndian.AppendUint32(dst, crc32.Checksum(body, castagnoli))
	return append(dst, body...)
}

// readRecord reads the body of the record at r, of which left bytes are left in the file, and at most
// limit are allowed. io.EOF: there is none.
func readRecord(r io.Reader, left, limit int64) ([]byte, error) {
	var head [recordHeadSize]byte
	if left == 0 {
		return nil, io.EOF
	}
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, errRecord
	}
	n := int64(binary.LittleEndian.Uint32(head[:]))
	if n > limit || n > left-recordHeadSize {
		return nil, errRecord
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, errRecord
	}
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(head[4:]) {
		return nil, errRecord
	}
	return body, nil
}

func (h journalHead) append(dst []byte) ([]byte, error) {
	b, err := json.Marshal(h)
	return append(dst, b...), err
}

// parseJournalHead is the inverse of append. With an error the head is empty: who empties a journal that it
// can't read must not take it for that of the upload.
func parseJournalHead(body []byte) (journalHead, error) {
	var h journalHead
	if err := json.Unmarshal(body, &h); err != nil || h.Version != journalVersion || h.UploadID == "" {
		return journalHead{}, errRecord
	}
	return h, nil
}

// append appends the body of p's record.
func (p JournalPart) append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(p.Number))
	dst = append(dst, p.Level, uint8(len(p.ETag)))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(p.Chunks)))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(p.Size))
	dst = append(dst, p.MD5[:]...)
	dst = append(dst, p.ETag...)
	for _, c := range p.Chunks {
		dst = binary.LittleEndian.AppendUint64(dst, uint64(c.Block))
		dst = binary.LittleEndian.AppendUint32(dst, uint32(c.Length))
		dst = append(dst, c.Sum[:]...)
	}
	return dst
}

// parseJournalPart is the inverse of append. It refuses what can't be a part.
func parseJournalPart(body []byte) (p JournalPart, err error) {
	if len(body) < partHeadSize {
		return p, errRecord
	}
	p.Number = int(binary.LittleEndian.Uint32(body))
	p.Level = body[4]
	etag, chunks := int(body[5]), int64(binary.LittleEndian.Uint32(body[6:]))
	size := binary.LittleEndian.Uint64(body[10:])
	copy(p.MD5[:], body[18:])
	body = body[partHeadSize:]
	if p.Number < 1 || p.Number > MaxParts || size < 1 || size > MaxPartSize || int64(len(body)) != int64(etag)+chunks*chunkSize {
		return p, errRecord
	}
	p.Size, p.ETag, body = int64(size), string(body[:etag]), body[etag:]
	if chunks > 0 {
		p.Chunks = make([]Chunk, chunks)
	}
	next, sum := uint64(0), int64(0)
	for i := range p.Chunks {
		c, b := &p.Chunks[i], body[int64(i)*chunkSize:]
		block := binary.LittleEndian.Uint64(b)
		c.Block, c.Length = int64(block), int64(binary.LittleEndian.Uint32(b[8:]))
		copy(c.Sum[:], b[12:])
		if c.Block == Tail && i == len(p.Chunks)-1 {
			continue
		}
		if sum += c.Length; block < next || block > math.MaxInt64/2 || c.Length == 0 || c.Length > MaxChunk || sum > p.Size {
			return p, errRecord
		}
		next = block + 1
	}
	return p, nil
}

// fits says whether p's record can be written: an ETag of more than 255 bytes is no ETag.
func (p JournalPart) fits() error {
	if len(p.ETag) > math.MaxUint8 || partHeadSize+len(p.ETag)+len(p.Chunks)*chunkSize > maxRecord {
		return fmt.Errorf("part %d is too large for the journal", p.Number)
	}
	return nil
}
