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
