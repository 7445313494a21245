package source_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"imgferry/source"
)

// memory is a source in memory.
type memory struct{ *bytes.Reader }

func (memory) Close() error     { return nil }
func (memory) Identity() string { return "memory" }
func (memory) Path() string     { return "memory" }

// FuzzUnpack: whatever the bytes are, there is an error of ours or a content that reads the same front to
// back, by its end, and from the temporary file; in bounded room.
func FuzzUnpack(f *testing.F) {
	content := disk(10_000)
	var b bytes.Buffer
	g := gzip.NewWriter(&b)
	g.Write(content)
	g.Close()
	f.Add(bytes.Clone(b.Bytes()))
	b.Reset()
	x, _ := xz.NewWriter(&b)
	x.Write(content)
	x.Close()
	f.Add(bytes.Clone(b.Bytes()))
	z, _ := zstd.NewWriter(nil)
	f.Add(z.EncodeAll(content, nil))
	f.Add([]byte("BZh91AY&SY"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, p []byte) {
		src := memory{bytes.NewReader(p)}
		packing, err := source.PackingOf(src)
		if err != nil || packing == "" {
			return
		}
		s, err := source.Unpack(context.Background(), src, packing, source.UnpackLimits{Size: 4 << 20, Dir: dir})
		if err != nil {
			mustBeOurs(t, err)
			return
		}
		defer s.Close()
		got, err := io.ReadAll(io.NewSectionReader(s, 0, s.Size()))
		if err != nil {
			mustBeOurs(t, err)
			return
		}
		if int64(len(got)) != s.Size() {
			t.Fatalf("%d bytes of %d", len(got), s.Size())
		}
		if err := s.Spill(); err != nil {
			t.Fatal(err)
		}
		again, err := io.ReadAll(io.NewSectionReader(s, 0, s.Size()))
		if err != nil || !bytes.Equal(got, again) {
			t.Fatalf("not the same from the file: %v", err)
		}
	})
}

func mustBeOurs(t *testing.T, err error) {
	if !errors.Is(err, source.ErrCorrupt) && !errors.Is(err, source.ErrTooLarge) && !errors.Is(err, source.ErrDictionary) {
		t.Fatal(err)
	}
}

// FuzzMembers: members lie in the archive, under harmless names, each once.
func FuzzMembers(f *testing.F) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []*tar.Header{{Name: "a", Size: 3}, {Name: "d/b", Size: 600, Format: tar.FormatPAX}} {
		w.WriteHeader(h)
		w.Write(make([]byte, h.Size))
	}
	w.Close()
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, p []byte) {
		src := memory{bytes.NewReader(p)}
		list, err := source.Members(context.Background(), src)
		if err != nil {
			if !errors.Is(err, source.ErrArchive) {
				t.Fatal(err)
			}
			return
		}
		seen := map[string]bool{}
		for _, m := range list {
			if m.Offset < 0 || m.Size < 0 || m.Size > src.Size()-m.Offset || seen[m.Name] || m.Name == "" || m.Name[0] == '/' || m.Name == ".." {
				t.Fatalf("%+v", m)
			}
			seen[m.Name] = true
			if _, err := source.NewSection(src, m).ReadAt(make([]byte, 1), 0); err != nil && err != io.EOF {
				t.Fatal(err)
			}
		}
	})
}
