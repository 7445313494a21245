package formats_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/raw"
)

// byPrefix is a format that knows sources that begin with s.
func byPrefix(name, s string) formats.Format {
	return formats.Format{Name: name, Probe: func(src formats.Source) (bool, error) {
		p := make([]byte, len(s))
		if src.Size() < int64(len(p)) {
			return false, nil
		}
		err := formats.ReadFull(src, p, 0)
		return err == nil && string(p) == s, err
	}}
}

// Detect judges by content, and the first format that knows a source wins: raw, which knows every
// source, comes last.
func ExampleDetect() {
	table := []formats.Format{byPrefix("shiny", "SHINY"), raw.Format()}
	for _, content := range []string{"SHINY disk", "any other bytes"} {
		f, err := formats.Detect(table, formatstest.NewSource([]byte(content)))
		fmt.Println(f.Name, err)
	}
	// Output:
	// shiny <nil>
	// raw <nil>
}

func ExampleImage() {
	src := formatstest.NewSource([]byte("a very small disk"))
	img, err := raw.Format().Open(context.Background(), src, nil)
	if err != nil {
		src.Close() // still ours: Open takes it only if it succeeds
		panic(err)
	}
	defer img.Close()
	for e, err := range img.Extents(context.Background()) {
		if err != nil {
			panic(err)
		}
		p := make([]byte, e.Length)
		if _, err := img.ReadAt(p, e.Offset); err != nil && err != io.EOF {
			panic(err)
		}
		fmt.Printf("%d: %s\n", e.Offset, p)
	}
	// Output: 0: a very small disk
}

func TestDetectOrder(t *testing.T) {
	a, b := byPrefix("a", "x"), byPrefix("b", "xy")
	src := formatstest.NewSource([]byte("xyz"))
	for _, c := range []struct {
		table []formats.Format
		want  string
	}{
		{[]formats.Format{a, b}, "a"}, {[]formats.Format{b, a}, "b"}, {[]formats.Format{byPrefix("c", "z"), b}, "b"},
	} {
		if f, err := formats.Detect(c.table, src); f.Name != c.want || err != nil {
			t.Errorf("%q, %v, want %q", f.Name, err, c.want)
		}
	}
	for _, table := range [][]formats.Format{nil, {byPrefix("c", "z")}} {
		if f, err := formats.Detect(table, src); !errors.Is(err, formats.ErrUnknown) || f.Name != "" {
			t.Errorf("%q, %v", f.Name, err)
		}
	}
}

// TestDetectBrokenDisk: a read that fails is not "some other format".
func TestDetectBrokenDisk(t *testing.T) {
	broken := errors.New("broken disk")
	bad := formats.Format{Name: "bad", Probe: func(formats.Source) (bool, error) { return false, broken }}
	_, err := formats.Detect([]formats.Format{bad, raw.Format()}, formatstest.NewSource(nil))
	if !errors.Is(err, broken) || errors.Is(err, formats.ErrUnknown) || !strings.Contains(err.Error(), "bad") {
		t.Errorf("%v", err)
	}
}

func TestByName(t *testing.T) {
	table := []formats.Format{byPrefix("a", "x"), byPrefix("b", "xy")}
	if f, err := formats.ByName(table, "b"); f.Name != "b" || err != nil {
		t.Errorf("%q, %v", f.Name, err)
	}
	_, err := formats.ByName(table, "c")
	if !errors.Is(err, formats.ErrUnknown) || !strings.Contains(err.Error(), `"c"`) || !strings.Contains(err.Error(), "a, b") {
		t.Errorf("%v", err)
	}
}

// readerAt answers as it is told.
type readerAt struct {
	n   int
	err error
}

func (r readerAt) ReadAt([]byte, int64) (int, error) { return r.n, r.err }

func TestReadFull(t *testing.T) {
	broken := errors.New("broken disk")
	for _, c := range []struct {
		r    readerAt
		want error
	}{
		{readerAt{4, nil}, nil},
		{readerAt{4, io.EOF}, nil},
		{readerAt{4, broken}, nil},
		{readerAt{3, io.EOF}, io.ErrUnexpectedEOF},
		{readerAt{3, nil}, io.ErrUnexpectedEOF},
		{readerAt{0, io.EOF}, io.ErrUnexpectedEOF},
		{readerAt{3, broken}, broken},
	} {
		if err := formats.ReadFull(c.r, make([]byte, 4), 0); err != c.want {
			t.Errorf("%+v: %v, want %v", c.r, err, c.want)
		}
	}
}

func TestReadAt(t *testing.T) {
	src := formatstest.NewSource([]byte("abc"))
	p := make([]byte, 2)
	if err := formats.ReadAt(context.Background(), "f", src, p, 1, "the end"); err != nil || string(p) != "bc" {
		t.Errorf("%q, %v", p, err)
	}
	err := formats.ReadAt(context.Background(), "f", src, p, 2, "the end")
	if !errors.Is(err, io.ErrUnexpectedEOF) || err.Error() != "f: can't read the end (at file offset 2): unexpected EOF" {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("enough")
	cancel(why)
	if err := formats.ReadAt(ctx, "f", src, p, 0, "the end"); err != why {
		t.Errorf("%v", err)
	}
}
