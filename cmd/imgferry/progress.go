package main

import (
	"fmt"
	"io"
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
	read, total   int64 // guest bytes done and to do; total 0: not known yet
	sent, skipped int64 // object bytes; both 0 where nothing is uploaded
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// watch shows what poll says on w until the returned function is called, which waits until the
// last of it is shown: a bar on a terminal, a line now and then elsewhere.
func watch(w io.Writer, poll func() snapshot) (stop func()) {
	show, every := lines(w), lineInterval
	if isTerminal(w) {
		show, every = bar(w), barInterval
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				show(poll(), false)
			case <-done:
				show(poll(), true)
				return
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// lines returns a show that prints one line each time, and nothing at the end of a run: its
// outcome says more.
func lines(w io.Writer) func(snapshot, bool) {
	start := time.Now()
	return func(s snapshot, last bool) {
		if last {
			return
		}
		fmt.Fprintln(w, progressLine(s, time.Since(start)))
	}
}

// progressLine says how far a run is: bytes, speed and time left.
func progressLine(s snapshot, elapsed time.Duration) string {
	line := "read " + humanize.IBytes(uint64(s.read))
	if s.total > 0 {
		line += fmt.Sprintf(" of %s (%d%%)", humanize.IBytes(uint64(s.total)), s.read*100/s.total)
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
	return words
}

// bar returns a show that draws a bar of the guest bytes done.
func bar(w io.Writer) func(snapshot, bool) {
	b := progressbar.NewOptions64(-1,
		progressbar.OptionSetWriter(w),
		progressbar.OptionShowBytes(true),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionShowElapsedTimeOnFinish(),
		progressbar.OptionSetWidth(30),
		progressbar.OptionUseIECUnits(true),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionSetDescription("reading"),
	)
	total := int64(-1)
	return func(s snapshot, last bool) {
		if s.total > 0 && s.total != total {
			total = s.total
			b.ChangeMax64(total)
		}
		b.Describe("read" + sentWords(s))
		// The bar's own error is a terminal that went away: nothing to show it on.
		_ = b.Set64(s.read)
		if last {
			_ = b.Clear()
		}
	}
}
