package profile_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"imgferry/profile"
)

// TestChangesAtOnce: of many changes at once none is lost.
func TestChangesAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "config.yaml")
	var wg sync.WaitGroup
	const n = 40
	for i := range n {
		wg.Go(func() {
			f, err := profile.Load(path)
			if err != nil {
				t.Error(err)
				return
			}
			err = f.Change(t.Context(), func(f *profile.File) (bool, error) { return true, f.Set(fmt.Sprintf("p%d", i), profile.Region, "r") })
			if err != nil || f.Get(fmt.Sprintf("p%d", i), profile.Region) != "r" {
				t.Errorf("change %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	f := load(t, path)
	if got := len(f.Names()); got != n {
		t.Errorf("%d of %d changes are there", got, n)
	}
}

func TestChangeOrNot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	f := load(t, path)
	no := errors.New("no")
	for _, c := range []struct {
		save bool
		err  error
		file bool
	}{{false, nil, false}, {true, no, false}, {true, nil, true}} {
		err := f.Change(t.Context(), func(f *profile.File) (bool, error) {
			check(t, f.Set("p", profile.Region, "r"))
			return c.save, c.err
		})
		_, stat := os.Stat(path)
		if !errors.Is(err, c.err) || (stat == nil) != c.file {
			t.Errorf("%+v: %v, %v", c, err, stat)
		}
	}
	// Whoever holds the lock is waited for, until the caller gives up.
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err := f.Change(t.Context(), func(*profile.File) (bool, error) {
		return false, load(t, path).Change(ctx, func(*profile.File) (bool, error) { t.Error("both at once"); return false, nil })
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}
