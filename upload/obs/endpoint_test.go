package obs_test

import (
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"imgferry/upload"
	"imgferry/upload/obs"
)

// An endpoint of http:// whose server speaks TLS fails at once, in words.
func TestPlainToTLS(t *testing.T) {
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // its handshakes fail
	secure.StartTLS()
	defer secure.Close()
	nginx := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, "<html><center>The plain HTTP request was sent to HTTPS port</center></html>")
	}))
	defer nginx.Close()
	alert, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := alert.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 4096))
			c.Write([]byte{0x15, 3, 1, 0, 2, 2, 70}) // protocol_version
			c.Close()
		}
	}()
	defer func() { alert.Close(); <-done }()
	for name, endpoint := range map[string]string{
		"Go": strings.Replace(secure.URL, "https", "http", 1), "nginx": nginx.URL, "alert": "http://" + alert.Addr().String(),
	} {
		b := bucket(t, nginx, func(c *obs.Config) { c.Endpoint = endpoint })
		_, beginErr := b.Begin(t.Context(), "k", nil)
		for call, err := range map[string]error{"begin": beginErr, "look up": b.CheckBucket(t.Context())} {
			if err == nil || upload.Temporary(err) || !strings.Contains(err.Error(), "must begin with https:") {
				t.Errorf("%s, %s: %v", name, call, err)
			}
		}
	}
}

// A store that has the bucket elsewhere says where.
func TestOtherRegion(t *testing.T) {
	for name, c := range map[string]struct {
		status     int
		body, says string
	}{
		"signed for another": {400, `<Error><Code>AuthorizationHeaderMalformed</Code><Message>The authorization header is malformed</Message><Region>eu-west-1</Region></Error>`, `in the region "eu-west-1"`},
		"says it in words":   {400, `<Error><Code>AuthorizationHeaderMalformed</Code><Message>expecting 'eu-west-1'</Message></Error>`, "expecting 'eu-west-1'"},
		"sent to another":    {301, `<Error><Code>PermanentRedirect</Code><Message>Use the specified endpoint</Message><Endpoint>b.obs.example</Endpoint></Error>`, "specified endpoint"},
	} {
		server := httptest.NewServer(answer(c.status, "", c.body))
		defer server.Close()
		b := bucket(t, server)
		_, beginErr := b.Begin(t.Context(), "k", nil)
		for call, err := range map[string]error{"begin": beginErr, "look up": b.CheckBucket(t.Context())} {
			var e *upload.Error
			if !errors.As(err, &e) || e.Temporary || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s, %s: %v", name, call, err)
			}
		}
	}
}
