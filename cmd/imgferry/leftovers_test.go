package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"imgferry/profile"
)

// Settings that are set at the same moment are all there afterwards.
func TestConfigSetAtOnce(t *testing.T) {
	clearSettings(t)
	var wg sync.WaitGroup
	const n = 12
	for i := range n {
		wg.Go(func() {
			if r := imgferry(t, "", "config", "set", "--profile", fmt.Sprintf("p%d", i), "region", "r"); r.code != 0 {
				t.Errorf("%+v", r)
			}
		})
	}
	wg.Wait()
	if r := imgferry(t, "", "config", "list"); strings.Count(r.stdout, "\n") != n+1 {
		t.Errorf("%q", r.stdout)
	}
}

// Deleting the current profile says what commands use from then on.
func TestConfigDeleteCurrent(t *testing.T) {
	for _, c := range []struct {
		others []string
		says   string
	}{
		{nil, "there is none left"},
		{[]string{"test"}, "commands use none from now on; choose another with imgferry config use NAME"},
		{[]string{"test", "default"}, "commands use profile default from now on"},
	} {
		clearSettings(t)
		for _, name := range append([]string{"prod"}, c.others...) { // the first becomes the current one
			if r := imgferry(t, "", "config", "set", "--profile", name, "region", "r"); r.code != 0 {
				t.Fatalf("%+v", r)
			}
		}
		if r := imgferry(t, "", "config", "delete", "prod"); r.code != 0 || !strings.Contains(r.stderr, "that was the current profile: "+c.says) {
			t.Errorf("%v: %+v", c.others, r)
		}
		if len(c.others) > 0 {
			if r := imgferry(t, "", "config", "delete", "test"); r.code != 0 || r.stderr != "" {
				t.Errorf("another one: %+v", r)
			}
		}
	}
}

// A damaged login is replaced by the next one; commands that need it still say so.
func TestLoginOverDamaged(t *testing.T) {
	s := newShell(t)
	for _, env := range []string{envAK, envSK, envProject} {
		t.Setenv(env, "")
	}
	t.Setenv(envIAMEndpoint, s.box.ImageEndpoint())
	t.Setenv(envPassword, s.box.Password())
	login := []string{"login", "--user", s.box.User(), "--domain", "sandbox"}
	s.want(0, login...)
	state, err := profile.StateDir()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(state, "logins", "*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	if err := os.WriteFile(files[0], []byte(`{"token":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := s.want(exitFailure, "images", "list"); !strings.Contains(r.stderr, "no stored login") {
		t.Errorf("%+v", r)
	}
	if r := s.want(0, login...); !strings.Contains(r.stderr, "this login replaces it") {
		t.Errorf("%+v", r)
	}
	s.want(0, "images", "list")
}
