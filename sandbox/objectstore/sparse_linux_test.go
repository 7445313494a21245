package objectstore

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestSparse proves with stat(2) that zeros take no room, and that they are found again.
func TestSparse(t *testing.T) {
	s := openAt(t, t.TempDir(), Options{NoSync: true})
	defer s.Close()
	must(t, s.CreateBucket("bucket"))
	data := make([]byte, 64<<20)
	islands := []int{0, 1 << 20, 5<<20 + 4096, 40 << 20, len(data) - 4096}
	for _, off := range islands {
		data[off+17] = 1
	}
	_, err := s.PutObject(t.Context(), "bucket", "sparse", bytes.NewReader(data), nil)
	must(t, err)
	_, err = s.PutObject(t.Context(), "bucket", "empty", bytes.NewReader(make([]byte, 32<<20)), nil)
	must(t, err)
	entries, err := os.ReadDir(filepath.Join(s.disk.root, segmentsDir))
	must(t, err)
	if len(entries) != 1 {
		t.Fatalf("%d segments", len(entries))
	}
	var st syscall.Stat_t
	must(t, syscall.Stat(filepath.Join(s.disk.root, segmentsDir, entries[0].Name()), &st))
	if used := st.Blocks * 512; st.Size != int64(len(data)) || used > 1<<20 {
		t.Errorf("%d bytes use %d", st.Size, used)
	}
	o, err := s.OpenObject("bucket", "sparse")
	must(t, err)
	defer o.Close()
	got := make([]byte, len(data))
	if _, err := o.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read back differently: %v", err)
	}
	// Data is reported where it is, and everything else is zero.
	var total, pos int64
	for {
		start, end, err := o.NextData(pos)
		must(t, err)
		if start == end {
			if start != o.Size() {
				t.Errorf("end of data at %d", start)
			}
			break
		}
		if start < pos || end > o.Size() {
			t.Fatalf("[%d, %d) after %d", start, end, pos)
		}
		if !bytes.Equal(data[pos:start], make([]byte, start-pos)) {
			t.Errorf("data in the hole [%d, %d)", pos, start)
		}
		total, pos = total+end-start, end
	}
	if !bytes.Equal(data[pos:], make([]byte, int64(len(data))-pos)) || total < int64(len(islands))*4096 || total > 1<<20 {
		t.Errorf("%d bytes of data in all", total)
	}
}
