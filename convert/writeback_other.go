//go:build !linux

package convert

import "os"

// startWriteback: the system begins when it likes.
func startWriteback(*os.File) {}
