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

// deviceState is what changes when a block device is written to, through this name or any other,
// or when another medium takes its place: the kernel's counters, and the number that each medium
// gets (diskseq, since Linux 5.15). "" where the kernel keeps none. Bytes that are
// only in memory are not counted: see settle.
func deviceState(rdev uint64) string {
	dir := fmt.Sprintf("/sys/dev/block/%d:%d/", unix.Major(rdev), unix.Minor(rdev))
	stat, err := os.ReadFile(dir + "stat")
	if err != nil {
		return ""
	}
	var b strings.Builder
	if seq, err := os.ReadFile(dir + "diskseq"); err == nil {
		b.WriteString("diskseq=" + strings.TrimSpace(string(seq)) + " ")
	}
	for i, f := range strings.Fields(string(stat)) {
		switch i {
		case statSectorsWritten, statSectorsDiscarded: // not requests: a flush is one too
			fmt.Fprintf(&b, "stat%d=%s ", i, f)
		}
	}
	return strings.TrimSpace(b.String())
}
