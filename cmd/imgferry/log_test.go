package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
)

// records reads a stderr that must be nothing but JSON, one object a line.
func records(t *testing.T, stderr string) []map[string]any {
	t.Helper()
	var all []map[string]any
	for line := range strings.Lines(stderr) {
		var r map[string]any
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Errorf("no JSON: %q", line)
		}
		all = append(all, r)
	}
	return all
}

func TestLogRequests(t *testing.T) {
	s := newShell(t)
	disk := s.disk(1)
	r := s.want(0, "push", "--log-level", "debug", "--log-format", "json", disk)
	seen := make(map[string]int)
	for _, record := range records(t, r.stderr) {
		if record["msg"] != "request" {
			seen["notices"]++
			continue
		}
		if record["level"] != "DEBUG" || record["method"] == "" || record["status"] == nil || record["duration"] == nil || record["attempt"] != 1.0 {
			t.Errorf("%v", record)
		}
		switch record["host"] {
		case strings.TrimPrefix(s.store.URL, "http://"):
			seen["store"]++
		case strings.TrimPrefix(s.ims.URL, "http://"):
			seen["images"]++
		}
	}
	if seen["store"] < 4 || seen["images"] < 3 || seen["notices"] < 2 {
		t.Errorf("%v:\n%s", seen, r.stderr)
	}
	if strings.Contains(r.stderr, "Signature") || strings.Contains(r.stderr, "AWS4") {
		t.Errorf("a signature is in the log:\n%s", r.stderr)
	}
	// By default there is no log, and --log-level off says no more.
	for _, level := range []string{"warn", "error", "off"} {
		if r := s.want(0, "images", "list", "--log-level", level); r.stderr != "" {
			t.Errorf("%s: %q", level, r.stderr)
		}
	}
	s.want(exitUsage, "images", "list", "--log-level", "loud")
	s.want(exitUsage, "images", "list", "--log-format", "xml")
}

// Each failure ends as one record, also one of the command line itself.
func TestLogFailures(t *testing.T) {
	s := newShell(t)
	for _, c := range []struct {
		code int
		args []string
	}{
		{exitNotFound, []string{"images", "show", "none"}},
		{exitNotFound, []string{"info", filepath.Join(s.dir, "none")}},
		{exitUsage, []string{"push", "--tag", "x", "y"}},
		{exitUsage, []string{"push"}},
		{exitUsage, []string{"--nope"}},
		{exitUsage, []string{"images", "show", "--log-level", "off"}},
	} {
		r := s.want(c.code, append([]string{"--log-format", "json"}, c.args...)...)
		all := records(t, r.stderr)
		if len(all) != 1 || all[0]["level"] != "ERROR" || all[0]["exit_code"] != float64(c.code) {
			t.Errorf("%v: %s", c.args, r.stderr)
		}
	}
}

// The image service's retries: the first one is for the log, further ones are told.
func TestServiceRetriesAreTold(t *testing.T) {
	s := newShell(t)
	const told = "trying again: the image service: status 503"
	for failures, want := range map[int64][2]int{1: {0, 1}, 2: {1, 2}} {
		s.ims.set(first(failures, answer(503, "")))
		if r := s.want(0, "images", "list", "-o", "json"); strings.Count(r.stderr, told) != want[0] || r.stdout != "[]\n" {
			t.Errorf("%d failures: %+v", failures, r)
		}
		s.ims.set(first(failures, answer(503, "")))
		r := s.want(0, "images", "list", "--log-level", "info", "--log-format", "json")
		n := 0
		for _, record := range records(t, r.stderr) {
			if record["msg"] == told {
				n++
			}
		}
		if n != want[1] {
			t.Errorf("%d failures: %s", failures, r.stderr)
		}
	}
	s.ims.set(first(1, reset))
	if r := s.want(0, "images", "list", "--log-level", "debug"); !strings.Contains(r.stderr, "attempt=2 status=200") || !strings.Contains(r.stderr, "attempt=1 error=") {
		t.Errorf("%s", r.stderr)
	}
}

func TestPlainQuery(t *testing.T) {
	for in, want := range map[string]string{
		"":                                "",
		"uploads":                         "?uploads=",
		"partNumber=7&uploadId=u":         "?partNumber=7&uploadId=u",
		"X-Amz-Signature=secret&limit=1":  "?X-Amz-Signature=...&limit=1",
		"token=secret&AccessKeyId=hidden": "?AccessKeyId=...&token=...",
		"name=a%1b%5bb":                   "?name=a%1B%5Bb",
	} {
		q, err := url.ParseQuery(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := plainQuery(q); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// What the log has of a request: no header, no query value that may be a secret, no user name.
func TestObservedHidesSecrets(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	var stderr bytes.Buffer
	a := &app{stdout: io.Discard, stderr: &stderr, logLevel: "debug", logFormat: "text"}
	a.startLog()
	r, err := http.NewRequest("GET", strings.Replace(server.URL, "http://", "http://user:secret@", 1)+"/a?sig=secret&prefix=p", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "secret")
	resp, err := a.observeStore(http.DefaultTransport).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	line := stderr.String()
	if strings.Contains(line, "secret") || !strings.Contains(line, "status=404") || !strings.Contains(line, `path="/a?prefix=p&sig=..."`) || strings.Count(line, "\n") != 1 {
		t.Errorf("%s", line)
	}
}

// A line of the log or a notice never shares a line with the progress bar.
func TestLogPastBar(t *testing.T) {
	var stderr bytes.Buffer
	a := &app{stdout: io.Discard, stderr: &stderr, logLevel: "info", logFormat: "text"}
	a.startLog()
	show := a.bar()
	for n, line := range []func(){
		func() { a.log.Info("a record") }, func() { a.say("a notice") }, func() { a.warn("a warning") }, func() { a.onRetry("", 1, io.EOF, 0) },
	} {
		stderr.Reset()
		show(snapshot{read: int64(n+1) << 20, total: 10 << 20})
		drawn := stderr.Len()
		if drawn == 0 {
			t.Fatal("no bar")
		}
		line()
		text := stderr.String()[drawn:]
		// The bar is wiped by spaces between two carriage returns.
		wiped, rest, ok := strings.Cut(strings.TrimPrefix(text, "\r"), "\r")
		if !ok || strings.Trim(wiped, " ") != "" || len(wiped) < 30 || strings.Contains(rest, "\r") || !strings.HasSuffix(rest, "\n") {
			t.Errorf("%d: %q", n, text)
		}
	}
}
