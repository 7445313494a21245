package pipeline

import "testing"

// telling is a file that has an identity, or none.
type telling struct {
	Source
	id string
}

func (f telling) Identity() string { return f.id }

// A disk has an identity if all its files have one.
func TestIdentityOfAll(t *testing.T) {
	for _, c := range []struct {
		files []string
		tells bool
	}{{[]string{"a"}, true}, {[]string{"a", "b"}, true}, {[]string{"", "b"}, false}, {[]string{"a", ""}, false}} {
		d := Opened{files: new(fileList)}
		for _, id := range c.files {
			d.files.add(telling{id: id})
		}
		if id := d.Identity(); (id != "") != c.tells {
			t.Errorf("%q: %q", c.files, id)
		}
	}
}
