package upload

import (
	"os"
	"path/filepath"
	"testing"
)

// A journal that is kept is only read: no lock is left beside one that came without.
func TestPruneLeavesNoLocks(t *testing.T) {
	dir := t.TempDir()
	j := openTest(t, dir, testID)
	if err := j.begin("upload-1"); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(j.path + lockSuffix); err != nil && !os.IsNotExist(err) { // as on a machine it was copied to
		t.Fatal(err)
	}
	for _, gone := range []bool{false, true} {
		if err := PruneJournals(dir, testID.Store, func(string, string) bool { return gone }); err != nil {
			t.Fatal(err)
		}
		want := 1
		if gone {
			want = 0
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != want {
			t.Errorf("gone: %v, left %v", gone, left)
		}
	}
}
