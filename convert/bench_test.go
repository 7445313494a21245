package convert_test

import (
	"io"
	"path/filepath"
	"testing"

	"imgferry/convert"
	"imgferry/formats"
	"imgferry/formats/formatstest"
)

// benchDisk is 64 MiB of text as an image in a file, of the target's name and options: with
// compression_type=zstd the hot path is the decoder's, with none the kernel's.
func benchDisk(b *testing.B, target string, options ...string) formats.Image {
	b.Helper()
	d := &disk{size: 64 << 20, pieces: map[int64][]byte{}}
	for off := int64(0); off < d.size; off += 8 << 20 {
		d.pieces[off] = formatstest.Text(uint64(off), 8<<20)
	}
	t, err := convert.TargetByName(target)
	if err != nil {
		b.Fatal(err)
	}
	s, err := t.Settings(options)
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), "disk")
	f, err := convert.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Discard()
	if _, err := t.Write(b.Context(), d, f, s, convert.Options{}); err != nil {
		b.Fatal(err)
	}
	if err := f.Commit(); err != nil {
		b.Fatal(err)
	}
	return reopened(b, path, target)
}

// eachRun runs f on the disk's bytes.
func eachRun(b *testing.B, img formats.Image, f func() error) {
	b.SetBytes(img.Size())
	b.ReportAllocs()
	for b.Loop() {
		if err := f(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRaw copies to a raw file.
func BenchmarkRaw(b *testing.B) {
	for _, codec := range []string{"none", "zlib", "zstd"} {
		b.Run(codec, func(b *testing.B) {
			img := benchDisk(b, "qcow2", "compression_type="+codec)
			path := filepath.Join(b.TempDir(), "raw")
			eachRun(b, img, func() error {
				f, err := convert.Create(path)
				if err != nil {
					return err
				}
				defer f.Discard()
				f.SkipSync()
				_, err = convert.Raw(b.Context(), img, f, convert.Options{})
				return err
			})
		})
	}
}

// nowhere keeps nothing, at any place.
type nowhere struct{ io.Writer }

func (nowhere) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

// BenchmarkStream encodes to formats that are made of blocks.
func BenchmarkStream(b *testing.B) {
	for _, c := range [][2]string{
		{"zvhd2", "level=fastest"}, {"zvhd2", "level=default"},
		{"qcow2", "compression_type=none"}, {"qcow2", "compression_type=zlib"}, {"qcow2", "compression_type=zstd"},
		{"vmdk", "subformat=streamOptimized"}, {"vpc", "subformat=dynamic"},
	} {
		b.Run(c[0]+" "+c[1], func(b *testing.B) {
			img := benchDisk(b, "qcow2")
			t, err := convert.TargetByName(c[0])
			if err != nil {
				b.Fatal(err)
			}
			s, err := t.Settings(c[1:])
			if err != nil {
				b.Fatal(err)
			}
			eachRun(b, img, func() error {
				_, err := t.Write(b.Context(), img, nowhere{io.Discard}, s, convert.Options{})
				return err
			})
		})
	}
}

// BenchmarkScan looks for zeros in a disk that has stored some, and data.
func BenchmarkScan(b *testing.B) {
	d := &disk{size: 64 << 20, pieces: map[int64][]byte{0: make([]byte, 32<<20), 32 << 20: formatstest.Text(1, 32<<20)}}
	eachRun(b, d, func() error {
		_, err := convert.Scan(b.Context(), d, convert.Options{})
		return err
	})
}

// BenchmarkCompare compares a plain image with others of the same disk.
func BenchmarkCompare(b *testing.B) {
	for _, codec := range []string{"none", "zlib", "zstd"} {
		b.Run("plain with "+codec, func(b *testing.B) {
			x, y := benchDisk(b, "qcow2"), benchDisk(b, "qcow2", "compression_type="+codec)
			eachRun(b, x, func() error {
				_, err := convert.Compare(b.Context(), x, y, convert.Options{})
				return err
			})
		})
	}
}
