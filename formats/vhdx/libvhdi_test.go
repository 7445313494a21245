package vhdx_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"imgferry/formats/formatstest"
)

// TestLibvhdi: what the tests take for a differencing disk's content is what another program reads.
func TestLibvhdi(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, p image) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, p, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	p, c := write("p.vhdx", parentDisk().whole()), write("c.vhdx", child().whole())
	under := parentDisk().over(nil)
	want, err := io.ReadAll(io.NewSectionReader(bytesOf(child(), under), 0, child().size))
	if err != nil {
		t.Fatal(err)
	}
	if got := formatstest.Libvhdi(t, p); !bytes.Equal(got, under) {
		t.Errorf("dynamic: %d bytes, and other ones than the %d expected", len(got), len(under))
	}
	if got := formatstest.Libvhdi(t, c, p); !bytes.Equal(got, want) {
		t.Errorf("differencing: %d bytes, and other ones than the %d expected", len(got), len(want))
	}
}
