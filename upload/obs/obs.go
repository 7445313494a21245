// Package obs is one bucket of Huawei Cloud OBS, or of any other store that speaks the S3 API:
// the upload.Bucket that sends parts, and the few object calls around an upload.
//
// It makes one attempt per call and never waits to try again; that is for upload.Retry. It knows
// nothing of disk images. Requests follow what OBS documents: signature version 4 with an explicit
// region, UNSIGNED-PAYLOAD for bodies with a Content-MD5 beside it, no trailers, and the bucket in
// the host name.
package obs

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/encrypt"
	"github.com/minio/minio-go/v7/pkg/s3utils"

	"imgferry/upload"
)

// Style says where the name of the bucket goes.
type Style int

const (
	// Auto is VirtualHost for OBS (any host below "obs.") and AWS, and Path for IP addresses, localhost
	// and all others.
	Auto Style = iota
	// Path is https://endpoint/bucket/key.
	Path
	// VirtualHost is https://bucket.endpoint/key.
	VirtualHost
)

// Config says which bucket, and as whom.
type Config struct {
	// Endpoint is HOST[:PORT], or a URL whose scheme then decides instead of Secure.
	Endpoint string
	// Secure selects HTTPS.
	Secure bool
	// Region is needed for the signature: a store is never asked for it.
	Region string
	Bucket string
	// AccessKey and SecretKey sign the requests; SecurityToken goes with temporary ones. None of
	// them ever appears in an error.
	AccessKey, SecretKey, SecurityToken string
	Style                               Style
	// SignatureV2 signs as version 2 of the S3 API does, for stores that refuse version 4.
	SignatureV2 bool
	// Encryption is what the store is asked to encrypt new objects with; the zero value asks for
	// nothing.
	Encryption Encryption
	// Transport makes the connections. Nil: NewTransport(0).
	Transport http.RoundTripper
	// UserAgent, "name/version", is added to the one of the client library.
	UserAgent string
}

// Bucket is one bucket. It is safe for concurrent use.
type Bucket struct {
	core   *minio.Core
	name   string
	sse    encrypt.ServerSide // nil: none
	opaque atomic.Bool        // an upload's ETags tell nothing
}

var (
	_ upload.Bucket    = (*Bucket)(nil)
	_ upload.Copier    = (*Bucket)(nil)
	_ upload.Creator   = (*Bucket)(nil)
	_ upload.Encrypter = (*Bucket)(nil)
)

// New returns the bucket that c describes. It makes no request.
func New(c Config) (*Bucket, error) {
	if c.Bucket == "" {
		return nil, errors.New("the name of the bucket is not set")
	}
	if s3utils.CheckValidBucketName(c.Bucket) != nil {
		return nil, fmt.Errorf("%q can't be the name of a bucket: those have 3 to 63 lower-case letters, digits, hyphens and dots", c.Bucket)
	}
	core, err := connect(c)
	if err != nil {
		return nil, err
	}
	sse, err := c.Encryption.serverSide()
	if err != nil {
		return nil, err
	}
	return &Bucket{core: core, name: c.Bucket, sse: sse}, nil
}

// Buckets lists the names of the account's buckets. It is one attempt; c.Bucket is not used.
func Buckets(ctx context.Context, c Config) ([]string, error) {
	core, err := connect(c)
	if err != nil {
		return nil, err
	}
	list, err := core.ListBuckets(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the buckets: %w", err)
	}
	names := make([]string, len(list))
	for i, b := range list {
		names[i] = b.Name
	}
	return names, nil
}

// connect makes the client. Nothing is sent.
func connect(c Config) (*minio.Core, error) {
	host, secure, err := parseEndpoint(c.Endpoint, c.Secure)
	if err != nil {
		return nil, err
	}
	if c.Region == "" {
		return nil, errors.New("the region of the object store is not set")
	}
	if c.AccessKey == "" || c.SecretKey == "" {
		return nil, errors.New("the access key and the secret key of the object store are not set")
	}
	transport := c.Transport
	if transport == nil {
		transport = NewTransport(0)
	}
	w := &wire{base: transport, accessKey: c.AccessKey, secretKey: c.SecretKey, token: c.SecurityToken, region: c.Region}
	if c.SignatureV2 {
		w.v2Host = hostName(host)
	}
	core, err := minio.NewCore(host, &minio.Options{
		Creds:        credentials.NewStatic("", "", "", credentials.SignatureAnonymous), // wire signs
		Secure:       secure,
		Region:       c.Region,
		BucketLookup: lookup(c.Style, host),
		Transport:    w,
		MaxRetries:   1, // upload.Retry does it, by its own classes and with a budget
	})
	if err != nil {
		return nil, fmt.Errorf("endpoint %q of the object store: %w", c.Endpoint, err)
	}
	if name, version, ok := strings.Cut(c.UserAgent, "/"); ok {
		core.SetAppInfo(name, version)
	}
	return core, nil
}

// parseEndpoint returns HOST[:PORT] and whether to use HTTPS.
func parseEndpoint(endpoint string, secure bool) (string, bool, error) {
	host := strings.TrimSuffix(endpoint, "/")
	if scheme, rest, ok := strings.Cut(host, "://"); ok {
		switch strings.ToLower(scheme) {
		case "https":
			secure = true
		case "http":
			secure = false
		default:
			return "", false, fmt.Errorf("endpoint %q of the object store is neither http nor https", endpoint)
		}
		host = rest
	}
	// Whatever goes beyond a host would silently be dropped, so it is refused. The endpoint is not
	// quoted: someone may have put a password into it.
	if host == "" || strings.ContainsAny(host, "/?#@ ") {
		return "", false, errors.New("the endpoint of the object store must be HOST, HOST:PORT or a URL of just that")
	}
	if _, port, err := net.SplitHostPort(host); err == nil {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "", false, fmt.Errorf("the endpoint of the object store names the port %q, which there can't be", port)
		}
	}
	return host, secure, nil
}

func lookup(style Style, host string) minio.BucketLookupType {
	switch style {
	case Path:
		return minio.BucketLookupPath
	case VirtualHost:
		return minio.BucketLookupDNS
	}
	name := strings.ToLower(hostName(host))
	switch {
	case strings.HasPrefix(name, "obs."), strings.Contains(name, ".myhuaweicloud."):
		return minio.BucketLookupDNS
	case net.ParseIP(name) != nil, isLocalhost(name):
		return minio.BucketLookupPath
	}
	return minio.BucketLookupAuto
}

// hostName is HOST[:PORT] without the port, as url.URL.Hostname has it.
func hostName(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.Trim(host, "[]")
}

// Begin starts a multipart upload. It fails with upload.ErrPlain where the store does not say that it
// encrypts the object although Config.Encryption asks for that: one that does not know the header may go on
// without, and nobody would ever notice. Some say it of parts only; those are sent a byte for the first part,
// which is replaced later, before anything that might be secret.
func (b *Bucket) Begin(ctx context.Context, key string, meta upload.Metadata) (string, error) {
	const op = "begin the upload"
	ctx, seen := observe(ctx)
	id, err := b.core.NewMultipartUpload(ctx, b.name, key, minio.PutObjectOptions{UserMetadata: meta, ServerSideEncryption: b.sse})
	if err == nil && id == "" {
		err = errNoReply
	}
	if err != nil {
		return "", b.wrap(op, key, seen, err)
	}
	b.learn(seen)
	if b.sse != nil && !seen.encrypted {
		_, seen, err = b.putPart(ctx, key, id, 1, strings.NewReader("\x00"), 1, nil)
		if err == nil && !seen.encrypted {
			err = b.plain(op, key, seen)
		}
		if err != nil {
			if failed := b.dropUpload(ctx, key, id); failed != nil {
				err = fmt.Errorf("%w; %w", err, failed)
			}
			return "", err
		}
	}
	return id, nil
}

// plain is the error of a store that was asked to encrypt and does not say that it does.
func (b *Bucket) plain(op, key string, s *seen) error {
	return &upload.Error{Op: op, Bucket: b.name, Key: key, Status: s.status, RequestID: s.requestID, Class: upload.ErrPlain}
}

// learn keeps what an answer says of an upload's ETags.
func (b *Bucket) learn(s *seen) {
	if s.opaque {
		b.opaque.Store(true)
	}
}

// OpaqueETags reports whether the store has said of an upload that it is encrypted in a way in which ETags are
// no MD5s, although they may look like one.
func (b *Bucket) OpaqueETags() bool { return b.opaque.Load() }

// dropTime bounds the clean-up after a failure.
const dropTime = 10 * time.Second

// dropUpload aborts an upload that nobody has any use for, even though ctx may have ended.
func (b *Bucket) dropUpload(ctx context.Context, key, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dropTime)
	defer cancel()
	if err := b.Abort(ctx, key, id); err != nil {
		return fmt.Errorf("its unfinished upload is left behind (upload id %s): %w", id, err)
	}
	return nil
}

// PutPart sends one part with its Content-MD5 if sum is given.
func (b *Bucket) PutPart(ctx context.Context, key, uploadID string, number int, body io.ReadSeeker, size int64, sum *[md5.Size]byte) (string, error) {
	etag, _, err := b.putPart(ctx, key, uploadID, number, body, size, sum)
	return etag, err
}

func (b *Bucket) putPart(ctx context.Context, key, uploadID string, number int, body io.Reader, size int64, sum *[md5.Size]byte) (string, *seen, error) {
	ctx, seen := observe(ctx)
	reader := lend(body)
	defer reader.takeBack()
	part, err := b.core.PutObjectPart(ctx, b.name, key, uploadID, number, reader, size, minio.PutObjectPartOptions{
		Md5Base64: base64MD5(sum),
	})
	if err == nil && part.ETag == "" {
		err = errNoReply
	}
	b.learn(seen)
	return part.ETag, seen, b.wrapUpload(fmt.Sprintf("put part %d", number), key, seen, err)
}

// Complete makes the object.
func (b *Bucket) Complete(ctx context.Context, key, uploadID string, parts []upload.StoredPart) (string, error) {
	return b.complete(ctx, key, uploadID, parts)
}

// CompleteNew makes the object if there is none of that key, as far as the store knows the condition
// (If-None-Match); others ignore it or refuse the request.
func (b *Bucket) CompleteNew(ctx context.Context, key, uploadID string, parts []upload.StoredPart) (string, error) {
	return b.complete(withHeader(ctx, "If-None-Match", "*"), key, uploadID, parts)
}

func (b *Bucket) complete(ctx context.Context, key, uploadID string, parts []upload.StoredPart) (string, error) {
	ctx, seen := observe(ctx)
	list := make([]minio.CompletePart, len(parts))
	for i, p := range parts {
		list[i] = minio.CompletePart{PartNumber: p.Number, ETag: p.ETag}
	}
	info, err := b.core.CompleteMultipartUpload(ctx, b.name, key, uploadID, list, minio.PutObjectOptions{})
	return info.ETag, b.wrapUpload("complete the upload", key, seen, err)
}

// Abort ends an upload. One that does not exist is ended.
func (b *Bucket) Abort(ctx context.Context, key, uploadID string) error {
	ctx, seen := observe(ctx)
	err := b.wrapUpload("abort the upload", key, seen, seen.deleted(b.core.AbortMultipartUpload(ctx, b.name, key, uploadID)))
	if errors.Is(err, upload.ErrNoUpload) {
		return nil
	}
	return err
}

// Stat returns what the store says of an object.
func (b *Bucket) Stat(ctx context.Context, key string) (upload.Object, error) {
	o, _, err := b.stat(ctx, key)
	return o, err
}

func (b *Bucket) stat(ctx context.Context, key string) (upload.Object, *seen, error) {
	ctx, seen := observe(ctx)
	info, err := b.core.StatObject(ctx, b.name, key, minio.StatObjectOptions{})
	if err != nil && seen.status == http.StatusOK {
		err = errNoReply // minio-go tells of the header that it misses first
	}
	if err != nil {
		return upload.Object{}, seen, b.wrap("look up the object", key, seen, err)
	}
	meta := make(upload.Metadata, len(info.UserMetadata))
	for name, value := range info.UserMetadata {
		meta[strings.ToLower(name)] = value
	}
	return upload.Object{Key: key, Size: info.Size, ETag: info.ETag, Opaque: seen.opaque, Modified: info.LastModified, Metadata: meta}, seen, nil
}

// Put makes a small object (at most 5 GiB) in one request. sum is the MD5 of body if known, else
// nil. Like PutPart it does not touch body any more once it has returned. It fails with upload.ErrPlain, and
// removes the object, where the store says neither now nor of the object that it is encrypted as asked for.
func (b *Bucket) Put(ctx context.Context, key string, body io.ReadSeeker, size int64, sum *[md5.Size]byte, meta upload.Metadata) (string, error) {
	const op = "put the object"
	ctx, seen := observe(ctx)
	reader := lend(body)
	defer reader.takeBack()
	info, err := b.core.PutObject(ctx, b.name, key, reader, size, base64MD5(sum), "", minio.PutObjectOptions{
		UserMetadata:         meta,
		ServerSideEncryption: b.sse,
	})
	if err == nil && info.ETag == "" {
		err = errNoReply
	}
	if err != nil {
		return "", b.wrap(op, key, seen, err)
	}
	if b.sse != nil && !seen.encrypted {
		_, seen, err := b.stat(ctx, key)
		if err != nil {
			return "", err
		}
		if !seen.encrypted {
			return "", b.dropPlain(ctx, key, b.plain(op, key, seen))
		}
	}
	return info.ETag, nil
}

// dropPlain removes an object that should have been encrypted and is not, and returns err, which says so.
func (b *Bucket) dropPlain(ctx context.Context, key string, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dropTime)
	defer cancel()
	if failed := b.Remove(ctx, key); failed != nil {
		return fmt.Errorf("%w; it is left behind: %w", err, failed)
	}
	return err
}

// Get returns length bytes of an object from offset on. Both must lie inside the object; the
// reader's errors are those of the connection. It fails with upload.ErrReplaced where the object has
// another ETag than ifMatch; "" is not compared.
func (b *Bucket) Get(ctx context.Context, key string, offset, length int64, ifMatch string) (io.ReadCloser, error) {
	const op = "read the object"
	ctx, seen := observe(ctx)
	var opts minio.GetObjectOptions
	if offset < 0 || length <= 0 || offset > offset+length-1 {
		return nil, fmt.Errorf("%s: %d bytes at offset %d are no range", op, length, offset)
	}
	if err := opts.SetRange(offset, offset+length-1); err != nil {
		return nil, b.wrap(op, key, seen, err)
	}
	if ifMatch != "" {
		opts.Set("If-Match", `"`+ifMatch+`"`)
	}
	body, info, header, err := b.core.GetObject(ctx, b.name, key, opts)
	if err != nil {
		return nil, b.wrap(op, key, seen, err)
	}
	if ifMatch != "" && info.ETag != ifMatch { // a store that does not look at If-Match
		body.Close()
		return nil, &upload.Error{Op: op, Bucket: b.name, Key: key, Status: seen.status, Class: upload.ErrReplaced}
	}
	span, got := fmt.Sprintf("bytes %d-%d/", offset, offset+length-1), header.Get("Content-Range")
	if seen.status != http.StatusPartialContent || info.Size != length || !strings.HasPrefix(got, span) {
		body.Close()
		return nil, b.wrap(op, key, seen, fmt.Errorf("the store sent %d bytes (%q) with status %d instead of a range of %d", info.Size, got, seen.status, length))
	}
	return body, nil
}

// Remove deletes an object. One that does not exist is deleted.
func (b *Bucket) Remove(ctx context.Context, key string) error {
	ctx, seen := observe(ctx)
	err := b.wrap("remove the object", key, seen, seen.deleted(b.core.RemoveObject(ctx, b.name, key, minio.RemoveObjectOptions{})))
	if errors.Is(err, upload.ErrNoObject) {
		return nil
	}
	return err
}

// SetMetadata replaces the metadata of object o (Key, ETag), by copying it onto itself on the server. It
// fails with upload.ErrReplaced where the store has another ETag by now; an ETag of "" is not compared. The
// object is whole at any time. Its ETag may change, since the copy has one part: what is returned is that of the
// reply, or "". Stores refuse it for objects above upload.MaxCopy: upload.SetMetadata is for those.
func (b *Bucket) SetMetadata(ctx context.Context, o upload.Object, meta upload.Metadata) (etag string, err error) {
	ctx, seen := observe(ctx)
	info, err := b.core.Client.CopyObject(ctx,
		minio.CopyDestOptions{Bucket: b.name, Object: o.Key, ReplaceMetadata: true, UserMetadata: meta, ContentType: contentType, Encryption: b.sse},
		minio.CopySrcOptions{Bucket: b.name, Object: o.Key, MatchETag: o.ETag})
	return unquote(info.ETag), b.wrap("set the metadata", o.Key, seen, err)
}

// contentType is what minio-go gives uploaded objects; a copy that replaces the metadata drops it.
const contentType = "application/octet-stream"

// CopyPart makes a part of length bytes of an object of the same bucket, from offset on. An ETag of ""
// in from is not compared.
func (b *Bucket) CopyPart(ctx context.Context, key, uploadID string, number int, from upload.Object, offset, length int64) (string, error) {
	ctx, seen := observe(ctx)
	var onlyIf map[string]string
	if from.ETag != "" {
		onlyIf = map[string]string{"x-amz-copy-source-if-match": from.ETag}
	}
	part, err := b.core.CopyObjectPart(ctx, b.name, from.Key, b.name, key, uploadID, number, offset, length, onlyIf)
	b.learn(seen)
	if err == nil && part.ETag == "" {
		err = errNoReply
	}
	return unquote(part.ETag), b.wrapUpload(fmt.Sprintf("copy part %d", number), key, seen, err)
}

// CheckBucket reports whether the bucket exists and may be used: upload.ErrNoBucket or
// upload.ErrDenied if not.
func (b *Bucket) CheckBucket(ctx context.Context) error {
	const op = "check access"
	headCtx, seen := observe(ctx)
	exists, err := b.core.BucketExists(headCtx, b.name)
	if exists || seen.status == 0 {
		return b.wrap(op, "", seen, err)
	}
	// The answer to a HEAD has no body, so it cannot say why, and there are stores that answer 404 to an unknown
	// access key. This request can.
	ctx, seen = observe(ctx)
	_, err = b.core.ListMultipartUploads(ctx, b.name, "", "", "", "", 1)
	return b.wrap(op, "", seen, err)
}

func base64MD5(sum *[md5.Size]byte) string {
	if sum == nil {
		return ""
	}
	return base64.StdEncoding.EncodeToString(sum[:])
}

func unquote(etag string) string { return strings.Trim(etag, `"`) }
