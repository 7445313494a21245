package source_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"imgferry/formats"
	"imgferry/source"
)

// The arrows forbid package source to import package formats: that they fit is proved here.
var (
	_ formats.Source     = (*source.File)(nil)
	_ formats.HoleFinder = (*source.File)(nil)
)

func write(t testing.TB, p []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, p, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t testing.TB, path string) *source.File {
	t.Helper()
	f, err := source.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func ExampleOpen() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "disk.img")
	os.WriteFile(path, []byte("a very small disk"), 0o600)

	f, err := source.Open(path)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	p := make([]byte, 4)
	n, err := f.ReadAt(p, 7)
	fmt.Println(f.Size(), string(p[:n]), err)
	changed, err := f.Changed()
	fmt.Println(changed, err)
	// Output:
	// 17 smal <nil>
	// false <nil>
}

func TestReadAt(t *testing.T) {
	want := []byte("0123456789")
	f := open(t, write(t, want))
	for _, c := range []struct {
		off  int64
		n    int
		want string
		err  error
	}{
		{0, 10, "0123456789", nil}, {3, 4, "3456", nil}, {8, 4, "89", io.EOF}, {10, 1, "", io.EOF},
		{1 << 40, 1, "", io.EOF}, {4, 0, "", nil},
	} {
		p := make([]byte, c.n)
		n, err := f.ReadAt(p, c.off)
		if string(p[:n]) != c.want || err != c.err {
			t.Errorf("%d bytes at %d: %q, %v", c.n, c.off, p[:n], err)
		}
	}
	if _, err := f.ReadAt(make([]byte, 100), -1); err == nil || err == io.EOF {
		t.Errorf("negative offset: %v", err)
	}
}

func TestSizeIsFixed(t *testing.T) {
	path := write(t, []byte("0123456789"))
	f := open(t, path)
	w, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteString("more"); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 20)
	if n, err := f.ReadAt(p, 5); n != 5 || err != io.EOF || f.Size() != 10 {
		t.Errorf("read %d, %v of size %d after growth", n, err, f.Size())
	}
	if _, end, err := f.NextData(0); end != 10 || err != nil {
		t.Errorf("data up to %d, %v after growth", end, err)
	}
	if changed, err := f.Changed(); !changed || err != nil {
		t.Errorf("changed %v, %v", changed, err)
	}
}

func TestClose(t *testing.T) {
	f := open(t, write(t, []byte("x")))
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(make([]byte, 1), 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
	if _, err := f.Changed(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("changed after close: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	cases := map[string]string{dir: "is a directory"}
	if runtime.GOOS != "windows" {
		sock := filepath.Join(dir, "s")
		l, err := net.Listen("unix", sock)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		cases[sock] = "is a socket"
		cases[os.DevNull] = "is a character device"
	}
	for path, want := range cases {
		_, err := source.Open(path)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := source.Open(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}

func TestIdentity(t *testing.T) {
	path := write(t, []byte("0123456789"))
	past := time.Unix(1_000_000_000, 1234)
	if err := os.Chtimes(path, past, past); err != nil {
		t.Fatal(err)
	}
	a, b := open(t, path), open(t, path)
	if a.Identity() != b.Identity() {
		t.Errorf("the same file twice: %s and %s", a.Identity(), b.Identity())
	}
	if changed, err := a.Changed(); changed || err != nil {
		t.Errorf("untouched: %v, %v", changed, err)
	}
	if err := os.WriteFile(path, []byte("9876543210"), 0o600); err != nil {
		t.Fatal(err)
	}
	if changed, err := a.Changed(); !changed || err != nil {
		t.Errorf("same size, new bytes: %v, %v", changed, err)
	}
	c := open(t, path)
	if c.Identity() == a.Identity() {
		t.Errorf("new bytes, same identity %s", c.Identity())
	}
	// A forged modification time hides nothing from a system that keeps a change time.
	if runtime.GOOS == "linux" || runtime.GOOS == "darwin" {
		if err := os.Chtimes(path, past, past); err != nil {
			t.Fatal(err)
		}
		if open(t, path).Identity() == a.Identity() {
			t.Error("forged modification time, same identity")
		}
	}
}

func TestNextData(t *testing.T) {
	// 1 MiB of data between holes of 4 MiB; file systems store at most 64 KiB around it.
	const hole, data = 4 << 20, 1 << 20
	path := filepath.Join(t.TempDir(), "sparse.img")
	w, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Truncate(2*hole + data); err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteAt(bytes.Repeat([]byte{1}, data), hole); err != nil {
		t.Fatal(err)
	}
	if err := w.Sync(); err != nil {
		t.Fatal(err)
	}
	f := open(t, path)
	stored := int64(0)
	for off := int64(0); ; {
		start, end, err := f.NextData(off)
		if err != nil {
			t.Fatal(err)
		}
		if start < off || end < start || end > f.Size() {
			t.Fatalf("from %d: [%d, %d)", off, start, end)
		}
		if start == end {
			if start != f.Size() {
				t.Fatalf("the end is at %d", start)
			}
			break
		}
		// Whatever the file system can tell, the data must not be missed.
		if off <= hole && start > hole || start > hole && start < hole+data {
			t.Fatalf("data at %d missed: [%d, %d)", hole, start, end)
		}
		stored += end - start
		off = end
	}
	if stored < data {
		t.Errorf("%d bytes of data, wrote %d", stored, data)
	}
	if runtime.GOOS == "linux" && stored > data+128<<10 {
		t.Logf("%d bytes of data: this file system does not tell holes", stored)
	}
	if _, _, err := f.NextData(-1); err == nil {
		t.Error("negative offset accepted")
	}
	if s, e, err := f.NextData(f.Size() + 1); s != f.Size() || e != f.Size() || err != nil {
		t.Errorf("past the end: [%d, %d), %v", s, e, err)
	}
}

// TestNextDataBesideReads: looking for holes moves the file's position, which must not move reads.
func TestNextDataBesideReads(t *testing.T) {
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	f := open(t, write(t, want))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			p := make([]byte, 1000)
			for off := int64(0); off+1000 <= f.Size(); off += 1777 {
				if _, err := f.ReadAt(p, off); err != nil || !bytes.Equal(p, want[off:off+1000]) {
					t.Errorf("read at %d: %v", off, err)
				}
			}
		})
		wg.Go(func() {
			for off := int64(0); off < f.Size(); off += 1777 {
				if start, end, err := f.NextData(off); err != nil || start != off || end != f.Size() {
					t.Errorf("from %d: [%d, %d), %v", off, start, end, err)
				}
			}
		})
	}
	wg.Wait()
}
