package objectstore

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// The examples of the S3 API reference ("Signature Calculations for the Authorization Header",
// "... Transferring Payload in Multiple Chunks", "... Using Query Parameters").
const (
	awsKey    = "AKIAIOSFODNN7EXAMPLE"
	awsSecret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
)

var awsTime = time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)

func awsStore() *Store {
	return &Store{opt: Options{
		Credentials: func(a, _ string) (string, error) {
			if a != awsKey {
				return "", errInvalidAccessKey
			}
			return awsSecret, nil
		},
		Region: "us-east-1",
		Now:    func() time.Time { return awsTime },
	}}
}

func parseRequest(t testing.TB, text string) (*http.Request, url.Values) {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(strings.ReplaceAll(text, "\n", "\r\n") + "\r\n\r\n")))
	if err != nil {
		t.Fatal(err)
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		t.Fatal(err)
	}
	return r, query
}

const awsCredential = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"

var awsExamples = map[string]string{
	"get": `GET /test.txt HTTP/1.1
Host: examplebucket.s3.amazonaws.com
Authorization: ` + awsCredential + `SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41
Range: bytes=0-9
x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
x-amz-date: 20130524T000000Z`,
	"put": `PUT /test%24file.text HTTP/1.1
Host: examplebucket.s3.amazonaws.com
Authorization: ` + awsCredential + ` SignedHeaders=date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class, Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd
Date: Fri, 24 May 2013 00:00:00 GMT
x-amz-date: 20130524T000000Z
x-amz-storage-class: REDUCED_REDUNDANCY
x-amz-content-sha256: 44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072`,
	"lifecycle": `GET /?lifecycle HTTP/1.1
Host: examplebucket.s3.amazonaws.com
Authorization: ` + awsCredential + `SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature=fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543
x-amz-date: 20130524T000000Z
x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855`,
	"list": `GET /?max-keys=2&prefix=J HTTP/1.1
Host: examplebucket.s3.amazonaws.com
Authorization: ` + awsCredential + `SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7
x-amz-date: 20130524T000000Z
x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855`,
	"presigned": `GET /test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404 HTTP/1.1
Host: examplebucket.s3.amazonaws.com`,
	"chunks": `PUT /examplebucket/chunkObject.txt HTTP/1.1
Host: s3.amazonaws.com
x-amz-date: 20130524T000000Z
x-amz-storage-class: REDUCED_REDUNDANCY
Authorization: ` + awsCredential + `SignedHeaders=content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class,Signature=4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9
x-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD
Content-Encoding: aws-chunked
x-amz-decoded-content-length: 66560
Content-Length: 66824`,
	"chunks with trailer": `PUT /examplebucket/chunkObject.txt HTTP/1.1
Host: s3.amazonaws.com
x-amz-date: 20130524T000000Z
x-amz-storage-class: REDUCED_REDUNDANCY
Authorization: ` + awsCredential + `SignedHeaders=content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class;x-amz-trailer,Signature=106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e
x-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER
Content-Encoding: aws-chunked
x-amz-decoded-content-length: 66560
x-amz-trailer: x-amz-checksum-crc32c`,
}

func TestAWSExamples(t *testing.T) {
	for name, text := range awsExamples {
		r, query := parseRequest(t, text)
		if _, _, err := awsStore().authenticate(r, query); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		r.URL.Path += "x"
		if _, _, err := awsStore().authenticate(r, query); !errors.Is(err, errSignature) {
			t.Errorf("%s, another path: %v", name, err)
		}
	}
}

func TestChunkSignatures(t *testing.T) {
	a, b := strings.Repeat("a", 65536), strings.Repeat("a", 1024)
	plain := "10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n" + a + "\r\n" +
		"400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n" + b + "\r\n" +
		"0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n"
	trailer := "10000;chunk-signature=b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2\r\n" + a + "\r\n" +
		"400;chunk-signature=1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7\r\n" + b + "\r\n" +
		"0;chunk-signature=2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992\r\n" +
		"x-amz-checksum-crc32c:sOO8/Q==\n\r\n" +
		"x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\n\r\n"
	for name, stream := range map[string]string{"chunks": plain, "chunks with trailer": trailer} {
		r, query := parseRequest(t, awsExamples[name])
		g, key, err := awsStore().authenticate(r, query)
		if err != nil {
			t.Fatal(err)
		}
		decode := func(src io.Reader) ([]byte, *chunkReader, error) {
			signer := &chunkSigner{key: key, time: g.at.Format(sigTime), scope: g.scope(), previous: g.value}
			c := newChunkReader(src, signer, name != "chunks")
			p, err := io.ReadAll(c)
			return p, c, err
		}
		p, c, err := decode(strings.NewReader(stream))
		if err != nil || string(p) != a+b {
			t.Errorf("%s: %d bytes, %v", name, len(p), err)
		}
		if name != "chunks" && c.trailers["x-amz-checksum-crc32c"] != "sOO8/Q==" {
			t.Errorf("%s: trailers %v", name, c.trailers)
		}
		// Every byte counts: of the signatures, of the data, of the coding. Data is alike, so a few do.
		for i := 0; i < len(stream); i++ {
			if stream[i] == 'a' && i%5003 != 0 {
				continue
			}
			bad := []byte(stream)
			bad[i] ^= 1
			if _, _, err := decode(bytes.NewReader(bad)); err == nil {
				t.Errorf("%s: byte %d (%q) was changed unnoticed", name, i, stream[i])
			}
		}
		for _, n := range []int{0, 1, 80, 90, 65622, 65624, len(stream) - 90, len(stream) - 1} {
			if _, _, err := decode(strings.NewReader(stream[:n])); err == nil {
				t.Errorf("%s: a stream cut after %d bytes was taken", name, n)
			}
		}
	}
}

func TestAuthorizationRefused(t *testing.T) {
	good := strings.TrimSpace(strings.SplitN(strings.SplitN(awsExamples["get"], "Authorization: ", 2)[1], "\n", 2)[0])
	if _, err := parseAuthorization(good); err != nil {
		t.Fatal(err)
	}
	for _, change := range [][2]string{
		{"AWS4-HMAC-SHA256 ", "AWS4-HMAC-SHA512 "}, {"Credential=", "Credentials="}, {"aws4_request", "aws5_request"},
		{"/s3/", "/ec2/"}, {"20130524", "20131324"}, {"20130524", ""}, {"us-east-1", ""}, {awsKey, ""}, {"host;", ""},
		{"host;", "HOST;"}, {"host;", "host;;"}, {"Signature=f0", "Signature="}, {"Signature=f0", "Signature=zz"},
		{",Signature", ",Signature=aa,Signature"}, {",Signature", ",Extra=1,Signature"}, {"SignedHeaders=", "="},
		{"AKIA", strings.Repeat("A", maxAuthBytes)},
	} {
		if _, err := parseAuthorization(strings.Replace(good, change[0], change[1], 1)); err == nil {
			t.Errorf("%q for %q was taken", change[1], change[0])
		}
	}
	base := strings.SplitN(awsExamples["presigned"], " ", 3)[1]
	for _, change := range [][2]string{
		{"Expires=86400", "Expires=0"}, {"Expires=86400", "Expires=604801"}, {"Expires=86400", "Expires=-1"},
		{"HMAC-SHA256", "HMAC-SHA1"}, {"X-Amz-Date=2013", "X-Amz-Date=x"}, {"SignedHeaders=host", "SignedHeaders=range"},
	} {
		u, err := url.Parse(strings.Replace(base, change[0], change[1], 1))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parsePresigned(u.Query()); err == nil {
			t.Errorf("%q for %q was taken", change[1], change[0])
		}
	}
}
