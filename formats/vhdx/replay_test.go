package vhdx_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/vhdx"
)

// TestReplay: a log is replayed in memory, and what is not part of its newest whole sequence is not.
func TestReplay(t *testing.T) {
	want := make([]byte, tiny().size)
	tiny().expected().ReadAt(want, 0)
	wrong := change{off: batAt, data: formatstest.Noise(4, 4096)}
	zeros := func(off, n int64) change { return change{off: off, n: n} }
	for _, c := range []struct {
		name    string
		write   func(p, good image)
		entries int64 // replayed
	}{
		{"one entry", func(p, good image) { logOf(found(good)).write(p) }, 1},
		{"three entries", func(p, good image) {
			f := found(good)
			logOf(f[:1], f[1:2], f[2:]).write(p)
		}, 3},
		{"around the end", func(p, good image) {
			f := found(good)
			l := logOf(f[:1], f[1:2], f[2:])
			l.start = mib - 3*4096 // in the middle of the second
			l.write(p)
		}, 3},
		{"no descriptors", func(p, good image) { logOf(found(good), nil, nil).write(p) }, 3},
		{"later entries count", func(p, good image) { logOf([]change{wrong}, found(good)).write(p) }, 2},
		{"later descriptors count", func(p, good image) { logOf(append([]change{wrong}, found(good)...)).write(p) }, 1},
		{"over zeros", func(p, good image) {
			logOf([]change{zeros(batAt-4096, 16<<10), zeros(batAt, 8192)}, found(good)).write(p)
		}, 2},
		{"zeros over data", func(p, good image) {
			copy(p[batAt+4096:], formatstest.Noise(5, 8192)) // beyond the table that is needed
			logOf(append(found(good), page(p, batAt+4096), page(p, batAt+8192)), []change{zeros(batAt+4096, mib-4096)}).write(p)
		}, 2},
		{"130 descriptors", func(p, good image) {
			var many []change
			for i := range int64(130) {
				many = append(many, zeros(blocksAt-4096*(i+1), 4096))
			}
			logOf(many, found(good)).write(p)
		}, 2},
		{"tail later", func(p, good image) { // what comes before the tail is in its place already
			l := logOf([]change{wrong}, found(good))
			l.tail = 2 * 4096
			copy(p[batAt:], good[batAt:][:4096])
			logOf([]change{wrong}, found(good)[1:]).write(p)
			l.entries[1] = l.entries[1][1:]
			l.write(p)
		}, 1},
		{"torn last entry", func(p, good image) {
			at := logOf(found(good), []change{wrong}).write(p)
			p[at[2]-100]++
		}, 1},
		{"last entry's data sector from before", func(p, good image) {
			at := logOf(found(good), []change{wrong}).write(p)
			p.u32(at[2]-4, 7)
		}, 1},
		{"last entry not finished", func(p, good image) {
			at := logOf(found(good), []change{wrong}).write(p)
			clear(p[at[1]:][:4096])
		}, 1},
		{"number skipped", func(p, good image) {
			l := logOf([]change{wrong})
			at := logOf(found(good)).write(p)
			l.start, l.first, l.tail = at[1]-logAt, l.first+2, 0
			l.write(p)
		}, 1},
		{"another log's entries", func(p, good image) {
			l := logOf([]change{wrong})
			l.guid, l.start, l.first = "another log's id", 512<<10, 1<<40
			l.write(p)
			logOf(found(good)).write(p)
		}, 1},
		{"an older sequence", func(p, good image) {
			l := logOf([]change{wrong}, []change{wrong})
			l.start, l.first = 512<<10, 5
			l.write(p)
			logOf(found(good)).write(p)
		}, 1},
		{"an older sequence in front", func(p, good image) {
			l := logOf([]change{wrong}, []change{wrong})
			l.first = 5
			l.write(p)
			l = logOf(found(good))
			l.start = 512 << 10
			l.write(p)
		}, 1},
		{"the newer sequence's tail is lost", func(p, good image) {
			l := logOf([]change{wrong})
			l.start, l.first, l.tail = 512<<10, 1<<40, 516<<10
			l.write(p)
			logOf(found(good)).write(p)
		}, 1},
		{"largest number", func(p, good image) {
			l := logOf(found(good))
			l.first = math.MaxUint64
			l.write(p)
		}, 1},
	} {
		p, good := lost()
		c.write(p, good)
		p.dirty()
		before := bytes.Clone(p)
		img, err := vhdx.Format().Open(context.Background(), formatstest.NewSource(p), nil)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := make([]byte, len(want))
		if _, err := img.ReadAt(got, 0); err != nil && err != io.EOF || !bytes.Equal(got, want) {
			t.Errorf("%s: %v, or other content", c.name, err)
		}
		img.Close()
		if list, sums, err := findings(formatstest.NewSource(p)); len(list) > 0 || err != nil || sums.Allocated != 3 {
			t.Errorf("%s: check: %v, %+v, %v", c.name, list, sums, err)
		}
		in, err := vhdx.Format().Info(context.Background(), formatstest.NewSource(p))
		if err != nil || in.Problem != nil || !in.Dirty || in.Specific[1] != (formats.Property{Name: "log entries replayed", Value: c.entries}) {
			t.Errorf("%s: %+v, %v", c.name, in, err)
		}
		if !bytes.Equal(p, before) {
			t.Errorf("%s: the file was changed", c.name)
		}
	}
}

// TestReplayedSuite: the whole suite, with an update in the midst of a block, and zeros over the end of another.
func TestReplayedSuite(t *testing.T) {
	p, good := lost()
	patch := formatstest.Noise(8, 4096)
	logOf(found(good), []change{{off: blocksAt + 8192, data: patch}, {off: blocksAt + mib - 4096, n: 8192}}).write(p)
	want := make([]byte, tiny().size)
	tiny().expected().ReadAt(want, 0)
	copy(want[tinyFirst*mib+8192:], patch)
	clear(want[tinyFirst*mib+mib-4096:][:4096])
	clear(want[1*mib:][:4096])
	formatstest.Run(t, vhdx.Format(), []formatstest.Case{{Name: "suite", Image: p.dirty(), Size: tiny().size, Content: bytes.NewReader(want)}})

	img, err := vhdx.Format().Open(context.Background(), formatstest.NewSource(p), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	// Where the file holds other bytes than the disk, no offset is told.
	unplaced := 0
	for _, e := range formatstest.Extents(t, img) {
		if !e.Zero && e.HostOffset < 0 {
			unplaced += int(e.Length)
		}
	}
	if unplaced != 3*4096 {
		t.Errorf("%d bytes without an offset", unplaced)
	}
}

// TestReplayExtends: blocks that the host lost with the file's end read as zeros.
func TestReplayExtends(t *testing.T) {
	p, good := lost()
	l := logOf(found(good))
	l.flushed = blocksAt + mib // the other two blocks are behind that
	l.write(p)
	p = p.dirty()[:blocksAt+mib]
	want := make([]byte, tiny().size)
	tiny().expected().ReadAt(want[tinyFirst*mib:][:mib], tinyFirst*mib)
	formatstest.Run(t, vhdx.Format(), []formatstest.Case{{Name: "suite", Image: p, Size: tiny().size, Content: bytes.NewReader(want)}})
}

// TestHostileLog: logs that lie are refused, by place.
func TestHostileLog(t *testing.T) {
	// with writes a log of one entry, and lets alter change it; its checksum is right.
	with := func(alter func(p, e image), changes ...change) image {
		p, good := lost()
		if changes == nil {
			changes = found(good)
		}
		at := logOf(changes).write(p)
		e := p[at[0]:at[1]]
		alter(p, e)
		e.sum(0, len(e))
		return p.dirty()
	}
	zeros := func(off, n int64) image { return with(func(p, e image) {}, change{off: off, n: n}) }
	nothing := func(alter func(p, e image)) image { return with(alter) }
	const none = "no complete sequence"
	for _, c := range []struct {
		name   string
		image  image
		class  error
		text   string
		offset int64
	}{
		{"empty", tiny().whole().dirty(), formats.ErrCorrupt, none, logAt},
		{"no log", tiny().whole().u32(header1+68, 0).u32(header2+68, 0).dirty(), formats.ErrCorrupt, "are not in the file", header2 + 72},
		{"past the end", tiny().whole().u64(header1+72, 64*mib).u64(header2+72, 64*mib).dirty(), formats.ErrCorrupt, "are not in the file", header2 + 72},
		{"log version", tiny().whole().u16(header1+64, 1).u16(header2+64, 1).dirty(), formats.ErrUnsupported, "version 1 of the log", header2 + 64},
		{"17 MiB", append(tiny().whole(), make(image, 32*mib)...).u64(header1+72, 16*mib).u64(header2+72, 16*mib).u32(header1+68, 17*mib).u32(header2+68, 17*mib).dirty(),
			formats.ErrUnsupported, "has 17825792 bytes", header2 + 68},
		{"header 2^64", tiny().whole().u64(header1+72, math.MaxUint64&^(mib-1)).u64(header2+72, math.MaxUint64&^(mib-1)).dirty(), formats.ErrCorrupt, "the log", header2 + 72},

		{"signature", nothing(func(p, e image) { e.u8(0, 'L') }), formats.ErrCorrupt, none, logAt},
		{"length 0", nothing(func(p, e image) { e.u32(8, 0) }), formats.ErrCorrupt, none, logAt},
		{"length unaligned", nothing(func(p, e image) { e.u32(8, uint32(len(e))-1) }), formats.ErrCorrupt, none, logAt},
		{"length of 4 GiB", nothing(func(p, e image) { e.u32(8, math.MaxUint32&^4095) }), formats.ErrCorrupt, none, logAt},
		{"length over the log", nothing(func(p, e image) { e.u32(8, mib+4096) }), formats.ErrCorrupt, none, logAt},
		{"tail unaligned", nothing(func(p, e image) { e.u32(12, 512) }), formats.ErrCorrupt, none, logAt},
		{"tail behind", nothing(func(p, e image) { e.u32(12, 4096) }), formats.ErrCorrupt, none, logAt},
		{"tail of 4 GiB", nothing(func(p, e image) { e.u32(12, math.MaxUint32&^4095) }), formats.ErrCorrupt, none, logAt},
		{"number 0", nothing(func(p, e image) { e.u64(16, 0) }), formats.ErrCorrupt, none, logAt},
		{"2^32-1 descriptors", nothing(func(p, e image) { e.u32(24, math.MaxUint32) }), formats.ErrCorrupt, none, logAt},
		{"a descriptor more", nothing(func(p, e image) { e.u32(24, 4) }), formats.ErrCorrupt, none, logAt},
		{"a data sector less", nothing(func(p, e image) { e.str(64+32*2, "zero").str(64+32, "desc").u32(24, 3).str(4096, "DATA") }), formats.ErrCorrupt, none, logAt},
		{"a descriptor's number", nothing(func(p, e image) { e.u64(64+24, 1) }), formats.ErrCorrupt, none, logAt},
		{"descriptor of another kind", nothing(func(p, e image) { e.str(64, "Desc") }), formats.ErrCorrupt, none, logAt},
		{"guid", nothing(func(p, e image) { e.u8(32, 0) }), formats.ErrCorrupt, none, logAt},

		{"file cut", func() image { p, good := lost(); logOf(found(good)).write(p); return p.dirty()[:tinyEnd-mib] }(), formats.ErrCorrupt, "it was cut", logAt + 48},
		{"extends to 2^64", nothing(func(p, e image) { e.u64(56, math.MaxUint64) }), formats.ErrCorrupt, "extends the file to 18446744073709551615", logAt + 56},
		{"data unaligned", nothing(func(p, e image) { e.u64(64+16, batAt+512) }), formats.ErrCorrupt, "not whole sectors", logAt + 64},
		{"data at 2^64", nothing(func(p, e image) { e.u64(64+16, math.MaxUint64&^4095) }), formats.ErrCorrupt, "at 18446744073709547520", logAt + 64},
		{"data over the headers", nothing(func(p, e image) { e.u64(64+32+16, header2) }), formats.ErrCorrupt, "over the headers or itself", logAt + 96},
		{"data over the log", nothing(func(p, e image) { e.u64(64+16, logAt+mib-4096) }), formats.ErrCorrupt, "over the headers or itself", logAt + 64},
		{"zeros unaligned", zeros(batAt, 512), formats.ErrCorrupt, "not whole sectors", logAt + 64},
		{"zeros of an exabyte", zeros(batAt, 1<<60), formats.ErrCorrupt, "writes 1152921504606846976 bytes", logAt + 64},
		{"zeros around 2^64", zeros(batAt, -4096), formats.ErrCorrupt, "writes 18446744073709547520 bytes", logAt + 64},
		{"zeros over the log", zeros(256<<10, mib), formats.ErrCorrupt, "over the headers or itself", logAt + 64},
		{"zeros over the metadata", zeros(metadataAt, mib), formats.ErrCorrupt, "metadata table's signature", metadataAt},
		{"zeros over the region tables", zeros(regions1, 512<<10), formats.ErrCorrupt, "neither region table", regions1},
	} {
		t.Run(c.name, func(t *testing.T) {
			in, err := vhdx.Format().Info(context.Background(), formatstest.NewSource(c.image))
			if err != nil || !in.Dirty {
				t.Fatalf("info: %+v, %v", in, err)
			}
			for _, text := range []string{c.text, fmt.Sprintf("(at file offset %d)", c.offset)} {
				formatstest.CheckRefused(t, vhdx.Format(), formatstest.NewSource(c.image), nil, c.class, text, false)
			}
		})
	}
}

// TestManyDescriptors: a log of 16 MiB full of zero descriptors that all lie over each other.
func TestManyDescriptors(t *testing.T) {
	const logBytes = 16 * mib
	p := append(tiny().whole(), make(image, 2*logBytes)...)
	// The log moves behind the blocks.
	log := make(image, logAt+logBytes)
	var all []change
	for i := range int64(500_000) {
		all = append(all, change{off: 64*mib + i*4096, n: (1_000_000 - 2*i) * 4096})
	}
	l := logSpec{guid: logGUID, first: 1, flushed: tinyEnd, last: tinyEnd, entries: [][]change{all}, size: logBytes}
	l.write(log)
	copy(p[16*mib:], log[logAt:])
	for _, at := range []int{header1, header2} {
		p.u64(at+72, 16*mib).u32(at+68, logBytes)
	}
	p.dirty()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := use(formatstest.NewSource(p)); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 320<<20 {
		t.Errorf("%d bytes allocated", n)
	}
}

// TestQEMULog: a file that QEMU could write to the log of, but not to the table, reads as after QEMU's own
// repair. So it does when the table is lost besides.
func TestQEMULog(t *testing.T) {
	formatstest.NeedTool(t, "qemu-img")
	formatstest.NeedTool(t, "qemu-io")
	path := filepath.Join(t.TempDir(), "disk.vhdx")
	qemu.Make(t, path, formatstest.Recipe{Size: 64 << 20, Options: "subformat=dynamic,block_size=1M", Pieces: []formatstest.Piece{{Offset: 5 << 20, Data: formatstest.Noise(1, 2<<20)}}})
	const table = 2 * mib // where QEMU puts it
	broken := fmt.Sprintf("driver=vhdx,file.driver=blkdebug,file.image.driver=file,file.image.filename=%s,"+
		"file.inject-error.0.event=none,file.inject-error.0.iotype=write,file.inject-error.0.sector=%d", path, table/512)
	if out, err := exec.Command("qemu-io", "--image-opts", broken, "-c", "write -P 7 20M 3M").CombinedOutput(); err == nil || !strings.Contains(string(out), "write failed") {
		t.Fatalf("the write was to fail: %v\n%s", err, out)
	}
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(p)
	copy(damaged[table:], formatstest.Noise(3, 4096))
	for name, p := range map[string][]byte{"as it is": p, "table lost": damaged} {
		path := filepath.Join(t.TempDir(), "copy.vhdx")
		if err := os.WriteFile(path, p, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("qemu-img", "convert", "-f", "vhdx", "-O", "raw", path, path+".raw").CombinedOutput(); err == nil {
			t.Errorf("%s: qemu-img reads it: the test has lost its point\n%s", name, out)
		}
		if in := qemu.Info(t, path); !in.Dirty || in.Problem != nil {
			t.Errorf("%s: %+v", name, in)
		}
		if list, _, err := findings(formatstest.NewSource(p)); err != nil || len(list) > 0 {
			t.Errorf("%s: check: %v, %v", name, list, err)
		}
		whole := readDisk(t, p)
		formatstest.Tool(t, "qemu-img", "check", "-q", "-r", "all", path)
		want, err := os.ReadFile(qemu.Content(t, path))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(whole, want) {
			t.Errorf("%s: other content than after the repair", name)
		}
	}
}

// readDisk reads all of the disk.
func readDisk(t *testing.T, p []byte) []byte {
	t.Helper()
	img, err := vhdx.Format().Open(context.Background(), formatstest.NewSource(p), nil)
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

// TestReplayRandom compares with doing what the log says to the file, one after the other.
func TestReplayRandom(t *testing.T) {
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 3))
		p := tiny().whole()
		done := bytes.Clone(p)
		var entries [][]change
		for range 1 + r.IntN(6) {
			var changes []change
			for range r.IntN(12) {
				c := change{off: blocksAt + r.Int64N(3*mib/4096)*4096}
				if r.IntN(2) == 0 {
					c.data = formatstest.Noise(r.Uint64(), 4096)
					copy(done[c.off:], c.data)
				} else {
					c.n = min(r.Int64N(100)*4096, tinyEnd-c.off)
					clear(done[c.off:][:c.n])
				}
				changes = append(changes, c)
			}
			entries = append(entries, changes)
		}
		l := logOf(entries...)
		l.start = r.IntN(mib/4096) * 4096
		l.write(p)
		if !bytes.Equal(readDisk(t, p.dirty()), readDisk(t, done)) {
			t.Errorf("seed %d: other content", seed)
		}
	}
}
