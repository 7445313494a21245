package source

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Fields of /sys/dev/block/M:N/stat (Linux, Documentation/block/stat.rst), from 0.
const (
	statSectorsWritten   = 6
	statSectorsDiscarded = 13 // since Linux 4.18
)

// bootID is another one after each boot, with which a device's counters begin at 0. "" where the kernel does
// not tell.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id") // Linux, Documentation/admin-guide/sysctl/kernel.rst
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

// deviceState is what changes when a block device is written to, through this name or any other: the
// kernel's counters; and when another medium takes its place: the number that each medium gets (diskseq,
// since Linux 5.15), which the disk of a partition has. "" where the kernel keeps none. Bytes that are only
// in memory are not counted: see settle.
func deviceState(rdev uint64) (writes, medium string) {
	dir := fmt.Sprintf("/sys/dev/block/%d:%d/", unix.Major(rdev), unix.Minor(rdev))
	stat, err := os.ReadFile(dir + "stat")
	if err != nil {
		return "", ""
	}
	for _, name := range []string{"diskseq", "../diskseq"} {
		if seq, err := os.ReadFile(dir + name); err == nil {
			medium = strings.TrimSpace(string(seq))
			break
		}
	}
	var b strings.Builder
	for i, f := range strings.Fields(string(stat)) {
		switch i {
		case statSectorsWritten, statSectorsDiscarded: // not requests: a flush is one too
			fmt.Fprintf(&b, "stat%d=%s ", i, f)
		}
	}
	return strings.TrimSpace(b.String()), medium
}
