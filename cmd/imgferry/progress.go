package main

import (
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// How often progress is shown: often enough to look alive on a terminal, rarely enough not to fill
// a log.
const (
	barInterval  = 200 * time.Millisecond
	lineInterval = 5 * time.Second
)

// snapshot is the state of a run at one moment, in bytes.
type snapshot struct {
	read, total           int64 // guest bytes done and to do; total 0: not known yet
	sent, skipped, copied int64 // object bytes; all 0 where nothing is uploaded
}

// isTerminal says that stream, a reader or writer, is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// watch shows what poll says until the returned function is called, which waits until the last of
// it is gone: a bar on a terminal, a line or a record now and then elsewhere.
func (a *app) watch(poll func() snapshot) (stop func()) {
	show, every := a.lines(), lineInterval
	if isTerminal(a.stderr) && !a.structured() {
		show, every = a.bar(), barInterval
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				show(poll())
			case <-done:
				return
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.clear != nil {
			a.clear()
			a.clear = nil
		}
	}
}

// lines returns a show that tells of each snapshot.
func (a *app) lines() func(snapshot) {
	start, last := time.Now(), snapshot{}
	return func(s snapshot) {
		if s.read == 0 && s.sent == 0 || s == last {
			return // nothing has begun or happened: retries and waits speak for themselves
		}
		last = s
		if a.structured() {
			a.log.Info("progress", "read", s.read, "total", s.total, "sent", s.sent, "skipped", s.skipped, "copied", s.copied)
			return
		}
		a.say("%s", progressLine(s, time.Since(start)))
	}
}

// progressLine says how far a run is: bytes, speed and time left.
func progressLine(s snapshot, elapsed time.Duration) string {
	line := "read " + humanize.IBytes(uint64(s.read))
	if s.total > 0 {
		line += fmt.Sprintf(" of %s (%d%%)", humanize.IBytes(uint64(s.total)), min(s.read*100/s.total, 100))
	}
	line += sentWords(s)
	if speed := float64(s.read) / elapsed.Seconds(); speed > 0 && elapsed > time.Second {
		line += fmt.Sprintf(", %s/s", humanize.IBytes(uint64(speed)))
		if left := float64(s.total-s.read) / speed; s.total > 0 && left > 0 {
			line += fmt.Sprintf(", %s left", (time.Duration(left) * time.Second).String())
		}
	}
	return line
}

func sentWords(s snapshot) string {
	words := ""
	if s.sent > 0 {
		words = ", sent " + humanize.IBytes(uint64(s.sent))
	}
	if s.skipped > 0 {
		words += ", already there " + humanize.IBytes(uint64(s.skipped))
	}
	if s.copied > 0 {
		words += ", copied " + humanize.IBytes(uint64(s.copied))
	}
	return words
}

// bar returns a show that draws a bar of the guest bytes done. Whoever writes to stderr meanwhile
// wipes it off the line first (pastBar).
func (a *app) bar() func(snapshot) {
	b := progressbar.NewOptions64(-1,
		progressbar.OptionSetWriter(a.stderr),
		progressbar.OptionShowBytes(true),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionSetWidth(30),
		progressbar.OptionUseIECUnits(true),
		// Until the total is known the bar is a spinner, which would otherwise be turned by a goroutine
		// that nobody waits for, and that writes past a.mu.
		progressbar.OptionSetSpinnerChangeInterval(0),
	)
	var total int64
	// The bar's errors are those of a terminal that went away: there is nothing to show them on.
	return func(s snapshot) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.clear = func() { _ = b.Clear() }
		if s.total > 0 && s.total != total {
			total = s.total
			b.ChangeMax64(total)
		}
		b.Describe("read" + sentWords(s))
		_ = b.Set64(min(s.read, max(total, 0)))
	}
}
