package source_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"imgferry/source"
)

// packers are the programs that others pack with.
var packers = map[source.Packing][]string{
	source.Gzip: {"gzip", "-c"}, source.XZ: {"xz", "-c", "-T1", "-1"}, source.Zstd: {"zstd", "-q", "-c"}, source.Bzip2: {"bzip2", "-c"},
}

// pack packs p by an external program.
func pack(t testing.TB, p []byte, command ...string) []byte {
	t.Helper()
	path, err := exec.LookPath(command[0])
	if err != nil {
		if os.Getenv("CI") != "" || os.Getenv("IMGFERRY_REQUIRE_TOOLS") == "1" {
			t.Fatal(err)
		}
		t.Skipf("%v: apt-get install gzip xz-utils zstd bzip2", err)
	}
	cmd := exec.Command(path, command[1:]...)
	cmd.Stdin = bytes.NewReader(p)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v: %s", command, err, stderr.String())
	}
	return out
}

func unpack(t testing.TB, p []byte, l source.UnpackLimits) (*source.Stream, error) {
	t.Helper()
	f := open(t, write(t, p))
	packing, err := source.PackingOf(f)
	if err != nil || packing == "" {
		t.Fatalf("packed as %q, %v", packing, err)
	}
	s, err := source.Unpack(t.Context(), f, packing, l)
	if err == nil {
		t.Cleanup(func() { s.Close() })
	}
	return s, err
}

// disk is a file with data, long zeros and data again.
func disk(n int) []byte {
	p := make([]byte, n)
	copy(p, pattern(n/16))
	copy(p[n-n/8:], pattern(n/32))
	return p
}

// TestUnpack reads what the external programs packed: front to back, by its ends, and here and there.
func TestUnpack(t *testing.T) {
	want := disk(5<<19 + 77)
	for packing, command := range packers {
		t.Run(string(packing), func(t *testing.T) {
			s, err := unpack(t, pack(t, want, command...), source.UnpackLimits{Dir: t.TempDir()})
			if err != nil || s.Size() != int64(len(want)) {
				t.Fatalf("%v, %v", s, err)
			}
			got, err := io.ReadAll(io.NewSectionReader(s, 0, s.Size()))
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			p := make([]byte, 512)
			for _, off := range []int64{s.Size() - 512, 0, 100_000, s.Size() - 4096} {
				if _, err := s.ReadAt(p, off); err != nil || !bytes.Equal(p, want[off:off+512]) {
					t.Errorf("at %d: %v", off, err)
				}
			}
			if s.Spilled() {
				t.Error("it was unpacked to a file")
			}
			if n, err := s.ReadAt(p, s.Size()-1); n != 1 || err != io.EOF {
				t.Error(n, err)
			}
		})
	}
}

// TestUnpackHereAndThere: who goes back and forth gets a file.
func TestUnpackHereAndThere(t *testing.T) {
	want := disk(16 << 20)
	s, err := unpack(t, pack(t, want, "zstd", "-q", "-c"), source.UnpackLimits{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 512)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 30 {
		off := rng.Int64N(s.Size() - 512)
		if _, err := s.ReadAt(p, off); err != nil || !bytes.Equal(p, want[off:off+512]) {
			t.Fatalf("at %d: %v", off, err)
		}
	}
	if !s.Spilled() {
		t.Error("reading here and there did not end in a file")
	}
}

// TestUnpackMany: files of several streams, as pigz, pxz and others write them, and those of other
// settings.
func TestUnpackMany(t *testing.T) {
	a, b := disk(200_000), pattern(100_001)
	want := append(append([]byte(nil), a...), b...)
	cat := func(commands ...[]string) []byte {
		return append(pack(t, a, commands[0]...), pack(t, b, commands[len(commands)-1]...)...)
	}
	for name, p := range map[string][]byte{
		"gz":            cat(packers[source.Gzip]),
		"bz2":           cat(packers[source.Bzip2]),
		"zst":           cat(packers[source.Zstd]),
		"xz":            cat([]string{"xz", "-c", "--check=none"}, []string{"xz", "-c", "--check=sha256"}),
		"xz blocks":     pack(t, want, "xz", "-c", "-T2", "--block-size=65536", "--check=crc32"),
		"xz flush":      pack(t, want, "xz", "-c", "-T1", "--block-list=1000,70000,0", "-9"),
		"zst long":      pack(t, want, "zstd", "-q", "-c", "--long=27"),
		"zst unchecked": pack(t, want, "zstd", "-q", "-c", "--no-check"),
	} {
		s, err := unpack(t, p, source.UnpackLimits{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := io.ReadAll(io.NewSectionReader(s, 0, s.Size()))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes of %d, %v", name, len(got), len(want), err)
		}
	}
}

// TestUnpackCorrupt: cut short or damaged, a packed file is corrupt and nothing else; never are wrong
// bytes its end.
func TestUnpackCorrupt(t *testing.T) {
	want := disk(1 << 20)
	for packing, command := range packers {
		p := pack(t, want, command...)
		for name, q := range map[string][]byte{
			"cut": p[:len(p)/2], "cut at the end": p[:len(p)-3],
			"flipped": append(append([]byte(nil), p[:len(p)/2]...), append([]byte{^p[len(p)/2]}, p[len(p)/2+1:]...)...),
		} {
			s, err := unpack(t, q, source.UnpackLimits{})
			if err == nil {
				_, err = io.Copy(io.Discard, io.NewSectionReader(s, 0, s.Size()))
			}
			if !errors.Is(err, source.ErrCorrupt) {
				t.Errorf("%s, %s: %v", packing, name, err)
			}
		}
	}
	// Of an empty file nobody reads a byte.
	empty := pack(t, nil, packers[source.XZ]...)
	if s, err := unpack(t, empty, source.UnpackLimits{}); err != nil || s.Size() != 0 {
		t.Errorf("empty: %v", err)
	}
	for i := 6; i < len(empty); i++ { // behind its magic
		q := bytes.Clone(empty)
		q[i] ^= 1
		if _, err := unpack(t, q, source.UnpackLimits{}); !errors.Is(err, source.ErrCorrupt) {
			t.Errorf("empty, byte %d flipped: %v", i, err)
		}
	}
}

// TestUnpackLimits: bombs, large dictionaries, small disks.
func TestUnpackLimits(t *testing.T) {
	zeros := make([]byte, 2<<20)
	for packing, command := range packers {
		if _, err := unpack(t, pack(t, zeros, command...), source.UnpackLimits{Size: 1 << 20}); !errors.Is(err, source.ErrTooLarge) {
			t.Errorf("%s: %v", packing, err)
		}
		if s, err := unpack(t, pack(t, zeros, command...), source.UnpackLimits{Size: 2 << 20}); err != nil || s.Size() != 2<<20 {
			t.Errorf("%s, just allowed: %v", packing, err)
		}
	}
	// Zeros take no room in the file, data does.
	s, err := unpack(t, pack(t, zeros, "gzip", "-c"), source.UnpackLimits{Spill: 4096, Dir: t.TempDir()})
	if err != nil || s.Spill() != nil {
		t.Errorf("zeros: %v", err)
	}
	dir := t.TempDir()
	s, err = unpack(t, pack(t, disk(1<<20), "gzip", "-c"), source.UnpackLimits{Spill: 4096, Dir: dir})
	if err != nil || !errors.Is(s.Spill(), source.ErrTooLarge) {
		t.Errorf("data: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	// xz makes the dictionary no larger than it needs, unless it does not know the size; the header is
	// what counts.
	for _, p := range [][]byte{pack(t, zeros, "xz", "-c", "--lzma2=dict=192MiB"), pack(t, zeros, "zstd", "-q", "-c", "--ultra", "--long=31")} {
		s, err := unpack(t, p, source.UnpackLimits{})
		if err == nil {
			_, err = s.ReadAt(make([]byte, 1), 0)
		}
		if !errors.Is(err, source.ErrDictionary) {
			t.Errorf("dictionary: %v", err)
		}
	}
}

// TestSpill: the temporary file is announced, sparse, and nobody finds it.
func TestSpill(t *testing.T) {
	dir := t.TempDir()
	var said []string
	want := disk(4 << 20)
	s, err := unpack(t, pack(t, want, "zstd", "-q", "-c"), source.UnpackLimits{Dir: dir, Notice: func(text string) { said = append(said, text) }})
	if err != nil || s.Spill() != nil || s.Spill() != nil {
		t.Fatal(err)
	}
	if len(said) != 2 || !strings.Contains(said[1], dir) {
		t.Errorf("said: %q", said)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 && runtime.GOOS != "windows" {
		t.Errorf("it can be seen: %v", left)
	}
	got, err := io.ReadAll(io.NewSectionReader(s, 0, s.Size()))
	if err != nil || !bytes.Equal(got, want) {
		t.Error(err)
	}
	if start, _, err := s.NextData(2 << 20); err != nil || runtime.GOOS == "linux" && start < 7<<19 {
		t.Errorf("data at %d, %v", start, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.ReadAt(got[:1], 0); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestUnpackCancel: whoever waits for a large file can stop.
func TestUnpackCancel(t *testing.T) {
	f := open(t, write(t, pack(t, make([]byte, 64<<20), "gzip", "-1", "-c")))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := source.Unpack(ctx, f, source.Gzip, source.UnpackLimits{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestRemotePacked: a packed file at a server is fetched about once for each time it is gone through.
func TestRemotePacked(t *testing.T) {
	want := disk(8 << 20)
	st := &site{content: pack(t, want, "xz", "-c", "-0"), etag: `"x"`}
	r := mustOpen(t, serve(t, st).URL)
	s, err := source.Unpack(t.Context(), r, source.XZ, source.UnpackLimits{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(io.NewSectionReader(s, 0, s.Size()))
	if err != nil || !bytes.Equal(got, want) {
		t.Fatal(err)
	}
	if n := st.served.Load(); n > 2*int64(len(st.content))+100 {
		t.Errorf("%d bytes were served of a file of %d", n, len(st.content))
	}
}

// tarOf packs files with tar.
func tarOf(t testing.TB, args ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out.tar")
	if msg, err := exec.Command("tar", append([]string{"-cf", out}, args...)...).CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" || os.Getenv("IMGFERRY_REQUIRE_TOOLS") == "1" {
			t.Fatalf("%v: %s", err, msg)
		}
		t.Skipf("tar: %v: %s", err, msg)
	}
	return out
}

// TestMembers: archives of tar's formats; a member above 8 GiB, whose size takes another coding.
func TestMembers(t *testing.T) {
	dir := t.TempDir()
	large, small := filepath.Join(dir, "large"), filepath.Join(dir, "small")
	if err := os.WriteFile(small, []byte("after the large one"), 0o600); err != nil {
		t.Fatal(err)
	}
	const size = 9 << 30
	f, err := os.Create(large)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1000); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"ustar", "gnu", "pax"} {
		at := open(t, tarOf(t, "--format="+format, "-C", dir, "large", "small"))
		is, err := source.IsTar(at)
		list, err2 := source.Members(t.Context(), at)
		if !is || err != nil || err2 != nil || len(list) != 2 || list[0].Size != 1000 {
			t.Fatalf("%s: %v %v, %+v, %v", format, is, err, list, err2)
		}
		p := make([]byte, 5)
		s := source.NewSection(at, list[1])
		if n, err := s.ReadAt(p, 6); n != 5 || err != nil || string(p) != "the l" || !strings.HasSuffix(s.Path(), ":small") {
			t.Errorf("%s: %q of %s, %v", format, p, s.Path(), err)
		}
		if n, err := s.ReadAt(make([]byte, 100), 0); n != 19 || err != io.EOF {
			t.Errorf("%s: %d, %v", format, n, err)
		}
	}
	// The archive of a large file is made with a hole, so that it costs nothing.
	for _, format := range []string{"gnu", "pax"} {
		at := open(t, hollow(t, format, size))
		list, err := source.Members(t.Context(), at)
		if err != nil || len(list) != 2 || list[0].Size != size || list[1].Offset < size {
			t.Errorf("%s: %+v, %v", format, list, err)
		}
	}
}
