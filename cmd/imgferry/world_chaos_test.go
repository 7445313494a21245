package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"

	"imgferry/upload"
	"imgferry/upload/obs"
	"imgferry/upload/uploadtest"
)

// chaosDisk is a disk that does not compress, in bytes: it becomes several parts of chaosPart.
const (
	chaosDisk = 21 << 20
	chaosPart = "5MiB"
)

// store returns the sandbox's bucket, past every proxy.
func (w *world) bucket() *obs.Bucket {
	w.t.Helper()
	transport := obs.NewTransport(0)
	w.t.Cleanup(transport.CloseIdleConnections)
	b, err := obs.New(obs.Config{
		Endpoint: w.box.StoreEndpoint(), Region: w.box.Region(), Bucket: w.box.Bucket(), AccessKey: "test-key", SecretKey: "the-test-secret", Transport: transport,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

// content reads a whole object; nil if there is none.
func content(b *obs.Bucket, key string) ([]byte, error) {
	ctx := context.Background()
	o, err := b.Stat(ctx, key)
	if errors.Is(err, upload.ErrNoObject) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r, err := b.Get(ctx, key, 0, o.Size, o.ETag)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// unfinishedOf returns the ids of the unfinished uploads of exactly one key.
func unfinishedOf(b *obs.Bucket, key string) ([]string, error) {
	list, err := b.Uploads(context.Background(), key)
	var ids []string
	for _, u := range list {
		if u.Key == key {
			ids = append(ids, u.UploadID)
		}
	}
	return ids, err
}

// through are the settings of a run that reaches the store at endpoint.
func (w *world) through(endpoint string) []string {
	return []string{
		"--obs-endpoint", endpoint, "--ak", "test-key", "--sk", "the-test-secret", "--region", w.box.Region(),
	}
}

// hurried runs the program, which waits for next to nothing between its tries.
func (w *world) hurried(ctx context.Context, args ...string) result {
	var stdout, stderr bytes.Buffer
	a := &app{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, pace: hurry}
	err := a.run(ctx, args)
	return result{exitCode(err), stdout.String(), stderr.String()}
}

// noiseDisk writes a raw disk that does not compress.
func (w *world) noiseDisk() (path string, data []byte) {
	w.t.Helper()
	data = uploadtest.Noise(7, chaosDisk)
	path = w.dir + "/noise.raw"
	if err := os.WriteFile(path, data, 0o666); err != nil {
		w.t.Fatal(err)
	}
	return path, data
}

// long reports whether what takes long is to be tested.
func long() bool { return os.Getenv("IMGFERRY_LONG") != "" }

// sparse is a disk of which much is zero, as it is on disk and as the bytes of its raw object.
type sparse struct {
	path string
	data []byte
}

// sparseDisk makes a disk with enough zeros for the store to copy some of them.
func (w *world) sparseDisk() sparse {
	w.t.Helper()
	data := make([]byte, 96<<20)
	copy(data[30<<20:], uploadtest.Noise(8, 6<<20))
	path := w.dir + "/sparse.raw"
	if err := os.WriteFile(path, data, 0o666); err != nil {
		w.t.Fatal(err)
	}
	return sparse{path, data}
}
