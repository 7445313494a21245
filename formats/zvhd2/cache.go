package zvhd2

import (
	"slices"
	"sync"
)

// cacheBlocks is how many decoded blocks are kept, 2 MiB each: enough for a few readers that go
// through the disk in small steps. A block that somebody still copies from counts beside it.
const cacheBlocks = 4

// cache keeps the blocks used last. The zero value is empty. Safe for concurrent use; several
// readers of a block wait for one decode.
type cache struct {
	mu     sync.Mutex
	recent []*cached // the last used first
}

type cached struct {
	block uint32
	once  sync.Once
	data  []byte
	err   error
}

// get returns the decoded block, made by decode if it isn't kept. What it returns is not to be
// written to. Failures are not kept.
func (c *cache) get(block uint32, decode func(dst []byte) error) ([]byte, error) {
	e := c.entry(block)
	e.once.Do(func() {
		data := make([]byte, BlockSize)
		if e.err = decode(data); e.err == nil {
			e.data = data
		}
	})
	if e.err != nil {
		c.drop(e)
	}
	return e.data, e.err
}

// entry returns the entry of block, now the one used last.
func (c *cache) entry(block uint32) *cached {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.recent, func(e *cached) bool { return e.block == block })
	e := &cached{block: block}
	switch {
	case i >= 0:
		e = c.recent[i]
		c.recent = slices.Delete(c.recent, i, i+1)
	case len(c.recent) == cacheBlocks:
		c.recent = slices.Delete(c.recent, cacheBlocks-1, cacheBlocks)
	}
	c.recent = slices.Insert(c.recent, 0, e)
	return e
}

func (c *cache) drop(e *cached) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.recent = slices.DeleteFunc(c.recent, func(o *cached) bool { return o == e })
}
