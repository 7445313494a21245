package ims

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// Credentials say who calls: an access key pair or a token. They print, log and marshal without the
// secret. The zero value is nobody.
type Credentials struct {
	// Behind a function, because fmt asks no method of a private field: it prints the fields of a struct
	// that holds Credentials there, and with some verbs even what a pointer points to. Of a function it
	// prints the address.
	get func() secrets
}

type secrets struct {
	accessKey, secretKey string
	securityToken        string // of temporary keys, else ""
	token                string // of token mode, else ""
	password             string // of the one call that sends it in its body, else ""
}

// AccessKey returns credentials that sign each request with an AK/SK pair. securityToken belongs to
// temporary pairs and is "" for permanent ones.
func AccessKey(accessKey, secretKey, securityToken string) Credentials {
	return hold(secrets{accessKey: accessKey, secretKey: secretKey, securityToken: securityToken})
}

// Token returns credentials that send a token of the identity service in X-Auth-Token. Such a token is
// valid for 24 hours (reference, 3.2).
func Token(token string) Credentials { return hold(secrets{token: token}) }

// password returns credentials that authorize nothing: the password is in the request's body. They keep
// it out of messages.
func password(p string) Credentials { return hold(secrets{password: p}) }

func hold(s secrets) Credentials { return Credentials{func() secrets { return s }} }

func (c Credentials) secrets() secrets {
	if c.get == nil {
		return secrets{}
	}
	return c.get()
}

// check refuses credentials that can't be sent.
func (c Credentials) check() error {
	s := c.secrets()
	switch {
	case s == secrets{}:
		return errors.New("no credentials are given")
	case s.password != "":
		return nil // goes into JSON, which takes any text
	case s.token == "" && (s.accessKey == "" || s.secretKey == ""):
		return errors.New("the access key or its secret is missing")
	}
	for _, v := range []string{s.accessKey, s.secretKey, s.securityToken, s.token} {
		if strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			return errors.New("the credentials hold a space, a line break or a character that is not ASCII")
		}
	}
	return nil
}

// redact returns text without any secret in it: a service may send back what it was sent.
func (c Credentials) redact(text string) string {
	s := c.secrets()
	for _, secret := range []string{s.secretKey, s.securityToken, s.token, s.password} {
		if secret == "" {
			continue
		}
		text = strings.ReplaceAll(text, secret, "[redacted]")
		// As it stands in a request's body, which a service may send back as it came.
		if inJSON, err := json.Marshal(secret); err == nil {
			text = strings.ReplaceAll(text, string(inJSON[1:len(inJSON)-1]), "[redacted]")
		}
	}
	return text
}

// String names the kind of credentials and the beginning of the access key, never a secret.
func (c Credentials) String() string {
	s := c.secrets()
	switch {
	case s == secrets{}:
		return "no credentials"
	case s.token != "":
		return "token"
	case s.password != "":
		return "password"
	case s.securityToken != "":
		return fmt.Sprintf("temporary AK/SK (access key %.4s...)", s.accessKey)
	}
	return fmt.Sprintf("AK/SK (access key %.4s...)", s.accessKey)
}

// GoString is String, for %#v.
func (c Credentials) GoString() string { return c.String() }

// LogValue is String, for slog.
func (c Credentials) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText is String, for JSON and its like.
func (c Credentials) MarshalText() ([]byte, error) { return []byte(c.String()), nil }
