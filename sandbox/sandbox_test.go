package sandbox_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"imgferry/bitmap"
	"imgferry/ims"
	"imgferry/limits"
	"imgferry/sandbox"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

func start(t *testing.T, cfg sandbox.Config) *sandbox.Sandbox {
	t.Helper()
	if cfg.DataDir == "" {
		cfg.DataDir = t.TempDir()
	}
	s, err := sandbox.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// trusting returns a client that trusts s, if it has a certificate, and takes all hosts for this machine.
func trusting(t *testing.T, s *sandbox.Sandbox) *http.Client {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
	}}
	t.Cleanup(transport.CloseIdleConnections)
	if s.Certificate() != nil {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(s.Certificate())
		transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	}
	return &http.Client{Transport: transport}
}

func images(t *testing.T, s *sandbox.Sandbox) *ims.Client {
	t.Helper()
	c, err := ims.New(ims.Config{HTTPClient: trusting(t, s), Endpoint: s.ImageEndpoint(), ProjectID: s.ProjectID(), Region: s.Region(), Credentials: ims.AccessKey(s.AccessKey(), s.SecretKey(), "")})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func store(t *testing.T, s *sandbox.Sandbox) *minio.Client {
	t.Helper()
	c, err := minio.New(strings.TrimPrefix(s.StoreEndpoint(), "http://"), &minio.Options{
		Creds: credentials.NewStaticV4(s.AccessKey(), s.SecretKey(), ""), Region: s.Region(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func put(t *testing.T, s *sandbox.Sandbox, key string, content []byte) {
	t.Helper()
	if _, err := store(t, s).PutObject(t.Context(), s.Bucket(), key, bytes.NewReader(content), int64(len(content)), minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
}

// content returns the ETag of an object and its length.
func content(t *testing.T, s *sandbox.Sandbox, key string) string {
	t.Helper()
	o, err := store(t, s).StatObject(t.Context(), s.Bucket(), key, minio.StatObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(o.ETag, o.Size)
}

func importing(t *testing.T, s *sandbox.Sandbox, key string) (ims.Job, error) {
	t.Helper()
	c := images(t, s)
	id, err := c.QuickImport(t.Context(), ims.QuickImportRequest{
		Name: "test", OSVersion: "Other Linux(64 bit)", ImageURL: limits.ImageURL(s.Bucket(), key), MinDisk: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c.WaitJob(t.Context(), id, ims.Wait{Interval: 5 * time.Millisecond})
}

// raw returns a raw disk of 5 MiB with data in block 1 only, and its bitmap.
func raw() (disk, mf []byte) {
	disk = make([]byte, 5<<20)
	copy(disk[3<<20:], "data")
	bits := bitmap.New(3)
	bits.Set(1)
	return disk, bits.Append(nil)
}

// TestImportFromStore goes through both services as their users do.
func TestImportFromStore(t *testing.T) {
	s := start(t, sandbox.Config{})
	disk, mf := raw()
	put(t, s, "x.raw", disk)
	var e *ims.JobError
	if _, err := importing(t, s, "x.raw"); !errors.As(err, &e) || e.Code != string(limits.FastFormat) {
		t.Errorf("without bitmap: %v", err)
	}
	put(t, s, "x.mf", mf)
	job, err := importing(t, s, "x.raw")
	if err != nil {
		t.Fatal(err)
	}
	if img, err := images(t, s).Image(t.Context(), job.ImageID); err != nil || img.Status != ims.StatusActive || img.Size != int64(len(disk)) {
		t.Errorf("%+v, %v", img, err)
	}
	if _, err := importing(t, s, "y.raw"); !errors.As(err, &e) || e.Code != string(limits.FileDamaged) {
		t.Errorf("missing object: %v", err)
	}
}

// TestObjectsStay starts a sandbox twice on the same directory.
func TestObjectsStay(t *testing.T) {
	cfg := sandbox.Config{DataDir: t.TempDir(), AccessKey: "AK", SecretKey: "SECRETSECRET", Bucket: "my-images"}
	disk, mf := raw()
	s := start(t, cfg)
	put(t, s, "x.raw", disk)
	put(t, s, "x.mf", mf)
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(); err != nil {
		t.Errorf("after Close: %v", err)
	}
	if _, err := importing(t, start(t, cfg), "x.raw"); err != nil {
		t.Error(err)
	}
}

func TestStartRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	for name, cfg := range map[string]sandbox.Config{
		"no directory":        {},
		"directory is a file": {DataDir: file},
		"key without secret":  {DataDir: dir, AccessKey: "AK"},
		"secret without key":  {DataDir: dir, SecretKey: "SK"},
		"bucket name":         {DataDir: dir, Bucket: "X"},
		"imitation":           {DataDir: dir, Imitate: "aws"},
		"strict S3":           {DataDir: dir, RefusePayloadHash: true},
		"remote store":        {DataDir: dir, StoreListen: "0.0.0.0:0"},
		"remote images":       {DataDir: dir, ImageListen: ":0"},
		"port in use":         {DataDir: dir, ImageListen: taken.Addr().String()},
		"malformed address":   {DataDir: dir, StoreListen: "nowhere"},
	} {
		if s, err := sandbox.Start(t.Context(), cfg); err == nil {
			t.Errorf("%s: started", name)
			s.Close(t.Context())
		}
	}
	s := start(t, sandbox.Config{DataDir: dir, StoreListen: "0.0.0.0:0", ImageListen: "127.0.0.1:0", AllowRemote: true})
	if _, err := sandbox.Start(t.Context(), sandbox.Config{DataDir: dir}); err == nil {
		t.Error("two sandboxes in one directory")
	}
	if s.AccessKey() == "" || len(s.SecretKey()) < 20 || s.Bucket() != "images" || s.ProjectID() != sandbox.DefaultProjectID || s.Region() != sandbox.DefaultRegion {
		t.Errorf("defaults %q %q %q %q", s.AccessKey(), s.Bucket(), s.ProjectID(), s.Region())
	}
}

// TestCloseCutsHangingRequests closes while a client of each service has begun a request and sends no
// more of it.
func TestCloseCutsHangingRequests(t *testing.T) {
	s := start(t, sandbox.Config{})
	for _, endpoint := range []string{s.StoreEndpoint(), s.ImageEndpoint()} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(endpoint, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST /v2/cloudimages/quickimport/action HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx")
	}
	closed := make(chan error)
	for range 2 { // both wait for the same end
		go func() { closed <- s.Close(context.Background()) }()
	}
	for range 2 {
		if err := <-closed; err != nil {
			t.Error(err)
		}
	}
	for _, endpoint := range []string{s.StoreEndpoint(), s.ImageEndpoint()} {
		if _, err := http.Get(endpoint); err == nil {
			t.Errorf("%s still answers", endpoint)
		}
	}
}

// TestImagesStay starts a sandbox again on the images and jobs of another, with another authority's key or not.
func TestImagesStay(t *testing.T) {
	cfg := sandbox.Config{DataDir: t.TempDir(), AccessKey: "AK", SecretKey: "SECRETSECRET", Imitate: sandbox.OBS}
	s := start(t, cfg)
	certificate := s.Certificate()
	if p, err := os.ReadFile(s.CertificateFile()); err != nil || !bytes.Equal(p, certificate) || len(p) == 0 {
		t.Errorf("%s, %v", p, err)
	}
	id, err := images(t, s).QuickImport(t.Context(), ims.QuickImportRequest{
		Name: "test", OSVersion: "Other Linux(64 bit)", ImageURL: limits.ImageURL(s.Bucket(), "nothing"), MinDisk: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = start(t, cfg)
	if !bytes.Equal(s.Certificate(), certificate) {
		t.Error("another authority after a restart")
	}
	var e *ims.JobError
	if job, err := images(t, s).WaitJob(t.Context(), id, ims.Wait{Interval: 5 * time.Millisecond}); !errors.As(err, &e) || e.Code != string(limits.FileDamaged) {
		t.Errorf("%+v, %v", job, err)
	}
	if list, err := images(t, s).Images(t.Context(), nil); err != nil || len(list) != 1 || list[0].Status != ims.StatusKilled {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestLogin goes from a password to a token to temporary keys, and uses both with both services.
func TestLogin(t *testing.T) {
	s := start(t, sandbox.Config{Imitate: sandbox.OBS, User: "alice"})
	iam, err := ims.NewIdentity(ims.IdentityConfig{Endpoint: s.ImageEndpoint(), HTTPClient: trusting(t, s)})
	if err != nil {
		t.Fatal(err)
	}
	who := ims.PasswordLogin{User: s.User(), Domain: sandbox.Domain, Password: s.Password(), ProjectName: s.Region()}
	wrong := who
	wrong.Password = "guess"
	if _, err := iam.Token(t.Context(), wrong); !errors.Is(err, ims.ErrDenied) {
		t.Errorf("wrong password: %v", err)
	}
	token, err := iam.Token(t.Context(), who)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := iam.Keys(t.Context(), token, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	secret, security := keys.Secrets()
	for name, c := range map[string]ims.Credentials{"token": ims.Token(token.Secret()), "keys": ims.AccessKey(keys.AccessKey, secret, security)} {
		client, err := ims.New(ims.Config{Endpoint: s.ImageEndpoint(), ProjectID: s.ProjectID(), Credentials: c, HTTPClient: trusting(t, s)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Images(t.Context(), nil); err != nil {
			t.Errorf("images with %s: %v", name, err)
		}
	}
	for security, code := range map[string]string{security: "", "": "InvalidAccessKeyId", "forged": "InvalidToken"} {
		c, err := minio.New(strings.TrimPrefix(s.StoreEndpoint(), "https://"), &minio.Options{
			Creds: credentials.NewStaticV4(keys.AccessKey, secret, security), Region: s.Region(), MaxRetries: 1,
			Secure: true, BucketLookup: minio.BucketLookupDNS, Transport: trusting(t, s).Transport,
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.ListBuckets(t.Context())
		if minio.ToErrorResponse(err).Code != code || (err == nil) != (code == "") {
			t.Errorf("store with security token %.6q: %v", security, err)
		}
	}
}

func TestHealth(t *testing.T) {
	for _, tls := range []bool{false, true} {
		s := start(t, sandbox.Config{TLS: tls})
		for _, endpoint := range []string{s.StoreEndpoint(), s.ImageEndpoint()} {
			r, err := trusting(t, s).Get(endpoint + "/healthz")
			if err != nil {
				t.Fatal(err)
			}
			var answer struct{ Status string }
			err = json.NewDecoder(r.Body).Decode(&answer)
			r.Body.Close()
			if err != nil || r.StatusCode != 200 || answer.Status != "ok" || strings.HasPrefix(endpoint, "https") != tls {
				t.Errorf("%s: %d %+v, %v", endpoint, r.StatusCode, answer, err)
			}
		}
	}
}

// locked is a buffer for the log of two services.
type locked struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(p)
}

func TestLogHasNoSecrets(t *testing.T) {
	var log locked
	s := start(t, sandbox.Config{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	put(t, s, "x.raw", []byte("x"))
	if _, err := importing(t, s, "x.raw"); err == nil {
		t.Error("imported")
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if text := log.String(); strings.Contains(text, s.SecretKey()) || strings.Contains(text, "Signature") || !strings.Contains(text, "job ended") {
		t.Errorf("log: %s", text)
	}
}

func ExampleStart() {
	dir, err := os.MkdirTemp("", "sandbox")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	s, err := sandbox.Start(ctx, sandbox.Config{DataDir: dir})
	if err != nil {
		fmt.Println(err)
		return
	}
	client, err := ims.New(ims.Config{
		Endpoint: s.ImageEndpoint(), ProjectID: s.ProjectID(), Credentials: ims.AccessKey(s.AccessKey(), s.SecretKey(), ""),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	list, err := client.Images(ctx, nil)
	fmt.Println(len(list), "images,", err)
	fmt.Println("closed:", s.Close(ctx))
	// Output:
	// 0 images, <nil>
	// closed: <nil>
}

func TestMetrics(t *testing.T) {
	s, err := sandbox.Start(t.Context(), sandbox.Config{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(t.Context())
	r, err := http.Get(s.ImageEndpoint() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != 200 || !strings.Contains(string(body), "\nimgferry_sandbox_jobs 0\n") {
		t.Errorf("%d %s, %v", r.StatusCode, body, err)
	}
}
