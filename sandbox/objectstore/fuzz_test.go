package objectstore

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"strings"
	"testing"
)

func FuzzAuthorization(f *testing.F) {
	for _, text := range awsExamples {
		if _, rest, ok := strings.Cut(text, "Authorization: "); ok {
			line, _, _ := strings.Cut(rest, "\n")
			f.Add(line)
		}
	}
	f.Fuzz(func(t *testing.T, header string) {
		g, err := parseAuthorization(header)
		if err != nil {
			return
		}
		again := sigAlgorithm + " Credential=" + g.accessKey + "/" + g.scope() +
			",SignedHeaders=" + strings.Join(g.headers, ";") + ",Signature=" + g.value
		h, err := parseAuthorization(again)
		if err != nil || h.accessKey != g.accessKey || h.scope() != g.scope() || h.value != g.value {
			t.Fatalf("%q became %q: %v", header, again, err)
		}
	})
}

func FuzzPresigned(f *testing.F) {
	f.Add(strings.SplitN(strings.SplitN(awsExamples["presigned"], " ", 3)[1], "?", 2)[1])
	f.Fuzz(func(t *testing.T, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		g, err := parsePresigned(q)
		if err == nil && (g.expires <= 0 || g.expires > maxPresigned) {
			t.Fatalf("expires %v", g.expires)
		}
		// What is signed is the same however the query is spelt.
		again, err := url.ParseQuery(canonicalQuery(q))
		if err != nil || canonicalQuery(again) != canonicalQuery(q) {
			t.Fatalf("%q: %v", query, err)
		}
	})
}

func FuzzChunkReader(f *testing.F) {
	f.Add([]byte("5\r\nhello\r\n0\r\n\r\n"), false, false)
	f.Add([]byte("5\r\nhello\r\n3\r\nabc\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"), true, false)
	f.Add([]byte("0;chunk-signature="+emptyHash+"\r\nx-amz-trailer-signature:00\r\n\r\n"), true, true)
	f.Add([]byte("ffffffffffffffff\r\n"), false, false)
	f.Fuzz(func(t *testing.T, stream []byte, trailing, signed bool) {
		var signer *chunkSigner
		if signed {
			signer = &chunkSigner{key: []byte("key")}
		}
		c := newChunkReader(bytes.NewReader(stream), signer, trailing)
		p, err := io.ReadAll(c)
		if len(p) > len(stream) {
			t.Fatalf("%d bytes from %d", len(p), len(stream))
		}
		if err == nil && !bytes.HasSuffix(stream, []byte("\r\n")) {
			t.Fatal("a stream without an end was taken")
		}
		if _, ok := errors.AsType[*Error](err); err != nil && !ok {
			t.Fatalf("%T: %v", err, err)
		}
		// One byte at a time it says the same.
		c = newChunkReader(oneByte{bytes.NewReader(stream)}, resigned(signer), trailing)
		q, err2 := io.ReadAll(c)
		if (err == nil) != (err2 == nil) || !bytes.Equal(p, q) {
			t.Fatalf("%q %v, by bytes %q %v", p, err, q, err2)
		}
	})
}

func resigned(s *chunkSigner) *chunkSigner {
	if s == nil {
		return nil
	}
	return &chunkSigner{key: s.key}
}

type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(1, len(p))]) }

func FuzzKey(f *testing.F) {
	for _, key := range []string{"a", "../..", "//", "\x00\xff", "ü", "a b+c%2F", strings.Repeat("k", 1024)} {
		f.Add(key)
	}
	b := newBucket(disk{root: "root"}, "bucket")
	f.Fuzz(func(t *testing.T, key string) {
		for _, keepSlash := range []bool{true, false} {
			e := escape(key, keepSlash)
			if back, err := unescape(e); err != nil || back != key {
				t.Fatalf("%q became %q: %v", key, back, err)
			}
			if strings.Trim(e, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~%/") != "" {
				t.Fatalf("%q", e)
			}
			if q, err := url.QueryUnescape(e); err != nil || q != key {
				t.Fatalf("clients decode %q as %q", key, q)
			}
		}
		p, err := json.Marshal(object{Key: recordKey(key)})
		var o object
		if err != nil || json.Unmarshal(p, &o) != nil || string(o.Key) != key {
			t.Fatalf("the record of %q is of %q: %v", key, o.Key, err)
		}
		name, ok := strings.CutPrefix(b.objectFile(key), b.objectsDir())
		if !ok || len(name) != 1+64+5 || strings.Trim(name[1:65], "0123456789abcdef") != "" {
			t.Fatalf("%q is kept in %q", key, name)
		}
	})
}

func FuzzRanges(f *testing.F) {
	for _, h := range []string{"bytes=0-0", "bytes=5-", "bytes=-5", "bytes=1-2,3-4", "bytes=9223372036854775807-", "bytes=-0", "bytes=+1-2"} {
		f.Add(h, int64(10))
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			return
		}
		off, n, partial, err := parseRange(header, size)
		if err == nil && (off < 0 || n < 0 || n > size-off || partial && n == 0 || !partial && n != size) {
			t.Fatalf("%q of %d: %d bytes at %d", header, size, n, off)
		}
		for _, clamp := range []bool{true, false} {
			off, n, err = parseCopyRange(header, size, clamp)
			if err == nil && (off < 0 || n <= 0 || n > size-off) {
				t.Fatalf("copy %q of %d: %d bytes at %d", header, size, n, off)
			}
		}
		if bucket, key, err := parseCopySource(header); err == nil && (bucket == "" || key == "" || strings.Contains(bucket, "/")) {
			t.Fatalf("%q: %q %q", header, bucket, key)
		}
	})
}
