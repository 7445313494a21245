package main

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imgferry/upload"
)

// journalFiles are the names of what is in the folder of the journals.
func (s *shell) journalFiles() (names []string) {
	s.t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.dir, "state", "imgferry", "uploads"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// stuck leaves an unfinished upload of key, and its journal.
func (s *shell) stuck(key string) {
	s.t.Helper()
	s.store.set(when(isPart("2"), answer(503, xmlError("SlowDown"))))
	s.want(exitUnreachable, "upload", s.disk(12), "s3://"+s.box.Bucket()+"/"+key, "--part-size", "5MiB", "--concurrency", "1", "--retries", "1")
	s.store.set(pass)
}

// exactOnly lists, as MinIO does, no upload by the beginning of its key.
func exactOnly(keys ...string) func(http.ResponseWriter, *http.Request) bool {
	return when(func(r *http.Request) bool {
		q := r.URL.Query()
		for _, key := range keys {
			if q.Get("prefix") == key {
				return false
			}
		}
		return r.Method == http.MethodGet && q.Has("uploads")
	}, answer(200, `<?xml version="1.0" encoding="UTF-8"?><ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>`))
}

// A journal goes when its upload is no more, and not before: that the store does not list an upload says nothing.
func TestUploadsKeepsJournalsOfTheLiving(t *testing.T) {
	s := newShell(t)
	s.stuck("disks/a")
	s.stuck("disks/b")
	s.store.set(exactOnly("disks/a", "disks/b"))
	for _, args := range [][]string{{}, {"disks/a"}, {"--older-than", "1h"}, {"disks/b"}} {
		want := map[int][]string{0: {"disks/a", "disks/b"}, 1: args, 2: nil}[len(args)]
		r := s.want(0, append([]string{"uploads", "--json"}, args...)...)
		var list []unfinished
		if err := json.Unmarshal([]byte(r.stdout), &list); err != nil || len(list) != len(want) {
			t.Fatalf("%v: %+v, %v", args, list, err)
		}
		for _, u := range list {
			if !strings.Contains(fmt.Sprint(want), u.Key) || u.Parts != 1 || u.UploadID == "" || u.Initiated.IsZero() {
				t.Errorf("%v: %+v", args, u)
			}
		}
		if left := s.journalFiles(); len(left) != 4 {
			t.Errorf("%v left %v", args, left)
		}
	}
	// With its upload, whoever ends that.
	if r := s.want(0, "uploads", "--abort", "disks/a"); !strings.Contains(r.stdout, "(aborted)") || len(s.journalFiles()) != 2 {
		t.Errorf("%s left %v", r.stdout, s.journalFiles())
	}
	list, err := s.bucket().Uploads(t.Context(), "disks/b")
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	// As long as the store gives no clear answer, it stays.
	s.store.set(when(func(r *http.Request) bool { return r.URL.Query().Has("uploadId") }, answer(403, xmlError("AccessDenied"))))
	if s.want(exitDenied, "uploads"); len(s.journalFiles()) != 2 {
		t.Errorf("left %v", s.journalFiles())
	}
	s.store.set(pass)
	if err := s.bucket().Abort(t.Context(), "disks/b", list[0].UploadID); err != nil {
		t.Fatal(err)
	}
	if r := s.want(0, "uploads"); !strings.Contains(r.stderr, "no unfinished uploads\n") || len(s.journalFiles()) > 0 {
		t.Errorf("%s left %v", r.stderr, s.journalFiles())
	}
}

// Where the store lists the uploads of whole keys only, those of the objects of zeros end all the same.
func TestCleanAsksForEachKey(t *testing.T) {
	s := newShell(t)
	for _, key := range append(upload.ZeroKeys(), "disks/a") {
		if _, err := s.bucket().Begin(t.Context(), key, upload.Metadata{}); err != nil {
			t.Fatal(err)
		}
	}
	s.store.set(exactOnly(append(upload.ZeroKeys(), "disks/a")...))
	if r := s.want(0, "uploads", "--clean"); strings.Count(r.stdout, "(aborted)") != len(upload.ZeroKeys()) {
		t.Errorf("%s", r.stdout)
	}
	s.store.set(pass)
	if list, err := s.bucket().Uploads(t.Context(), ""); err != nil || len(list) != 1 || list[0].Key != "disks/a" {
		t.Errorf("left %v, %v", list, err)
	}
}

// Of several uploads, those that were aborted are reported, though the store refuses others.
func TestUploadsAbortsTheOthers(t *testing.T) {
	s := newShell(t)
	for i := range 20 {
		if _, err := s.bucket().Begin(t.Context(), fmt.Sprintf("k%02d", i), upload.Metadata{}); err != nil {
			t.Fatal(err)
		}
	}
	s.store.set(when(func(r *http.Request) bool { return r.Method == http.MethodDelete && strings.HasSuffix(r.URL.Path, "7") },
		answer(403, xmlError("AccessDenied"))))
	r := s.want(exitDenied, "uploads", "--abort", "s3://"+s.box.Bucket(), "--older-than", "1ns")
	if n := strings.Count(r.stdout, "(aborted)"); n != 18 || !strings.Contains(r.stderr, "k07: access denied") && !strings.Contains(r.stderr, "k17: access denied") {
		t.Errorf("%d aborted:\n%s%s", n, r.stdout, r.stderr)
	}
	s.store.set(pass)
	if r := s.want(0, "uploads"); strings.Count(r.stdout, "\n") != 3 {
		t.Errorf("%s", r.stdout)
	}
}

// The command that is printed to give an upload up does so: it has all the flags that lead there, but no secrets.
func TestPrintedAbortCommand(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no shell to read the command")
	}
	w := newWorld(t)
	t.Setenv(envAK, "test-key")
	t.Setenv(envSK, "the-test-secret")
	ca := filepath.Join(w.dir, "it's a file.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate(t)}), 0o600); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(w.dir, "settings.yaml")
	if err := os.WriteFile(config, []byte("profiles:\n  other:\n    bucket: nowhere\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := []string{"--config", config, "--profile", "other", "--obs-endpoint", w.store.URL, "--addressing-style", "path", "--signature", "v4",
		"--region", w.box.Region(), "--ca-file", ca}
	w.store.set(when(isPart("2"), answer(503, xmlError("SlowDown"))))
	s := &shell{world: w}
	r := s.want(exitUnreachable, append([]string{"upload", w.disk(12), "s3://" + w.box.Bucket() + "/it's-mine", "--part-size", "5MiB", "--concurrency", "1", "--retries", "1",
		"--proxy", "http://me:geheim@proxy.example:3128"}, flags...)...)
	w.store.set(pass)
	_, command, ok := strings.Cut(r.stderr, "To give up:  imgferry ")
	if !ok || strings.Contains(r.stderr, "geheim") {
		t.Fatal(r.stderr)
	}
	out, err := exec.Command(sh, "-c", `for word in `+strings.TrimSpace(command)+`; do printf '%s\n' "$word"; done`).Output()
	if err != nil {
		t.Fatal(err)
	}
	args := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	for i, word := range append(flags, "--proxy", "http://me@proxy.example:3128") {
		if i%2 == 1 && !slices.Contains(args, word) {
			t.Errorf("%q is not in %q", word, args)
		}
	}
	if r := s.want(0, args...); !strings.Contains(r.stdout, "(aborted)") || w.left() != 0 {
		t.Errorf("%s%s", r.stdout, r.stderr)
	}
}

// certificate makes one for anything.
func certificate(t *testing.T) []byte {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	return s.Certificate().Raw
}
