package main

import (
	"fmt"
	"math"
	"os"
	"strings"
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
	size                  int64 // the object's, while all that is left is to send it, else 0
}

// sending says that progress is that of the object, not that of reading.
func (s snapshot) sending() bool { return s.size > 0 }

// stored is how much of the object the store has, or has nearly. The counts are not of one moment: a part may
// be in two of them.
func (s snapshot) stored() int64 { return min(s.sent+s.skipped+s.copied, s.size) }

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
	m := meter{since: time.Now()}
	return func(s snapshot) {
		if s.read == 0 && s.sent+s.skipped+s.copied == 0 || s == m.last {
			return // nothing has begun or happened: retries and waits speak for themselves
		}
		m.see(s, time.Now())
		if a.structured() {
			a.log.Info("progress", "read", s.read, "total", s.total, "sent", s.sent, "skipped", s.skipped, "copied", s.copied, "size", s.size)
			return
		}
		a.say("%s", m.line())
	}
}

// meter says how fast a run is: while it reads, and while it only sends, each from its beginning.
type meter struct {
	since   time.Time // when what goes on now began
	first   snapshot  // at that time
	last    snapshot
	elapsed time.Duration // from first to last
	copying bool          // the store has copied something since the one before last
}

// see notes how far the run is now.
func (m *meter) see(s snapshot, now time.Time) {
	if m.last != (snapshot{}) && s.sending() != m.last.sending() {
		m.since, m.first = now, s
	}
	m.copying = s.copied != m.last.copied
	m.last, m.elapsed = s, now.Sub(m.since)
}

// line says how far the run is: bytes, speed and time left.
func (m *meter) line() string {
	s := m.last
	line, done, total := "read "+humanize.IBytes(uint64(s.read)), s.read, s.total
	if s.sending() {
		line, done, total = objectWords(s), s.stored(), s.size
	}
	if total > 0 {
		line += fmt.Sprintf(" of %s (%d%%)", humanize.IBytes(uint64(total)), min(done*100/total, 100))
	}
	if !s.sending() {
		line += sentWords(s)
	}
	return line + m.speed()
}

// longest bounds what is said of the time left, in seconds: 30 years, and a time.Duration holds it.
const longest = 1e9

// speed says how many bytes a second are read or sent, and how long that takes for what is left. Zeros that the
// store copies are not the link's: while it does, nobody knows how much is left for the link.
func (m *meter) speed() string {
	s, moved := m.last, m.last.read-m.first.read
	left := s.total - s.read
	if s.sending() {
		moved, left = s.sent-m.first.sent, s.size-s.stored()
	}
	if moved <= 0 || m.elapsed <= time.Second {
		return ""
	}
	speed := float64(moved) / m.elapsed.Seconds()
	words := fmt.Sprintf(", %s/s", humanize.IBytes(uint64(speed)))
	if left > 0 && !m.copying {
		words += fmt.Sprintf(", %v left", time.Duration(min(math.Ceil(float64(left)/speed), longest))*time.Second)
	}
	return words
}

// objectWords says how the bytes came into the store.
func objectWords(s snapshot) string {
	if words := strings.TrimPrefix(sentWords(s), ", "); words != "" {
		return words
	}
	return "sent 0 B"
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

// bar returns a show that draws a bar of the guest bytes done, and of the object's once these are what is left.
// Whoever writes to stderr meanwhile wipes it off the line first (pastBar).
func (a *app) bar() func(snapshot) {
	m := meter{since: time.Now()}
	b := a.newBar()
	var total int64
	// The bar's errors are those of a terminal that went away: there is nothing to show them on.
	return func(s snapshot) {
		a.mu.Lock()
		defer a.mu.Unlock()
		sending := m.last.sending()
		m.see(s, time.Now())
		done, all, words := s.read, s.total, "read"+sentWords(s)
		if s.sending() {
			// The bar itself would take what the store had already for sent.
			done, all, words = s.stored(), s.size, objectWords(s)+m.speed()
		}
		if s.sending() != sending {
			_ = b.Clear()
			b, total = a.newBar(progressbar.OptionShowBytes(!s.sending()), progressbar.OptionSetPredictTime(!s.sending()), progressbar.OptionSetElapsedTime(!s.sending())), 0
		}
		a.clear = func() { _ = b.Clear() }
		if all > 0 && all != total {
			total = all
			b.ChangeMax64(total)
		}
		b.Describe(words)
		_ = b.Set64(min(done, max(total, 0)))
	}
}

func (a *app) newBar(more ...progressbar.Option) *progressbar.ProgressBar {
	return progressbar.NewOptions64(-1, append([]progressbar.Option{
		progressbar.OptionSetWriter(a.stderr),
		progressbar.OptionShowBytes(true),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionSetWidth(30),
		progressbar.OptionUseIECUnits(true),
		// Until the total is known the bar is a spinner, which would otherwise be turned by a goroutine
		// that nobody waits for, and that writes past a.mu.
		progressbar.OptionSetSpinnerChangeInterval(0),
	}, more...)...)
}
