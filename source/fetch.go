package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"
)

// Object is something at another machine that is read by ranges. Each call is one attempt; a failure
// that may pass is a *Transient.
type Object interface {
	// Name is how messages call it: without secrets.
	Name() string
	// Stat says which version is there now.
	Stat(ctx context.Context) (Version, error)
	// Get returns exactly the n bytes at off of that version, or fails with ErrChanged if there is
	// another one by now. Whoever reads fewer than n bytes before the end has not got all.
	Get(ctx context.Context, v Version, off, n int64) (io.ReadCloser, error)
}

// Version is one state of an Object.
type Version struct {
	// Size is in bytes.
	Size int64
	// ETag and Modified are as the server spells them; "" if it has none. Together with the size they
	// tell versions apart.
	ETag, Modified string
}

// What remote reads fail with, for errors.Is.
var (
	// ErrChanged: the object is another one than at the beginning.
	ErrChanged = errors.New("the source changed while it was read")
	// ErrDenied: the server wants credentials, or other ones.
	ErrDenied = errors.New("access denied")
	// ErrUnreachable: the server can't be reached, or kept failing.
	ErrUnreachable = errors.New("the server can't be reached or keeps failing")
	// ErrNoRanges: the server sends whole files only.
	ErrNoRanges = errors.New("the server does not serve parts of a file (no range requests): download the file first")
)

// Transient is a failure that may pass.
type Transient struct {
	Err error
	// After is how long the server asks to be left alone; 0 if it doesn't.
	After time.Duration
}

// Error is that of the failure.
func (e *Transient) Error() string { return e.Err.Error() }

// Unwrap returns the failure.
func (e *Transient) Unwrap() error { return e.Err }

// gaveUp is a failure that did not pass.
type gaveUp struct {
	tries int
	err   error
}

func (e *gaveUp) Error() string   { return fmt.Sprintf("%v; gave up after %d tries", e.err, e.tries) }
func (e *gaveUp) Unwrap() []error { return []error{e.err, ErrUnreachable} }

// Patience bounds how reads of an Object are repeated. A zero field means its default.
type Patience struct {
	// Tries is how often one range is asked for at most, what arrived of it aside. Default 8.
	Tries int
	// Base is the wait after the first failure; it doubles with each further one up to Max, and a
	// random half of it is left out. Defaults 500 ms and 20 s.
	Base, Max time.Duration
	// Stall is how long nothing may arrive: no answer, or no byte of a body. Default 30 s.
	Stall time.Duration
	// OnRetry, if not nil, is told of each failure that is followed by another try. Its calls may
	// overlap.
	OnRetry func(what string, try int, err error, wait time.Duration)
}

func (p Patience) withDefaults() Patience {
	if p.Tries <= 0 {
		p.Tries = 8
	}
	if p.Base <= 0 {
		p.Base = 500 * time.Millisecond
	}
	if p.Max <= 0 {
		p.Max = 20 * time.Second
	}
	if p.Stall <= 0 {
		p.Stall = 30 * time.Second
	}
	return p
}

const (
	// slowest is the least speed of a body in bytes a second: a server that sends a byte now and then
	// never stalls, and never ends.
	slowest = 16 << 10
	// longestAfter bounds the wait that a server may ask for.
	longestAfter = 2 * time.Minute
)

// again calls f until it succeeds, fails for good or the tries are used up. f gets its context's cause
// as its error where that ended it.
func (p Patience) again(ctx context.Context, what string, f func(context.Context) error) error {
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
		var passing *Transient
		if !errors.As(err, &passing) {
			return err
		}
		if try >= p.Tries {
			return &gaveUp{try, err}
		}
		wait := p.Max
		if shift := try - 1; shift < 20 {
			wait = min(wait, p.Base<<shift)
		}
		wait -= rand.N(wait/2 + 1) // so that readers that failed together do not come back together
		wait = max(wait, min(passing.After, longestAfter))
		if p.OnRetry != nil {
			p.OnRetry(what, try, err, wait)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

// fetch fills buf with the bytes of version v at off. What has arrived is kept from try to try.
func (p Patience) fetch(ctx context.Context, o Object, v Version, buf []byte, off int64) error {
	got := 0
	what := fmt.Sprintf("read %s at %d", o.Name(), off)
	return p.again(ctx, what, func(ctx context.Context) error {
		n, err := p.attempt(ctx, o, v, buf[got:], off+int64(got))
		got += n
		if got == len(buf) {
			return nil
		}
		return err
	})
}

// attempt is one request; n bytes of buf have arrived whatever the error.
func (p Patience) attempt(parent context.Context, o Object, v Version, buf []byte, off int64) (n int, err error) {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	stalled := &Transient{Err: fmt.Errorf("nothing arrived for %v", p.Stall)}
	stall := time.AfterFunc(p.Stall, func() { cancel(stalled) })
	defer stall.Stop()
	limit := p.Stall + time.Duration(len(buf)/slowest)*time.Second
	late := time.AfterFunc(limit, func() {
		cancel(&Transient{Err: fmt.Errorf("%d bytes did not arrive within %v", len(buf), limit)})
	})
	defer late.Stop()
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}()
	body, err := o.Get(ctx, v, off, int64(len(buf)))
	if err != nil {
		return 0, err
	}
	defer body.Close()
	for n < len(buf) {
		stall.Reset(p.Stall)
		m, err := body.Read(buf[n:])
		n += m
		if err == nil || n == len(buf) {
			continue
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return n, &Transient{Err: fmt.Errorf("the answer broke off after %d of %d bytes: %w", n, len(buf), err)}
	}
	return n, nil
}

// inTime calls f, which must have its answer before the time is over in which something must arrive.
func (p Patience) inTime(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, p.Stall, &Transient{Err: fmt.Errorf("no answer within %v", p.Stall)})
	defer cancel()
	err := f(ctx)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
