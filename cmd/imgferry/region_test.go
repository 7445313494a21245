package main

import (
	"net/http"
	"strings"
	"testing"
)

// A region that is not the bucket's is the user's to correct, and so is the place of the bucket's name.
func TestWrongSettings(t *testing.T) {
	w := newWorld(t)
	disk := w.disk(1)
	for name, c := range map[string]struct {
		flag  string
		fault func(http.ResponseWriter, *http.Request) bool
	}{
		"signed for another": {"--region", nil},
		"elsewhere":          {"--region", answer(301, `<Error><Code>PermanentRedirect</Code><Message>x</Message><Region>eu-west-1</Region></Error>`)},
		"in the path":        {"--addressing-style virtual-host", answer(403, `<Error><Code>VirtualHostDomainRequired</Code><Message>x</Message></Error>`)},
	} {
		args := []string{"push", disk}
		w.store.set(pass)
		if c.fault != nil {
			w.store.set(c.fault)
		} else {
			args = append(args, "--region", "mars-1")
		}
		r := w.imgferry(t.Context(), args...)
		if r.code != exitUsage || !strings.Contains(r.stderr, c.flag) {
			t.Errorf("%s: %d %s", name, r.code, r.stderr)
		}
	}
}
