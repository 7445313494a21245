//go:build !unix

package source

import (
	"errors"
	"os"
)

const openFlags = os.O_RDONLY

// unlinkEarly: an open file can be removed.
const unlinkEarly = false

// errNoData is never returned here: holes are not asked for.
var errNoData = errors.New("no more data")

func cannotTell(error) bool { return false }
