package ims_test

import (
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"imgferry/ims"
)

// alerting returns the address of a server that answers a plain request as many TLS servers do: with an
// alert record (protocol_version).
func alerting(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 4096))
			c.Write([]byte{0x15, 3, 1, 0, 2, 2, 70})
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return "http://" + l.Addr().String()
}

// An endpoint with the wrong scheme fails at the first attempt, in words.
func TestWrongScheme(t *testing.T) {
	var n atomic.Int64
	count := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { n.Add(1) })
	plain, secure := httptest.NewServer(count), httptest.NewUnstartedServer(count)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // its handshakes fail
	secure.StartTLS()
	defer plain.Close()
	defer secure.Close()
	moved := httptest.NewServer(http.RedirectHandler("https://elsewhere.invalid/", http.StatusMovedPermanently))
	defer moved.Close()
	for name, test := range map[string]struct{ endpoint, says string }{
		"HTTPS to HTTP":   {strings.Replace(plain.URL, "http:", "https:", 1), "must begin with http://"},
		"HTTP to HTTPS":   {strings.Replace(secure.URL, "https:", "http:", 1), "must begin with https://"},
		"HTTP redirected": {moved.URL, "must begin with https://"},
		"TLS alert":       {alerting(t), "must begin with https://"},
	} {
		client, err := ims.New(ims.Config{Endpoint: test.endpoint, ProjectID: "p", Credentials: ims.AccessKey("ak", "sk", "")})
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.Image(t.Context(), "i")
		var fail *ims.APIError
		if !errors.As(err, &fail) || fail.Temporary || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", name, err)
		}
		_, err = client.QuickImport(t.Context(), ims.QuickImportRequest{Name: "n", OSVersion: "CentOS 7.0 64bit", MinDisk: 40, ImageURL: "bucket:disk.zvhd2"})
		if !errors.As(err, &fail) || fail.MaybeDone || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: import: %v", name, err)
		}
	}
	if n.Load() != 0 {
		t.Errorf("%d requests came through", n.Load())
	}
}
