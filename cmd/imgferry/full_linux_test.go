package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A full disk: one sentence, its own exit code, and nothing that looks whole.
func TestFullDisk(t *testing.T) {
	small := t.TempDir()
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("mounting a small file system takes root: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(small, 0) })
	w := &world{t: t, dir: t.TempDir()}
	disk := w.disk(12)
	for name, args := range map[string][]string{
		"convert to raw":   {"convert", disk, filepath.Join(small, "out"), "-O", "raw"},
		"convert to zvhd2": {"convert", disk, filepath.Join(small, "out"), "-O", "zvhd2"},
		"push":             {"push", "--sandbox", "--sandbox-data", filepath.Join(small, "box"), disk},
	} {
		var stdout, stderr bytes.Buffer
		err := run(t.Context(), args, strings.NewReader(""), &stdout, &stderr)
		if exitCode(err) != exitNoSpace || stdout.Len() > 0 || !strings.Contains(stderr.String(), "Free some space") {
			t.Errorf("%s: exit code %d: %s%s", name, exitCode(err), stdout.String(), stderr.String())
		}
		if es, err := os.ReadDir(small); err != nil || strings.HasPrefix(name, "convert") && len(es) != 0 {
			t.Errorf("%s: left behind: %v, %v", name, es, err)
		}
		os.RemoveAll(filepath.Join(small, "box"))
	}
}
