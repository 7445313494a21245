package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"imgferry/pipeline"
	"imgferry/sandbox"
	"imgferry/upload"
)

// world is a sandbox behind a proxy in front of each of its services, which tests make fail.
type world struct {
	t          *testing.T
	box        *sandbox.Sandbox
	store, ims *proxy
	dir        string
}

// proxy passes requests on, unless fault handles them.
type proxy struct {
	*httptest.Server
	onward http.Handler // what it passes requests to
	fault  atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
	count  atomic.Int64
}

func (p *proxy) set(f func(http.ResponseWriter, *http.Request) bool) {
	p.fault.Store(&f)
	p.count.Store(0)
}

func newProxy(t *testing.T, to string) *proxy {
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	p := new(proxy)
	// SetURL would rewrite the Host header, which is signed.
	p.onward = &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = target.Scheme, target.Host, r.In.Host
	}, ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { panic(http.ErrAbortHandler) }}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.count.Add(1)
		if f := p.fault.Load(); f != nil && (*f)(w, r) {
			return
		}
		p.onward.ServeHTTP(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	for _, s := range settings {
		t.Setenv(s.env, "")
	}
	for _, env := range []string{envConfig, envProfile} {
		t.Setenv(env, "")
	}
	// Away from the settings and the notes of whoever runs the test.
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(w.dir, "config"))
	t.Setenv("XDG_STATE_HOME", filepath.Join(w.dir, "state"))
	var err error
	w.box, err = sandbox.Start(t.Context(), sandbox.Config{DataDir: filepath.Join(w.dir, "sandbox"), AccessKey: "test-key", SecretKey: "the-test-secret", Password: "the-test-password"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeSandbox(w.box) })
	w.store, w.ims = newProxy(t, w.box.StoreEndpoint()), newProxy(t, w.box.ImageEndpoint())
	return w
}

// disk makes a raw disk of mib MiB, five sixths of it random: too large for one part above 8 MiB.
func (w *world) disk(mib int) string {
	w.t.Helper()
	name := filepath.Join(w.dir, "disk.raw")
	r := rand.New(rand.NewPCG(uint64(mib), 1))
	b := make([]byte, mib<<20)
	for i := 0; i+8 <= len(b); i += 8 {
		if i>>20%6 != 5 {
			v := r.Uint64()
			for j := range 8 {
				b[i+j] = byte(v >> (8 * j))
			}
		}
	}
	if err := os.WriteFile(name, b, 0o666); err != nil {
		w.t.Fatal(err)
	}
	return name
}

type result struct {
	code           int
	stdout, stderr string
}

// hurry waits for next to nothing between tries and looks: what is asked is near.
var hurry = pace{backoff: time.Millisecond, poll: 5 * time.Millisecond, settle: 100 * time.Millisecond}

// imgferry runs the program against the proxies; args override the settings.
func (w *world) imgferry(ctx context.Context, args ...string) result {
	w.t.Helper()
	settings := []string{
		"--obs-endpoint", w.store.URL, "--ak", "test-key", "--sk", "the-test-secret", "--bucket", w.box.Bucket(), "--region", w.box.Region(),
	}
	if args[0] == "push" {
		settings = append(settings, "--ims-endpoint", w.ims.URL, "--project-id", w.box.ProjectID(), "--retries", "2")
	}
	var stdout, stderr bytes.Buffer
	a := &app{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, pace: hurry}
	err := a.run(ctx, append(append([]string{args[0]}, settings...), args[1:]...))
	if strings.Contains(stderr.String()+stdout.String(), "the-test-secret") {
		w.t.Errorf("the secret key is in the output of %v", args)
	}
	return result{exitCode(err), stdout.String(), stderr.String()}
}

// left is the number of unfinished uploads in the bucket.
func (w *world) left() int {
	w.t.Helper()
	w.store.set(pass)
	r := w.imgferry(w.t.Context(), "uploads", "--json")
	var list []unfinished
	if err := json.Unmarshal([]byte(r.stdout), &list); err != nil {
		w.t.Fatalf("uploads: %v, %s", err, r.stderr)
	}
	return len(list)
}

func pass(http.ResponseWriter, *http.Request) bool { return false }

func answer(status int, body string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(status)
		fmt.Fprint(w, body)
		return true
	}
}

func xmlError(code string) string {
	return `<?xml version="1.0" encoding="UTF-8"?><Error><Code>` + code + `</Code><Message>made for the test</Message><RequestId>r1</RequestId></Error>`
}

// when limits a fault to the requests that match.
func when(match func(*http.Request) bool, f func(http.ResponseWriter, *http.Request) bool) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool { return match(r) && f(w, r) }
}

func isPart(n string) func(*http.Request) bool {
	return func(r *http.Request) bool { return r.Method == "PUT" && r.URL.Query().Get("partNumber") == n }
}

func isAnyPart(r *http.Request) bool { return r.Method == "PUT" && r.URL.Query().Has("partNumber") }

func isComplete(r *http.Request) bool {
	return r.Method == "POST" && r.URL.Query().Has("uploadId")
}

func isImport(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/quickimport/action") }

func reset(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }

// from makes everything fail from the first request that matches on.
func from(match func(*http.Request) bool, f func(http.ResponseWriter, *http.Request) bool) func(http.ResponseWriter, *http.Request) bool {
	var begun atomic.Bool
	return func(w http.ResponseWriter, r *http.Request) bool {
		if match(r) {
			begun.Store(true)
		}
		return begun.Load() && f(w, r)
	}
}

// first limits a fault to the first n requests it would hit.
func first(n int64, f func(http.ResponseWriter, *http.Request) bool) func(http.ResponseWriter, *http.Request) bool {
	var hits atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) bool { return hits.Add(1) <= n && f(w, r) }
}

// copyOnce carries out the copy of an object onto itself, loses the answer, and then finds that the
// object has another ETag, as stores do whose copies have parts of their own.
func copyOnce(w *world) func(http.ResponseWriter, *http.Request) bool {
	isCopy := func(r *http.Request) bool { return r.Header.Get("X-Amz-Copy-Source") != "" }
	lost := first(1, func(_ http.ResponseWriter, r *http.Request) bool {
		w.store.onward.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	})
	replaced := answer(412, xmlError("PreconditionFailed"))
	return when(isCopy, func(rw http.ResponseWriter, r *http.Request) bool { return lost(rw, r) || replaced(rw, r) })
}

func TestFaults(t *testing.T) {
	w := newWorld(t)
	disk := w.disk(11) // three parts
	for _, c := range []struct {
		name       string
		store, ims func(http.ResponseWriter, *http.Request) bool
		args       []string
		code       int
		says       string
		left       int // unfinished uploads
	}{
		{name: "wrong secret", args: []string{"--sk", "wrong"}, code: exitDenied, says: "access denied"},
		{name: "wrong access key", args: []string{"--ak", "nobody"}, code: exitDenied, says: "access denied"},
		{name: "no bucket", args: []string{"--bucket", "no-such-bucket"}, code: exitNotFound, says: "bucket does not exist"},
		{name: "wrong project", args: []string{"--project-id", "0123456789abcdef0123456789abcdef"}, code: exitUsage, says: "nothing was sent"},
		{name: "no store", args: []string{"--obs-endpoint", "http://127.0.0.1:1"}, code: exitUnreachable, says: "gave up after"},
		{name: "no image service", args: []string{"--ims-endpoint", "http://127.0.0.1:1"}, code: exitUnreachable, says: "nothing was sent"},
		{name: "store answers 500", store: answer(500, xmlError("InternalError")), code: exitUnreachable, says: "InternalError"},
		{name: "store answers garbage", store: answer(200, "<html>hello"), code: exitUnreachable},
		{name: "store resets", store: reset, code: exitUnreachable},
		{name: "part 2 answers 503", store: when(isPart("2"), answer(503, xmlError("SlowDown"))), code: exitUnreachable, says: "uploads --abort", left: 1},
		{name: "part 2 answers 503 once", store: when(isPart("2"), first(1, answer(503, xmlError("SlowDown")))), code: 0},
		{name: "part 2 reset once", store: when(isPart("2"), first(1, reset)), code: 0},
		{name: "part 2 denied", store: when(isPart("2"), answer(403, xmlError("AccessDenied"))), code: exitDenied, says: "AccessDenied"},
		{name: "part 2 no space", store: when(isPart("2"), answer(507, xmlError("InsufficientStorage"))), code: exitNoSpace},
		{name: "upload vanishes", store: when(isPart("2"), answer(404, xmlError("NoSuchUpload"))), code: exitNotFound, says: "upload does not exist"},
		{name: "complete reset once", store: when(isComplete, first(1, reset)), code: 0},
		{name: "complete says error in 200", store: when(isComplete, answer(200, xmlError("InternalError"))), code: exitUnreachable, left: 1},
		{name: "copy made and answer lost", store: copyOnce(w), code: 0},
		{name: "store dies at the first parts", store: from(isAnyPart, reset), code: exitUnreachable, says: "To remove what was left behind", left: 1},
		{name: "import denied", ims: when(isImport, answer(403, `{"error_code":"IMG.0026","error_msg":"no role"}`)), code: exitDenied, says: "IMG.0026"},
		{name: "import refused", ims: when(isImport, answer(400, `{"error_code":"IMG.0015","error_msg":"quota"}`)), code: exitUsage, says: "IMG.0015"},
		{name: "import reply lost", ims: when(isImport, reset), code: exitUnreachable, says: "look for an image with the tag imgferry-digest="},
		{name: "import answers garbage", ims: when(isImport, answer(200, "<html>")), code: exitUnreachable},
		{name: "job query fails once", ims: when(func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/jobs/") }, first(1, answer(503, ""))), code: 0},
		{name: "job fails", ims: when(func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/jobs/") },
			answer(200, `{"status":"FAIL","job_id":"j","error_code":"IMG.0057","fail_reason":"damaged"}`)), code: exitImport, says: "IMG.0057"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.t = t
			w.store.set(pass)
			w.ims.set(pass)
			if c.store != nil {
				w.store.set(c.store)
			}
			if c.ims != nil {
				w.ims.set(c.ims)
			}
			key := strings.ReplaceAll(c.name, " ", "-") + ".zvhd2"
			r := w.imgferry(t.Context(), append([]string{"push", "--part-size", "5MiB", "--key", key, "--name", key, "--overwrite", disk}, c.args...)...)
			if r.code != c.code || !strings.Contains(r.stderr, c.says) {
				t.Errorf("exit code %d, want %d and %q:\n%s", r.code, c.code, c.says, r.stderr)
			}
			if (r.stdout != "") != (c.code == 0) {
				t.Errorf("stdout: %q", r.stdout)
			}
			if n := w.left(); n != c.left {
				t.Errorf("%d unfinished uploads left, want %d", n, c.left)
			}
			if c.left > 0 {
				if r := w.imgferry(t.Context(), "uploads", "--abort", key); r.code != 0 || !strings.Contains(r.stdout, "(aborted)") || w.left() != 0 {
					t.Errorf("uploads --abort: %d %s%s", r.code, r.stdout, r.stderr)
				}
			}
		})
	}
}

// An interrupt at any request: the run ends at once, keeps at most one upload, and the same
// command goes on to the object that an uninterrupted run makes.
func TestInterrupt(t *testing.T) {
	w := newWorld(t)
	disk := w.disk(11) // three parts
	before := runtime.NumGoroutine()
	push := func(ctx context.Context, key string) (result, pipeline.Report) {
		r := w.imgferry(ctx, "push", "--json", "--new-image", "--part-size", "5MiB", "--concurrency", "1", "--key", key, disk)
		var report pipeline.Report
		if r.code == 0 {
			if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
				t.Fatal(err)
			}
		}
		return r, report
	}
	_, whole := push(t.Context(), "whole.zvhd2")
	requests := w.store.count.Load() + w.ims.count.Load()
	if whole.ETag == "" || requests < 10 {
		t.Fatalf("%+v in %d requests", whole, requests)
	}
	resumed := 0
	step := int64(1)
	if raced {
		step = 2
	}
	for n := int64(1); n < requests; n += step {
		key := fmt.Sprintf("cut-%d.zvhd2", n)
		ctx, cancel := context.WithCancelCause(t.Context())
		var seen atomic.Int64
		cut := func(http.ResponseWriter, *http.Request) bool {
			if seen.Add(1) == n {
				cancel(upload.ErrInterrupted)
				// The request hangs as on a dead link until the client gives up on it.
				time.Sleep(50 * time.Millisecond)
			}
			return false
		}
		w.store.set(cut)
		w.ims.set(cut)
		r, _ := push(ctx, key)
		after := seen.Load() - n
		cancel(nil)
		w.store.set(pass)
		w.ims.set(pass)
		if seen.Load() < n {
			break // this run needed fewer requests
		}
		if r.code != exitInterrupted && r.code != 0 {
			t.Errorf("request %d: exit code %d: %s", n, r.code, r.stderr)
		}
		if after > 10 {
			t.Errorf("request %d: %d more after the interrupt", n, after)
		}
		left := w.left()
		if left > 1 {
			t.Fatalf("request %d: %d unfinished uploads", n, left)
		}
		kept := strings.Contains(r.stderr, "To go on:")
		again, report := push(t.Context(), key)
		if again.code != 0 || report.ObjectSize != whole.ObjectSize || report.Digest != whole.Digest {
			t.Fatalf("request %d: again: %d %+v: %s", n, again.code, report, again.stderr)
		}
		if kept && report.Skipped > 0 {
			resumed++
		}
		if rest := w.left(); rest != 0 {
			t.Fatalf("request %d: %d unfinished uploads after the second run:\n%s%s", n, rest, r.stderr, again.stderr)
		}
	}
	if resumed == 0 {
		t.Error("no run was resumed with a part that was there")
	}
	w.store.CloseClientConnections()
	w.ims.CloseClientConnections()
	for deadline := time.Now().Add(time.Minute); runtime.NumGoroutine() > before+20; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

// With --abort-on-interrupt nothing is kept.
func TestAbortOnInterrupt(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	w.store.set(func(_ http.ResponseWriter, r *http.Request) bool {
		if isPart("2")(r) {
			cancel(upload.ErrInterrupted)
		}
		return false
	})
	r := w.imgferry(ctx, "push", "--concurrency", "1", "--abort-on-interrupt", w.disk(20))
	if r.code != exitInterrupted || strings.Contains(r.stderr, "To go on") {
		t.Errorf("exit code %d: %s", r.code, r.stderr)
	}
	if n := w.left(); n != 0 {
		t.Errorf("%d unfinished uploads", n)
	}
}

// A source that changes while it is read: nothing is completed, nothing stays.
func TestSourceChanges(t *testing.T) {
	for name, change := range map[string]func(*os.File) error{
		"written to": func(f *os.File) error { _, err := f.WriteAt([]byte("a guest that still runs"), 1<<20); return err },
		"cut":        func(f *os.File) error { return f.Truncate(9 << 20) },
	} {
		// Raw parts are read while they are sent, so that a cut shows as a failed read there.
		for _, format := range []string{"zvhd2", "raw"} {
			w := newWorld(t)
			disk := w.disk(20)
			w.store.set(func(_ http.ResponseWriter, r *http.Request) bool {
				if isPart("2")(r) {
					f, err := os.OpenFile(disk, os.O_WRONLY, 0)
					if err == nil {
						err = change(f)
						f.Close()
					}
					if err != nil {
						t.Error(err)
					}
				}
				return false
			})
			args := []string{"push", "--concurrency", "1", "--format", format, disk}
			if format == "raw" {
				args = append(args, "--unproven-bitmap")
			}
			r := w.imgferry(t.Context(), args...)
			if r.code != exitChanged || !strings.Contains(r.stderr, "changed while it was read") || r.stdout != "" {
				t.Errorf("%s, %s: exit code %d: %s", name, format, r.code, r.stderr)
			}
			if n := w.left(); n != 0 {
				t.Errorf("%s, %s: %d unfinished uploads", name, format, n)
			}
		}
	}
}

// An interrupted conversion leaves what was there before.
func TestInterruptedConvert(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "out.raw")
	if err := os.WriteFile(target, []byte("old"), 0o666); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(upload.ErrInterrupted)
	var out, errs bytes.Buffer
	err := run(ctx, []string{"convert", filepath.Join("..", "..", "testdata", "linux.qcow2"), target, "-O", "raw"}, nil, &out, &errs)
	if exitCode(err) != exitInterrupted || !errors.Is(err, upload.ErrInterrupted) {
		t.Errorf("%v", err)
	}
	if b, _ := os.ReadFile(target); string(b) != "old" {
		t.Errorf("the target is %q", b)
	}
	if es, _ := os.ReadDir(dir); len(es) != 1 {
		t.Errorf("left behind: %v", es)
	}
}

// A login that expires while a disk is sent costs nothing of what was sent.
func TestLoginExpires(t *testing.T) {
	w := newWorld(t)
	disk := w.disk(11)
	args := []string{"push", "--json", "--part-size", "5MiB", "--concurrency", "1", disk}
	w.store.set(from(isPart("2"), answer(400, xmlError("ExpiredToken"))))
	r := w.imgferry(t.Context(), args...)
	if r.code != exitDenied || !strings.Contains(r.stderr, "the login has expired") || !strings.Contains(r.stderr, "\nTo go on:    log in again") || !strings.Contains(r.stderr, "\nTo give up:  imgferry uploads --abort") {
		t.Errorf("exit code %d: %s", r.code, r.stderr)
	}
	if n := w.left(); n != 1 {
		t.Errorf("%d unfinished uploads", n)
	}
	w.store.set(pass)
	again := w.imgferry(t.Context(), args...)
	var report pipeline.Report
	if err := json.Unmarshal([]byte(again.stdout), &report); err != nil || again.code != 0 || report.Skipped == 0 {
		t.Errorf("%v, exit code %d: %s%s", err, again.code, again.stdout, again.stderr)
	}
}
