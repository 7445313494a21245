package profile_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"imgferry/profile"
)

func load(t *testing.T, path string) *profile.File {
	t.Helper()
	f, err := profile.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// written makes a settings file with mode 0600.
func written(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func Example() {
	dir, err := os.MkdirTemp("", "profile")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	f, err := profile.Load(filepath.Join(dir, "config.yaml"))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, s := range [][2]string{{profile.Region, "cn-north-4"}, {profile.SecretKey, "the-secret"}} {
		if err := f.Set(f.Current(), s[0], s[1]); err != nil {
			fmt.Println(err)
			return
		}
	}
	if err := f.Save(); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(f.Current(), f.Get("default", profile.Region), profile.IsSecret(profile.SecretKey, "the-secret"))
	fmt.Println(f.Set("default", "regoin", "x") != nil)
	// Output:
	// default cn-north-4 true
	// true
}

func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "folder", "config.yaml")
	f := load(t, path)
	if f.Exists() || f.Current() != "default" || len(f.Names()) != 0 || f.Has("default") || f.Get("default", profile.Region) != "" {
		t.Error("a file that is not there is not empty")
	}
	values := map[string]string{
		profile.Region: "cn-north-4", profile.ProjectID: "0123", profile.Bucket: "yes", profile.AccessKey: "1e5",
		profile.SecretKey: `a"b'c:#\{}`, profile.User: "null", profile.Domain: "ünïcode domain", profile.CAFile: " /a b ",
		profile.Proxy: "http://u:p@proxy:3128", profile.SecurityToken: strings.Repeat("x", 5000),
	}
	for key, v := range values {
		check(t, f.Set("prod", key, v))
	}
	check(t, f.Set("test.2", profile.Region, "local-1"))
	check(t, f.Save())
	g := load(t, path)
	for key, v := range values {
		if got := g.Get("prod", key); got != v {
			t.Errorf("%s: wrote %q, read %q", key, v, got)
		}
	}
	if !g.Exists() || g.Current() != "prod" || !reflect.DeepEqual(g.Names(), []string{"prod", "test.2"}) {
		t.Errorf("read back: current %q of %q", g.Current(), g.Names())
	}
	if runtime.GOOS != "windows" {
		st, err := os.Stat(path)
		check(t, err)
		if st.Mode() != 0o600 {
			t.Errorf("the mode is %v", st.Mode())
		}
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("left beside the file: %v", left)
	}

	check(t, g.Use("test.2"))
	was, err := g.Unset("test.2", profile.Region)
	if !was || err != nil {
		t.Errorf("unset: %v, %v", was, err)
	}
	if was, err := g.Unset("test.2", profile.Region); was || err != nil {
		t.Errorf("unset again: %v, %v", was, err)
	}
	check(t, g.Save())
	g = load(t, path)
	if g.Current() != "test.2" || g.Get("test.2", profile.Region) != "" || !g.Has("test.2") {
		t.Error("use and unset are lost")
	}
	check(t, g.Delete("test.2"))
	check(t, g.Delete("prod"))
	if g.Current() != "default" || len(g.Names()) != 0 {
		t.Errorf("after deleting all: current %q of %q", g.Current(), g.Names())
	}
	check(t, g.Set("again", profile.Region, "r"))
	check(t, g.Save())
	text, err := os.ReadFile(path)
	check(t, err)
	if want := "profiles:\n  again:\n    region: r\n"; !strings.Contains(string(text), want) {
		t.Errorf("got %q, want %q in it", text, want)
	}
	for name, err := range map[string]error{"use": g.Use("no"), "delete": g.Delete("no"), "require": g.Require("no")} {
		if !errors.Is(err, profile.ErrNoProfile) || !strings.Contains(err.Error(), "again") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := g.Unset("no", profile.Region); !errors.Is(err, profile.ErrNoProfile) {
		t.Errorf("unset: %v", err)
	}
}

// What a user wrote by hand stays as it is.
func TestCommentsStay(t *testing.T) {
	path := written(t, `# my clouds
current: b # the usual one
profiles:
  # the other one
  b:
    region: cn-north-4 # Beijing
    bucket: old
  a:
`)
	f := load(t, path)
	check(t, f.Set("b", profile.Bucket, "new"))
	check(t, f.Set("a", profile.Region, "r"))
	check(t, f.Save())
	text, err := os.ReadFile(path)
	check(t, err)
	want := `# my clouds
current: b # the usual one
profiles:
  # the other one
  b:
    region: cn-north-4 # Beijing
    bucket: new
  a:
    region: r
`
	if string(text) != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
}

func TestLinkStays(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links need rights there")
	}
	target := written(t, "profiles: {}\n")
	link := filepath.Join(t.TempDir(), "config.yaml")
	check(t, os.Symlink(target, link))
	f := load(t, link)
	check(t, f.Set("a", profile.Region, "r"))
	check(t, f.Save())
	if st, err := os.Lstat(link); err != nil || st.Mode().Type() != os.ModeSymlink {
		t.Errorf("the link is gone: %v, %v", st, err)
	}
	if got := load(t, target).Get("a", profile.Region); got != "r" {
		t.Errorf("the target has %q", got)
	}
}

func TestMalformed(t *testing.T) {
	for text, says := range map[string]string{
		"a":                                     "KEY: VALUE",
		"[]":                                    "KEY: VALUE",
		"profile: {}":                           `neither "current"`,
		"current: [a]":                          "not a name",
		"current: ../a":                         "can't name a profile",
		"profiles: [a]":                         "KEY: VALUE",
		"profiles:\n  a: b":                     "line 2",
		"profiles:\n  ../a: {}":                 "can't name a profile",
		"profiles:\n  a:\n    regoin: x":        "line 3",
		"profiles:\n  a:\n    region: [x]":      "plain value",
		"profiles:\n  a: {}\n  a: {}":           "twice",
		"profiles:\n  a:\n    sk: a\n    sk: b": "twice",
		"profiles:\n  a:\n    sk: *the-secret":  "quotes",
		"profiles:\n  a:\n    sk: \"the-secret": "line",
		"profiles:\n  a: &x {}\n  b: *x":        "KEY: VALUE",
		"profiles: {}\n---\nprofiles: {}":       "more than one",
		"\tprofiles:":                           "cannot start",
		"profiles: {a: {sk: {the-secret: 1}}}":  "plain value",
		"? [a]\n: b":                            "plain word",
		strings.Repeat("#", 4<<20+1):            "longer",
	} {
		_, err := profile.Load(written(t, text))
		if !errors.Is(err, profile.ErrFile) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "config.yaml") {
			t.Errorf("%.60q: %v, want %q in it", text, err, says)
		}
		if err != nil && strings.Contains(err.Error(), "the-secret") {
			t.Errorf("%.60q: the secret is in %q", text, err)
		}
	}
	for _, text := range []string{"", "# nothing\n", "profiles:\n", "profiles: {}", "current:\n", "profiles:\n  a:\n", "---\n", "null"} {
		f, err := profile.Load(written(t, text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		check(t, f.Set("a", profile.Region, "r"))
		check(t, f.Save())
		if got := load(t, f.Path()).Get("a", profile.Region); got != "r" {
			t.Errorf("%q: wrote r, read %q", text, got)
		}
	}
	if _, err := profile.Load(t.TempDir()); err == nil {
		t.Error("a folder is taken for a file")
	}
}

func TestExposed(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes mean nothing there")
	}
	for _, test := range []struct {
		text    string
		mode    os.FileMode
		exposed bool
	}{
		{"profiles: {a: {sk: x}}", 0o600, false},
		{"profiles: {a: {sk: x}}", 0o640, true},
		{"profiles: {a: {sk: x}}", 0o604, true},
		{"profiles: {a: {proxy: 'http://u:p@h'}}", 0o644, true},
		{"profiles: {a: {ak: x, region: r, proxy: 'http://h'}}", 0o644, false},
	} {
		path := written(t, test.text)
		check(t, os.Chmod(path, test.mode))
		f := load(t, path)
		if f.Exposed() != test.exposed {
			t.Errorf("%s with %o: %v", test.text, test.mode, f.Exposed())
		}
		check(t, f.Save())
		if st, _ := os.Stat(path); f.Exposed() || st.Mode() != 0o600 {
			t.Errorf("saved with %o", st.Mode())
		}
	}
}

func TestPath(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(home, "c"))
	if got, err := profile.Path(); err != nil || got != filepath.Join(home, "c", "imgferry", "config.yaml") {
		t.Errorf("got %q, %v", got, err)
	}
	if runtime.GOOS != "linux" {
		return
	}
	for _, xdg := range []string{"", "relative"} {
		t.Setenv("XDG_CONFIG_HOME", xdg)
		if got, err := profile.Path(); err != nil || got != filepath.Join(home, ".config", "imgferry", "config.yaml") {
			t.Errorf("XDG_CONFIG_HOME=%q: got %q, %v", xdg, got, err)
		}
	}
	t.Setenv("HOME", "")
	if got, err := profile.Path(); err == nil {
		t.Errorf("without a home: %q", got)
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		key, value string
		ok         bool
	}{
		{"nope", "x", false}, {profile.Region, "", false}, {profile.Region, "cn-north-4", true}, {profile.Region, "a.b", false},
		{profile.Bucket, "a\nb", false}, {profile.Bucket, strings.Repeat("x", 32<<10+1), false},
		{profile.OBSEndpoint, "obs.example.com", true}, {profile.OBSEndpoint, "http://127.0.0.1:9820/", true},
		{profile.OBSEndpoint, "ftp://x", false}, {profile.OBSEndpoint, "https://u:the-secret@x", false},
		{profile.OBSEndpoint, "https://x/path", false}, {profile.OBSEndpoint, "https://x?", false}, {profile.OBSEndpoint, "https://:80", false},
		{profile.SecretKey, "a b", false}, {profile.SecretKey, "the-sécret", false}, {profile.SecurityToken, "a/b+c==", true},
		{profile.Proxy, "proxy:3128", true}, {profile.Proxy, "socks5://proxy:1080", true}, {profile.Proxy, "none", true},
		{profile.Proxy, "http://u:the-secret@:3128", false}, {profile.Proxy, "gopher://x", false},
		{profile.AddressingStyle, "path", true}, {profile.AddressingStyle, "virtual-host", true}, {profile.AddressingStyle, "dns", false},
		{profile.User, "a b", true}, {profile.User, "a\x1b[2J", false},
	} {
		err := profile.Check(c.key, c.value)
		if (err == nil) != c.ok || err != nil && strings.Contains(err.Error(), "the-s") {
			t.Errorf("%s = %.40q: %v", c.key, c.value, err)
		}
	}
}

func TestNames(t *testing.T) {
	for _, good := range []string{"a", "A-b_c.9", strings.Repeat("x", 64)} {
		check(t, profile.CheckName(good))
	}
	f := load(t, filepath.Join(t.TempDir(), "c"))
	for _, bad := range []string{"", ".", "-a", ".a", "a/b", `a\b`, "a b", "ä", strings.Repeat("x", 65)} {
		if f.Set(bad, profile.Region, "r") == nil || f.SaveLogin(bad, profile.Login{}) == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
