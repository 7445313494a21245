package objectstore

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"hash"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// body is the decoded body of a request. Read returns io.EOF only after every promise that the
// request made about its bytes was found kept: length, signatures, hashes. A broken promise is an
// *Error; other errors are the source's.
type body struct {
	src    io.Reader
	size   int64 // announced, or -1
	got    int64
	md5    hash.Hash // of everything: the ETag
	checks []check
	// trailer returns a trailer's value after the end of src.
	trailer func(name string) (string, bool)
	err     error
}

// check is one promise about the body.
type check struct {
	hash hash.Hash
	want []byte // nil: comes in the trailer
	err  *Error
	// algorithm is set for x-amz-checksum.
	algorithm algorithm
}

// newBody reads size bytes from src, or all there is if size is -1.
func newBody(src io.Reader, size int64) *body {
	return &body{src: src, size: size, md5: md5.New()}
}

// Read reads and hashes.
func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.src.Read(p)
	b.got += int64(n)
	b.md5.Write(p[:n])
	for _, c := range b.checks {
		if c.hash != b.md5 {
			c.hash.Write(p[:n])
		}
	}
	switch {
	case b.size >= 0 && b.got > b.size:
		err = errInvalidRequest.because("The body is longer than announced")
	case err == io.EOF:
		err = b.verify()
	}
	b.err = err
	return n, err
}

// verify returns io.EOF if all is as promised.
func (b *body) verify() error {
	if b.size >= 0 && b.got != b.size {
		return errIncompleteBody
	}
	for i := range b.checks {
		c := &b.checks[i]
		if c.want == nil {
			v, ok := b.trailer(checksumPrefix + c.algorithm.name)
			if !ok {
				return errMalformedTrailer.because("The announced trailer is missing")
			}
			var err error
			if c.want, err = c.algorithm.decode(v); err != nil {
				return err
			}
		}
		if !bytes.Equal(c.hash.Sum(nil), c.want) {
			return c.err
		}
	}
	return io.EOF
}

// etag is the MD5 in hex, after io.EOF.
func (b *body) etag() string { return hex.EncodeToString(b.md5.Sum(nil)) }

// checksums are the verified x-amz-checksum values by algorithm, after io.EOF.
func (b *body) checksums() map[string]string {
	var m map[string]string
	for _, c := range b.checks {
		if c.algorithm.name != "" {
			m = map[string]string{c.algorithm.name: base64.StdEncoding.EncodeToString(c.want)}
		}
	}
	return m
}

// body returns the body of the request, decoded and checked as the request's headers say.
func (q *request) body(limit int64) (*body, error) {
	b, err := q.plainBody(limit)
	if err == nil && !q.s.opt.Rules.IgnoreChecksums {
		err = b.expectChecksums(q.r.Header)
	}
	return b, err
}

// plainBody is body without x-amz-checksum: those of a Complete are the object's.
func (q *request) plainBody(limit int64) (*body, error) {
	size := q.r.ContentLength
	if strings.HasPrefix(q.sig.payload, "STREAMING-") {
		n, err := strconv.ParseInt(q.r.Header.Get("X-Amz-Decoded-Content-Length"), 10, 64)
		if err != nil || n < 0 {
			return nil, errMissingLength.because("The x-amz-decoded-content-length header is missing or not valid")
		}
		size = n
	}
	if size < 0 {
		return nil, errMissingLength
	}
	if size > limit {
		return nil, errEntityTooLarge
	}
	b := newBody(q.clientBody(), size)
	if err := q.decodePayload(b); err != nil {
		return nil, err
	}
	return b, b.expectMD5(q.r.Header.Get("Content-Md5"))
}

// decodePayload sets up b for the request's x-amz-content-sha256.
func (q *request) decodePayload(b *body) error {
	rules := q.s.opt.Rules
	trailing := strings.HasSuffix(q.sig.payload, "-TRAILER")
	if trailing && rules.RefuseTrailers {
		return errPayloadHash.because("Trailing checksums are not supported")
	}
	switch q.sig.payload {
	case payloadUnsigned:
		return nil
	case payloadSigned, payloadSignedTrailer, payloadUnsignedTrailer:
		var signer *chunkSigner
		if q.sig.payload != payloadUnsignedTrailer {
			signer = &chunkSigner{
				key:      q.signingKey,
				time:     q.sig.at.UTC().Format(sigTime),
				scope:    q.sig.scope(),
				previous: q.sig.value,
			}
		}
		c := newChunkReader(b.src, signer, trailing)
		b.src = c
		if trailing {
			b.trailer = func(name string) (string, bool) { v, ok := c.trailers[name]; return v, ok }
		}
		return nil
	}
	want, err := literalHash(q.sig.payload)
	if err != nil {
		return err
	}
	if rules.RefuseLiteralHash && b.size > 0 {
		return errPayloadHash.because("The payload must be UNSIGNED-PAYLOAD or a signed stream")
	}
	b.checks = append(b.checks, check{hash: sha256.New(), want: want, err: errPayloadHash})
	return nil
}

func literalHash(s string) ([]byte, error) {
	p, err := hex.DecodeString(s)
	if err != nil || len(p) != sha256.Size {
		return nil, errInvalidArgument.because("The x-amz-content-sha256 header is not valid")
	}
	return p, nil
}

// expectMD5 adds the promise of a Content-MD5 header.
func (b *body) expectMD5(header string) error {
	if header == "" {
		return nil
	}
	want, err := base64.StdEncoding.DecodeString(header)
	if err != nil || len(want) != md5.Size {
		return errInvalidDigest
	}
	b.checks = append(b.checks, check{hash: b.md5, want: want, err: errBadDigest})
	return nil
}

// expectChecksums adds the promise of an x-amz-checksum header or trailer. S3 allows one.
func (b *body) expectChecksums(h http.Header) error {
	add := func(name, value string) error {
		a, ok := algorithmOf(strings.TrimPrefix(strings.ToLower(name), checksumPrefix))
		if !ok {
			return errInvalidRequest.because("The checksum " + name + " is not supported")
		}
		if b.hasChecksum() {
			return errInvalidRequest.because("Only one checksum may be given")
		}
		c := check{hash: a.make(), algorithm: a}
		c.err = errBadDigest.because("The " + a.name + " checksum does not match the body")
		if value != "" {
			var err error
			if c.want, err = a.decode(value); err != nil {
				return err
			}
		}
		b.checks = append(b.checks, c)
		return nil
	}
	for name := range h {
		if lower := strings.ToLower(name); isChecksumValue(lower) {
			if err := add(lower, h.Get(name)); err != nil {
				return err
			}
		}
	}
	if name := h.Get("X-Amz-Trailer"); name != "" && b.trailer != nil {
		return add(name, "")
	}
	return nil
}

func (b *body) hasChecksum() bool {
	for _, c := range b.checks {
		if c.algorithm.name != "" {
			return true
		}
	}
	return false
}

// isChecksumValue reports whether a header's lower-case name carries a checksum, not a word about
// checksums.
func isChecksumValue(name string) bool {
	rest, ok := strings.CutPrefix(name, checksumPrefix)
	return ok && rest != "algorithm" && rest != "type" && rest != "mode"
}

// clientBody is the undecoded body, always the same reader.
func (q *request) clientBody() io.Reader {
	if q.client == nil {
		q.client = &clientReader{src: q.r.Body, deadline: q.readDeadline}
	}
	return q.client
}

// clientReader reads what a client sends. It moves the connection's deadline with every read, so
// that only a client that sends nothing is given up, and says of any failure that the body is
// incomplete, whatever ended the connection.
type clientReader struct {
	src      io.Reader
	deadline func(on bool)
}

func (c *clientReader) Read(p []byte) (int, error) {
	c.deadline(true)
	n, err := c.src.Read(p)
	if err == nil {
		return n, nil
	}
	c.deadline(false)
	switch {
	case err == io.EOF:
		return n, err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return n, errRequestTimeout
	}
	return n, errIncompleteBody
}

// readDeadline gives the client IdleTimeout for its next bytes, or lifts that limit. A server that
// knows no deadlines has none.
func (q *request) readDeadline(on bool) {
	q.deadline(q.control.SetReadDeadline, on)
}

// writeDeadline gives the client IdleTimeout to take the next bytes, or lifts that limit.
func (q *request) writeDeadline(on bool) {
	q.deadline(q.control.SetWriteDeadline, on)
}

func (q *request) deadline(set func(time.Time) error, on bool) {
	var t time.Time
	if on {
		t = time.Now().Add(q.s.opt.IdleTimeout) // of the network, not of Options.Now
	}
	set(t) // fails only where deadlines are unknown
}

// readXML reads an XML body into v.
func (q *request) readXML(v any) error {
	b, err := q.body(maxXML)
	if err != nil {
		return err
	}
	return b.decodeXML(v)
}

// decodeXML reads the whole body into v.
func (b *body) decodeXML(v any) error {
	p, err := io.ReadAll(b)
	if err != nil {
		return err
	}
	if err := xml.Unmarshal(p, v); err != nil {
		return errMalformedXML
	}
	return nil
}
