package imageservice_test

import (
	"os"
	"runtime"
	"testing"
)

// TestOwnDiskFails takes the service's folder away: an import must say that the service failed, not the object.
func TestOwnDiskFails(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files in use can't be replaced")
	}
	c := newCloud(t)
	d := disk(3<<20, 0)
	c.put("z", encode(t, d))
	c.put("x.raw", d)
	c.put("x.mf", bitmapOf(d))
	if err := os.RemoveAll(c.database + ".disks"); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"z", "x.raw"} {
		c.fails(t, key, quick(key), "IMG.0061", ".disks")
	}
}
