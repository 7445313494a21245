package convert_test

import (
	"io"
	"strings"
	"testing"

	"imgferry/convert"
)

// TestSizesAtLimits: each target takes the largest disk that its format can hold, and says what is wrong
// with one that is larger. Nothing is stored of these disks but their first and last byte.
func TestSizesAtLimits(t *testing.T) {
	const tib = 1 << 40
	for _, c := range []struct {
		target, options string
		size            int64
		want            string // part of the error; "": it is written
	}{
		{"qcow2", "", 0, ""}, {"vpc", "", 0, "0 bytes"}, {"vmdk", "", 0, "0 bytes"}, {"zvhd2", "", 0, "0 bytes"}, {"zvhd", "", 0, "0 bytes"},
		{"qcow2", "", convert.MaxSize, ""}, {"qcow2", "", convert.MaxSize + 1, "64 TiB"},
		{"qcow2", "cluster_size=512", 2 * tib, "choose at least 4096"}, {"qcow2", "cluster_size=4K", 2 * tib, ""},
		{"vpc", "", 2040 << 30, ""}, {"vpc", "", 2040<<30 + 1, "2040 GiB"},
		{"vpc", "subformat=fixed", 2040 << 30, ""}, {"vpc", "subformat=fixed", 2040<<30 + 1, "2040 GiB"},
		{"vmdk", "", convert.MaxSize, ""}, {"vmdk", "subformat=monolithicSparse", convert.MaxSize, ""},
	} {
		v, err := convert.TargetByName(c.target)
		if err != nil {
			t.Fatal(err)
		}
		var list []string
		if c.options != "" {
			list = append(list, c.options)
		}
		s, err := v.Settings(list)
		if err != nil {
			t.Fatal(err)
		}
		d := &disk{size: c.size, pieces: map[int64][]byte{}}
		if c.size > 0 {
			d.pieces[0], d.pieces[c.size-1] = []byte("a"), []byte("z")
		}
		_, err = v.Write(t.Context(), d, nowhere{io.Discard}, s, convert.Options{Workers: 1})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s %s, %d bytes: %v, want %q", c.target, c.options, c.size, err, c.want)
		}
	}
}
