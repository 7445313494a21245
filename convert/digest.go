package convert

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash"

	"imgferry/bitmap"
	"imgferry/formats"
)

// Digest identifies a disk's content, whatever format holds it. With the virtual size rounded up
// to 512 it identifies the disk.
type Digest [sha256.Size]byte

// String returns the digest in unpadded base64url: 43 characters, which fit the value of a tag.
func (d Digest) String() string { return base64.RawURLEncoding.EncodeToString(d[:]) }

// ParseDigest is the inverse of String.
func ParseDigest(s string) (Digest, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) != sha256.Size {
		return Digest{}, fmt.Errorf("%q is no content digest (43 characters of base64url)", s)
	}
	return Digest(b), nil
}

// digestDomain starts every content digest, so that it can be no other hash.
const digestDomain = "imgferry content v1\n"

// Summer computes a content digest from block hashes: SHA-256 over the domain line and, for each
// block with a non-zero byte, ascending, its number (8 bytes, big-endian) and the SHA-256 of the
// block padded with zeros to 2 MiB.
type Summer struct{ h hash.Hash }

// NewSummer returns the Summer of a disk of zeros.
func NewSummer() *Summer {
	h := sha256.New()
	h.Write([]byte(digestDomain))
	return &Summer{h}
}

// Add adds a block that is not zero. index must be above that of every earlier call.
func (s *Summer) Add(index int64, sum [sha256.Size]byte) {
	var b [8 + sha256.Size]byte
	binary.BigEndian.PutUint64(b[:8], uint64(index))
	copy(b[8:], sum[:])
	s.h.Write(b[:])
}

// Digest returns the digest of what was added so far.
func (s *Summer) Digest() Digest { return Digest(s.h.Sum(nil)) }

// FirstBlock returns the number and the bytes, padded to 2 MiB, of the first block that holds a
// non-zero byte. block is nil for a disk of zeros.
func FirstBlock(ctx context.Context, img formats.Image) (index int64, block []byte, err error) {
	s := &slot{block: newBlock()}
	for c, err := range candidates(ctx, img, false) {
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return 0, nil, err
		}
		s.index, s.spans = c.index, c.spans
		if err := readBlock(img, s); err != nil {
			return 0, nil, err
		}
		if !bitmap.IsZero(s.block) {
			return c.index, s.block, nil
		}
	}
	return 0, nil, nil
}
