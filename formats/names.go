package formats

import "strings"

// CheckName refuses, with ErrNotAllowed, a name that can be no file's: an empty one, one with a zero
// byte, where C ends names, and one that QEMU takes for a protocol, because it has a colon before its
// first slash ("nbd:unix:/socket", "json:{...}"). An image must not choose a protocol (CVE-2024-4467).
// A Windows path with a drive is refused too: which files it means depends on the machine.
//
// format and offset, in bytes or -1, are those of the error.
func CheckName(format string, offset int64, r Ref) error {
	why := ""
	i := strings.IndexAny(r.Name, ":/")
	switch {
	case r.Name == "":
		why = "it is empty"
	case strings.ContainsRune(r.Name, 0):
		why = "it has a zero byte"
	case i >= 0 && r.Name[i] == ':':
		why = "it is that of a protocol"
	default:
		return nil
	}
	return NotAllowed(format, offset, "the %s %q is not the name of a file: %s", r.Kind, r.Name, why)
}
