package pipeline_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"imgferry/formats"
	"imgferry/formats/all"
	"imgferry/formats/formatstest"
	"imgferry/pipeline"
	"imgferry/source"
)

// files serves a folder by ranges, and counts.
type files struct {
	dir    string
	served atomic.Int64
}

func (f *files) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	http.ServeFile(counted{w, &f.served}, r, filepath.Join(f.dir, filepath.Base(r.URL.Path)))
}

type counted struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c counted) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return c.ResponseWriter.Write(p)
}

// remote opens addresses of web servers.
func remote(ctx context.Context, name string) (pipeline.Source, error) {
	h, err := source.NewHTTP(name, source.HTTPConfig{})
	if err != nil {
		return nil, err
	}
	r, err := source.OpenRemote(ctx, h, source.Patience{Base: time.Millisecond, Max: time.Millisecond})
	if err != nil {
		return nil, err // a nil *Remote is no nil Source
	}
	return r, nil
}

// scattered writes a raw disk of 96 MiB with 24 MiB of data in it.
func scattered(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, 2<<20)
	rng := rand.NewChaCha8([32]byte{})
	for i := range 12 {
		rng.Read(p)
		if _, err := f.WriteAt(p, int64(i)*8<<20); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(96 << 20); err != nil {
		t.Fatal(err)
	}
}

// TestRemoteMetadata: info, map and check of an image on another machine fetch its metadata, and hardly
// more.
func TestRemoteMetadata(t *testing.T) {
	dir := t.TempDir()
	raw := filepath.Join(dir, "disk.raw")
	scattered(t, raw)
	f := &files{dir: dir}
	s := httptest.NewServer(f)
	defer s.Close()
	for _, format := range []string{"qcow2", "vmdk", "vdi", "vhdx", "vpc"} {
		name := "disk." + format
		formatstest.Tool(t, "qemu-img", "convert", "-f", "raw", "-O", format, raw, filepath.Join(dir, name))
		fi, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		o := pipeline.Opener{Table: all.Table(), Remote: remote}
		f.served.Store(0)
		layers, err := o.Layers(t.Context(), s.URL+"/"+name, "", false)
		if err != nil || layers[0].Format != format || layers[0].VirtualSize < 96<<20 {
			t.Fatalf("%s: %+v, %v", format, layers, err)
		}
		info := f.served.Swap(0)
		img, err := o.Open(t.Context(), s.URL+"/"+name, "")
		if err != nil {
			t.Fatal(err)
		}
		data := int64(0)
		for e, err := range img.Extents(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if !e.Zero {
				data += e.Length
			}
		}
		img.Close()
		mapped := f.served.Swap(0)
		src, form, err := o.Detect(t.Context(), s.URL+"/"+name, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := form.Check(t.Context(), src, func(x formats.Finding) { t.Errorf("%s: %+v", format, x) }); err != nil {
			t.Error(err)
		}
		src.Close()
		checked := f.served.Load()
		t.Logf("%s of %d bytes: info %d, map %d, check %d", format, fi.Size(), info, mapped, checked)
		if data < 24<<20 || info > 1<<20 || mapped > 2<<20 || checked > 3<<20 {
			t.Errorf("%s: %d bytes of data; info took %d bytes, map %d, check %d", format, data, info, mapped, checked)
		}
	}
}

// TestRemoteNames: names in an image on another machine are not followed.
func TestRemoteNames(t *testing.T) {
	dir := t.TempDir()
	base := filepath.Join(dir, "base.raw")
	scattered(t, base)
	formatstest.Tool(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", filepath.Join(dir, "top.qcow2"))
	s := httptest.NewServer(&files{dir: dir})
	defer s.Close()
	o := pipeline.Opener{Table: all.Table(), Remote: remote, Allow: []string{dir}}
	if _, err := o.Open(t.Context(), s.URL+"/top.qcow2", ""); !errors.Is(err, formats.ErrNotAllowed) || !errors.Is(err, pipeline.ErrRemoteName) {
		t.Error(err)
	}
	o.Remote = nil
	if _, err := o.Open(t.Context(), s.URL+"/top.qcow2", ""); err == nil || !strings.Contains(err.Error(), "fetch the file first") {
		t.Error(err)
	}
}

// TestPacked: compressed images of formats that are read front to back, and of those that are not.
func TestPacked(t *testing.T) {
	dir := t.TempDir()
	raw := filepath.Join(dir, "disk.raw")
	scattered(t, raw)
	want, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	formatstest.Tool(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, filepath.Join(dir, "disk.qcow2"))
	formatstest.Tool(t, "qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, filepath.Join(dir, "disk.vmdk"))
	formatstest.Tool(t, "qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", "subformat=fixed,force_size", raw, filepath.Join(dir, "disk.vpc"))
	for _, c := range []struct {
		name, format string
		spilled      bool
	}{
		{"disk.raw", "raw", false}, {"disk.qcow2", "qcow2", true}, {"disk.vmdk", "vmdk", false}, {"disk.vpc", "vpc", true},
	} {
		formatstest.Tool(t, "zstd", "-q", "-f", filepath.Join(dir, c.name), "-o", filepath.Join(dir, c.name+".zst"))
		var said []string
		o := pipeline.Opener{Table: all.Table(), Unpack: source.UnpackLimits{Dir: dir, Notice: func(s string) { said = append(said, s) }}}
		img, err := o.Open(t.Context(), filepath.Join(dir, c.name+".zst"), "")
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if img.Format != c.format || img.Sequential() == c.spilled || strings.Contains(strings.Join(said, "\n"), "temporary file") != c.spilled {
			t.Errorf("%s: a %s, in order: %v; said %q", c.name, img.Format, img.Sequential(), said)
		}
		got, err := io.ReadAll(io.NewSectionReader(img, 0, img.Size()))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", c.name, len(got), err)
		}
		if changed, err := img.Disk().Changed(); changed || err != nil {
			t.Error(changed, err)
		}
		if err := img.Close(); err != nil {
			t.Error(err)
		}
		layers, err := o.Layers(t.Context(), filepath.Join(dir, c.name+".zst"), "", false)
		if err != nil || len(layers) != 1 || layers[0].Format != c.format || len(layers[0].Packed) != 1 || layers[0].Packed[0] != "zst" {
			t.Errorf("%s: %+v, %v", c.name, layers, err)
		}
	}
	// What is said to be raw is as it is.
	o := pipeline.Opener{Table: all.Table()}
	img, err := o.Open(t.Context(), filepath.Join(dir, "disk.raw.zst"), "raw")
	if err != nil || img.Size() == int64(len(want)) {
		t.Fatalf("%v", err)
	}
	img.Close()
	if _, err := o.Open(t.Context(), filepath.Join(dir, "disk.raw.zst"), "qcow2"); !errors.Is(err, formats.ErrCorrupt) {
		t.Errorf("another format: %v", err)
	}
	o.Unpack.Size = 1 << 20
	if _, err := o.Open(t.Context(), filepath.Join(dir, "disk.raw.zst"), ""); !errors.Is(err, formats.ErrUnsupported) || !strings.Contains(err.Error(), "--max-unpacked") {
		t.Errorf("too large: %v", err)
	}
}
