package identity_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"imgferry/ims"
	"imgferry/sandbox/identity"
)

var account = identity.Account{
	AccessKey: "AK", SecretKey: "SECRETSECRET", User: "alice", Password: "correct horse", Domain: "acme",
	ProjectID: "5a9db0c500000000000000000000c10d", ProjectName: "region-1",
}

// clock is a clock that tests move.
type clock struct{ now time.Time }

func (c *clock) service(a identity.Account) *identity.Service {
	return identity.New(a, func() time.Time { return c.now }, nil)
}

// send sends a request and returns the answer's status, token and body.
func send(s http.Handler, method, path, body string, header ...string) (status int, token string, answer map[string]any) {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if json.Unmarshal(w.Body.Bytes(), &answer) != nil {
		answer = map[string]any{"no json": w.Body.String()}
	}
	return w.Code, w.Header().Get("X-Subject-Token"), answer
}

const login = `{"auth":{"identity":{"methods":["password"],"password":{"user":{"name":"alice","password":"correct horse","domain":{"name":"acme"}}}},"scope":{"project":{"name":"region-1"}}}}`

func TestLogin(t *testing.T) {
	c := &clock{time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	s := c.service(account)
	status, token, answer := send(s, "POST", "/v3/auth/tokens?nocatalog=true", login)
	got := fmt.Sprint(answer)
	if status != 201 || token == "" {
		t.Fatal(status, got)
	}
	for _, want := range []string{"expires_at:2026-01-03T03:04:05.000000Z", "issued_at:2026-01-02T03:04:05.000000Z", account.ProjectID, "name:alice", "methods:[password]"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s lacks %s", got, want)
		}
	}
	// The variants that the reference and other clients send.
	for name, change := range map[string][2]string{
		"no domain (image service reference, 3.1)": {`,"domain":{"name":"acme"}`, ``}, "project by id": {`"name":"region-1"`, `"id":"` + account.ProjectID + `"`},
		"domain scope": {`"project":{"name":"region-1"}`, `"domain":{"name":"acme"}`}, "no scope": {`,"scope":{"project":{"name":"region-1"}}`, ``},
	} {
		if status, token, answer := send(s, "POST", "/v3/auth/tokens", strings.Replace(login, change[0], change[1], 1)); status != 201 || token == "" {
			t.Errorf("%s: %d %v", name, status, answer)
		}
	}
	for name, c := range map[string]struct {
		old, new string
		status   int
	}{
		"password": {"correct horse", "wrong", 401}, "user": {`"alice"`, `"bob"`, 401}, "domain": {`{"name":"acme"}`, `{"name":"other"}`, 401},
		"project": {`"region-1"`, `"region-2"`, 401}, "no password": {`"correct horse"`, `""`, 400}, "no user": {`"alice"`, `""`, 400},
		"method": {`["password"]`, `["password","totp"]`, 400}, "no json": {`{"auth"`, `{auth`, 400}, "type": {`"alice"`, `7`, 400},
	} {
		status, token, answer := send(s, "POST", "/v3/auth/tokens", strings.Replace(login, c.old, c.new, 1))
		e, _ := answer["error"].(map[string]any)
		if status != c.status || token != "" || e["code"] != float64(c.status) || e["message"] == "" || e["title"] != http.StatusText(c.status) || strings.Contains(fmt.Sprint(answer), "horse") {
			t.Errorf("%s: %d %v", name, status, answer)
		}
	}
	for path, method := range map[string]string{"/v3/users": "GET", "/v3/auth/tokens": "DELETE"} {
		if status, _, answer := send(s, method, path, ""); status != 404 || answer["error"] == nil {
			t.Errorf("%s %s: %d %v", method, path, status, answer)
		}
	}
	if status, _, _ := send(s, "POST", "/v3/auth/tokens", strings.Repeat(" ", 65<<10)); status != 400 {
		t.Errorf("a huge login: %d", status)
	}
}

// TestTokens uses a token until it expires, and forged ones.
func TestTokens(t *testing.T) {
	c := &clock{time.Now()}
	s := c.service(account)
	authorize := func(s *identity.Service, token string) error {
		r := httptest.NewRequest("GET", "/v2/cloudimages", nil)
		r.Header.Set("X-Auth-Token", token)
		_, err := s.Authorize(r, nil)
		return err
	}
	_, token, _ := send(s, "POST", "/v3/auth/tokens", login)
	changed := account
	changed.Password = "another"
	for name, c := range map[string]struct {
		s     *identity.Service
		token string
		want  error
	}{
		"right": {s, token, nil}, "after a restart": {c.service(account), token, nil}, "after a change of the password": {c.service(changed), token, identity.ErrToken},
		"cut": {s, token[:len(token)-1], identity.ErrToken}, "changed": {s, "A" + token[1:], identity.ErrToken}, "empty parts": {s, ".", identity.ErrToken},
		"long": {s, strings.Repeat("x", 5000), identity.ErrToken}, "no seal": {s, token[:strings.Index(token, ".")], identity.ErrToken},
	} {
		if err := authorize(c.s, c.token); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c.now = c.now.Add(24*time.Hour - time.Second)
	if err := authorize(s, token); err != nil {
		t.Errorf("before its end: %v", err)
	}
	c.now = c.now.Add(time.Second)
	if err := authorize(s, token); !errors.Is(err, identity.ErrExpired) {
		t.Errorf("after its end: %v", err)
	}
	if status, _, answer := send(s, "GET", "/v3/projects", "", "X-Auth-Token", token); status != 401 {
		t.Errorf("%d %v", status, answer)
	}
	_, token, _ = send(s, "POST", "/v3/auth/tokens", login)
	for query, count := range map[string]int{"": 1, "?name=region-1": 1, "?name=region-2": 0} {
		status, _, answer := send(s, "GET", "/v3/projects"+query, "", "X-Auth-Token", token)
		found, _ := answer["projects"].([]any)
		if status != 200 || len(found) != count || count > 0 && found[0].(map[string]any)["id"] != account.ProjectID {
			t.Errorf("%s: %d %v", query, status, answer)
		}
	}
}

// TestTemporaryKeys gets keys for a token and signs with them.
func TestTemporaryKeys(t *testing.T) {
	c := &clock{time.Now()}
	s := c.service(account)
	_, token, _ := send(s, "POST", "/v3/auth/tokens", login)
	const path = "/v3.0/OS-CREDENTIAL/securitytokens"
	ask := func(id string) string {
		return `{"auth":{"identity":{"methods":["token"],"token":{"id":"` + id + `","duration_seconds":1000}}}}`
	}
	status, _, answer := send(s, "POST", path, ask(token))
	k, _ := answer["credential"].(map[string]any)
	if status != 201 || k["expires_at"] != c.now.Add(1000*time.Second).UTC().Truncate(time.Second).Format("2006-01-02T15:04:05.000000Z") {
		t.Fatal(status, answer)
	}
	access, secret, security := k["access"].(string), k["secret"].(string), k["securitytoken"].(string)
	signed := func(access, secret, security string) error {
		r := httptest.NewRequest("GET", "/v2/cloudimages", nil)
		if err := ims.AccessKey(access, secret, security).Sign(r, nil, c.now); err != nil {
			t.Fatal(err)
		}
		_, err := s.Authorize(r, nil)
		return err
	}
	if err := errors.Join(signed(access, secret, security), signed(account.AccessKey, account.SecretKey, "")); err != nil {
		t.Error(err)
	}
	_, _, other := send(s, "POST", path, `{"auth":{"identity":{"methods":["token"]}}}`, "X-Auth-Token", token)
	k, _ = other["credential"].(map[string]any)
	for name, c := range map[string]struct {
		err, want error
	}{
		"without the token":         {signed(access, secret, ""), identity.ErrUnknownKey},
		"another pair's token":      {signed(access, secret, k["securitytoken"].(string)), identity.ErrToken},
		"a user's token":            {signed(access, secret, token), identity.ErrToken},
		"permanent key with one":    {signed(account.AccessKey, account.SecretKey, security), identity.ErrToken},
		"unknown key without token": {signed("nobody", secret, ""), identity.ErrUnknownKey},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v", name, c.err)
		}
	}
	if err := signed(access, "wrong", security); err == nil {
		t.Error("a wrong secret is taken")
	}
	for name, body := range map[string]string{
		"short": strings.Replace(ask(token), "1000", "899", 1), "long": strings.Replace(ask(token), "1000", "86401", 1), "no json": "{",
		"method": strings.Replace(ask(token), "token", "assume_role", 1),
	} {
		if status, _, answer := send(s, "POST", path, body); status != 400 {
			t.Errorf("%s: %d %v", name, status, answer)
		}
	}
	for _, id := range []string{"", "x", security} {
		if status, _, answer := send(s, "POST", path, ask(id)); status != 401 {
			t.Errorf("token %.10q: %d %v", id, status, answer)
		}
	}
	c.now = c.now.Add(1000 * time.Second)
	if err := signed(access, secret, security); !errors.Is(err, identity.ErrExpired) {
		t.Errorf("after their end: %v", err)
	}
}

func Example() {
	s := identity.New(account, nil, nil)
	status, token, _ := send(s, "POST", "/v3/auth/tokens", login)
	r := httptest.NewRequest("GET", "/v2/cloudimages", nil)
	r.Header.Set("X-Auth-Token", token)
	_, err := s.Authorize(r, nil)
	fmt.Println(status, err)
	r.Header.Set("X-Auth-Token", "forged")
	_, err = s.Authorize(r, nil)
	fmt.Println(err)
	// Output:
	// 201 <nil>
	// the token is not valid
}
