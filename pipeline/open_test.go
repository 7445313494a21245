package pipeline_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgferry/formats"
	"imgferry/formats/mapped"
	"imgferry/formats/raw"
	"imgferry/pipeline"
)

// named is a format for these tests: a file says "named KIND FORMAT NAME", and reads as the file of
// that name does.
func named() formats.Format {
	const magic = "named "
	return formats.Format{
		Name: "named",
		Probe: func(src formats.Source) (bool, error) {
			p := make([]byte, len(magic))
			n, err := src.ReadAt(p, 0)
			if err == io.EOF {
				err = nil
			}
			return string(p[:n]) == magic, err
		},
		Open: func(ctx context.Context, src formats.Source, res formats.Resolver) (formats.Image, error) {
			p := make([]byte, src.Size())
			if err := formats.ReadFull(src, p, 0); err != nil {
				return nil, err
			}
			f := strings.SplitN(string(p), " ", 4)
			ref := formats.Ref{Name: f[3], Format: strings.Trim(f[2], "-")}
			if f[1] == "extent" {
				ref.Kind = formats.ExtentOf
				ext, _, err := res.Resolve(ctx, ref)
				if err != nil {
					return nil, err
				}
				src.Close()
				return raw.Format().Open(ctx, ext, nil)
			}
			below, err := res.Open(ctx, ref)
			if err != nil {
				return nil, err
			}
			return mapped.New(mapped.Config{
				Reader: mapped.NewReader(ctx, "named", src), Size: below.Size(), Table: hole{}, Below: below, BelowName: f[3],
			}), nil
		},
	}
}

type hole struct{}

func (hole) Map(_, limit int64) (mapped.Run, error) { return mapped.Run{Length: limit}, nil }
func (hole) Decode([]byte, int64, mapped.Run) error { return nil }

// tree writes files by name into a new folder; those that begin with "-> " are symbolic links.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		target, link := strings.CutPrefix(content, "-> ")
		err := error(nil)
		if link {
			err = os.Symlink(strings.ReplaceAll(target, "DIR", dir), path)
		} else {
			err = os.WriteFile(path, []byte(strings.ReplaceAll(content, "DIR", dir)), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestResolver: which names lead to a file, and which do not.
func TestResolver(t *testing.T) {
	dir := tree(t, map[string]string{
		"a/base":          "base!",
		"a/link":          "-> base",
		"a/out":           "-> ../secret",
		"a/absolute-out":  "-> DIR/secret",
		"secret":          "secret",
		"real/base":       "base!",
		"by-link":         "-> real",
		"a/disk-f001":     "base!",
		"a/disk-link":     "-> base",
		"a/disk-out":      "-> ../secret",
		"a/other":         "base!",
		"a/disk-dir/x":    "base!",
		"a/x/..y":         "base!",
		"a/loop1":         "named backing named loop2",
		"a/loop2":         "named backing named loop1",
		"a/two":           "named backing named three",
		"a/three":         "named backing raw base",
		"a/three-outside": "named backing raw ../secret",
		"a/unknown":       "named backing nonsense base",
		"a/three-nodecl":  "named backing - base",
	})
	allowed := filepath.Join(dir, "a")
	for _, c := range []struct {
		kind, format, name string
		allow              []string
		backingFormat      string
		want               error // nil: it reads as base
	}{
		{"backing", "raw", "base", nil, "", formats.ErrNotAllowed},
		{"backing", "raw", "base", []string{allowed}, "", nil},
		{"backing", "raw", "base", []string{dir}, "", nil},
		{"backing", "raw", "base", []string{filepath.Join(dir, "real")}, "", formats.ErrNotAllowed},
		{"backing", "raw", "base", []string{filepath.Join(dir, "real"), allowed}, "", nil},
		{"backing", "raw", "./base", []string{allowed}, "", nil},
		{"backing", "raw", "../a/base", []string{allowed}, "", nil},
		{"backing", "raw", "x/..y", []string{allowed}, "", nil},
		{"backing", "raw", dir + "/a/base", []string{allowed}, "", nil},
		{"backing", "raw", dir + "/a/base", nil, "", formats.ErrNotAllowed},
		{"backing", "raw", dir + "/by-link/base", []string{filepath.Join(dir, "by-link")}, "", nil},
		{"backing", "raw", dir + "/real/base", []string{filepath.Join(dir, "by-link")}, "", nil},
		{"backing", "raw", dir + "/by-link/base", []string{allowed}, "", formats.ErrNotAllowed},
		{"backing", "raw", "link", []string{allowed}, "", nil},
		{"backing", "raw", "../secret", []string{allowed}, "", formats.ErrNotAllowed},
		{"backing", "raw", "out", []string{allowed}, "", formats.ErrNotAllowed},
		{"backing", "raw", "absolute-out", []string{allowed}, "", formats.ErrNotAllowed},
		{"backing", "raw", "/etc/passwd", []string{allowed}, "", formats.ErrNotAllowed},
		{"backing", "raw", "none", []string{allowed}, "", fs.ErrNotExist},
		{"backing", "raw", ".", []string{allowed}, "", formats.ErrNotAllowed},
		{"backing", "raw", "", []string{allowed}, "", formats.ErrNotAllowed},
		{"backing", "raw", "base\x00", []string{allowed}, "", formats.ErrNotAllowed},
		{"backing", "raw", `json:{"driver":"file","filename":"base"}`, []string{allowed}, "", formats.ErrNotAllowed},
		{"backing", "raw", "nbd:localhost:1", []string{allowed}, "", formats.ErrNotAllowed},
		{"backing", "raw", "https://localhost/base", []string{allowed}, "", formats.ErrNotAllowed},
		{"backing", "raw", "file:base", []string{allowed}, "", formats.ErrNotAllowed},
		// A disk without a declared format is never guessed.
		{"backing", "-", "base", []string{allowed}, "", formats.ErrNotAllowed},
		{"backing", "-", "base", []string{allowed}, "raw", nil},
		{"backing", "named", "three-nodecl", []string{allowed}, "", formats.ErrNotAllowed},
		{"backing", "named", "three-nodecl", []string{allowed}, "raw", nil},
		{"backing", "named", "base", []string{allowed}, "", formats.ErrCorrupt},
		{"backing", "named", "unknown", []string{allowed}, "", formats.ErrUnsupported},
		// Chains are followed by the same rules.
		{"backing", "named", "two", []string{allowed}, "", nil},
		{"backing", "named", "three-outside", []string{allowed}, "", formats.ErrNotAllowed},
		{"backing", "named", "loop1", []string{allowed}, "", formats.ErrCorrupt},
		{"backing", "named", "disk", []string{allowed}, "", formats.ErrCorrupt},
		// Extents of the descriptor's own name need no permission.
		{"extent", "-", "disk-f001", nil, "", nil},
		{"extent", "-", "disk-link", nil, "", formats.ErrNotAllowed},
		{"extent", "-", "disk-out", nil, "", formats.ErrNotAllowed},
		{"extent", "-", "disk-dir", nil, "", formats.ErrNotAllowed},
		{"extent", "-", "disk-none", nil, "", fs.ErrNotExist},
		{"extent", "-", "other", nil, "", formats.ErrNotAllowed},
		{"extent", "-", "other", []string{allowed}, "", nil},
		{"extent", "-", "disk-dir/x", nil, "", formats.ErrNotAllowed},
		{"extent", "-", `disk-..\x`, nil, "", formats.ErrNotAllowed},
		{"extent", "-", "../a/disk-f001", nil, "", formats.ErrNotAllowed},
		{"extent", "-", dir + "/a/disk-f001", nil, "", formats.ErrNotAllowed},
	} {
		path := filepath.Join(dir, "a", "disk.named")
		if err := os.WriteFile(path, fmt.Appendf(nil, "named %s %s %s", c.kind, c.format, c.name), 0o600); err != nil {
			t.Fatal(err)
		}
		os.Remove(filepath.Join(dir, "a", "disk"))
		if err := os.Link(path, filepath.Join(dir, "a", "disk")); err != nil {
			t.Fatal(err)
		}
		o := pipeline.Opener{Table: []formats.Format{named(), raw.Format()}, Allow: c.allow, BackingFormat: c.backingFormat}
		img, err := o.Open(context.Background(), path, "")
		if !errors.Is(err, c.want) || err != nil && c.want == nil {
			t.Errorf("%s %s %q, allowed %q: %v, want %v", c.kind, c.format, c.name, c.allow, err, c.want)
		}
		if err != nil {
			continue
		}
		p := make([]byte, 5)
		if err := formats.ReadFull(img, p, 0); err != nil || string(p) != "base!" {
			t.Errorf("%q reads as %q, %v", c.name, p, err)
		}
		if err := img.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestLongChain: the layers are bounded.
func TestLongChain(t *testing.T) {
	files := map[string]string{"0": "base!"}
	for i := 1; i <= 16; i++ {
		files[fmt.Sprint(i)] = fmt.Sprintf("named backing named %d", i-1)
	}
	files["1"] = "named backing raw 0"
	dir := tree(t, files)
	o := pipeline.Opener{Table: []formats.Format{named(), raw.Format()}, Allow: []string{dir}}
	img, err := o.Open(context.Background(), filepath.Join(dir, "15"), "")
	if err != nil {
		t.Fatal(err)
	}
	img.Close()
	if _, err := o.Open(context.Background(), filepath.Join(dir, "16"), ""); !errors.Is(err, formats.ErrUnsupported) {
		t.Errorf("17 disks: %v", err)
	}
}

// TestChangedBelow: a change of any file of the chain is a change of the disk.
func TestChangedBelow(t *testing.T) {
	dir := tree(t, map[string]string{"base": "base!", "disk": "named backing raw base"})
	o := pipeline.Opener{Table: []formats.Format{named(), raw.Format()}, Allow: []string{dir}}
	img, err := o.Open(context.Background(), filepath.Join(dir, "disk"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if changed, err := img.Changed(); changed || err != nil {
		t.Errorf("%v, %v", changed, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "base"), bytes.Repeat([]byte("x"), 6), 0o600); err != nil {
		t.Fatal(err)
	}
	if changed, err := img.Changed(); !changed || err != nil {
		t.Errorf("%v, %v", changed, err)
	}
}
