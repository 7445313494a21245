package main

import (
	"net/http"
	"strings"
	"testing"
)

// A region that is not the bucket's is the user's to correct.
func TestOtherRegion(t *testing.T) {
	w := newWorld(t)
	disk := w.disk(1)
	for name, fault := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"signed for another": nil,
		"elsewhere":          answer(301, `<Error><Code>PermanentRedirect</Code><Message>x</Message><Region>eu-west-1</Region></Error>`),
	} {
		args := []string{"push", disk}
		w.store.set(pass)
		if fault != nil {
			w.store.set(fault)
		} else {
			args = append(args, "--region", "mars-1")
		}
		r := w.imgferry(t.Context(), args...)
		if r.code != exitUsage || !strings.Contains(r.stderr, "--region") {
			t.Errorf("%s: %d %s", name, r.code, r.stderr)
		}
	}
}
