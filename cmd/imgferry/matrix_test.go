package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"imgferry/ims"
	"imgferry/profile"
	"imgferry/sandbox"
	"imgferry/upload"
	"imgferry/upload/obs"
)

// The matrix: every command that reaches the cloud, every call that it makes there, every way in which
// the call can fail, each time it is tried. What the program must do then is in testdata/http.txt.

// fault is one way in which a call fails.
type fault struct {
	name   string
	answer func(c *cell, w http.ResponseWriter, r *http.Request)
}

// status answers with that status, and the body that the store or the service sends with it.
func status(status int) fault {
	return fault{fmt.Sprint(status), func(c *cell, w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		body := xmlError(map[int]string{403: "AccessDenied", 404: c.call.missing, 409: "OperationAborted", 429: "TooManyRequests", 500: "InternalError", 503: "SlowDown"}[status])
		switch {
		case c.call.missing == "identity":
			body = fmt.Sprintf(`{"error":{"code":%d,"message":"Made for the test.","title":"title"}}`, status)
		case c.call.missing == "":
			body = fmt.Sprintf(`{"error_code":"IMG.%04d","error_msg":"Made for the test."}`, status)
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}}
}

// lose carries out what is asked for, with all that follows from it, and loses the answer.
func lose(c *cell, _ http.ResponseWriter, r *http.Request) {
	answer := httptest.NewRecorder()
	c.onward(answer, r)
	var started struct {
		Job string `json:"job_id"`
	}
	if json.Unmarshal(answer.Body.Bytes(), &started) == nil && started.Job != "" && r.Method != http.MethodGet {
		// What the program finds must not depend on how far the job is. Jobs may fail.
		_, _ = c.w.images.WaitJob(c.w.t.Context(), started.Job, ims.Wait{Interval: 5 * time.Millisecond})
	}
	panic(http.ErrAbortHandler)
}

// faults are in the order of the table's lines. What the program sent comes back with the garbage of a
// service, as from a proxy that shows what it can't handle.
var faults = []fault{
	status(403), status(404), status(409), status(429), status(500), status(503),
	{"garbage", func(c *cell, w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(io.LimitReader(r.Body, 4<<10))
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "<html>an intranet page")
		if c.call.missing == "" || c.call.missing == "identity" {
			fmt.Fprintf(w, " for %s %s %s", r.Header.Get("Authorization"), r.Header.Get("X-Auth-Token"), body)
		}
	}},
	{"reset", func(*cell, http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
	{"nothing", func(c *cell, _ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		select {
		case <-r.Context().Done():
		case <-c.ended:
		}
		panic(http.ErrAbortHandler)
	}},
	// Carried out, but the answer is lost.
	{"lost", lose},
	// The first time only.
	{"1 lost", func(c *cell, w http.ResponseWriter, r *http.Request) {
		if c.hits.Load() == 1 {
			lose(c, w, r)
		}
		c.onward(w, r)
	}},
}

// call is one request of a command.
type call struct {
	name    string
	service bool // else the store
	// missing is the code of the store's 404; "" and "identity": a service answers.
	missing string
	match   func(c *cell, r *http.Request) bool
	// prepare makes the call happen, and may return arguments for that.
	prepare func(c *cell) []string
	// also is a fault that makes the call happen.
	also func(w http.ResponseWriter, r *http.Request) bool
}

func has(method, parameter string) func(*cell, *http.Request) bool {
	return func(_ *cell, r *http.Request) bool { return r.Method == method && r.URL.Query().Has(parameter) }
}

// headObject matches a look at the object in one phase of a push.
func headObject(phase string) func(*cell, *http.Request) bool {
	return func(c *cell, r *http.Request) bool {
		return r.Method == "HEAD" && strings.Contains(strings.Trim(r.URL.Path, "/"), "/") && !isBitmap(r) && c.phase() == phase
	}
}

func isBitmap(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, ".mf") }

func isList(query string) func(*cell, *http.Request) bool {
	return func(_ *cell, r *http.Request) bool {
		if r.Method != "GET" || r.URL.Path != "/v2/cloudimages" {
			return false
		}
		q, kind := r.URL.Query(), "first"
		switch {
		case q.Has("id"):
			kind = "id"
		case q.Has("tag"):
			kind = "tag"
		case q.Has("name"):
			kind = "name"
		case q.Has("owner"):
			kind = "own"
		}
		return kind == query
	}
}

// stranger begins an upload of the cell's key, as another program might.
func stranger(c *cell) []string {
	if _, err := c.w.bucket.Begin(c.w.t.Context(), c.key, nil); err != nil {
		c.w.t.Error(err)
	}
	return nil
}

func pushCalls(raw bool) []call {
	calls := []call{
		{name: "HEAD bucket", missing: "NoSuchBucket", match: func(_ *cell, r *http.Request) bool {
			return r.Method == "HEAD" && !strings.Contains(strings.Trim(r.URL.Path, "/"), "/")
		}},
		{name: "GET images, first", service: true, match: isList("first")},
		{name: "GET images by name", service: true, match: isList("name")},
		{name: "HEAD object, first", missing: "NoSuchKey", match: headObject("before")},
		{name: "list uploads", missing: "NoSuchBucket", match: has("GET", "uploads")},
		{name: "list parts", missing: "NoSuchUpload", match: has("GET", "uploadId"), prepare: stranger},
		{name: "initiate", missing: "NoSuchBucket", match: has("POST", "uploads")},
		{name: "PUT part", missing: "NoSuchUpload", match: has("PUT", "partNumber")},
		{name: "PUT part 2", missing: "NoSuchUpload", match: func(_ *cell, r *http.Request) bool { return isPart("2")(r) },
			prepare: func(c *cell) []string { return []string{"--concurrency", "1", c.w.large} }},
		{name: "abort", missing: "NoSuchUpload", match: has("DELETE", "uploadId"),
			also: when(isAnyPart, answer(403, xmlError("AccessDenied")))},
		{name: "HEAD object, sent", missing: "NoSuchKey", match: headObject("sent")},
		{name: "Complete", missing: "NoSuchUpload", match: has("POST", "uploadId")},
		{name: "HEAD object, complete", missing: "NoSuchKey", match: headObject("complete")},
		{name: "copy metadata", missing: "NoSuchKey", match: func(_ *cell, r *http.Request) bool { return r.Header.Get("X-Amz-Copy-Source") != "" }},
	}
	if raw {
		calls = append(calls,
			call{name: "HEAD bitmap", missing: "NoSuchKey", match: func(_ *cell, r *http.Request) bool { return r.Method == "HEAD" && isBitmap(r) }},
			call{name: "PUT bitmap", missing: "NoSuchBucket", match: func(_ *cell, r *http.Request) bool {
				return r.Method == "PUT" && r.URL.RawQuery == "" && isBitmap(r)
			}})
	}
	return append(calls,
		call{name: "GET images by tag", service: true, match: isList("tag")},
		call{name: "POST quickimport", service: true, match: func(_ *cell, r *http.Request) bool { return isImport(r) }},
		call{name: "GET job", service: true, match: func(_ *cell, r *http.Request) bool { return strings.Contains(r.URL.Path, "/jobs/") }},
		call{name: "GET image", service: true, match: isList("id")},
		call{name: "DELETE object", missing: "NoSuchKey", prepare: func(*cell) []string { return []string{"--delete-object"} },
			match: func(_ *cell, r *http.Request) bool { return r.Method == "DELETE" && r.URL.RawQuery == "" }},
	)
}

// command is one that reaches the cloud, and its calls.
type command struct {
	name  string
	calls []call
	args  func(c *cell) []string
}

// image makes an image of the cell's name.
func image(c *cell) string {
	r := c.w.run(c.w.t.Context(), "push", "--new-image", "--os-version", "Other", "--key", "ready.zvhd2", "--name", c.key, c.w.small,
		"--obs-endpoint", c.w.box.StoreEndpoint(), "--ims-endpoint", c.w.box.ImageEndpoint())
	if r.code != 0 {
		c.w.t.Errorf("an image for %v: %d %s", c, r.code, r.stderr)
	}
	return strings.TrimSpace(r.stdout)
}

func matrixCommands() []command {
	listUploads := call{name: "list uploads", missing: "NoSuchBucket", match: has("GET", "uploads"), prepare: stranger}
	listParts := call{name: "list parts", missing: "NoSuchUpload", match: has("GET", "uploadId"), prepare: stranger}
	abort := call{name: "abort", missing: "NoSuchUpload", match: has("DELETE", "uploadId"), prepare: stranger}
	byID := call{name: "GET image", service: true, match: isList("id")}
	push := func(args ...string) func(*cell) []string {
		return func(c *cell) []string {
			file := c.w.small
			if c.call.name == "PUT part 2" {
				file = ""
			}
			args := append([]string{"push", "--os-version", "Other", "--key", c.key, "--name", c.key}, args...)
			if file != "" {
				args = append(args, file)
			}
			return args
		}
	}
	login := []call{
		{name: "POST tokens", service: true, missing: "identity", match: func(_ *cell, r *http.Request) bool { return r.URL.Path == "/v3/auth/tokens" }},
		{name: "POST securitytokens", service: true, missing: "identity", match: func(_ *cell, r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/securitytokens") }},
	}
	return []command{
		{"push", pushCalls(false), push()},
		{"push raw", pushCalls(true), push("--format", "raw", "--unproven-bitmap")},
		{"uploads", []call{listUploads, listParts}, func(c *cell) []string { return []string{"uploads", c.key} }},
		{"uploads --abort", []call{listUploads, listParts, abort}, func(c *cell) []string { return []string{"uploads", "--abort", c.key} }},
		{"images list", []call{{name: "GET images", service: true, match: isList("own")}}, func(c *cell) []string { return []string{"images", "list"} }},
		{"images show ID", []call{byID}, func(c *cell) []string { return []string{"images", "show", image(c)} }},
		{"images show NAME", []call{{name: "GET images by name", service: true, match: isList("name")}},
			func(c *cell) []string { return []string{"images", "show", c.key} }},
		{"images delete", []call{byID, {name: "DELETE image", service: true, match: func(_ *cell, r *http.Request) bool { return r.Method == "DELETE" }}},
			func(c *cell) []string { return []string{"images", "delete", "--yes", image(c)} }},
		{"login", login, func(c *cell) []string { return []string{"login", "--password-stdin"} }},
		{"completion of --bucket", []call{{name: "GET buckets", missing: "NoSuchBucket", match: func(_ *cell, r *http.Request) bool { return r.Method == "GET" && r.URL.Path == "/" }}},
			func(c *cell) []string { return []string{"__complete", "push"} }},
		{"push --via import", []call{serviceCall("POST", "/v2/cloudimages/action")}, push("--via", "import")},
		{"push --via register", []call{serviceCall("POST", "/v2/images"), serviceCall("PUT", "/upload")}, push("--via", "register")},
		{"images import", []call{serviceCall("POST", "/v2/cloudimages/action"), {name: "GET job", service: true, match: isJob}}, func(c *cell) []string {
			image(c)
			return []string{"images", "import", c.ready(), "--name", c.key, "--os-version", "CentOS 7.6 64bit"}
		}},
		{"images import, fast", []call{serviceCall("POST", "/quickimport/action")}, func(c *cell) []string {
			image(c)
			return []string{"images", "import", c.ready(), "--via", "fast", "--name", c.key, "--os-version", "CentOS 7.6 64bit"}
		}},
		{"images create", []call{serviceCall("POST", "/v2/cloudimages/action")}, func(c *cell) []string {
			return []string{"images", "create", "--name", c.key, "--instance", "i"}
		}},
		{"images create --backup", []call{serviceCall("POST", "/wholeimages/action")}, func(c *cell) []string {
			return []string{"images", "create", "--name", c.key, "--backup", "b"}
		}},
		{"images create-metadata", []call{serviceCall("POST", "/v2/images")}, func(c *cell) []string { return []string{"images", "create-metadata", "--name", c.key} }},
		{"images register", []call{serviceCall("PUT", "/upload")}, func(c *cell) []string {
			m, err := c.w.images.CreateMetadata(c.w.t.Context(), ims.MetadataRequest{Name: c.key, OSVersion: "CentOS 7.6 64bit"})
			if err != nil {
				c.w.t.Error(err)
			}
			image(c)
			return []string{"images", "register", m.ID, c.ready()}
		}},
		{"images export", []call{byID, serviceCall("POST", "/file")}, func(c *cell) []string {
			return []string{"images", "export", image(c), c.w.box.Bucket() + ":" + c.key + ".qcow2"}
		}},
		{"images copy", []call{serviceCall("POST", "/copy")}, func(c *cell) []string { return []string{"images", "copy", image(c), c.key} }},
		{"images update", []call{serviceCall("PATCH", "")}, func(c *cell) []string { return []string{"images", "update", image(c), "--description", "x"} }},
		{"images tag add", []call{serviceCall("POST", "/action"), serviceCall("GET", "/tags")}, func(c *cell) []string { return []string{"images", "tag", "add", image(c), "a=b"} }},
		{"images tag remove", []call{serviceCall("POST", "/action")}, func(c *cell) []string {
			id := image(c)
			if err := c.w.images.AddTags(c.w.t.Context(), id, ims.Tag{Key: "a"}); err != nil {
				c.w.t.Error(err)
			}
			return []string{"images", "tag", "remove", id, "a"}
		}},
		{"images share", []call{serviceCall("POST", "/members")}, func(c *cell) []string { return []string{"images", "share", image(c), "--with", projectB} }},
		{"images unshare", []call{serviceCall("DELETE", "/members")}, func(c *cell) []string { return []string{"images", "unshare", image(c), "--from", projectB} }},
		{"images accept", []call{serviceCall("PUT", "/members")}, func(c *cell) []string { return []string{"images", "accept", image(c)} }},
		{"quota", []call{serviceCall("GET", "/quota")}, func(c *cell) []string { return []string{"quota"} }},
		{"os-versions", []call{serviceCall("GET", "/os_version")}, func(c *cell) []string { return []string{"os-versions", "centos 7.6"} }},
		{"jobs show", []call{{name: "GET job", service: true, match: isJob}}, func(c *cell) []string { return []string{"jobs", "show", c.key} }},
		{"jobs wait", []call{{name: "GET job", service: true, match: isJob}}, func(c *cell) []string { return []string{"jobs", "wait", c.key, "--wait-timeout", "10s"} }},
	}
}

// serviceCall is the call of the image service with that method, whose path ends like that.
func serviceCall(method, path string) call {
	name := method + " " + path[strings.LastIndexByte(path, '/')+1:]
	return call{name: strings.TrimSpace(name), service: true, match: func(_ *cell, r *http.Request) bool {
		return r.Method == method && strings.HasSuffix(r.URL.Path, path)
	}}
}

func isJob(_ *cell, r *http.Request) bool { return strings.Contains(r.URL.Path, "/job") }

// ready is the object that image makes its images of.
func (c *cell) ready() string { return c.w.box.Bucket() + ":ready.zvhd2" }

// cell is one line of the table while it is found.
type cell struct {
	w       *matrixWorld
	command command
	call    call
	fault   fault
	key     string

	timeout time.Duration // if nothing is answered
	ended   chan struct{} // closed when the program has ended
	hits    atomic.Int64  // how often the call was made

	mu       sync.Mutex
	sent     bool // a part is in the store
	complete bool // Complete was asked for
}

func (c *cell) String() string {
	return fmt.Sprintf("%-22s | %-21s | %-7s", c.command.name, c.call.name, c.fault.name)
}

// phase says how far the push is.
func (c *cell) phase() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.complete:
		return "complete"
	case c.sent:
		return "sent"
	}
	return "before"
}

// handle is the fault of the store's or the service's proxy.
func (c *cell) handle(service bool) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if c.call.service == service && c.call.match(c, r) {
			c.hits.Add(1)
			if isComplete(r) {
				c.mark(r)
			}
			c.fault.answer(c, w, r)
			return true
		}
		c.mark(r)
		return c.call.also != nil && c.call.also(w, r)
	}
}

func (c *cell) mark(r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = c.sent || isAnyPart(r)
	c.complete = c.complete || isComplete(r)
}

// onward sends a request to where it was meant for.
func (c *cell) onward(w http.ResponseWriter, r *http.Request) {
	to := c.w.store
	if c.call.service {
		to = c.w.ims
	}
	to.onward.ServeHTTP(w, r)
}

// matrixWorld is a world with clients that reach its sandbox whatever the proxies do.
type matrixWorld struct {
	*world
	bucket       *obs.Bucket
	images       *ims.Client
	small, large string // disks
}

const (
	matrixSecret   = "the-test-secret"
	matrixPassword = "the-test-password"
	// matrixTimeout is how long the program waits for an answer that never comes: long enough for those
	// that do come, unless the machine is busy with other things. Then it is longer.
	matrixTimeout = 1500 * time.Millisecond
	matrixTries   = 4
)

func newMatrixWorld(t *testing.T, small, large string) *matrixWorld {
	w := &matrixWorld{world: newWorld(t), small: small, large: large}
	var err error
	if w.bucket, err = obs.New(obs.Config{
		Endpoint: w.box.StoreEndpoint(), Region: w.box.Region(), Bucket: w.box.Bucket(), AccessKey: w.box.AccessKey(), SecretKey: w.box.SecretKey(),
	}); err != nil {
		t.Fatal(err)
	}
	if w.images, err = ims.New(ims.Config{
		Endpoint: w.box.ImageEndpoint(), ProjectID: w.box.ProjectID(), Credentials: ims.AccessKey(w.box.AccessKey(), w.box.SecretKey(), ""),
	}); err != nil {
		t.Fatal(err)
	}
	return w
}

// run runs the program against the proxies, in a hurry.
func (w *matrixWorld) run(ctx context.Context, args ...string) result {
	var stdout, stderr bytes.Buffer
	a := &app{stdin: strings.NewReader(matrixPassword), stdout: &stdout, stderr: &stderr}
	a.pace = pace{backoff: time.Millisecond, poll: 5 * time.Millisecond, outage: 200 * time.Millisecond, settle: 20 * time.Millisecond}
	given := strings.Join(args, " ")
	add := func(flag, value string) {
		if !strings.Contains(given, flag+" ") {
			args = append(args, flag, value)
		}
	}
	add("--retries", "2")
	add("--region", w.box.Region())
	switch args[0] {
	case "login":
		add("--iam-endpoint", w.ims.URL)
		add("--domain", sandbox.Domain)
		add("--user", w.box.User())
	case "images", "quota", "os-versions", "jobs":
		add("--ims-endpoint", w.ims.URL)
		add("--project-id", w.box.ProjectID())
	case "push":
		add("--ims-endpoint", w.ims.URL)
		add("--project-id", w.box.ProjectID())
		fallthrough
	default:
		add("--obs-endpoint", w.store.URL)
		add("--bucket", w.box.Bucket())
	}
	if args[0] != "login" {
		add("--ak", w.box.AccessKey())
		add("--sk", w.box.SecretKey())
	}
	if args[0] == "__complete" {
		args = append(args, "--bucket", "")
	}
	return result{exitCode(a.run(ctx, args)), stdout.String(), stderr.String()}
}

// find runs the program into the cell's fault and returns the table's line.
func (c *cell) find(t *testing.T) string {
	c.w.store.set(pass)
	c.w.ims.set(pass)
	args := c.command.args(c)
	if c.call.prepare != nil {
		args = append(args, c.call.prepare(c)...)
	}
	if c.fault.name == "nothing" {
		args = append(args, "--request-timeout", c.timeout.String())
	}
	c.ended = make(chan struct{})
	c.w.store.set(c.handle(false))
	c.w.ims.set(c.handle(true))
	// Some runs wait for several answers that never come.
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute+10*c.timeout, errors.New("the program hangs"))
	defer cancel()
	// A login is kept for the settings file that it was made with.
	if err := os.WriteFile(c.config(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	args = append(args, "--config", c.config())
	r := c.w.run(ctx, args...)
	close(c.ended)
	if ctx.Err() != nil {
		t.Errorf("%v: %v", c, context.Cause(ctx))
	}
	for _, secret := range []string{matrixSecret, matrixPassword} {
		if strings.Contains(r.stdout+r.stderr, secret) {
			t.Errorf("%v: %q is in the output:\n%s%s", c, secret, r.stdout, r.stderr)
		}
	}
	if signature.MatchString(r.stdout + r.stderr) {
		t.Errorf("%v: a signature is in the output:\n%s%s", c, r.stdout, r.stderr)
	}
	if strings.HasPrefix(c.command.name, "push") && (r.stdout != "") != (r.code == 0) {
		t.Errorf("%v: exit code %d, but stdout is %q", c, r.code, r.stdout)
	}
	return fmt.Sprintf("%v | %3d | %-17s | %s", c, r.code, c.left(t), c.w.normal(r.stderr))
}

func (c *cell) config() string { return filepath.Join(c.w.dir, c.key+".yaml") }

// left says what is left of the cell in the cloud.
func (c *cell) left(t *testing.T) string {
	ctx := t.Context()
	var left []string
	uploads, err := c.w.bucket.Uploads(ctx, c.key)
	if err != nil {
		t.Error(err)
	}
	if len(uploads) > 0 {
		left = append(left, fmt.Sprintf("%d upload", len(uploads)))
	}
	if _, err := c.w.bucket.Stat(ctx, c.key); err == nil {
		left = append(left, "object")
	} else if !errors.Is(err, upload.ErrNoObject) {
		t.Error(err)
	}
	images, err := c.w.images.Images(ctx, url.Values{"name": {c.key}})
	if err != nil {
		t.Error(err)
	}
	if len(images) > 0 {
		left = append(left, fmt.Sprintf("%d image", len(images)))
	}
	if file, err := profile.Load(c.config()); err != nil {
		t.Error(err)
	} else if login, err := file.Login(profile.DefaultName); err != nil {
		t.Error(err)
	} else if login != nil {
		left = append(left, "login")
	}
	return strings.Join(left, ", ")
}

var signature = regexp.MustCompile(`Signature=[0-9a-f]{6}`)

// ordinary are the lines of a run that goes well.
var ordinary = regexp.MustCompile(`^(trying again: |job: (init|running|success), |image ID gets its file: import job |read [0-9]|sent [0-9.]+ [KM]?i?B(, [^(]*)? of [^(]*\([0-9]+%\)|sending parts of|sending [0-9.]+ [KM]?i?B of data|import job.*( has started|: (init|running|success), )|image ID is active: sent |image ID is active, made|image ID is there|an earlier request to register |if it stays queued, a push --via register )`)

// normal is stderr as one line, without what differs from run to run.
func (w *matrixWorld) normal(stderr string) string {
	var lines []string
	for line := range strings.Lines(stderr) {
		line = strings.TrimSuffix(normalText(line, w.dir, w.small), "\n")
		if !ordinary.MatchString(line) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, " // ")
}

// varying are what normalText replaces.
var varying = []struct {
	find *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "ID"},
	{regexp.MustCompile(`\b[0-9a-f]{32}\b`), "ID"},
	{regexp.MustCompile(`https?://127\.0\.0\.1:\d+`), "URL"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+(->127\.0\.0\.1:\d+)?`), "HOST"},
	{regexp.MustCompile(`(tries|try) in (?:[0-9]+m)?[0-9.]+[µm]?s`), "$1 in TIME"},
	{regexp.MustCompile(` in [0-9.]+ s$`), " in TIME"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d( \w+)?`), "DATE"},
	{regexp.MustCompile(`request [0-9A-Za-z-]{8,}`), "request ID"},
	{regexp.MustCompile(`(upload id |unfinished upload )[0-9A-Za-z._-]{12,}`), "${1}ID"},
	// The import may be over when the program looks.
	{regexp.MustCompile(`image ID (of this name and content is under way \(\w+\)|has this name and content already)`), "image ID is there"},
	{regexp.MustCompile(`no answer within [0-9.]+m?s`), "no answer within TIMEOUT"},
	{regexp.MustCompile(`cell-\d+`), "CELL"},
	// The page repeats the request's body, in which names differ in length: it is cut off anywhere.
	{regexp.MustCompile(`(Signature=\[redacted\] )[^ ].*?" \(status 200\)`), "${1}BODY\" (status 200)"},
	{regexp.MustCompile(`imgferry-digest=[\w-]{43}`), "imgferry-digest=DIGEST"},
}

// normalText replaces what differs from run to run, and the names of folders.
func normalText(s string, dirs ...string) string {
	for i, dir := range dirs {
		s = strings.ReplaceAll(s, dir, []string{"DIR", "DISK"}[i])
	}
	for _, v := range varying {
		s = v.find.ReplaceAllString(s, v.with)
	}
	return s
}

// believable reports whether a cell's line is what the table says or, where the table is made anew, of a
// program that came as far as the call.
func (c *cell) believable(known map[string]bool, line string) bool {
	return known[line] || *update && c.hits.Load() > 0
}

const matrixHead = `# What the program does when a call to the cloud fails each time it is tried.
# Made by go test ./cmd/imgferry -run TestMatrix -update; each line is reviewed.
# "lost": the call was carried out, but its answer never came; "1 lost": the first time. Lines of stderr are joined by " // ".
#
# command              | call                  | answer  | exit code | left behind | stderr
`

func TestMatrix(t *testing.T) {
	small := (&world{t: t, dir: t.TempDir()}).disk(1)
	large := (&world{t: t, dir: t.TempDir()}).disk(10)
	var cells []*cell
	for _, command := range matrixCommands() {
		for _, call := range command.calls {
			for _, fault := range faults {
				cells = append(cells, &cell{command: command, call: call, fault: fault, timeout: matrixTimeout, key: fmt.Sprintf("cell-%d", len(cells))})
			}
		}
	}
	lines := make([]string, len(cells))
	// Raced, every call meets some faults and every fault some calls.
	chosen := func(i int64) bool { return !raced || (i+i/int64(len(faults)))%3 == 0 }
	silent := func(f fault) bool { return f.name == "nothing" }
	known := tableLines(t, "http.txt")
	findAll := func(worlds int, which func(fault) bool) {
		var next atomic.Int64
		var wg sync.WaitGroup
		for range worlds {
			w := newMatrixWorld(t, small, large)
			wg.Go(func() {
				for i := next.Add(1) - 1; i < int64(len(cells)); i = next.Add(1) - 1 {
					if c := cells[i]; which(c.fault) && chosen(i) {
						c.w = w
						lines[i] = c.find(t)
						// An answer that came too late is no finding.
						for try := 1; silent(c.fault) && try < matrixTries && !c.believable(known, lines[i]); try++ {
							c = &cell{w: w, command: c.command, call: c.call, fault: c.fault, timeout: 2 * c.timeout, key: fmt.Sprintf("%s%03d", c.key, try)}
							lines[i] = c.find(t)
						}
						if c.hits.Load() == 0 {
							t.Errorf("%v: the call was not made: %s", c, lines[i])
						}
					}
				}
			})
		}
		wg.Wait()
	}
	findAll(4, func(f fault) bool { return !silent(f) })
	findAll(32, silent) // these do nothing but wait
	if raced {
		for _, line := range lines {
			if line != "" && !known[line] {
				t.Errorf("not in http.txt: %s", line)
			}
		}
		return
	}
	compareTable(t, "http.txt", matrixHead, lines)
}
