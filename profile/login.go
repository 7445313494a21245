package profile

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// maxLogin bounds a stored login in bytes. Tokens have a few thousand.
const maxLogin = 1 << 20

// Secret is a text that prints, logs and marshals as "[hidden]". Reveal returns it.
type Secret string

// Reveal returns the text itself.
func (s Secret) Reveal() string { return string(s) }

// String is "[hidden]", or "" of nothing.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "[hidden]"
}

// GoString is String, for %#v.
func (s Secret) GoString() string { return s.String() }

// Format is String for every verb, those for bytes included.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, s.String()) }

// LogValue is String, for slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText is String, for JSON and its like.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Login is what a login gave. It belongs to one profile of one settings file.
type Login struct {
	// Bound has the settings that the login was made with; it is good for no others.
	Bound map[string]string
	// Token authorizes calls until Expires.
	Token   Secret
	Expires time.Time
	// AccessKey, SecretKey and SecurityToken are temporary keys until KeysExpire. AccessKey is "" if the
	// login gave none.
	AccessKey                string
	SecretKey, SecurityToken Secret
	KeysExpire               time.Time
}

// Ends returns when the first part of the login expires.
func (l *Login) Ends() time.Time {
	if l.AccessKey != "" && l.KeysExpire.Before(l.Expires) {
		return l.KeysExpire
	}
	return l.Expires
}

// storedLogin is Login as the file has it, with its secrets.
type storedLogin struct {
	Config        string            `json:"config"`
	Profile       string            `json:"profile"`
	Bound         map[string]string `json:"bound"`
	Token         string            `json:"token"`
	Expires       time.Time         `json:"expires"`
	AccessKey     string            `json:"ak,omitempty"`
	SecretKey     string            `json:"sk,omitempty"`
	SecurityToken string            `json:"security_token,omitempty"`
	KeysExpire    time.Time         `json:"keys_expire,omitzero"`
}

// StateDir returns the folder for what the program remembers by itself: $XDG_STATE_HOME/imgferry, or
// ~/.local/state/imgferry.
func StateDir() (string, error) {
	if state := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, "imgferry"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, ".local", "state", "imgferry"), nil
}

// loginPath is where the login of a profile is kept. Profiles of the same name in two files are two.
func (f *File) loginPath(name string) (string, error) {
	if err := CheckName(name); err != nil {
		return "", err
	}
	dir, err := StateDir()
	if err != nil {
		return "", fmt.Errorf("no folder for logins: %w", err)
	}
	sum := sha256.Sum256([]byte(f.path))
	return filepath.Join(dir, "logins", name+"-"+hex.EncodeToString(sum[:4])+".json"), nil
}

// Login returns the stored login of a profile, expired or not; nil if there is none.
func (f *File) Login(name string) (*Login, error) {
	path, err := f.loginPath(name)
	if err != nil {
		return nil, err
	}
	r, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, maxLogin+1))
	if err != nil {
		return nil, err
	}
	var s storedLogin
	if len(text) > maxLogin || json.Unmarshal(text, &s) != nil || s.Token == "" {
		return nil, fmt.Errorf("%s: %w: it is no stored login; remove it", path, ErrFile)
	}
	if s.Config != f.path || s.Profile != name {
		return nil, nil // a copy, or another file whose path has the same hash
	}
	return &Login{s.Bound, Secret(s.Token), s.Expires, s.AccessKey, Secret(s.SecretKey), Secret(s.SecurityToken), s.KeysExpire}, nil
}

// SaveLogin stores the login of a profile, which need not be in the settings file, in place of an
// earlier one.
func (f *File) SaveLogin(name string, l Login) error {
	path, err := f.loginPath(name)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(storedLogin{
		f.path, name, l.Bound, l.Token.Reveal(), l.Expires, l.AccessKey, l.SecretKey.Reveal(), l.SecurityToken.Reveal(), l.KeysExpire,
	}, "", "  ")
	if err != nil {
		return err
	}
	return writePrivate(path, append(text, '\n'))
}

// DeleteLogin forgets the login of a profile and reports whether there was one.
func (f *File) DeleteLogin(name string) (bool, error) {
	path, err := f.loginPath(name)
	if err != nil {
		return false, err
	}
	err = os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
