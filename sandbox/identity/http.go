package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	// maxBody is the longest request taken, in bytes: a login has under 1 KiB.
	maxBody = 64 << 10
	// bodyTimeout is how long a client may take to send it.
	bodyTimeout = 30 * time.Second
	// timeFormat is how the identity service writes times.
	timeFormat = "2006-01-02T15:04:05.000000Z"
)

// Temporary keys live 15 minutes unless the client wants something else, up to 24 hours (IAM API reference,
// "Obtaining a Temporary Access Key and Security Token Through a Token"). Seconds.
const (
	minKeyLife = 15 * 60
	maxKeyLife = 24 * 60 * 60
)

// Serves reports whether a path is one of the service's.
func Serves(path string) bool {
	return strings.HasPrefix(path, "/v3/") || strings.HasPrefix(path, "/v3.0/")
}

func (s *Service) table() *http.ServeMux {
	m := http.NewServeMux()
	m.HandleFunc("POST /v3/auth/tokens", s.handle(s.login))
	m.HandleFunc("POST /v3.0/OS-CREDENTIAL/securitytokens", s.handle(s.temporary))
	m.HandleFunc("GET /v3/projects", s.handle(s.projects))
	m.HandleFunc("/", s.handle(func(*request) (int, any, error) {
		return 0, nil, &refusal{http.StatusNotFound, "The API does not exist."}
	}))
	return m
}

// ServeHTTP answers one request.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.routes.ServeHTTP(w, r) }

// request is a request and its whole body.
type request struct {
	*http.Request
	body   []byte
	header http.Header // of the answer
}

// refusal is an answer that is an error.
type refusal struct {
	status  int
	message string
}

func (e *refusal) Error() string { return e.message }

func bad(format string, args ...any) error {
	return &refusal{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// handle makes an http handler of f, which gets all of the body and returns status and answer.
func (s *Service) handle(f func(*request) (int, any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id := rand.Text()
		w.Header().Set("X-Request-Id", id)
		status, answer, err := s.answer(w, r, f)
		if err != nil {
			e := &refusal{http.StatusInternalServerError, err.Error()}
			errors.As(err, &e)
			status, answer = e.status, errorBody(e)
		}
		s.logger.Info("request", "id", id, "method", r.Method, "path", r.URL.Path, "status", status, "error", err)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(answer) // a client that is gone has no use for an error
	}
}

func (s *Service) answer(w http.ResponseWriter, r *http.Request, f func(*request) (int, any, error)) (int, any, error) {
	// Fails only where deadlines are unknown. The server moves it for the connection's next request.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return 0, nil, bad("The body is too long or broke off.")
	}
	return f(&request{r, body, w.Header()})
}

// errorBody is the body of a refusal as the identity service words it.
func errorBody(e *refusal) any {
	return map[string]any{"error": map[string]any{"code": e.status, "message": e.message, "title": http.StatusText(e.status)}}
}

func (r *request) decode(v any) error {
	if err := json.Unmarshal(r.body, v); err != nil {
		return bad("The request body is no valid JSON: %s.", err)
	}
	return nil
}

// named is a thing with a name and an id.
type named struct {
	ID   string `json:"id,omitempty"`
	Name string `json:"name,omitempty"`
}

// is reports whether what a client says fits the id and the name; what it leaves out fits.
func (n named) is(id, name string) bool {
	return (n.ID == "" || n.ID == id) && (n.Name == "" || n.Name == name)
}

// login is POST /v3/auth/tokens, by password.
func (s *Service) login(r *request) (int, any, error) {
	var q struct {
		Auth struct {
			Identity struct {
				Methods  []string
				Password struct {
					User struct {
						named
						Password string
						Domain   named
					}
				}
			}
			Scope struct {
				Project *struct {
					named
					Domain named
				}
				Domain *named
			}
		}
	}
	if err := r.decode(&q); err != nil {
		return 0, nil, err
	}
	if m := q.Auth.Identity.Methods; !slices.Equal(m, []string{"password"}) {
		return 0, nil, bad("The methods %.100q are not served here, only password.", m)
	}
	a, user := s.account, q.Auth.Identity.Password.User
	if user.Name == "" && user.ID == "" || user.Password == "" {
		return 0, nil, bad("The user or its password is missing.")
	}
	// Both are compared, whatever the first says, and in the same time.
	known := user.is(s.id("user", a.User), a.User) && user.Domain.is(s.id("domain", a.Domain), a.Domain)
	if !same(user.Password, a.Password) || !known {
		return 0, nil, &refusal{http.StatusUnauthorized, "The username or password is wrong."}
	}
	domain := named{s.id("domain", a.Domain), a.Domain}
	token := map[string]any{
		"methods": []string{"password"}, "catalog": []any{},
		"roles": []named{{ID: "0", Name: "te_admin"}},
		"user":  map[string]any{"id": s.id("user", a.User), "name": a.User, "domain": domain, "password_expires_at": ""},
	}
	project := ""
	switch scope := q.Auth.Scope; {
	case scope.Project != nil:
		at := slices.IndexFunc(a.projects(), func(p named) bool { return scope.Project.is(p.ID, p.Name) })
		if at < 0 || !scope.Project.Domain.is(domain.ID, domain.Name) {
			return 0, nil, &refusal{http.StatusUnauthorized, "The project of the scope does not exist."}
		}
		p := a.projects()[at]
		project = p.ID
		token["project"] = map[string]any{"id": p.ID, "name": p.Name, "domain": domain}
	case scope.Domain != nil && !scope.Domain.is(domain.ID, domain.Name):
		return 0, nil, &refusal{http.StatusUnauthorized, "The domain of the scope does not exist."}
	default:
		token["domain"] = domain
	}
	text, c := s.issue(userToken, a.User, project, tokenLife)
	token["issued_at"], token["expires_at"] = s.now().UTC().Format(timeFormat), expiry(c)
	r.header.Set("X-Subject-Token", text)
	return http.StatusCreated, map[string]any{"token": token}, nil
}

// temporary is POST /v3.0/OS-CREDENTIAL/securitytokens, by token: a temporary AK/SK.
func (s *Service) temporary(r *request) (int, any, error) {
	var q struct {
		Auth struct {
			Identity struct {
				Methods []string
				Token   struct {
					ID       string
					Duration *int64 `json:"duration_seconds"`
				}
			}
		}
	}
	if err := r.decode(&q); err != nil {
		return 0, nil, err
	}
	if m := q.Auth.Identity.Methods; !slices.Equal(m, []string{"token"}) {
		return 0, nil, bad("The methods %.100q are not served here, only token.", m)
	}
	life := int64(minKeyLife)
	if d := q.Auth.Identity.Token.Duration; d != nil {
		if life = *d; life < minKeyLife || life > maxKeyLife {
			return 0, nil, bad("The duration_seconds must be %d to %d.", minKeyLife, maxKeyLife)
		}
	}
	token := q.Auth.Identity.Token.ID
	if token == "" {
		token = r.Header.Get("X-Auth-Token")
	}
	if _, err := s.open(token, userToken); err != nil {
		return 0, nil, denied(err)
	}
	security, c := s.issue(temporaryKey, temporaryPrefix+rand.Text()[:16], "", time.Duration(life)*time.Second)
	return http.StatusCreated, map[string]any{"credential": map[string]string{
		"access": c.Subject, "secret": s.temporarySecret(c), "securitytoken": security, "expires_at": expiry(c),
	}}, nil
}

// projects is GET /v3/projects: all there are, or those that the query names.
func (s *Service) projects(r *request) (int, any, error) {
	if _, err := s.Authorize(r.Request, r.body); err != nil {
		return 0, nil, denied(err)
	}
	type project struct {
		named
		DomainID    string            `json:"domain_id"`
		ParentID    string            `json:"parent_id"`
		Description string            `json:"description"`
		Enabled     bool              `json:"enabled"`
		IsDomain    bool              `json:"is_domain"`
		Links       map[string]string `json:"links"`
	}
	found := []project{}
	a, query := s.account, r.URL.Query()
	domain := s.id("domain", a.Domain)
	for _, p := range a.projects() {
		if (named{query.Get("id"), query.Get("name")}).is(p.ID, p.Name) {
			found = append(found, project{
				named: p, DomainID: domain, ParentID: domain, Enabled: true, Links: map[string]string{"self": "/v3/projects/" + p.ID},
			})
		}
	}
	return http.StatusOK, map[string]any{"projects": found, "links": map[string]string{"self": "/v3/projects"}}, nil
}

func denied(err error) error {
	return &refusal{http.StatusUnauthorized, "The request you have made requires authentication: " + err.Error() + "."}
}

// expiry is when a token ends, as the service writes it.
func expiry(c claims) string { return time.Unix(c.Expires, 0).UTC().Format(timeFormat) }

// id is the id of a thing that has only a name.
func (s *Service) id(kind, name string) string { return fmt.Sprintf("%x", sum(nil, kind, name)[:16]) }

// same compares two secrets in a time that tells nothing of them.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}
