package source

import (
	"io/fs"
	"syscall"
)

// lseek(2): Darwin numbers SEEK_HOLE before SEEK_DATA.
const (
	seekHole = 3
	seekData = 4
)

func (id *identity) addSystem(fi fs.FileInfo) {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		id.dev, id.inode, id.ctime = uint64(st.Dev), st.Ino, st.Ctimespec.Nano()
		id.hasDeviceAndCtime = true
	}
}
