package convert

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// zeroOut has the kernel zero a range, which the device may do without a transfer (BLKZEROOUT; off and
// n must be multiples of its sector).
func zeroOut(f *os.File, off, n int64) error {
	r := [2]uint64{uint64(off), uint64(n)}
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKZEROOUT, uintptr(unsafe.Pointer(&r)))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
			continue
		}
		return errno
	}
}

func isBusy(err error) bool { return errors.Is(err, unix.EBUSY) }
