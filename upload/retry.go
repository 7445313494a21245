package upload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Policy bounds how a request is repeated. A zero field means its default.
type Policy struct {
	// Tries is how often one request is made at most. Default 8.
	Tries int
	// Budget is the time after whose end no further try begins. Default 5 minutes.
	Budget time.Duration
	// Base is the wait after the first failure; it doubles with each further one up to Max, and a
	// random half of it is left out. Defaults 500 ms and 20 s.
	Base, Max time.Duration
	// Deadline is the longest that one try may take, and the longest wait for the reply once a
	// part's body is sent; Complete, for which stores work a while, may take two and a half times as
	// long. Default 2 minutes.
	Deadline time.Duration
	// Stall is how long a part's body may make no progress at all. Default 60 s.
	Stall time.Duration
	// Run, if not nil, bounds the repeated requests of all calls that share it.
	Run *RetryBudget
	// OnRetry, if not nil, is told of each failure that is followed by another try. Its calls may
	// overlap.
	OnRetry func(op string, try int, err error, wait time.Duration)
}

// RetryBudget is how many requests a whole run may repeat, whatever each one may: a store that fails
// every other request is no store to send a disk to.
type RetryBudget struct {
	limit int64
	used  atomic.Int64
}

// DefaultRetries is a run's budget unless told otherwise: one in ten of the most parts there can be.
const DefaultRetries = 1000

// NewRetryBudget returns a budget of n repeated requests.
func NewRetryBudget(n int64) *RetryBudget { return &RetryBudget{limit: n} }

// Used returns how many requests were repeated, at most as many as Limit.
func (b *RetryBudget) Used() int64 { return min(b.used.Load(), b.limit) }

// Limit returns how many requests may be repeated.
func (b *RetryBudget) Limit() int64 { return b.limit }

func (b *RetryBudget) take() bool { return b == nil || b.used.Add(1) <= b.limit }

// For the first request of a run, nothing is at stake yet, and a wrong endpoint looks like one that is
// down: it is tried a few times only, for not too long.
const (
	firstTries    = 3
	firstDeadline = 15 * time.Second
)

// First returns p for the first request of a run: with few tries and short deadlines, unless p says
// less.
func (p Policy) First() Policy {
	if p.Tries <= 0 || p.Tries > firstTries {
		p.Tries = firstTries
	}
	if p.Deadline <= 0 || p.Deadline > firstDeadline {
		p.Deadline = firstDeadline
	}
	return p
}

func (p Policy) withDefaults() Policy {
	setDefault(&p.Tries, 8)
	setDefault(&p.Budget, 5*time.Minute)
	setDefault(&p.Base, 500*time.Millisecond)
	setDefault(&p.Max, 20*time.Second)
	setDefault(&p.Deadline, 2*time.Minute)
	setDefault(&p.Stall, time.Minute)
	return p
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// GaveUpError says that a request failed until its tries or its time were used up.
type GaveUpError struct {
	Tries   int
	Elapsed time.Duration
	// Run says that not this request's tries were used up, but the whole run's.
	Run bool
	// Err is the last failure.
	Err error
}

// Error returns the last failure and what was spent on it.
func (e *GaveUpError) Error() string {
	tries := "tries"
	if e.Tries == 1 {
		tries = "try"
	}
	text := fmt.Sprintf("%v; gave up after %d %s in %v", e.Err, e.Tries, tries, e.Elapsed.Round(time.Millisecond))
	if e.Run {
		text += ", since too many requests of this run had to be repeated"
	}
	return text
}

// Unwrap returns the last failure.
func (e *GaveUpError) Unwrap() error { return e.Err }

// Temporary reports whether err is a store's failure that may pass, so that trying again later
// makes sense.
func Temporary(err error) bool {
	var read *ReadError
	if errors.As(err, &read) {
		return false // a failure of the source, whatever it wraps
	}
	var e *Error
	return errors.As(err, &e) && e.Temporary
}

// Retry calls f until it succeeds, fails for good, or p is exhausted (*GaveUpError); op says in
// words what f does. f makes one attempt, under the context that it is given, and must be able to
// begin again from the start. When ctx ends, Retry returns its cause at once.
func Retry(ctx context.Context, p Policy, op string, f func(context.Context) error) error {
	p = p.withDefaults()
	return p.retry(ctx, op, func(ctx context.Context) error {
		late := &Error{Op: op, Temporary: true, Err: fmt.Errorf("no answer within %v", p.Deadline)}
		attempt, cancel := context.WithTimeoutCause(ctx, p.Deadline, late)
		defer cancel()
		return causeOf(attempt, f(attempt))
	})
}

// causeOf prefers the reason why ctx ended to whatever a cut request returned as its error.
func causeOf(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// retry is Retry for an f that bounds its attempts itself.
func (p Policy) retry(ctx context.Context, op string, f func(context.Context) error) error {
	start := time.Now()
	for try := 1; ; try++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err := f(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !Temporary(err) {
			return err
		}
		wait := p.wait(try, err)
		elapsed := time.Since(start)
		if try >= p.Tries || wait > p.Budget-elapsed {
			return &GaveUpError{Tries: try, Elapsed: elapsed, Err: err}
		}
		if !p.Run.take() {
			return &GaveUpError{Tries: try, Elapsed: elapsed, Run: true, Err: err}
		}
		if p.OnRetry != nil {
			p.OnRetry(op, try, err, wait)
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// wait returns how long to wait after the given failed try, counted from 1.
func (p Policy) wait(try int, err error) time.Duration {
	wait := p.Max
	if shift := try - 1; shift < 30 && p.Base<<shift > 0 {
		wait = min(wait, p.Base<<shift)
	}
	wait -= rand.N(wait/2 + 1) // so that workers that failed together do not come back together
	var e *Error
	if errors.As(err, &e) {
		wait = max(wait, e.RetryAfter)
	}
	return wait
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
