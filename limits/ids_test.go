package limits_test

import (
	"errors"
	"strings"
	"testing"

	"imgferry/limits"
)

func TestID(t *testing.T) {
	for _, good := range []string{"a", "0b1e494e2660441a957313163095fe5c", "d164b5df-1bc3-4c3f-893e-3e471fd16e64", strings.Repeat("x", 64)} {
		if err := limits.ID(good, limits.VolumeUnknown, "volume_id", "volume"); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "a b", "a/b", "..", "a\n", "é", strings.Repeat("x", 65)} {
		err := limits.ID(bad, limits.VolumeUnknown, "volume_id", "volume")
		var rule *limits.Error
		if !errors.As(err, &rule) || rule.Code != limits.VolumeUnknown || rule.Field != "volume_id" || !strings.Contains(err.Error(), "volume") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestProperty(t *testing.T) {
	for s, good := range map[string]bool{"team": true, "__support_kvm": true, "a/b ~": true, strings.Repeat("é", 255): true, "": false, "a\x00": false, "a\xff": false, strings.Repeat("x", 256): false} {
		if err := limits.Property(s); (err == nil) != good {
			t.Errorf("%.20q: %v", s, err)
		}
	}
}

func TestIsISO(t *testing.T) {
	for key, want := range map[string]bool{"a.iso": true, "b/A.ISO": true, "iso": false, "a.iso/b": false, "a.iso.qcow2": false} {
		if limits.IsISO(key) != want {
			t.Errorf("%q", key)
		}
	}
}
