//go:build conformance

package conformance

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// made is an image that a case has made.
type made struct {
	path, format string
	// options open it in qemu-img where path and format do not suffice.
	options string
	// backingFormat is that of the disks below, where the image does not say it.
	backingFormat string
	// snapshot is the internal snapshot to read.
	snapshot string
	// files are those whose bytes the disk lies in.
	files []string
}

// maker makes images in dir. Equal seeds make equal images.
type maker struct {
	t   *testing.T
	dir string
	r   *rand.Rand
}

// testCase makes one image.
type testCase struct {
	name, format string
	make         func(m maker) made
	// broken says that readers with a fault are tried on it too.
	broken bool
}

// convertible is what qemu-img convert can make.
var convertible = []struct {
	format string
	flags  []string // each a set of arguments
	unit   int64    // sizes are multiples of it
}{
	{"raw", []string{""}, 1},
	{"qcow2", []string{
		"", "-o cluster_size=512", "-o cluster_size=4k", "-o cluster_size=2M", "-o compat=0.10", "-o compat=0.10,cluster_size=1k -c",
		"-c", "-c -o cluster_size=512", "-c -o cluster_size=2M", "-c -o compression_type=zstd", "-c -o compression_type=zstd,cluster_size=4k",
		"-c -o compression_type=zstd,cluster_size=2M", "-o extended_l2=on", "-o extended_l2=on,cluster_size=16k", "-o extended_l2=on,cluster_size=2M",
		"-c -o extended_l2=on,cluster_size=32k", "-o refcount_bits=1", "-o refcount_bits=2,cluster_size=8k", "-o refcount_bits=8", "-o refcount_bits=64",
		"-o lazy_refcounts=on", "-o preallocation=metadata", "-o preallocation=falloc", "-o preallocation=full", "-S 0", "-o preallocation=metadata,extended_l2=on",
	}, 512},
	{"qcow", []string{"", "-S 0"}, 512}, // qemu-img 7.2 fails to compress qcow
	{"qed", []string{"", "-o cluster_size=4k", "-o table_size=2", "-o cluster_size=1M", "-o cluster_size=16k,table_size=16", "-S 0"}, 512},
	{"vdi", []string{"", "-o static=on", "-S 0"}, 512},
	{"vpc", []string{"", "-o subformat=fixed", "-o force_size=on", "-o subformat=fixed,force_size=on", "-S 0"}, 512},
	{"vhdx", []string{
		"", "-o subformat=fixed", "-o block_size=1M", "-o block_size=2M,block_state_zero=off", "-o block_size=256M", "-o log_size=2M", "-S 0",
	}, 512},
	{"vmdk", []string{
		"", "-o subformat=streamOptimized", "-o subformat=monolithicFlat", "-o subformat=twoGbMaxExtentSparse", "-o subformat=twoGbMaxExtentFlat",
		"-o zeroed_grain=on", "-o compat6=on", "-o subformat=streamOptimized -S 0", "-o hwversion=6",
	}, 512},
}

// writable is what qemu-io can write to after it was created.
var writable = []struct {
	format string
	flags  []string
}{
	{"qcow2", []string{"", "-o cluster_size=512", "-o cluster_size=4k,compat=0.10", "-o cluster_size=2M", "-o extended_l2=on", "-o extended_l2=on,cluster_size=16k", "-o compression_type=zstd", "-o preallocation=metadata", "-o lazy_refcounts=on"}},
	{"qcow", []string{""}},
	{"qed", []string{"", "-o cluster_size=4k", "-o table_size=16,cluster_size=8k"}},
	{"vdi", []string{""}},
	{"vpc", []string{"-o force_size=on"}},
	{"vhdx", []string{"", "-o block_size=1M"}},
	{"vmdk", []string{"", "-o zeroed_grain=on", "-o subformat=twoGbMaxExtentSparse"}},
}

// Patterns of content.
var patterns = []string{"sparse", "dense", "edges", "tail", "zeros", "empty"}

// sizes are multiples of 512; those above 1 GiB hold little.
var sizes = []int64{3 << 20, 10<<20 - 512, 1 << 20, 65<<20 + 512, 512, 130 << 10, 5<<30 + 1<<20, 33 << 20}

// cases are at least 15 for each format that qemu-img writes, and 300 in all.
func cases() []testCase {
	var list []testCase
	const perFormat = 26
	for _, c := range convertible {
		for i := range max(perFormat, 2*len(c.flags)) {
			flags, size, pattern := c.flags[i%len(c.flags)], sizes[(i*3+i/len(sizes))%len(sizes)], patterns[(i+i/len(patterns))%len(patterns)]
			if strings.Contains(flags, "preallocation=f") || strings.Contains(flags, "fixed") || strings.Contains(flags, "-S 0") || strings.Contains(flags, "Flat") || strings.Contains(flags, "static") {
				size = min(size, 65<<20+512) // what is not sparse fills the disk under the test
			}
			if c.format == "raw" {
				size += int64(i % 3 * 100)
			}
			list = append(list, testCase{
				name: fmt.Sprintf("convert %d %s %s %d %s", i, c.format, flags, size, pattern), format: c.format,
				make:   func(m maker) made { return m.converted(c.format, flags, m.content("src.raw", size, pattern)) },
				broken: i < len(c.flags) && (pattern == "sparse" || pattern == "dense"),
			})
		}
	}
	for _, c := range writable {
		for i := range max(10, 2*len(c.flags)) {
			flags := c.flags[i%len(c.flags)]
			list = append(list, testCase{
				name: fmt.Sprintf("write %d %s %s", i, c.format, flags), format: c.format,
				make: func(m maker) made { return m.written(c.format, flags, "", sizes[(i*5)%4]&^4095) },
			})
		}
	}
	for i := range 24 {
		top := []string{"qcow2", "qcow2", "qed", "qcow"}[i%4]
		base := []string{"raw", "qcow2", "vmdk", "vpc", "vdi", "qed", "vhdx", "qcow"}[i%8]
		list = append(list, testCase{
			name: fmt.Sprintf("chain %d %s on %s", i, top, base), format: top,
			make: func(m maker) made { return m.chain(top, base, 1+i%3) },
		})
	}
	for i := range 12 {
		flags := []string{"", "-o zeroed_grain=on", "-o subformat=twoGbMaxExtentSparse"}[i%3]
		list = append(list, testCase{
			name: fmt.Sprintf("chain %d vmdk on vmdk %s", i, flags), format: "vmdk",
			make: func(m maker) made { return m.deltas(flags, 1+i%4) },
		})
	}
	for i := range 10 {
		list = append(list, testCase{
			name: fmt.Sprintf("snapshot %d", i), format: "qcow2",
			make: func(m maker) made {
				return m.snapshots([]string{"", "-o extended_l2=on", "-o compat=0.10", "-o cluster_size=4k"}[i%4], i%3)
			},
		})
	}
	for i, flags := range []string{"data_file=x.data", "data_file=x.data,data_file_raw=on", "data_file=x.data,extended_l2=on", "data_file=x.data,cluster_size=4k"} {
		list = append(list, testCase{
			name: fmt.Sprintf("data file %d", i), format: "qcow2",
			make: func(m maker) made {
				k := m.written("qcow2", "-o "+flags, "", 5<<20)
				k.files = append(k.files, "x.data")
				return k
			},
		})
	}
	return list
}

// content writes a raw disk.
func (m maker) content(name string, size int64, pattern string) string {
	f, err := os.Create(filepath.Join(m.dir, name))
	if err != nil {
		m.t.Fatal(err)
	}
	defer f.Close()
	put := func(off int64, p []byte) {
		if off = max(off, 0); off < size {
			if _, err := f.WriteAt(p[:min(int64(len(p)), size-off)], off); err != nil {
				m.t.Fatal(err)
			}
		}
	}
	if err := f.Truncate(size); err != nil {
		m.t.Fatal(err)
	}
	switch pattern {
	case "sparse":
		for range 12 {
			put(m.r.Int64N(size)&^511, m.bytes(1+m.r.IntN(300_000)))
		}
	case "dense":
		for off := int64(0); off < min(size, 12<<20); off += 1 << 20 {
			put(off, m.bytes(1<<20))
		}
	case "edges":
		for _, unit := range []int64{512, 4096, 64 << 10, 1 << 20, 2 << 20, 32 << 20} {
			for _, k := range []int64{1, 2, 5} {
				put(k*unit-512, m.bytes(1024))
			}
		}
	case "tail":
		put(0, m.bytes(512))
		put(size-1-m.r.Int64N(5000), m.bytes(6000))
	case "zeros":
		for off := int64(0); off < min(size, 8<<20); off += 192 << 10 {
			put(off, m.bytes(100<<10))
			put(off+100<<10, make([]byte, 92<<10))
		}
	}
	return name
}

// bytes are random, text, or one byte again and again.
func (m maker) bytes(n int) []byte {
	switch m.r.IntN(3) {
	case 0:
		return bytes.Repeat([]byte{byte(1 + m.r.IntN(255))}, n)
	case 1:
		return bytes.Repeat(fmt.Appendf(nil, "line %d of some text that compresses\n", m.r.Int()), n/40+1)[:n]
	}
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(m.r.Uint32())
	}
	return p
}

// image is what qemu-img has made as name.
func (m maker) image(name, format string) made {
	k := made{path: name, format: format, files: []string{name}}
	more, err := filepath.Glob(filepath.Join(m.dir, strings.TrimSuffix(name, ".vmdk")+"-[fs][0-9]*.vmdk"))
	if err != nil {
		m.t.Fatal(err)
	}
	if flat := filepath.Join(m.dir, strings.TrimSuffix(name, ".vmdk")+"-flat.vmdk"); exists(flat) {
		more = append(more, flat)
	}
	for _, path := range more {
		k.files = append(k.files, filepath.Base(path))
	}
	return k
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func (m maker) converted(format, flags, src string) made {
	name := "image." + format
	args := append([]string{"convert", "-f", "raw", "-O", format}, strings.Fields(flags)...)
	qemuImg(m.t, m.dir, append(args, src, name)...)
	return m.image(name, format)
}

// written creates an image and writes to it here and there.
func (m maker) written(format, flags, backing string, size int64) made {
	name := fmt.Sprintf("image%d.%s", m.r.IntN(1<<30), format)
	args := append([]string{"create", "-q", "-f", format}, strings.Fields(flags)...)
	args = append(args, strings.Fields(backing)...)
	qemuImg(m.t, m.dir, append(args, name, fmt.Sprint(size))...)
	m.write(name, format, size)
	return m.image(name, format)
}

// write lets qemu-io write, zero and discard at random.
func (m maker) write(name, format string, size int64) {
	args := []string{"-f", format}
	for range 12 {
		off := m.r.Int64N(size) &^ 511
		n := (1 + m.r.Int64N(min(size-off, 400_000))) &^ 511
		if n == 0 {
			continue
		}
		verb := []string{"write -P %d %d %d", "write -P %d %d %d", "write -P %d %d %d", "write -z %[2]d %[3]d", "discard %[2]d %[3]d", "write -z -u %[2]d %[3]d"}[m.r.IntN(6)]
		args = append(args, "-c", strings.Split(fmt.Sprintf(verb, 1+m.r.IntN(255), off, n), "%!")[0])
	}
	run(m.t, m.dir, "qemu-io", append(args, name)...)
}

// chain is a disk on depth disks, the lowest of them of the format base. Sizes differ.
func (m maker) chain(top, base string, depth int) made {
	silent := top == "qcow" || top == "qed" // they do not name their backing file's format
	if silent && depth > 1 {
		base = top
	}
	size := int64(4<<20 + m.r.Int64N(4<<20)&^4095)
	below := m.converted(base, "", m.content("src.raw", size, "dense"))
	k := below
	for i := range depth {
		size := size + []int64{0, 2 << 20, -(2 << 20)}[(i+m.r.IntN(3))%3]
		k = m.written(top, "", fmt.Sprintf("-b %s -F %s", below.path, below.format), size&^4095)
		k.files = append(k.files, below.files...)
		below = k
	}
	if silent {
		k.backingFormat = base
	}
	return k
}

// deltas is a VMDK on depth others, all of one size: VMware wants that.
func (m maker) deltas(flags string, depth int) made {
	size := int64(4<<20 + m.r.Int64N(4<<20)&^511)
	k := m.converted("vmdk", flags, m.content("src.raw", size, "sparse"))
	for range depth {
		below := k
		k = m.written("vmdk", flags, fmt.Sprintf("-b %s -F vmdk", below.path), size)
		k.files = append(k.files, below.files...)
	}
	return k
}

// snapshots has two snapshots and what came after; which says which of the three is read.
func (m maker) snapshots(flags string, which int) made {
	const size = 6 << 20
	k := m.written("qcow2", flags, "", size)
	qemuImg(m.t, m.dir, "snapshot", "-c", "first", k.path)
	m.write(k.path, "qcow2", size)
	qemuImg(m.t, m.dir, "snapshot", "-c", "second", k.path)
	m.write(k.path, "qcow2", size)
	k.snapshot = []string{"first", "second", ""}[which]
	return k
}
