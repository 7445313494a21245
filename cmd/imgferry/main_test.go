package main

import (
	"os"
	"testing"
	"time"
)

// A signal that comes twice at once is one; the next that a person can send ends the process.
func TestEchoOfASignal(t *testing.T) {
	for _, c := range []struct {
		at    []time.Duration // when each signal comes
		again bool
	}{
		{nil, false},
		{[]time.Duration{0}, false},
		{[]time.Duration{0, 0}, false},
		{[]time.Duration{0, 0, echo - 1}, false},
		{[]time.Duration{0, 0, 100 * time.Millisecond, echo}, true},
		{[]time.Duration{0, time.Second}, true},
	} {
		start := time.Now()
		signals, done := make(chan os.Signal), make(chan struct{})
		left := c.at
		clock := func() time.Time {
			at := start.Add(left[0])
			left = left[1:]
			return at
		}
		go func() { // ends with the last signal
			for range c.at {
				signals <- os.Interrupt
			}
			if !c.again {
				close(done)
			}
		}()
		first := 0
		if again := heed(signals, done, clock, func() { first++ }); again != c.again || first != min(1, len(c.at)) || len(left) > 0 {
			t.Errorf("%v: again %v, %d times the first, %d not heeded", c.at, again, first, len(left))
		}
	}
}
