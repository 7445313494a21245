package source

import (
	"io/fs"
	"syscall"
)

// lseek(2): Linux numbers SEEK_DATA before SEEK_HOLE.
const (
	seekData = 3
	seekHole = 4
)

func (id *identity) addSystem(fi fs.FileInfo) {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		id.dev, id.inode, id.ctime = uint64(st.Dev), st.Ino, st.Ctim.Nano()
		id.hasDeviceAndCtime = true
	}
}

// deviceNumber is the number of the device that fi is the name of.
func deviceNumber(fi fs.FileInfo) (uint64, bool) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return st.Rdev, true
}

// allocated is how many bytes the file system stores for a file.
func allocated(fi fs.FileInfo) int64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512 // stat(2): in units of 512 bytes
	}
	return fi.Size()
}
