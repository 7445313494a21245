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
	// device says that it is a block device: then the times, which are those of its name in the file
	// system, are left out, and what follows is used: its number, counters of writes, which begin anew
	// with each boot, and the number of the medium in it.
	device               bool
	rdev                 uint64
	writes, boot, medium string
}

// identify takes the size apart from fi, because a device's Stat has none.
func identify(fi fs.FileInfo, size int64) identity {
	if fi.Mode()&fs.ModeDevice != 0 {
		id := identity{size: size, device: true}
		if n, ok := deviceNumber(fi); ok {
			id.rdev, id.boot = n, bootID()
			id.writes, id.medium = deviceState(n)
		}
		return id
	}
	id := identity{size: size, mtime: fi.ModTime().UnixNano()}
	id.addSystem(fi)
	return id
}

// String is "" for a device of which it can't be told whether it was written to or replaced, also while no file
// was open.
func (id identity) String() string {
	if id.device {
		if id.writes == "" || id.boot == "" || id.medium == "" {
			return ""
		}
		return fmt.Sprintf("size=%d rdev=%d boot=%s diskseq=%s %s", id.size, id.rdev, id.boot, id.medium, id.writes)
	}
	s := fmt.Sprintf("size=%d mtime=%d", id.size, id.mtime)
	if id.hasDeviceAndCtime {
		s += fmt.Sprintf(" dev=%d inode=%d ctime=%d", id.dev, id.inode, id.ctime)
	}
	return s
}
