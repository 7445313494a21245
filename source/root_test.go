package source_test

import (
	"os"
	"path/filepath"
	"testing"

	"imgferry/source"
)

// TestOpenIn: a name may not lead out of its directory, nor to anything but a regular file.
func TestOpenIn(t *testing.T) {
	outside := write(t, []byte("secret"))
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(filepath.Join(dir, "sub"), 0o700))
	must(os.WriteFile(filepath.Join(dir, "sub", "base"), []byte("base"), 0o600))
	must(os.Symlink(outside, filepath.Join(dir, "out")))
	must(os.Symlink(filepath.Dir(outside), filepath.Join(dir, "outdir")))
	must(os.Symlink("sub/base", filepath.Join(dir, "in")))
	must(os.Symlink("/dev/null", filepath.Join(dir, "device")))
	root, err := os.OpenRoot(dir)
	must(err)
	defer root.Close()
	for name, ok := range map[string]bool{
		"sub/base": true, "in": true, "sub/../in": true,
		"out": false, "outdir/disk.img": false, "../" + filepath.Base(dir) + "/in": false, outside: false,
		"sub": false, "device": false, "": false, "none": false,
	} {
		f, err := source.OpenIn(root, name, name)
		if (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
		if err == nil {
			if f.Size() != 4 || f.Allocated() < 4 {
				t.Errorf("%q: %d bytes, %d allocated", name, f.Size(), f.Allocated())
			}
			if g := open(t, filepath.Join(dir, "sub", "base")); !g.Same(f) || g.Same(open(t, outside)) {
				t.Errorf("%q: same is wrong", name)
			}
			f.Close()
		}
	}
}
