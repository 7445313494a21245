package obs_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
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

// A store that takes no notice of the encryption that it is asked for gets no byte of the disk, and keeps no upload.
func TestEncryptionIgnored(t *testing.T) {
	server, last := answering(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		io.WriteString(w, "<InitiateMultipartUploadResult><UploadId>id</UploadId></InitiateMultipartUploadResult>")
	})
	b, err := obs.New(obs.Config{Endpoint: server.URL, Region: "r", Bucket: "bucket", AccessKey: "ak", SecretKey: "sk", Encryption: obs.Encryption{KMS: true}})
	if err != nil {
		t.Fatal(err)
	}
	id, err := b.Begin(t.Context(), "k", nil)
	if id != "" || !errors.Is(err, upload.ErrPlain) || upload.Temporary(err) {
		t.Errorf("%q, %v", id, err)
	}
	if last.Method != http.MethodDelete || last.URL.Query().Get("uploadId") != "id" {
		t.Errorf("the last request is %s %s", last.Method, last.URL)
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
			"object": b.SetMetadata(t.Context(), upload.Object{Key: "k", Size: 5}, nil),
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
