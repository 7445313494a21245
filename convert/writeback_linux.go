package convert

import (
	"os"

	"golang.org/x/sys/unix"
)

// startWriteback has the kernel begin to write what is in its memory of f to the disk. It is a hint:
// whether it is followed shows in Sync.
func startWriteback(f *os.File) {
	_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
}
