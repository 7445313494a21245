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
	// device is a block device's number and state; then the times, which are those of its name in
	// the file system, are left out.
	device string
}

// identify takes the size apart from fi, because a device's Stat has none.
func identify(fi fs.FileInfo, size int64) identity {
	if fi.Mode()&fs.ModeDevice != 0 {
		if n, ok := deviceNumber(fi); ok {
			return identity{size: size, device: fmt.Sprintf("rdev=%d %s", n, deviceState(n))}
		}
	}
	id := identity{size: size, mtime: fi.ModTime().UnixNano()}
	id.addSystem(fi)
	return id
}

func (id identity) String() string {
	if id.device != "" {
		return fmt.Sprintf("size=%d %s", id.size, id.device)
	}
	s := fmt.Sprintf("size=%d mtime=%d", id.size, id.mtime)
	if id.hasDeviceAndCtime {
		s += fmt.Sprintf(" dev=%d inode=%d ctime=%d", id.dev, id.inode, id.ctime)
	}
	return s
}
