package upload

import (
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"
)

// copiers is how many copies the store is asked for at the same time. They take nothing of the link.
const copiers = 8

// copyRange is the size of the ranges in which an object of unknown parts is copied, in bytes: far enough
// below MaxCopy that each is done before a deadline. Where that makes more than planParts they grow.
const copyRange = 1 << 30

// MaxCopy is the largest object that a store copies in one request, in bytes: the S3 API's limit.
const MaxCopy = 5 << 30

// Copier is a Bucket that can make parts from ranges of its objects, and small objects in one request.
// Both make one attempt.
type Copier interface {
	// CopyPart makes part number of an upload of key from length bytes of the object from at offset. It
	// fails with ErrReplaced where that has another ETag by now.
	CopyPart(ctx context.Context, key, uploadID string, number int, from Object, offset, length int64) (etag string, err error)
	// Put makes an object of body, whose MD5 is sum, or nil if that is not known.
	Put(ctx context.Context, key string, body io.ReadSeeker, size int64, sum *[md5.Size]byte, meta Metadata) (etag string, err error)
}

var errNoCopy = errors.New("the store has no way to copy parts")

// copyPart is c.CopyPart with retries. A store works while the client waits.
func copyPart(ctx context.Context, c Copier, p Policy, key, uploadID string, number int, from Object, offset, length int64) (string, error) {
	return retryFor(ctx, p.working(), fmt.Sprintf("copy part %d of %s", number, key), func(ctx context.Context) (string, error) {
		return c.CopyPart(ctx, key, uploadID, number, from, offset, length)
	})
}

// copying makes objects of copies, on the server.
type copying struct {
	bucket Bucket // one attempt per call
	store  Bucket // with retries
	copier Copier
	policy Policy
}

// piece is a range of an object that becomes a part of another one. etag is what the part's must be, where
// both are MD5s.
type piece struct {
	offset, size int64
	etag         string
}

// piecesOf is an object in pieces: its parts, or ranges where they are not known.
func piecesOf(o Object, parts []StoredPart) (pieces []piece) {
	var offset int64
	for _, part := range parts {
		pieces = append(pieces, piece{offset, part.Size, part.ETag})
		offset += part.Size
	}
	length := max(copyRange, ceilDiv(o.Size-offset, planParts))
	for ; offset < o.Size; offset += length {
		pieces = append(pieces, piece{offset, min(length, o.Size-offset), ""})
	}
	return pieces
}

// build makes the object key of pieces of another one, several at a time. Its parts are numbered from first.
func (c copying) build(ctx context.Context, key string, meta Metadata, from Object, first int, pieces []piece) (err error) {
	b := beginning{bucket: c.bucket, store: c.store, policy: c.policy, key: key}
	if found, err := uploadsOf(ctx, c.store, key); err == nil {
		b.known = idsOf(found)
	}
	id, err := b.begin(ctx, meta)
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		if failed := abort(ctx, c.store, key, id, abortLimit(err)); failed != nil {
			err = &AbortError{Key: key, UploadID: id, Err: err, Abort: failed}
		}
	}()
	parts := make([]StoredPart, len(pieces))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(copiers)
	for i, p := range pieces {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			n := first + i
			etag, err := copyPart(gctx, c.copier, c.policy, key, id, n, from, p.offset, p.size)
			if err == nil && isMD5(p.etag) && disproves(etag, p.etag, from.Opaque || opaque(c.copier)) {
				err = fmt.Errorf("copied part %d of %s has the ETag %s instead of %s: %w", n, key, etag, p.etag, ErrMismatch)
			}
			parts[i] = StoredPart{Number: n, Size: p.size, ETag: etag}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return whyEnded(ctx, err)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if key == from.Key {
		// The copies were made on a condition, which Complete has not.
		now, err := c.store.Stat(ctx, key)
		if err == nil && from.ETag != "" && now.ETag != from.ETag {
			err = fmt.Errorf("object %s was replaced while it was copied: %w", key, ErrReplaced)
		}
		if err != nil {
			return err
		}
	}
	_, err = c.store.Complete(ctx, key, id, parts)
	return err
}

// SetMetadata replaces the metadata of an object above MaxCopy, which no single request copies: the store
// copies it onto itself, several parts at a time. They are those that it was made of (Result.Stored), nil if
// nobody knows them. Where known parts have their MD5s as ETags the copies are judged by them, and the object
// keeps its ETag. It is whole at any time. The error is ErrReplaced where the store has another object by now.
func SetMetadata(ctx context.Context, b Bucket, p Policy, o Object, parts []StoredPart, meta Metadata) (Object, error) {
	copier, ok := b.(Copier)
	if !ok {
		return Object{}, errNoCopy
	}
	// The upload that is begun promises the new metadata. Should it be left behind, then no later run must
	// take it for one of its own, whose first parts have the same bytes: it has none of their numbers.
	const first = HeadParts + 1
	pieces := piecesOf(o, parts)
	if len(pieces) > MaxParts-HeadParts {
		pieces = piecesOf(o, nil)
	}
	p = p.withDefaults()
	c := copying{b, WithRetry(b, p), copier, p}
	failed := c.build(ctx, o.Key, meta, o, first, pieces)
	if failed != nil && (ctx.Err() != nil || !errors.Is(failed, ErrNoUpload) && !undecided(failed)) {
		return Object{}, failed
	}
	// Complete may have been carried out although its answer was lost.
	now, err := c.store.Stat(ctx, o.Key)
	if err == nil && now.Size == o.Size && says(now.Metadata, meta) {
		return now, nil
	}
	switch {
	case failed != nil:
		return Object{}, failed
	case err == nil:
		err = fmt.Errorf("object %s was replaced: %w", o.Key, ErrReplaced)
	}
	return Object{}, err
}

// says reports whether all that is in want is in m.
func says(m, want Metadata) bool {
	for name, value := range want {
		if m[name] != value {
			return false
		}
	}
	return true
}
