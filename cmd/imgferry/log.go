package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
)

// logLevels are the words of --log-level, least to most silent.
var logLevels = []string{"debug", "info", "warn", "error", "off"}

// logLevel is the least level that is logged.
func logLevel(name string) slog.Level {
	var level slog.Level
	if level.UnmarshalText([]byte(name)) != nil {
		return math.MaxInt // "off"
	}
	return level
}

var logFormats = []string{"text", "json"}

// choice is a flag's value that is one of a few words.
type choice struct {
	value *string
	of    []string
}

func (c choice) String() string {
	if c.value == nil {
		return ""
	}
	return *c.value
}

func (choice) Type() string { return "string" }

func (c choice) Set(s string) error {
	if !slices.Contains(c.of, s) {
		last := len(c.of) - 1
		return fmt.Errorf("use %s or %s", strings.Join(c.of[:last], ", "), c.of[last])
	}
	*c.value = s
	return nil
}

// logFlags adds the flags of the log to every command.
func (a *app) logFlags(root *cobra.Command) {
	a.logFormat = "text"
	f := root.PersistentFlags()
	f.Var(choice{&a.logLevel, logLevels}, "log-level", "what to log on stderr: debug (every request), info, warn, error or off (default: warn; info as JSON)")
	f.Var(choice{&a.logFormat, logFormats}, "log-format", "text, or json: then all of stderr is JSON, one object a line")
}

// startLog makes the log as the flags say.
func (a *app) startLog() {
	name := a.logLevel
	if name == "" {
		name = "warn"
		if a.structured() {
			name = "info" // notices are records then
		}
	}
	options := &slog.HandlerOptions{Level: logLevel(name)}
	var handler slog.Handler = slog.NewTextHandler(pastBar{a}, options)
	if a.structured() {
		handler = slog.NewJSONHandler(pastBar{a}, options)
	}
	a.log = slog.New(handler)
}

// structured says that stderr is for a machine: nothing but records.
func (a *app) structured() bool { return a.logFormat == "json" }

// pastBar is stderr without what a progress bar has drawn on the current line.
type pastBar struct{ *app }

func (p pastBar) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.clear != nil {
		p.clear()
	}
	return p.stderr.Write(b)
}

// say tells the user one thing on stderr, past a progress bar. Any goroutine may call it.
func (a *app) say(format string, args ...any) {
	a.tell(slog.LevelInfo, "", fmt.Sprintf(format, args...))
}

// warn is say for what may turn out to be wrong.
func (a *app) warn(format string, args ...any) {
	a.tell(slog.LevelWarn, "warning: ", fmt.Sprintf(format, args...))
}

func (a *app) tell(level slog.Level, prefix, text string) {
	text = printable(text)
	if a.structured() {
		a.log.Log(context.Background(), level, text)
		return
	}
	fmt.Fprintln(pastBar{a}, prefix+text)
}

// report tells why the program ends, and where there is one, the way out.
func (a *app) report(err error) {
	lines := advice(err)
	if !a.structured() {
		fmt.Fprintln(a.stderr, "imgferry:", printable(err.Error()))
		for _, line := range lines {
			fmt.Fprintln(a.stderr, line)
		}
		return
	}
	r := slog.NewRecord(time.Now(), slog.LevelError, printable(err.Error()), 0)
	r.AddAttrs(slog.Int("exit_code", exitCode(err)))
	if len(lines) > 0 {
		r.AddAttrs(slog.Any("advice", lines))
	}
	_ = a.log.Handler().Handle(context.Background(), r) // at any level; there is nowhere to tell of a failure
}

// advice is what to do about err, a line each.
func advice(err error) []string {
	var usage *usageError
	var known *advised
	if errors.As(err, &usage) {
		return []string{"Run 'imgferry help' for the commands, 'imgferry COMMAND --help' for one's flags."}
	}
	if errors.As(err, &known) {
		return known.lines
	}
	if _, hint := classify(err); hint != "" {
		return []string{hint}
	}
	return nil
}

// observeStore returns base with each request to the object store logged. The retries of its client
// are told of by upload.Policy.
func (a *app) observeStore(base http.RoundTripper) http.RoundTripper {
	return &observed{app: a, base: base}
}

// observeService returns base with each request to the service of that name ("image service") logged.
// Its client tries again by itself, so the user is told here.
func (a *app) observeService(name string, base http.RoundTripper) http.RoundTripper {
	return &observed{app: a, base: base, retries: name}
}

// observed is a transport that logs requests and counts how often the same one failed.
type observed struct {
	*app
	base    http.RoundTripper
	retries string // the service whose repeated requests the user is told of, or ""

	mu     sync.Mutex
	failed map[string]failure // by request; those whose last attempt did not fail have no entry
}

// failure is what became of the last attempts at a request.
type failure struct {
	times int // in a row
	why   string
}

func (o *observed) RoundTrip(r *http.Request) (*http.Response, error) {
	target := r.URL.Path + plainQuery(r.URL.Query())
	id := r.Method + " " + r.URL.Host + target
	o.mu.Lock()
	before := o.failed[id]
	o.mu.Unlock()
	if o.retries != "" && before.times > 0 {
		o.retrying(fmt.Sprintf("trying again: the %s: %s", o.retries, before.why), before.times)
	}
	start := time.Now()
	resp, err := o.base.RoundTrip(r)
	o.note(id, before, resp, err, errors.Is(r.Context().Err(), context.Canceled))

	record := []any{"method", r.Method, "host", r.URL.Host, "path", target, "duration", time.Since(start).Round(time.Microsecond), "attempt", before.times + 1}
	if err != nil {
		o.log.Debug("request", append(record, "error", err)...)
	} else {
		o.log.Debug("request", append(record, "status", resp.StatusCode)...)
	}
	return resp, err
}

// note keeps or forgets the failures of a request. One that the caller gave up did not fail.
func (o *observed) note(id string, before failure, resp *http.Response, err error, ended bool) {
	why := ""
	switch {
	case ended:
	case err != nil:
		why = err.Error()
	case temporary(resp.StatusCode):
		why = fmt.Sprintf("status %d", resp.StatusCode)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if why == "" {
		delete(o.failed, id)
		return
	}
	if o.failed == nil {
		o.failed = make(map[string]failure)
	}
	o.failed[id] = failure{before.times + 1, why}
}

// temporary reports the statuses after which clients try again.
func temporary(status int) bool {
	switch status {
	case http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// onRetry is an upload.Policy's OnRetry.
func (a *app) onRetry(_ string, try int, err error, wait time.Duration) {
	a.retrying(fmt.Sprintf("trying again in %v: %v", wait.Round(100*time.Millisecond), err), try)
}

// retrying tells that a request is made again after so many failures. The first one is for the log
// only: one failure in a while is nothing to look at.
func (a *app) retrying(text string, failures int) {
	if failures > 1 {
		a.say("%s", text)
	} else {
		a.log.Info(text)
	}
}

// plainParameters are those of a query whose values are no secrets. A signature in a query, a token
// of any kind, and what nobody thought of shows by its name alone.
var plainParameters = []string{
	"partNumber", "uploadId", "uploads", "prefix", "marker", "key-marker", "upload-id-marker", "part-number-marker",
	"delimiter", "encoding-type", "max-keys", "max-parts", "max-uploads", "location", "limit", "id", "name", "status", "tag", "virtual_env_type",
	"__imagetype", "sort_key", "sort_dir",
}

// plainQuery writes a query for the log, sorted, with its "?".
func plainQuery(q url.Values) string {
	if len(q) == 0 {
		return ""
	}
	plain := make(url.Values, len(q))
	for name, values := range q {
		if !slices.Contains(plainParameters, name) {
			values = []string{"..."}
		}
		plain[name] = values
	}
	return "?" + plain.Encode()
}
