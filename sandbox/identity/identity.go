// Package identity is the sandbox's identity service: one account that may log in by password, its tokens
// and its temporary keys, and the check of who sent a request.
//
// Nothing that it issues is kept. A token carries what it stands for, under a seal that only the account's
// own secrets can make; so tokens and temporary keys outlive a restart with the same account, end at once
// with another one, and a million of them need no memory.
//
// It knows neither images nor objects, and has no users, groups or roles to manage.
package identity

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"imgferry/ims"
)

const (
	// tokenLife is how long a token is valid (image service reference, 3.2).
	tokenLife = 24 * time.Hour
	// maxToken is the longest token that is looked at, in bytes. Ours have under 300.
	maxToken = 4 << 10
	// temporaryPrefix begins the access keys of temporary pairs, so that people can tell them from others.
	temporaryPrefix = "TEMP"
)

// Why a caller is refused, for errors.Is.
var (
	ErrUnknownKey = errors.New("the access key does not exist")
	ErrToken      = errors.New("the token is not valid")
	ErrExpired    = errors.New("the token has expired")
)

// Account is the one account. All fields are required.
type Account struct {
	// AccessKey and SecretKey sign requests, for ever.
	AccessKey, SecretKey string
	// User, Password and Domain log in. The domain is the account's name, and the user's too.
	User, Password, Domain string
	// ProjectID and ProjectName are the project that everything is for unless something else is said. Its
	// name is the region's.
	ProjectID, ProjectName string
	// Others are further projects of the account, by id: their names. They may be none.
	Others map[string]string
}

// projects are all of the account's, its own first, then by id.
func (a Account) projects() []named {
	all := []named{{a.ProjectID, a.ProjectName}}
	for _, id := range slices.Sorted(maps.Keys(a.Others)) {
		all = append(all, named{id, a.Others[id]})
	}
	return all
}

// Service issues tokens and temporary keys and recognises them. It is an http.Handler, safe for concurrent
// use.
type Service struct {
	account Account
	seal    []byte // key of all seals
	now     func() time.Time
	logger  *slog.Logger
	routes  *http.ServeMux
}

// New returns the service of an account. now is the clock, time.Now if nil; logger gets a line for each
// request, nil is silence.
func New(a Account, now func() time.Time, logger *slog.Logger) *Service {
	if now == nil {
		now = time.Now
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	s := &Service{account: a, now: now, logger: logger}
	// A changed password or secret key ends everything that was issued before.
	s.seal = sum([]byte(a.SecretKey), "imgferry sandbox seal", a.AccessKey, a.User, a.Password)
	s.routes = s.table()
	return s
}

// Secret returns the secret of an access key: of the account's own, which goes without a security token, or
// of a temporary one, which needs the token that was issued with it. The error is ErrUnknownKey, ErrToken or
// ErrExpired.
func (s *Service) Secret(accessKey, securityToken string) (string, error) {
	switch {
	case accessKey == s.account.AccessKey && securityToken == "":
		return s.account.SecretKey, nil
	case accessKey == s.account.AccessKey:
		return "", fmt.Errorf("%w: the access key is a permanent one and goes without", ErrToken)
	case securityToken == "":
		return "", ErrUnknownKey
	}
	c, err := s.open(securityToken, temporaryKey)
	if err != nil {
		return "", err
	}
	if c.Subject != accessKey {
		return "", fmt.Errorf("%w: it belongs to another access key", ErrToken)
	}
	return s.temporarySecret(c), nil
}

// Authorize verifies who sent a request whose whole body is body: by X-Auth-Token, else by its signature. It
// returns the project that the caller acts for: a token's own; else what X-Project-Id says, which is not
// looked up here, or "". The error says why the caller is refused, in a clause without secrets.
func (s *Service) Authorize(r *http.Request, body []byte) (project string, err error) {
	project = r.Header.Get("X-Project-Id")
	if token := r.Header.Get("X-Auth-Token"); token != "" {
		c, err := s.open(token, userToken)
		if err == nil && c.Project != "" && project != "" && project != c.Project {
			if _, ours := s.account.Others[project]; ours || project == s.account.ProjectID {
				err = fmt.Errorf("%w: it is for project %s", ErrToken, c.Project)
			}
		}
		return cmp.Or(project, c.Project), err
	}
	var refused error
	_, err = ims.Verify(r, body, func(accessKey string) (secret string, ok bool) {
		secret, refused = s.Secret(accessKey, r.Header.Get("X-Security-Token"))
		return secret, refused == nil
	}, s.now())
	if refused != nil {
		return "", refused
	}
	return project, err
}

// What a sealed token is.
const (
	userToken    = "token"
	temporaryKey = "keys"
)

// claims is what a token stands for.
type claims struct {
	Kind string
	// Subject is the user of a user's token, the access key of a temporary pair.
	Subject string
	// Project is what a user's token is for, "" for the whole domain.
	Project string `json:",omitempty"`
	Expires int64  // Unix time, s
	Nonce   string
}

// issue seals a new token.
func (s *Service) issue(kind, subject, project string, life time.Duration) (token string, c claims) {
	c = claims{Kind: kind, Subject: subject, Project: project, Expires: s.now().Add(life).Unix(), Nonce: rand.Text()}
	p, _ := json.Marshal(c) // strings and numbers always marshal
	text := base64.RawURLEncoding.EncodeToString(p)
	return text + "." + base64.RawURLEncoding.EncodeToString(sum(s.seal, text)), c
}

// open breaks a token's seal. The error is ErrToken or ErrExpired.
func (s *Service) open(token, kind string) (claims, error) {
	var c claims
	text, seal, _ := strings.Cut(token, ".")
	got, err := base64.RawURLEncoding.DecodeString(seal)
	if err != nil || len(token) > maxToken || !hmac.Equal(got, sum(s.seal, text)) {
		return c, ErrToken
	}
	p, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || json.Unmarshal(p, &c) != nil || c.Kind != kind {
		return c, ErrToken
	}
	if s.now().Unix() >= c.Expires {
		return c, ErrExpired
	}
	return c, nil
}

// temporarySecret is the secret key that goes with a temporary access key.
func (s *Service) temporarySecret(c claims) string {
	return base64.RawURLEncoding.EncodeToString(sum(s.seal, "temporary secret", c.Subject, c.Nonce))
}

// sum is the HMAC-SHA256 of fields, each behind its length so that no two lists look alike.
func sum(key []byte, fields ...string) []byte {
	h := hmac.New(sha256.New, key)
	for _, f := range fields {
		fmt.Fprintf(h, "%d\n%s\n", len(f), f)
	}
	return h.Sum(nil)
}
