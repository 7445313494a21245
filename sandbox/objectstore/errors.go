package objectstore

import (
	"errors"
	"net/http"
)

// Error is a refusal as S3 words it. errors.Is takes two for the same if their codes are equal.
type Error struct {
	// Status is the HTTP status.
	Status int
	// Code and Message are sent in the XML body.
	Code, Message string
}

// Error returns the message and the code.
func (e *Error) Error() string { return e.Message + " (" + e.Code + ")" }

// Is reports whether target is an *Error with the same code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// because returns the error with another message.
func (e *Error) because(message string) *Error {
	return &Error{Status: e.Status, Code: e.Code, Message: message}
}

// What callers inside the process may want to tell apart.
var (
	ErrNoSuchBucket   = &Error{http.StatusNotFound, "NoSuchBucket", "The bucket does not exist"}
	ErrNoSuchKey      = &Error{http.StatusNotFound, "NoSuchKey", "The key does not exist"}
	ErrBucketExists   = &Error{http.StatusConflict, "BucketAlreadyOwnedByYou", "You already own this bucket"}
	ErrBucketNotEmpty = &Error{http.StatusConflict, "BucketNotEmpty", "The bucket is not empty"}
)

// What Options.Credentials may say of a security token.
var (
	ErrInvalidToken = &Error{http.StatusBadRequest, "InvalidToken", "The security token is not valid"}
	ErrExpiredToken = &Error{http.StatusBadRequest, "ExpiredToken", "The security token has expired"}
)

// Codes and statuses are those of the S3 API reference, "Error responses".
var (
	errAccessDenied       = &Error{http.StatusForbidden, "AccessDenied", "Access denied"}
	errAuthorization      = &Error{http.StatusBadRequest, "AuthorizationHeaderMalformed", "The authorization header is malformed"}
	errAuthorizationQuery = &Error{http.StatusBadRequest, "AuthorizationQueryParametersError", "The authorization query parameters are malformed"}
	errBadDigest          = &Error{http.StatusBadRequest, "BadDigest", "The Content-MD5 does not match the body"}
	errBucketName         = &Error{http.StatusBadRequest, "InvalidBucketName", "The bucket name is not valid"}
	errEntityTooLarge     = &Error{http.StatusBadRequest, "EntityTooLarge", "The body is larger than 5 GiB"}
	errEntityTooSmall     = &Error{http.StatusBadRequest, "EntityTooSmall", "A part other than the last is smaller than allowed"}
	errIncompleteBody     = &Error{http.StatusBadRequest, "IncompleteBody", "The body is shorter than announced"}
	errInternal           = &Error{http.StatusInternalServerError, "InternalError", "The store failed"}
	errInvalidAccessKey   = &Error{http.StatusForbidden, "InvalidAccessKeyId", "The access key does not exist"}
	errInvalidArgument    = &Error{http.StatusBadRequest, "InvalidArgument", "An argument is not valid"}
	errInvalidDigest      = &Error{http.StatusBadRequest, "InvalidDigest", "The Content-MD5 is not valid"}
	errInvalidPart        = &Error{http.StatusBadRequest, "InvalidPart", "A part does not exist or has another ETag"}
	errInvalidPartNumber  = &Error{http.StatusRequestedRangeNotSatisfiable, "InvalidPartNumber", "The object has no such part"}
	errInvalidPartOrder   = &Error{http.StatusBadRequest, "InvalidPartOrder", "The parts are not in ascending order"}
	errInvalidRange       = &Error{http.StatusRequestedRangeNotSatisfiable, "InvalidRange", "The range lies outside the object"}
	errInvalidRequest     = &Error{http.StatusBadRequest, "InvalidRequest", "The request is not valid"}
	errInvalidURI         = &Error{http.StatusBadRequest, "InvalidURI", "The URI is not valid"}
	errKeyTooLong         = &Error{http.StatusBadRequest, "KeyTooLongError", "The key is longer than 1024 bytes"}
	errLocation           = &Error{http.StatusBadRequest, "InvalidLocationConstraint", "The store is in another region"}
	errMalformedTrailer   = &Error{http.StatusBadRequest, "MalformedTrailerError", "The trailer of the body is malformed"}
	errMalformedXML       = &Error{http.StatusBadRequest, "MalformedXML", "The XML is not well-formed or not what the schema says"}
	errMetadataTooLarge   = &Error{http.StatusBadRequest, "MetadataTooLarge", "The metadata headers exceed 8 KiB"}
	errMethodNotAllowed   = &Error{http.StatusMethodNotAllowed, "MethodNotAllowed", "The method is not allowed for this resource"}
	errMissingLength      = &Error{http.StatusLengthRequired, "MissingContentLength", "The Content-Length header is missing"}
	errNoSpace            = &Error{http.StatusInsufficientStorage, "InsufficientStorage", "The store's disk is full"}
	errNoSuchUpload       = &Error{http.StatusNotFound, "NoSuchUpload", "The upload does not exist; it may have been completed or aborted"}
	errNoSuchVersion      = &Error{http.StatusNotFound, "NoSuchVersion", "The version does not exist"}
	errNotImplemented     = &Error{http.StatusNotImplemented, "NotImplemented", "The store does not implement this"}
	errNotModified        = &Error{http.StatusNotModified, "NotModified", "Not modified"}
	errPayloadHash        = &Error{http.StatusBadRequest, "XAmzContentSHA256Mismatch", "The x-amz-content-sha256 header does not match the body"}
	errPrecondition       = &Error{http.StatusPreconditionFailed, "PreconditionFailed", "A precondition does not hold"}
	errRequestTimeout     = &Error{http.StatusBadRequest, "RequestTimeout", "The body did not arrive in time"}
	errShutdown           = &Error{http.StatusServiceUnavailable, "ServiceUnavailable", "The store is shutting down"}
	errSignature          = &Error{http.StatusForbidden, "SignatureDoesNotMatch", "The signature does not match"}
	errSkew               = &Error{http.StatusForbidden, "RequestTimeTooSkewed", "The request's time differs from the store's by more than 15 minutes"}
	errStorageClass       = &Error{http.StatusBadRequest, "InvalidStorageClass", "The storage class is not valid"}
	errTag                = &Error{http.StatusBadRequest, "InvalidTag", "The tags are not valid"}
	errVirtualHost        = &Error{http.StatusForbidden, "VirtualHostDomainRequired", "The bucket must be named in the host"}
)

// asError turns any failure into what the client is told. The second result says that err was no
// refusal but a failure of the store.
func asError(err error) (*Error, bool) {
	if e, ok := errors.AsType[*Error](err); ok {
		return e, false
	}
	if isNoSpace(err) {
		return errNoSpace, true
	}
	return errInternal, true
}
