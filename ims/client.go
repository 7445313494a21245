// Package ims is a typed client of the Image Management Service, and both sides of its request signing.
//
// It makes every call of the service's own API (chapter 5 of the reference), those for tags that real
// clients use, and the native ones for an image's metadata. It knows nothing of disk formats and of object
// stores, keeps no state between calls, logs nothing and prints no secret.
//
// Calls that only read, and those that sent twice do no more than once, are sent again after a transient
// failure. All others are sent again only where the service surely did not take them; an *APIError whose
// MaybeDone is set leaves that open. What breaks the service's rules is not sent: the error is a
// *limits.Error.
package ims

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"imgferry/limits"
)

const (
	// defaultRequestTimeout bounds one attempt of one call; the service answers within seconds.
	defaultRequestTimeout = 30 * time.Second
	// idleTimeout closes connections that no poll has used for longer than any polling interval.
	idleTimeout = 90 * time.Second
	// pageSize is how many images one request lists: the service's own default.
	pageSize = 500
	// maxPages bounds a list, for a service that never ends it.
	maxPages = 1000
)

// Config says where the service is and who calls.
type Config struct {
	// Endpoint is the service's address, "https://HOST". "" makes it from Region.
	Endpoint string
	// ProjectID is the project that owns the images. Required.
	ProjectID string
	// Region is the region's name, such as "cn-north-4". It is used where Endpoint is "".
	Region string
	// Credentials sign each request. Required.
	Credentials Credentials
	// HTTPClient sends the requests; redirects are never followed, since they would carry the
	// credentials elsewhere. nil is a client of its own, with the environment's proxy.
	HTTPClient *http.Client
	// UserAgent is sent with each request. "" is "imgferry".
	UserAgent string
	// Now is the clock that signatures are dated by. nil is time.Now.
	Now func() time.Time
	// RequestTimeout bounds one attempt of one call. 0 is 30 seconds.
	RequestTimeout time.Duration
	// Tries bounds how often a call is sent that may be repeated. 0 is 6.
	Tries int
	// Delay is the wait before the second try; each further one doubles it, up to 32 times as much.
	// 0 is 250 ms: with six tries that lasts about ten seconds.
	Delay time.Duration
}

// Client calls the service. It is safe for concurrent use.
type Client struct {
	cfg  Config
	base *url.URL
	http *http.Client
}

// New returns a client. It sends nothing.
func New(cfg Config) (*Client, error) {
	if err := cfg.Credentials.check(); err != nil {
		return nil, err
	}
	if !isID(cfg.ProjectID) {
		return nil, errors.New("the project id is missing or malformed")
	}
	if cfg.Endpoint == "" {
		if cfg.Region == "" {
			return nil, errors.New("neither an endpoint of the image service nor a region is given")
		}
		cfg.Endpoint = "https://ims." + cfg.Region + ".myhuaweicloud.com"
	}
	return newClient("image", cfg)
}

// newClient returns a client of the image or identity service, whose endpoint is given.
func newClient(service string, cfg Config) (*Client, error) {
	if !strings.Contains(cfg.Endpoint, "://") {
		cfg.Endpoint = "https://" + cfg.Endpoint
	}
	base, err := url.Parse(cfg.Endpoint)
	if err != nil || base.Host == "" || base.User != nil || base.RawQuery != "" || base.Fragment != "" ||
		base.Scheme != "http" && base.Scheme != "https" || strings.Trim(base.Path, "/") != "" {
		// The address itself stays out of the message: it may hold a password.
		return nil, fmt.Errorf("the %s service's endpoint is not of the form https://HOST[:PORT]", service)
	}
	if cfg.HTTPClient == nil {
		cfg.HTTPClient = &http.Client{Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, IdleConnTimeout: idleTimeout,
		}}
	}
	hc := *cfg.HTTPClient
	hc.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if cfg.UserAgent == "" {
		cfg.UserAgent = "imgferry"
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.RequestTimeout <= 0 {
		cfg.RequestTimeout = defaultRequestTimeout
	}
	if cfg.Tries <= 0 {
		cfg.Tries = defaultTries
	}
	if cfg.Delay <= 0 {
		cfg.Delay = defaultDelay
	}
	return &Client{cfg, base, &hc}, nil
}

// Image returns the image with that id, in whatever state it is. The error matches ErrNotFound if there
// is none.
func (c *Client) Image(ctx context.Context, id string) (Image, error) {
	if err := checkID(id, limits.ImageIDUnknown, "image"); err != nil {
		return Image{}, err
	}
	images, err := c.list(ctx, "show image "+id, url.Values{"id": {id}})
	if err != nil {
		return Image{}, err
	}
	for _, img := range images {
		if img.ID == id {
			return img, nil
		}
	}
	return Image{}, fmt.Errorf("image %s: %w", id, ErrNotFound)
}

// Images lists images by the filters of the reference (5.1.1): "name", "status", "__imagetype", "tag" (as
// KEY=VALUE) and so on. It fetches all pages unless the filter has a "limit".
func (c *Client) Images(ctx context.Context, filter url.Values) ([]Image, error) {
	if filter.Has("limit") {
		return c.list(ctx, "list images", filter)
	}
	query := make(url.Values, len(filter)+2)
	for k, v := range filter {
		query[k] = v
	}
	query.Set("limit", strconv.Itoa(pageSize))
	var all []Image
	for range maxPages {
		page, err := c.list(ctx, "list images", query)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if len(page) < pageSize {
			return all, nil
		}
		marker := page[len(page)-1].ID
		if marker == query.Get("marker") {
			return nil, fmt.Errorf("list images: the service sends the page after image %q again and again", marker)
		}
		query.Set("marker", marker)
	}
	return nil, fmt.Errorf("list images: the service still sends pages after %d of them", maxPages)
}

func (c *Client) list(ctx context.Context, op string, query url.Values) ([]Image, error) {
	var images []Image
	call := call{op: op, method: http.MethodGet, path: "/v2/cloudimages", query: query}
	err := c.do(ctx, call, func(p []byte) (err error) {
		images, err = decodeImages(p)
		return err
	})
	if err != nil {
		return nil, err
	}
	return images, nil
}

// checkID refuses what can't be an id in a path.
func checkID(s string, code limits.Code, what string) error {
	if isID(s) {
		return nil
	}
	return &limits.Error{Code: code, Field: what + "_id", Finding: fmt.Sprintf("%.100q is no %s id", s, what), Advice: "use letters, digits, '-' and '_'"}
}

// isID reports whether s can be an id in a path: letters, digits, '-' and '_'.
func isID(s string) bool {
	return s != "" && len(s) <= 100 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	})
}
