package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"
)

const mib = 1 << 20

// A run's lines tell of reading, then of what is left to be sent, and of nothing past the whole.
func TestProgressLines(t *testing.T) {
	start := time.Now()
	type at struct {
		after time.Duration
		s     snapshot
		line  string
	}
	surveyed := snapshot{read: 60 * mib, total: 60 * mib, size: 200 * mib}
	sent := func(s snapshot, sent, skipped, copied int64) snapshot {
		s.sent, s.skipped, s.copied = sent*mib, skipped*mib, copied*mib
		return s
	}
	for name, run := range map[string][]at{
		"raw": {
			{5 * time.Second, snapshot{read: 30 * mib, total: 60 * mib}, "read 30 MiB of 60 MiB (50%), 6.0 MiB/s, 5s left"},
			{10 * time.Second, surveyed, "sent 0 B of 200 MiB (0%)"},
			{15 * time.Second, sent(surveyed, 20, 0, 140), "sent 20 MiB, copied 140 MiB of 200 MiB (80%), 4.0 MiB/s"},
			{20 * time.Second, sent(surveyed, 40, 0, 140), "sent 40 MiB, copied 140 MiB of 200 MiB (90%), 4.0 MiB/s, 5s left"},
			{24900 * time.Millisecond, sent(surveyed, 59, 0, 140), "sent 59 MiB, copied 140 MiB of 200 MiB (99%), 4.0 MiB/s, 1s left"},
			{25 * time.Second, sent(surveyed, 60, 0, 140), "sent 60 MiB, copied 140 MiB of 200 MiB (100%), 4.0 MiB/s"},
		},
		"as-is": {
			{5 * time.Second, sent(snapshot{size: 20 * mib}, 10, 0, 0), "sent 10 MiB of 20 MiB (50%), 2.0 MiB/s, 5s left"},
			// A part that was sent and then found to be there is in both counts for a moment.
			{10 * time.Second, sent(snapshot{size: 20 * mib}, 15, 10, 0), "sent 15 MiB, already there 10 MiB of 20 MiB (100%), 1.5 MiB/s"},
		},
		"resumed": {
			{2 * time.Second, sent(snapshot{size: 20 * mib}, 0, 10, 0), "already there 10 MiB of 20 MiB (50%)"},
		},
		"stream": {
			{5 * time.Second, sent(snapshot{read: 30 * mib, total: 40 * mib}, 10, 0, 0), "read 30 MiB of 40 MiB (75%), sent 10 MiB, 6.0 MiB/s, 2s left"},
			{10 * time.Second, sent(snapshot{read: 40 * mib, total: 40 * mib, size: 30 * mib}, 20, 0, 0), "sent 20 MiB of 30 MiB (66%)"},
			{12 * time.Second, sent(snapshot{read: 40 * mib, total: 40 * mib, size: 30 * mib}, 24, 0, 0), "sent 24 MiB of 30 MiB (80%), 2.0 MiB/s, 3s left"},
			{20 * time.Second, sent(snapshot{read: 40 * mib, total: 80 * mib}, 30, 0, 0), "read 40 MiB of 80 MiB (50%), sent 30 MiB"},
			{25 * time.Second, sent(snapshot{read: 60 * mib, total: 80 * mib}, 30, 0, 0), "read 60 MiB of 80 MiB (75%), sent 30 MiB, 4.0 MiB/s, 5s left"},
		},
	} {
		m := meter{since: start}
		for _, step := range run {
			m.see(step.s, start.Add(step.after))
			if got := m.line(); got != step.line {
				t.Errorf("%s, after %v:\n%s, not\n%s", name, step.after, got, step.line)
			}
		}
	}
}

// The bar is that of the object once the disk is read, and never stands at its end before.
func TestBarOfTheObject(t *testing.T) {
	var stderr bytes.Buffer
	a := &app{stdout: io.Discard, stderr: &stderr, logLevel: "off", logFormat: "text"}
	a.startLog()
	show := a.bar()
	for _, c := range []struct {
		s          snapshot
		says       string
		percentage string
	}{
		{snapshot{read: 30 * mib, total: 60 * mib}, "read", " 50% "},
		{snapshot{read: 60 * mib, total: 60 * mib}, "read", "100% "},
		{snapshot{read: 60 * mib, total: 60 * mib, size: 200 * mib}, "sent 0 B", "  0% "},
		{snapshot{read: 60 * mib, total: 60 * mib, size: 200 * mib, sent: 20 * mib}, "sent 20 MiB", " 10% "},
		{snapshot{read: 60 * mib, total: 60 * mib, size: 200 * mib, sent: 20 * mib, copied: 80 * mib}, "sent 20 MiB, copied 80 MiB", " 50% "},
		{snapshot{read: 60 * mib, total: 60 * mib, size: 200 * mib, sent: 20 * mib, skipped: 180 * mib, copied: 80 * mib}, "sent 20 MiB, already there 180 MiB", "100% "},
		{snapshot{read: 60 * mib, total: 120 * mib, sent: 20 * mib}, "read, sent 20 MiB", " 50% "},
	} {
		stderr.Reset()
		show(c.s)
		drawn := strings.Split(strings.TrimRight(stderr.String(), "\r "), "\r")
		if bar := drawn[len(drawn)-1]; !strings.HasPrefix(bar, c.says) || !strings.Contains(bar, c.percentage) {
			t.Errorf("%+v: %q", c.s, bar)
		}
	}
}
