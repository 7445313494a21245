package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgferry/upload"
)

// runningSandbox is `imgferry sandbox` under way.
type runningSandbox struct {
	settings map[string]string
	end      func() error // interrupts it
}

// startSandbox runs the command and puts the settings that it prints into the environment.
func startSandbox(t *testing.T, flags ...string) runningSandbox {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	stdout, w := io.Pipe()
	done := make(chan error, 1)
	var stderr bytes.Buffer // read after done
	go func() {
		err := run(ctx, append([]string{"sandbox", "--json", "--listen-store", "127.0.0.1:0", "--listen-images", "127.0.0.1:0"}, flags...), nil, w, &stderr)
		w.CloseWithError(err)
		done <- err
	}()
	s := runningSandbox{end: func() error {
		cancel(upload.ErrInterrupted)
		return <-done
	}}
	if err := json.NewDecoder(stdout).Decode(&s.settings); err != nil {
		t.Fatalf("no settings: %v, %v\n%s", err, s.end(), &stderr)
	}
	for name, value := range s.settings {
		t.Setenv(name, value)
	}
	return s
}

func mustRun(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if err := run(t.Context(), args, nil, &stdout, &stderr); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, &stderr)
	}
	return stdout.String()
}

// TestSandboxImitatesOBS points the program at its own sandbox, by nothing but the settings that this prints:
// HTTPS with a certificate authority of its own, and host names below .localhost.
func TestSandboxImitatesOBS(t *testing.T) {
	home := t.TempDir()
	for _, name := range []string{"HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"} {
		t.Setenv(name, home)
	}
	data := filepath.Join(home, "data")
	flags := []string{"--imitate", "obs", "--refuse-payload-hash", "--data", data, "--user", "alice", "--password", "correct horse"}
	s := startSandbox(t, flags...)
	if !strings.HasPrefix(s.settings[envOBSEndpoint], "https://obs.localhost:") || !strings.HasPrefix(s.settings[envIAMEndpoint], "https://127.0.0.1:") ||
		s.settings[envUser] != "alice" || s.settings[envPassword] != "correct horse" || s.settings[envCAFile] != filepath.Join(data, "tls", "ca.pem") {
		t.Errorf("settings %v", s.settings)
	}
	id := strings.TrimSpace(mustRun(t, "push", "--os-version", "Other Linux(64 bit)", filepath.Join("..", "..", "testdata", "linux.qcow2")))
	if err := s.end(); err != nil {
		t.Fatal(err)
	}
	// The next one has the image, and lets in who logs in.
	s = startSandbox(t, flags...)
	os.Unsetenv(envAK) // Setenv of this test puts them back
	os.Unsetenv(envSK)
	mustRun(t, "login")
	if list := mustRun(t, "images", "list"); !strings.Contains(list, id) {
		t.Errorf("image %s is not among\n%s", id, list)
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
}

func TestSandboxUsage(t *testing.T) {
	for _, args := range [][]string{{"--imitate", "aws"}, {"--refuse-payload-hash"}} {
		var stderr bytes.Buffer
		err := run(t.Context(), append([]string{"sandbox", "--data", t.TempDir()}, args...), nil, io.Discard, &stderr)
		if exitCode(err) != exitUsage || !strings.Contains(stderr.String(), args[0]) {
			t.Errorf("%v: %v\n%s", args, err, &stderr)
		}
	}
}
