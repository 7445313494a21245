package ims_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"imgferry/ims"
	"imgferry/limits"
)

const (
	project = "0b1e494e2660441a957313163095fe5c"
	sk      = "SKexampleSecretKey00000000000000000000001"
	jobID   = "ff8080814dbd65d7014dbe0d84db0013"
)

var goodImport = ims.QuickImportRequest{
	Name: "ims_test_file", OSVersion: "CentOS 7.0 64bit", ImageURL: "ims-image:centos70.zvhd2", MinDisk: 40, Type: "ECS",
}

// served is a transport that answers with a handler, without a network, so that a test's clock can be the
// bubble's.
type served struct{ http.Handler }

func (s served) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	in := r.Clone(r.Context())
	in.RequestURI = r.URL.RequestURI()
	s.ServeHTTP(w, in)
	return w.Result(), nil
}

// failing is a transport whose every request ends with an error.
type failing struct {
	err   error
	calls int
}

func (f *failing) RoundTrip(*http.Request) (*http.Response, error) {
	f.calls++
	return nil, f.err
}

func client(t *testing.T, transport http.RoundTripper) *ims.Client {
	t.Helper()
	c, err := ims.New(ims.Config{
		Endpoint: "https://ims.example", ProjectID: project, Credentials: ims.AccessKey("AKEXAMPLE0000000001", sk, ""),
		HTTPClient: &http.Client{Transport: transport},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func answer(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// sequence answers with one handler after the other, the last one for ever, and counts the requests.
type sequence struct {
	handlers []http.HandlerFunc
	calls    int
}

func (s *sequence) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := s.handlers[min(s.calls, len(s.handlers)-1)]
	s.calls++
	h(w, r)
}

func TestQuickImportSendsWhatItSigns(t *testing.T) {
	want := goodImport
	want.ImageTags = []ims.Tag{{Key: "k", Value: "v<>&"[:1]}}
	c := client(t, served{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		secret := func(ak string) (string, bool) { return sk, ak == "AKEXAMPLE0000000001" }
		if _, err := ims.Verify(r, body, secret, time.Now()); err != nil {
			t.Errorf("signature: %v", err)
		}
		if r.Method != "POST" || r.RequestURI != "/v2/cloudimages/quickimport/action" || r.Header.Get("X-Project-Id") != project {
			t.Errorf("%s %s, %v", r.Method, r.RequestURI, r.Header)
		}
		if a := r.Header.Get("Authorization"); !strings.Contains(a, "SignedHeaders=host;x-project-id;x-sdk-date,") {
			t.Errorf("authorization %s", a)
		}
		var got ims.QuickImportRequest
		if err := json.Unmarshal(body, &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("request %s, %v", body, err)
		}
		io.WriteString(w, `{"job_id":"8a12fc664fb4daa3014fb4e581380005"}`)
	})})
	if id, err := c.QuickImport(t.Context(), want); err != nil || id != "8a12fc664fb4daa3014fb4e581380005" {
		t.Errorf("job %q, %v", id, err)
	}
}

func TestQuickImportRefusesBeforeSending(t *testing.T) {
	transport := &failing{err: errors.New("sent")}
	c := client(t, transport)
	for code, spoil := range map[limits.Code]func(*ims.QuickImportRequest){
		limits.NameMissing:       func(r *ims.QuickImportRequest) { r.Name = "" },
		limits.DescriptionFormat: func(r *ims.QuickImportRequest) { r.Description = "<" },
		limits.URLFormat:         func(r *ims.QuickImportRequest) { r.ImageURL = "x" },
		limits.ImageTypeWrong:    func(r *ims.QuickImportRequest) { r.Type = "x" },
		limits.OSVersionMissing:  func(r *ims.QuickImportRequest) { r.OSVersion = "" },
		limits.OSTypeInvalid:     func(r *ims.QuickImportRequest) { r.OSType = "x" },
		limits.DiskSize:          func(r *ims.QuickImportRequest) { r.MinDisk = 1025 },
		limits.ArchitectureWrong: func(r *ims.QuickImportRequest) { r.Architecture = "x" },
		limits.FirmwareInvalid:   func(r *ims.QuickImportRequest) { r.Firmware = "x" },
		limits.TagInvalid:        func(r *ims.QuickImportRequest) { r.Tags = []string{"a.1", "a.2"} },
	} {
		r := goodImport
		spoil(&r)
		var e *limits.Error
		if _, err := c.QuickImport(t.Context(), r); !errors.As(err, &e) || e.Code != code {
			t.Errorf("%s: %v", code, err)
		}
	}
	both := goodImport
	both.Tags, both.ImageTags = []string{"a.1"}, []ims.Tag{{Key: "b"}}
	if _, err := c.QuickImport(t.Context(), both); err == nil {
		t.Error("tags in both forms taken")
	}
	if transport.calls != 0 {
		t.Errorf("%d requests were sent", transport.calls)
	}
}

// TestFaults holds each call against each fault: what the error says, and how often the call was sent.
func TestFaults(t *testing.T) {
	const attempts = 6
	long := strings.Repeat("<p>no\x1b[2J</p>\n", 100)
	for name, f := range map[string]struct {
		handler         http.HandlerFunc
		status          int
		code, says      string
		temporary       bool // a GET is sent again
		refused         bool // so is a POST
		maybe, isD, isN bool
	}{
		"shape 1": {handler: answer(400, `{"error_code":"IMG.0003","error_msg":"The image name format is invalid."}`, "X-Request-Id", "R1"),
			status: 400, code: "IMG.0003", says: "The image name format is invalid (status 400, IMG.0003, request R1)"},
		"shape 2": {handler: answer(400, `{"error":{"message":"The imagetype is invalid.","code":"IMG.0024"}}`),
			status: 400, code: "IMG.0024", says: "The imagetype is invalid (status 400, IMG.0024)"},
		"keystone":      {handler: answer(401, `{"error":{"code":401,"message":"no","title":"x"}}`), status: 401, code: "401", says: "no (", isD: true},
		"gateway":       {handler: answer(401, `{"error_code":"APIGW.0301","error_msg":"Incorrect IAM authentication information","request_id":"R2"}`), status: 401, code: "APIGW.0301", says: "request R2", isD: true},
		"403":           {handler: answer(403, ``), status: 403, says: "the service answers forbidden (status 403)", isD: true},
		"404":           {handler: answer(404, `{}`), status: 404, says: "{}", isN: true},
		"html":          {handler: answer(400, long), status: 400, says: strings.Repeat("<p>no [2J</p> ", 14) + "<p>n (status 400)"},
		"xml":           {handler: answer(403, `<Error><Code>X</Code></Error>`, "X-Request-Id", "R3"), status: 403, says: "<Error><Code>X</Code></Error> (status 403, request R3)", isD: true},
		"binary":        {handler: answer(418, "\xff\xfe\x00"), status: 418, says: "teapot"},
		"redirect":      {handler: answer(302, ``, "Location", "http://evil.example/"), status: 302, says: "found"},
		"300":           {handler: answer(300, `{"versions":[]}`), status: 300},
		"429":           {handler: answer(429, `{}`, "Retry-After", "1"), status: 429, temporary: true, refused: true},
		"500":           {handler: answer(500, `{}`), status: 500, temporary: true, maybe: true},
		"502":           {handler: answer(502, `<html>`), status: 502, temporary: true, maybe: true},
		"503":           {handler: answer(503, `{}`), status: 503, temporary: true, refused: true},
		"504":           {handler: answer(504, ``), status: 504, temporary: true, maybe: true},
		"garbage 200":   {handler: answer(200, `<html>log in</html>`), status: 200, says: "<html>log in</html>", maybe: true},
		"empty 200":     {handler: answer(200, ``), status: 200, says: "the answer is empty", maybe: true},
		"null 200":      {handler: answer(200, `null`), status: 200, maybe: true},
		"other object":  {handler: answer(200, `{"x":1}`), status: 200, maybe: true},
		"huge 200":      {handler: answer(200, `{"x":"`+strings.Repeat("x", 8<<20)+`"}`), status: 200, says: "longer than 8388608 bytes", maybe: true},
		"echoed secret": {handler: answer(400, `{"error_msg":"bad key `+sk+`"}`), status: 400, says: "bad key [redacted]"},
	} {
		t.Run(name, func(t *testing.T) {
			for op, call := range map[string]func(context.Context, *ims.Client) error{
				"POST": func(ctx context.Context, c *ims.Client) error { _, err := c.QuickImport(ctx, goodImport); return err },
				"job":  func(ctx context.Context, c *ims.Client) error { _, err := c.Job(ctx, jobID); return err },
				"list": func(ctx context.Context, c *ims.Client) error { _, err := c.Images(ctx, nil); return err },
				"show": func(ctx context.Context, c *ims.Client) error { _, err := c.Image(ctx, "i1"); return err },
			} {
				synctest.Test(t, func(t *testing.T) {
					h := &sequence{handlers: []http.HandlerFunc{f.handler}}
					err := call(t.Context(), client(t, served{h}))
					var e *ims.APIError
					if !errors.As(err, &e) {
						t.Fatalf("%s: error %v", op, err)
					}
					maybe := f.maybe && op == "POST"
					if e.Status != f.status || e.Code != f.code || e.Temporary != f.temporary || e.MaybeDone != maybe {
						t.Errorf("%s: %+v", op, *e)
					}
					if errors.Is(err, ims.ErrDenied) != f.isD || errors.Is(err, ims.ErrNotFound) != f.isN {
						t.Errorf("%s: class of %v", op, err)
					}
					if s := err.Error(); !strings.Contains(s, f.says) || strings.Contains(s, sk) || strings.ContainsAny(s, "\n\x1b") || len(s) > 600 {
						t.Errorf("%s: message %q, want %q in it", op, s, f.says)
					}
					want := 1
					if f.refused || f.temporary && op != "POST" {
						want = attempts
					}
					if h.calls != want {
						t.Errorf("%s: sent %d times, want %d", op, h.calls, want)
					}
				})
			}
		})
	}
}

func TestNoAnswer(t *testing.T) {
	dial := &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	reset := &net.OpError{Op: "read", Net: "tcp", Err: errors.New("connection reset by peer")}
	unknown := &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "x", IsNotFound: true}}
	for _, c := range []struct {
		err       error
		get, post int // times sent
		maybe     bool
		says      string
	}{{dial, 6, 6, false, "connection refused"}, {reset, 6, 1, true, "connection reset"}, {io.ErrUnexpectedEOF, 6, 1, true, "the connection was closed"},
		{unknown, 1, 1, false, "no such host"}} {
		synctest.Test(t, func(t *testing.T) {
			var e *ims.APIError
			f := &failing{err: c.err}
			if _, err := client(t, f).Job(t.Context(), jobID); !errors.As(err, &e) || e.Status != 0 || e.MaybeDone || f.calls != c.get || !errors.Is(err, c.err) {
				t.Errorf("%v, GET: %v, sent %d times", c.err, err, f.calls)
			}
			f = &failing{err: c.err}
			if _, err := client(t, f).QuickImport(t.Context(), goodImport); !errors.As(err, &e) || e.MaybeDone != c.maybe || f.calls != c.post || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, POST: %v, sent %d times", c.err, err, f.calls)
			}
		})
	}
}

// TestRetryPace holds the pauses between attempts to Retry-After and to the backoff's bounds.
func TestRetryPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		h := &sequence{handlers: []http.HandlerFunc{
			answer(429, ``, "Retry-After", "20"), answer(503, ``, "Retry-After", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)),
			answer(500, ``), answer(200, `{"status":"RUNNING"}`),
		}}
		if _, err := client(t, served{h}).Job(t.Context(), jobID); err != nil {
			t.Fatal(err)
		}
		// 20 s, one minute of the hour asked for, then at most a second of our own.
		if d := time.Since(start); d < 80*time.Second || d > 81*time.Second {
			t.Errorf("took %s", d)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := client(t, served{answer(503, ``, "Retry-After", "30")}).Job(ctx, jobID)
		var e *ims.APIError
		if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &e) || e.Status != 503 || time.Since(start) != time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}

// TestRequestTimeout has a server that never answers: one attempt is bounded, and the caller's context
// ends all of them.
func TestRequestTimeout(t *testing.T) {
	var calls atomic.Int32
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls.Add(1); <-release }))
	defer s.Close()
	defer close(release)
	c, err := ims.New(ims.Config{Endpoint: s.URL, ProjectID: project, Credentials: ims.Token("t"), RequestTimeout: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	var e *ims.APIError
	if _, err := c.QuickImport(t.Context(), goodImport); !errors.As(err, &e) || !e.Temporary || !e.MaybeDone || calls.Load() != 1 ||
		!strings.Contains(err.Error(), "no answer within 20ms") {
		t.Errorf("%v, sent %d times", err, calls.Load())
	}
	stop := errors.New("user stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(stop) })
	if _, err := c.Job(ctx, jobID); !errors.Is(err, stop) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := c.QuickImport(ctx, goodImport); !errors.Is(err, stop) || errors.As(err, &e) && e.MaybeDone && calls.Load() == 0 {
		t.Errorf("cancelled before: %v", err)
	}
}

// TestBrokenAnswers uses real connections: closed before, within and after the header.
func TestBrokenAnswers(t *testing.T) {
	for name, bytes := range map[string]string{
		"nothing":       "",
		"half a header": "HTTP/1.1 200 OK\r\nConte",
		"half a body":   "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"job_id\":",
		"no HTTP":       "SSH-2.0-OpenSSH\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int32
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				if r.Method == http.MethodGet && calls.Add(1) > 1 {
					io.WriteString(w, `{"status":"RUNNING","entities":{"process_percent":0.5}}`)
					return
				}
				conn, _, err := w.(http.Hijacker).Hijack()
				if err == nil {
					io.WriteString(conn, bytes)
					conn.Close()
				}
			}))
			defer s.Close()
			c, err := ims.New(ims.Config{Endpoint: s.URL, ProjectID: project, Credentials: ims.AccessKey("AK", sk, "")})
			if err != nil {
				t.Fatal(err)
			}
			if j, err := c.Job(t.Context(), jobID); err != nil || j.Progress != 0.5 || calls.Load() != 2 {
				t.Errorf("job %+v, %v after %d requests", j, err, calls.Load())
			}
			var e *ims.APIError
			if _, err := c.QuickImport(t.Context(), goodImport); !errors.As(err, &e) || !e.MaybeDone || e.Code != "" {
				t.Errorf("import: %v", err)
			}
		})
	}
}

func TestClockSkewIsNamed(t *testing.T) {
	h := answer(401, `{"error_code":"APIGW.0301","error_msg":"Incorrect"}`, "Date", time.Now().Add(2*time.Hour).UTC().Format(http.TimeFormat))
	if _, err := client(t, served{h}).Job(t.Context(), jobID); err == nil || !strings.Contains(err.Error(), "clock differs from the service's by 2h0m0s") &&
		!strings.Contains(err.Error(), "by 1h59m59s") {
		t.Error(err)
	}
}

func TestJobDecodes(t *testing.T) {
	begin := time.Date(2015, 6, 4, 18, 11, 6, 586e6, time.UTC)
	for body, want := range map[string]ims.Job{
		// The reference's example, entities in both shapes.
		`{"status":"SUCCESS","entities":[{"image_id":"i1","image_name":"n","process_percent":0.20,"current_task":"T"}],"job_id":"x","job_type":"ty","begin_time":"04-Jun-2015 18:11:06:586","end_time":"","error_code":null,"fail_reason":null}`: {Status: "SUCCESS", Type: "ty", Progress: 1, Task: "T", ImageID: "i1", ImageName: "n", Begin: begin},
		`{"status":"SUCCESS","entities":{"image_id":"i1"}}`:                                                                   {Status: "SUCCESS", Progress: 1, ImageID: "i1"},
		`{"status":"RUNNING","entities":{"process_percent":0.2},"begin_time":"2018-09-06T14:03:27.500Z"}`:                     {Status: "RUNNING", Progress: 0.2, Begin: time.Date(2018, 9, 6, 14, 3, 27, 5e8, time.UTC)},
		`{"status":"RUNNING","entities":{"process_percent":20}}`:                                                              {Status: "RUNNING", Progress: 0.2},
		`{"status":"RUNNING","entities":{"process_percent":"20"}}`:                                                            {Status: "RUNNING", Progress: 0.2},
		`{"status":"RUNNING","entities":{"process_percent":900}}`:                                                             {Status: "RUNNING", Progress: 1},
		`{"status":"RUNNING","entities":{"process_percent":-1}}`:                                                              {Status: "RUNNING"},
		`{"status":"RUNNING","entities":{"process_percent":"NaN"}}`:                                                           {Status: "RUNNING"},
		`{"status":"RUNNING","entities":{"process_percent":null}}`:                                                            {Status: "RUNNING"},
		`{"status":"INIT","entities":null}`:                                                                                   {Status: "INIT"},
		`{"status":"INIT","entities":[]}`:                                                                                     {Status: "INIT"},
		`{"status":"INIT","entities":[null,{"image_id":"i2"}]}`:                                                               {Status: "INIT", ImageID: "i2"},
		`{"status":"INIT","entities":"","job_type":7,"begin_time":{}}`:                                                        {Status: "INIT", Type: "7"},
		`{"status":"FAIL","error_code":"IMG.0057","fail_reason":"bad"}`:                                                       {Status: "FAIL", Code: "IMG.0057", Reason: "bad"},
		`{"status":"FAIL","error_code":null,"fail_reason":null,"entities":{"error_code":"IMG.0057","error_msg":"bad\u001b"}}`: {Status: "FAIL", Code: "IMG.0057", Reason: "bad"},
		`{"status":"FAIL"}`: {Status: "FAIL"},
	} {
		want.ID = jobID
		if got, err := client(t, served{answer(200, body)}).Job(t.Context(), jobID); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s\n got %+v, %v\nwant %+v", body, got, err, want)
		}
	}
}

func TestWaitJob(t *testing.T) {
	job := func(status string, percent float64) http.HandlerFunc {
		return answer(200, fmt.Sprintf(`{"status":%q,"entities":{"image_id":"i1","process_percent":%g},"error_code":"IMG.0057","fail_reason":"damaged."}`, status, percent))
	}
	synctest.Test(t, func(t *testing.T) {
		h := &sequence{handlers: []http.HandlerFunc{
			job("INIT", 0), answer(500, ``), answer(502, ``), job("RUNNING", 0.3), job("RUNNING", 0.6), job("SUCCESS", 0.6),
		}}
		var seen []string
		j, err := client(t, served{h}).WaitJob(t.Context(), jobID, ims.Wait{Progress: func(j ims.Job) { seen = append(seen, fmt.Sprint(j.Status, j.Progress)) }})
		if err != nil || j.ImageID != "i1" || fmt.Sprint(seen) != "[INIT0 RUNNING0.3 RUNNING0.6 SUCCESS1]" {
			t.Errorf("%+v, %v, seen %v", j, err, seen)
		}
	})
	synctest.Test(t, func(t *testing.T) { // polls: soon at first, then at the interval
		start := time.Now()
		h := &sequence{}
		for range 20 {
			h.handlers = append(h.handlers, job("RUNNING", 0.1))
		}
		h.handlers = append(h.handlers, job("SUCCESS", 1))
		if _, err := client(t, served{h}).WaitJob(t.Context(), jobID, ims.Wait{}); err != nil {
			t.Fatal(err)
		}
		// 0.25 + 0.5 + 1 + 2 + 4 + 8 s, then 15 times 10 s.
		if d := time.Since(start); d != 165*time.Second+750*time.Millisecond {
			t.Errorf("took %s", d)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		j, err := client(t, served{job("FAIL", 0.5)}).WaitJob(t.Context(), jobID, ims.Wait{})
		var e *ims.JobError
		if !errors.As(err, &e) || *e != (ims.JobError{JobID: jobID, Code: "IMG.0057", Reason: "damaged."}) || j.Status != ims.JobFail ||
			err.Error() != "job "+jobID+" failed: damaged (IMG.0057)" {
			t.Errorf("%+v, %v", j, err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := client(t, served{job("RUNNING", 0.4)}).WaitJob(ctx, jobID, ims.Wait{})
		var e *ims.WaitError
		if !errors.As(err, &e) || e.JobID != jobID || e.Last.Progress != 0.4 || !errors.Is(err, context.DeadlineExceeded) ||
			err.Error() != "waiting for job "+jobID+" ended while it was RUNNING at 40 %: the time for it is over" {
			t.Errorf("%v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) { // an outage is bounded
		start := time.Now()
		h := &sequence{handlers: []http.HandlerFunc{job("RUNNING", 0.4), answer(500, ``)}}
		_, err := client(t, served{h}).WaitJob(t.Context(), jobID, ims.Wait{})
		var w *ims.WaitError
		var e *ims.APIError
		if d := time.Since(start); !errors.As(err, &w) || !errors.As(err, &e) || d < 5*time.Minute || d > 6*time.Minute {
			t.Errorf("%v after %s", err, d)
		}
	})
	synctest.Test(t, func(t *testing.T) { // a refusal ends waiting at once
		h := &sequence{handlers: []http.HandlerFunc{answer(403, ``)}}
		_, err := client(t, served{h}).WaitJob(t.Context(), jobID, ims.Wait{})
		var w *ims.WaitError
		if !errors.As(err, &w) || !errors.Is(err, ims.ErrDenied) || h.calls != 1 {
			t.Errorf("%v after %d requests", err, h.calls)
		}
	})
}

// The example answer of the reference, with nulls and an unknown field, and the types of 5.1.1.
const listed = `{"images":[{"schema":"/v2/schemas/image","min_disk":100,"created_at":"2018-09-06T14:03:27Z","__image_source_type":"uds",
"container_format":"bare","updated_at":"2018-09-06T15:17:33Z","protected":true,"id":"bc6bed6e-ba3a-4447-afcc-449174a3eb52","__image_size":"1024",
"min_ram":2048,"owner":"1bed856811654c1cb661a6ca845ebc77","__os_type":"Linux","__imagetype":"gold","visibility":"public",
"virtual_env_type":"FusionCompute","tags":["a=b"],"__platform":"CentOS","size":0,"__os_bit":"64","__os_version":"CentOS 7.3 64bit",
"name":"CentOS 7.3 64bit vivado","disk_format":"zvhd2","virtual_size":null,"hw_firmware_type":"bios","status":"active","x":[{}]}]}`

func TestImage(t *testing.T) {
	const id = "bc6bed6e-ba3a-4447-afcc-449174a3eb52"
	c := client(t, served{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/cloudimages" || r.URL.RawQuery != "id="+id {
			answer(200, `{"images":[]}`)(w, r)
			return
		}
		answer(200, listed)(w, r)
	})})
	want := ims.Image{
		ID: id, Name: "CentOS 7.3 64bit vivado", Status: ims.StatusActive, Owner: "1bed856811654c1cb661a6ca845ebc77", Visibility: "public",
		ImageType: "gold", VirtualEnv: "FusionCompute", DiskFormat: "zvhd2", OSVersion: "CentOS 7.3 64bit", OSType: "Linux", Platform: "CentOS",
		Firmware: "bios", OSBit: "64", Size: 1024, MinDisk: 100, MinRAM: 2048, Protected: true, Tags: []string{"a=b"},
		Properties: map[string]string{"__image_source_type": "uds", "container_format": "bare", "schema": "/v2/schemas/image", "size": "0"},
		Created:    time.Date(2018, 9, 6, 14, 3, 27, 0, time.UTC), Updated: time.Date(2018, 9, 6, 15, 17, 33, 0, time.UTC),
	}
	if got, err := c.Image(t.Context(), id); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := c.Image(t.Context(), "other"); !errors.Is(err, ims.ErrNotFound) {
		t.Errorf("other id: %v", err)
	}
	for _, bad := range []string{"", "a/b", "..", "a b", "a?b"} {
		_, err := c.Image(t.Context(), bad)
		_, errJob := c.Job(t.Context(), bad)
		if err == nil || errJob == nil || c.DeleteImage(t.Context(), bad) == nil {
			t.Errorf("id %q was sent", bad)
		}
	}
}

func TestImagesPages(t *testing.T) {
	const total = 1203
	var queries []string
	c := client(t, served{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		queries = append(queries, r.URL.RawQuery)
		from := 0
		fmt.Sscanf(r.URL.Query().Get("marker"), "i%d", &from)
		var items []string
		for i := from + 1; i <= min(from+500, total); i++ {
			items = append(items, fmt.Sprintf(`{"id":"i%d"}`, i))
		}
		fmt.Fprintf(w, `{"images":[%s]}`, strings.Join(items, ","))
	})})
	filter := url.Values{"tag": {"k=v"}}
	images, err := c.Images(t.Context(), filter)
	if err != nil || len(images) != total || images[total-1].ID != "i1203" {
		t.Fatalf("%d images, %v", len(images), err)
	}
	if want := []string{"limit=500&tag=k%3Dv", "limit=500&marker=i500&tag=k%3Dv", "limit=500&marker=i1000&tag=k%3Dv"}; !reflect.DeepEqual(queries, want) {
		t.Errorf("queries %v", queries)
	}
	if len(filter) != 1 {
		t.Error("the caller's filter changed")
	}
	if images, err := c.Images(t.Context(), url.Values{"limit": {"1"}}); err != nil || len(images) != 500 {
		t.Errorf("%d images, %v", len(images), err)
	}
}

func TestDeleteImage(t *testing.T) {
	c := client(t, served{answer(204, ``)})
	if err := c.DeleteImage(t.Context(), "i1"); err != nil {
		t.Error(err)
	}
	if err := client(t, served{answer(404, ``)}).DeleteImage(t.Context(), "i1"); !errors.Is(err, ims.ErrNotFound) {
		t.Error(err)
	}
}

func TestNewRefuses(t *testing.T) {
	good := ims.Config{Endpoint: "https://ims.example/", ProjectID: project, Credentials: ims.Token("t")}
	if _, err := ims.New(good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*ims.Config){
		"no credentials": func(c *ims.Config) { c.Credentials = ims.Credentials{} },
		"no project":     func(c *ims.Config) { c.ProjectID = "" },
		"odd project":    func(c *ims.Config) { c.ProjectID = "a/b" },
		"nowhere":        func(c *ims.Config) { c.Endpoint = "" },
		"scheme":         func(c *ims.Config) { c.Endpoint = "ftp://x" },
		"password":       func(c *ims.Config) { c.Endpoint = "https://u:hunter2@x" },
		"path":           func(c *ims.Config) { c.Endpoint = "https://x/v2" },
		"query":          func(c *ims.Config) { c.Endpoint = "https://x/?a" },
		"region":         func(c *ims.Config) { c.Endpoint, c.Region = "", "a b/" },
	} {
		cfg := good
		spoil(&cfg)
		if _, err := ims.New(cfg); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCredentialsPrintNoSecret(t *testing.T) {
	c := ims.AccessKey("AKEXAMPLE0000000001", sk, "STSTOKEN")
	cfg := ims.Config{ProjectID: project, Region: "r", Credentials: c}
	cl, err := ims.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "c", c, "cfg", cfg)
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "c", c, "cfg", cfg)
	marshalled, err := json.Marshal(struct{ C ims.Credentials }{c})
	if err != nil {
		t.Fatal(err)
	}
	b.Write(marshalled)
	for _, v := range []any{c, &c, cfg, &cfg, cl, *cl, ims.Token("STSTOKEN"), []ims.Credentials{c}, struct{ c ims.Credentials }{c}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&b, verb, v)
		}
	}
	for _, secret := range []string{sk, "STSTOKEN", fmt.Sprintf("%x", sk), "0000000001"} {
		if i := strings.Index(b.String(), secret); i >= 0 {
			t.Errorf("%q after %q", secret, b.String()[max(0, i-100):i])
		}
	}
	if !strings.Contains(c.String(), "AKEX") {
		t.Errorf("%s names no key", c)
	}
}
