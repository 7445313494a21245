package objectstore

import (
	"encoding/xml"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const xmlTime = "2006-01-02T15:04:05.000Z"

// request is one request under way.
type request struct {
	s          *Store
	w          http.ResponseWriter
	r          *http.Request
	control    *http.ResponseController
	id         string
	query      url.Values
	bucket     string // "" for the service itself
	key        string // "" for the bucket itself
	sig        signature
	signingKey []byte
	client     *clientReader // of the body, once it is read
}

// Handler returns the S3 service. It addresses buckets by path, and by host name under
// Options.Domain. It may be used until Close, by any number of servers.
func (s *Store) Handler() http.Handler { return http.HandlerFunc(s.serve) }

func (s *Store) serve(w http.ResponseWriter, r *http.Request) {
	q := &request{s: s, w: w, r: r, control: http.NewResponseController(w), id: strings.ToUpper(randomHex(8))}
	w.Header().Set("X-Amz-Request-Id", q.id)
	w.Header().Set("Server", "imgferry")
	if err := q.serve(); err != nil {
		q.refuse(err)
	}
}

func (q *request) serve() error {
	if !q.s.enter() {
		return errShutdown
	}
	defer q.s.leave()
	var err error
	if q.query, err = url.ParseQuery(q.r.URL.RawQuery); err != nil {
		return errInvalidURI
	}
	if q.sig, q.signingKey, err = q.s.authenticate(q.r, q.query); err != nil {
		return err
	}
	if q.r.ContentLength == 0 && len(q.sig.payload) == len(emptyHash) && !strings.EqualFold(q.sig.payload, emptyHash) {
		return errPayloadHash
	}
	if err := q.address(); err != nil {
		return err
	}
	handle, err := q.operation()
	if err != nil {
		return err
	}
	return handle(q)
}

// address finds bucket and key in host and path.
func (q *request) address() error {
	path := strings.TrimPrefix(q.r.URL.Path, "/")
	if bucket, ok := q.hostBucket(); ok {
		q.bucket, q.key = bucket, path
	} else {
		q.bucket, q.key, _ = strings.Cut(path, "/")
		if q.bucket != "" && q.s.opt.Rules.VirtualHostOnly && q.r.Method != http.MethodHead {
			return errVirtualHost
		}
	}
	if q.bucket == "" && q.key != "" {
		return errBucketName
	}
	return checkKey(q.key)
}

// hostBucket returns the bucket that the Host header names under Options.Domain.
func (q *request) hostBucket() (string, bool) {
	if q.s.opt.Domain == "" {
		return "", false
	}
	host := q.r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	bucket, ok := strings.CutSuffix(strings.ToLower(host), "."+q.s.opt.Domain)
	return bucket, ok && bucket != ""
}

func checkKey(key string) error {
	switch {
	case len(key) > maxKey:
		return errKeyTooLong
	case strings.ContainsRune(key, 0):
		return errInvalidArgument.because("A key can't hold a NUL byte")
	}
	return nil
}

// subresources are the query parameters that make a request another operation. Where there are two
// the first of them here decides.
var subresources = []string{
	"uploadId", "uploads", "partNumber", "delete", "tagging", "acl", "attributes", "restore", "select", "torrent",
	"retention", "legal-hold", "location", "versioning", "versions", "policy", "policyStatus", "lifecycle", "cors",
	"encryption", "object-lock", "website", "logging", "requestPayment", "replication", "notification", "accelerate",
	"ownershipControls", "publicAccessBlock", "analytics", "inventory", "metrics", "intelligent-tiering", "session",
	"append", "modify", "rename", "renameObject",
}

// operations are the calls of the service: method, level, subresource.
var operations = map[string]func(*request) error{
	"GET /": (*request).listBuckets,

	"PUT bucket":            (*request).createBucket,
	"HEAD bucket":           (*request).headBucket,
	"GET bucket":            (*request).listObjects,
	"DELETE bucket":         (*request).deleteBucket,
	"POST bucket?delete":    (*request).deleteObjects,
	"GET bucket?location":   (*request).bucketLocation,
	"GET bucket?uploads":    (*request).listUploads,
	"GET bucket?acl":        (*request).acl,
	"PUT bucket?acl":        (*request).putACL,
	"GET bucket?versioning": static(`<VersioningConfiguration xmlns="` + xmlns + `"/>`),
	"GET bucket?logging":    static(`<BucketLoggingStatus xmlns="` + xmlns + `"/>`),
	"GET bucket?notification": static(
		`<NotificationConfiguration xmlns="` + xmlns + `"/>`),
	"GET bucket?accelerate": static(`<AccelerateConfiguration xmlns="` + xmlns + `"/>`),
	"GET bucket?requestPayment": static(
		`<RequestPaymentConfiguration xmlns="` + xmlns + `"><Payer>BucketOwner</Payer></RequestPaymentConfiguration>`),
	"GET bucket?policy":            absent("NoSuchBucketPolicy"),
	"GET bucket?policyStatus":      absent("NoSuchBucketPolicy"),
	"GET bucket?lifecycle":         absent("NoSuchLifecycleConfiguration"),
	"GET bucket?cors":              absent("NoSuchCORSConfiguration"),
	"GET bucket?tagging":           absent("NoSuchTagSet"),
	"GET bucket?website":           absent("NoSuchWebsiteConfiguration"),
	"GET bucket?encryption":        absent("ServerSideEncryptionConfigurationNotFoundError"),
	"GET bucket?object-lock":       absent("ObjectLockConfigurationNotFoundError"),
	"GET bucket?replication":       absent("ReplicationConfigurationNotFoundError"),
	"GET bucket?ownershipControls": absent("OwnershipControlsNotFoundError"),
	"GET bucket?publicAccessBlock": absent("NoSuchPublicAccessBlockConfiguration"),

	"PUT object":             (*request).putObject,
	"GET object":             (*request).getObject,
	"HEAD object":            (*request).getObject,
	"GET object?partNumber":  (*request).getObject,
	"HEAD object?partNumber": (*request).getObject,
	"DELETE object":          (*request).deleteObject,
	"GET object?acl":         (*request).acl,
	"PUT object?acl":         (*request).putACL,
	"GET object?tagging":     (*request).getTags,
	"PUT object?tagging":     (*request).putTags,
	"DELETE object?tagging":  (*request).deleteTags,
	"POST object?uploads":    (*request).createUpload,
	"PUT object?uploadId":    (*request).uploadPart,
	"GET object?uploadId":    (*request).listParts,
	"POST object?uploadId":   (*request).completeUpload,
	"DELETE object?uploadId": (*request).abortUpload,
}

// operation finds the handler of the request.
func (q *request) operation() (func(*request) error, error) {
	level := "object"
	switch {
	case q.bucket == "":
		level = "/"
	case q.key == "":
		level = "bucket"
	}
	name := q.r.Method + " " + level
	sub := ""
	for _, s := range subresources {
		if q.query.Has(s) {
			sub = "?" + s
			break
		}
	}
	if v := q.query.Get("versionId"); level == "object" && v != "" && v != "null" {
		return nil, errNoSuchVersion
	}
	if h, ok := operations[name+sub]; ok {
		return h, nil
	}
	if sub != "" {
		return nil, errNotImplemented.because("The store does not implement " + name + sub)
	}
	return nil, errMethodNotAllowed
}

// static answers with the state of something that this store has not got.
func static(body string) func(*request) error {
	return func(q *request) error {
		if err := q.s.haveBucket(q.bucket); err != nil {
			return err
		}
		q.writeBody(http.StatusOK, []byte(xml.Header+body))
		return nil
	}
}

// absent answers that nothing of the kind was configured.
func absent(code string) func(*request) error {
	return func(q *request) error {
		if err := q.s.haveBucket(q.bucket); err != nil {
			return err
		}
		return &Error{http.StatusNotFound, code, "The bucket has no such configuration"}
	}
}

const xmlns = "http://s3.amazonaws.com/doc/2006-03-01/"

// answer sends v as XML with status 200.
func (q *request) answer(v any) error {
	p, err := xml.Marshal(v)
	if err != nil {
		return err
	}
	q.writeBody(http.StatusOK, append([]byte(xml.Header), p...))
	return nil
}

func (q *request) writeBody(status int, p []byte) {
	q.w.Header().Set("Content-Type", "application/xml")
	q.w.WriteHeader(status)
	q.writeDeadline(true)
	defer q.writeDeadline(false)
	q.w.Write(p) // fails only if the client is gone
}

// maxDrain is how much of a refused body is read, in bytes: more than a usual part.
const maxDrain = 256 << 20

// drain reads what a client still sends. Many send all of a body before they look for an answer, and
// would see a connection reset instead of e: something to retry instead of, say, a full disk.
func (q *request) drain(e *Error) {
	switch {
	case e == errRequestTimeout:
		q.w.Header().Set("Connection", "close") // or net/http would wait for the rest
	case q.client == nil && q.r.Header.Get("Expect") != "":
		// The client waits for leave to send, which reading would give.
	default:
		io.CopyN(io.Discard, q.clientBody(), maxDrain) // whatever happens, the answer is tried
		q.readDeadline(true)                           // for what net/http reads beyond that
	}
}

// refuse sends an error. HEAD and 304 have no body.
func (q *request) refuse(err error) {
	e, failure := asError(err)
	if failure {
		q.s.opt.Logger.Error("request failed", "request", q.id, "method", q.r.Method, "path", q.r.URL.Path, "error", err)
	} else {
		q.s.opt.Logger.Debug("request refused", "request", q.id, "method", q.r.Method, "path", q.r.URL.Path, "code", e.Code)
	}
	q.drain(e)
	if q.r.Method == http.MethodHead || e.Status == http.StatusNotModified {
		q.w.WriteHeader(e.Status)
		return
	}
	type reply struct {
		XMLName    xml.Name `xml:"Error"`
		Code       string
		Message    string
		Region     string `xml:",omitempty"` // where signatures for another region should go
		ServerTime string `xml:",omitempty"`
		Resource   string
		RequestID  string `xml:"RequestId"`
		HostID     string `xml:"HostId"`
	}
	out := reply{Code: e.Code, Message: e.Message, Resource: q.r.URL.Path, RequestID: q.id, HostID: "imgferry"}
	switch e.Code {
	case errAuthorization.Code:
		out.Region = q.s.opt.Region
	case errSkew.Code:
		out.ServerTime = q.s.opt.Now().UTC().Format(time.RFC3339)
	}
	p, _ := xml.Marshal(out) // strings always marshal
	q.writeBody(e.Status, append([]byte(xml.Header), p...))
}

// haveBucket fails with ErrNoSuchBucket.
func (s *Store) haveBucket(name string) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.buckets[name] == nil {
		return ErrNoSuchBucket
	}
	return nil
}

// trimETag takes the quotes off an ETag.
func trimETag(s string) string { return strings.Trim(s, `"`) }

// quote puts an ETag into quotes.
func quote(etag string) string { return `"` + etag + `"` }
