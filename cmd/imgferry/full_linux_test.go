package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"imgferry/convert"
)

// smallDisk is a file system of 4 MiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("mounting a small file system takes root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill leaves no byte free in dir.
func fill(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, endless{}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// saysFull are the system's words, and the sandbox's.
var saysFull = regexp.MustCompile("no space left on device|disk is full")

// full runs the program, which must find the disk full.
func full(t *testing.T, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := exitCode(run(t.Context(), args, strings.NewReader("the-test-password"), &stdout, &stderr))
	if code != exitNoSpace || stdout.Len() > 0 || !strings.Contains(stderr.String(), "Free some space") || !saysFull.MatchString(stderr.String()) {
		t.Errorf("%v: exit code %d: %s%s", args, code, stdout.String(), stderr.String())
	}
	return result{code, stdout.String(), stderr.String()}
}

// leftIn lists what is in a folder but the filler.
func leftIn(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Error(err)
	}
	for _, e := range entries {
		if e.Name() != "filler" {
			names = append(names, e.Name())
		}
	}
	return names
}

// A disk that fills up while the program writes a target: one sentence, its own exit code, and nothing
// that looks whole.
func TestFullDisk(t *testing.T) {
	small := smallDisk(t)
	disk := (&world{t: t, dir: t.TempDir()}).disk(12)
	out := filepath.Join(small, "out")
	for _, target := range convert.TargetNames() {
		full(t, "convert", disk, out, "-O", target)
		if left := leftIn(t, small); len(left) > 0 {
			t.Errorf("convert to %s left behind: %v", target, left)
		}
	}
	// What was there under that name stays.
	if err := os.WriteFile(out, []byte("old"), 0o666); err != nil {
		t.Fatal(err)
	}
	full(t, "convert", disk, out, "-O", "raw")
	if b, err := os.ReadFile(out); string(b) != "old" || len(leftIn(t, small)) != 1 {
		t.Errorf("the old target is %q, %v; %v", b, err, leftIn(t, small))
	}
	full(t, "push", "--sandbox", "--sandbox-data", filepath.Join(small, "box"), "--os-version", "Other", disk)
	if uploads := leftIn(t, filepath.Join(small, "box", "buckets", "b-images", "uploads")); len(uploads) > 0 {
		t.Errorf("push left uploads behind: %v", uploads)
	}
	if objects := leftIn(t, filepath.Join(small, "box", "buckets", "b-images", "objects")); len(objects) > 0 {
		t.Errorf("push left objects behind: %v", objects)
	}
}

// A disk that is full from the start.
func TestFullFromTheStart(t *testing.T) {
	small := smallDisk(t)
	w := newWorld(t)
	disk := w.disk(1)
	config := filepath.Join(small, "config.yaml")
	if err := os.WriteFile(config, []byte("profiles:\n  default:\n    region: before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	fill(t, small)

	full(t, "map", disk, "--png", filepath.Join(small, "map.png"))
	full(t, "config", "set", "region", "after", "--config", config)
	if b, err := os.ReadFile(config); err != nil || !strings.Contains(string(b), "region: before") {
		t.Errorf("the settings are %q, %v", b, err)
	}
	full(t, "sandbox", "--data", filepath.Join(small, "box"), "--listen-store", "127.0.0.1:0", "--listen-images", "127.0.0.1:0")

	// The notes of logins and registrations.
	t.Setenv("XDG_STATE_HOME", filepath.Join(small, "state"))
	full(t, "login", "--password-stdin", "--iam-endpoint", w.box.ImageEndpoint(), "--region", w.box.Region(), "--domain", "sandbox", "--user", w.box.User())
	r := full(t, "push", "--os-version", "Other", "--name", "full", "--key", "full.zvhd2", disk, "--obs-endpoint", w.store.URL, "--bucket", w.box.Bucket(),
		"--ims-endpoint", w.ims.URL, "--project-id", w.box.ProjectID(), "--region", w.box.Region(), "--ak", "test-key", "--sk", "the-test-secret")
	if !strings.Contains(r.stderr, "nothing was sent") {
		t.Errorf("push: %s", r.stderr)
	}
	if n := w.left(); n != 0 {
		t.Errorf("%d unfinished uploads", n)
	}
	for _, dir := range []string{"", "state", "state/imgferry", "state/imgferry/logins", "state/imgferry/registrations"} {
		for _, name := range leftIn(t, filepath.Join(small, dir)) {
			if fi, err := os.Stat(filepath.Join(small, dir, name)); err != nil || !fi.IsDir() && name != "config.yaml" && name != "config.yaml.lock" {
				t.Errorf("left behind in %q: %s, %v", dir, name, err)
			}
		}
	}
	// Nothing was half done: with room it works.
	if err := os.Remove(filepath.Join(small, "filler")); err != nil {
		t.Fatal(err)
	}
	again := w.imgferry(t.Context(), "push", "--os-version", "Other", "--name", "full", "--key", "full.zvhd2", disk)
	if again.code != 0 {
		t.Errorf("again: %d %s", again.code, again.stderr)
	}
}
