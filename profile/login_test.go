package profile_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"imgferry/profile"
)

func TestLogin(t *testing.T) {
	state := t.TempDir()
	t.Setenv("XDG_STATE_HOME", state)
	dir := t.TempDir()
	f, other := load(t, filepath.Join(dir, "a.yaml")), load(t, filepath.Join(dir, "b.yaml"))
	if l, err := f.Login("prod"); l != nil || err != nil {
		t.Fatalf("before: %v, %v", l, err)
	}
	ends := time.Date(2030, 1, 2, 3, 4, 5, 6000, time.UTC)
	want := profile.Login{
		Bound: map[string]string{profile.Region: "r", profile.User: "alice"},
		Token: "the-token", Expires: ends.Add(time.Hour),
		AccessKey: "ak", SecretKey: "the-sk", SecurityToken: "the-st", KeysExpire: ends,
	}
	check(t, f.SaveLogin("prod", want))
	got, err := f.Login("prod")
	if err != nil || !reflect.DeepEqual(*got, want) || !got.Ends().Equal(ends) {
		t.Fatalf("got %+v, %v", got, err)
	}
	without := profile.Login{Token: "the-token", Expires: ends}
	if !without.Ends().Equal(ends) {
		t.Error("a login without keys ends with them")
	}
	if l, err := other.Login("prod"); l != nil || err != nil {
		t.Errorf("the profile of another file has the login: %v, %v", l, err)
	}
	if l, err := f.Login("Prod"); l != nil || err != nil {
		t.Errorf("another profile has the login: %v, %v", l, err)
	}
	files, err := filepath.Glob(filepath.Join(state, "imgferry", "logins", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("stored: %v, %v", files, err)
	}
	if st, err := os.Stat(files[0]); err != nil || st.Mode().Perm()&0o177 != 0 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}

	// A file that was copied is not this profile's.
	text, err := os.ReadFile(files[0])
	check(t, err)
	check(t, os.WriteFile(files[0], []byte(strings.Replace(string(text), `"prod"`, `"prow"`, 1)), 0o600))
	if l, err := f.Login("prod"); l != nil || err != nil {
		t.Errorf("another's login is taken: %v, %v", l, err)
	}
	for _, bad := range []string{"", "the-token", "{}", `{"token":1}`} {
		check(t, os.WriteFile(files[0], []byte(bad), 0o600))
		if _, err := f.Login("prod"); !errors.Is(err, profile.ErrFile) || strings.Contains(err.Error(), "the-token") {
			t.Errorf("%q: %v", bad, err)
		}
	}

	if was, err := f.DeleteLogin("prod"); !was || err != nil {
		t.Errorf("delete: %v, %v", was, err)
	}
	if was, err := f.DeleteLogin("prod"); was || err != nil {
		t.Errorf("delete again: %v, %v", was, err)
	}
}

func TestSecretsStayHidden(t *testing.T) {
	const secret = "the-secret"
	l := profile.Login{Token: secret, SecretKey: secret, SecurityToken: secret}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "login", l, "token", l.Token)
	asJSON, err := json.Marshal(l)
	check(t, err)
	text := log.String() + string(asJSON)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		text += fmt.Sprintf(verb+verb+verb, l, &l, l.Token)
	}
	for _, shown := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), fmt.Sprint([]byte(secret))} {
		if strings.Contains(text, shown) {
			t.Errorf("%q is in %s", shown, text)
		}
	}
	if profile.Secret(secret).Reveal() != secret || profile.Secret("").String() != "" {
		t.Error("Reveal or String")
	}
}
