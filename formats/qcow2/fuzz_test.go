package qcow2_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/qcow2"
)

// FuzzOpen opens, walks and reads whatever it is given. Besides panics and hangs it looks for
// contradictions: between Info and Open, between Check and Open, between extents and content, and
// between two ways to read.
func FuzzOpen(f *testing.F) {
	// Small seeds only: the fuzzer spends its time on minimising large ones.
	f.Add([]byte(tiny(2)))
	f.Add([]byte(tiny(3).u64(tinyL2, 1).u64(tinyL2+8, 0)))
	f.Add([]byte(tiny(3).str(tinyData, deflated(512)).u64(tinyL2, 1<<62|tinyData)))
	f.Add([]byte(tiny(3).zstd().str(tinyData, "\x28\xb5\x2f\xfd\x60\x00\x01\x4c\x00\x00\x08aa\x01\x00\x47\x15").u64(tinyL2, 1<<62|tinyData)))
	f.Add([]byte(tiny(3).ext(tinyExt, 0x6803f857, string(make([]byte, 96))).u64(72, 1<<9)))
	f.Add([]byte(backed()))
	f.Add([]byte(withDataFile(2)))
	f.Add([]byte(snapshotted()))
	f.Add([]byte(counted16()))
	f.Add([]byte(subclustered()[:3*subCluster+600]))

	// The files that images may name. Which disks are in them is not this target's business.
	files := askedFor(map[string][]byte{"base": noise(3, 700), "data": noise(4, tinyCount*tinyCluster)})
	f.Fuzz(func(t *testing.T, p []byte) {
		ctx := context.Background()
		format := qcow2.Format()
		if _, err := format.Probe(formatstest.NewSource(p)); err != nil {
			t.Fatalf("probe: %v", err)
		}
		in, err := format.Info(ctx, formatstest.NewSource(p))
		if err != nil {
			t.Fatalf("info: %v", err)
		}
		good := checkStructure(t, p)
		if len(in.Snapshots) > 0 {
			if img, err := format.OpenSnapshot(ctx, formatstest.NewSource(p), files, in.Snapshots[0].ID); err != nil {
				checkClass(t, err)
			} else {
				walk(t, img, p, good)
				img.Close()
			}
		}
		img, err := format.Open(ctx, formatstest.NewSource(p), files)
		if err != nil {
			checkClass(t, err)
			return
		}
		defer img.Close()
		if in.Problem != nil || in.VirtualSize != img.Size() {
			t.Fatalf("info says %d bytes, problem %v; it opened with %d", in.VirtualSize, in.Problem, img.Size())
		}
		walk(t, img, p, good)
	})
}

// checkStructure runs the check, and reports whether it ended without finding damage.
func checkStructure(t *testing.T, p []byte) bool {
	damage := 0
	_, err := qcow2.Format().Check(context.Background(), formatstest.NewSource(p), func(f formats.Finding) {
		if !f.Leak {
			damage++
		}
		if f.What == "" || f.Count < 1 || f.Offset < -1 {
			t.Fatalf("%+v", f)
		}
	})
	if err != nil {
		checkClass(t, err)
	}
	return err == nil && damage == 0
}

// walk goes over the extents of img, which is in the file p, and reads some of all of them.
func walk(t *testing.T, img formats.Image, p []byte, good bool) {
	// A walk is bounded by the file, not by the virtual size; reading is bounded here.
	var pos int64
	budget := int64(4 << 20)
	for e, err := range img.Extents(context.Background()) {
		if err != nil {
			checkClass(t, err)
			if good && (len(p) < 80 || p[79]&4 == 0) { // the check doesn't look into external data files
				t.Fatalf("the check found nothing, but: %v", err)
			}
			return
		}
		if e.Offset != pos || e.Length <= 0 || e.Length > img.Size()-pos {
			t.Fatalf("run %+v, expected one at %d of %d", e, pos, img.Size())
		}
		pos += e.Length
		n := min(e.Length, budget, 1<<20)
		budget -= n
		if n > 0 {
			checkRun(t, img, p, e, n)
		}
	}
	if pos != img.Size() {
		t.Fatalf("runs cover %d of %d bytes", pos, img.Size())
	}
}

// counted16 is a tiny image whose refcounts are right.
func counted16() imageBytes {
	p := tiny(3).more(2).u64(48, tinySnap).u64(tinySnap, tinySnap+512)
	for i := range len(p) / 512 {
		p[tinySnap+512+2*i+1] = 1
	}
	return p
}

// checkRun reads the first n bytes of a run in one piece and in three.
func checkRun(t *testing.T, img formats.Image, file []byte, e formats.Extent, n int64) {
	whole := bytes.Repeat([]byte{0xdb}, int(n))
	k, err := img.ReadAt(whole, e.Offset)
	if err != nil && err != io.EOF {
		if !e.Compressed {
			t.Fatalf("%+v can't be read: %v", e, err)
		}
		checkClass(t, err)
		return
	}
	if int64(k) != n {
		t.Fatalf("%+v: %d of %d bytes", e, k, n)
	}
	if e.Zero && !bytes.Equal(whole, make([]byte, n)) {
		t.Fatalf("%+v is not zero", e)
	}
	if e.HostOffset >= 0 && e.File == "" && !bytes.Equal(whole, file[e.HostOffset:][:n]) {
		t.Fatalf("%+v does not lie there", e)
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

func checkClass(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, formats.ErrCorrupt) && !errors.Is(err, formats.ErrUnsupported) && !errors.Is(err, formats.ErrNotAllowed) && !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("an error without a class: %v", err)
	}
}
