package convert_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"imgferry/convert"
)

// loop attaches a loop device to a file with p in it. It takes root and a kernel that has some.
func loop(t *testing.T, p []byte) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("loop devices need root")
	}
	file := filepath.Join(t.TempDir(), "device")
	if err := os.WriteFile(file, p, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", file).CombinedOutput()
	if err != nil {
		t.Skipf("losetup: %v: %s", err, out)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() { exec.Command("losetup", "--detach", dev).Run() })
	return dev
}

// TestDevice writes a disk over old bytes: all of them are gone, up to the disk's end.
func TestDevice(t *testing.T) {
	d := sample()
	old := bytes.Repeat([]byte{0xdb}, 66<<20)
	dev := loop(t, old)
	if !convert.IsDevice(dev) || convert.IsDevice(os.DevNull) || convert.IsDevice(t.TempDir()) {
		t.Error("what is a device?")
	}
	if _, err := convert.OpenDevice(dev, false); !errors.Is(err, convert.ErrNotEmpty) {
		t.Fatalf("a device with something on it: %v", err)
	}
	f, err := convert.OpenDevice(dev, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := convert.OpenDevice(dev, false); !errors.Is(err, convert.ErrInUse) {
		t.Errorf("a device that another writes to: %v", err)
	}
	if f.Size() != int64(len(old)) {
		t.Errorf("size %d", f.Size())
	}
	r, err := convert.Raw(t.Context(), d, f, convert.Options{Digest: true})
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(dev)
	if err != nil || !bytes.Equal(got[:d.size], d.bytes()) || !bytes.Equal(got[d.size:], old[d.size:]) {
		t.Errorf("not the disk, or more than it: %v", err)
	}
	img, err := convert.Head(reopened(t, dev, "raw"), d.size)
	if err != nil {
		t.Fatal(err)
	}
	if scan, err := convert.Scan(t.Context(), img, convert.Options{Digest: true}); err != nil || scan.Digest != r.Digest {
		t.Errorf("digest %v, %v", scan.Digest, err)
	}
}

func TestSmallDevice(t *testing.T) {
	dev := loop(t, make([]byte, 4<<20))
	f, err := convert.OpenDevice(dev, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := convert.Raw(t.Context(), sample(), f, convert.Options{}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v", err)
	}
	if _, err := f.Write(nil); err == nil {
		t.Error("a device is no stream")
	}
	// What a device can't zero by itself is written: here, less than a sector.
	if _, err := f.WriteAt(bytes.Repeat([]byte{1}, 4096), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Zero(100, 1000); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 4096)
	want := append(append(bytes.Repeat([]byte{1}, 100), make([]byte, 1000)...), bytes.Repeat([]byte{1}, 4096-1100)...)
	g, err := os.Open(dev)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if _, err := io.ReadFull(g, p); err != nil || !bytes.Equal(p, want) {
		t.Errorf("%v", err)
	}
}
