package mapped_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/mapped"
	"imgferry/formats/raw"
)

// table maps fixed runs.
type table []mapped.Run

func (t table) Map(off, limit int64) (mapped.Run, error) {
	for _, r := range t {
		if off < r.Length {
			r.Host, r.Length = r.Host+off, r.Length-off
			return r, nil
		}
		off -= r.Length
	}
	return mapped.Run{}, errors.New("the test's table is too short")
}

func (t table) Decode(p []byte, off int64, r mapped.Run) error {
	copy(p, bytes.Repeat(r.Entries, len(p)))
	return nil
}

// layers is a disk of 10 bytes over a raw disk of 6 bytes, with a second file.
func layers(t *testing.T, ctx context.Context) formats.Image {
	t.Helper()
	below, err := raw.Format().Open(ctx, formatstest.NewSource([]byte("below!")), nil)
	if err != nil {
		t.Fatal(err)
	}
	r := mapped.NewReader(ctx, "test", formatstest.NewSource([]byte("own")))
	m := mapped.New(mapped.Config{
		Reader: r, Size: 10, Below: below, BelowName: "base",
		Files: []mapped.File{{Name: "other", Reader: r.Sibling(formatstest.NewSource([]byte("other")))}},
		Table: table{
			{Kind: mapped.Data, Length: 1, Host: 2},
			{Kind: mapped.Hole, Length: 1},
			{Kind: mapped.Zero, Length: 1},
			{Kind: mapped.Encoded, Length: 1, Entries: []byte("z")},
			{Kind: mapped.Data, Length: 1, Host: 3, File: 1},
			{Kind: mapped.Hole, Length: 2},
			{Kind: mapped.Hole, Length: 3},
		},
	})
	t.Cleanup(func() { m.Close() })
	return m
}

func TestLayers(t *testing.T) {
	m := layers(t, context.Background())
	const want = "ne\x00ze!\x00\x00\x00\x00"
	for off := range int64(10) {
		p := make([]byte, 20)
		n, err := m.ReadAt(p, off)
		if err != io.EOF || string(p[:n]) != want[off:] {
			t.Errorf("%q, %v; want %q", p[:n], err, want[off:])
		}
	}
	var got []formats.Extent
	for e, err := range m.Extents(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e)
	}
	if extents := []formats.Extent{
		{Offset: 0, Length: 1, HostOffset: 2},
		{Offset: 1, Length: 1, HostOffset: 1, File: "base", Depth: 1},
		{Offset: 2, Length: 1, HostOffset: -1, Zero: true},
		{Offset: 3, Length: 1, HostOffset: -1, Compressed: true},
		{Offset: 4, Length: 1, HostOffset: 3, File: "other"},
		{Offset: 5, Length: 1, HostOffset: 5, File: "base", Depth: 1},
		{Offset: 6, Length: 4, HostOffset: -1, Zero: true, Absent: true},
	}; !slices.Equal(got, extents) {
		t.Errorf("%+v,\nwant %+v", got, extents)
	}
}

// TestUnplaced: the bytes are where the reader says, but not in the file as it is.
func TestUnplaced(t *testing.T) {
	m := mapped.New(mapped.Config{
		Reader: mapped.NewReader(context.Background(), "test", formatstest.NewSource([]byte("abcdef"))), Size: 5,
		Table: table{{Kind: mapped.Data, Length: 2, Host: 1}, {Kind: mapped.Data, Length: 1, Host: 3, Unplaced: true}, {Kind: mapped.Data, Length: 1, Host: 0, Unplaced: true}, {Kind: mapped.Data, Length: 1, Host: 5}},
	})
	defer m.Close()
	p := make([]byte, 5)
	if _, err := m.ReadAt(p, 0); err != nil || string(p) != "bcdaf" {
		t.Errorf("%q, %v", p, err)
	}
	if got, want := formatstest.Extents(t, m), []formats.Extent{{Length: 2, HostOffset: 1}, {Offset: 2, Length: 2, HostOffset: -1}, {Offset: 4, Length: 1, HostOffset: 5}}; !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestClose(t *testing.T) {
	m := layers(t, context.Background())
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.ReadAt(make([]byte, 1), 1); !errors.Is(err, os.ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
	for _, err := range m.Extents(context.Background()) {
		if err == nil {
			t.Error("extents after close")
		}
	}
}

// holey is a file of 100 bytes with data at [10, 20) and [50, 60) only.
type holey struct {
	formats.Source
	asked *int
}

func (h holey) NextData(off int64) (start, end int64, err error) {
	*h.asked++
	for _, start := range []int64{10, 50} {
		if off < start+10 {
			return max(off, start), start + 10, nil
		}
	}
	return 100, 100, nil
}

// TestHoles: runs are cut where the file has holes, each of which is asked for once.
func TestHoles(t *testing.T) {
	runs := table{
		{Kind: mapped.Data, Length: 5, Host: 12}, {Kind: mapped.Data, Length: 6, Host: 17}, // goes on where the first ends
		{Kind: mapped.Hole, Length: 1}, {Kind: mapped.Data, Length: 40, Host: 25}, {Kind: mapped.Data, Length: 2, Host: 98},
		{Kind: mapped.Data, Length: 3, Host: 0, File: 1},
	}
	data := func(off, n, host int64) formats.Extent {
		return formats.Extent{Offset: off, Length: n, HostOffset: host}
	}
	zero := func(off, n int64) formats.Extent {
		return formats.Extent{Offset: off, Length: n, Zero: true, HostOffset: -1}
	}
	nothing := zero(11, 1)
	nothing.Absent = true
	other := data(54, 3, 0)
	other.File = "other"
	for _, c := range []struct {
		holes bool
		want  []formats.Extent
		asked int
	}{
		{false, []formats.Extent{data(0, 11, 12), nothing, data(12, 40, 25), data(52, 2, 98), other}, 0},
		{true, []formats.Extent{data(0, 8, 12), zero(8, 3), nothing, zero(12, 25), data(37, 10, 50), zero(47, 7), other}, 3},
	} {
		asked := 0
		r := mapped.NewReader(context.Background(), "test", holey{formatstest.NewSource(make([]byte, 100)), &asked})
		m := mapped.New(mapped.Config{
			Reader: r, Size: 57, Table: runs, Holes: c.holes,
			Files: []mapped.File{{Name: "other", Reader: r.Sibling(formatstest.NewSource([]byte("other")))}},
		})
		if got := formatstest.Extents(t, m); !slices.Equal(got, c.want) || asked != c.asked {
			t.Errorf("holes %v: asked %d times, %+v,\nwant %+v", c.holes, asked, got, c.want)
		}
		m.Close()
	}
}
