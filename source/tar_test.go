package source_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgferry/source"
)

// hollow is an archive with a file of size bytes of nothing, and a small one behind it.
func hollow(t *testing.T, format string, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hollow.tar")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	header := func(h *tar.Header) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		h.Typeflag, h.Mode = tar.TypeReg, 0o600
		if h.Format = tar.FormatGNU; format == "pax" {
			h.Format = tar.FormatPAX
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(b.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	header(&tar.Header{Name: "disk.img", Size: size})
	if _, err := f.Seek(size, io.SeekCurrent); err != nil {
		t.Fatal(err)
	}
	header(&tar.Header{Name: "small", Size: 512})
	if _, err := f.Write(make([]byte, 512+1024)); err != nil {
		t.Fatal(err)
	}
	return path
}

// archive is a tar file of those headers, each with as many bytes as it says.
func archive(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, h.Size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestMembersRefuses what leads astray.
func TestMembersRefuses(t *testing.T) {
	good := tar.Header{Name: "a", Size: 10}
	for says, h := range map[string]tar.Header{
		"absolute":   {Name: "/etc/passwd"},
		"leads out":  {Name: "x/../../y"},
		"is a link":  {Name: "l", Typeflag: tar.TypeSymlink, Linkname: "a"},
		"is a link ": {Name: "l", Typeflag: tar.TypeLink, Linkname: "a"},
		"no plain":   {Name: "d", Typeflag: tar.TypeChar},
		"no plain ":  {Name: "p", Typeflag: tar.TypeFifo},
		"twice":      {Name: "./a", Size: 1},
		"backslash":  {Name: `..\y`},
		"absolute ":  {Name: "C:/x"},
	} {
		_, err := source.Members(t.Context(), open(t, write(t, archive(t, good, h))))
		if !errors.Is(err, source.ErrArchive) || !strings.Contains(err.Error(), strings.TrimSpace(says)) {
			t.Errorf("%s: %v", says, err)
		}
	}
	p := archive(t, good, tar.Header{Name: "b", Size: 5000})
	if _, err := source.Members(t.Context(), open(t, write(t, p[:len(p)-4096]))); !errors.Is(err, source.ErrArchive) {
		t.Errorf("cut short: %v", err)
	}
	many := make([]tar.Header, 4097)
	for i := range many {
		many[i].Name = "f" + strings.Repeat("x", i%50) + string(rune('a'+i/50))
	}
	if _, err := source.Members(t.Context(), open(t, write(t, archive(t, many...)))); !errors.Is(err, source.ErrArchive) {
		t.Errorf("many: %v", err)
	}
}
