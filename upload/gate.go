package upload

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"
)

const (
	// startWorkers is how many parts are sent at once to begin with, and maxWorkers how many it may
	// become by itself: one connection rarely fills a link, and sixteen that don't are slowed down by
	// the store.
	startWorkers = DefaultWorkers
	maxWorkers   = 16

	// grew is what counts as more throughput than before: less than that is noise.
	grew = 1.08
	// restWindows is how many windows pass before more is tried again, after it did not help or the
	// store asked for less.
	restWindows = 8
)

// gate lets a changing number of parts through at the same time. It measures in windows of some parts
// each: while more parts at once bring more bytes a second it lets in more; where they don't (the link is full, or
// latency grew) it goes back, and when the store says that it is too much, to half.
type gate struct {
	now func() time.Time

	mu          sync.Mutex
	limit, busy int
	max         int
	free        chan struct{} // closed when somebody may try again

	// The window under way.
	began  time.Time
	parts  int
	bytes  int64
	queued bool // somebody waited: the limit was what limits

	best   float64 // bytes a second with bestAt parts at once
	bestAt int
	rest   int  // windows to go before more is tried
	cut    bool // the store complained in this window: once is enough
}

// newGate returns a gate for n parts at once; 0: as many as pay, at most most.
func newGate(n, most int) *gate {
	g := &gate{now: time.Now, limit: n, max: n, free: make(chan struct{})}
	if n == 0 {
		g.max = min(maxWorkers, most)
		g.limit = min(startWorkers, g.max)
	}
	return g
}

// enter waits for a place.
func (g *gate) enter(ctx context.Context) error {
	for {
		g.mu.Lock()
		if g.busy < g.limit {
			g.busy++
			if g.began.IsZero() {
				g.began = g.now()
			}
			g.mu.Unlock()
			return nil
		}
		g.queued = true
		free := g.free
		g.mu.Unlock()
		select {
		case <-free:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// leave gives the place back after so many bytes were sent; 0 if none had to be.
func (g *gate) leave(bytes int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.busy--
	if bytes > 0 {
		g.parts++
		g.bytes += bytes
	}
	if g.parts >= 2*g.limit {
		g.judge()
	}
	g.wake()
}

func (g *gate) wake() {
	close(g.free)
	g.free = make(chan struct{})
}

// judge ends the window.
func (g *gate) judge() {
	now := g.now()
	took := now.Sub(g.began).Seconds()
	if took > 0 {
		g.adapt(float64(g.bytes) / took)
	}
	g.began, g.parts, g.bytes, g.queued, g.cut = now, 0, 0, false, false
}

// adapt sets the limit after a window with that many bytes a second.
func (g *gate) adapt(speed float64) {
	switch {
	case g.cut:
		g.best, g.bestAt, g.rest = 0, g.limit, restWindows
	case !g.queued:
		// There was nothing to send: more places would not help.
	case g.best == 0, speed > grew*g.best:
		g.best, g.bestAt = speed, g.limit
		if g.rest > 0 {
			g.rest--
		} else {
			g.limit = min(g.max, g.limit+max(1, g.limit/4))
		}
	case g.limit > g.bestAt: // more did not help
		g.limit, g.rest = g.bestAt, restWindows
	case g.rest > 0:
		g.rest--
		g.best = (3*g.best + speed) / 4 // a link changes
	default:
		g.limit = min(g.max, g.limit+1)
	}
}

// failed is told why a request has to be repeated: halves the number of parts where the store asks for
// less, at most once in a window.
func (g *gate) failed(err error) {
	if !asksForLess(err) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.cut {
		g.limit, g.cut = max(1, g.limit/2), true
	}
}

// asksForLess reports the answers of a store that has too much to do.
func asksForLess(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	return e.Status == http.StatusServiceUnavailable || e.Status == http.StatusTooManyRequests ||
		e.Code == "SlowDown" || e.Code == "RequestThrottled"
}
