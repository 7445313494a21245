package objectstore

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"strconv"
	"strings"
)

// Limits of the aws-chunked coding, in bytes.
const (
	maxChunkLine = 1 << 10 // "SIZE;chunk-signature=64 digits"
	maxTrailer   = 4 << 10
)

// chunkSigner makes the chain of signatures of a signed stream; the first link is the request's own.
type chunkSigner struct {
	key         []byte
	time, scope string
	previous    string
}

// next returns the signature of the next link and moves on to it.
func (c *chunkSigner) next(kind string, rest ...string) string {
	lines := append([]string{sigAlgorithm + "-" + kind, c.time, c.scope, c.previous}, rest...)
	c.previous = hmacHex(c.key, strings.Join(lines, "\n"))
	return c.previous
}

// chunkReader decodes the aws-chunked coding of a body ("Transferring Payload in Multiple Chunks"
// in the S3 API reference) and verifies each chunk's signature. It hands bytes out before their
// signature is known; only io.EOF says that all of them were right. A source that ends inside the
// coding gives errIncompleteBody.
type chunkReader struct {
	src    *bufio.Reader
	signer *chunkSigner // nil: the chunks are not signed
	// trailing says that trailers follow the last chunk; trailers holds them after io.EOF, names in
	// lower case.
	trailing bool
	trailers map[string]string

	left int64  // of the current chunk
	want string // its signature
	sum  hash.Hash
	err  error
}

func newChunkReader(src io.Reader, signer *chunkSigner, trailing bool) *chunkReader {
	return &chunkReader{
		src:      bufio.NewReaderSize(src, maxTrailer),
		signer:   signer,
		trailing: trailing,
		sum:      sha256.New(),
	}
}

var errChunk = errInvalidRequest.because("The body is no valid aws-chunked stream")

// Read returns decoded bytes.
func (c *chunkReader) Read(p []byte) (int, error) {
	if c.err == nil && c.left == 0 {
		c.err = c.begin()
	}
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.src.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	if c.signer != nil {
		c.sum.Write(p[:n])
	}
	if err == nil && c.left == 0 {
		err = c.endChunk()
	}
	c.err = unexpected(err)
	return n, c.err
}

// begin reads the line before a chunk, and after the last one everything to the end.
func (c *chunkReader) begin() error {
	line, err := c.line()
	if err != nil {
		return unexpected(err)
	}
	if c.left, c.want, err = parseChunkLine(line, c.signer != nil); err != nil {
		return err
	}
	if c.left > 0 {
		return nil
	}
	if err := c.verify(); err != nil {
		return err
	}
	return c.finish()
}

// parseChunkLine reads "SIZE" or "SIZE;chunk-signature=SIGNATURE". SIZE is in hex.
func parseChunkLine(line string, signed bool) (size int64, sig string, err error) {
	digits := line
	if signed {
		var ok bool
		digits, sig, ok = strings.Cut(line, ";chunk-signature=")
		if !ok || len(sig) != hex.EncodedLen(sha256.Size) {
			return 0, "", errChunk
		}
	}
	n, err := strconv.ParseUint(digits, 16, 63)
	if err != nil || n > maxBody {
		return 0, "", errChunk
	}
	return int64(n), sig, nil
}

// endChunk reads the line break after a chunk's data and verifies the data.
func (c *chunkReader) endChunk() error {
	var crlf [2]byte
	if _, err := io.ReadFull(c.src, crlf[:]); err != nil {
		return unexpected(err)
	}
	if crlf != [2]byte{'\r', '\n'} {
		return errChunk
	}
	return c.verify()
}

func (c *chunkReader) verify() error {
	if c.signer == nil {
		return nil
	}
	got := c.signer.next("PAYLOAD", emptyHash, hex.EncodeToString(c.sum.Sum(nil)))
	c.sum.Reset()
	if !hmac.Equal([]byte(got), []byte(c.want)) {
		return errSignature.because("The signature of a chunk does not match")
	}
	return nil
}

// finish reads what follows the last chunk: an empty line, or trailers.
func (c *chunkReader) finish() error {
	rest, err := io.ReadAll(io.LimitReader(c.src, maxTrailer+1))
	if err != nil {
		return unexpected(err)
	}
	if !bytes.HasSuffix(rest, []byte("\r\n")) {
		return errIncompleteBody
	}
	if !c.trailing {
		if len(rest) != 2 {
			return errChunk
		}
		return io.EOF
	}
	var sig string
	if c.trailers, sig, err = parseTrailers(rest); err != nil {
		return err
	}
	if c.signer != nil {
		got := c.signer.next("TRAILER", hashHex(canonicalTrailers(c.trailers)))
		if !hmac.Equal([]byte(got), []byte(sig)) {
			return errSignature.because("The signature of the trailer does not match")
		}
	}
	return io.EOF
}

// parseTrailers reads NAME:VALUE lines. Clients differ in how they end lines (LF, CRLF, or LF CRLF
// as in the reference's example), so empty ones count for nothing. At most one checksum and one
// signature are taken.
func parseTrailers(p []byte) (trailers map[string]string, sig string, err error) {
	if len(p) > maxTrailer {
		return nil, "", errMalformedTrailer
	}
	trailers = make(map[string]string)
	for line := range strings.SplitSeq(string(p), "\n") {
		line = strings.TrimSuffix(line, "\r")
		if line == "" {
			continue
		}
		name, v, ok := strings.Cut(line, ":")
		name, v = strings.ToLower(name), strings.Trim(v, " \t")
		_, twice := trailers[name]
		switch {
		case !ok || twice || name == "" || len(trailers) > 0 && name != "x-amz-trailer-signature":
			return nil, "", errMalformedTrailer
		case name == "x-amz-trailer-signature":
			if sig != "" {
				return nil, "", errMalformedTrailer
			}
			sig = v
		default:
			trailers[name] = v
		}
	}
	return trailers, sig, nil
}

// canonicalTrailers is what the trailer's signature covers. There is at most one.
func canonicalTrailers(t map[string]string) string {
	var b strings.Builder
	for name, v := range t {
		b.WriteString(name + ":" + v + "\n")
	}
	return b.String()
}

// line reads up to CRLF, which it drops.
func (c *chunkReader) line() (string, error) {
	p, err := c.src.ReadSlice('\n')
	if err == bufio.ErrBufferFull || len(p) > maxChunkLine {
		return "", errChunk
	}
	if err != nil {
		return "", err
	}
	line, ok := bytes.CutSuffix(p, []byte("\r\n"))
	if !ok {
		return "", errChunk
	}
	return string(line), nil
}

// unexpected makes an early end of the source an *Error.
func unexpected(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errIncompleteBody
	}
	return err
}
