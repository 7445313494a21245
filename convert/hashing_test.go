package convert

import (
	"crypto/sha256"
	"testing"
)

// TestHashing: no slot waits in vain, however many are hashed together.
func TestHashing(t *testing.T) {
	for _, lanes := range []int{1, 2, hashLanes()} {
		h := hashing{lanes: lanes}
		var slots []*slot
		for i := range 2*lanes + lanes/2 {
			s := &slot{block: newBlock(), done: make(chan struct{}, 1)}
			s.block[i] = 1
			slots = append(slots, s)
			h.add(s)
			for j, s := range slots {
				if done := len(s.done) > 0; done != (j < len(slots)/lanes*lanes) {
					t.Errorf("%d lanes, %d slots: slot %d done: %v", lanes, len(slots), j, done)
				}
			}
		}
		h.flush()
		h.flush()
		for i, s := range slots {
			if len(s.done) == 0 || s.sum != sha256.Sum256(s.block) {
				t.Errorf("%d lanes: slot %d is not hashed", lanes, i)
			}
		}
	}
}
