package upload

import (
	"testing"
	"time"
)

// link is a store in virtual time that takes parts at a speed which depends on how many there are.
func (g *gate) link(t *testing.T, parts int, speed func(n int) float64, busy func(part int) bool) {
	t.Helper()
	const size = 8 << 20
	now := time.Unix(0, 0)
	g.now = func() time.Time { return now }
	for n := range parts {
		for g.busy < g.limit {
			if err := g.enter(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		g.queued = true // more is waiting
		now = now.Add(time.Duration(size / speed(g.busy) * float64(time.Second)))
		if busy != nil && busy(n) {
			g.failed(&Error{Status: 503, Code: "SlowDown", Temporary: true})
		}
		g.leave(size)
	}
}

func TestGate(t *testing.T) {
	perConnection := func(n int) float64 { return 1e6 * float64(n) }
	g := newGate(0, 100)
	if g.link(t, 500, perConnection, nil); g.limit < maxWorkers-2 { // the last ones bring too little to tell
		t.Errorf("%d at once where each brings more", g.limit)
	}
	g = newGate(0, 6)
	if g.link(t, 500, perConnection, nil); g.limit != 6 {
		t.Errorf("%d at once with 6 buffers", g.limit)
	}
	full := func(int) float64 { return 1e6 }
	g = newGate(0, 100)
	if g.link(t, 60, full, nil); g.limit > startWorkers+4 {
		t.Errorf("%d at once on a full link", g.limit)
	}
	g = newGate(12, 100)
	most := 0
	g.link(t, 400, func(n int) float64 { most = max(most, n); return 1e6 }, func(n int) bool { return n < 200 })
	if most != 12 || g.limit > 6 {
		t.Errorf("%d at once, then %d, at a store that is busy", most, g.limit)
	}
	g = newGate(0, 100)
	g.link(t, 100, perConnection, func(n int) bool { return n < 10 })
	if g.limit < startWorkers {
		t.Errorf("%d at once after a store was busy for a while", g.limit)
	}
	// More at once than the link bears: latency grows, throughput falls.
	g = newGate(0, 100)
	g.link(t, 1000, func(n int) float64 {
		if n > 8 {
			return 4e6
		}
		return 1e6 * float64(n)
	}, nil)
	if g.limit > 9 || g.limit < 6 {
		t.Errorf("%d at once where 8 are best", g.limit)
	}
}
