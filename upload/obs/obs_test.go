package obs_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"imgferry/upload"
	"imgferry/upload/obs"
)

const (
	accessKey = "TESTACCESSKEY"
	secretKey = "very-secret-key"
	token     = "very-secret-token"
)

func TestMain(m *testing.M) {
	// minio-go sleeps this long at most even after the last try.
	minio.DefaultRetryUnit = time.Microsecond
	os.Exit(m.Run())
}

// A recorder answers every request in the same way and remembers the last.
type recorder struct {
	answer http.HandlerFunc

	last *http.Request
	body []byte
	n    int
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.n++
	r.last = req
	r.body, _ = io.ReadAll(req.Body)
	r.answer(w, req)
}

func answer(status int, header, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if name, value, ok := strings.Cut(header, ": "); ok {
			w.Header().Set(name, value)
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

func bucket(t *testing.T, server *httptest.Server, change ...func(*obs.Config)) *obs.Bucket {
	t.Helper()
	c := obs.Config{
		Endpoint:      server.URL,
		Region:        "test-1",
		Bucket:        "bucket",
		AccessKey:     accessKey,
		SecretKey:     secretKey,
		SecurityToken: token,
		UserAgent:     "imgferry/1.2",
	}
	for _, f := range change {
		f(&c)
	}
	if c.Transport == nil {
		transport := obs.NewTransport(0)
		t.Cleanup(transport.CloseIdleConnections)
		c.Transport = transport
	}
	b, err := obs.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	begun     = `<InitiateMultipartUploadResult><Bucket>bucket</Bucket><Key>k</Key><UploadId>id</UploadId></InitiateMultipartUploadResult>`
	completed = `<CompleteMultipartUploadResult><Bucket>bucket</Bucket><Key>k</Key><ETag>"e-1"</ETag></CompleteMultipartUploadResult>`
	copied    = `<CopyObjectResult><ETag>"e"</ETag><LastModified>2026-01-02T03:04:05.000Z</LastModified></CopyObjectResult>`
	noParts   = `<ListPartsResult></ListPartsResult>`
	noUploads = `<ListMultipartUploadsResult></ListMultipartUploadsResult>`
)

type method struct {
	name   string
	verb   string
	uri    string // path and query
	answer http.HandlerFunc
	call   func(context.Context, *obs.Bucket) error
}

// methods calls everything that makes one request, with an answer that pleases it.
var methods = []method{
	{"Begin", "POST", "/bucket/a%20%2Bkey?uploads=", answer(200, "", begun), func(ctx context.Context, b *obs.Bucket) error {
		id, err := b.Begin(ctx, "a +key", upload.Metadata{"digest": "d"})
		return want(err, id, "id")
	}},
	{"PutPart", "PUT", "/bucket/k?partNumber=7&uploadId=id", answer(200, `ETag: "e"`, ""), func(ctx context.Context, b *obs.Bucket) error {
		sum := md5.Sum([]byte("body"))
		etag, err := b.PutPart(ctx, "k", "id", 7, strings.NewReader("body"), 4, &sum)
		return want(err, etag, "e")
	}},
	{"Parts", "GET", "/bucket/k?max-parts=1000&part-number-marker=0&uploadId=id", answer(200, "", noParts), func(ctx context.Context, b *obs.Bucket) error {
		_, err := b.Parts(ctx, "k", "id")
		return err
	}},
	{"Uploads", "GET", "/bucket/?delimiter=&encoding-type=url&max-uploads=1000&prefix=k&uploads=", answer(200, "", noUploads), func(ctx context.Context, b *obs.Bucket) error {
		_, err := b.Uploads(ctx, "k")
		return err
	}},
	{"Complete", "POST", "/bucket/k?uploadId=id", answer(200, "", completed), func(ctx context.Context, b *obs.Bucket) error {
		etag, err := b.Complete(ctx, "k", "id", []upload.StoredPart{{Number: 1, ETag: "e"}})
		return want(err, etag, "e-1")
	}},
	{"Abort", "DELETE", "/bucket/k?uploadId=id", answer(204, "", ""), func(ctx context.Context, b *obs.Bucket) error {
		return b.Abort(ctx, "k", "id")
	}},
	{"Stat", "HEAD", "/bucket/k", answer(200, "Last-Modified: Fri, 02 Jan 2026 03:04:05 GMT", ""), func(ctx context.Context, b *obs.Bucket) error {
		_, err := b.Stat(ctx, "k")
		return err
	}},
	{"Put", "PUT", "/bucket/k", answer(200, `ETag: "e"`, ""), func(ctx context.Context, b *obs.Bucket) error {
		sum := md5.Sum([]byte("body"))
		etag, err := b.Put(ctx, "k", strings.NewReader("body"), 4, &sum, upload.Metadata{"digest": "d"})
		return want(err, etag, "e")
	}},
	{"Get", "GET", "/bucket/k", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Last-Modified", "Fri, 02 Jan 2026 03:04:05 GMT")
		w.Header().Set("Content-Range", "bytes 10-13/100")
		w.WriteHeader(206)
		io.WriteString(w, "body")
	}, func(ctx context.Context, b *obs.Bucket) error {
		r, err := b.Get(ctx, "k", 10, 4, "")
		if err != nil {
			return err
		}
		defer r.Close()
		data, err := io.ReadAll(r)
		return want(err, string(data), "body")
	}},
	{"Remove", "DELETE", "/bucket/k", answer(204, "", ""), func(ctx context.Context, b *obs.Bucket) error {
		return b.Remove(ctx, "k")
	}},
	{"SetMetadata", "PUT", "/bucket/k", answer(200, "", copied), func(ctx context.Context, b *obs.Bucket) error {
		etag, err := b.SetMetadata(ctx, upload.Object{Key: "k", Size: 5 << 30}, upload.Metadata{"digest": "d"})
		return want(err, etag, "e")
	}},
	{"CheckBucket", "HEAD", "/bucket/", answer(200, "", ""), func(ctx context.Context, b *obs.Bucket) error {
		return b.CheckBucket(ctx)
	}},
}

func want(err error, got, want string) error {
	if err == nil && got != want {
		return fmt.Errorf("got %q instead of %q", got, want)
	}
	return err
}

// What goes over the wire is what OBS documents, over plain HTTP too.
func TestWire(t *testing.T) {
	for _, m := range methods {
		t.Run(m.name, func(t *testing.T) {
			rec := &recorder{answer: m.answer}
			server := httptest.NewServer(rec)
			defer server.Close()
			if err := m.call(t.Context(), bucket(t, server)); err != nil {
				t.Fatal(err)
			}
			if rec.n != 1 || rec.last.Method != m.verb || rec.last.RequestURI != m.uri {
				t.Errorf("%d requests, %s %s", rec.n, rec.last.Method, rec.last.RequestURI)
			}
			h := rec.last.Header
			if v := h.Get("X-Amz-Content-Sha256"); v != "UNSIGNED-PAYLOAD" {
				t.Errorf("X-Amz-Content-Sha256 is %q", v)
			}
			auth := h.Get("Authorization")
			if !strings.HasPrefix(auth, "AWS4-HMAC-SHA256 Credential="+accessKey+"/") || !strings.Contains(auth, "/test-1/s3/aws4_request") {
				t.Errorf("Authorization is %q", auth)
			}
			if h.Get("X-Amz-Security-Token") != token || !strings.HasSuffix(h.Get("User-Agent"), " imgferry/1.2") {
				t.Errorf("headers %v", h)
			}
			for name := range h {
				if name = strings.ToLower(name); strings.Contains(name, "checksum") || strings.Contains(name, "trailer") || name == "content-encoding" {
					t.Errorf("header %s is sent", name)
				}
			}
			if len(rec.last.TransferEncoding) > 0 {
				t.Errorf("transfer encoding %v", rec.last.TransferEncoding)
			}
			switch m.name {
			case "PutPart", "Put":
				sum := md5.Sum([]byte("body"))
				if h.Get("Content-Md5") != base64.StdEncoding.EncodeToString(sum[:]) || !strings.Contains(auth, "content-md5;") {
					t.Errorf("Content-MD5 %q, %s", h.Get("Content-Md5"), auth)
				}
				if string(rec.body) != "body" || rec.last.ContentLength != 4 {
					t.Errorf("body %q", rec.body)
				}
			case "Get":
				if v := h.Get("Range"); v != "bytes=10-13" {
					t.Errorf("range %q", v)
				}
			}
			if m.name == "Put" || m.name == "Begin" || m.name == "SetMetadata" {
				if v := h.Get("X-Amz-Meta-Digest"); v != "d" {
					t.Errorf("metadata %q", v)
				}
			}
		})
	}
}

// A body of which nothing is known beforehand has no Content-MD5.
func TestPutPartStreams(t *testing.T) {
	rec := &recorder{answer: answer(200, `ETag: "e"`, "")}
	server := httptest.NewServer(rec)
	defer server.Close()
	body := strings.NewReader("xxbody")
	body.Seek(2, io.SeekStart) // read from the current position
	if _, err := bucket(t, server).PutPart(t.Context(), "k", "id", 1, body, 4, nil); err != nil {
		t.Fatal(err)
	}
	if rec.last.Header.Get("Content-Md5") != "" || string(rec.body) != "body" {
		t.Errorf("headers %v, body %q", rec.last.Header, rec.body)
	}
}

func xmlError(code string) string {
	return `<?xml version="1.0"?><Error><Code>` + code + `</Code><Message>Because of ` + code + `.</Message><RequestId>R1</RequestId></Error>`
}

// Answers mean the same whichever method gets them.
func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name      string
		status    int
		header    string
		body      string
		class     error
		temporary bool
		says      string
	}{
		{"403 AccessDenied", 403, "", xmlError("AccessDenied"), upload.ErrDenied, false, "access denied"},
		{"403 InvalidAccessKeyId", 403, "", xmlError("InvalidAccessKeyId"), upload.ErrDenied, false, "access denied"},
		{"400 ExpiredToken", 400, "", xmlError("ExpiredToken"), upload.ErrExpired, false, "access denied: the login has expired"},
		{"403 SignatureDoesNotMatch", 403, "", xmlError("SignatureDoesNotMatch"), upload.ErrDenied, false, "access denied"},
		{"403 RequestTimeTooSkewed", 403, "", xmlError("RequestTimeTooSkewed"), upload.ErrClock, false, "set the clock"},
		{"403 without a word", 403, "", "", upload.ErrDenied, false, "access denied"},
		{"404 NoSuchBucket", 404, "", xmlError("NoSuchBucket"), upload.ErrNoBucket, false, "the bucket does not exist"},
		{"400 RequestTimeout", 400, "", xmlError("RequestTimeout"), nil, true, "RequestTimeout"},
		{"400 BadDigest", 400, "", xmlError("BadDigest"), nil, true, "BadDigest"},
		{"400 EntityTooSmall", 400, "", xmlError("EntityTooSmall"), nil, false, "EntityTooSmall"},
		{"400 without a word", 400, "", "", nil, false, "Bad Request"},
		{"403 QuotaExceeded", 403, "", xmlError("QuotaExceeded"), nil, false, "QuotaExceeded"},
		{"409", 409, "", xmlError("OperationAborted"), nil, true, "OperationAborted"},
		{"429", 429, "Retry-After: 7", xmlError("TooManyRequests"), nil, true, "TooManyRequests"},
		{"500", 500, "", xmlError("InternalError"), nil, true, "InternalError"},
		{"500 without a word", 500, "", "", nil, true, "Internal Server Error"},
		{"500 garbage", 500, "", "<html>\x00\xff oops", nil, true, "Internal Server Error"},
		{"501", 501, "", xmlError("NotImplemented"), nil, false, "NotImplemented"},
		{"502", 502, "", "<html><h1>Bad gateway</h1></html>", nil, true, "status 502"},
		{"503 SlowDown", 503, "Retry-After: 7", xmlError("SlowDown"), nil, true, "SlowDown"},
		{"504", 504, "", "", nil, true, "Gateway Timeout"},
		{"507", 507, "", xmlError("InsufficientStorage"), nil, false, "InsufficientStorage"},
	} {
		for _, m := range methods {
			t.Run(c.name+"/"+m.name, func(t *testing.T) {
				rec := &recorder{answer: answer(c.status, c.header, c.body)}
				server := httptest.NewServer(rec)
				defer server.Close()
				err := m.call(t.Context(), bucket(t, server))
				var e *upload.Error
				if !errors.As(err, &e) {
					t.Fatalf("error %v", err)
				}
				if m.verb == "HEAD" && m.name == "Stat" && strings.HasPrefix(c.body, "<?xml") {
					// A HEAD has no body to say it: only the status is left.
					if e.Status != c.status || e.Temporary != (c.status == 429 || c.status >= 500 && c.status != 501 && c.status != 507) {
						t.Errorf("%+v", e)
					}
					return
				}
				if e.Status != c.status || e.Temporary != c.temporary || !strings.Contains(err.Error(), c.says) || (c.class == nil) != (e.Class == nil) || c.class != nil && !errors.Is(err, c.class) {
					t.Errorf("%v: %+v", err, e)
				}
				if c.header != "" && e.RetryAfter != 7*time.Second {
					t.Errorf("Retry-After %v", e.RetryAfter)
				}
				if m.verb != "HEAD" && strings.Contains(c.body, "R1") && e.RequestID != "R1" {
					t.Errorf("request id %q", e.RequestID)
				}
				if n := rec.n; n > 1 && m.name != "CheckBucket" || n > 2 {
					t.Errorf("%d requests", n)
				}
				for _, secret := range []string{accessKey, secretKey, token} {
					if strings.Contains(fmt.Sprintf("%v %+v", err, e), secret) {
						t.Errorf("%v tells a secret", err)
					}
				}
			})
		}
	}
}

// What is missing depends on what was asked for; without a word from the store, too.
func TestNotFound(t *testing.T) {
	for _, c := range []struct {
		method, body string
		class        error // nil: no error
	}{
		{"Stat", "", upload.ErrNoObject},
		{"Get", xmlError("NoSuchKey"), upload.ErrNoObject},
		{"Get", "", upload.ErrNoObject},
		{"SetMetadata", xmlError("NoSuchKey"), upload.ErrNoObject},
		{"PutPart", xmlError("NoSuchUpload"), upload.ErrNoUpload},
		{"PutPart", "", upload.ErrNoUpload},
		{"Parts", xmlError("NoSuchUpload"), upload.ErrNoUpload},
		{"Complete", xmlError("NoSuchUpload"), upload.ErrNoUpload},
		{"CheckBucket", "", upload.ErrNoBucket},
		{"Uploads", "", upload.ErrNoBucket},
		{"Abort", xmlError("NoSuchUpload"), nil},
		{"Abort", "", nil},
		{"Remove", xmlError("NoSuchKey"), nil},
	} {
		server := httptest.NewServer(answer(404, "", c.body))
		defer server.Close()
		i := slices.IndexFunc(methods, func(m method) bool { return m.name == c.method })
		err := methods[i].call(t.Context(), bucket(t, server))
		if !errors.Is(err, c.class) || upload.Temporary(err) {
			t.Errorf("%s with body %q: %v", c.method, c.body, err)
		}
	}
}

// That a HEAD finds no bucket may have another reason, which only an answer with a body tells.
func TestCheckBucketAsksWhy(t *testing.T) {
	for _, c := range []struct {
		status int
		code   string
		class  error
	}{
		{404, "InvalidAccessKeyId", upload.ErrDenied},
		{404, "XAdminUserNotFound", upload.ErrDenied},
		{403, "SignatureDoesNotMatch", upload.ErrDenied},
		{404, "NoSuchBucket", upload.ErrNoBucket},
	} {
		rec := 0
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rec++
			if r.Method == http.MethodHead {
				w.WriteHeader(404)
				return
			}
			answer(c.status, "", xmlError(c.code))(w, r)
		}))
		defer server.Close()
		var e *upload.Error
		err := bucket(t, server).CheckBucket(t.Context())
		if !errors.Is(err, c.class) || !errors.As(err, &e) || e.Code != c.code || rec != 2 {
			t.Errorf("%s: %v after %d requests", c.code, err, rec)
		}
	}
}

// A status of 200 is no success if the body says otherwise, or breaks off.
func TestFalseSuccess(t *testing.T) {
	for _, method := range []string{"Begin", "PutPart", "Parts", "Uploads", "Complete", "SetMetadata"} {
		for name, h := range map[string]http.HandlerFunc{
			"error":     answer(200, "", xmlError("InternalError")),
			"nothing":   answer(200, "", ""),
			"cut XML":   answer(200, "", "<CompleteMultipartUploadResult><Buck"),
			"truncated": cutBody(completed),
			"reset":     func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		} {
			if name == "error" && (method == "Parts" || method == "Uploads") {
				continue // S3 does this only where the work takes long
			}
			t.Run(method+"/"+name, func(t *testing.T) {
				server := httptest.NewServer(h)
				defer server.Close()
				for _, m := range methods {
					if m.name != method {
						continue
					}
					err := m.call(t.Context(), bucket(t, server))
					if !upload.Temporary(err) || strings.Contains(err.Error(), "http://") {
						t.Errorf("error %v", err)
					}
				}
			})
		}
	}
}

// cutBody answers with half of a body and breaks the connection.
func cutBody(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		io.WriteString(w, body[:len(body)/2])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

// An error inside a 200 keeps its words.
func TestErrorInside200(t *testing.T) {
	server := httptest.NewServer(answer(200, "", xmlError("InvalidPart")))
	defer server.Close()
	b := bucket(t, server)
	_, err := b.Complete(t.Context(), "k", "id", nil)
	var e *upload.Error
	if !errors.As(err, &e) || e.Code != "InvalidPart" || e.Temporary {
		t.Errorf("%+v", e)
	}
	if _, err := b.SetMetadata(t.Context(), upload.Object{Key: "k", Size: 1}, nil); !errors.As(err, &e) || e.Code != "InvalidPart" || e.Temporary {
		t.Errorf("%+v", e)
	}
}

// Failures to talk to the store.
func TestUnreachable(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	plain := httptest.NewServer(answer(200, "", begun))
	defer plain.Close()
	secure := httptest.NewUnstartedServer(answer(200, "", begun))
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // it complains of our refusal
	secure.StartTLS()
	defer secure.Close()
	stuck := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-stuck }))
	defer silent.Close()
	defer close(stuck)
	impatient := obs.NewTransport(0)
	impatient.ResponseHeaderTimeout = 10 * time.Millisecond
	for _, c := range []struct {
		name      string
		server    *httptest.Server
		change    func(*obs.Config)
		temporary bool
		says      string
	}{
		{"refused", closed, func(*obs.Config) {}, true, "connection refused"},
		{"plain store", plain, func(c *obs.Config) { c.Endpoint = strings.Replace(c.Endpoint, "http", "https", 1) }, false, "does not speak HTTPS"},
		{"unknown CA", secure, func(*obs.Config) {}, false, "certificate is not trusted"},
		{"no such host", plain, func(c *obs.Config) { c.Endpoint = "http://nowhere.invalid" }, false, "no host nowhere.invalid"},
		{"silent", silent, func(c *obs.Config) { c.Transport = impatient }, true, "timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := bucket(t, c.server, c.change).Begin(t.Context(), "k", nil)
			var e *upload.Error
			if !errors.As(err, &e) || e.Temporary != c.temporary || !strings.Contains(err.Error(), c.says) || e.Status != 0 || strings.Contains(err.Error(), "://") {
				t.Errorf("%v: %+v", err, e)
			}
		})
	}
}

// Our own certificate authority makes the store trusted.
func TestCustomCA(t *testing.T) {
	server := httptest.NewTLSServer(answer(200, "", begun))
	defer server.Close()
	transport := obs.NewTransport(0)
	defer transport.CloseIdleConnections()
	transport.TLSClientConfig = &tls.Config{RootCAs: server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}
	b := bucket(t, server, func(c *obs.Config) { c.Transport = transport })
	if _, err := b.Begin(t.Context(), "k", nil); err != nil {
		t.Error(err)
	}
}

func TestCancelled(t *testing.T) {
	for _, m := range methods {
		ctx, cancel := context.WithCancel(t.Context())
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body) // or else the server does not notice that we left
			cancel()
			<-r.Context().Done()
		}))
		if err := m.call(ctx, bucket(t, server)); !errors.Is(err, context.Canceled) || upload.Temporary(err) {
			t.Errorf("%s: %v", m.name, err)
		}
		server.Close()
	}
}

// After PutPart has returned nobody reads the body any more, even though the store answered
// before it had read all of it. The race detector sees it otherwise.
func TestBodyIsLeftAlone(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		w.WriteHeader(503)
	}))
	defer server.Close()
	b := bucket(t, server)
	data := make([]byte, 8<<20)
	for range 20 {
		body := bytes.NewReader(data)
		if _, err := b.PutPart(t.Context(), "k", "id", 1, body, int64(len(data)), nil); !upload.Temporary(err) {
			t.Fatal(err)
		}
		body.Reset(nil)
		clear(data)
	}
}

// Listings are followed through all their pages, and a listing without end is an error.
func TestPages(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		switch {
		case q.Get("part-number-marker") == "0":
			io.WriteString(w, `<ListPartsResult><Part><PartNumber>1</PartNumber><Size>5</Size><ETag>"a"</ETag></Part><IsTruncated>true</IsTruncated><NextPartNumberMarker>1</NextPartNumberMarker></ListPartsResult>`)
		case q.Get("part-number-marker") == "1":
			io.WriteString(w, `<ListPartsResult><Part><PartNumber>2</PartNumber><Size>6</Size><ETag>b</ETag></Part></ListPartsResult>`)
		case q.Get("key-marker") == "":
			io.WriteString(w, `<ListMultipartUploadsResult><EncodingType>url</EncodingType><Upload><Key>k%2B1</Key><UploadId>u1</UploadId><Initiated>2026-01-01T00:00:00.000Z</Initiated></Upload><IsTruncated>true</IsTruncated><NextKeyMarker>k%2B1</NextKeyMarker><NextUploadIdMarker>u1</NextUploadIdMarker></ListMultipartUploadsResult>`)
		case q.Get("key-marker") == "k+1" && q.Get("upload-id-marker") == "u1":
			io.WriteString(w, `<ListMultipartUploadsResult><EncodingType>url</EncodingType><Upload><Key>k%2B1</Key><UploadId>u2</UploadId><Initiated>2026-01-02T00:00:00.000Z</Initiated></Upload></ListMultipartUploadsResult>`)
		default:
			w.WriteHeader(400)
		}
	}))
	defer server.Close()
	b := bucket(t, server)
	parts, err := b.Parts(t.Context(), "k", "id")
	if err != nil || !slices.Equal(parts, []upload.StoredPart{{Number: 1, Size: 5, ETag: "a"}, {Number: 2, Size: 6, ETag: "b"}}) {
		t.Errorf("%v, %v", parts, err)
	}
	uploads, err := b.Uploads(t.Context(), "k")
	if err != nil || len(uploads) != 2 || uploads[0].UploadID != "u2" || uploads[1].Key != "k+1" || uploads[0].Initiated.Day() != 2 {
		t.Errorf("%v, %v", uploads, err)
	}
}

func TestEndlessPages(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("uploads") {
			io.WriteString(w, `<ListMultipartUploadsResult><IsTruncated>true</IsTruncated></ListMultipartUploadsResult>`)
		} else {
			io.WriteString(w, `<ListPartsResult><IsTruncated>true</IsTruncated></ListPartsResult>`)
		}
	}))
	defer server.Close()
	b := bucket(t, server)
	if _, err := b.Parts(t.Context(), "k", "id"); err == nil || upload.Temporary(err) {
		t.Error(err)
	}
	if _, err := b.Uploads(t.Context(), "k"); err == nil || upload.Temporary(err) {
		t.Error(err)
	}
}

// An answer without end costs neither memory nor time.
func TestEndlessAnswer(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `<ListMultipartUploadsResult>`)
		filler := bytes.Repeat([]byte("<Upload><Key>k</Key></Upload>"), 1000)
		for range 10_000 { // 290 MB
			if _, err := w.Write(filler); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	if _, err := bucket(t, server).Uploads(t.Context(), "k"); err == nil || upload.Temporary(err) || !strings.Contains(err.Error(), "longer than any") {
		t.Error(err)
	}
}

// A listing has no more entries than the protocol allows, and none that there can't be, whatever pages it comes in.
func TestListingsAreBounded(t *testing.T) {
	const perPage = 5000
	var entry func(n int) string // the n-th, from 1 on
	last, pages := 0, 0          // last: pages that there are
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pages++
		root := "ListPartsResult"
		if r.URL.Query().Has("uploads") {
			root = "ListMultipartUploadsResult"
		}
		fmt.Fprintf(w, "<%s><IsTruncated>%v</IsTruncated><NextPartNumberMarker>%d</NextPartNumberMarker><NextUploadIdMarker>%[3]d</NextUploadIdMarker>",
			root, pages != last, pages)
		for i := range perPage {
			io.WriteString(w, entry((pages-1)*perPage+i+1))
		}
		fmt.Fprintf(w, "</%s>", root)
	}))
	defer server.Close()
	b := bucket(t, server)
	part := func(size int) func(int) string {
		return func(n int) string {
			return fmt.Sprintf("<Part><PartNumber>%d</PartNumber><Size>%d</Size><ETag>e</ETag></Part>", n, size)
		}
	}
	unfinished := func(key string) func(int) string {
		return func(n int) string {
			return fmt.Sprintf("<Upload><Key>%s</Key><UploadId>%d</UploadId></Upload>", key, n)
		}
	}
	only := func(f func(int) string, n int) func(int) string {
		return func(i int) string {
			if i != 1 {
				return ""
			}
			return f(n)
		}
	}
	for _, c := range []struct {
		name    string
		uploads bool
		entry   func(int) string
		last    int // pages; 0: without end
		pages   int // that are read at most
		says    string
	}{
		{"all parts there can be", false, part(5), 2, 2, ""},
		{"one page more", false, part(5), 3, 3, "can't be right: it has a part 10001"},
		{"one number without end", false, func(int) string { return part(5)(7) }, 0, 3, "does not end"},
		{"part 0", false, only(part(5), 0), 1, 1, "it has a part 0 of 5 bytes"},
		{"part -1", false, only(part(5), -1), 1, 1, "it has a part -1 of 5 bytes"},
		{"negative size", false, only(part(-5), 1), 1, 1, "it has a part 1 of -5 bytes"},
		{"size past all", false, only(part(math.MaxInt64), 1), 1, 1, "it has a part 1 of 9223372036854775807 bytes"},
		{"many uploads", true, unfinished("k"), 20, 20, ""},
		{"more uploads", true, unfinished("k"), 21, 21, "there are more than the 100000 that are listed at most"},
		{"long keys", true, unfinished(strings.Repeat("k", 3000)), 0, 5, "there are more than the 100000"},
		{"many tags", true, func(int) string { return strings.Repeat("<a/>", 41) }, 0, 1, "longer than any"},
	} {
		t.Run(c.name, func(t *testing.T) {
			entry, last, pages = c.entry, c.last, 0
			var err error
			var n int
			if c.uploads {
				var list []upload.Unfinished
				list, err = b.Uploads(t.Context(), "k")
				n = len(list)
			} else {
				var list []upload.StoredPart
				list, err = b.Parts(t.Context(), "k", "id")
				n = len(list)
			}
			if pages > c.pages || (err == nil) != (c.says == "") || err != nil && (!strings.Contains(err.Error(), c.says) || upload.Temporary(err) || n > 0) || err == nil && n == 0 {
				t.Errorf("%d entries from %d pages: %v", n, pages, err)
			}
		})
	}
}

// The list of buckets ends somewhere too, and a login page is none.
func TestBucketsBounded(t *testing.T) {
	for says, body := range map[string]http.HandlerFunc{
		"longer than any": func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "<ListAllMyBucketsResult><Buckets>"+strings.Repeat("<Bucket><Name>b</Name></Bucket>", 100_000))
		},
		"reply is not complete": answer(200, "Content-Type: text/html", "<html>Log in</html>"),
	} {
		server := httptest.NewServer(body)
		_, err := obs.Buckets(t.Context(), obs.Config{Endpoint: server.URL, Region: "r", AccessKey: accessKey, SecretKey: secretKey})
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v does not say %q", err, says)
		}
		server.Close()
	}
}

// What a store asks for by Retry-After can be reckoned with.
func TestRetryAfter(t *testing.T) {
	date := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
	for value, want := range map[string]time.Duration{
		"":                              0,
		"7":                             7 * time.Second,
		"-7":                            0,
		"soon":                          0,
		"2147483647":                    24 * time.Hour,
		"18446744073709551616":          0,
		date(-time.Hour):                0,
		date(time.Hour):                 time.Hour,
		"Fri, 31 Dec 9999 23:59:59 GMT": 24 * time.Hour,
	} {
		server := httptest.NewServer(answer(503, "Retry-After: "+value, xmlError("SlowDown")))
		err := bucket(t, server).Abort(t.Context(), "k", "id")
		var e *upload.Error
		if !errors.As(err, &e) || e.RetryAfter > want || e.RetryAfter < want*59/60 {
			t.Errorf("%q: %v, %v", value, e.RetryAfter, err)
		}
		server.Close()
	}
}

// The range that comes back must be the one that was asked for.
func TestGetRange(t *testing.T) {
	for _, h := range []http.HandlerFunc{
		answer(200, "Last-Modified: Fri, 02 Jan 2026 03:04:05 GMT", "body"), // ignores ranges
		answer(206, "Last-Modified: Fri, 02 Jan 2026 03:04:05 GMT", "bo"),   // past the end
		answer(206, "Last-Modified: Fri, 02 Jan 2026 03:04:05 GMT", "body"), // does not say which
	} {
		server := httptest.NewServer(h)
		if _, err := bucket(t, server).Get(t.Context(), "k", 0, 4, ""); err == nil {
			t.Error("another range was taken")
		}
		server.Close()
	}
	server := httptest.NewServer(answer(416, "", xmlError("InvalidRange")))
	defer server.Close()
	b := bucket(t, server)
	for _, r := range [][2]int64{{-1, 1}, {0, 0}, {1 << 62, 1 << 62}, {5, 5}} {
		if _, err := b.Get(t.Context(), "k", r[0], r[1], ""); err == nil {
			t.Errorf("range %v was taken", r)
		}
	}
}

// The bucket goes where the store wants it.
func TestStyle(t *testing.T) {
	for _, c := range []struct {
		endpoint string
		style    obs.Style
		host     string
		path     string
	}{
		{"http://127.0.0.1:9000", obs.Auto, "127.0.0.1:9000", "/bucket/k"},
		{"http://[::1]:9000/", obs.Auto, "[::1]:9000", "/bucket/k"},
		{"localhost:9000", obs.Auto, "localhost:9000", "/bucket/k"},
		{"s3.localhost:9000", obs.Auto, "s3.localhost:9000", "/bucket/k"},
		{"https://obs.localhost:9000", obs.Auto, "bucket.obs.localhost:9000", "/k"},
		{"http://minio.example:9000", obs.Auto, "minio.example:9000", "/bucket/k"},
		{"https://obs.eu-de.example.com", obs.Auto, "bucket.obs.eu-de.example.com", "/k"},
		{"obs.cn-north-4.myhuaweicloud.com", obs.Auto, "bucket.obs.cn-north-4.myhuaweicloud.com", "/k"},
		{"obs.cn-north-4.myhuaweicloud.com", obs.Path, "obs.cn-north-4.myhuaweicloud.com", "/bucket/k"},
		{"s3.example.com", obs.VirtualHost, "bucket.s3.example.com", "/k"},
		{"127.0.0.1:9000", obs.VirtualHost, "bucket.127.0.0.1:9000", "/k"},
	} {
		var got *url.URL
		var host string
		b := bucket(t, &httptest.Server{URL: c.endpoint}, func(config *obs.Config) {
			config.Style = c.style
			config.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
				got, host = r.URL, r.URL.Host
				return nil, errors.New("enough")
			})
		})
		b.Stat(t.Context(), "k")
		if got == nil || host != c.host || got.Path != c.path {
			t.Errorf("%s, style %d: %v", c.endpoint, c.style, got)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestConfigRefused(t *testing.T) {
	good := obs.Config{Endpoint: "obs.example", Region: "r", Bucket: "bucket", AccessKey: "a", SecretKey: "s"}
	if _, err := obs.New(good); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*obs.Config){
		"no endpoint": func(c *obs.Config) { c.Endpoint = "" },
		"path":        func(c *obs.Config) { c.Endpoint = "https://obs.example/bucket" },
		"scheme":      func(c *obs.Config) { c.Endpoint = "ftp://obs.example" },
		"password":    func(c *obs.Config) { c.Endpoint = "https://user:hush@obs.example" },
		"no region":   func(c *obs.Config) { c.Region = "" },
		"no bucket":   func(c *obs.Config) { c.Bucket = "" },
		"no key":      func(c *obs.Config) { c.AccessKey = "" },
		"no secret":   func(c *obs.Config) { c.SecretKey = "" },
		"bad bucket":  func(c *obs.Config) { c.Bucket = "No/Bucket" },
		"short name":  func(c *obs.Config) { c.Bucket = "ab" },
		"high port":   func(c *obs.Config) { c.Endpoint = "https://obs.example:65536" },
		"port 0":      func(c *obs.Config) { c.Endpoint = "obs.example:0" },
	} {
		c := good
		change(&c)
		if _, err := obs.New(c); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A key that no store takes is refused without a request.
func TestBadKey(t *testing.T) {
	rec := &recorder{answer: answer(200, "", begun)}
	server := httptest.NewServer(rec)
	defer server.Close()
	_, err := bucket(t, server).Begin(t.Context(), "", nil)
	if err == nil || upload.Temporary(err) || rec.n > 0 {
		t.Errorf("%v", err)
	}
}
