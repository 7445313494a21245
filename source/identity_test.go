package source

import (
	"strings"
	"testing"
)

// A device of which not everything is known that would tell of another content has no identity, though a change
// while it is open is still seen.
func TestDeviceIdentity(t *testing.T) {
	whole := identity{size: 1 << 20, device: true, rdev: 7, writes: "stat6=5", boot: "one", medium: "3"}
	id := whole.String()
	if id == "" {
		t.Fatal("a device that says everything has no identity")
	}
	for name, change := range map[string]func(*identity){
		"writes": func(id *identity) { id.writes = "stat6=6" }, "another boot": func(id *identity) { id.boot = "two" },
		"another medium": func(id *identity) { id.medium = "4" }, "another device": func(id *identity) { id.rdev = 8 },
		"another size": func(id *identity) { id.size = 512 },
	} {
		other := whole
		if change(&other); other.String() == id || other.String() == "" {
			t.Errorf("%s: %q", name, other)
		}
	}
	for name, change := range map[string]func(*identity){
		"no counters": func(id *identity) { id.writes = "" }, "no boot": func(id *identity) { id.boot = "" }, "no medium": func(id *identity) { id.medium = "" },
	} {
		other := whole
		if change(&other); other.String() != "" {
			t.Errorf("%s: %q", name, other)
		}
		if other == whole {
			t.Errorf("%s: no change is seen", name)
		}
	}
}

// unknown is a packed file of which nothing tells when it changes.
type unknown struct{ *strings.Reader }

func (unknown) Close() error     { return nil }
func (unknown) Identity() string { return "" }
func (unknown) Path() string     { return "unknown" }

// What is in a file has no identity where the file has none.
func TestIdentityWithin(t *testing.T) {
	file := unknown{strings.NewReader("0123456789")}
	for name, id := range map[string]string{
		"archive": NewSection(file, Member{"disk", 2, 4}).Identity(),
		"packed":  (&Stream{src: file, packing: Gzip}).Identity(),
	} {
		if id != "" {
			t.Errorf("%s: %q", name, id)
		}
	}
}
