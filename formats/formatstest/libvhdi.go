package formatstest

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// pyvhdi writes what the first disk reads as, each over the next one, to its standard output.
const pyvhdi = `
import sys, pyvhdi
disks = []
for name in reversed(sys.argv[1:]):
    f = pyvhdi.file()
    f.open(name)
    if disks:
        f.set_parent(disks[-1])
    disks.append(f)
disk, left = disks[-1], disks[-1].get_media_size()
while left > 0:
    p = disk.read_buffer(min(left, 1 << 20))
    if not p:
        sys.exit("the disk ends %d bytes early" % left)
    sys.stdout.buffer.write(p)
    left -= len(p)
`

// Libvhdi returns the guest bytes of a VHD or VHDX as libvhdi reads them, the only free program that reads
// differencing ones: names are the files of the disk, its parent, and so on. It runs with
// IMGFERRY_LONG=1 only.
func Libvhdi(t testing.TB, names ...string) []byte {
	t.Helper()
	if os.Getenv("IMGFERRY_LONG") == "" {
		t.Skip("IMGFERRY_LONG=1 compares with libvhdi")
	}
	const python = "/usr/bin/python3" // the system's, which its packages are for
	if err := exec.Command(python, "-c", "import pyvhdi").Run(); err != nil {
		t.Fatal("libvhdi is missing: apt-get install python3-libvhdi")
	}
	var stderr strings.Builder
	cmd := exec.Command(python, append([]string{"-c", pyvhdi}, names...)...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("libvhdi: %v: %s", err, &stderr)
	}
	return out
}
