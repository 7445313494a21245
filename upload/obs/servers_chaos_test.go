package obs_test

import (
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"testing"

	"imgferry/sandbox/objectstore"
	"imgferry/upload/obs"
	"imgferry/upload/uploadtest"
)

// The sandbox's store, and stores that others wrote, do what is needed of one.
func TestServers(t *testing.T) {
	t.Run("sandbox", func(t *testing.T) {
		t.Parallel()
		uploadtest.Run(t, sandboxServer(t))
	})
	t.Run("VersityGW", func(t *testing.T) {
		t.Parallel()
		uploadtest.Run(t, uploadtest.VersityGW(t))
	})
	for name, start := range map[string]func(*testing.T) uploadtest.Server{"MinIO": uploadtest.MinIO, "encrypting MinIO": uploadtest.MinIOEncrypted} {
		t.Run(name, func(t *testing.T) {
			if os.Getenv("IMGFERRY_LONG") == "" {
				t.Skip("takes minutes to build: set IMGFERRY_LONG=1")
			}
			t.Parallel()
			uploadtest.Run(t, start(t))
		})
	}
}

func sandboxServer(t *testing.T) uploadtest.Server {
	t.Helper()
	store, err := objectstore.Open(t.TempDir(), objectstore.Options{
		Region: "test-1", NoSync: true, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Credentials: func(key, token string) (string, error) {
			if key != accessKey || token != "" {
				return "", os.ErrNotExist
			}
			return secretKey, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(store.Handler())
	t.Cleanup(func() {
		server.Close()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := store.CreateBucket("bucket"); err != nil {
		t.Fatal(err)
	}
	return uploadtest.Server{Config: obs.Config{
		Endpoint: server.URL, Region: "test-1", Bucket: "bucket", AccessKey: accessKey, SecretKey: secretKey,
	}}
}
