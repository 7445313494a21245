package upload

import "sync/atomic"

// Progress counts what an upload has done so far. It is polled by somebody else while the upload
// runs; each count is exact at the end. Its zero value is ready.
type Progress struct {
	sent, skipped, copied, parts, retries atomic.Int64
}

// Sent returns the bytes that the store has taken or is taking. When a part is sent again, what
// was counted of the earlier attempt is taken back, so Sent plus Skipped plus Copied never passes the
// size of the object.
func (p *Progress) Sent() int64 { return p.sent.Load() }

// Skipped returns the bytes of parts that the store already had.
func (p *Progress) Skipped() int64 { return p.skipped.Load() }

// Copied returns the bytes of parts that the store made itself, of zeros.
func (p *Progress) Copied() int64 { return p.copied.Load() }

// Parts returns the number of parts that the store has.
func (p *Progress) Parts() int64 { return p.parts.Load() }

// Retries returns the number of requests that were repeated.
func (p *Progress) Retries() int64 { return p.retries.Load() }
