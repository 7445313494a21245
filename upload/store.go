// Package upload sends an ordered sequence of parts to one object of an object store, in parallel,
// with retries, and proves that the store holds what was sent.
//
// It knows nothing of disk images or of their formats, and of no particular store: package
// upload/obs is the Store over the S3 API.
package upload

import (
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Store is the multipart side of one bucket. Every method is safe for concurrent use, makes one
// attempt and returns *Error for what the store or the network said. Sizes are in bytes.
type Store interface {
	// Begin starts a multipart upload of key. Not idempotent: twice makes two uploads.
	Begin(ctx context.Context, key string, meta Metadata) (uploadID string, err error)
	// PutPart sends part number (1 to 10,000). Idempotent: the last write of a number wins. sum
	// is the MD5 of body where it is known beforehand, else nil. It reads body from its current
	// position, does not rewind it, and does not touch it any more once it has returned.
	PutPart(ctx context.Context, key, uploadID string, number int, body io.ReadSeeker, size int64, sum *[md5.Size]byte) (etag string, err error)
	// Parts lists the parts that the store has of an upload, ascending, all pages.
	Parts(ctx context.Context, key, uploadID string) ([]StoredPart, error)
	// Uploads lists unfinished uploads whose key begins with prefix, newest first, all pages.
	Uploads(ctx context.Context, prefix string) ([]Unfinished, error)
	// Complete makes the object from the parts, ascending. A 200 that carries an error is an error.
	Complete(ctx context.Context, key, uploadID string, parts []StoredPart) (etag string, err error)
	// Abort ends an upload and frees its parts. Idempotent.
	Abort(ctx context.Context, key, uploadID string) error
}

// Stater tells what object a key names. The error of a missing one is ErrNoObject. One attempt.
type Stater interface {
	Stat(ctx context.Context, key string) (Object, error)
}

// Bucket is what Send needs of a bucket.
type Bucket interface {
	Store
	Stater
}

// Metadata is an object's user metadata. Names are lower-case, without the x-amz-meta- prefix.
type Metadata map[string]string

// StoredPart is a part as the store has it. ETag comes without quotes.
type StoredPart struct {
	Number int
	Size   int64
	ETag   string
}

// Unfinished is a multipart upload that was neither completed nor aborted.
type Unfinished struct {
	Key, UploadID string
	Initiated     time.Time
}

// Object is what the store says of an object. ETag comes without quotes.
type Object struct {
	Key  string
	Size int64
	ETag string
	// Opaque says that the object is encrypted with a key of which ETags tell nothing (Encrypter).
	Opaque   bool
	Modified time.Time
	Metadata Metadata
}

// ErrInterrupted is the cause with which whoever cancels a context says that the user, not a
// failure, ended the run: the unfinished upload is then kept.
var ErrInterrupted = errors.New("interrupted")

// What an *Error can be, for errors.Is. ErrExpired is ErrDenied too.
var (
	ErrNoBucket = errors.New("the bucket does not exist")
	ErrNoObject = errors.New("the object does not exist")
	ErrNoUpload = errors.New("the upload does not exist")
	ErrDenied   = errors.New("access denied")
	ErrExpired  = fmt.Errorf("%w: the login has expired", ErrDenied)
	ErrClock    = errors.New("this machine's clock differs too much from the store's (more than 15 minutes): set the clock")
	ErrReplaced = errors.New("somebody else replaced the object meanwhile")
	ErrPlain    = errors.New("the store takes no notice of the encryption that it was asked for")
)

// Error is a store's refusal, or the failure to reach it.
type Error struct {
	// Op is what was tried, in words: "put part 7".
	Op          string
	Bucket, Key string
	// Status is the HTTP status, 0 if there was no answer.
	Status int
	// Code, Message and RequestID are the store's own words.
	Code, Message, RequestID string
	// Class is one of the sentinels above, or nil.
	Class error
	// Temporary says that the same request may succeed later.
	Temporary bool
	// RetryAfter is how long the store asks to be left alone, 0 if it does not say.
	RetryAfter time.Duration
	// Err is the underlying failure.
	Err error
}

// Error returns one sentence with the store's code and request id.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Key != "" {
		fmt.Fprintf(&b, " of %s/%s", e.Bucket, e.Key)
	} else if e.Bucket != "" {
		fmt.Fprintf(&b, " in bucket %s", e.Bucket)
	}
	b.WriteString(": ")
	switch {
	case e.Class != nil:
		b.WriteString(e.Class.Error())
	case e.Message != "":
		b.WriteString(strings.TrimRight(e.Message, "."))
	case e.Err != nil:
		b.WriteString(e.Err.Error())
	default:
		b.WriteString("the store failed")
	}
	var by []string
	if e.Status != 0 {
		by = append(by, fmt.Sprintf("status %d", e.Status))
	}
	if e.Code != "" {
		by = append(by, e.Code)
	}
	if e.RequestID != "" {
		by = append(by, "request "+e.RequestID)
	}
	if len(by) > 0 {
		fmt.Fprintf(&b, " (%s)", strings.Join(by, ", "))
	}
	return b.String()
}

// Unwrap returns the class and the underlying failure.
func (e *Error) Unwrap() []error {
	var errs []error
	if e.Class != nil {
		errs = append(errs, e.Class)
	}
	if e.Err != nil {
		errs = append(errs, e.Err)
	}
	return errs
}
