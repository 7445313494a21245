package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"imgferry/upload/uploadtest"
)

// moment is when a run is killed.
type moment struct {
	call  uploadtest.Call
	n     int // which request of the call
	stage uploadtest.Stage
}

var stages = map[uploadtest.Stage]string{uploadtest.Arrived: "before the store hears of it", uploadtest.Halfway: "in its body", uploadtest.Done: "before its reply"}

func (m moment) String() string { return fmt.Sprintf("%s %d, %s", m.call, m.n, stages[m.stage]) }

// moments are those that must be among them, then others drawn over the parts.
func moments(count, parts int) []moment {
	list := []moment{
		{uploadtest.Begin, 1, uploadtest.Done}, {uploadtest.PutPart, 3, uploadtest.Halfway}, {uploadtest.Complete, 1, uploadtest.Arrived},
		{uploadtest.Complete, 1, uploadtest.Done}, {uploadtest.PutPart, 2, uploadtest.Done}, {uploadtest.Begin, 1, uploadtest.Arrived},
		{uploadtest.Copy, 1, uploadtest.Done}, {uploadtest.PutPart, parts, uploadtest.Done}, {uploadtest.PutPart, 1, uploadtest.Done},
		{uploadtest.Copy, 1, uploadtest.Arrived}, {uploadtest.ListUploads, 1, uploadtest.Done},
	}
	r := rand.New(rand.NewPCG(1, 2))
	for len(list) < count {
		list = append(list, moment{uploadtest.PutPart, 1 + r.IntN(parts), []uploadtest.Stage{uploadtest.Arrived, uploadtest.Halfway, uploadtest.Done}[r.IntN(3)]})
	}
	return list[:count]
}

// killed is what a run had brought to the store when it was killed.
type killed struct {
	mu            sync.Mutex
	arrived, done map[int]bool // numbers of parts
	dead          bool
}

func (k *killed) note(e uploadtest.Event) {
	if e.Call != uploadtest.PutPart {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.arrived[e.Part] = true
	if e.Stage == uploadtest.Done && e.Status == 200 && !k.dead {
		k.done[e.Part] = true
	}
}

func newKilled() *killed { return &killed{arrived: make(map[int]bool), done: make(map[int]bool)} }

// TestKill kills the program (kill -9) at many moments of an upload. The same command then makes the same
// object, with the journal or without, and sends nothing again but what was on its way.
func TestKill(t *testing.T) {
	count := 10
	switch {
	case long():
		count = 50
	case raced:
		count = 5
	}
	const senders = 3
	w := newWorld(t)
	disk, data := w.noiseDisk()
	direct := w.bucket()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// begin starts the program in a process of its own.
	begin := func(state, endpoint string, args ...string) (*exec.Cmd, *bytes.Buffer) {
		cmd := exec.Command(self)
		cmd.Args = append(append(append([]string{"imgferry", args[0]}, w.through(endpoint)...),
			"--part-size", chaosPart, "--concurrency", fmt.Sprint(senders)), args[1:]...)
		cmd.Env = ownEnv("XDG_STATE_HOME=" + state)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd, &stderr
	}
	to := func(key string) string { return "s3://" + w.box.Bucket() + "/" + key }
	formats := map[string][]byte{"--output-format=zvhd2": nil, "--as-is": data}
	cmd, stderr := begin(filepath.Join(w.dir, "state-0"), w.box.StoreEndpoint(), "upload", disk, to("whole"))
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, stderr)
	}
	if formats["--output-format=zvhd2"], err = content(direct, "whole"); err != nil || len(formats["--output-format=zvhd2"]) < chaosDisk {
		t.Fatal(err)
	}

	hits := 0
	for i, m := range moments(count, chaosDisk/(5<<20)) {
		format := "--output-format=zvhd2"
		if i%3 == 2 {
			format = "--as-is"
		}
		journal := i%2 == 0
		key, state := fmt.Sprintf("killed-%d", i), filepath.Join(w.dir, fmt.Sprintf("state-%d", i+1))
		about := fmt.Sprintf("%s of %s, journal %t", m, format, journal)

		first, proxy := newKilled(), uploadtest.NewProxy(t, uploadtest.Options{Target: w.box.StoreEndpoint()})
		ready := make(chan struct{})
		var victim *exec.Cmd
		var once sync.Once
		hit := false
		proxy.Watch(func(e uploadtest.Event) {
			<-ready
			first.note(e)
			if e.Call == m.call && e.N >= m.n && e.Stage == m.stage {
				once.Do(func() {
					first.mu.Lock()
					hit, first.dead = true, true
					first.mu.Unlock()
					if err := victim.Process.Kill(); err != nil {
						t.Errorf("%s: %v", about, err)
					}
				})
			}
		})
		victim, stderr = begin(state, proxy.URL, "upload", format, disk, to(key))
		close(ready)
		err := victim.Wait()
		proxy.Close()
		if hit == (err == nil) {
			t.Errorf("%s: killed %t, %v: %s", about, hit, err, stderr)
		}
		if hit {
			hits++
		}

		if !journal {
			if err := os.RemoveAll(state); err != nil {
				t.Fatal(err)
			}
		}
		second, proxy := newKilled(), uploadtest.NewProxy(t, uploadtest.Options{Target: w.box.StoreEndpoint()})
		proxy.Watch(second.note)
		again, stderr := begin(state, proxy.URL, "upload", format, disk, to(key))
		if err := again.Wait(); err != nil {
			t.Errorf("%s: again: %v: %s", about, err, stderr)
		}
		proxy.Close()
		got, err := content(direct, key)
		if err != nil || !bytes.Equal(got, formats[format]) {
			t.Errorf("%s: an object of %d bytes, %v: %s", about, len(got), err, stderr)
		}
		if left, err := unfinishedOf(direct, key); err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v: %s", about, left, err, stderr)
		}
		twice := 0
		for number := range second.arrived {
			if first.done[number] {
				t.Errorf("%s: part %d was there and was sent again: %s", about, number, stderr)
			}
			if first.arrived[number] {
				twice++
			}
		}
		if twice > senders {
			t.Errorf("%s: %d parts were sent twice: %s", about, twice, stderr)
		}
	}
	if hits < count-1 {
		t.Errorf("only %d of %d runs were killed", hits, count)
	}
}
