package uploadtest

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/sse"

	"imgferry/upload/obs"
)

// What the independent servers are started with.
const (
	serverAccess = "TESTACCESSKEY"
	serverSecret = "very-secret-key"
	serverRegion = "us-east-1"
	serverBucket = "bucket"
	kmsKey       = "test-key"
)

// program is an independent server's.
type program struct {
	name    string
	env     string // names the file to run; where it is not set, name is looked for in PATH
	install string
	// command returns arguments and environment of a server at address, with a folder of its own.
	command func(dir, address string) (args, env []string)
	known   map[string]string
}

var minIO = program{
	name: "minio", env: "IMGFERRY_MINIO",
	install: "go install github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c",
	command: func(dir, address string) ([]string, []string) {
		return []string{"server", "--quiet", "--address", address, dir},
			[]string{"MINIO_ROOT_USER=" + serverAccess, "MINIO_ROOT_PASSWORD=" + serverSecret, "MINIO_UPDATE=off", "MINIO_BROWSER=off", "MINIO_CI_CD=1", "HOME=" + dir}
	},
	known: map[string]string{
		"unfinished uploads are listed by a prefix of their keys": "it takes the prefix for a whole key",
	},
}

var versityGW = program{
	name: "versitygw", env: "IMGFERRY_VERSITYGW",
	install: "go install github.com/versity/versitygw/cmd/versitygw@v1.8.0",
	command: func(dir, address string) ([]string, []string) {
		// Metadata in files: not every file system has extended attributes.
		return []string{"--quiet", "--port", address, "--access", serverAccess, "--secret", serverSecret, "--region", serverRegion, "--keep-alive",
			"posix", "--sidecar", filepath.Join(dir, "meta"), filepath.Join(dir, "data")}, nil
	},
	known: map[string]string{
		"a truncated body is refused":            "it keeps what came of the body",
		"unfinished uploads are listed in pages": "it does not go on from the markers that it gave",
	},
}

// MinIO starts a MinIO in a process of its own until the test ends. Without the program the test is
// skipped, or fails where CI or IMGFERRY_REQUIRE_TOOLS is set.
func MinIO(t *testing.T) Server { return minIO.start(t) }

// MinIOEncrypted is MinIO with a bucket that encrypts by itself, with a key of a key management service.
func MinIOEncrypted(t *testing.T) Server {
	p := minIO
	p.command = func(dir, address string) (args, env []string) {
		args, env = minIO.command(dir, address)
		return args, append(env, "MINIO_KMS_SECRET_KEY="+kmsKey+":"+base64.StdEncoding.EncodeToString(make([]byte, 32)))
	}
	p.known = maps.Clone(minIO.known)
	p.known["ETags are MD5s"] = "it encrypts"
	p.known["what a killed client had sent is not sent again"] = "without a journal nothing tells what it was"
	s := p.start(t)
	s.KMS = true
	core, err := client(s)
	if err == nil {
		err = core.SetBucketEncryption(t.Context(), serverBucket, sse.NewConfigurationSSEKMS(kmsKey))
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// VersityGW is MinIO for Versity's gateway to a POSIX file system.
func VersityGW(t *testing.T) Server { return versityGW.start(t) }

func (p program) start(t *testing.T) Server {
	t.Helper()
	path, err := exec.LookPath(cmp.Or(os.Getenv(p.env), p.name))
	if err != nil {
		complain := t.Skipf
		if os.Getenv("CI") != "" || os.Getenv("IMGFERRY_REQUIRE_TOOLS") != "" {
			complain = t.Fatalf
		}
		complain("%s is missing (set PATH or %s): %s", p.name, p.env, p.install)
	}
	dir := t.TempDir()
	for _, sub := range []string{"meta", "data"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close() // the program wants a number
	args, env := p.command(dir, address)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, append(os.Environ(), env...), log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		cancel(fmt.Errorf("%s ended: %w", p.name, cmd.Wait()))
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-ended
		log.Close()
		if t.Failed() {
			said, _ := os.ReadFile(log.Name())
			t.Logf("%s said: %.4000s", p.name, said)
		}
	})
	s := Server{
		Config: obs.Config{Endpoint: "http://" + address, Region: serverRegion, Bucket: serverBucket, AccessKey: serverAccess, SecretKey: serverSecret, Style: obs.Path},
		Known:  p.known,
	}
	core, err := client(s)
	if err != nil {
		t.Fatal(err)
	}
	var last error
	err = until(ctx, func() (bool, error) {
		attempt, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		last = core.MakeBucket(attempt, serverBucket, minio.MakeBucketOptions{Region: serverRegion})
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("%s does not come up: %v, %v", p.name, context.Cause(ctx), last)
	}
	return s
}
