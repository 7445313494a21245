package vmdk

import (
	"math/rand/v2"
	"testing"
)

// TestUsage compares the map of used sectors with the plainest one, in windows that ranges cross.
func TestUsage(t *testing.T) {
	const size, window = 1024, 256
	r := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		type span struct{ from, to int64 }
		var spans []span
		for range 20 {
			from := r.Int64N(size)
			spans = append(spans, span{from, from + 1 + r.Int64N(min(size-from, 150))})
		}
		for start := int64(0); start < size; start += window {
			u := usage{start: start, words: make([]uint64, window/64)}
			var want [window]bool
			for _, s := range spans {
				free := true
				for i := max(s.from, start); i < min(s.to, start+window); i++ {
					free = free && !want[i-start]
				}
				for i := max(s.from, start); free && i < min(s.to, start+window); i++ {
					want[i-start] = true
				}
				if got := u.claim(s.from, s.to); got != free {
					t.Fatalf("%+v in the window at %d: %v", s, start, got)
				}
			}
			for _, s := range spans {
				var n int64
				for i := max(s.from, start); i < min(s.to, start+window); i++ {
					if !want[i-start] {
						n++
					}
				}
				if got := u.unused(s.from, s.to); got != n {
					t.Fatalf("%+v in the window at %d: %d unused, want %d", s, start, got, n)
				}
			}
		}
	}
}
