package pipeline

import (
	"path/filepath"
	"testing"

	"imgferry/convert"
)

// What was written is gone on with only for the same version of the object; where nothing tells versions apart,
// never.
func TestPartIsOfTheSameVersion(t *testing.T) {
	const size = 4 * convert.BlockSize
	for _, c := range []struct {
		was, is string
		done    int64
	}{{"one", "one", convert.BlockSize}, {"one", "two", 0}, {"one", "", 0}, {"", "", 0}} {
		name := filepath.Join(t.TempDir(), "disk.raw")
		for i, id := range []string{c.was, c.is} {
			p, err := openPart(name, id, size)
			if err != nil {
				t.Fatal(err)
			}
			if i == 1 && p.done != c.done {
				t.Errorf("%q after %q: %d bytes are done, want %d", c.is, c.was, p.done, c.done)
			}
			if err := p.note(convert.BlockSize); err != nil {
				t.Fatal(err)
			}
			p.close()
		}
	}
}
