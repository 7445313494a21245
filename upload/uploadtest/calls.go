package uploadtest

import (
	"net/http"
	"slices"
	"strings"
)

// Call is a call of the S3 API.
type Call string

// The calls that uploads make.
const (
	Begin       Call = "Begin"
	PutPart     Call = "PutPart"
	CopyPart    Call = "CopyPart"
	ListParts   Call = "ListParts"
	ListUploads Call = "ListUploads"
	Complete    Call = "Complete"
	Abort       Call = "Abort"
	Head        Call = "Head"
	HeadBucket  Call = "HeadBucket"
	PutObject   Call = "PutObject"
	Copy        Call = "Copy"
	Get         Call = "Get"
	Remove      Call = "Remove"
	// Other is everything else; no fault meets it.
	Other Call = "other"
)

// Calls are all calls but Other.
var Calls = []Call{Begin, PutPart, CopyPart, ListParts, ListUploads, Complete, Abort, Head, HeadBucket, PutObject, Copy, Get, Remove}

// CallOf says which call a request with the bucket in its path makes.
func CallOf(r *http.Request) Call {
	_, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	q := r.URL.Query()
	if key == "" {
		switch {
		case r.Method == http.MethodHead:
			return HeadBucket
		case r.Method == http.MethodGet && q.Has("uploads"):
			return ListUploads
		}
		return Other
	}
	copies := r.Header.Get("X-Amz-Copy-Source") != ""
	switch {
	case q.Has("uploads"):
		return Begin
	case q.Has("uploadId"):
		switch r.Method {
		case http.MethodGet:
			return ListParts
		case http.MethodPost:
			return Complete
		case http.MethodDelete:
			return Abort
		case http.MethodPut:
			if copies {
				return CopyPart
			}
			return PutPart
		}
	case len(q) == 0:
		switch r.Method {
		case http.MethodHead:
			return Head
		case http.MethodGet:
			return Get
		case http.MethodDelete:
			return Remove
		case http.MethodPut:
			if copies {
				return Copy
			}
			return PutObject
		}
	}
	return Other
}

func (c Call) is(list ...Call) bool { return slices.Contains(list, c) }

// hasBody reports whether the request has a body that the store must not do without.
func (c Call) hasBody() bool { return c.is(PutPart, PutObject, Complete) }
