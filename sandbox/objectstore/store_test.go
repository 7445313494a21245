package objectstore

import (
	"bytes"
	"crypto/md5"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestCRCCombine(t *testing.T) {
	data := bytes.Repeat([]byte("The quick brown fox jumps over the lazy dog. "), 100)
	for _, name := range []string{"crc32", "CRC32C", "crc64nvme"} {
		a, ok := algorithmOf(name)
		if !ok {
			t.Fatal(name)
		}
		crc := func(p []byte) uint64 {
			h := a.make()
			h.Write(p)
			return a.number(h.Sum(nil))
		}
		for _, n := range []int{0, 1, 7, 64, 1000, len(data) - 1, len(data)} {
			if got := a.combine(crc(data[:n]), crc(data[n:]), int64(len(data)-n)); got != crc(data) {
				t.Errorf("%s split at %d: %x, want %x", name, n, got, crc(data))
			}
		}
	}
}

func TestZeroSums(t *testing.T) {
	var z zeroSums
	for _, n := range []int64{0, 1, zeroStep + 1, zeroStep, 2*zeroStep - 1, 2 * zeroStep, 5} {
		h := md5.New()
		io.CopyN(h, zeroReader{}, n)
		if sum := z.sum(n); !bytes.Equal(sum[:], h.Sum(nil)) {
			t.Errorf("%d zeros: %x", n, sum)
		}
	}
}

func TestContent(t *testing.T) {
	a, b := segmentID{1}, segmentID{2}
	var c content
	for _, r := range []run{{a, 0, 10}, {a, 10, 5}, {segmentID{}, 0, 3}, {segmentID{}, 0, 4}, {b, 7, 2}, {b, 7, 2}, {b, 0, 0}} {
		c = c.add(r)
	}
	want := content{{a, 0, 15}, {segmentID{}, 0, 7}, {b, 7, 2}, {b, 7, 2}}
	if !slices.Equal(c, want) || c.size() != 26 {
		t.Fatalf("%v", c)
	}
	for off := range int64(27) {
		for n := range 27 - off {
			// Cutting in two and joining is no cut.
			joined := slices.Clone(c.cut(0, off))
			for _, part := range []content{c.cut(off, n), c.cut(off+n, 26-off-n)} {
				for _, r := range part {
					joined = joined.add(r)
				}
			}
			if !slices.Equal(joined, want) {
				t.Fatalf("cut at %d and %d: %v", off, off+n, joined)
			}
		}
	}
}

func TestErrorClasses(t *testing.T) {
	full := fmt.Errorf("writing: %w", &os.PathError{Op: "write", Path: "x", Err: noSpace})
	if e, failure := asError(full); e.Status != http.StatusInsufficientStorage || !failure {
		t.Errorf("full disk: %v", e)
	}
	if e, failure := asError(syscall.EIO); e.Status != 500 || !failure {
		t.Errorf("bad disk: %v", e)
	}
	if e, failure := asError(fmt.Errorf("x: %w", ErrNoSuchKey)); e != ErrNoSuchKey || failure {
		t.Errorf("refusal: %v", e)
	}
}

func TestDamagedRecord(t *testing.T) {
	for name, change := range map[string]func([]byte) []byte{
		"cut":         func(p []byte) []byte { return p[:len(p)/2] },
		"empty":       func([]byte) []byte { return nil },
		"another key": func(p []byte) []byte { return bytes.Replace(p, []byte(`"key"`), []byte(`"kez"`), 1) },
		"size":        func(p []byte) []byte { return bytes.Replace(p, []byte(`"Size":4`), []byte(`"Size":5`), 1) },
		"new field":   func(p []byte) []byte { return bytes.Replace(p, []byte(`"Size"`), []byte(`"Later":1,"Size"`), 1) },
	} {
		dir := t.TempDir()
		s := openAt(t, dir, Options{NoSync: true})
		must(t, s.CreateBucket("bucket"))
		put(t, s, "key", "data")
		must(t, s.Close())
		file := newBucket(disk{root: dir}, "bucket").objectFile("key")
		p, err := os.ReadFile(file)
		must(t, err)
		must(t, os.WriteFile(file, change(p), 0o666))
		if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), filepath.Base(file)) {
			t.Errorf("%s: %v", name, err)
		}
		must(t, os.WriteFile(file, p, 0o666)) // and the lock was given back
		must(t, openAt(t, dir, Options{}).Close())
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openAt(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	must(t, err)
	return s
}

func put(t testing.TB, s *Store, key, data string) {
	t.Helper()
	_, err := s.PutObject(t.Context(), "bucket", key, strings.NewReader(data), nil)
	must(t, err)
}

// uploadBytes puts a part as a client's request would.
func uploadBytes(t testing.TB, s *Store, u *upload, number int, data string) *part {
	t.Helper()
	b := newBody(strings.NewReader(data), int64(len(data)))
	c, err := s.segments.write(b)
	must(t, err)
	p := &part{Number: number, Size: b.got, ETag: b.etag(), Modified: s.now(), Content: c}
	must(t, s.putPart(u, p))
	return p
}

func beginUpload(t testing.TB, s *Store, key string) *upload {
	t.Helper()
	id, err := s.createUpload("bucket", uploadRecord{Key: recordKey(key)})
	must(t, err)
	u, err := s.upload("bucket", key, id)
	must(t, err)
	return u
}

// snapshot is what the disk held at some moment, and what a client may then see of each key: "" for
// nothing.
type snapshot struct {
	name, dir string
	may       map[string][]string
}

// TestCrashes copies the data directory between any two steps of every change, and looks at each
// copy as a store that comes up after kill -9 does.
func TestCrashes(t *testing.T) {
	dir, copies := t.TempDir(), t.TempDir()
	var snaps []snapshot
	may := make(map[string][]string)
	take := func(step string) {
		to := filepath.Join(copies, fmt.Sprint(len(snaps)))
		must(t, os.CopyFS(to, os.DirFS(dir)))
		snaps = append(snaps, snapshot{step, to, maps.Clone(may)})
	}
	s := openAt(t, dir, Options{NoSync: true, MinPartSize: 1, step: take})
	defer s.Close()

	// change runs f, during which each key may have its old value or its new one.
	change := func(name string, after map[string]string, f func()) {
		before := maps.Clone(may)
		for key, v := range after {
			may[key] = append(slices.Clone(may[key]), v)
		}
		n := len(snaps)
		f()
		for i := n; i < len(snaps); i++ {
			snaps[i].name = name + ": " + snaps[i].name
		}
		may = before
		for key, v := range after {
			may[key] = []string{v}
		}
		take(name + ": done")
	}
	long := strings.Repeat("0123456789abcdef", 40<<10) // more than one buffer
	change("create bucket", nil, func() { must(t, s.CreateBucket("bucket")) })
	may["a"], may["b"], may["m"] = []string{""}, []string{""}, []string{""}
	change("put", map[string]string{"a": "one"}, func() { put(t, s, "a", "one") })
	change("overwrite", map[string]string{"a": long}, func() {
		taken := false
		r := io.MultiReader(strings.NewReader(long), readerFunc(func([]byte) (int, error) {
			if !taken {
				taken = true
				take("body read")
			}
			return 0, io.EOF
		}))
		_, err := s.PutObject(t.Context(), "bucket", "a", r, nil)
		must(t, err)
	})
	change("copy", map[string]string{"b": long}, func() {
		src, err := s.OpenObject("bucket", "a")
		must(t, err)
		o := *src.rec
		o.Key = "b"
		s.segments.hold(o.Content)
		must(t, s.commit("bucket", &o, precondition{}))
		must(t, src.Close())
	})
	var u *upload
	var parts []*part
	change("begin upload", nil, func() { u = beginUpload(t, s, "m") })
	change("part", nil, func() { uploadBytes(t, s, u, 1, "wrong") })
	change("part again", nil, func() { parts = append(parts, uploadBytes(t, s, u, 1, "right ")) })
	change("part 2", nil, func() { parts = append(parts, uploadBytes(t, s, u, 2, "parts")) })
	change("unused part", nil, func() { uploadBytes(t, s, u, 3, "unused") })
	change("complete", map[string]string{"m": "right parts"}, func() {
		claims := []partClaim{{Number: 1, ETag: parts[0].ETag}, {Number: 2, ETag: parts[1].ETag}}
		_, err := s.completeUpload("bucket", u, completion{parts: claims, size: -1})
		must(t, err)
	})
	change("complete over it", map[string]string{"m": "other"}, func() {
		u = beginUpload(t, s, "m")
		p := uploadBytes(t, s, u, 5, "other")
		_, err := s.completeUpload("bucket", u, completion{parts: []partClaim{{Number: 5, ETag: p.ETag}}, size: -1})
		must(t, err)
	})
	change("abort", nil, func() {
		u = beginUpload(t, s, "m")
		uploadBytes(t, s, u, 1, "never")
		must(t, s.abortUpload("bucket", u))
	})
	change("remove", map[string]string{"a": "", "m": ""}, func() { must(t, s.removeObjects("bucket", []string{"a", "m"})) })
	change("remove the copy", map[string]string{"b": ""}, func() { must(t, s.RemoveObject("bucket", "b")) })
	uploadBytes(t, s, beginUpload(t, s, "m"), 1, "goes with its bucket")
	change("delete bucket", nil, func() { must(t, s.deleteBucket("bucket")) })

	if len(snaps) < 50 {
		t.Errorf("only %d moments", len(snaps))
	}
	for _, snap := range snaps {
		t.Run(snap.name, func(t *testing.T) { checkSnapshot(t, snap) })
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func checkSnapshot(t *testing.T, snap snapshot) {
	s := openAt(t, snap.dir, Options{NoSync: true, MinPartSize: 1})
	defer s.Close()
	for key, values := range snap.may {
		o, err := s.OpenObject("bucket", key)
		got := ""
		if err == nil {
			p := make([]byte, o.Size())
			if n, err := o.ReadAt(p, 0); int64(n) != o.Size() {
				t.Errorf("%s: %v", key, err)
			}
			got = string(p)
			if sum := md5.Sum(p); !strings.Contains(o.ETag(), "-") && o.ETag() != hex.EncodeToString(sum[:]) {
				t.Errorf("%s: ETag %s", key, o.ETag())
			}
			o.Close()
		} else if !errors.Is(err, ErrNoSuchKey) && !errors.Is(err, ErrNoSuchBucket) {
			t.Errorf("%s: %v", key, err)
		}
		if !slices.Contains(values, got) {
			t.Errorf("%s holds %.20q", key, got)
		}
	}
	// An upload that was completed is not there any more.
	if b := s.buckets["bucket"]; b != nil {
		for _, o := range b.objects {
			if b.uploads[o.Upload] != nil {
				t.Errorf("%s is both an object and an upload", o.Key)
			}
		}
	}
	// Unfinished uploads are whole: their parts can be read and completed, or the upload is gone.
	if b := s.buckets["bucket"]; b != nil {
		for _, u := range b.uploads {
			var claims []partClaim
			for _, p := range u.partsBehind(0) {
				claims = append(claims, partClaim{Number: p.Number, ETag: p.ETag})
			}
			if len(claims) == 0 {
				must(t, s.abortUpload("bucket", u))
				continue
			}
			o, err := s.completeUpload("bucket", u, completion{parts: claims, size: -1})
			must(t, err)
			got, err := s.OpenObject("bucket", string(o.Key))
			must(t, err)
			if _, err := got.sum(t.Context(), 0, got.Size()); err != nil {
				t.Error(err)
			}
			got.Close()
		}
	}
	// Nothing lies about.
	held := make(map[segmentID]bool)
	for _, b := range s.buckets {
		for _, o := range b.objects {
			for _, r := range o.Content {
				held[r.Segment] = true
			}
		}
	}
	for dir, want := range map[string]int{segmentsDir: len(held), tempDir: 0} {
		entries, err := os.ReadDir(filepath.Join(snap.dir, dir))
		must(t, err)
		if len(entries) != want {
			t.Errorf("%d files in %s, want %d", len(entries), dir, want)
		}
	}
}

// TestZeroCopies grows an object of zeros on the server, as sparse uploads do.
func TestZeroCopies(t *testing.T) {
	s := openAt(t, t.TempDir(), Options{NoSync: true})
	defer s.Close()
	must(t, s.CreateBucket("bucket"))
	_, err := s.PutObject(t.Context(), "bucket", "seed", io.LimitReader(zeroReader{}, 8<<20), nil)
	must(t, err)
	seed, err := s.OpenObject("bucket", "seed")
	must(t, err)
	defer seed.Close()
	// Grown by part copies to 80 GiB, it is still one run without a file.
	u := beginUpload(t, s, "grown")
	var claims []partClaim
	h := md5.New()
	for n := range 10_000 {
		sum, err := seed.sum(t.Context(), 0, seed.Size())
		must(t, err)
		must(t, s.putPart(u, &part{Number: n + 1, Size: 8 << 20, ETag: fmt.Sprintf("%x", sum), Content: seed.rec.Content.cut(0, 8<<20)}))
		claims = append(claims, partClaim{Number: n + 1, ETag: fmt.Sprintf("%x", sum)})
		h.Write(sum[:])
	}
	o, err := s.completeUpload("bucket", u, completion{parts: claims, size: 80_000 << 20})
	must(t, err)
	if len(o.Content) != 1 || o.Size != 80_000<<20 || o.ETag != fmt.Sprintf("%x-10000", h.Sum(nil)) {
		t.Errorf("%d runs, %d bytes, ETag %s", len(o.Content), o.Size, o.ETag)
	}
	entries, err := os.ReadDir(filepath.Join(s.disk.root, segmentsDir))
	if err != nil || len(entries) != 0 {
		t.Errorf("%d segments, %v", len(entries), err)
	}
	grown, err := s.OpenObject("bucket", "grown")
	must(t, err)
	defer grown.Close()
	p := []byte{1, 2, 3, 4}
	if _, err := grown.ReadAt(p, 70_000<<20); err != nil || binary.BigEndian.Uint32(p) != 0 {
		t.Errorf("%v, %v", p, err)
	}
	if start, end, err := grown.NextData(5); start != grown.Size() || end != start || err != nil {
		t.Errorf("data [%d, %d), %v", start, end, err)
	}
}

func TestTooManyPieces(t *testing.T) {
	s := openAt(t, t.TempDir(), Options{NoSync: true})
	defer s.Close()
	must(t, s.CreateBucket("bucket"))
	put(t, s, "key", "data")
	o, err := s.OpenObject("bucket", "key")
	must(t, err)
	defer o.Close()
	pieces := make(content, maxRuns+1)
	for i := range pieces {
		pieces[i] = run{Segment: o.rec.Content[0].Segment, Offset: int64(i % 2), Length: 1}
	}
	s.segments.hold(pieces)
	if err := s.commit("bucket", &object{Key: "pieces", Content: pieces}, precondition{}); !errors.Is(err, errInvalidRequest) {
		t.Error(err)
	}
	if n := s.segments.refs[o.rec.Content[0].Segment]; n != 2 {
		t.Errorf("%d references", n)
	}
}

// TestTornLog opens an upload whose last part was being written when the process died.
func TestTornLog(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, Options{NoSync: true})
	must(t, s.CreateBucket("bucket"))
	u := beginUpload(t, s, "key")
	uploadBytes(t, s, u, 1, "first")
	must(t, s.Close())
	whole, err := os.ReadFile(u.log)
	must(t, err)
	line := whole[bytes.IndexByte(whole, '\n')+1:]
	for n := range line {
		must(t, os.WriteFile(u.log, append(bytes.Clone(whole), line[:n]...), 0o666))
		s := openAt(t, dir, Options{NoSync: true})
		u, err := s.upload("bucket", "key", u.id)
		must(t, err)
		if len(u.parts) != 1 || u.parts[1].Size != 5 {
			t.Fatalf("%d bytes of a second part: parts %v", n, u.parts)
		}
		uploadBytes(t, s, u, 2, "second") // goes on where the whole lines end
		must(t, s.Close())
		again, err := readUpload(u.id, u.log)
		if err != nil || len(again.parts) != 2 {
			t.Fatalf("%d bytes of a second part, then another: %v", n, err)
		}
	}
	must(t, os.WriteFile(u.log, append([]byte("{\n"), whole...), 0o666))
	if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), filepath.Base(u.log)) {
		t.Errorf("a damaged log was taken: %v", err)
	}
}
