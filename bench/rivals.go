//go:build unix

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"imgferry/formats"
	"imgferry/source"
)

// rival is a pair of commands that do the same.
type rival struct {
	name         string
	theirs, ours []string
	outA, outB   string // what they write; "" where there is no output
	// same fails if the outputs are not of the same disk; nil: they can't be compared.
	same func(a, b string) error
	// sizes adds how large the outputs are to the row.
	sizes bool
}

// rivals compares the program with qemu-img on the disk, in each format, and with zstd on its packed
// data. They run in turn; all files are in the page cache. Neither side waits for the disk at the end
// (qemu-img never does), but in the one row that says so. Only those whose names are wanted run.
func rivals(dir, packed, disk, program string, pairs int, wanted *regexp.Regexp) error {
	if _, err := exec.LookPath("qemu-img"); err != nil {
		fmt.Println("\nqemu-img is missing, so nothing is compared with it: apt-get install qemu-utils")
		return nil
	}
	inputs := map[string][]string{ // qemu-img's arguments that make each
		"plain.qcow2":   {"-O", "qcow2"},
		"zlib.qcow2":    {"-O", "qcow2", "-c"},
		"zstd.qcow2":    {"-O", "qcow2", "-c", "-o", "compression_type=zstd"},
		"disk.vhd":      {"-O", "vpc", "-o", "force_size=on"},
		"streamed.vmdk": {"-O", "vmdk", "-o", "subformat=streamOptimized"},
	}
	for name, args := range inputs {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			continue
		}
		args = append(append([]string{"convert", "-m", "2", "-W", "-f", "raw"}, args...), disk, path)
		if args[len(args)-3] == "subformat=streamOptimized" {
			args = slices.DeleteFunc(args, func(s string) bool { return s == "-W" })
		}
		if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("qemu-img %v: %v: %s", args, err, out)
		}
	}
	plain := filepath.Join(dir, "plain.qcow2")
	a, b := filepath.Join(dir, "a.raw"), filepath.Join(dir, "b.raw")
	toRaw := func(name, file, format string) rival {
		path := filepath.Join(dir, file)
		return rival{
			name:   name,
			theirs: []string{"qemu-img", "convert", "-m", "8", "-W", "-f", format, "-O", "raw", path, a},
			ours:   []string{program, "convert", path, b, "-O", "raw", "--force", "--no-sync"},
			outA:   a, outB: b, same: equal,
		}
	}
	toQcow2 := func(name, theirs, ours string) rival {
		return rival{
			name:   name,
			theirs: []string{"qemu-img", "convert", "-m", "8", "-W", "-c", "-f", "qcow2", "-O", "qcow2", "-o", "compression_type=" + theirs, plain, a + ".qcow2"},
			ours:   []string{program, "convert", plain, b + ".qcow2", "-O", "qcow2", "-o", "compression_type=" + ours, "--no-sync"},
			outA:   a + ".qcow2", outB: b + ".qcow2", same: compared, sizes: true,
		}
	}
	flushed := toRaw("plain qcow2 -> raw, flushed to disk", "plain.qcow2", "qcow2")
	flushed.theirs = slices.Insert(flushed.theirs, 2, "-t", "writeback")
	flushed.ours = slices.DeleteFunc(flushed.ours, func(s string) bool { return s == "--no-sync" })
	list := []rival{
		toRaw("plain qcow2 -> raw", "plain.qcow2", "qcow2"),
		flushed,
		toRaw("VHD -> raw", "disk.vhd", "vpc"),
		toRaw("zlib qcow2 -> raw", "zlib.qcow2", "qcow2"),
		toRaw("zstd qcow2 -> raw", "zstd.qcow2", "qcow2"),
		toRaw("streamOptimized VMDK -> raw", "streamed.vmdk", "vmdk"),
		{
			name:   "compare plain with zstd qcow2",
			theirs: []string{"qemu-img", "compare", plain, filepath.Join(dir, "zstd.qcow2")},
			ours:   []string{program, "compare", plain, filepath.Join(dir, "zstd.qcow2")},
		},
		toQcow2("plain qcow2 -> qcow2 zstd (A: zlib, its default)", "zlib", "zstd"),
		toQcow2("plain qcow2 -> qcow2 zstd", "zstd", "zstd"),
		toQcow2("plain qcow2 -> qcow2 zlib", "zlib", "zlib"),
	}
	// zstd compresses what we do, and knows nothing of disks: so its output is compared in size only.
	for _, level := range []string{"default", "fastest"} {
		for _, in := range []struct{ name, theirs, ours string }{
			{"plain qcow2 -> zvhd2", packed, plain}, {"sparse raw -> zvhd2", disk, disk},
		} {
			list = append(list, rival{
				name:   in.name + ", " + level,
				theirs: []string{"zstd", "-T2", "-3", "-q", "-f", in.theirs, "-o", a + ".zst"},
				ours:   []string{program, "convert", in.ours, b + ".zvhd2", "-O", "zvhd2", "--compress-level", level, "--no-sync"},
				outA:   a + ".zst", outB: b + ".zvhd2", sizes: true,
			})
		}
	}
	if list = slices.DeleteFunc(list, func(r rival) bool { return !wanted.MatchString(r.name) }); len(list) == 0 {
		return nil
	}
	fmt.Printf("\n%-36s %7s %7s %7s %8s %8s %9s %9s %s\n", "A (the rival) against B (imgferry)", "A s", "B s", "B/A", "A cpu s", "B cpu s", "A MiB", "B MiB", "discarded")
	for _, r := range list {
		if err := race(r, pairs); err != nil {
			return err
		}
	}
	for _, r := range list {
		fmt.Printf("%s\n  A: %s\n  B: %s\n", r.name, strings.Join(r.theirs, " "), strings.Join(r.ours, " "))
	}
	return nil
}

// race runs a pair of commands and prints a row.
func race(r rival, pairs int) error {
	var peakA, peakB int64
	side := func(args []string, peak *int64, out string) func() (sample, error) {
		return func() (sample, error) {
			if out != "" {
				os.Remove(out)
			}
			took, err := runChild(nil, args...)
			*peak = max(*peak, took.PeakMB)
			return sample{took.Wall, took.CPU}, err
		}
	}
	as, bs, lost, err := inTurn(pairs, side(r.theirs, &peakA, r.outA), side(r.ours, &peakB, r.outB))
	if err != nil {
		return err
	}
	sizes := ""
	if r.outA != "" {
		if r.same != nil {
			if err := r.same(r.outA, r.outB); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
		}
		if r.sizes {
			sizes = fmt.Sprintf(", size B/A %.3f", fileSize(r.outB)/fileSize(r.outA))
		}
		os.Remove(r.outA)
		os.Remove(r.outB)
	}
	ratios := make([]float64, len(as))
	for i := range as {
		ratios[i] = bs[i].wall.Seconds() / as[i].wall.Seconds()
	}
	fmt.Printf("%-36s %7.2f %7.2f %7.2f %8.2f %8.2f %9d %9d %d%s\n", r.name, median(walls(as)), median(walls(bs)), median(ratios),
		median(cpus(as)), median(cpus(bs)), peakA, peakB, lost, sizes)
	return nil
}

// compared has qemu-img compare the disks in two images.
func compared(a, b string) error {
	out, err := exec.Command("qemu-img", "compare", a, b).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// fileSize is a file's size in bytes, or 0.
func fileSize(path string) float64 {
	st, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return float64(st.Size())
}

// equal compares two sparse files: where both have holes there is nothing to read.
func equal(a, b string) error {
	fa, err := source.Open(a)
	if err != nil {
		return err
	}
	defer fa.Close()
	fb, err := source.Open(b)
	if err != nil {
		return err
	}
	defer fb.Close()
	if fa.Size() != fb.Size() {
		return fmt.Errorf("%s has %d bytes, %s %d", a, fa.Size(), b, fb.Size())
	}
	p, q := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); off < fa.Size(); off += int64(len(p)) {
		startA, _, err := fa.NextData(off)
		if err != nil {
			return err
		}
		startB, _, err := fb.NextData(off)
		if err != nil {
			return err
		}
		off = min(startA, startB)
		n := min(int64(len(p)), fa.Size()-off)
		if err := formats.ReadFull(fa, p[:n], off); err != nil {
			return err
		}
		if err := formats.ReadFull(fb, q[:n], off); err != nil {
			return err
		}
		if !bytes.Equal(p[:n], q[:n]) {
			return fmt.Errorf("%s and %s differ behind %d", a, b, off)
		}
	}
	return nil
}
