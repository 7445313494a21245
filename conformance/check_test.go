//go:build conformance

package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"imgferry/convert"
	"imgferry/formats"
	"imgferry/formats/raw"
	"imgferry/source"
)

// qemuImg runs qemu-img, which must succeed.
func qemuImg(t testing.TB, dir string, args ...string) []byte {
	t.Helper()
	return run(t, dir, "qemu-img", args...)
}

func run(t testing.TB, dir, program string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v: %s (apt-get install qemu-utils)", program, args, err, stderr.String())
	}
	return out
}

// truth is what qemu-img says of an image.
type truth struct {
	content formats.Image // raw
	runs    []mapping
}

// mapping is a run as qemu-img map has it.
type mapping struct {
	Start, Length       int64
	Depth               int
	Present, Zero, Data bool
	Offset              int64 // -1: none
}

// ask asks qemu-img about the image file.
func ask(t *testing.T, dir string, k made) truth {
	t.Helper()
	input := []string{"-f", k.format}
	path := k.path
	if k.options != "" { // an image that only these options open
		input, path = []string{"--image-opts"}, k.options
	}
	args := append([]string{"convert"}, input...)
	if k.snapshot != "" {
		args = append(args, "-l", "snapshot.name="+k.snapshot)
	}
	const out = "qemu.raw"
	qemuImg(t, dir, append(args, "-O", "raw", path, out)...)
	src, err := source.Open(filepath.Join(dir, out))
	if err != nil {
		t.Fatal(err)
	}
	content, err := raw.Format().Open(context.Background(), src, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { content.Close() })
	q := truth{content: content}
	if k.snapshot != "" || k.format == "vhdx" {
		return q // qemu-img map knows no snapshots, and takes the whole of a VHDX disk for data
	}
	// qemu-img looks through the file for holes; a copy without holes shows the format's own map.
	for _, name := range k.files {
		run(t, dir, "cp", "--sparse=never", name, name+".full")
		if err := os.Rename(filepath.Join(dir, name+".full"), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	var list []struct {
		mapping
		Offset *int64
	}
	if err := json.Unmarshal(qemuImg(t, dir, append(append([]string{"map", "--output=json"}, input...), path)...), &list); err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		m.mapping.Offset = -1
		if m.Offset != nil {
			m.mapping.Offset = *m.Offset
		}
		q.runs = append(q.runs, m.mapping)
	}
	return q
}

// check compares img with what qemu-img says, and returns the first difference.
func (q truth) check(img formats.Image) error {
	if img.Size() != q.content.Size() {
		return fmt.Errorf("virtual size %d, qemu-img says %d", img.Size(), q.content.Size())
	}
	off, err := convert.Compare(context.Background(), img, q.content, convert.Options{})
	if err != nil {
		return err
	}
	if off >= 0 {
		return fmt.Errorf("content differs at %d", off)
	}
	// Compare skips what extents call zero; read all as well.
	if img.Size() <= 64<<20 {
		a, b := make([]byte, img.Size()), make([]byte, img.Size())
		if err := formats.ReadFull(img, a, 0); err != nil {
			return err
		}
		if err := formats.ReadFull(q.content, b, 0); err != nil {
			return err
		}
		if !bytes.Equal(a, b) {
			return fmt.Errorf("content differs when read at once")
		}
	}
	if q.runs == nil {
		return nil
	}
	ours, err := runsOf(img)
	if err != nil {
		return err
	}
	return compareRuns(ours, q.runs)
}

func runsOf(img formats.Image) ([]mapping, error) {
	var list []mapping
	for e, err := range img.Extents(context.Background()) {
		if err != nil {
			return nil, err
		}
		list = append(list, mapping{e.Offset, e.Length, e.Depth, !e.Absent, e.Zero, !e.Zero, e.HostOffset})
	}
	return list, nil
}

// compareRuns compares both lists byte by byte of the disk, however they are cut into runs.
func compareRuns(ours, qemus []mapping) error {
	for len(ours) > 0 && len(qemus) > 0 {
		a, b := &ours[0], &qemus[0]
		if a.Start != b.Start {
			return fmt.Errorf("our run starts at %d, qemu-img's at %d", a.Start, b.Start)
		}
		if why := differ(*a, *b); why != "" {
			return fmt.Errorf("%s: %+v, qemu-img says %+v", why, *a, *b)
		}
		n := min(a.Length, b.Length)
		for _, list := range []*[]mapping{&ours, &qemus} {
			m := &(*list)[0]
			m.Start, m.Length = m.Start+n, m.Length-n
			if m.Offset >= 0 {
				m.Offset += n
			}
			if m.Length == 0 {
				*list = (*list)[1:]
			}
		}
	}
	if len(ours)+len(qemus) > 0 {
		return fmt.Errorf("runs left over: %+v, qemu-img's %+v", ours, qemus)
	}
	return nil
}

// differ says in what two runs differ. Zero runs have no offset here: what was set aside for them
// says nothing about the disk.
func differ(a, b mapping) string {
	switch {
	case a.Zero != b.Zero:
		return "zero"
	case a.Data != b.Data:
		return "data"
	case a.Present != b.Present:
		return "present"
	case a.Depth != b.Depth && (a.Present || b.Present):
		return "depth"
	case a.Offset != b.Offset && !a.Zero && b.Offset >= 0: // it knows no offsets in a VHDX
		return "offset"
	}
	return ""
}
