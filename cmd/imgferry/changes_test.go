package main

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// overlay makes a qcow2 of size bytes without data of its own, over base in the same folder.
func overlay(t *testing.T, path, base string, size int64) {
	t.Helper()
	const cluster = 64 << 10
	p := make(lying, 3*cluster)
	p.be32(0, 0x514649fb).be32(4, 3).be32(20, 16).be64(24, uint64(size)).be32(36, 1).be64(40, cluster).be64(48, 2*cluster).be32(56, 1).be32(96, 4).be32(100, 104)
	p.name(200, base)
	if err := os.WriteFile(path, p, 0o666); err != nil {
		t.Fatal(err)
	}
}

// changing writes to the file at path, again and again until stop is called, the bytes that it has: what
// matters is that somebody writes. stop says how often that was.
func changing(t *testing.T, path string) (stop func() int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	same := make([]byte, 512)
	if _, err := f.ReadAt(same, 1<<20); err != nil {
		t.Fatal(err)
	}
	var n int64
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		defer f.Close()
		for ; ; n++ {
			select {
			case <-done:
				return
			default:
			}
			// The time is set too: file systems count it in steps of some milliseconds.
			if _, err := f.WriteAt(same, 1<<20); err != nil {
				t.Error(err)
				return
			}
			if err := os.Chtimes(path, time.Time{}, time.Unix(1e9+n, 0)); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	return func() int64 { close(done); <-ended; return n }
}

// A source, or a disk below it, that changes while a command reads it: nothing it says or writes counts.
func TestSourceChangesUnderCommands(t *testing.T) {
	w := &world{t: t, dir: t.TempDir()}
	disk := w.disk(32)
	child := filepath.Join(w.dir, "child.qcow2")
	overlay(t, child, "disk.raw", 32<<20)
	other := filepath.Join(w.dir, "other.raw")
	if b, err := os.ReadFile(disk); err != nil || os.WriteFile(other, b, 0o666) != nil {
		t.Fatal(err)
	}
	allow := []string{"--allow-backing", w.dir, "--backing-format", "raw"}
	target := filepath.Join(w.dir, "target")
	for name, c := range map[string]struct {
		args []string
		code int
	}{
		"convert to raw":             {[]string{"convert", disk, target, "-O", "raw"}, exitChanged},
		"convert to zvhd2":           {[]string{"convert", disk, target, "-O", "zvhd2"}, exitChanged},
		"convert, backing file":      {append([]string{"convert", child, target, "-O", "zvhd2"}, allow...), exitChanged},
		"digest":                     {[]string{"digest", disk}, exitChanged},
		"digest, backing file":       {append([]string{"digest", child}, allow...), exitChanged},
		"compare, the first":         {[]string{"compare", disk, other}, compareReadFailed},
		"compare, the second":        {[]string{"compare", other, disk}, compareReadFailed},
		"compare, backing file":      {append([]string{"compare", child, other}, allow...), compareReadFailed},
		"compare, the second's base": {append([]string{"compare", other, child}, allow...), compareReadFailed},
	} {
		var stdout, stderr bytes.Buffer
		var code int
		// On a busy machine it may all be over before the writer has its turn.
		for changes := int64(0); changes < 10; {
			stop := changing(t, disk)
			stdout.Reset()
			stderr.Reset()
			os.Remove(target)
			code = exitCode(run(t.Context(), c.args, strings.NewReader(""), &stdout, &stderr))
			changes = stop()
		}
		if code != c.code || stdout.Len() > 0 || !strings.Contains(stderr.String(), "changed while it was read") || !strings.Contains(stderr.String(), w.dir) {
			t.Errorf("%s: exit code %d: %s%s", name, code, stdout.String(), stderr.String())
		}
		if _, err := os.Stat(target); err == nil {
			t.Errorf("%s: the target was written", name)
			os.Remove(target)
		}
	}
}

// The same for a push, in the middle of sending.
func TestBackingFileChanges(t *testing.T) {
	w := newWorld(t)
	disk := w.disk(20)
	child := filepath.Join(w.dir, "child.qcow2")
	overlay(t, child, "disk.raw", 20<<20)
	w.store.set(func(_ http.ResponseWriter, r *http.Request) bool {
		if isPart("2")(r) {
			if err := os.Chtimes(disk, time.Time{}, time.Unix(1e9, 0)); err != nil {
				t.Error(err)
			}
		}
		return false
	})
	r := w.imgferry(t.Context(), "push", "--concurrency", "1", "--allow-backing", w.dir, "--backing-format", "raw", child)
	if r.code != exitChanged || !strings.Contains(r.stderr, child+": the source changed while it was read") || r.stdout != "" {
		t.Errorf("exit code %d: %s", r.code, r.stderr)
	}
	if n := w.left(); n != 0 {
		t.Errorf("%d unfinished uploads", n)
	}
}
