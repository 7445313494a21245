package deflate

// splitter finds out where the kinds of literals and matches change, so that a code of their own pays.
// It is libdeflate's: it compares how often they were of each kind lately with the block before.
type splitter struct {
	lately, before [kinds]uint32
	new, old       uint32 // their sums
}

const (
	// Eight kinds of literals, short matches and long ones.
	kinds     = 10
	longMatch = 9
	// checkAfter is how many tokens count as lately, at least.
	checkAfter = 512
)

func (s *splitter) literal(v byte) {
	// The bits that tell best whether bytes are alike: text from code from numbers.
	s.lately[v>>5&6|v&1]++
	s.new++
}

func (s *splitter) match(length int) {
	k := kinds - 2
	if length >= longMatch {
		k = kinds - 1
	}
	s.lately[k]++
	s.new++
}

// ends says whether the block, of n bytes, had better end here.
func (s *splitter) ends(n int) bool {
	if s.new < checkAfter || n < minBlock {
		return false
	}
	if s.old > 0 {
		var delta uint64
		for k := range s.lately {
			expected := uint64(s.before[k]) * uint64(s.new)
			actual := uint64(s.lately[k]) * uint64(s.old)
			delta += max(expected, actual) - min(expected, actual)
		}
		limit := uint64(s.new) * uint64(s.old) * 200 / 512
		if tokens := uint64(s.new + s.old); n < 10_000 && tokens < 8192 {
			limit += limit * (8192 - tokens) / 8192 // a code is a large part of a short block
		}
		if delta+uint64(n)/4096*uint64(s.old) >= limit {
			return true
		}
	}
	for k := range s.lately {
		s.before[k] += s.lately[k]
		s.lately[k] = 0
	}
	s.old, s.new = s.old+s.new, 0
	return false
}
