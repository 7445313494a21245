package convert

import (
	"crypto/sha256"
	"sync"

	"imgferry/sha256lanes"
)

// hashLanes returns how many blocks are best hashed at once on this processor.
func hashLanes() int {
	if sha256lanes.Parallel() {
		return sha256lanes.Lanes
	}
	return 1
}

// hashing computes the hashes of blocks on the workers, of several at once where that is faster: a slot that has been
// worked on then waits until there are enough of them, or until a worker has nothing else to do.
type hashing struct {
	lanes   int
	mu      sync.Mutex
	waiting []*slot
}

// add takes a slot whose hash is wanted. The slot is done when it has it.
func (h *hashing) add(s *slot) {
	h.mu.Lock()
	h.waiting = append(h.waiting, s)
	var batch []*slot
	if len(h.waiting) == h.lanes {
		batch, h.waiting = h.waiting, nil
	}
	h.mu.Unlock()
	sum(batch)
}

// flush hashes the blocks that wait. A worker calls it before it waits itself, so that no slot waits in vain.
func (h *hashing) flush() {
	h.mu.Lock()
	batch := h.waiting
	h.waiting = nil
	h.mu.Unlock()
	sum(batch)
}

// sum hashes the blocks of slots, and lets the slots go on.
func sum(batch []*slot) {
	if len(batch) == 0 {
		return
	}
	blocks := make([][]byte, len(batch))
	for i, s := range batch {
		blocks[i] = s.block
	}
	var sums [sha256lanes.Lanes][sha256.Size]byte
	sha256lanes.Sum(&sums, blocks)
	for i, s := range batch {
		s.sum = sums[i]
		s.done <- struct{}{}
	}
}
