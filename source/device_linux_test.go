package source_test

import (
	"bytes"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// loop attaches a loop device to a file with p in it. It takes root and a kernel that has some.
func loop(t *testing.T, p []byte) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("loop devices need root")
	}
	out, err := exec.Command("losetup", "--find", "--show", write(t, p)).CombinedOutput()
	if err != nil {
		t.Skipf("losetup: %v: %s", err, out)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() { exec.Command("losetup", "--detach", dev).Run() })
	return dev
}

func TestBlockDevice(t *testing.T) {
	want := make([]byte, 3<<20)
	rand.Read(want)
	dev := loop(t, want)
	f := open(t, dev)
	got := make([]byte, len(want))
	if n, err := f.ReadAt(got, 0); n != len(want) || err != nil || !bytes.Equal(got, want) || f.Size() != int64(len(want)) {
		t.Fatalf("%d bytes of %d, %v", n, f.Size(), err)
	}
	if start, end, err := f.NextData(5); start != 5 || end != f.Size() || err != nil {
		t.Errorf("data from %d to %d, %v", start, end, err)
	}
	id := f.Identity()
	if boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err != nil || !strings.Contains(id, strings.TrimSpace(string(boot))) {
		t.Errorf("%q does not hold the boot's id %s: %v", id, boot, err)
	}
	if changed, err := f.Changed(); changed || err != nil {
		t.Errorf("changed by reading: %v, %v", changed, err)
	}
	// Whoever touches the name has not touched the bytes.
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dev, link); err != nil {
		t.Fatal(err)
	}
	if g := open(t, link); g.Identity() != id {
		t.Errorf("%s by another name is %s", id, g.Identity())
	}
	w, err := os.OpenFile(dev, os.O_WRONLY, 0) // not synced: it stays in memory
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteAt(make([]byte, 4096), 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if changed, err := f.Changed(); !changed || err != nil {
		t.Errorf("a write of 4 KiB was not seen: %v, %v", changed, err)
	}
	if open(t, dev).Identity() == id {
		t.Errorf("still %s after a write", id)
	}
}
