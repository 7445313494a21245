package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// reach runs a command that reads from the store, in a hurry.
func (w *world) reach(ctx context.Context, args ...string) result {
	w.t.Helper()
	settings := []string{"--obs-endpoint", w.store.URL, "--ak", "test-key", "--sk", "the-test-secret", "--region", w.box.Region(), "--retries", "3"}
	var stdout, stderr bytes.Buffer
	a := &app{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, pace: hurry}
	err := a.run(ctx, append(append([]string{args[0]}, settings...), args[1:]...))
	return result{exitCode(err), stdout.String(), stderr.String()}
}

// pushed pushes the disk and returns the object's address.
func (w *world) pushed(disk, key string, args ...string) string {
	w.t.Helper()
	w.store.set(pass)
	if r := w.imgferry(w.t.Context(), append([]string{"push", "--os-version", "Other", "--name", key, "--key", key, "--new-image", disk}, args...)...); r.code != 0 {
		w.t.Fatal(r.stderr)
	}
	return "s3://" + w.box.Bucket() + "/" + key
}

// counted adds up the ranges that are asked for.
func counted(n *atomic.Int64) func(http.ResponseWriter, *http.Request) bool {
	return func(_ http.ResponseWriter, r *http.Request) bool {
		var first, last int64
		if k, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last); k == 2 {
			n.Add(last - first + 1)
		}
		return false
	}
}

func parsePulled(t *testing.T, r result) (p pulled) {
	t.Helper()
	if r.code != 0 {
		t.Fatalf("%d: %s", r.code, r.stderr)
	}
	if err := json.Unmarshal([]byte(r.stdout), &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestPull: what comes back is what was pushed, and hardly more than what is stored is fetched.
func TestPull(t *testing.T) {
	w := newWorld(t)
	disk := w.disk(48)
	for key, args := range map[string][]string{"d.zvhd2": nil, "d.raw": {"--format", "raw", "--unproven-bitmap"}} {
		name := w.pushed(disk, key, args...)
		for _, format := range []string{"raw", "qcow2"} {
			dst := filepath.Join(w.dir, key+"."+format)
			var moved atomic.Int64
			w.store.set(counted(&moved))
			p := parsePulled(t, w.reach(t.Context(), "pull", name, dst, "-O", format, "--json"))
			stored := p.ObjectSize
			if key == "d.raw" {
				stored = p.DataBlocks * (2 << 20)
			}
			if !p.Verified || p.Digest == "" || moved.Load() > stored*11/10 || p.Fetched > moved.Load() {
				t.Errorf("%s: %d bytes asked for, %d fetched, %d stored; %+v", key, moved.Load(), p.Fetched, stored, p)
			}
			if r := imgferry(t, "", "compare", "--a-format", "raw", "--b-format", format, disk, dst); r.code != 0 {
				t.Errorf("%s as %s: %s%s", key, format, r.stdout, r.stderr)
			}
		}
		var moved atomic.Int64
		w.store.set(counted(&moved))
		if r := w.reach(t.Context(), "info", "--json", name); r.code != 0 || !strings.Contains(r.stdout, `"virtual-size": 50331648`) || moved.Load() > 1<<20 {
			t.Errorf("info: %d, %s%s; %d bytes", r.code, r.stdout, r.stderr, moved.Load())
		}
	}
	if left, _ := filepath.Glob(filepath.Join(w.dir, ".*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// breaksAfter cuts connections from the n-th large range on.
func breaksAfter(n int64) func(http.ResponseWriter, *http.Request) bool {
	var seen atomic.Int64
	return func(_ http.ResponseWriter, r *http.Request) bool {
		var first, last int64
		if k, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last); k == 2 && last-first > 300_000 && seen.Add(1) > n {
			panic(http.ErrAbortHandler)
		}
		return false
	}
}

// TestPullResumes: a raw disk is gone on with, if its object is still the same.
func TestPullResumes(t *testing.T) {
	w := newWorld(t)
	disk := w.disk(48)
	name := w.pushed(disk, "d.zvhd2")
	dst := filepath.Join(w.dir, "back.raw")
	pull := []string{"pull", name, dst, "-O", "raw", "--json", "--concurrency", "1"}
	same := func() {
		t.Helper()
		if r := imgferry(t, "", "compare", "--a-format", "raw", "--b-format", "raw", disk, dst); r.code != 0 {
			t.Error(r.stdout, r.stderr)
		}
		if left, _ := filepath.Glob(filepath.Join(w.dir, ".*")); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
		if err := os.Remove(dst); err != nil {
			t.Error(err)
		}
	}
	fail := func() {
		t.Helper()
		w.store.set(breaksAfter(15))
		r := w.reach(t.Context(), pull...)
		if _, err := os.Stat(dst); r.code != exitUnreachable || err == nil || !strings.Contains(r.stderr, "run the same command again") {
			t.Errorf("%d %s", r.code, r.stderr)
		}
	}
	fail()
	var moved atomic.Int64
	w.store.set(counted(&moved))
	p := parsePulled(t, w.reach(t.Context(), pull...))
	if p.Resumed < 8<<20 || !p.Verified || moved.Load() > p.ObjectSize-p.Resumed/2 {
		t.Errorf("%d bytes moved of %d; %+v", moved.Load(), p.ObjectSize, p)
	}
	same()

	fail()
	other := w.disk(50) // in the place of disk
	w.pushed(other, "d.zvhd2", "--overwrite")
	if p = parsePulled(t, w.reach(t.Context(), pull...)); p.Resumed != 0 || !p.Verified {
		t.Errorf("of another version: %+v", p)
	}
	same()
}

// TestPullDigest: what is not what was pushed gets no name, and is not gone on with.
func TestPullDigest(t *testing.T) {
	w := newWorld(t)
	name := w.pushed(w.disk(6), "d.zvhd2")
	w.store.set(func(rw http.ResponseWriter, r *http.Request) bool {
		if r.Method != "HEAD" {
			return false
		}
		rec := httptest.NewRecorder()
		w.store.onward.ServeHTTP(rec, r)
		for k, v := range rec.Header() {
			rw.Header()[k] = v
		}
		rw.Header().Set("X-Amz-Meta-Imgferry-Digest", strings.Repeat("A", 43))
		rw.WriteHeader(rec.Code)
		return true
	})
	for _, format := range []string{"raw", "qcow2"} {
		dst := filepath.Join(w.dir, "back."+format)
		r := w.reach(t.Context(), "pull", name, dst, "-O", format)
		if _, err := os.Stat(dst); r.code != exitCorrupt || err == nil || !strings.Contains(r.stderr, "Pull again") {
			t.Errorf("%s: %d %s", format, r.code, r.stderr)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(w.dir, ".*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestPullRefuses: exit codes of what can't be pulled.
func TestPullRefuses(t *testing.T) {
	w := newWorld(t)
	dst := filepath.Join(w.dir, "x.raw")
	for _, c := range []struct {
		code int
		args []string
	}{
		{exitUsage, []string{"https://user:the-password@host/x", dst, "-O", "raw"}},
		{exitUsage, []string{"s3://" + w.box.Bucket(), dst, "-O", "raw"}},
		{exitUsage, []string{"s3://b/k", dst}},
		{exitUsage, []string{"s3://b/k", dst, "-O", "nothing"}},
		{exitUsage, []string{"s3://b/k", "-", "-O", "raw"}},
		{exitUsage, []string{"s3://b/k", dst, "-O", "raw", "--concurrency", "0"}},
		{exitNotFound, []string{"s3://" + w.box.Bucket() + "/none", dst, "-O", "raw"}},
		{exitDenied, []string{"s3://" + w.box.Bucket() + "/none", dst, "-O", "raw", "--sk", "wrong"}},
	} {
		if r := w.reach(t.Context(), append([]string{"pull"}, c.args...)...); r.code != c.code || strings.Contains(r.stderr, "the-password") {
			t.Errorf("%q: %d %s", c.args, r.code, r.stderr)
		}
	}
	if _, err := os.Stat(dst); err == nil {
		t.Error("it was written")
	}
}

// TestHTTPSource: the commands take addresses of web servers, and their failures have exit codes.
func TestHTTPSource(t *testing.T) {
	w := newWorld(t)
	disk := w.disk(6)
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Query().Get("signature") != "the-signature":
			http.Error(rw, "who?", http.StatusForbidden)
		case r.URL.Path == "/whole":
			fmt.Fprint(rw, "no ranges here")
		case r.URL.Path == "/disk.raw":
			http.ServeFile(rw, r, disk)
		default:
			http.NotFound(rw, r)
		}
	}))
	defer s.Close()
	signed := "?signature=the-signature"
	dst := filepath.Join(w.dir, "out.zvhd2")
	for _, c := range []struct {
		code int
		says string
		args []string
	}{
		{0, `"filename": "` + s.URL + `/disk.raw"`, []string{"info", "--json", s.URL + "/disk.raw" + signed}},
		{0, "0x0", []string{"map", s.URL + "/disk.raw" + signed}},
		{0, "", []string{"convert", s.URL + "/disk.raw" + signed, dst, "-O", "zvhd2"}},
		{0, "identical", []string{"compare", s.URL + "/disk.raw" + signed, dst}},
		{exitDenied, "403", []string{"info", s.URL + "/disk.raw"}},
		{exitNotFound, "404", []string{"info", s.URL + "/none" + signed}},
		{exitFailure, "download the file first", []string{"info", s.URL + "/whole" + signed}},
		{exitUsage, "host", []string{"info", "http://"}},
	} {
		r := imgferry(t, "", c.args...)
		if r.code != c.code || !strings.Contains(r.stdout+r.stderr, c.says) {
			t.Errorf("%q: %d %s%s", c.args, r.code, r.stdout, r.stderr)
		}
		if strings.Contains(r.stderr, "the-signature") {
			t.Errorf("%q shows the signature: %s", c.args, r.stderr)
		}
	}
}
