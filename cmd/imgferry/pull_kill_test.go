package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// fetched are the ranges of an object that were sent, as far as they hold data.
type fetched struct {
	mu     sync.Mutex
	ranges [][2]int64
}

// rangeOf is the range that r asks for, unless it is one of metadata or none.
func rangeOf(r *http.Request) (first, end int64, ok bool) {
	n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &end)
	return first, end + 1, n == 2 && end-first > 300_000
}

func (f *fetched) add(first, end int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ranges = append(f.ranges, [2]int64{first, end})
}

// twice is how many bytes are in both.
func (f *fetched) twice(other *fetched) (n int64) {
	for _, a := range f.ranges {
		for _, b := range other.ranges {
			n += max(min(a[1], b[1])-max(a[0], b[0]), 0)
		}
	}
	return n
}

// TestPullKilled: a pull to a raw file that is killed, or told to stop, is gone on with by the same command,
// which fetches again what was on its way, at most.
func TestPullKilled(t *testing.T) {
	w := newWorld(t)
	disk := w.disk(96)
	name := w.pushed(disk, "d.zvhd2")
	dst := filepath.Join(w.dir, "back.raw")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const workers, before = 2, 24
	// On its way is what lies in the engine's buffers, two more than workers and those in which blocks wait to be
	// hashed together, and the two windows that are read ahead.
	const inFlight = workers + 2 + 7 + 2
	args := append(append([]string{"imgferry", "pull"}, w.through(w.store.URL)...), name, dst, "-O", "raw", "--json", "--concurrency", fmt.Sprint(workers))
	noted := func() int64 {
		var n struct{ Done int64 }
		text, err := os.ReadFile(filepath.Join(w.dir, ".back.raw.pull.note"))
		if err == nil {
			err = json.Unmarshal(text, &n)
		}
		if err != nil && !os.IsNotExist(err) {
			t.Error(err)
		}
		return n.Done
	}
	for _, how := range []os.Signal{os.Kill, os.Interrupt} {
		if how == os.Interrupt && runtime.GOOS == "windows" {
			continue // it can't be sent to one process
		}
		first, second := new(fetched), new(fetched)
		held := make(chan struct{}) // closed when the run asks for more than it gets
		gone := make(chan struct{}) // closed when it has ended
		var once sync.Once
		end := sync.OnceFunc(func() { close(gone) })
		defer end()
		w.store.set(func(rw http.ResponseWriter, r *http.Request) bool {
			a, b, ok := rangeOf(r)
			if !ok {
				return false
			}
			first.mu.Lock()
			enough := len(first.ranges) >= before
			if !enough {
				first.ranges = append(first.ranges, [2]int64{a, b})
			}
			first.mu.Unlock()
			if enough {
				once.Do(func() { close(held) })
				<-gone
				panic(http.ErrAbortHandler)
			}
			return false
		})
		victim := exec.Command(self)
		victim.Args, victim.Env = args, ownEnv()
		var stderr bytes.Buffer
		victim.Stderr = &stderr
		if err := victim.Start(); err != nil {
			t.Fatal(err)
		}
		defer victim.Process.Kill()
		ended := make(chan error, 1)
		go func() { ended <- victim.Wait() }()
		select {
		case <-held:
		case err := <-ended:
			t.Fatalf("%v: %s", err, &stderr)
		}
		// Without a word the program can only go on from what it noted in time: what came since is fetched
		// again, besides what was on its way.
		var vouched int64
		for deadline := time.Now().Add(time.Minute); how == os.Kill; time.Sleep(20 * time.Millisecond) {
			if vouched = noted(); vouched >= (before-inFlight)*(2<<20) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("only %d bytes were noted", vouched)
			}
		}
		if err := victim.Process.Signal(how); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			if err == nil {
				t.Errorf("%v: it went well", how)
			}
		case <-time.After(2 * time.Minute):
			// SIGQUIT makes it say where its goroutines are.
			victim.Process.Signal(syscall.SIGQUIT)
			t.Fatalf("%v: it does not end: %v: %s", how, <-ended, &stderr)
		}
		end()
		if _, err := os.Stat(dst); err == nil {
			t.Errorf("%v: half a disk has the name of a whole one", how)
		}

		w.store.set(func(_ http.ResponseWriter, r *http.Request) bool {
			if a, b, ok := rangeOf(r); ok {
				second.add(a, b)
			}
			return false
		})
		again := exec.Command(self)
		again.Args, again.Env = args, ownEnv()
		again.Stderr = &stderr
		out, err := again.Output()
		if err != nil {
			t.Fatalf("%v: %v: %s", how, err, &stderr)
		}
		p := parsePulled(t, result{stdout: string(out)})
		twice := first.twice(second)
		t.Logf("%v: resumed at %d, %d bytes fetched twice", how, p.Resumed, twice)
		if p.Resumed == 0 || p.Resumed < vouched || !p.Verified || how == os.Interrupt && twice > inFlight*(2<<20+64<<10) {
			t.Errorf("%v: %d bytes were fetched twice; %+v: %s", how, twice, p, &stderr)
		}
		if r := imgferry(t, "", "compare", "--a-format", "raw", "--b-format", "raw", disk, dst); r.code != 0 {
			t.Error(how, r.stdout, r.stderr)
		}
		if left, _ := filepath.Glob(filepath.Join(w.dir, ".*")); len(left) > 0 {
			t.Errorf("%v: left behind: %q", how, left)
		}
		if err := os.Remove(dst); err != nil {
			t.Error(err)
		}
	}
}
