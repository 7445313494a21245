package ims

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

const (
	// MinKeysLifetime and MaxKeysLifetime bound how long temporary keys may be valid.
	MinKeysLifetime, MaxKeysLifetime = 15 * time.Minute, 24 * time.Hour

	headerSubjectToken = "X-Subject-Token"
)

// IdentityConfig says where the identity service (IAM) is.
type IdentityConfig struct {
	// Endpoint is the service's address, "https://HOST". "" makes it from Region.
	Endpoint, Region string
	// The others are as in Config.
	HTTPClient     *http.Client
	UserAgent      string
	Now            func() time.Time
	RequestTimeout time.Duration
	Tries          int
	Delay          time.Duration
}

// Identity calls the identity service, which knows users by their passwords. It is safe for concurrent
// use and keeps nothing.
type Identity struct{ calls Client }

// NewIdentity returns a client. It sends nothing.
func NewIdentity(cfg IdentityConfig) (*Identity, error) {
	if cfg.Endpoint == "" {
		if cfg.Region == "" {
			return nil, errors.New("neither an endpoint of the identity service nor a region is given")
		}
		cfg.Endpoint = "https://iam." + cfg.Region + ".myhuaweicloud.com"
	}
	c, err := newClient("identity", Config{
		Endpoint: cfg.Endpoint, HTTPClient: cfg.HTTPClient, UserAgent: cfg.UserAgent, Now: cfg.Now, RequestTimeout: cfg.RequestTimeout,
		Tries: cfg.Tries, Delay: cfg.Delay,
	})
	if err != nil {
		return nil, err
	}
	return &Identity{*c}, nil
}

// as returns the client that calls with these credentials.
func (i *Identity) as(cred Credentials) *Client {
	c := i.calls
	c.cfg.Credentials = cred
	return &c
}

// PasswordLogin is who asks for a token, and for what.
type PasswordLogin struct {
	// User is the name of a user of the account that is named Domain.
	User, Domain, Password string
	// ProjectID is the project that the token is for. If it is "", ProjectName is its name: that of the
	// region, for a region's first project.
	ProjectID, ProjectName string
}

// IssuedToken is a token of the identity service.
type IssuedToken struct {
	// Secret returns the token itself, which the function Token makes Credentials of. It is a function
	// so that printing an IssuedToken does not show it.
	Secret func() string
	// Expires is when it ends: 24 hours after it was made.
	Expires time.Time
	// ProjectID is the project that it is for, "" if the service does not say.
	ProjectID string
}

// Token asks for a token by password. The error matches ErrDenied if user, account or password are wrong.
func (i *Identity) Token(ctx context.Context, l PasswordLogin) (IssuedToken, error) {
	if l.User == "" || l.Domain == "" || l.Password == "" {
		return IssuedToken{}, errors.New("the user, the domain or the password is missing")
	}
	project := map[string]string{"name": l.ProjectName}
	if l.ProjectID != "" {
		project = map[string]string{"id": l.ProjectID}
	} else if l.ProjectName == "" {
		return IssuedToken{}, errors.New("neither a project nor a region is given: the token must be for one")
	}
	type object = map[string]any
	body, err := json.Marshal(object{"auth": object{
		"identity": object{
			"methods": []string{"password"},
			"password": object{"user": object{
				"name": l.User, "password": l.Password, "domain": object{"name": l.Domain},
			}},
		},
		"scope": object{"project": project},
	}})
	if err != nil {
		return IssuedToken{}, err
	}
	var issued IssuedToken
	token := ""
	k := call{
		op: "log in", method: http.MethodPost, path: "/v3/auth/tokens", harmless: true, body: body,
		query:  url.Values{"nocatalog": {"true"}}, // the catalogue has hundreds of entries
		header: func(h http.Header) { token = h.Get(headerSubjectToken) },
	}
	err = i.as(password(l.Password)).do(ctx, k, func(p []byte) error {
		var answer struct {
			Token struct {
				Expires text `json:"expires_at"`
				Project struct {
					ID text `json:"id"`
				} `json:"project"`
			} `json:"token"`
		}
		if err := json.Unmarshal(p, &answer); err != nil {
			return err
		}
		issued = IssuedToken{
			Secret:    func() string { return token },
			Expires:   parseTime(string(answer.Token.Expires)),
			ProjectID: string(answer.Token.Project.ID),
		}
		switch {
		case Token(token).check() != nil:
			return errors.New("it has no usable " + headerSubjectToken)
		case issued.Expires.IsZero():
			return errors.New("it does not say when the token expires")
		case issued.ProjectID != "" && !isID(issued.ProjectID):
			return errors.New("its project id is malformed")
		}
		return nil
	})
	if err != nil {
		return IssuedToken{}, err
	}
	return issued, nil
}

// TemporaryKeys are an AK/SK pair that is valid with its security token until Expires.
type TemporaryKeys struct {
	AccessKey string
	// Secrets returns the secret key and the security token. It is a function for the same reason as
	// IssuedToken.Secret.
	Secrets func() (secretKey, securityToken string)
	Expires time.Time
}

// Keys asks for temporary keys of the user whose token t is. lifetime is from MinKeysLifetime to
// MaxKeysLifetime, in whole seconds. The error matches ErrNotFound if the service has no such call.
func (i *Identity) Keys(ctx context.Context, t IssuedToken, lifetime time.Duration) (TemporaryKeys, error) {
	if lifetime < MinKeysLifetime || lifetime > MaxKeysLifetime {
		return TemporaryKeys{}, fmt.Errorf("temporary keys are valid for %v to %v, not %v", MinKeysLifetime, MaxKeysLifetime, lifetime)
	}
	type object = map[string]any
	body, err := json.Marshal(object{"auth": object{"identity": object{
		"methods": []string{"token"},
		"token":   object{"duration_seconds": int(lifetime / time.Second)}, // the id is in X-Auth-Token
	}}})
	if err != nil {
		return TemporaryKeys{}, err
	}
	var keys TemporaryKeys
	k := call{op: "get temporary keys", method: http.MethodPost, path: "/v3.0/OS-CREDENTIAL/securitytokens", harmless: true, secret: true, body: body}
	err = i.as(Token(t.Secret())).do(ctx, k, func(p []byte) error {
		var answer struct {
			Credential struct {
				Access        text `json:"access"`
				Secret        text `json:"secret"`
				SecurityToken text `json:"securitytoken"`
				Expires       text `json:"expires_at"`
			} `json:"credential"`
		}
		if json.Unmarshal(p, &answer) != nil {
			return errNoKeys
		}
		access, secret, token := string(answer.Credential.Access), string(answer.Credential.Secret), string(answer.Credential.SecurityToken)
		keys = TemporaryKeys{access, func() (string, string) { return secret, token }, parseTime(string(answer.Credential.Expires))}
		if AccessKey(access, secret, token).check() != nil || token == "" || keys.Expires.IsZero() {
			return errNoKeys
		}
		return nil
	})
	if err != nil {
		return TemporaryKeys{}, err
	}
	return keys, nil
}

// errNoKeys is an answer that should have had temporary keys.
var errNoKeys = errors.New("the answer has no usable keys")
