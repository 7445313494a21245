package mapped

import "sync"

// Cache keeps the results of load for the keys asked for lately. It is safe for concurrent use:
// whoever asks for a key that another goroutine is loading waits for that load instead of repeating
// it. Results are never written to again, so one that was evicted stays valid for those who hold it.
type Cache struct {
	load func(key int64) ([]byte, error)

	mu      sync.Mutex
	entries map[int64]*entry
	ring    []*entry // a clock: entries in no order, nil where one was dropped
	hand    int
}

type entry struct {
	key  int64
	used bool // since the clock's hand passed last; guarded by Cache.mu
	once sync.Once
	p    []byte
	err  error
}

// NewCache returns a cache of n entries.
func NewCache(n int, load func(int64) ([]byte, error)) *Cache {
	return &Cache{load: load, entries: make(map[int64]*entry), ring: make([]*entry, n)}
}

// Get returns load(key). Failures are not kept.
func (c *Cache) Get(key int64) ([]byte, error) {
	c.mu.Lock()
	e := c.entries[key]
	if e == nil {
		e = &entry{key: key}
		c.entries[key] = e
		*c.victim() = e
	}
	e.used = true
	c.mu.Unlock()

	e.once.Do(func() { e.p, e.err = c.load(key) })
	if e.err != nil {
		c.drop(e)
	}
	return e.p, e.err
}

// victim empties a place in the ring and returns it.
func (c *Cache) victim() **entry {
	for {
		place := &c.ring[c.hand]
		c.hand = (c.hand + 1) % len(c.ring)
		switch e := *place; {
		case e == nil:
			return place
		case e.used:
			e.used = false
		default:
			delete(c.entries, e.key)
			return place
		}
	}
}

// drop forgets e, so that its key is loaded anew.
func (c *Cache) drop(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries[e.key] == e {
		delete(c.entries, e.key)
		for i := range c.ring {
			if c.ring[i] == e {
				c.ring[i] = nil
			}
		}
	}
}
