package obs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"github.com/minio/minio-go/v7"

	"imgferry/upload"
)

var (
	errNoReply = errors.New("the store's reply is not complete")
	errEndless = errors.New("the store's listing does not end")
	errListing = errors.New("the store's listing can't be right")
	errMany    = fmt.Errorf("there are more than the %d that are listed at most: name the key whose uploads are wanted", maxUploads)
	errTooLong = errors.New("the store's answer is longer than any it may give")
	errCut     = errors.New("the store closed the connection")
)

// temporaryCodes are errors that may pass although their status (4xx, or 200 with an error as its
// body) does not say so.
var temporaryCodes = map[string]bool{
	"BadDigest":            true, // the body was damaged on its way
	"ClientDisconnected":   true, // MinIO's 499: it saw the connection end
	"IncompleteBody":       true,
	"InternalError":        true,
	"OperationAborted":     true, // another request for the same thing is under way
	"RequestLimitExceeded": true,
	"RequestThrottled":     true,
	"RequestTimeout":       true, // the body came too slowly
	"ServiceUnavailable":   true,
	"SlowDown":             true,
	"SlowDownRead":         true,
	"SlowDownWrite":        true,
	"Throttling":           true,
	"ThrottlingException":  true,
}

// permanentCodes are errors that do not pass although their status may be 5xx.
var permanentCodes = map[string]bool{
	"InsufficientStorage": true,
	"NotImplemented":      true,
	"QuotaExceeded":       true,
}

// classes are the codes that callers tell apart.
var classes = map[string]error{
	"AccessDenied":          upload.ErrDenied,
	"AllAccessDisabled":     upload.ErrDenied,
	"AccountProblem":        upload.ErrDenied,
	"ExpiredToken":          upload.ErrExpired,
	"InvalidAccessKeyId":    upload.ErrDenied,
	"InvalidToken":          upload.ErrDenied,
	"InvalidTokenId":        upload.ErrDenied, // MinIO's
	"InvalidSecurityToken":  upload.ErrDenied,
	"RequestTimeTooSkewed":  upload.ErrClock,
	"SignatureDoesNotMatch": upload.ErrDenied,
	"XAdminUserNotFound":    upload.ErrDenied, // versitygw's, of an unknown access key
	"PreconditionFailed":    upload.ErrReplaced,
	"NoSuchBucket":          upload.ErrNoBucket,
	"NoSuchKey":             upload.ErrNoObject,
	"NoSuchUpload":          upload.ErrNoUpload,
}

// sentences replace messages that do not help.
var sentences = map[string]string{
	"Conflict":                  "it is in conflict with something else that is under way", // minio-go's, of an answer without a body
	"VirtualHostDomainRequired": "the store wants the bucket in the host name, not in the path",
}

// otherRegion are the codes of a store that has the bucket in another region than the request was sent
// to, or signed for. Some name the region, in the body or in a header.
var otherRegion = map[string]bool{
	"AuthorizationHeaderMalformed": true,
	"PermanentRedirect":            true,
	"TemporaryRedirect":            true,
	"Redirect":                     true,
}

// mustBeHTTPS is what to do about an endpoint of http:// that should be one of https://.
const mustBeHTTPS = "the store speaks HTTPS there: its endpoint must begin with https:"

// wantsTLS reports an answer by which a server says that it takes only TLS on this port, in the words of
// Go's server or of nginx.
func wantsTLS(status int, body string) bool {
	body = strings.ToLower(body)
	return status == http.StatusBadRequest &&
		(strings.Contains(body, "http request to an https server") || strings.Contains(body, "plain http request was sent to https"))
}

// isTLSAlert reports a server that answers a plain request with a TLS alert record: type 21, version 3.x.
// net/http has no type for it.
func isTLSAlert(err error) bool {
	return strings.Contains(err.Error(), `malformed HTTP response "\x15\x03`)
}

// wrapUpload is wrap for a call that concerns an upload: a 404 without a word then means the
// upload, where minio-go assumes the object.
func (b *Bucket) wrapUpload(op, key string, s *seen, err error) error {
	err = b.wrap(op, key, s, err)
	if e, ok := err.(*upload.Error); ok && e.Class == upload.ErrNoObject {
		e.Class = upload.ErrNoUpload
	}
	return err
}

// wrap turns what minio-go returned into an *upload.Error, or nil.
func (b *Bucket) wrap(op, key string, s *seen, err error) error {
	if err == nil {
		return nil
	}
	e := &upload.Error{Op: op, Bucket: b.name, Key: key}
	if s != nil {
		e.Status, e.RequestID, e.RetryAfter = s.status, s.requestID, s.retryAfter
	}
	var answer minio.ErrorResponse
	if errors.As(err, &answer) && e.Status != 0 {
		fromAnswer(e, answer)
	} else {
		fromFailure(e, err)
	}
	return e
}

// fromAnswer fills e from an answer that is an error.
func fromAnswer(e *upload.Error, answer minio.ErrorResponse) {
	if answer.Code == "" || answer.Code[0] <= '9' {
		// The body was no error document, so minio-go put the status line in place of a code.
		e.Temporary = temporaryStatus(e.Status)
		e.Message = http.StatusText(e.Status)
		if wantsTLS(e.Status, answer.Message) {
			e.Message = mustBeHTTPS
		}
		if e.Status < 300 {
			e.Message, e.Err, e.Temporary = "", errNoReply, true
		}
		e.Class = deniedStatus(e.Status)
		return
	}
	e.Code, e.Message, e.Class = answer.Code, answer.Message, classes[answer.Code]
	if sentence, ok := sentences[e.Code]; ok {
		e.Message = sentence
	}
	if otherRegion[e.Code] && answer.Region != "" {
		e.Message = fmt.Sprintf("the bucket is in the region %q", answer.Region)
	}
	if e.RequestID == "" {
		e.RequestID = answer.RequestID
	}
	e.Temporary = !permanentCodes[e.Code] && (temporaryCodes[e.Code] || temporaryStatus(e.Status))
}

// deniedStatus is the class of an answer without a code. With one, the code decides: a quota that is
// used up is 403 too.
func deniedStatus(status int) error {
	if status == http.StatusUnauthorized || status == http.StatusForbidden {
		return upload.ErrDenied
	}
	return nil
}

func temporaryStatus(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported, http.StatusInsufficientStorage:
		return false
	}
	return status >= 500
}

// isCut reports a connection that ended in the middle of a request. minio-go replaces io.EOF by a text
// with the URL.
func isCut(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed) ||
		strings.HasPrefix(err.Error(), "Connection closed by foreign host")
}

// fromFailure fills e from the failure to get an answer, or to read all of it.
func fromFailure(e *upload.Error, err error) {
	var (
		request *url.Error
		name    *net.DNSError
		cert    *tls.CertificateVerificationError
		plain   tls.RecordHeaderError
	)
	e.Err = err
	isRequest := errors.As(err, &request)
	if isRequest {
		e.Err = request.Err // without the URL
	}
	switch {
	case e.Err == context.Canceled, e.Err == context.DeadlineExceeded:
		// Whoever ended the context knows whether it makes sense to try again. (A timeout of the
		// transport is something else, although errors.Is takes it for DeadlineExceeded.)
	case errors.Is(err, errEndless), errors.Is(err, errListing), errors.Is(err, errMany), errors.Is(err, errTooLong):
	case errors.As(err, &cert):
		e.Message = "the store's certificate is not trusted: " + cert.Err.Error()
	case errors.As(err, &plain), errors.Is(err, http.ErrSchemeMismatch):
		e.Message = "the store does not speak HTTPS here: its endpoint must begin with http:"
	case isTLSAlert(err):
		e.Message = mustBeHTTPS
	case errors.As(err, &name) && name.IsNotFound:
		e.Message = "there is no host " + name.Name
	case isRequest:
		e.Temporary = true
		if isCut(request.Err) {
			e.Err = errCut
		}
	case errors.Is(err, errNoReply):
		e.Temporary = true
	case e.Status != 0:
		// The answer broke off, or was no XML.
		e.Temporary = true
		e.Err = fmt.Errorf("%w: %w", errNoReply, err)
	}
	// What is left was refused before it was sent, such as a bad name of a bucket.
}
