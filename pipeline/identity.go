package pipeline

import "strings"

// Identity tells the bytes of the disk's files from any others, as far as sizes, times, devices and inodes
// do. It is "" as soon as one of the files has nothing that would tell.
func (d *Opened) Identity() string {
	var b strings.Builder
	for _, f := range d.files.all() {
		id := f.Identity()
		if id == "" {
			return ""
		}
		b.WriteString(id)
		b.WriteByte('\n')
	}
	return b.String()
}
