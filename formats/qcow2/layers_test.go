package qcow2_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/qcow2"
	"imgferry/formats/raw"
)

// folder is a directory whose images may name each other.
type folder struct {
	t   *testing.T
	dir string
}

func newFolder(t *testing.T) folder {
	formatstest.NeedTool(t, "qemu-img")
	formatstest.NeedTool(t, "qemu-io")
	return folder{t, t.TempDir()}
}

func (f folder) path(name string) string { return filepath.Join(f.dir, name) }

// create makes an image, and runs qemu-io commands on it.
func (f folder) create(name, options, size string, commands ...string) {
	f.t.Helper()
	args := []string{"create", "-q", "-f", "qcow2"}
	if options != "" {
		args = append(args, "-o", options)
	}
	args = append(args, f.path(name))
	if size != "" {
		args = append(args, size)
	}
	formatstest.Tool(f.t, "qemu-img", args...)
	qemu.IO(f.t, f.path(name), commands...)
}

func (f folder) read(name string) []byte {
	f.t.Helper()
	p, err := os.ReadFile(f.path(name))
	if err != nil {
		f.t.Fatal(err)
	}
	return p
}

// resolver opens whatever is in the folder.
func (f folder) resolver() formatstest.Files {
	f.t.Helper()
	list, err := os.ReadDir(f.dir)
	if err != nil {
		f.t.Fatal(err)
	}
	files := formatstest.Files{Bytes: map[string][]byte{}, Formats: []formats.Format{qcow2.Format(), raw.Format()}}
	for _, e := range list {
		files.Bytes[e.Name()] = f.read(e.Name())
	}
	return files
}

// compare runs the suite over an image, and compares it with what qemu-img says of it.
func (f folder) compare(name string, size int64) {
	t := f.t
	t.Helper()
	formatstest.Tool(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", f.path(name), f.path("want"))
	res := f.resolver()
	formatstest.Run(t, qcow2.Format(), []formatstest.Case{{
		Name: "suite", Image: res.Bytes[name], Size: size, Content: bytes.NewReader(res.Bytes["want"]), Resolver: res,
	}})
	compareInfo(t, f.path(name))
	compareCheck(t, f.path(name), 0)
	compareMap(t, f.path(name), openBytes(t, res.Bytes[name], res))
	if err := os.Remove(f.path("want")); err != nil {
		t.Fatal(err)
	}
}

func openBytes(t testing.TB, p []byte, res formats.Resolver) formats.Image {
	t.Helper()
	img, err := qcow2.Format().Open(context.Background(), formatstest.NewSource(p), res)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	return img
}

func TestBackingFiles(t *testing.T) {
	for _, c := range []struct {
		name, base, options string
		size                string
	}{
		{"as long", "base", "backing_file=base,backing_fmt=qcow2", ""},
		{"longer", "base", "backing_file=base,backing_fmt=qcow2", "3M"},
		{"shorter", "base", "backing_file=base,backing_fmt=qcow2", "700k"},
		{"over raw", "base.raw", "backing_file=base.raw,backing_fmt=raw", ""},
		{"longer than raw", "base.raw", "backing_file=base.raw,backing_fmt=raw", "3M"},
		{"version 2", "base", "backing_file=base,backing_fmt=qcow2,compat=0.10", ""},
		{"subclusters", "base", "backing_file=base,backing_fmt=qcow2,extended_l2=on", "2M"},
		{"small clusters", "base", "backing_file=base,backing_fmt=qcow2,cluster_size=512", ""},
		{"large clusters", "base", "backing_file=base,backing_fmt=qcow2,cluster_size=2M", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFolder(t)
			f.create("base", "cluster_size=4096", "1000448", "write -P 1 0 200k", "write -P 2 500k 300k", "write -z 600k 50k", "write -P 3 999936 512")
			formatstest.Tool(t, "qemu-img", "convert", "-O", "raw", f.path("base"), f.path("base.raw"))
			commands := []string{"write -P 4 100k 70k", "write -z 520k 20k", "write -P 5 550k 1k"}
			if c.options != "" && !strings.Contains(c.options, "0.10") {
				commands = append(commands, "discard 128k 64k")
			}
			f.create("top", c.options, c.size, commands...)
			f.compare("top", openBytes(t, f.read("top"), f.resolver()).Size())
		})
	}
}

func TestBackingChain(t *testing.T) {
	f := newFolder(t)
	f.create("0", "cluster_size=65536", "1M", "write -P 1 0 1M")
	f.create("1", "backing_file=0,backing_fmt=qcow2,cluster_size=4096", "3M", "write -P 2 100k 100k", "write -P 9 2M 100k")
	f.create("2", "backing_file=1,backing_fmt=qcow2,extended_l2=on", "2M", "write -P 3 450k 3k", "write -z 400k 10k")
	f.create("3", "backing_file=2,backing_fmt=qcow2,compat=0.10", "4M", "write -P 4 152k 1k", "write -P 5 3500k 1k")
	f.compare("3", 4<<20)

	// The layers and the files that hold them are told as the images spell them.
	seen := map[string]int{}
	for _, e := range formatstest.Extents(t, openBytes(t, f.read("3"), f.resolver())) {
		if e.HostOffset >= 0 {
			seen[e.File] = e.Depth
		}
	}
	if len(seen) != 4 || seen[""] != 0 || seen["2"] != 1 || seen["1"] != 2 || seen["0"] != 3 {
		t.Errorf("%v", seen)
	}
}

// asked notes what a parser asks of a resolver, and how what it was given was closed.
type asked struct {
	formatstest.Files
	refs   *[]formats.Ref
	closes *int
}

type closeCounter struct {
	formats.Source
	n *int
}

func (c closeCounter) Close() error { *c.n++; return c.Source.Close() }

type imageCloseCounter struct {
	formats.Image
	n *int
}

func (c imageCloseCounter) Close() error { *c.n++; return c.Image.Close() }

func (a asked) Resolve(ctx context.Context, r formats.Ref) (formats.Source, formats.Resolver, error) {
	*a.refs = append(*a.refs, r)
	src, res, err := a.Files.Resolve(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	return closeCounter{src, a.closes}, res, nil
}

func (a asked) Open(ctx context.Context, r formats.Ref) (formats.Image, error) {
	*a.refs = append(*a.refs, r)
	img, err := a.Files.Open(ctx, r)
	if err != nil {
		return nil, err
	}
	return imageCloseCounter{img, a.closes}, nil
}

func askedFor(files map[string][]byte) asked {
	return asked{formatstest.Files{Bytes: files, Formats: []formats.Format{qcow2.Format(), raw.Format()}}, new([]formats.Ref), new(int)}
}

// backed is a tiny image over "base", of which the first two clusters are holes.
func backed() imageBytes {
	return tiny(3).u64(8, 300).u32(16, 4).str(300, "base").u64(tinyL2, 0).u64(tinyL2+8, 0)
}

// withDataFile is a tiny image whose data is in the file "data".
func withDataFile(version uint64) imageBytes {
	p := tiny(3).u64(72, 1<<2).u64(88, version).ext(tinyExt, 0x44415441, "data")
	for i := range tinyCount {
		p.u64(tinyL2+8*i, 1<<63|uint64(i*tinyCluster))
	}
	return p
}

// TestBackingFormat: the name goes to the resolver as it is, with the format that the image claims, if
// any: what to do without one is not the parser's to say.
func TestBackingFormat(t *testing.T) {
	for _, format := range []string{"", "raw"} {
		p := backed()
		if format != "" {
			p = p.ext(tinyExt, 0xe2792aca, format)
		}
		a := askedFor(map[string][]byte{"base": bytes.Repeat([]byte("b"), 700)})
		got, err := formatstest.ReadAll(qcow2.Format(), formatstest.NewSource(p), a)
		if err != nil {
			t.Fatal(err)
		}
		want := append(bytes.Repeat([]byte("b"), 700), make([]byte, 2*tinyCluster-700)...)
		if !bytes.Equal(got, append(want, tiny(3)[tinyData+2*tinyCluster:]...)) {
			t.Error("content differs")
		}
		if len(*a.refs) != 1 || (*a.refs)[0] != (formats.Ref{Kind: formats.Backing, Name: "base", Format: format}) || *a.closes != 1 {
			t.Errorf("%+v, %d closes", *a.refs, *a.closes)
		}
	}
}

// TestOthersFail: what was opened is closed again, and the error is the resolver's.
func TestOthersFail(t *testing.T) {
	p := withDataFile(0).u64(8, 300).u32(16, 4).str(300, "base")
	a := askedFor(map[string][]byte{"data": make([]byte, 2048)})
	if _, err := formatstest.ReadAll(qcow2.Format(), formatstest.NewSource(p), a); !errors.Is(err, os.ErrNotExist) || *a.closes != 1 || len(*a.refs) != 2 {
		t.Errorf("%v, %d closes, asked for %v", err, *a.closes, *a.refs)
	}
	a.Bytes["base"] = make([]byte, 2048)
	if _, err := formatstest.ReadAll(qcow2.Format(), formatstest.NewSource(p), a); err != nil || *a.closes != 3 {
		t.Errorf("%v, %d closes", err, *a.closes)
	}
}

func TestDataFile(t *testing.T) {
	for _, c := range []struct {
		name, options string
		commands      []string
	}{
		{"plain", "data_file=%", []string{"write -P 1 100k 70k", "write -P 2 0 1k", "write -z 200k 100k", "write -P 3 1000k 24k", "discard 128k 64k"}},
		{"raw", "data_file=%,data_file_raw=on", []string{"write -P 1 100k 70k", "write -P 2 0 1k", "write -z 200k 100k", "write -P 3 1000k 24k"}},
		{"preallocated", "data_file=%,preallocation=metadata", []string{"write -P 1 100k 70k"}},
		{"subclusters", "data_file=%,extended_l2=on", []string{"write -P 1 100k 70k", "write -P 2 0 1k", "write -z 201k 99k", "write -P 3 1000k 3k"}},
		{"backing file", "data_file=%,backing_file=base,backing_fmt=qcow2", []string{"write -P 1 100k 70k", "write -z 200k 100k"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFolder(t)
			f.create("base", "", "1M", "write -P 7 0 400k")
			f.create("disk", strings.ReplaceAll(c.options, "%", f.path("data")), "1M", c.commands...)
			// The name in the image is the path of the test's folder.
			res := f.resolver()
			res.Bytes[f.path("data")] = res.Bytes["data"]
			formatstest.Tool(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", f.path("disk"), f.path("want"))
			formatstest.Run(t, qcow2.Format(), []formatstest.Case{{
				Name: "suite", Image: res.Bytes["disk"], Size: 1 << 20, Content: bytes.NewReader(f.read("want")), Resolver: res,
			}})
			compareInfo(t, f.path("disk"))
			compareCheck(t, f.path("disk"), 0)
			img := openBytes(t, res.Bytes["disk"], res)
			compareMap(t, f.path("disk"), img)
			for _, e := range formatstest.Extents(t, img) {
				if e.HostOffset >= 0 && e.Depth == 0 && (e.File != f.path("data") || e.HostOffset != e.Offset) {
					t.Errorf("%+v", e)
				}
			}
		})
	}
}

func TestSnapshots(t *testing.T) {
	for _, options := range []string{"cluster_size=4096", "compat=0.10", "extended_l2=on", "cluster_size=512,refcount_bits=64"} {
		t.Run(options, func(t *testing.T) {
			t.Parallel()
			f := newFolder(t)
			snapshot := func(name string) { formatstest.Tool(t, "qemu-img", "snapshot", "-c", name, f.path("disk")) }
			write := func(commands ...string) { qemu.IO(t, f.path("disk"), commands...) }
			f.create("disk", options, "1M", "write -P 1 0 200k")
			snapshot("first")
			write("write -P 2 100k 200k")
			snapshot("second")
			sizes := map[string]int64{"first": 1 << 20, "second": 1 << 20}
			if options != "compat=0.10" {
				formatstest.Tool(t, "qemu-img", "resize", "-q", f.path("disk"), "3M")
				write("write -P 3 2M 100k")
				snapshot("1") // a name that is another's id
				write("write -P 4 0 50k", "write -z 200k 100k")
				sizes["3"] = 3 << 20
			}
			p := f.read("disk")
			compareInfo(t, f.path("disk"))
			compareCheck(t, f.path("disk"), 0)
			for wanted, size := range sizes {
				// qemu-img shows snapshots with the active disk's size, so a copy goes back to it.
				if err := os.WriteFile(f.path("copy"), p, 0o600); err != nil {
					t.Fatal(err)
				}
				formatstest.Tool(t, "qemu-img", "snapshot", "-a", wanted, f.path("copy"))
				formatstest.Tool(t, "qemu-img", "convert", "-O", "raw", f.path("copy"), f.path("want"))
				asDisk := qcow2.Format()
				asDisk.Open = func(ctx context.Context, src formats.Source, res formats.Resolver) (formats.Image, error) {
					return asDisk.OpenSnapshot(ctx, src, res, wanted)
				}
				asDisk.Info = func(ctx context.Context, src formats.Source) (formats.Info, error) {
					in, err := qcow2.Format().Info(ctx, src)
					in.VirtualSize = size // Info is the active disk's
					return in, err
				}
				formatstest.Run(t, asDisk, []formatstest.Case{{Name: wanted, Image: p, Size: size, Content: bytes.NewReader(f.read("want"))}})
			}
			// "1" is the id of "first", and goes before the name.
			a, b := snapshotBytes(t, p, "1"), snapshotBytes(t, p, "first")
			if !bytes.Equal(a, b) {
				t.Error("the id does not go before the name")
			}
		})
	}
}

func snapshotBytes(t *testing.T, p []byte, wanted string) []byte {
	t.Helper()
	img, err := qcow2.Format().OpenSnapshot(context.Background(), formatstest.NewSource(p), nil, wanted)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	all := make([]byte, img.Size())
	if _, err := img.ReadAt(all, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return all
}

// TestSnapshotOverBacking: the disk below is the same for all snapshots.
func TestSnapshotOverBacking(t *testing.T) {
	f := newFolder(t)
	f.create("base", "", "1M", "write -P 1 0 1M")
	f.create("disk", "backing_file=base,backing_fmt=qcow2", "", "write -P 2 0 64k")
	formatstest.Tool(t, "qemu-img", "snapshot", "-c", "s", f.path("disk"))
	formatstest.Tool(t, "qemu-io", "-f", "qcow2", "-c", "write -P 3 0 256k", f.path("disk"))
	img, err := qcow2.Format().OpenSnapshot(context.Background(), formatstest.NewSource(f.read("disk")), f.resolver(), "s")
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	p := make([]byte, 1<<20)
	if _, err := img.ReadAt(p, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	if !bytes.Equal(p[:64<<10], bytes.Repeat([]byte{2}, 64<<10)) || !bytes.Equal(p[64<<10:], bytes.Repeat([]byte{1}, 960<<10)) {
		t.Error("content differs")
	}
}

// TestBitmaps: they are left alone, and counted by the check.
func TestBitmaps(t *testing.T) {
	f := newFolder(t)
	f.create("disk", "cluster_size=4096", "3M", "write -P 1 0 200k")
	formatstest.Tool(t, "qemu-img", "bitmap", "--add", f.path("disk"), "a")
	formatstest.Tool(t, "qemu-img", "bitmap", "--add", "-g", "512", f.path("disk"), "another")
	formatstest.Tool(t, "qemu-io", "-f", "qcow2", "-c", "write -P 2 100k 200k", f.path("disk"))
	f.compare("disk", 3<<20)
	p := image(f.read("disk"))
	for _, c := range []struct {
		name   string
		damage func(p image, dir int64)
	}{
		{"a table's entry past the end", func(p image, dir int64) { p.set(p.at(dir), 1<<40) }},
		{"a leak", func(p image, dir int64) { p.set(p.at(dir), 0) }},
		{"bitmaps out of date", func(p image, dir int64) { p.flip(88, 1) }},
	} {
		q := append(image(nil), p...)
		ext := int64(bytes.Index(q, []byte{0x23, 0x85, 0x28, 0x75, 0, 0, 0, 24}))
		c.damage(q, int64(q.u64(ext+8+16)))
		if err := os.WriteFile(f.path("damaged"), q, 0o600); err != nil {
			t.Fatal(err)
		}
		r, _ := compareCheck(t, f.path("damaged"), 0)
		if r.Corruptions+r.Leaks == 0 {
			t.Errorf("%s: nothing was found", c.name)
		}
	}
}

// TestEncryptedCheck: the structure of an encrypted disk can be checked without its key.
func TestEncryptedCheck(t *testing.T) {
	f := newFolder(t)
	secret := []string{"--object", "secret,id=s,data=abc"}
	formatstest.Tool(t, "qemu-img", append(append([]string{"create", "-q", "-f", "qcow2"}, secret...),
		"-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", f.path("disk"), "1M")...)
	findings, r := qemu.Check(t, f.path("disk"))
	if r.Corruptions+r.Leaks > 0 {
		t.Errorf("%+v", findings)
	}
	in := qemu.Info(t, f.path("disk"))
	if !in.Encrypted || !errors.Is(in.Problem, formats.ErrUnsupported) {
		t.Errorf("%+v", in)
	}
	if _, err := qcow2.Format().Open(context.Background(), qemu.OpenSource(t, f.path("disk")), nil); !errors.Is(err, formats.ErrUnsupported) || !strings.Contains(err.Error(), "LUKS") {
		t.Errorf("%v", err)
	}
}
