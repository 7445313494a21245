package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A web server that says nothing of versions has another disk of the same size when an upload is resumed: the
// object is that disk, and no mixture of both.
func TestResumeFromWhatTellsNothing(t *testing.T) {
	s := newShell(t)
	disk := s.disk(20)
	first, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	second := bytes.Clone(first)
	clear(second[8<<20 : 8<<20+4096]) // in the second part
	if err := os.WriteFile(disk, second, 0o666); err != nil {
		t.Fatal(err)
	}
	var serves atomic.Pointer[[]byte]
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(*serves.Load()))
	}))
	t.Cleanup(web.Close)
	upload := func(code int, from, key string, also ...string) result {
		t.Helper()
		return s.want(code, append([]string{"upload", from, "s3://" + s.box.Bucket() + "/" + key, "--part-size", "5MiB", "--concurrency", "1", "--retries", "2"}, also...)...)
	}
	for format, flags := range map[string][]string{"zvhd2": nil, "raw": {"-O", "raw", "--unproven-bitmap"}} {
		serves.Store(&first)
		s.store.set(when(isPart("3"), answer(503, xmlError("SlowDown"))))
		r := upload(exitUnreachable, web.URL+"/disk.raw", format, flags...)
		const notice = "no journal of the upload is kept, since nothing tells when the source's content changes"
		if !strings.Contains(r.stderr, notice) {
			t.Errorf("%q is not in\n%s", notice, r.stderr)
		}
		if left, _ := filepath.Glob(filepath.Join(s.dir, "state", "imgferry", "uploads", "*")); len(left) > 0 {
			t.Errorf("left %v", left)
		}

		serves.Store(&second)
		s.store.set(pass)
		r = upload(0, web.URL+"/disk.raw", format, append(flags, "--verify")...)
		if !strings.Contains(r.stderr, "is resumed") || !strings.Contains(r.stderr, "was there already") {
			t.Errorf("not resumed:\n%s", r.stderr)
		}
		upload(0, disk, "whole-"+format, flags...)
		got, gerr := s.bucket().Stat(t.Context(), format)
		want, werr := s.bucket().Stat(t.Context(), "whole-"+format)
		if gerr != nil || werr != nil || got.Size != want.Size || got.ETag != want.ETag {
			t.Errorf("%s: %+v is not %+v: %v, %v", format, got, want, gerr, werr)
		}
	}
}
