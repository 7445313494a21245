package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"imgferry/ims"
	"imgferry/sandbox/objectstore"
)

// A machine whose clock is wrong is told so: neither its keys nor its network are to blame.
func TestClockSkew(t *testing.T) {
	w := newWorld(t)
	for name, ahead := range map[string]time.Duration{"behind": 20 * time.Minute, "ahead": -20 * time.Minute} {
		clock := func() time.Time { return time.Now().Add(ahead) }
		secret := func(string) (string, bool) { return "the-test-secret", true }
		store, err := objectstore.Open(t.TempDir(), objectstore.Options{
			Credentials: func(string, string) (string, error) { return "the-test-secret", nil }, Now: clock,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		if err := store.CreateBucket("images"); err != nil {
			t.Fatal(err)
		}
		storeAt := httptest.NewServer(store.Handler())
		defer storeAt.Close()
		// The image service's own rules for signatures.
		serviceAt := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Date", clock().UTC().Format(http.TimeFormat))
			body, err := io.ReadAll(r.Body)
			if err == nil {
				_, err = ims.Verify(r, body, secret, clock())
			}
			if err == nil {
				t.Errorf("the service took a request that is 20 minutes off")
				return
			}
			w.WriteHeader(http.StatusUnauthorized)
			json.NewEncoder(w).Encode(map[string]string{"error_code": "APIGW.0301", "error_msg": "Incorrect IAM authentication information: " + err.Error()})
		}))
		defer serviceAt.Close()
		disk := w.disk(1)
		for _, args := range [][]string{
			{"uploads", "--obs-endpoint", storeAt.URL, "--bucket", "images"},
			{"images", "list", "--ims-endpoint", serviceAt.URL, "--project-id", w.box.ProjectID()},
			{"push", disk, "--obs-endpoint", storeAt.URL, "--bucket", "images", "--ims-endpoint", serviceAt.URL, "--project-id", w.box.ProjectID()},
			{"push", disk, "--obs-endpoint", w.box.StoreEndpoint(), "--bucket", w.box.Bucket(), "--ims-endpoint", serviceAt.URL, "--project-id", w.box.ProjectID()},
		} {
			var stdout, stderr bytes.Buffer
			args = append(args, "--region", w.box.Region(), "--ak", "test-key", "--sk", "the-test-secret")
			err := run(t.Context(), args, strings.NewReader(""), &stdout, &stderr)
			if exitCode(err) != exitDenied || stdout.Len() > 0 || !strings.Contains(stderr.String(), "this machine's clock differs") ||
				!strings.Contains(stderr.String(), "set this machine's clock") || strings.Contains(stderr.String(), "secret key") {
				t.Errorf("%s, %v: exit code %d: %s%s", name, args[:2], exitCode(err), stdout.String(), stderr.String())
			}
		}
	}
}
