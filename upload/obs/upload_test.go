package obs_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"imgferry/upload"
	"imgferry/upload/obs"
)

// answering answers every request and keeps the last.
func answering(t *testing.T, answer func(http.ResponseWriter, *http.Request)) (*httptest.Server, *http.Request) {
	var last http.Request
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		last = *r
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	return server, &last
}

// hasBegun begins an upload, encrypted as it is asked for.
func hasBegun(w http.ResponseWriter, r *http.Request) {
	if v := r.Header.Get("X-Amz-Server-Side-Encryption"); v != "" {
		w.Header().Set("X-Amz-Server-Side-Encryption", v)
	}
	io.WriteString(w, "<InitiateMultipartUploadResult><UploadId>id</UploadId></InitiateMultipartUploadResult>")
}

func TestEncryption(t *testing.T) {
	for text, want := range map[string][2]string{
		"":              {"", ""},
		"AES256":        {"AES256", ""},
		"kms":           {"aws:kms", ""},
		"kms:key-1/a:b": {"aws:kms", "key-1/a:b"},
	} {
		e, err := obs.ParseEncryption(text)
		if err != nil || e.On() != (text != "") {
			t.Fatal(text, err)
		}
		server, last := answering(t, hasBegun)
		b, err := obs.New(obs.Config{Endpoint: server.URL, Region: "r", Bucket: "bucket", AccessKey: "ak", SecretKey: "sk", Encryption: e})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Begin(t.Context(), "k", nil); err != nil {
			t.Fatal(err)
		}
		const h = "X-Amz-Server-Side-Encryption"
		if got := [2]string{last.Header.Get(h), last.Header.Get(h + "-Aws-Kms-Key-Id")}; got != want {
			t.Errorf("%q: %q", text, got)
		}
		if signed := strings.Contains(last.Header.Get("Authorization"), strings.ToLower(h)); signed != (text != "") {
			t.Errorf("%q: %s", text, last.Header.Get("Authorization"))
		}
	}
	for _, text := range []string{"aes", "kms:", "kms:a b", "AES256:k", "c"} {
		if _, err := obs.ParseEncryption(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

// encrypting is a store that says of some requests that it encrypts. It keeps what it was asked for, and what
// came of bodies.
type encrypting struct {
	says   []string // methods, and "BEGIN"
	asked  []string
	bodies []string
}

func (e *encrypting) bucket(t *testing.T) *obs.Bucket {
	server := httptest.NewServer(e)
	t.Cleanup(server.Close)
	b, err := obs.New(obs.Config{Endpoint: server.URL, Region: "r", Bucket: "bucket", AccessKey: "ak", SecretKey: "sk", Encryption: obs.Encryption{KMS: true}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (e *encrypting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	what := r.Method
	if what == http.MethodPost {
		what = "BEGIN"
	}
	e.asked = append(e.asked, what)
	if slices.Contains(e.says, what) {
		w.Header().Set("X-Amz-Server-Side-Encryption", "aws:kms")
	}
	switch what {
	case "BEGIN":
		io.WriteString(w, "<InitiateMultipartUploadResult><UploadId>id</UploadId></InitiateMultipartUploadResult>")
	case http.MethodPut:
		e.bodies = append(e.bodies, string(body))
		w.Header().Set("ETag", `"0123456789abcdef0123456789abcdef"`)
	case http.MethodHead:
		w.Header().Set("ETag", `"0123456789abcdef0123456789abcdef"`)
		w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
	case http.MethodDelete:
		w.WriteHeader(http.StatusNoContent)
	}
}

// Some stores say that they encrypt when an upload begins, some of parts or of the object only. One that never
// does gets no byte of the disk, and keeps nothing.
func TestEncryptionIgnored(t *testing.T) {
	for _, c := range []struct {
		says       []string
		begin, put string // what is asked for then
		plain      [2]bool
	}{
		{[]string{"BEGIN", "PUT", "HEAD"}, "BEGIN", "PUT", [2]bool{}},
		{[]string{"PUT", "HEAD"}, "BEGIN PUT", "PUT", [2]bool{}},
		{[]string{"HEAD"}, "BEGIN PUT DELETE", "PUT HEAD", [2]bool{true, false}},
		{nil, "BEGIN PUT DELETE", "PUT HEAD DELETE", [2]bool{true, true}},
	} {
		store := &encrypting{says: c.says}
		b := store.bucket(t)
		id, err := b.Begin(t.Context(), "k", nil)
		if (id == "") != c.plain[0] || errors.Is(err, upload.ErrPlain) != c.plain[0] || upload.Temporary(err) {
			t.Errorf("%q: %q, %v", c.says, id, err)
		}
		if b.OpaqueETags() == c.plain[0] {
			t.Errorf("%q: its ETags tell nothing: %v", c.says, b.OpaqueETags())
		}
		if got := strings.Join(store.asked, " "); got != c.begin || strings.Join(store.bodies, "") != strings.Repeat("\x00", len(store.bodies)) {
			t.Errorf("%q: asked for %s with %q", c.says, got, store.bodies)
		}
		store.asked = nil
		_, err = b.Put(t.Context(), "k", strings.NewReader("x"), 1, nil, nil)
		if errors.Is(err, upload.ErrPlain) != c.plain[1] || upload.Temporary(err) {
			t.Errorf("%q: put: %v", c.says, err)
		}
		if got := strings.Join(store.asked, " "); got != c.put {
			t.Errorf("%q: put asked for %s", c.says, got)
		}
	}
}

// What an answer says of the encryption tells whether its ETag is an MD5.
func TestOpaqueETags(t *testing.T) {
	const amz, obsOwn, customer = "X-Amz-Server-Side-Encryption", "X-Obs-Server-Side-Encryption", "-Customer-Algorithm"
	for _, c := range []struct {
		name, value, server string
		want                bool
	}{
		{"X-Other", "aws:kms", "", false},
		{amz, "AES256", "AmazonS3", false},
		{amz, "aws:kms", "", true},
		{amz, "aws:kms:dsse", "", true},
		{amz + customer, "AES256", "", true},
		{amz, "AES256", "OBS", true},
		{obsOwn, "kms", "", true},
		{obsOwn, "AES256", "", true},
		{obsOwn + customer, "AES256", "", true},
	} {
		server, _ := answering(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(c.name, c.value)
			w.Header().Set("Server", c.server)
			w.Header().Set("ETag", `"0123456789abcdef0123456789abcdef"`)
			w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
		})
		b, err := obs.New(obs.Config{Endpoint: server.URL, Region: "r", Bucket: "bucket", AccessKey: "ak", SecretKey: "sk"})
		if err != nil {
			t.Fatal(err)
		}
		o, err := b.Stat(t.Context(), "k")
		if err != nil || o.Opaque != c.want || b.OpaqueETags() {
			t.Errorf("%+v: %+v, %v; and of the uploads %v", c, o, err, b.OpaqueETags())
		}
		if _, err := b.PutPart(t.Context(), "k", "id", 1, strings.NewReader("x"), 1, nil); err != nil || b.OpaqueETags() != c.want {
			t.Errorf("%+v: %v, %v", c, b.OpaqueETags(), err)
		}
	}
}

// Signature version 2, computed by hand from its definition: HMAC-SHA1 over the method, Content-MD5,
// Content-Type, Date, the x-amz headers ascending, and the resource with the parameters that count.
func TestSignatureV2(t *testing.T) {
	server, last := answering(t, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("ETag", `"e"`) })
	b, err := obs.New(obs.Config{Endpoint: server.URL, Region: "r", Bucket: "bucket", AccessKey: "AK", SecretKey: "SK", SecurityToken: "token", SignatureV2: true})
	if err != nil {
		t.Fatal(err)
	}
	sum := [16]byte{1}
	if _, err := b.PutPart(t.Context(), "a key", "up-1", 7, strings.NewReader("x"), 1, &sum); err != nil {
		t.Fatal(err)
	}
	h := last.Header
	if h.Get("X-Amz-Content-Sha256") != "" || h.Get("Date") == "" {
		t.Errorf("%v", h)
	}
	mac := hmac.New(sha1.New, []byte("SK"))
	io.WriteString(mac, strings.Join([]string{"PUT", h.Get("Content-MD5"), h.Get("Content-Type"), h.Get("Date"),
		"x-amz-security-token:token", "/bucket/a%20key?partNumber=7&uploadId=up-1"}, "\n"))
	if want := "AWS AK:" + base64.StdEncoding.EncodeToString(mac.Sum(nil)); h.Get("Authorization") != want {
		t.Errorf("%s, want %s", h.Get("Authorization"), want)
	}
}

// CompleteNew sends the condition, and tells an object that is there from other failures; Get asks for one
// version.
func TestConditions(t *testing.T) {
	code := "PreconditionFailed"
	server, last := answering(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusPreconditionFailed)
		io.WriteString(w, "<Error><Code>"+code+"</Code></Error>")
	})
	b, err := obs.New(obs.Config{Endpoint: server.URL, Region: "r", Bucket: "bucket", AccessKey: "AK", SecretKey: "SK"})
	if err != nil {
		t.Fatal(err)
	}
	parts := []upload.StoredPart{{Number: 1, ETag: "e"}}
	if _, err := b.CompleteNew(t.Context(), "k", "id", parts); !errors.Is(err, upload.ErrReplaced) || last.Header.Get("If-None-Match") != "*" {
		t.Errorf("%v, %v", err, last.Header)
	}
	if !strings.Contains(last.Header.Get("Authorization"), "if-none-match") {
		t.Error("the condition is not signed")
	}
	if _, err := b.Complete(t.Context(), "k", "id", parts); err == nil || last.Header.Get("If-None-Match") != "" {
		t.Errorf("%v, %v", err, last.Header)
	}
	if _, err := b.Get(t.Context(), "k", 0, 4, "e"); !errors.Is(err, upload.ErrReplaced) || last.Header.Get("If-Match") != `"e"` {
		t.Errorf("%v, %v", err, last.Header)
	}
}

// A copy that failed after the store had answered 200 is a failure, of the class that its code says.
func TestCopyErrorInside200(t *testing.T) {
	answer := ""
	server, _ := answering(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, answer) })
	b, err := obs.New(obs.Config{Endpoint: server.URL, Region: "r", Bucket: "bucket", AccessKey: "AK", SecretKey: "SK"})
	if err != nil {
		t.Fatal(err)
	}
	for code, temporary := range map[string]bool{"InternalError": true, "SlowDown": true, "NoSuchKey": false, "AccessDenied": false} {
		answer = "   <?xml version=\"1.0\"?>\n<Error><Code>" + code + "</Code><Message>m</Message></Error>"
		for op, err := range map[string]error{
			"part": func() error {
				_, err := b.CopyPart(t.Context(), "k", "id", 1, upload.Object{Key: "z"}, 0, 5)
				return err
			}(),
			"object": func() error {
				_, err := b.SetMetadata(t.Context(), upload.Object{Key: "k", Size: 5}, nil)
				return err
			}(),
		} {
			var e *upload.Error
			if !errors.As(err, &e) || e.Code != code || e.Temporary != temporary {
				t.Errorf("%s, %s: %+v", op, code, err)
			}
		}
	}
	for _, garbage := range []string{"", "<html>hello", "{}"} {
		answer = garbage
		if _, err := b.CopyPart(t.Context(), "k", "id", 1, upload.Object{Key: "z"}, 0, 5); !upload.Temporary(err) {
			t.Errorf("%q: %v", garbage, err)
		}
	}
}
