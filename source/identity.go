package source

import (
	"fmt"
	"io/fs"
)

// identity is what changes when a file's bytes may have changed. Times are nanoseconds since 1970.
// A field that the system doesn't have is 0.
type identity struct {
	size, mtime       int64
	dev, inode        uint64
	ctime             int64
	hasDeviceAndCtime bool
}

// identify takes the size apart from fi, because a device's Stat has none.
func identify(fi fs.FileInfo, size int64) identity {
	id := identity{size: size, mtime: fi.ModTime().UnixNano()}
	id.addSystem(fi)
	return id
}

func (id identity) String() string {
	s := fmt.Sprintf("size=%d mtime=%d", id.size, id.mtime)
	if id.hasDeviceAndCtime {
		s += fmt.Sprintf(" dev=%d inode=%d ctime=%d", id.dev, id.inode, id.ctime)
	}
	return s
}
