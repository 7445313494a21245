package objectstore_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"imgferry/formats"
	"imgferry/sandbox/objectstore"
)

// serveDir names, in the environment, the directory that this program is to serve until it is
// killed.
const serveDir = "OBJECTSTORE_TEST_SERVE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(serveDir); dir != "" {
		if err := serve(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func serve(dir string) error {
	o := options()
	o.NoSync, o.MinPartSize = false, 1
	s, err := objectstore.Open(dir, o)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	return http.Serve(l, s.Handler())
}

// ledger is what the store acknowledged: the seed of each key's content, or 0 if it was removed.
type ledger struct {
	sync.Mutex
	acked map[string]uint64
	// open holds what was under way when the store was killed: it may have happened.
	open  map[string]uint64
	count int
}

func (l *ledger) begin(key string, seed uint64) {
	l.Lock()
	defer l.Unlock()
	l.open[key] = seed
}

// done counts a change that was acknowledged.
func (l *ledger) done(key string, seed uint64) int {
	l.Lock()
	defer l.Unlock()
	l.acked[key] = seed
	delete(l.open, key)
	l.count++
	return l.count
}

// TestKill kills a store with work under way, several times, and compares with what it had said.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	l := &ledger{acked: make(map[string]uint64), open: make(map[string]uint64)}
	for round := range 4 {
		killUnderLoad(t, dir, round, l)
		compare(t, dir, l)
	}
}

func killUnderLoad(t *testing.T, dir string, round int, l *ledger) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), serveDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the store does not come up: %v", err)
	}
	client, err := minio.New(strings.TrimSpace(addr), &minio.Options{
		Creds: credentials.NewStaticV4(testAccess, testSecret, ""), Region: testRegion, MaxRetries: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	if round == 0 {
		if err := client.MakeBucket(t.Context(), bucket, minio.MakeBucketOptions{Region: testRegion}); err != nil {
			t.Fatal(err)
		}
	}
	var g sync.WaitGroup
	for worker := range 4 {
		g.Go(func() {
			for i := 1; ; i++ {
				key := fmt.Sprintf("w%d/%d", worker, i%5)
				seed := uint64(round*1000 + i*4 + worker + 1)
				if i%7 == 0 {
					seed = 0
				}
				l.begin(key, seed)
				if err := change(t, minio.Core{Client: client}, key, seed); err != nil {
					return // killed
				}
				if l.done(key, seed)%60 == 0 {
					cmd.Process.Kill()
				}
			}
		})
	}
	g.Wait()
}

// change writes or removes an object, in one request or in parts.
func change(t *testing.T, core minio.Core, key string, seed uint64) error {
	ctx := t.Context()
	if seed == 0 {
		return core.RemoveObject(ctx, bucket, key, minio.RemoveObjectOptions{})
	}
	data := content(seed)
	if seed%2 == 0 {
		_, err := core.Client.PutObject(ctx, bucket, key, bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{})
		return err
	}
	id, err := core.NewMultipartUpload(ctx, bucket, key, minio.PutObjectOptions{})
	if err != nil {
		return err
	}
	var parts []minio.CompletePart
	for n, half := range [][]byte{data[:len(data)/2], data[len(data)/2:]} {
		p, err := core.PutObjectPart(ctx, bucket, key, id, n+1, bytes.NewReader(half), int64(len(half)), minio.PutObjectPartOptions{})
		if err != nil {
			return err
		}
		parts = append(parts, minio.CompletePart{PartNumber: n + 1, ETag: p.ETag})
	}
	_, err = core.CompleteMultipartUpload(ctx, bucket, key, id, parts, minio.PutObjectOptions{})
	return err
}

func content(seed uint64) []byte {
	return noise(seed, 1+int(seed*7919%100_000))
}

// compare opens the store and looks for every key's last acknowledged content, or what was being
// written over it.
func compare(t *testing.T, dir string, l *ledger) {
	s, err := objectstore.Open(dir, options())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for key := range l.open {
		l.acked[key] += 0 // a first write that was not acknowledged: perhaps nothing
	}
	for key, seed := range l.acked {
		may := []uint64{seed}
		if open, ok := l.open[key]; ok {
			may = append(may, open)
		}
		got, err := read(s, key)
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		ok := false
		for _, seed := range may {
			want := []byte(nil)
			if seed != 0 {
				want = content(seed)
			}
			if bytes.Equal(got, want) {
				ok, l.acked[key] = true, seed
			}
		}
		if !ok {
			t.Errorf("%s holds %d bytes that nobody wrote last (%v)", key, len(got), may)
		}
	}
	clear(l.open)
}

// read returns an object's bytes, or nil if there is none.
func read(s *objectstore.Store, key string) ([]byte, error) {
	o, err := s.OpenObject(bucket, key)
	if errors.Is(err, objectstore.ErrNoSuchKey) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer o.Close()
	p := make([]byte, o.Size())
	return p, formats.ReadFull(o, p, 0)
}
