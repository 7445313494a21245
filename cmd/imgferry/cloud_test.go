package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"imgferry/ims"
	"imgferry/profile"
)

// clearSettings takes away what this machine's environment and home have of settings.
func clearSettings(t *testing.T) {
	t.Helper()
	for _, s := range settings {
		t.Setenv(s.env, "")
	}
	for _, env := range []string{envConfig, envProfile, envPassword, "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"} {
		t.Setenv(env, "")
	}
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(home, "config"))
	t.Setenv("XDG_STATE_HOME", filepath.Join(home, "state"))
}

// settingsFile is the settings file of a test, with values set for profile prod, which is the current one.
func settingsFile(t *testing.T, values map[string]string) *profile.File {
	t.Helper()
	path, err := profile.Path()
	if err != nil {
		t.Fatal(err)
	}
	f, err := profile.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	for key, v := range values {
		if err := f.Set("prod", key, v); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Save(); err != nil {
		t.Fatal(err)
	}
	return f
}

// imgferry runs the program in this process with stdin as its standard input.
func imgferry(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	err := run(t.Context(), args, strings.NewReader(stdin), &stdout, &stderr)
	return result{exitCode(err), stdout.String(), stderr.String()}
}

// Every setting that the file may have has a flag and a variable, and none twice.
func TestSettingsTable(t *testing.T) {
	var names, envs, fields []string
	var c cloud
	for _, s := range settings {
		names, envs = append(names, s.name), append(envs, s.env)
		*s.field(&c) += s.name
		fields = append(fields, *s.field(&c))
	}
	slices.Sort(names)
	slices.Sort(envs)
	if !slices.Equal(names, profile.Keys()) {
		t.Errorf("the table has %q, the file %q", names, profile.Keys())
	}
	if len(slices.Compact(envs)) != len(settings) {
		t.Error("two settings have the same variable")
	}
	for i, s := range settings {
		if fields[i] != s.name {
			t.Errorf("%s has the field of another", s.name)
		}
	}
}

// sample values, different for each place, that every setting takes.
func sample(name, place string) string {
	switch name {
	case profile.AddressingStyle:
		return map[string]string{"flag": "path", "env": "virtual-host", "profile": "auto"}[place]
	case profile.IMSEndpoint, profile.OBSEndpoint, profile.IAMEndpoint, profile.Proxy:
		return "http://" + place + ".invalid"
	case profile.CAFile:
		return "/" + place
	case profile.Signature:
		return map[string]string{"flag": "v2", "env": "v4", "profile": "v2"}[place]
	}
	return place
}

// Each setting by itself: flag, then environment, then profile.
func TestPrecedence(t *testing.T) {
	for _, s := range settings {
		if slices.Contains(credentialSettings, s.name) {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			clearSettings(t)
			want := func(value, from string, preset cloud) {
				t.Helper()
				preset.fill()
				if got := *s.field(&preset); preset.err != nil || got != value || preset.from[s.name] != from {
					t.Errorf("%q from %q, want %q from %q; %v", got, preset.from[s.name], value, from, preset.err)
				}
			}
			want("", "", cloud{})
			settingsFile(t, map[string]string{s.name: sample(s.name, "profile")})
			want(sample(s.name, "profile"), "profile prod", cloud{})
			t.Setenv(s.env, sample(s.name, "env"))
			want(sample(s.name, "env"), "$"+s.env, cloud{})
			var c cloud
			*s.field(&c) = sample(s.name, "flag")
			want(sample(s.name, "flag"), "--"+s.name, c)
		})
	}
}

// The credentials of one place never go with those of another.
func TestCredentialsAreOneSet(t *testing.T) {
	for _, test := range []struct {
		name               string
		flags, env, stored [3]string // access key, secret key, security token
		want               [3]string
		fails              string
	}{
		{name: "none"},
		{name: "profile", stored: [3]string{"pa", "ps", "pt"}, want: [3]string{"pa", "ps", "pt"}},
		{name: "environment", env: [3]string{"ea", "es", ""}, stored: [3]string{"pa", "ps", "pt"}, want: [3]string{"ea", "es", ""}},
		{name: "flags", flags: [3]string{"fa", "fs", ""}, env: [3]string{"ea", "es", "et"}, stored: [3]string{"pa", "ps", "pt"}, want: [3]string{"fa", "fs", ""}},
		{name: "temporary by flags", flags: [3]string{"fa", "fs", "ft"}, want: [3]string{"fa", "fs", "ft"}},
		{name: "AK of the environment, rest of the profile", env: [3]string{"ea", "", ""}, stored: [3]string{"pa", "ps", "pt"}, fails: "the environment has no sk"},
		{name: "token of the environment", env: [3]string{"", "", "et"}, stored: [3]string{"pa", "ps", ""}, fails: "the environment has no ak and no sk"},
		{name: "SK by flag", flags: [3]string{"", "fs", ""}, env: [3]string{"ea", "es", ""}, fails: "the command line has no ak"},
		{name: "half a profile", stored: [3]string{"pa", "", ""}, fails: "profile prod has no sk"},
	} {
		t.Run(test.name, func(t *testing.T) {
			clearSettings(t)
			var c cloud
			stored := map[string]string{profile.Region: "r"}
			for i, name := range credentialSettings {
				s := settingNamed(name)
				*s.field(&c) = test.flags[i]
				t.Setenv(s.env, test.env[i])
				if test.stored[i] != "" {
					stored[name] = test.stored[i]
				}
			}
			settingsFile(t, stored)
			c.fill()
			if test.fails != "" {
				if c.err == nil || exitCode(c.err) != exitUsage || !strings.Contains(c.err.Error(), test.fails) {
					t.Errorf("got %v, want %q", c.err, test.fails)
				}
				_, err := c.store()
				if !errors.Is(err, c.err) {
					t.Errorf("the store is reached: %v", err)
				}
				if _, err := c.service(); !errors.Is(err, c.err) {
					t.Errorf("the service is reached: %v", err)
				}
				return
			}
			if got := [3]string{c.ak, c.sk, c.token}; c.err != nil || got != test.want {
				t.Errorf("got %q, %v, want %q", got, c.err, test.want)
			}
		})
	}
}

func TestWhichProfile(t *testing.T) {
	clearSettings(t)
	f := settingsFile(t, map[string]string{profile.Region: "of-prod"})
	for _, name := range []string{"test", "other"} {
		if err := f.Set(name, profile.Region, "of-"+name); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Save(); err != nil {
		t.Fatal(err)
	}
	region := func(flag string) string {
		c := cloud{profile: flag}
		c.fill()
		if c.err != nil {
			t.Error(c.err)
		}
		return c.region
	}
	if got := region(""); got != "of-prod" {
		t.Errorf("the current one gives %q", got)
	}
	t.Setenv(envProfile, "test")
	if got := region(""); got != "of-test" {
		t.Errorf("that of the environment gives %q", got)
	}
	if got := region("other"); got != "of-other" {
		t.Errorf("--profile gives %q", got)
	}
	c := cloud{profile: "nobody"}
	if c.fill(); exitCode(c.err) != exitUsage || !errors.Is(c.err, profile.ErrNoProfile) || !strings.Contains(c.err.Error(), "other, prod, test") {
		t.Errorf("a profile that is not there: %v", c.err)
	}
	c = cloud{config: filepath.Join(t.TempDir(), "none.yaml")}
	if c.fill(); exitCode(c.err) != exitNotFound || !errors.Is(c.err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", c.err)
	}
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("profiles: ["), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(envConfig, bad)
	c = cloud{}
	if c.fill(); exitCode(c.err) != exitUsage || !errors.Is(c.err, profile.ErrFile) {
		t.Errorf("a malformed file: %v", c.err)
	}
}

// On a machine without a home, flags and the environment do.
func TestNoHome(t *testing.T) {
	clearSettings(t)
	t.Setenv("HOME", "")
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("XDG_STATE_HOME", "")
	t.Setenv(envRegion, "r")
	var c cloud
	if c.fill(); c.err != nil || c.region != "r" {
		t.Errorf("region %q, %v", c.region, c.err)
	}
	c = cloud{profile: "prod"}
	if c.fill(); c.err == nil {
		t.Error("a profile is found nowhere")
	}
}

func TestValuesAreChecked(t *testing.T) {
	clearSettings(t)
	t.Setenv(envProxy, "gopher://user:the-secret@proxy")
	c := cloud{obsEndpoint: "http://a b", style: "dns"}
	c.fill()
	for _, says := range []string{"--obs-endpoint", "--addressing-style", "$" + envProxy} {
		if c.err == nil || !strings.Contains(c.err.Error(), says) {
			t.Errorf("want %s in %v", says, c.err)
		}
	}
	if exitCode(c.err) != exitUsage || strings.Contains(c.err.Error(), "the-secret") {
		t.Error(c.err)
	}
}

func TestExposedFileWarns(t *testing.T) {
	clearSettings(t)
	f := settingsFile(t, map[string]string{profile.AccessKey: "ak", profile.SecretKey: "the-secret"})
	if r := imgferry(t, "", "config", "show"); strings.Contains(r.stderr, "warning") {
		t.Errorf("mode 0600: %s", r.stderr)
	}
	if err := os.Chmod(f.Path(), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := imgferry(t, "", "config", "show"); !strings.Contains(r.stderr, "chmod 600") || r.code != 0 {
		t.Errorf("mode 0644: %s", r.stderr)
	}
}

// pemOf writes the certificate of a server into a file.
func pemOf(t *testing.T, server *httptest.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// One transport for all: the store, the image service and the identity service trust the same file.
func TestOwnCA(t *testing.T) {
	clearSettings(t)
	var n atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		w.WriteHeader(http.StatusNotFound)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // the handshakes that fail
	server.StartTLS()
	defer server.Close()
	ca := pemOf(t, server)
	for _, test := range []struct {
		caFile string
		code   int
	}{{"", exitFailure}, {ca, exitNotFound}} {
		c := cloud{
			region: "r", project: "p", bucket: "bucket", ak: "ak", sk: "sk", caFile: test.caFile,
			obsEndpoint: server.URL, imsEndpoint: strings.TrimPrefix(server.URL, "https://"), iamEndpoint: server.URL,
		}
		c.fill()
		bucket, images, err := c.both()
		if err != nil {
			t.Fatal(err)
		}
		id, err := c.identity()
		if err != nil {
			t.Fatal(err)
		}
		_, imageErr := images.Image(t.Context(), "i")
		_, tokenErr := id.Token(t.Context(), ims.PasswordLogin{User: "u", Domain: "d", Password: "p", ProjectName: "r"})
		for name, err := range map[string]error{"store": bucket.CheckBucket(t.Context()), "images": imageErr, "identity": tokenErr} {
			trusted := err == nil || !strings.Contains(err.Error(), "certificate")
			if trusted != (test.caFile != "") {
				t.Errorf("%s with --ca-file %q: %v", name, test.caFile, err)
			}
		}
	}
	if n.Load() == 0 {
		t.Error("nothing came through")
	}

	none := filepath.Join(t.TempDir(), "none.pem")
	c := cloud{caFile: none}
	c.fill()
	if _, err := c.httpClient(); exitCode(err) != exitNotFound {
		t.Errorf("no such file: %v", err)
	}
	if err := os.WriteFile(none, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.httpClient(); exitCode(err) != exitUsage || !strings.Contains(err.Error(), "PEM") {
		t.Errorf("no certificate: %v", err)
	}
}

// A proxy that is set is used for each service, and never for this machine.
func TestProxy(t *testing.T) {
	for _, test := range []struct {
		name, flag, env, no string
		reached             bool
	}{
		{name: "by flag", flag: "PROXY", reached: true},
		{name: "by variable", env: "PROXY", reached: true},
		{name: "flag before variable", flag: "PROXY", env: "http://127.0.0.1:1", reached: true},
		{name: "none", flag: "none", env: "PROXY"},
		{name: "NO_PROXY", flag: "PROXY", no: ".invalid"},
	} {
		t.Run(test.name, func(t *testing.T) {
			clearSettings(t)
			var hosts atomic.Pointer[[]string]
			hosts.Store(new([]string))
			proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				all := append(slices.Clone(*hosts.Load()), r.URL.Host)
				hosts.Store(&all)
				w.WriteHeader(http.StatusNotFound)
			}))
			defer proxy.Close()
			t.Setenv("NO_PROXY", test.no)
			t.Setenv(envProxy, strings.Replace(test.env, "PROXY", proxy.URL, 1))
			c := cloud{
				proxy: strings.Replace(test.flag, "PROXY", proxy.URL, 1), region: "r", project: "p", bucket: "bucket", ak: "ak", sk: "sk",
				obsEndpoint: "http://obs.invalid", imsEndpoint: "http://ims.invalid", iamEndpoint: "http://iam.invalid", style: profile.StyleVirtualHost,
			}
			c.fill()
			bucket, images, err := c.both()
			if err != nil {
				t.Fatal(err)
			}
			id, err := c.identity()
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			bucket.CheckBucket(ctx)
			images.Image(ctx, "i")
			id.Token(ctx, ims.PasswordLogin{User: "u", Domain: "d", Password: "p", ProjectName: "r"})
			seen := slices.Compact(slices.Sorted(slices.Values(*hosts.Load())))
			want := []string{"bucket.obs.invalid", "iam.invalid", "ims.invalid"}
			if !test.reached {
				want = nil
			}
			if !slices.Equal(seen, want) {
				t.Errorf("through the proxy went %q, want %q", seen, want)
			}

			local := httptest.NewServer(http.NotFoundHandler())
			defer local.Close()
			client, err := c.httpClient()
			if err != nil {
				t.Fatal(err)
			}
			before := len(*hosts.Load())
			if resp, err := client.Get(local.URL); err != nil {
				t.Error(err)
			} else {
				resp.Body.Close()
			}
			if len(*hosts.Load()) != before {
				t.Error("this machine is reached through the proxy")
			}
		})
	}
}

// Temporary keys carry their security token to both services, from wherever they come.
func TestSecurityToken(t *testing.T) {
	for _, by := range []string{"flags", "profile"} {
		t.Run(by, func(t *testing.T) {
			clearSettings(t)
			var tokens atomic.Pointer[[2]string]
			tokens.Store(new([2]string))
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				old := tokens.Load()
				tokens.Store(&[2]string{old[0] + r.Header.Get("X-Amz-Security-Token"), old[1] + r.Header.Get("X-Security-Token")})
				w.WriteHeader(http.StatusNotFound)
			}))
			defer server.Close()
			c := cloud{region: "r", project: "p", bucket: "bucket", obsEndpoint: server.URL, imsEndpoint: server.URL}
			if by == "flags" {
				c.ak, c.sk, c.token = "ak", "sk", "the-token"
			} else {
				settingsFile(t, map[string]string{profile.AccessKey: "ak", profile.SecretKey: "sk", profile.SecurityToken: "the-token"})
			}
			c.fill()
			bucket, images, err := c.both()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := bucket.Stat(t.Context(), "key"); err == nil {
				t.Error("the object is there")
			}
			if _, err := images.Image(t.Context(), "i"); err == nil {
				t.Error("the image is there")
			}
			if got := *tokens.Load(); got != [2]string{"the-token", "the-token"} {
				t.Errorf("the services got %q", got)
			}
		})
	}
}

// leaves are all commands of the program that do something.
func leaves(cmd *cobra.Command) []*cobra.Command {
	if !cmd.HasSubCommands() {
		return []*cobra.Command{cmd}
	}
	var all []*cobra.Command
	for _, sub := range cmd.Commands() {
		all = append(all, leaves(sub)...)
	}
	return all
}

// No command shows a secret, whatever the services say, at the most talkative level of the log.
func TestSecretsAreNeverShown(t *testing.T) {
	clearSettings(t)
	// A service that sends back all it got.
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		r.Header.Write(w)
		io.Copy(w, io.LimitReader(r.Body, 1<<20))
	}))
	defer echo.Close()
	secrets := map[string]string{
		profile.SecretKey: "the-secret-key", profile.SecurityToken: "the-security-token", profile.Proxy: "http://user:the-proxy-password@127.0.0.1:1",
	}
	values := map[string]string{
		profile.Region: "r", profile.ProjectID: "p", profile.Bucket: "bucket", profile.AccessKey: "ak", profile.User: "alice", profile.Domain: "acme",
		profile.OBSEndpoint: echo.URL, profile.IMSEndpoint: echo.URL, profile.IAMEndpoint: echo.URL,
	}
	for k, v := range secrets {
		values[k] = v
	}
	settingsFile(t, values)
	shown := []string{"the-secret-key", "the-security-token", "the-proxy-password", "the-password", "the-token"}
	disk := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(disk, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}
	n := 0
	for _, cmd := range leaves(a.command()) {
		path := strings.Fields(cmd.CommandPath())[1:]
		switch cmd.Name() {
		case "sandbox", "completion", "man":
			continue // it would stay; no settings
		case "delete":
			if path[0] == "config" {
				continue // last, if at all: it takes the settings away
			}
		}
		for _, args := range [][]string{nil, {disk}, {disk, disk}, {profile.SecretKey, "the-secret-key"}} {
			if path[0] == "config" && len(args) > 0 && path[1] != "set" && path[1] != "show" {
				continue
			}
			for _, more := range [][]string{nil, {"--log-level", "debug"}, {"--log-level", "debug", "--log-format", "json"}, {"-o", "json"}, {"-o", "yaml"}} {
				line := slices.Concat(path, args, more)
				if cmd.Flags().Lookup("retries") != nil {
					line = append(line, "--retries", "1")
				}
				if cmd.Flags().Lookup("password-stdin") != nil {
					line = append(line, "--password-stdin")
				}
				r := imgferry(t, "the-password\n", line...)
				for _, s := range shown {
					if strings.Contains(r.stdout+r.stderr, s) {
						t.Errorf("%q shows %s:\n%s%s", line, s, r.stdout, r.stderr)
					}
				}
				n++
			}
		}
	}
	if n < 100 {
		t.Errorf("only %d command lines were tried", n)
	}
}
