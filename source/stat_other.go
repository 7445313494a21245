//go:build !linux && !darwin

package source

import (
	"io/fs"
)

// seekData below zero says that this system isn't asked for holes.
const (
	seekData = -1
	seekHole = -1
)

func (id *identity) addSystem(fs.FileInfo) {}

func deviceNumber(fs.FileInfo) (uint64, bool) { return 0, false }

// allocated is how many bytes the file system stores for a file.
func allocated(fi fs.FileInfo) int64 {
	return fi.Size()
}
