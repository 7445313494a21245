package main

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"imgferry/ims"
	"imgferry/limits"
)

// shell is a world whose settings are in the environment, with an object to make images from.
type shell struct {
	*world
	client *ims.Client // past the proxy
}

const shellObject = "seed.zvhd2"

func newShell(t *testing.T) *shell {
	t.Helper()
	w := newWorld(t)
	for env, value := range map[string]string{
		envAK: "test-key", envSK: "the-test-secret", envRegion: w.box.Region(), envBucket: w.box.Bucket(),
		envProject: w.box.ProjectID(), envOBSEndpoint: w.store.URL, envIMSEndpoint: w.ims.URL,
	} {
		t.Setenv(env, value)
	}
	client, err := ims.New(ims.Config{Endpoint: w.box.ImageEndpoint(), ProjectID: w.box.ProjectID(), Credentials: ims.AccessKey("test-key", "the-test-secret", "")})
	if err != nil {
		t.Fatal(err)
	}
	return &shell{w, client}
}

// run runs the program with nothing to read.
func (s *shell) run(args ...string) result { return s.runWith(strings.NewReader(""), args...) }

func (s *shell) runWith(stdin io.Reader, args ...string) result {
	s.t.Helper()
	var stdout, stderr bytes.Buffer
	err := (&app{stdin: stdin, stdout: &stdout, stderr: &stderr, pace: hurry}).run(s.t.Context(), args)
	if strings.Contains(stderr.String()+stdout.String(), "the-test-secret") {
		s.t.Errorf("the secret key is in the output of %v:\n%s%s", args, stdout.String(), stderr.String())
	}
	return result{exitCode(err), stdout.String(), stderr.String()}
}

// want runs the program and checks its exit code.
func (s *shell) want(code int, args ...string) result {
	s.t.Helper()
	r := s.run(args...)
	if r.code != code {
		s.t.Errorf("%v: exit code %d, want %d:\n%s%s", args, r.code, code, r.stdout, r.stderr)
	}
	return r
}

// seed uploads the object that images are made from, and deletes the image that it became.
func (s *shell) seed() {
	s.t.Helper()
	r := s.want(0, "push", "--key", shellObject, "--name", "seed", s.disk(1))
	if err := s.client.DeleteImage(s.t.Context(), strings.TrimSpace(r.stdout)); err != nil {
		s.t.Fatal(err)
	}
}

// image makes an image of that name, after change, and returns its id.
func (s *shell) image(name string, change func(*ims.QuickImportRequest)) string {
	s.t.Helper()
	q := ims.QuickImportRequest{Name: name, OSVersion: defaultOS, ImageURL: limits.ImageURL(s.box.Bucket(), shellObject), MinDisk: 40}
	if change != nil {
		change(&q)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	job, err := s.client.QuickImport(ctx, q)
	if err != nil {
		s.t.Fatal(err)
	}
	done, err := s.client.WaitJob(ctx, job, ims.Wait{Interval: 10 * time.Millisecond})
	if err != nil {
		s.t.Fatal(err)
	}
	return done.ImageID
}
