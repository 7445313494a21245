package formatstest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"testing"

	"imgferry/formats"
)

// Fuzzed is an input of a fuzz target: an image file that may be anything.
type Fuzzed struct {
	Format formats.Format
	Source func() formats.Source // a new one each time
	// Resolver opens what the image names; nil refuses.
	Resolver formats.Resolver
	// File returns the file that Resolver opens by that name, for extents that lie there; nil: they are
	// not compared.
	File func(name string) []byte
	// Budget is how many bytes of disk are read, and at most a quarter of it from one run.
	Budget int64
	// OpenVerifies says that Open looks at all tables: what it accepts can be walked to its end, and
	// what it refuses is refused or found faulty by Info or Check too.
	OpenVerifies bool
	// CheckVerifies says that an image in which Check finds no damage can be walked to its end.
	CheckVerifies bool
}

// Run opens, walks, reads and checks the image. Besides panics and hangs it looks for contradictions:
// between Info, Check and Open, between extents and content, and between two ways to read.
func (z Fuzzed) Run(t *testing.T) {
	ctx := context.Background()
	if _, err := z.Format.Probe(z.Source()); err != nil {
		t.Fatalf("probe: %v", err)
	}
	in, err := z.Format.Info(ctx, z.Source())
	if err != nil {
		t.Fatalf("info: %v", err)
	}
	findings, damage := 0, 0
	_, checkErr := z.Format.Check(ctx, z.Source(), func(f formats.Finding) {
		if findings++; !f.Leak {
			damage++
		}
		if f.What == "" || f.Count < 0 || f.Offset < -1 {
			t.Fatalf("check: %+v", f)
		}
	})
	ExpectClass(t, "check", checkErr)
	walkable := z.OpenVerifies || z.CheckVerifies && checkErr == nil && damage == 0
	if len(in.Snapshots) > 0 {
		img, err := z.Format.OpenSnapshot(ctx, z.Source(), z.Resolver, in.Snapshots[0].ID)
		if ExpectClass(t, "open a snapshot", err); err == nil {
			z.walk(t, img, walkable)
			img.Close()
		}
	}
	img, err := z.Format.Open(ctx, z.Source(), z.Resolver)
	if err != nil {
		if ExpectClass(t, "open", err); z.OpenVerifies && in.Problem == nil && checkErr == nil && findings == 0 {
			t.Fatalf("%v, but info and check find nothing", err)
		}
		return
	}
	defer img.Close()
	if in.Problem != nil || in.VirtualSize != img.Size() || z.OpenVerifies && checkErr != nil {
		t.Fatalf("info says %d bytes, problem %v; check %v; it opened with %d", in.VirtualSize, in.Problem, checkErr, img.Size())
	}
	z.walk(t, img, walkable)
}

// walk goes over the extents, which is bounded by the file and not by the virtual size, and reads
// some of all of them.
func (z Fuzzed) walk(t *testing.T, img formats.Image, walkable bool) {
	var pos int64
	budget := z.Budget
	for e, err := range img.Extents(context.Background()) {
		if err != nil {
			if ExpectClass(t, "extents", err); walkable {
				t.Fatalf("nothing was found, but: %v", err)
			}
			return
		}
		if e.Offset != pos || e.Length <= 0 || e.Length > img.Size()-pos {
			t.Fatalf("run %+v, expected one at %d of %d", e, pos, img.Size())
		}
		pos += e.Length
		if n := min(e.Length, budget, z.Budget/4); n > 0 {
			budget -= n
			z.read(t, img, e, n)
		}
	}
	if pos != img.Size() {
		t.Fatalf("runs cover %d of %d bytes", pos, img.Size())
	}
}

// read reads the first n bytes of a run in one piece and in three.
func (z Fuzzed) read(t *testing.T, img formats.Image, e formats.Extent, n int64) {
	whole := bytes.Repeat([]byte{0xdb}, int(n))
	k, err := img.ReadAt(whole, e.Offset)
	if err != nil && err != io.EOF {
		if ExpectClass(t, "read", err); !e.Compressed {
			t.Fatalf("%+v can't be read: %v", e, err)
		}
		return
	}
	if int64(k) != n {
		t.Fatalf("%+v: %d of %d bytes", e, k, n)
	}
	var file io.ReaderAt
	switch {
	case e.File == "":
		file = z.Source()
	case z.File != nil:
		file = bytes.NewReader(z.File(e.File))
	}
	want := make([]byte, n)
	switch {
	case e.HostOffset >= 0 && file != nil:
		if err := formats.ReadFull(file, want, e.HostOffset); err != nil || !bytes.Equal(whole, want) {
			t.Fatalf("%+v does not lie there: %v", e, err)
		}
	case e.Zero && !bytes.Equal(whole, want):
		t.Fatalf("%+v is not zero", e)
	}
	parts := make([]byte, n)
	for _, r := range [][2]int64{{n / 3, n / 2}, {0, n / 3}, {n / 2, n}} {
		if k, err := img.ReadAt(parts[r[0]:r[1]], e.Offset+r[0]); int64(k) != r[1]-r[0] || err != nil && err != io.EOF {
			t.Fatalf("%+v, bytes %v: %d, %v", e, r, k, err)
		}
	}
	if !bytes.Equal(whole, parts) {
		t.Fatalf("%+v reads differently in parts", e)
	}
}

// ExpectClass fails the test if err is of none of the classes that an image's bytes can lead to.
func ExpectClass(t *testing.T, what string, err error) {
	t.Helper()
	for _, class := range []error{nil, formats.ErrCorrupt, formats.ErrUnsupported, formats.ErrNotAllowed, fs.ErrNotExist} {
		if errors.Is(err, class) {
			return
		}
	}
	t.Fatalf("%s: an error without a class: %v", what, err)
}
