package pipeline

import "strings"

// Identity tells the bytes of the disk's files from any others, as far as sizes, times, devices and inodes
// do.
func (d *Opened) Identity() string {
	var b strings.Builder
	for _, f := range d.files.all() {
		b.WriteString(f.Identity())
		b.WriteByte('\n')
	}
	return b.String()
}
