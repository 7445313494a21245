package imageservice

import (
	"errors"
	"testing"

	"imgferry/limits"
)

// What a list of the service or an example of the reference names is taken, and newer versions of the same
// systems; loose names, which imgferry os-versions makes exact, are not.
func TestOSVersionNames(t *testing.T) {
	good := []string{"", "CentOS 7.3 64bit", "Ubuntu 14.04 server 64bit", "Other Linux (64 bit)", "Other", "Debian GNU/Linux 13.1.0 64bit", "Rocky Linux 9.5 64bit"}
	for _, p := range osVersions {
		good = append(good, p.versions...)
	}
	for _, name := range good {
		if err := checkOSVersion(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"Foo 12", "ubuntu 22.04", "Ubuntu 22.04", "debian12 64bit", "x", " CentOS 7.0 64bit"} {
		var f *failure
		if err := checkOSVersion(name); !errors.As(err, &f) || f.code != limits.OSVersionInvalid {
			t.Errorf("%q: %v", name, err)
		}
	}
}
