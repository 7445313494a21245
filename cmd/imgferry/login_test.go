package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"imgferry/profile"
	"imgferry/sandbox"
)

// fakeCloud is an identity service that knows alice of acme, and in front of the same port an image
// service and a store that take nothing but what it issued.
type fakeCloud struct {
	*httptest.Server
	t *testing.T

	mu       sync.Mutex
	lifetime time.Duration // of what it issues
	noKeys   bool          // it has no call for temporary keys
	asked    []string      // the scopes of the tokens asked for
	tokens   int           // requests with the token
	keys     int           // requests with the temporary keys
}

const (
	alicesPassword = `p<ss "word"`
	issuedToken    = "MIIP-issued-token"
)

func newFakeCloud(t *testing.T) *fakeCloud {
	t.Helper()
	clearSettings(t)
	f := &fakeCloud{t: t, lifetime: time.Hour}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	t.Setenv(envIAMEndpoint, f.URL)
	t.Setenv(envIMSEndpoint, f.URL)
	t.Setenv(envOBSEndpoint, f.URL)
	t.Setenv(envBucket, "bucket")
	return f
}

func (f *fakeCloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ends := time.Now().Add(f.lifetime).UTC().Format("2006-01-02T15:04:05.000000Z")
	switch {
	case r.URL.Path == "/v3/auth/tokens":
		var body struct {
			Auth struct {
				Identity struct {
					Password struct {
						User struct {
							Name, Password string
							Domain         struct{ Name string }
						}
					}
				}
				Scope struct{ Project map[string]string }
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			f.t.Error(err)
		}
		f.asked = append(f.asked, fmt.Sprint(body.Auth.Scope.Project))
		if u := body.Auth.Identity.Password.User; u.Name != "alice" || u.Domain.Name != "acme" || u.Password != alicesPassword {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprintf(w, `{"error":{"code":401,"message":%q}}`, "wrong: "+u.Password)
			return
		}
		w.Header().Set("X-Subject-Token", issuedToken)
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"token":{"expires_at":%q,"project":{"id":"project-1"}}}`, ends)
	case r.URL.Path == "/v3.0/OS-CREDENTIAL/securitytokens" && f.noKeys:
		w.WriteHeader(http.StatusNotFound)
	case r.URL.Path == "/v3.0/OS-CREDENTIAL/securitytokens":
		if r.Header.Get("X-Auth-Token") != issuedToken {
			f.t.Error("keys are asked for without the token")
		}
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"credential":{"access":"TEMPAK","secret":"temp-secret","securitytoken":"temp-security","expires_at":%q}}`, ends)
	case r.URL.Path == "/v2/cloudimages" && r.Header.Get("X-Auth-Token") == issuedToken:
		f.tokens++
		io.WriteString(w, `{"images":[]}`)
	case r.URL.Query().Has("uploads") && strings.Contains(r.Header.Get("Authorization"), "Credential=TEMPAK/") && r.Header.Get("X-Amz-Security-Token") == "temp-security":
		f.keys++
		io.WriteString(w, `<?xml version="1.0"?><ListMultipartUploadsResult></ListMultipartUploadsResult>`)
	default:
		w.WriteHeader(http.StatusForbidden)
	}
}

// run runs the program; nothing that is secret may be in its output.
func (f *fakeCloud) run(stdin string, args ...string) result {
	f.t.Helper()
	r := imgferry(f.t, stdin, append(args, "--log-level", "debug")...)
	for _, secret := range []string{alicesPassword, `p<ss \"word\"`, issuedToken, "temp-secret", "temp-security"} {
		if strings.Contains(r.stdout+r.stderr, secret) {
			f.t.Errorf("%q shows %q:\n%s%s", args, secret, r.stdout, r.stderr)
		}
	}
	return r
}

// must runs the program, which has to end with code and to say something.
func (f *fakeCloud) must(code int, says, stdin string, args ...string) {
	f.t.Helper()
	r := f.run(stdin, args...)
	if r.code != code || !strings.Contains(r.stdout+r.stderr, says) {
		f.t.Errorf("%q: code %d, want %d and %q:\n%s%s", args, r.code, code, says, r.stdout, r.stderr)
	}
}

func TestLogin(t *testing.T) {
	f := newFakeCloud(t)
	f.must(exitUsage, "imgferry login", "", "uploads", "--region", "local-1")
	f.must(0, "logged in as alice of acme, for profile default", alicesPassword+"\n",
		"login", "--password-stdin", "--user", "alice", "--domain", "acme", "--region", "local-1")

	// Both services take it, and what the login knows need not be said again.
	f.must(0, "no unfinished uploads", "", "uploads")
	f.must(0, "", "", "images", "list")
	f.must(0, "project-1", "", "config", "show")
	if f.tokens != 1 || f.keys != 1 {
		t.Errorf("%d requests with the token and %d with the keys", f.tokens, f.keys)
	}

	// The files are for nobody else.
	state, err := profile.StateDir()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	err = filepath.WalkDir(state, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err == nil && st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, st.Mode())
		}
		if !d.IsDir() {
			n++
			if text, err := os.ReadFile(path); err != nil || strings.Contains(string(text), alicesPassword[:4]) {
				t.Errorf("%s holds the password, or: %v", path, err)
			}
		}
		return err
	})
	if err != nil || n != 1 {
		t.Errorf("%d files, %v", n, err)
	}

	// Again, with nothing but the password: the project is known now.
	t.Setenv(envPassword, alicesPassword)
	f.must(0, "logged in", "", "login")
	if want := []string{"map[name:local-1]", "map[id:project-1]"}; fmt.Sprint(f.asked) != fmt.Sprint(want) {
		t.Errorf("asked for %v, want %v", f.asked, want)
	}
	// For another region, the old login's project is not the one.
	f.must(0, "logged in", "", "login", "--region", "local-2", "--user", "alice", "--domain", "acme")
	if last := f.asked[len(f.asked)-1]; last != "map[name:local-2]" {
		t.Errorf("asked for %v", last)
	}

	// A login that failed leaves the old one.
	t.Setenv(envPassword, "wrong")
	f.must(exitDenied, "Check the user", "", "login")
	f.must(0, "", "", "images", "list")

	f.must(0, "", "", "logout")
	f.must(exitUsage, "imgferry login", "", "uploads", "--region", "local-1")
	f.must(0, "was not logged in", "", "logout")
}

func TestLoginEnds(t *testing.T) {
	f := newFakeCloud(t)
	t.Setenv(envPassword, alicesPassword)
	settingsFile(t, map[string]string{profile.User: "alice", profile.Domain: "acme", profile.Region: "local-1"})
	f.lifetime = -time.Minute
	f.must(0, "logged in", "", "login")
	for _, command := range [][]string{{"uploads"}, {"images", "list"}} {
		f.must(exitDenied, "the login of profile prod ended", "", command...)
		f.must(exitDenied, "run imgferry login\n", "", command...)
	}
	f.must(0, "ended", "", "config", "show")
	f.lifetime = time.Hour
	f.must(0, "logged in", "", "login")
	f.must(0, "", "", "uploads")

	// It is good for what it was made for.
	f.must(exitDenied, `is for the region "local-1", not "other" (from --region): run imgferry login`, "", "uploads", "--region", "other")
	t.Setenv(envProject, "other")
	f.must(exitDenied, `is for the project-id "project-1", not "other" (from $HUAWEICLOUD_SDK_PROJECT_ID)`, "", "images", "list")
}

func TestLoginEndsElsewhere(t *testing.T) {
	f := newFakeCloud(t)
	t.Setenv(envPassword, alicesPassword)
	file := settingsFile(t, map[string]string{profile.User: "alice", profile.Domain: "acme", profile.Region: "local-1"})
	if err := file.Set("test", profile.Region, "local-1"); err != nil {
		t.Fatal(err)
	}
	if err := file.Save(); err != nil {
		t.Fatal(err)
	}
	f.must(0, "logged in", "", "login")
	// Another profile is not logged in, and a copy of the file neither.
	f.must(exitUsage, "missing", "", "uploads", "--profile", "test")
	text, err := os.ReadFile(file.Path())
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "other.yaml")
	if err := os.WriteFile(other, text, 0o600); err != nil {
		t.Fatal(err)
	}
	f.must(exitUsage, "missing", "", "uploads", "--config", other)
	// Deleting the profile ends its login.
	f.must(0, "", "", "config", "delete", "prod")
	if l, err := file.Login("prod"); l != nil || err != nil {
		t.Errorf("still there: %v, %v", l, err)
	}
}

// Where the identity service gives no temporary keys, the token is still good for the image service.
func TestLoginWithoutKeys(t *testing.T) {
	f := newFakeCloud(t)
	f.noKeys = true
	t.Setenv(envPassword, alicesPassword)
	f.must(0, "there are no temporary keys", "", "login", "--user", "alice", "--domain", "acme", "--region", "local-1")
	f.must(0, "", "", "images", "list")
	f.must(exitUsage, "the identity service gave none at login", "", "uploads")
}

// An access key goes before a login, which is said.
func TestAccessKeyBeforeLogin(t *testing.T) {
	f := newFakeCloud(t)
	t.Setenv(envPassword, alicesPassword)
	t.Setenv(envAK, "ak")
	t.Setenv(envSK, "sk")
	f.must(0, "the access key from $HUAWEICLOUD_SDK_AK goes before the login", "", "login", "--user", "alice", "--domain", "acme", "--region", "local-1")
	f.must(exitDenied, "", "", "uploads")
	if f.keys != 0 || f.tokens != 0 {
		t.Error("the login is used")
	}
}

func TestLoginRefused(t *testing.T) {
	f := newFakeCloud(t)
	who := []string{"login", "--user", "alice", "--domain", "acme", "--region", "local-1"}
	f.must(exitUsage, "--password-stdin", alicesPassword, who...)
	f.must(exitUsage, "the password is empty", "\n", append(who, "--password-stdin")...)
	f.must(exitUsage, "more than one line", "a\nb\n", append(who, "--password-stdin")...)
	f.must(exitUsage, "longer than", strings.Repeat("x", 1<<16), append(who, "--password-stdin")...)
	f.must(exitDenied, "[redacted]", "wrong-password\n", append(who, "--password-stdin")...)
	f.must(exitUsage, "--user", "x", "login", "--password-stdin")
	f.must(exitUsage, "unknown flag", "", append(who, "--password", "x")...)
	if len(f.asked) != 1 {
		t.Errorf("%d requests", len(f.asked))
	}
}

// A password that is about to travel in clear is worth a word, but not on this machine.
func TestPasswordInClear(t *testing.T) {
	f := newFakeCloud(t)
	t.Setenv(envPassword, "x")
	proxy := httptest.NewServer(http.NotFoundHandler()) // nothing really leaves
	defer proxy.Close()
	t.Setenv(envProxy, proxy.URL)
	who := []string{"login", "--user", "alice", "--domain", "acme", "--region", "local-1"}
	if r := f.run("", who...); strings.Contains(r.stderr, "without encryption") {
		t.Errorf("this machine: %s", r.stderr)
	}
	r := f.run("", append(who, "--iam-endpoint", "http://iam.invalid")...)
	if !strings.Contains(r.stderr, "warning: the password goes to iam.invalid without encryption") {
		t.Errorf("elsewhere: %s", r.stderr)
	}
}

// The sandbox's identity service is another program's work: a push needs nothing but the login.
func TestLoginToSandbox(t *testing.T) {
	clearSettings(t)
	box, err := sandbox.Start(t.Context(), sandbox.Config{DataDir: filepath.Join(t.TempDir(), "data"), User: "alice", Password: alicesPassword})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeSandbox(box) })
	settingsFile(t, map[string]string{
		profile.OBSEndpoint: box.StoreEndpoint(), profile.IMSEndpoint: box.ImageEndpoint(), profile.IAMEndpoint: box.ImageEndpoint(),
		profile.Region: box.Region(), profile.Bucket: box.Bucket(), profile.User: "alice", profile.Domain: sandbox.Domain,
	})
	disk := filepath.Join("..", "..", "testdata", "linux.qcow2")
	if r := imgferry(t, "", "push", disk); r.code != exitUsage || !strings.Contains(r.stderr, "imgferry login") {
		t.Errorf("before: %d %s", r.code, r.stderr)
	}
	if r := imgferry(t, "not it\n", "login", "--password-stdin"); r.code != exitDenied {
		t.Errorf("wrong password: %d %s", r.code, r.stderr)
	}
	if r := imgferry(t, alicesPassword+"\n", "login", "--password-stdin"); r.code != 0 {
		t.Fatalf("login: %d %s", r.code, r.stderr)
	}
	r := imgferry(t, "", "push", disk)
	if r.code != 0 {
		t.Fatalf("push: %d %s", r.code, r.stderr)
	}
	if list := imgferry(t, "", "images", "list"); list.code != 0 || !strings.Contains(list.stdout, strings.TrimSpace(r.stdout)) {
		t.Errorf("%s is not among %s%s", r.stdout, list.stdout, list.stderr)
	}
}
