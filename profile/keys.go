package profile

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// The names of the settings, as they stand in the file.
const (
	Region          = "region"
	ProjectID       = "project-id"
	IMSEndpoint     = "ims-endpoint"
	OBSEndpoint     = "obs-endpoint"
	IAMEndpoint     = "iam-endpoint"
	Bucket          = "bucket"
	AccessKey       = "ak"
	SecretKey       = "sk"
	SecurityToken   = "security-token"
	Proxy           = "proxy"
	CAFile          = "ca-file"
	AddressingStyle = "addressing-style"
	Signature       = "signature"
	User            = "user"
	Domain          = "domain"
)

// The values of AddressingStyle: where the bucket's name goes in a request to the store.
const (
	StyleAuto        = "auto"
	StylePath        = "path"
	StyleVirtualHost = "virtual-host"
)

// The values of Signature: the version of the S3 API's signatures.
const (
	SignatureV4 = "v4"
	SignatureV2 = "v2"
)

// NoProxy as the value of Proxy means a direct connection, whatever the environment says.
const NoProxy = "none"

// maxValue bounds a value in bytes. The longest are security tokens, of a few thousand.
const maxValue = 32 << 10

// checks holds, for each setting, what its value must satisfy. None of the errors repeats the value.
var checks = map[string]func(string) error{
	Region:          word,
	ProjectID:       word,
	IMSEndpoint:     endpoint,
	OBSEndpoint:     endpoint,
	IAMEndpoint:     endpoint,
	Bucket:          nil, // the store has the rules
	AccessKey:       ascii,
	SecretKey:       ascii,
	SecurityToken:   ascii,
	Proxy:           proxy,
	CAFile:          nil,
	AddressingStyle: style,
	Signature:       signature,
	User:            nil,
	Domain:          nil,
}

// Keys returns the names of all settings, ascending.
func Keys() []string {
	keys := make([]string, 0, len(checks))
	for k := range checks {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Check refuses a key that is no setting, and a value that the setting can't have. The error does not
// repeat the value, which may be a secret.
func Check(key, value string) error {
	check, known := checks[key]
	switch {
	case !known:
		return fmt.Errorf("there is no setting %q; there are %s", key, strings.Join(Keys(), ", "))
	case value == "":
		return fmt.Errorf("%s: the value is empty", key)
	case len(value) > maxValue:
		return fmt.Errorf("%s: the value is longer than %d bytes", key, maxValue)
	case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("%s: the value holds a line end or another control character", key)
	}
	if check != nil {
		if err := check(value); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return nil
}

// IsSecret reports whether the setting's value must not be shown: the secret key, the security token,
// and a proxy's address with a password in it.
func IsSecret(key, value string) bool {
	switch key {
	case SecretKey, SecurityToken:
		return true
	case Proxy:
		return strings.Contains(value, "@")
	}
	return false
}

// word is the check of what becomes part of a host name or a path.
func word(v string) error {
	if strings.Trim(v, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
		return errors.New("only letters, digits, '-' and '_' are allowed")
	}
	return nil
}

func ascii(v string) error {
	if strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return errors.New("the value holds a space or a character that is not ASCII")
	}
	return nil
}

// endpoint takes HOST[:PORT], or that as a URL: nothing else would be used, and a password in it would
// be sent nowhere.
func endpoint(v string) error {
	if !strings.Contains(v, "://") {
		v = "https://" + v
	}
	u, err := url.Parse(v)
	if err != nil || u.Host == "" || u.Hostname() == "" || u.User != nil || strings.ContainsAny(v, "?#") ||
		u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" {
		return errors.New("the endpoint is not of the form https://HOST[:PORT]")
	}
	return nil
}

func proxy(v string) error {
	if v == NoProxy {
		return nil
	}
	if !strings.Contains(v, "://") {
		v = "http://" + v
	}
	u, err := url.Parse(v)
	if err != nil || u.Hostname() == "" || !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme) ||
		strings.Trim(u.Path, "/") != "" {
		return errors.New("the proxy is not of the form http://[USER:PASSWORD@]HOST:PORT (or https, socks5), nor " + NoProxy)
	}
	return nil
}

func style(v string) error {
	if v != StyleAuto && v != StylePath && v != StyleVirtualHost {
		return fmt.Errorf("the addressing style is %s, %s or %s", StyleAuto, StylePath, StyleVirtualHost)
	}
	return nil
}

func signature(v string) error {
	if v != SignatureV4 && v != SignatureV2 {
		return fmt.Errorf("the signature is %s or %s", SignatureV4, SignatureV2)
	}
	return nil
}
