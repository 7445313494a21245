package upload

import (
	"bytes"
	"crypto/md5"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

var testID = JournalID{Store: "https://store bucket", Key: "disks/a.zvhd2", Source: "size=1 inode=2", Settings: "zstd default"}

func testPart(n, chunks int) JournalPart {
	p := JournalPart{Number: n, Level: 1, MD5: md5.Sum([]byte{byte(n)})}
	p.ETag = hexSum(p.MD5)
	for i := range chunks {
		c := Chunk{Block: int64(1000*n + 2*i), Length: 4096, Sum: [32]byte{byte(n), byte(i)}}
		p.Chunks = append(p.Chunks, c)
		p.Size += c.Length
	}
	if chunks == 0 {
		p.Size = 10
	}
	return p
}

func openTest(t *testing.T, dir string, id JournalID) *Journal {
	t.Helper()
	j, err := OpenJournal(dir, id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

// What was noted is there after a run that just stopped, and in a file that was cut or damaged anywhere
// what comes before the damage.
func TestJournal(t *testing.T) {
	dir := t.TempDir()
	j := openTest(t, dir, testID)
	j.begin("upload-1")
	want := map[int]JournalPart{}
	var ends []int64
	for n := 1; n <= 4; n++ {
		p := testPart(n, n-1)
		if n == 4 {
			p.Chunks = append(p.Chunks, Chunk{Block: Tail})
		}
		if err := j.add(p); err != nil {
			t.Fatal(err)
		}
		want[n] = p
		st, _ := os.Stat(j.path)
		ends = append(ends, st.Size())
	}
	if _, err := OpenJournal(dir, testID); !errors.Is(err, ErrJournalBusy) {
		t.Errorf("a second run: %v", err)
	}
	path := j.path
	j.Close()

	again := openTest(t, dir, testID)
	if again.head.UploadID != "upload-1" || !reflect.DeepEqual(again.parts, want) {
		t.Fatalf("%+v %+v", again.head, again.parts)
	}
	again.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		at := r.Int64N(int64(len(whole)))
		torn := whole[:at]
		if r.IntN(2) == 0 {
			torn = bytes.Clone(whole)
			torn[at] ^= byte(1 + r.IntN(255))
		}
		if err := os.WriteFile(path, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := OpenJournal(dir, testID)
		if err != nil {
			t.Fatal(err)
		}
		for n, p := range want {
			_, ok := j.parts[n]
			if ok != (at >= ends[n-1]) || ok && !reflect.DeepEqual(j.parts[n], p) {
				t.Errorf("damage at %d: part %d, which ends at %d: %v", at, n, ends[n-1], ok)
			}
		}
		// It goes on where it was cut.
		j.begin("upload-1")
		if err := j.add(testPart(9, 2)); err != nil {
			t.Fatal(err)
		}
		j.Close()
		j, err = OpenJournal(dir, testID)
		if err != nil || !reflect.DeepEqual(j.parts[9], testPart(9, 2)) {
			t.Fatalf("after damage at %d: %+v, %v", at, j.parts, err)
		}
		j.Close()
	}
}

// A journal is trusted only for the same source, with the same settings.
func TestJournalOfAnother(t *testing.T) {
	for _, change := range []func(*JournalID){
		func(id *JournalID) { id.Source = "size=1 inode=3" },
		func(id *JournalID) { id.Settings = "zstd best" },
	} {
		dir := t.TempDir()
		j := openTest(t, dir, testID)
		j.begin("upload-1")
		j.add(testPart(1, 1))
		j.Close()
		other := testID
		change(&other)
		j = openTest(t, dir, other)
		if j.head.UploadID != "" || len(j.parts) != 0 {
			t.Errorf("%+v, %+v", j.head, j.parts)
		}
		if r, err := j.Resume(t.Context(), nil, Policy{}); r != nil || err != nil {
			t.Errorf("%+v, %v", r, err)
		}
	}
}

// A journal of another version is begun anew, also for the same upload: its parts would have no head else,
// and a later run would find none of them.
func TestJournalOfAnotherVersion(t *testing.T) {
	dir := t.TempDir()
	j := openTest(t, dir, testID)
	j.begin("upload-1")
	j.add(testPart(1, 1))
	path := j.path
	j.Close()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, err := readRecord(bytes.NewReader(file), int64(len(file)), maxHead)
	if err != nil {
		t.Fatal(err)
	}
	other := bytes.Replace(head, []byte(`"version":1`), []byte(`"version":2`), 1)
	if bytes.Equal(other, head) {
		t.Fatalf("%s has no version", head)
	}
	file = append(appendRecord(nil, other), file[recordHeadSize+len(head):]...)
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}

	j = openTest(t, dir, testID)
	if j.head != (journalHead{}) || len(j.parts) != 0 || j.knows("upload-1") {
		t.Fatalf("%+v, %+v", j.head, j.parts)
	}
	j.begin("upload-1") // which was found by its parts
	if err := j.add(testPart(2, 1)); err != nil || !j.knows("upload-1") {
		t.Fatal(err)
	}
	j.Close()
	j = openTest(t, dir, testID)
	if want := map[int]JournalPart{2: testPart(2, 1)}; j.head.UploadID != "upload-1" || !reflect.DeepEqual(j.parts, want) {
		t.Errorf("%+v, %+v", j.head, j.parts)
	}
}

func TestJournalIsRemoved(t *testing.T) {
	dir := t.TempDir()
	left := func() (names []string) {
		all, _ := filepath.Glob(filepath.Join(dir, "*"))
		return all
	}
	j := openTest(t, dir, testID)
	j.Close()
	if n := left(); len(n) != 0 {
		t.Errorf("an empty journal leaves %v", n)
	}
	j = openTest(t, dir, testID)
	j.begin("upload-1")
	j.add(testPart(1, 1))
	if err := j.Remove(); err != nil {
		t.Fatal(err)
	}
	j.begin("upload-2") // nothing happens any more
	if err := errors.Join(j.add(testPart(2, 1)), j.Close()); err != nil || len(left()) != 0 {
		t.Errorf("%v, left %v", err, left())
	}

	j = openTest(t, dir, testID)
	j.begin("upload-3")
	gone := true
	prune := func() {
		if err := PruneJournals(dir, testID.Store, func(key, id string) bool { return gone && key == testID.Key && id == "upload-3" }); err != nil {
			t.Error(err)
		}
	}
	if prune(); len(left()) != 2 {
		t.Errorf("pruned while it is used: %v", left())
	}
	j.Close()
	gone = false
	if prune(); len(left()) != 2 {
		t.Error("pruned though its upload is there")
	}
	if err := PruneJournals(dir, "another store", func(string, string) bool { return true }); err != nil || len(left()) != 2 {
		t.Error("pruned though it is of another store")
	}
	list, err := JournalUploads(dir, testID.Store)
	if err != nil || len(list) != 1 || list[0].Key != testID.Key || list[0].UploadID != "upload-3" || list[0].Initiated.IsZero() {
		t.Errorf("%+v, %v", list, err)
	}
	if list, err := JournalUploads(dir, "another store"); err != nil || len(list) > 0 {
		t.Errorf("%+v, %v", list, err)
	}
	gone = true
	if prune(); len(left()) > 0 {
		t.Errorf("left %v", left())
	}
	if list, err := JournalUploads(filepath.Join(dir, "none"), testID.Store); err != nil || len(list) > 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

// A lock whose journal was removed goes too, unless it is held.
func TestLocksArePruned(t *testing.T) {
	dir := t.TempDir()
	orphan := filepath.Join(dir, "0123"+journalSuffix)
	lock, err := lockJournal(orphan)
	if err != nil {
		t.Fatal(err)
	}
	prune := func() int {
		if err := PruneJournals(dir, testID.Store, func(string, string) bool { return false }); err != nil {
			t.Error(err)
		}
		left, _ := os.ReadDir(dir)
		return len(left)
	}
	if n := prune(); n != 1 {
		t.Errorf("%d left while it is held", n)
	}
	lock.Unlock()
	if n := prune(); n != 0 {
		t.Errorf("%d left", n)
	}
}

func FuzzJournalPart(f *testing.F) {
	for n := range 3 {
		f.Add(testPart(n+1, n).append(nil))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := parseJournalPart(body)
		if err != nil {
			return
		}
		if err := p.fits(); err == nil && !bytes.Equal(p.append(nil), body) {
			t.Errorf("%+v does not make the same record", p)
		}
	})
}

func FuzzJournalRecord(f *testing.F) {
	head, _ := journalHead{Version: journalVersion, UploadID: "u", JournalID: testID}.append(nil)
	f.Add(appendRecord(nil, head))
	f.Add(appendRecord(nil, testPart(1, 2).append(nil)))
	f.Fuzz(func(t *testing.T, file []byte) {
		body, err := readRecord(bytes.NewReader(file), int64(len(file)), maxRecord)
		if err == io.EOF && len(file) == 0 || err != nil {
			return
		}
		if !bytes.Equal(appendRecord(nil, body), file[:recordHeadSize+len(body)]) {
			t.Error("it does not make the same record")
		}
		_, _ = parseJournalHead(body)
	})
}
