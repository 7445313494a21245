package formatstest

import (
	"bytes"
	"compress/bzip2"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"imgferry/bitmap"
	"imgferry/formats"
)

// QEMU compares a format with QEMU's tools, by files.
type QEMU struct {
	// Formats begin with the one under test. The others are those of disks below.
	Formats []formats.Format
	// Source opens a file: that is package source's business.
	Source func(path string) (formats.Source, error)
}

// Recipe is an image that qemu-img and qemu-io make.
type Recipe struct {
	Size     int64 // virtual size, bytes
	Pieces   []Piece
	Options  string   // for qemu-img convert -o
	Compress bool     // qemu-img convert -c
	IO       []string // qemu-io commands afterwards
}

func (q QEMU) name() string { return q.Formats[0].Name }

// Make writes the image to path.
func (q QEMU) Make(t testing.TB, path string, r Recipe) {
	t.Helper()
	args := []string{"convert", "-f", "raw", "-O", q.name()}
	if r.Options != "" {
		args = append(args, "-o", r.Options)
	}
	if r.Compress {
		args = append(args, "-c")
	}
	Tool(t, "qemu-img", append(args, RawFile(t, r.Size, r.Pieces), path)...)
	q.IO(t, path, r.IO...)
}

// IO runs qemu-io commands on the image at path.
func (q QEMU) IO(t testing.TB, path string, commands ...string) {
	t.Helper()
	if len(commands) == 0 {
		return
	}
	args := []string{"-f", q.name()}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	Tool(t, "qemu-io", append(args, path)...)
}

// RawFile writes a raw disk into a folder of its own and returns its path.
func RawFile(t testing.TB, size int64, pieces []Piece) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	w, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for _, p := range pieces {
		if _, err := w.WriteAt(p.Data, p.Offset); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// Unpack decompresses a .bz2 file into a folder of its own, with holes where it has zeros, and
// returns the path.
func Unpack(t testing.TB, packed string) string {
	t.Helper()
	r, err := os.Open(packed)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	path := filepath.Join(t.TempDir(), "unpacked")
	w, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	unpacked := bzip2.NewReader(r)
	p := make([]byte, 64<<10)
	for off := int64(0); ; off += int64(len(p)) {
		n, err := io.ReadFull(unpacked, p)
		if !bitmap.IsZero(p[:n]) {
			if _, err := w.WriteAt(p[:n], off); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Truncate(off + int64(n)); err != nil {
			t.Fatal(err)
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return path
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// OpenSource opens the file at path until the test ends.
func (q QEMU) OpenSource(t testing.TB, path string) formats.Source {
	t.Helper()
	src, err := q.Source(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	return src
}

// Open opens the image at path until the test ends. The files it names lie beside it.
func (q QEMU) Open(t testing.TB, path string) formats.Image {
	t.Helper()
	res := Folder{filepath.Dir(path), q.Formats, q.Source}
	img, err := res.Open(context.Background(), formats.Ref{Name: filepath.Base(path), Format: q.name()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	return img
}

// Info returns what the format says of the image at path.
func (q QEMU) Info(t testing.TB, path string) formats.Info {
	t.Helper()
	in, err := q.Formats[0].Info(context.Background(), q.OpenSource(t, path))
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// Check is Check for the image at path.
func (q QEMU) Check(t testing.TB, path string) ([]formats.Finding, CheckSums) {
	t.Helper()
	return Check(t, q.Formats[0], q.OpenSource(t, path))
}

// Content lets qemu-img write what it reads from the image at path into a raw file, and returns its
// path.
func (q QEMU) Content(t testing.TB, path string) string {
	t.Helper()
	raw := path + ".content"
	Tool(t, "qemu-img", "convert", "-f", q.name(), "-O", "raw", path, raw)
	return raw
}

// SameContent compares all that the image at path reads as with what qemu-img reads.
func (q QEMU) SameContent(t testing.TB, path string) {
	t.Helper()
	want, err := os.ReadFile(q.Content(t, path))
	if err != nil {
		t.Fatal(err)
	}
	img := q.Open(t, path)
	got, err := io.ReadAll(io.NewSectionReader(img, 0, img.Size()))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the content (%d bytes) is not what qemu-img reads (%d bytes)", len(got), len(want))
	}
}

// MapRun is a line of qemu-img map --output=json.
type MapRun struct {
	Start, Length       int64
	Depth               int
	Present, Zero, Data bool
	Offset              *int64
}

// Map is what qemu-img map says of the image at path.
func (q QEMU) Map(t testing.TB, path string) []MapRun {
	t.Helper()
	var list []MapRun
	if err := json.Unmarshal(Tool(t, "qemu-img", "map", "--output=json", "-f", q.name(), path), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

// SameMap compares the extents of the image at path with qemu-img's, after merging. What QEMU calls
// data and zeros at once, a hole in the file, is zeros.
func (q QEMU) SameMap(t testing.TB, path string) {
	t.Helper()
	var want, got []formats.Extent
	for _, m := range q.Map(t, path) {
		e := formats.Extent{Offset: m.Start, Length: m.Length, Depth: m.Depth, Absent: !m.Present, Zero: m.Zero, HostOffset: -1}
		if m.Data && !m.Zero && m.Offset != nil {
			e.HostOffset = *m.Offset
		}
		if !m.Data && !m.Zero {
			t.Errorf("qemu-img map says nothing of %+v", m)
		}
		want = append(want, e)
	}
	for _, e := range Extents(t, q.Open(t, path)) {
		e.Compressed, e.Unit, e.File = false, 0, "" // QEMU's offsets tell
		got = append(got, e)
	}
	if got, want = merge(got), merge(want); !slices.Equal(got, want) {
		t.Errorf("extents are\n%v,\nqemu-img map says\n%v", got, want)
	}
}

// merge joins neighbours that are alike.
func merge(runs []formats.Extent) []formats.Extent {
	var list []formats.Extent
	for _, r := range runs {
		if n := len(list); n > 0 {
			last := &list[n-1]
			next := *last
			next.Offset, next.Length = r.Offset, r.Length
			if last.HostOffset >= 0 {
				next.HostOffset += last.Length
			}
			if next == r {
				last.Length += r.Length
				continue
			}
		}
		list = append(list, r)
	}
	return list
}

// QEMUInfo is what qemu-img info --output=json says.
type QEMUInfo struct {
	Format      string
	VirtualSize int64 `json:"virtual-size"`
	ClusterSize int64 `json:"cluster-size"`
	Dirty       bool  `json:"dirty-flag"`
	Specific    struct {
		Data map[string]any
	} `json:"format-specific"`
	Snapshots []struct {
		ID, Name  string
		State     int64 `json:"vm-state-size"`
		Sec       int64 `json:"date-sec"`
		Nano      int64 `json:"date-nsec"`
		ClockSec  int64 `json:"vm-clock-sec"`
		ClockNano int64 `json:"vm-clock-nsec"`
	}
}

// SameInfo compares what Info says of the image at path with qemu-img info, and returns both for what
// is the format's own. Where Info knows no cluster size, that of QEMU may be anything.
func (q QEMU) SameInfo(t testing.TB, path string) (in formats.Info, want QEMUInfo) {
	t.Helper()
	if err := json.Unmarshal(Tool(t, "qemu-img", "info", "-f", q.name(), "--output=json", path), &want); err != nil {
		t.Fatal(err)
	}
	in = q.Info(t, path)
	if in.Format != want.Format || in.VirtualSize != want.VirtualSize || in.ClusterSize != 0 && in.ClusterSize != want.ClusterSize ||
		in.Dirty != want.Dirty || in.Problem != nil {
		t.Errorf("%+v, qemu-img says %+v", in, want)
	}
	return in, want
}

// CheckSums is what qemu-img check --output=json says.
type CheckSums struct {
	Corruptions, Leaks int64
	Clusters           int64 `json:"total-clusters"`
	Allocated          int64 `json:"allocated-clusters"`
	Compressed         int64 `json:"compressed-clusters"`
	Fragmented         int64 `json:"fragmented-clusters"`
	End                int64 `json:"image-end-offset"`
}

// QEMUCheck runs qemu-img check on the image at path.
func (q QEMU) QEMUCheck(t testing.TB, path string) (sums CheckSums) {
	t.Helper()
	NeedTool(t, "qemu-img")
	// Its exit code says what it found. It says some findings in words first.
	out, err := exec.Command("qemu-img", "check", "-f", q.name(), "--output=json", path).Output()
	if jsonErr := json.Unmarshal(out[max(bytes.IndexByte(out, '{'), 0):], &sums); jsonErr != nil {
		t.Fatalf("qemu-img check: %v\n%s", err, out)
	}
	return sums
}
