package profile

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

// lockPoll is the pause between two looks at a file that another program changes.
const lockPoll = 20 * time.Millisecond

// Change reads the file anew, has change change it and saves it if that says so, while no other program
// does the same: of changes made at the same moment none is lost. The lock is a file beside it, which
// stays. The error is that of change, of the file (see Load) or of ctx.
func (f *File) Change(ctx context.Context, change func(*File) (save bool, err error)) error {
	path := f.path
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // whatever link leads there
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	lock := flock.New(path+".lock", flock.SetPermissions(privateMode))
	if _, err := lock.TryLockContext(ctx, lockPoll); err != nil {
		return fmt.Errorf("%s can't be locked: %w", path, err)
	}
	defer lock.Unlock() // the end of the process does it too
	now, err := Load(f.path)
	if err != nil {
		return err
	}
	save, err := change(now)
	if err == nil && save {
		err = now.Save()
	}
	*f = *now
	return err
}
