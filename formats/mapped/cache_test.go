package mapped

import (
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
)

func keyBytes(key int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(key)) }

func TestCacheIsBounded(t *testing.T) {
	loads := 0
	c := NewCache(8, func(key int64) ([]byte, error) { loads++; return keyBytes(key), nil })
	for round := range int64(3) {
		for key := range int64(100) {
			if p, err := c.Get(key); err != nil || string(p) != string(keyBytes(key)) {
				t.Fatalf("round %d, key %d: %x, %v", round, key, p, err)
			}
			if len(c.entries) > 8 {
				t.Fatalf("%d entries", len(c.entries))
			}
		}
	}
	loads = 0
	for range 10 {
		for key := range int64(7) {
			c.Get(key)
		}
	}
	if loads > 7 {
		t.Errorf("7 keys in a cache of 8 were loaded %d times", loads)
	}
}

// TestCacheLoadsOnce: many goroutines that miss the same key wait for one load.
func TestCacheLoadsOnce(t *testing.T) {
	const readers = 8
	var loads atomic.Int64
	var ready sync.WaitGroup
	ready.Add(readers)
	c := NewCache(4, func(key int64) ([]byte, error) {
		loads.Add(1)
		ready.Wait() // until everybody has asked or is about to
		return keyBytes(key), nil
	})
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			ready.Done()
			if p, err := c.Get(5); err != nil || string(p) != string(keyBytes(5)) {
				t.Errorf("%x, %v", p, err)
			}
		})
	}
	wg.Wait()
	if n := loads.Load(); n != 1 {
		t.Errorf("%d loads", n)
	}
}

func TestCacheForgetsFailures(t *testing.T) {
	broken := errors.New("broken")
	fail := true
	c := NewCache(2, func(key int64) ([]byte, error) {
		if fail {
			return nil, broken
		}
		return keyBytes(key), nil
	})
	for range 5 {
		if _, err := c.Get(1); err != broken {
			t.Fatalf("%v", err)
		}
	}
	fail = false
	if p, err := c.Get(1); err != nil || string(p) != string(keyBytes(1)) {
		t.Errorf("%x, %v", p, err)
	}
	if len(c.entries) != 1 {
		t.Errorf("%d entries", len(c.entries))
	}
}

// TestCacheCrowd: a cache far smaller than its readers' needs gives everybody the right bytes.
func TestCacheCrowd(t *testing.T) {
	c := NewCache(3, func(key int64) ([]byte, error) {
		if key%7 == 0 {
			return nil, errors.New("broken")
		}
		return keyBytes(key), nil
	})
	var wg sync.WaitGroup
	for g := range int64(8) {
		wg.Go(func() {
			for i := range int64(2000) {
				key := (i*g + i) % 20
				p, err := c.Get(key)
				if (err != nil) != (key%7 == 0) || err == nil && string(p) != string(keyBytes(key)) {
					t.Errorf("key %d: %x, %v", key, p, err)
				}
			}
		})
	}
	wg.Wait()
	if len(c.entries) > 3 {
		t.Errorf("%d entries", len(c.entries))
	}
}
