package upload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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
	// OnRetry, if not nil, is told of each failure that is followed by another try. Its calls may
	// overlap.
	OnRetry func(op string, try int, err error, wait time.Duration)
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
	// Err is the last failure.
	Err error
}

// Error returns the last failure and what was spent on it.
func (e *GaveUpError) Error() string {
	tries := "tries"
	if e.Tries == 1 {
		tries = "try"
	}
	return fmt.Sprintf("%v; gave up after %d %s in %v", e.Err, e.Tries, tries, e.Elapsed.Round(time.Millisecond))
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
		if try >= p.Tries || elapsed+wait > p.Budget {
			return &GaveUpError{Tries: try, Elapsed: elapsed, Err: err}
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
