package uploadtest

// Class is a way in which a store, or what lies before it, fails.
type Class string

// The classes. Unless it says otherwise, the store is not asked.
const (
	// ResetRequest resets the connection at some byte of the request's body; the store gets what
	// came until then.
	ResetRequest Class = "reset in the request"
	// ResetReply lets the store do the work and resets the connection at some byte of its reply.
	ResetReply Class = "reset in the reply"
	// ReplyLost lets the store do the work and closes the connection without a byte.
	ReplyLost Class = "reply lost"
	// FailedAfterWork lets the store do the work and answers 500.
	FailedAfterWork Class = "500 after the work"
	InternalError   Class = "500"
	Unavailable     Class = "503"
	TooMany         Class = "429"
	// SlowDown is 503 SlowDown with a Retry-After of one second. A client that comes back earlier
	// is noted (Proxy.TooSoon).
	SlowDown Class = "SlowDown with Retry-After"
	// Tomorrow is 503 with a Retry-After of a day.
	Tomorrow Class = "503 until tomorrow"
	// SlowRequest and SlowReply pass everything on, in small pieces with pauses.
	SlowRequest Class = "slow request"
	SlowReply   Class = "slow reply"
	// StalledRequest reads some of the request and then nothing more, StalledReply lets the store do
	// the work and sends some of its reply. Both hold the connection longer than a client waits.
	StalledRequest Class = "stalled request"
	StalledReply   Class = "stalled reply"
	// TruncatedRequest gives the store less of the body than was announced, and passes its verdict on.
	TruncatedRequest Class = "truncated request"
	// TruncatedReply lets the store do the work and closes the connection in the middle of the reply.
	TruncatedReply Class = "truncated reply"
	// DamagedRequest changes a byte of the body on its way.
	DamagedRequest Class = "damaged request"
	// WrongETag lets the store do the work and changes the ETag in its reply.
	WrongETag Class = "wrong ETag"
	// ErrorIn200 answers 200 with an error as its body.
	ErrorIn200 Class = "error in a 200"
	// Garbage answers 200 with a page of HTML.
	Garbage Class = "garbage"
	// Lie passes on a listing with something changed in it.
	Lie Class = "lie"
	// Denied is 403 AccessDenied, which no repetition heals.
	Denied Class = "denied"
	// Vanished says that the upload does not exist.
	Vanished Class = "upload vanished"
)

// Classes are all classes.
var Classes = []Class{
	ResetRequest, ResetReply, ReplyLost, FailedAfterWork, InternalError, Unavailable, TooMany, SlowDown, Tomorrow, SlowRequest, SlowReply,
	StalledRequest, StalledReply, TruncatedRequest, TruncatedReply, DamagedRequest, WrongETag, ErrorIn200, Garbage, Lie, Denied, Vanished,
}

// Applies reports whether the class can happen to the call.
func (c Class) Applies(to Call) bool {
	switch c {
	case TruncatedRequest, SlowRequest:
		return to.hasBody()
	case DamagedRequest:
		return to.is(PutPart, PutObject) // the XML of Complete has no hash
	case WrongETag:
		return to.is(PutPart, CopyPart, ListParts, Complete, Head, Copy)
	case ErrorIn200:
		return to.is(CopyPart, Copy, Complete)
	case Lie:
		return to.is(ListParts, ListUploads)
	case Vanished:
		return to.is(PutPart, CopyPart, ListParts, Complete, Abort)
	case Garbage:
		return !to.is(HeadBucket, Get) // where it is a good answer
	}
	return to != Other
}

// Permanent reports whether a client must not repeat the request.
func (c Class) Permanent() bool { return c == Denied || c == Vanished }

// Harmless reports whether the call succeeds all the same.
func (c Class) Harmless() bool { return c == SlowRequest || c == SlowReply }

// Fault is one thing that is to go wrong.
type Fault struct {
	Class Class
	Call  Call
	// Skip is how many requests of the call go well before.
	Skip int
	// Times is how many requests fail, one after the other: 0 is one, below 0 all from then on.
	Times int
}
