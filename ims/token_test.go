package ims_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"imgferry/ims"
)

const (
	testPassword = `p<w"\d`
	testToken    = "MIIP-the-token-itself"
)

// identity returns a client of a service that answers with h.
func identity(t *testing.T, h http.HandlerFunc) *ims.Identity {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	id, err := ims.NewIdentity(ims.IdentityConfig{Endpoint: server.URL, RequestTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func sameJSON(t *testing.T, got []byte, want string) {
	t.Helper()
	var a, b any
	if err := json.Unmarshal(got, &a); err != nil {
		t.Fatalf("%s: %v", got, err)
	}
	if err := json.Unmarshal([]byte(want), &b); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("sent %s, want %s", got, want)
	}
}

func TestToken(t *testing.T) {
	for _, project := range []struct {
		login ims.PasswordLogin
		scope string
	}{
		{ims.PasswordLogin{ProjectName: "cn-north-4"}, `{"name":"cn-north-4"}`},
		{ims.PasswordLogin{ProjectName: "cn-north-4", ProjectID: "0b1e"}, `{"id":"0b1e"}`},
	} {
		id := identity(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodPost || r.URL.Path != "/v3/auth/tokens" || r.Header.Get("Content-Type") != "application/json" {
				t.Errorf("%s %s with %q", r.Method, r.URL.Path, r.Header.Get("Content-Type"))
			}
			for _, h := range []string{"Authorization", "X-Auth-Token", "X-Project-Id"} {
				if r.Header.Get(h) != "" {
					t.Errorf("the header %s is sent", h)
				}
			}
			body, _ := io.ReadAll(r.Body)
			sameJSON(t, body, `{"auth":{"identity":{"methods":["password"],"password":{"user":
				{"name":"alice","password":"p<w\"\\d","domain":{"name":"acme"}}}},"scope":{"project":`+project.scope+`}}}`)
			w.Header().Set("X-Subject-Token", testToken)
			w.WriteHeader(http.StatusCreated)
			fmt.Fprint(w, `{"token":{"expires_at":"2030-02-13T06:52:13.855000Z","project":{"id":"0b1e","name":"cn-north-4"},"catalog":[]}}`)
		})
		login := project.login
		login.User, login.Domain, login.Password = "alice", "acme", testPassword
		got, err := id.Token(t.Context(), login)
		if err != nil {
			t.Fatal(err)
		}
		if want := time.Date(2030, 2, 13, 6, 52, 13, 855e6, time.UTC); got.Secret() != testToken || got.ProjectID != "0b1e" || !got.Expires.Equal(want) {
			t.Errorf("got %q, %q, %v", got.Secret(), got.ProjectID, got.Expires)
		}
		if text := fmt.Sprintf("%v %+v %#v", got, got, &got); strings.Contains(text, testToken) {
			t.Errorf("printing shows the token: %s", text)
		}
	}
}

func TestTokenRefused(t *testing.T) {
	for name, test := range map[string]struct {
		answer func(w http.ResponseWriter, body []byte)
		says   string
		denied bool
	}{
		"wrong password": {func(w http.ResponseWriter, _ []byte) {
			w.WriteHeader(http.StatusUnauthorized)
			io.WriteString(w, `{"error":{"code":401,"message":"The username or password is wrong.","title":"Unauthorized"}}`)
		}, "username or password is wrong", true},
		"sends back what it got": {func(w http.ResponseWriter, body []byte) {
			w.WriteHeader(http.StatusBadRequest)
			w.Write(body)
		}, "[redacted]", false},
		"quotes the password": {func(w http.ResponseWriter, _ []byte) {
			w.WriteHeader(http.StatusBadRequest)
			json.NewEncoder(w).Encode(map[string]string{"error_msg": "bad password " + testPassword})
		}, "[redacted]", false},
		"no token": {func(w http.ResponseWriter, _ []byte) {
			w.WriteHeader(http.StatusCreated)
			io.WriteString(w, `{"token":{"expires_at":"2030-02-13T06:52:13Z"}}`)
		}, "X-Subject-Token", false},
		"token that is none": {func(w http.ResponseWriter, _ []byte) {
			w.Header().Set("X-Subject-Token", "a b")
			io.WriteString(w, `{"token":{"expires_at":"2030-02-13T06:52:13Z"}}`)
		}, "X-Subject-Token", false},
		"no end": {func(w http.ResponseWriter, _ []byte) {
			w.Header().Set("X-Subject-Token", testToken)
			io.WriteString(w, `{"token":{}}`)
		}, "when the token expires", false},
		"no JSON": {func(w http.ResponseWriter, _ []byte) { io.WriteString(w, "<html>") }, "can't be read", false},
	} {
		t.Run(name, func(t *testing.T) {
			id := identity(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				test.answer(w, body)
			})
			_, err := id.Token(t.Context(), ims.PasswordLogin{User: "alice", Domain: "acme", Password: testPassword, ProjectName: "local-1"})
			if err == nil || !strings.Contains(err.Error(), test.says) || errors.Is(err, ims.ErrDenied) != test.denied {
				t.Fatalf("got %v", err)
			}
			for _, secret := range []string{testPassword, `p<w\"\\d`, `p\u003cw\"\\d`} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the password is in %q", err)
				}
			}
		})
	}
	id := identity(t, func(http.ResponseWriter, *http.Request) { t.Error("sent") })
	for _, l := range []ims.PasswordLogin{
		{User: "a", Domain: "b", ProjectName: "c"}, {User: "a", Password: "b", ProjectName: "c"},
		{Domain: "a", Password: "b", ProjectName: "c"}, {User: "a", Domain: "b", Password: "c"},
	} {
		if _, err := id.Token(t.Context(), l); err == nil {
			t.Errorf("%+v is taken", l)
		}
	}
}

// A token that did not come is asked for again: no harm is done by having two.
func TestTokenAgain(t *testing.T) {
	var n atomic.Int64
	id := identity(t, func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 1 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		w.Header().Set("X-Subject-Token", testToken)
		io.WriteString(w, `{"token":{"expires_at":"2030-02-13T06:52:13Z"}}`)
	})
	_, err := id.Token(t.Context(), ims.PasswordLogin{User: "alice", Domain: "acme", Password: testPassword, ProjectName: "local-1"})
	if err != nil || n.Load() != 2 {
		t.Errorf("%d requests, %v", n.Load(), err)
	}
}

func TestKeys(t *testing.T) {
	token := ims.IssuedToken{Secret: func() string { return testToken }}
	id := identity(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != "/v3.0/OS-CREDENTIAL/securitytokens" || r.Header.Get("X-Auth-Token") != testToken {
			t.Errorf("%s %s, token %q", r.Method, r.URL.Path, r.Header.Get("X-Auth-Token"))
		}
		body, _ := io.ReadAll(r.Body)
		sameJSON(t, body, `{"auth":{"identity":{"methods":["token"],"token":{"duration_seconds":86400}}}}`)
		w.WriteHeader(http.StatusCreated)
		io.WriteString(w, `{"credential":{"access":"ak","secret":"the-secret","securitytoken":"the-st","expires_at":"2030-01-08T02:56:19.587000Z"}}`)
	})
	keys, err := id.Keys(t.Context(), token, ims.MaxKeysLifetime)
	if err != nil {
		t.Fatal(err)
	}
	secret, st := keys.Secrets()
	if keys.AccessKey != "ak" || secret != "the-secret" || st != "the-st" || keys.Expires.Year() != 2030 {
		t.Errorf("got %q, %q, %q, %v", keys.AccessKey, secret, st, keys.Expires)
	}
	if text := fmt.Sprintf("%v %+v %#v", keys, keys, &keys); strings.Contains(text, "the-s") {
		t.Errorf("printing shows a secret: %s", text)
	}
	for _, d := range []time.Duration{0, ims.MinKeysLifetime - 1, ims.MaxKeysLifetime + 1} {
		if _, err := id.Keys(t.Context(), token, d); err == nil {
			t.Errorf("a lifetime of %v is taken", d)
		}
	}
}

func TestKeysRefused(t *testing.T) {
	token := ims.IssuedToken{Secret: func() string { return testToken }}
	for _, body := range []string{
		`{"credential":{"access":"ak","secret":"the-secret","securitytoken":"the-st"}}`,
		`{"credential":{"access":"ak","secret":"the-secret","expires_at":"2030-01-08T02:56:19Z"}}`,
		`{"credential":{"secret":"the-secret","securitytoken":"the-st","expires_at":"2030-01-08T02:56:19Z"}}`,
		`{"credential":{"secret":"the-secret"`, ``, `[]`,
	} {
		id := identity(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) })
		_, err := id.Keys(t.Context(), token, time.Hour)
		if err == nil || strings.Contains(err.Error(), "the-secret") || !strings.Contains(err.Error(), "no usable keys") {
			t.Errorf("%s: %v", body, err)
		}
	}
	id := identity(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, "unknown token "+testToken)
	})
	if _, err := id.Keys(t.Context(), token, time.Hour); !errors.Is(err, ims.ErrDenied) || strings.Contains(err.Error(), testToken) {
		t.Errorf("got %v", err)
	}
}

func TestNewIdentity(t *testing.T) {
	for _, endpoint := range []string{"ftp://iam", "https://", "https://user:the-secret@iam", "https://iam/v3", ""} {
		if _, err := ims.NewIdentity(ims.IdentityConfig{Endpoint: endpoint}); err == nil || strings.Contains(err.Error(), "the-secret") {
			t.Errorf("%q: %v", endpoint, err)
		}
	}
	if _, err := ims.NewIdentity(ims.IdentityConfig{Region: "cn-north-4"}); err != nil {
		t.Error(err)
	}
}
