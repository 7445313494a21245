package ims

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// What an *APIError can be, for errors.Is.
var (
	// ErrDenied: the service doesn't know the caller, or doesn't let it (401, 403).
	ErrDenied = errors.New("access denied")
	// ErrClock: access denied, to a machine whose clock is not the service's.
	ErrClock = errors.New("the clocks differ")
	// ErrNotFound: the service has no such thing (404).
	ErrNotFound = errors.New("not found")
)

// APIError is a refusal of the image service, or the failure to reach it.
type APIError struct {
	// Op is what was tried, in words: "query job 8a12".
	Op string
	// Status is the HTTP status, 0 if there was no answer.
	Status int
	// Code, Message and RequestID are the service's own words, cut and made printable. Message is the
	// beginning of the body if that is no JSON error.
	Code, Message, RequestID string
	// Garbled says that the answer was no refusal, but can't be understood: somebody else may have
	// sent it.
	Garbled bool
	// Temporary says that the same request may succeed later.
	Temporary bool
	// MaybeDone says that a request that changes something failed in a way that doesn't tell whether
	// the service carried it out: look before sending it again.
	MaybeDone bool
	// Err is the failure below, or nil.
	Err error

	skewed bool // ErrClock
}

// Error returns one sentence with the service's code and request id.
func (e *APIError) Error() string {
	var b strings.Builder
	b.WriteString(e.Op + ": ")
	switch {
	case e.Message != "":
		b.WriteString(strings.TrimRight(e.Message, ". "))
	case e.Err != nil:
		b.WriteString(e.Err.Error())
	default:
		b.WriteString("the image service refused")
	}
	var by []string
	if e.Status != 0 {
		by = append(by, fmt.Sprintf("status %d", e.Status))
	}
	if e.Code != "" && e.Code != strconv.Itoa(e.Status) {
		by = append(by, e.Code)
	}
	if e.RequestID != "" {
		by = append(by, "request "+e.RequestID)
	}
	if len(by) > 0 {
		b.WriteString(" (" + strings.Join(by, ", ") + ")")
	}
	if e.MaybeDone {
		b.WriteString("; the service may have carried it out")
	}
	return b.String()
}

// Unwrap returns the failure below.
func (e *APIError) Unwrap() error { return e.Err }

// Is tells the classes ErrDenied and ErrNotFound by the status.
func (e *APIError) Is(target error) bool {
	switch target {
	case ErrDenied:
		return e.Status == 401 || e.Status == 403
	case ErrClock:
		return e.skewed
	case ErrNotFound:
		return e.Status == 404
	}
	return false
}

// JobError is a job that ended with FAIL.
type JobError struct {
	JobID string
	// Code and Reason are the service's own words; either may be "".
	Code, Reason string
}

// Error returns one sentence with the service's code and reason.
func (e *JobError) Error() string {
	reason := e.Reason
	if reason == "" {
		reason = "the service gives no reason"
	}
	s := fmt.Sprintf("job %s failed: %s", e.JobID, strings.TrimRight(reason, ". "))
	if e.Code != "" {
		s += " (" + e.Code + ")"
	}
	return s
}

// ImageError is an image that will never be active: its import failed, or somebody deleted it.
type ImageError struct{ ID, Status string }

// Error returns one sentence.
func (e *ImageError) Error() string {
	return fmt.Sprintf("image %s is %s: it will not become usable", e.ID, e.Status)
}

// WaitError is a wait that ended before its job did, or before an image was active. What was waited
// for goes on: wait again with the same id.
type WaitError struct {
	// JobID or ImageID is what was waited for, the other is "".
	JobID, ImageID string
	// Last is the job as last seen; its Status is "" if it was never seen.
	Last Job
	// Err is why waiting ended: the context's cause, or the last *APIError.
	Err error
}

// Error returns one sentence that names the job.
func (e *WaitError) Error() string {
	s := "waiting for job " + e.JobID + " ended"
	if e.JobID == "" {
		s = "waiting for image " + e.ImageID + " ended"
	}
	if e.Last.Status != "" {
		s += fmt.Sprintf(" while it was %s at %.0f %%", e.Last.Status, e.Last.Progress*100)
	}
	if errors.Is(e.Err, context.DeadlineExceeded) {
		return s + ": the time for it is over"
	}
	return s + ": " + e.Err.Error()
}

// Unwrap returns why waiting ended.
func (e *WaitError) Unwrap() error { return e.Err }
