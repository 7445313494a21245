package formats

import (
	"fmt"
	"strings"
)

// Detect returns the first format of table whose Probe knows src. It judges by content alone,
// never by a file's name. ErrUnknown if none does; else the error of a failed read.
func Detect(table []Format, src Source) (Format, error) {
	for _, f := range table {
		ok, err := f.Probe(src)
		if err != nil {
			return Format{}, fmt.Errorf("probing for %s: %w", f.Name, err)
		}
		if ok {
			return f, nil
		}
	}
	return Format{}, ErrUnknown
}

// ByName returns the format of table with that name. ErrUnknown, with the names there are, if
// there is none.
func ByName(table []Format, name string) (Format, error) {
	names := make([]string, len(table))
	for i, f := range table {
		if f.Name == name {
			return f, nil
		}
		names[i] = f.Name
	}
	return Format{}, fmt.Errorf("%w %q: known are %s", ErrUnknown, name, strings.Join(names, ", "))
}
