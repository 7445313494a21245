package imageservice

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"regexp"

	"imgferry/limits"
)

// Codes of the gateway in front of the service.
const (
	gatewayUnauthorized limits.Code = "APIGW.0301"
	gatewayUnknown      limits.Code = "APIGW.0101"
)

// failure is a refusal: of a request, or by an import's job.
type failure struct {
	status  int // HTTP
	code    limits.Code
	finding string // one sentence or clause of our own
	cause   error  // what the finding comes from, or nil
	whole   bool   // the finding is the whole text
}

// Error returns the code's standard text and our finding.
func (f *failure) Error() string {
	text := f.code.Text()
	if text == "" || f.whole {
		return f.finding
	}
	return text + " " + capital(f.finding) + "."
}

// Unwrap returns the cause.
func (f *failure) Unwrap() error { return f.cause }

// refuse returns a failure with the service's usual status, 400.
func refuse(code limits.Code, finding string, args ...any) *failure {
	return answerWith(http.StatusBadRequest, code, fmt.Sprintf(finding, args...))
}

// absent is a failure for a thing of a native call that is not there.
func absent(code limits.Code, finding string, args ...any) *failure {
	return answerWith(http.StatusNotFound, code, fmt.Sprintf(finding, args...))
}

// answerWith returns a failure with another status.
func answerWith(status int, code limits.Code, finding string) *failure {
	return &failure{status: status, code: code, finding: finding}
}

// failureOf makes a failure of any error: broken limits have their own code, all else is unknown.
func failureOf(err error) *failure {
	var f *failure
	var l *limits.Error
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &l):
		return refuse(l.Code, "%s: %s", l.Finding, l.Advice)
	}
	return answerWith(http.StatusInternalServerError, limits.SystemError, err.Error())
}

// errorAnswer is the body of a refusal of a call at path, in both forms that the reference has (3.3 and
// appendix B). Calls of OpenStack's own get the second alone: its clients fail on texts beside the object.
func errorAnswer(path string, err error, requestID string) (int, any) {
	f := failureOf(err)
	message := f.Error()
	answer := map[string]any{"error": map[string]any{"code": f.code, "message": message}}
	if !openStack.MatchString(path) {
		answer["error_code"], answer["error_msg"], answer["request_id"] = f.code, message, requestID
	}
	return f.status, answer
}

// openStack matches the paths of OpenStack's own calls (reference, chapter 6), those that are missing here
// included.
var openStack = regexp.MustCompile(`^/v[12](\.[0-9])?/(images|schemas|tasks|metadefs|info)(/|$)`)

func capital(s string) string {
	if s != "" && s[0] >= 'a' && s[0] <= 'z' {
		return string(s[0]-'a'+'A') + s[1:]
	}
	return s
}

// shown quotes what a client sent, cut to a length that a sentence can hold.
func shown(s string) string { return fmt.Sprintf("%.100q", s) }

// randomHex returns n random bytes in hexadecimal.
func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// failureFor returns the failure that an error is, or nil.
func failureFor(err error) *failure {
	var f *failure
	errors.As(err, &f)
	return f
}
