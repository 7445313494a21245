package objectstore_test

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/signer"

	"imgferry/sandbox/objectstore"
)

// These tests send what no proper client would.

func sha256Sum(p []byte) []byte { s := sha256.Sum256(p); return s[:] }

type reply struct {
	*http.Response
	text string
}

// do sends a request that is signed already, or not at all.
func (w *world) do(method, url, body string, header http.Header) reply {
	w.Helper()
	req, err := http.NewRequestWithContext(w.Context(), method, url, strings.NewReader(body))
	if err != nil {
		w.Fatal(err)
	}
	for name, v := range header {
		req.Header[name] = v
	}
	return w.send(req)
}

func (w *world) send(req *http.Request) reply {
	w.Helper()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		w.Fatal(err)
	}
	defer res.Body.Close()
	p, err := io.ReadAll(res.Body)
	if err != nil {
		w.Fatal(err)
	}
	return reply{res, string(p)}
}

// signed makes a request with the client's own signer.
func (w *world) signed(method, path, payload string, body io.Reader, header map[string]string) *http.Request {
	w.Helper()
	req, err := http.NewRequestWithContext(w.Context(), method, w.server.URL+path, body)
	if err != nil {
		w.Fatal(err)
	}
	req.Header.Set("X-Amz-Content-Sha256", payload)
	for name, v := range header {
		req.Header.Set(name, v)
	}
	return signer.SignV4(*req, testAccess, testSecret, "", testRegion)
}

func (r reply) code() string {
	_, rest, _ := strings.Cut(r.text, "<Code>")
	code, _, _ := strings.Cut(rest, "</Code>")
	return code
}

func (w *world) wantReply(what string, r reply, status int, code string) {
	w.Helper()
	if r.StatusCode != status || r.code() != code {
		w.Errorf("%s: %d %s, want %d %s\n%s", what, r.StatusCode, r.code(), status, code, r.text)
	}
	if r.Header.Get("X-Amz-Request-Id") == "" {
		w.Errorf("%s: no request id", what)
	}
}

func b64(p []byte) string { return base64.StdEncoding.EncodeToString(p) }

func TestTamperedBodies(t *testing.T) {
	w := newWorld(t)
	data := string(noise(1, 100_000))
	tampered := data[:50_000] + "X" + data[50_001:]
	hash := fmt.Sprintf("%x", sha256Sum([]byte(data)))
	md5sum, _ := hex.DecodeString(hexMD5([]byte(data)))
	crc := crc32.ChecksumIEEE([]byte(data))
	crcHeader := b64([]byte{byte(crc >> 24), byte(crc >> 16), byte(crc >> 8), byte(crc)})
	for name, c := range map[string]struct {
		payload string
		header  map[string]string
		code    string
	}{
		"literal hash": {hash, nil, "XAmzContentSHA256Mismatch"},
		"content-md5":  {"UNSIGNED-PAYLOAD", map[string]string{"Content-Md5": b64(md5sum)}, "BadDigest"},
		"crc32":        {"UNSIGNED-PAYLOAD", map[string]string{"X-Amz-Checksum-Crc32": crcHeader}, "BadDigest"},
		"sha256":       {"UNSIGNED-PAYLOAD", map[string]string{"X-Amz-Checksum-Sha256": b64(sha256Sum([]byte(data)))}, "BadDigest"},
	} {
		ok := w.send(w.signed("PUT", "/images/ok", c.payload, strings.NewReader(data), c.header))
		if ok.StatusCode != 200 {
			t.Errorf("%s: the right body was refused: %d %s", name, ok.StatusCode, ok.text)
		}
		w.wantReply(name, w.send(w.signed("PUT", "/images/k", c.payload, strings.NewReader(tampered), c.header)), 400, c.code)
	}
	for name, c := range map[string]struct {
		payload string
		header  map[string]string
		code    string
	}{
		"short md5":       {"UNSIGNED-PAYLOAD", map[string]string{"Content-Md5": "AAAA"}, "InvalidDigest"},
		"no base64":       {"UNSIGNED-PAYLOAD", map[string]string{"Content-Md5": "!"}, "InvalidDigest"},
		"bad crc":         {"UNSIGNED-PAYLOAD", map[string]string{"X-Amz-Checksum-Crc32": "AAAAAAA="}, "InvalidRequest"},
		"unknown sum":     {"UNSIGNED-PAYLOAD", map[string]string{"X-Amz-Checksum-Md2": "AAAA"}, "InvalidRequest"},
		"two sums":        {"UNSIGNED-PAYLOAD", map[string]string{"X-Amz-Checksum-Crc32": crcHeader, "X-Amz-Checksum-Crc32c": crcHeader}, "InvalidRequest"},
		"unknown payload": {"SIGNED-SOMEHOW", nil, "InvalidArgument"},
		"encryption":      {"UNSIGNED-PAYLOAD", map[string]string{"X-Amz-Server-Side-Encryption": "AES256"}, "NotImplemented"},
		"public":          {"UNSIGNED-PAYLOAD", map[string]string{"X-Amz-Acl": "public-read"}, "NotImplemented"},
		"storage class":   {"UNSIGNED-PAYLOAD", map[string]string{"X-Amz-Storage-Class": "warm!"}, "InvalidStorageClass"},
	} {
		r := w.send(w.signed("PUT", "/images/k", c.payload, strings.NewReader(data), c.header))
		if r.code() != c.code {
			t.Errorf("%s: %d %s, want %s", name, r.StatusCode, r.text, c.code)
		}
	}
	_, err := w.client.StatObject(t.Context(), bucket, "k", minio.StatObjectOptions{})
	wantCode(t, err, "NoSuchKey")
	if w.segments() != 1 {
		t.Errorf("%d segments left", w.segments())
	}
}

func TestUnsignedRequests(t *testing.T) {
	w := newWorld(t)
	w.wantReply("anonymous", w.do("GET", w.server.URL+"/images/k", "", nil), 403, "AccessDenied")
	w.wantReply("version 2", w.do("GET", w.server.URL+"/images/k", "", http.Header{"Authorization": {"AWS AK:sig"}}), 400, "InvalidRequest")
	w.wantReply("garbage", w.do("GET", w.server.URL+"/images/k", "", http.Header{"Authorization": {"AWS4-HMAC-SHA256 x"}}), 400, "AuthorizationHeaderMalformed")

	req := w.signed("GET", "/images?location", "UNSIGNED-PAYLOAD", nil, nil)
	req.Header.Set("X-Amz-Meta-Late", "1")
	w.wantReply("unsigned header", w.send(req), 403, "AccessDenied")
	req = w.signed("GET", "/images?location", "UNSIGNED-PAYLOAD", nil, map[string]string{"X-Amz-Meta-A": "1"})
	req.Header.Set("X-Amz-Meta-A", "2")
	w.wantReply("changed header", w.send(req), 403, "SignatureDoesNotMatch")
	req = w.signed("GET", "/images/a", "UNSIGNED-PAYLOAD", nil, nil)
	req.URL.Path = "/images/b"
	w.wantReply("changed path", w.send(req), 403, "SignatureDoesNotMatch")
	req = w.signed("GET", "/images", "UNSIGNED-PAYLOAD", nil, nil)
	req.URL.RawQuery = "uploads"
	w.wantReply("changed query", w.send(req), 403, "SignatureDoesNotMatch")
	req = w.signed("GET", "/images", "UNSIGNED-PAYLOAD", nil, nil)
	req.Method = "DELETE"
	w.wantReply("changed method", w.send(req), 403, "SignatureDoesNotMatch")
	req, _ = http.NewRequestWithContext(t.Context(), "GET", w.server.URL+"/images", nil)
	req.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
	w.wantReply("region", w.send(signer.SignV4(*req, testAccess, testSecret, "", "mars-1")), 400, "AuthorizationHeaderMalformed")
	req = w.signed("GET", "/images", strings.Repeat("ab", 32), nil, nil)
	w.wantReply("hash of nothing", w.send(req), 400, "XAmzContentSHA256Mismatch")
}

// TestNotImplemented asks for what S3 has and the store has not, and for what clients look at.
func TestNotImplemented(t *testing.T) {
	w := newWorld(t)
	w.put("k", []byte("x"), minio.PutObjectOptions{})
	for _, c := range []struct {
		method, path string
		status       int
		code         string
	}{
		{"PUT", "/images?lifecycle", 501, "NotImplemented"},
		{"PUT", "/images?versioning", 501, "NotImplemented"},
		{"GET", "/images?versions", 501, "NotImplemented"},
		{"GET", "/images/k?attributes", 501, "NotImplemented"},
		{"GET", "/images/k?versionId=abc", 404, "NoSuchVersion"},
		{"GET", "/images/k?versionId=null", 200, ""},
		{"POST", "/images/k", 405, "MethodNotAllowed"},
		{"POST", "/", 405, "MethodNotAllowed"},
		{"GET", "/images?policy", 404, "NoSuchBucketPolicy"},
		{"GET", "/images?lifecycle", 404, "NoSuchLifecycleConfiguration"},
		{"GET", "/nothere?policy", 404, "NoSuchBucket"},
		{"GET", "/images?versioning", 200, ""},
		{"GET", "/images?acl", 200, ""},
		{"GET", "/images/k?acl", 200, ""},
		{"GET", "/images/nothere?acl", 404, "NoSuchKey"},
		{"GET", "/images?list-type=2&max-keys=-1", 400, "InvalidArgument"},
		{"GET", "/images?list-type=2&continuation-token=%21", 400, "InvalidArgument"},
		{"GET", "/images?encoding-type=xml", 400, "InvalidArgument"},
		{"GET", "/images?max-keys=0", 200, ""},
		{"DELETE", "/images/nothere", 204, ""},
		{"PUT", "/images/k?partNumber=1&uploadId=x", 404, "NoSuchUpload"},
		{"PUT", "/images/k?partNumber=0&uploadId=x", 400, "InvalidArgument"},
		{"GET", "/images/" + strings.Repeat("k", 1025), 400, "KeyTooLongError"},
		{"GET", "/images/%00", 400, "InvalidArgument"},
		{"GET", "//k", 400, "InvalidBucketName"},
	} {
		r := w.send(w.signed(c.method, c.path, "UNSIGNED-PAYLOAD", nil, nil))
		w.wantReply(c.method+" "+c.path, r, c.status, c.code)
	}
	for name, body := range map[string]string{
		"no xml":   "hello",
		"no parts": "<CompleteMultipartUpload></CompleteMultipartUpload>",
		"entities": `<!DOCTYPE x [<!ENTITY a "aaaa">]><CompleteMultipartUpload><Part><PartNumber>&a;</PartNumber></Part></CompleteMultipartUpload>`,
		"cut":      "<CompleteMultipartUpload><Part>",
	} {
		id, err := w.core.NewMultipartUpload(t.Context(), bucket, "m", minio.PutObjectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		r := w.send(w.signed("POST", "/images/m?uploadId="+id, "UNSIGNED-PAYLOAD", strings.NewReader(body), nil))
		w.wantReply(name, r, 400, "MalformedXML")
	}
	huge := strings.NewReader(strings.Repeat(" ", 5<<20))
	w.wantReply("huge xml", w.send(w.signed("PUT", "/images/k?tagging", "UNSIGNED-PAYLOAD", huge, nil)), 400, "EntityTooLarge")
	w.wantReply("delete without md5", w.send(w.signed("POST", "/images?delete", "UNSIGNED-PAYLOAD",
		strings.NewReader("<Delete><Object><Key>k</Key></Object></Delete>"), nil)), 400, "InvalidRequest")
	// Without a length nothing can be promised.
	req := w.signed("PUT", "/images/chunked", "UNSIGNED-PAYLOAD", io.MultiReader(strings.NewReader("x")), nil)
	w.wantReply("no length", w.send(req), 411, "MissingContentLength")
}

// dial sends raw bytes and returns the connection.
func (w *world) dial(req *http.Request, length int, body []byte) net.Conn {
	w.Helper()
	conn, err := net.Dial("tcp", w.server.Listener.Addr().String())
	if err != nil {
		w.Fatal(err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n", req.Method, req.URL.RequestURI(), req.Host, length)
	req.Header.Write(&b)
	b.WriteString("\r\n")
	b.Write(body)
	if _, err := conn.Write(b.Bytes()); err != nil {
		w.Fatal(err)
	}
	return conn
}

func TestTruncatedBodies(t *testing.T) {
	w := newWorld(t)
	data := noise(5, 300_000)
	for name, payload := range map[string]string{"unsigned": "UNSIGNED-PAYLOAD", "literal": fmt.Sprintf("%x", sha256Sum(data))} {
		req := w.signed("PUT", "/images/cut", payload, nil, nil)
		conn := w.dial(req, len(data), data[:200_000])
		conn.(*net.TCPConn).CloseWrite()
		res, err := http.ReadResponse(bufio.NewReader(conn), req)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		p, _ := io.ReadAll(res.Body)
		w.wantReply(name, reply{res, string(p)}, 400, "IncompleteBody")
		conn.Close()
	}
	// A client that is gone.
	conn := w.dial(w.signed("PUT", "/images/cut", "UNSIGNED-PAYLOAD", nil, nil), len(data), data[:200_000])
	conn.Close()
	w.stop() // waits for the request
	w.start()
	if _, err := w.store.OpenObject(bucket, "cut"); err == nil || w.segments() != 0 {
		t.Errorf("%v, %d segments", err, w.segments())
	}
}

func TestIdleClient(t *testing.T) {
	w := newWorld(t, func(o *objectstore.Options) { o.IdleTimeout = 50 * time.Millisecond })
	req := w.signed("PUT", "/images/idle", "UNSIGNED-PAYLOAD", nil, nil)
	conn := w.dial(req, 1000, []byte("only this"))
	defer conn.Close()
	res, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		t.Fatal(err)
	}
	p, _ := io.ReadAll(res.Body)
	w.wantReply("idle", reply{res, string(p)}, 400, "RequestTimeout")
}

// stream encodes data as a signed stream, as its own implementation of the reference's rules. It
// announces lie bytes more than there are.
func (w *world) stream(path string, chunks []string, trailer string, lie int, change func([]byte) []byte) *http.Request {
	total := lie
	for _, c := range chunks {
		total += len(c)
	}
	payload := "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
	header := map[string]string{"X-Amz-Decoded-Content-Length": fmt.Sprint(total), "Content-Encoding": "aws-chunked"}
	if trailer != "" {
		payload += "-TRAILER"
		header["X-Amz-Trailer"], _, _ = strings.Cut(trailer, ":")
	}
	req := w.signed("PUT", path, payload, nil, header)
	_, prev, _ := strings.Cut(req.Header.Get("Authorization"), "Signature=")
	date := req.Header.Get("X-Amz-Date")
	key := []byte("AWS4" + testSecret)
	for _, s := range []string{date[:8], testRegion, "s3", "aws4_request"} {
		key = mac(key, s)
	}
	sign := func(kind, rest string) string {
		prev = hex.EncodeToString(mac(key, "AWS4-HMAC-SHA256-"+kind+"\n"+date+"\n"+date[:8]+"/"+testRegion+"/s3/aws4_request\n"+prev+"\n"+rest))
		return prev
	}
	var b bytes.Buffer
	for _, c := range append(chunks, "") {
		sig := sign("PAYLOAD", hex.EncodeToString(sha256Sum(nil))+"\n"+hex.EncodeToString(sha256Sum([]byte(c))))
		fmt.Fprintf(&b, "%x;chunk-signature=%s\r\n", len(c), sig)
		if c != "" {
			b.WriteString(c + "\r\n")
		}
	}
	if trailer != "" {
		b.WriteString(trailer + "\r\nx-amz-trailer-signature:" + sign("TRAILER", hex.EncodeToString(sha256Sum([]byte(trailer+"\n")))) + "\r\n")
	}
	b.WriteString("\r\n")
	body := b.Bytes()
	if change != nil {
		body = change(body)
	}
	req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return req
}

func mac(key []byte, s string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(s))
	return h.Sum(nil)
}

func TestSignedStream(t *testing.T) {
	w := newWorld(t)
	a, b := string(noise(1, 70_000)), string(noise(2, 10))
	crc := crc32.ChecksumIEEE([]byte(a + b))
	sum := "x-amz-checksum-crc32:" + b64([]byte{byte(crc >> 24), byte(crc >> 16), byte(crc >> 8), byte(crc)})
	for name, trailer := range map[string]string{"plain": "", "trailer": sum} {
		if r := w.send(w.stream("/images/"+name, []string{a, b}, trailer, 0, nil)); r.StatusCode != 200 {
			t.Errorf("%s: %d %s", name, r.StatusCode, r.text)
		}
		if string(w.get(name)) != a+b {
			t.Errorf("%s: read back differently", name)
		}
	}
	replace := func(old, new string) func([]byte) []byte {
		return func(p []byte) []byte {
			if !bytes.Contains(p, []byte(old)) {
				t.Fatalf("nothing to change: %q", old)
			}
			return bytes.Replace(p, []byte(old), []byte(new), 1)
		}
	}
	flip := func(at int) func([]byte) []byte {
		return func(p []byte) []byte { p[(at+len(p))%len(p)] ^= 1; return p }
	}
	for name, c := range map[string]struct {
		trailer string
		change  func([]byte) []byte
		code    string
	}{
		"data":                {"", flip(50_000), "SignatureDoesNotMatch"},
		"second chunk":        {"", replace(b, "0123456789"), "SignatureDoesNotMatch"},
		"chunk signature":     {"", replace("chunk-signature=", "chunk-signature=0"), "InvalidRequest"},
		"no last chunk":       {"", func(p []byte) []byte { return p[:len(p)-90] }, "IncompleteBody"},
		"no end":              {"", func(p []byte) []byte { return p[:len(p)-2] }, "IncompleteBody"},
		"something behind":    {"", func(p []byte) []byte { return append(p, "x\r\n"...) }, "InvalidRequest"},
		"size":                {"", replace("11170;", "11171;"), "InvalidRequest"},
		"negative size":       {"", replace("11170;", "-1;"), "InvalidRequest"},
		"huge size":           {"", replace("11170;", "7fffffffffffffff;"), "InvalidRequest"},
		"trailer value":       {sum, replace("crc32:", "crc32:A"), "SignatureDoesNotMatch"},
		"trailer signature":   {sum, flip(-8), "SignatureDoesNotMatch"},
		"wrong checksum":      {"x-amz-checksum-crc32:AAAAAA==", nil, "BadDigest"},
		"other trailer":       {"x-amz-checksum-md7:AAAAAA==", nil, "InvalidRequest"},
		"trailer is no value": {"x-amz-checksum-crc32:AAAA", nil, "InvalidRequest"},
	} {
		r := w.send(w.stream("/images/k", []string{a, b}, c.trailer, 0, c.change))
		if r.code() != c.code {
			t.Errorf("%s: %d %s, want %s", name, r.StatusCode, r.text, c.code)
		}
	}
	w.wantReply("less than announced", w.send(w.stream("/images/k", []string{a}, "", 1, nil)), 400, "IncompleteBody")
	w.wantReply("more than announced", w.send(w.stream("/images/k", []string{a}, "", -1, nil)), 400, "InvalidRequest")
	if _, err := w.store.OpenObject(bucket, "k"); err == nil || w.segments() != 2 {
		t.Errorf("%v, %d segments", err, w.segments())
	}
}

func TestVirtualHost(t *testing.T) {
	w := newWorld(t, func(o *objectstore.Options) { o.Domain = "obs.test" })
	w.put("k", []byte("by path"), minio.PutObjectOptions{})
	get := func(host, path string) reply {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", w.server.URL+path, nil)
		req.Host = host
		req.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
		return w.send(signer.SignV4(*req, testAccess, testSecret, "", testRegion))
	}
	for _, host := range []string{"images.obs.test", "images.OBS.test:8080"} {
		if r := get(host, "/k"); r.text != "by path" {
			t.Errorf("%s: %d %s", host, r.StatusCode, r.text)
		}
	}
	if r := get("obs.test", "/images/k"); r.text != "by path" {
		t.Errorf("%d %s", r.StatusCode, r.text)
	}
}

func TestRules(t *testing.T) {
	w := newWorld(t, func(o *objectstore.Options) {
		o.Domain = "obs.test"
		o.Rules = objectstore.OBS()
		o.Rules.RefuseLiteralHash = true
		o.MinPartSize = 100 << 10
	})
	put := func(host, path, payload, body string, header map[string]string) reply {
		req, _ := http.NewRequestWithContext(t.Context(), "PUT", w.server.URL+path, strings.NewReader(body))
		req.Host = host
		req.Header.Set("X-Amz-Content-Sha256", payload)
		for name, v := range header {
			req.Header.Set(name, v)
		}
		return w.send(signer.SignV4(*req, testAccess, testSecret, "", testRegion))
	}
	w.wantReply("path style", put("obs.test", "/images/k", "UNSIGNED-PAYLOAD", "x", nil), 403, "VirtualHostDomainRequired")
	w.wantReply("virtual host", put("images.obs.test", "/k", "UNSIGNED-PAYLOAD", "x", nil), 200, "")
	w.wantReply("literal", put("images.obs.test", "/k", fmt.Sprintf("%x", sha256Sum([]byte("x"))), "x", nil), 400, "XAmzContentSHA256Mismatch")
	w.wantReply("trailer", put("images.obs.test", "/k", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "x",
		map[string]string{"X-Amz-Trailer": "x-amz-checksum-crc32", "X-Amz-Decoded-Content-Length": "1"}), 400, "XAmzContentSHA256Mismatch")
	w.wantReply("ignored checksum", put("images.obs.test", "/k", "UNSIGNED-PAYLOAD", "x",
		map[string]string{"X-Amz-Checksum-Crc32": "AAAAAA=="}), 200, "")
	w.wantReply("content-md5", put("images.obs.test", "/k", "UNSIGNED-PAYLOAD", "x",
		map[string]string{"Content-Md5": b64(make([]byte, 16))}), 400, "BadDigest")
}

// TestLateReader sends a whole body before it looks for the answer, as many clients do.
func TestLateReader(t *testing.T) {
	w := newWorld(t)
	data := noise(1, 20<<20)
	req := w.signed("PUT", "/nothere/k", "UNSIGNED-PAYLOAD", nil, nil)
	conn := w.dial(req, len(data), data)
	defer conn.Close()
	res, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		t.Fatal(err)
	}
	p, _ := io.ReadAll(res.Body)
	w.wantReply("refused at once", reply{res, string(p)}, 404, "NoSuchBucket")
}
