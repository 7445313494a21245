package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"

	"imgferry/ims"
	"imgferry/profile"
	"imgferry/upload/obs"
)

// cloud is how to reach a cloud: flags, then the environment, then a profile of the settings file, then
// what follows from the region. Credentials go as one set: a key pair and its security token come from
// one place, or from a login where no place has them.
type cloud struct {
	region, project                       string
	imsEndpoint, obsEndpoint, iamEndpoint string
	bucket, style, signature              string
	ak, sk, token                         string
	proxy, caFile                         string
	patience                              patience
	encryption                            obs.Encryption // of new objects
	user, domain                          string

	config, profile string // --config and --profile; once filled, what they came to

	app        *app              // for warnings and the log of requests; nil: neither
	named      bool              // --profile was given
	loginAnew  bool              // a login is about to be made: an earlier one that can't be read is no matter
	file       *profile.File     // nil if there is no place for one
	from       map[string]string // where each setting came from, in words; nil before fill
	err        error             // why fill failed
	login      *profile.Login    // nil if credentials come from elsewhere, or there is none
	otherLogin error             // the login is for other settings than these
	transport  *http.Transport   // nil until it is needed
}

// warnf prints a warning.
func (c *cloud) warnf(format string, args ...any) {
	if c.app != nil {
		c.app.warn(format, args...)
	}
}

// need is a setting that a command can't do without.
type need struct{ value, words string }

// missing names what is not set, each once, as one usage error, or nil.
func missing(needs ...need) error {
	var errs []error
	said := make(map[string]bool)
	for _, n := range needs {
		if n.value == "" && !said[n.words] {
			said[n.words] = true
			errs = append(errs, errors.New(n.words))
		}
	}
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return usagef("missing: %w", errs[0])
	}
	for i, err := range errs {
		errs[i] = fmt.Errorf("  %w", err)
	}
	return usagef("missing:\n%w", errors.Join(errs...))
}

// asks says how to give a setting.
func (c *cloud) asks(name, words string) need {
	s := settingNamed(name)
	return need{*s.field(c), fmt.Sprintf("%s: --%s, $%s, or imgferry config set %s", words, name, s.env, name)}
}

// regionWords stand for both endpoints: they follow from the region.
const regionWords = "the region: --region, $" + envRegion + ", or imgferry config set region (or the endpoints, if they are not the region's)"

const keyWords = "an access key: $" + envAK + " and $" + envSK + ", imgferry config set ak and sk, or imgferry login"

func (c *cloud) storeNeeds() []need {
	key := need{c.ak, keyWords}
	if c.login != nil {
		key.words = "an access key for the store: the identity service gave none at login"
	}
	return []need{c.asks(profile.Bucket, "the bucket"), {c.obsEndpoint, regionWords}, key}
}

func (c *cloud) serviceNeeds() []need {
	needs := []need{c.asks(profile.ProjectID, "the project id"), {c.imsEndpoint, regionWords}}
	if c.login == nil {
		needs = append(needs, need{c.ak, keyWords})
	}
	return needs
}

// ready refuses what can't work, before anything is sent.
func (c *cloud) ready(needs []need) error {
	if c.err != nil {
		return c.err
	}
	if err := c.checkLogin(time.Now()); err != nil {
		return err
	}
	return missing(needs...)
}

// store connects to the bucket. Nothing is sent yet.
func (c *cloud) store() (*obs.Bucket, error) {
	if err := c.ready(c.storeNeeds()); err != nil {
		return nil, err
	}
	config, err := c.storeConfig()
	if err != nil {
		return nil, err
	}
	bucket, err := obs.New(config)
	return bucket, asUsage(err) // nothing was sent: a setting is wrong
}

// buckets asks the store for the names of the account's buckets.
func (c *cloud) buckets(ctx context.Context) ([]string, error) {
	if err := c.ready(c.storeNeeds()[1:]); err != nil { // all but the bucket
		return nil, err
	}
	config, err := c.storeConfig()
	if err != nil {
		return nil, err
	}
	return obs.Buckets(ctx, config)
}

// storeConfig says how to reach the store.
func (c *cloud) storeConfig() (obs.Config, error) {
	transport, err := c.roundTripper()
	if err != nil {
		return obs.Config{}, err
	}
	if c.app != nil {
		transport = c.app.observeStore(transport)
	}
	return obs.Config{
		Endpoint: c.obsEndpoint, Secure: true, Region: cmp.Or(c.region, "us-east-1"), // what S3 servers without regions sign for
		Bucket: c.bucket, AccessKey: c.ak, SecretKey: c.sk, SecurityToken: c.token,
		SignatureV2: c.signature == profile.SignatureV2, Encryption: c.encryption,
		Style: obsStyle(c.style), Transport: transport, UserAgent: userAgent(),
	}, nil
}

func obsStyle(style string) obs.Style {
	switch style {
	case profile.StylePath:
		return obs.Path
	case profile.StyleVirtualHost:
		return obs.VirtualHost
	}
	return obs.Auto
}

// service connects to the image service. Nothing is sent yet.
func (c *cloud) service() (*ims.Client, error) {
	if err := c.ready(c.serviceNeeds()); err != nil {
		return nil, err
	}
	client, err := c.serviceClient("image service")
	if err != nil {
		return nil, err
	}
	credentials := ims.AccessKey(c.ak, c.sk, c.token)
	if c.login != nil {
		c.warnPlain("the login's token", c.imsEndpoint)
		credentials = ims.Token(c.login.Token.Reveal())
	}
	images, err := ims.New(ims.Config{
		Endpoint: c.imsEndpoint, ProjectID: c.project, Region: c.region, UserAgent: userAgent(),
		Credentials: credentials, HTTPClient: client,
		RequestTimeout: time.Duration(c.patience.timeout), Tries: int(c.patience.tries), Delay: c.delay(),
	})
	return images, asUsage(err)
}

// both connects to the bucket and to the image service, or names everything that is missing.
func (c *cloud) both() (*obs.Bucket, *ims.Client, error) {
	if err := c.ready(append(c.storeNeeds(), c.serviceNeeds()...)); err != nil {
		return nil, nil, err
	}
	bucket, err := c.store()
	if err != nil {
		return nil, nil, err
	}
	images, err := c.service()
	if err != nil {
		return nil, nil, err
	}
	return bucket, images, nil
}

// identity connects to the identity service. Nothing is sent yet.
func (c *cloud) identity() (*ims.Identity, error) {
	if c.err != nil {
		return nil, c.err
	}
	client, err := c.serviceClient("identity service")
	if err != nil {
		return nil, err
	}
	id, err := ims.NewIdentity(ims.IdentityConfig{
		Endpoint: c.iamEndpoint, UserAgent: userAgent(), HTTPClient: client,
		RequestTimeout: time.Duration(c.patience.timeout), Tries: int(c.patience.tries), Delay: c.delay(),
	})
	return id, asUsage(err)
}

// warnPlain warns if what, which is a secret, is about to leave this machine without encryption.
func (c *cloud) warnPlain(what, endpoint string) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" {
		return
	}
	ip := net.ParseIP(u.Hostname())
	if u.Hostname() == "localhost" || strings.HasSuffix(u.Hostname(), ".localhost") || ip != nil && ip.IsLoopback() {
		return
	}
	c.warnf("%s goes to %s without encryption", what, u.Host)
}

// httpClient returns what reaches the store, the image service and the identity service alike: through
// the proxy that is set, trusting the certificates that are set. Its connections are shared.
func (c *cloud) httpClient() (*http.Client, error) {
	t, err := c.roundTripper()
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: t}, nil
}

// serviceClient is httpClient with its requests to the service logged.
func (c *cloud) serviceClient(service string) (*http.Client, error) {
	client, err := c.httpClient()
	if err == nil && c.app != nil {
		client.Transport = c.app.observeService(service, client.Transport)
	}
	return client, err
}

// roundTripper is what is below every client: the same one each time.
func (c *cloud) roundTripper() (http.RoundTripper, error) {
	if c.err != nil {
		return nil, c.err
	}
	if c.transport != nil {
		return c.transport, nil
	}
	t := obs.NewTransport(0)
	t.Proxy = proxyFor(c.proxy)
	if c.caFile != "" {
		roots, err := rootsWith(c.caFile)
		if err != nil {
			return nil, err
		}
		t.TLSClientConfig = &tls.Config{RootCAs: roots}
	}
	c.transport = t
	return t, nil
}

// proxyFor sends requests through proxy, or through the environment's if that is "", but for those to
// this machine and to hosts that NO_PROXY names.
func proxyFor(proxy string) func(*http.Request) (*url.URL, error) {
	if proxy == profile.NoProxy {
		return nil
	}
	env := httpproxy.FromEnvironment()
	if proxy != "" {
		env.HTTPProxy, env.HTTPSProxy, env.CGI = proxy, proxy, false
	}
	env.NoProxy += ",.localhost" // names of this machine: RFC 6761, 6.3
	find := env.ProxyFunc()
	return func(r *http.Request) (*url.URL, error) { return find(r.URL) }
}

// maxCAFile bounds a file of certificates in bytes. The system's have a quarter of a million.
const maxCAFile = 8 << 20

// rootsWith returns the system's certificates and those of a PEM file.
func rootsWith(path string) (*x509.CertPool, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("the %s: %w", profile.CAFile, err)
	}
	defer f.Close()
	pem, err := io.ReadAll(io.LimitReader(f, maxCAFile))
	if err != nil {
		return nil, fmt.Errorf("the %s: %w", profile.CAFile, err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool() // a system without any
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, usagef("the %s %s holds no certificate in PEM form", profile.CAFile, path)
	}
	return roots, nil
}

func userAgent() string { return "imgferry/" + version }
