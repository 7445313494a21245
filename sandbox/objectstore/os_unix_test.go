//go:build unix

package objectstore

import "syscall"

const noSpace = syscall.ENOSPC
