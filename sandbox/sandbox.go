// Package sandbox is a local cloud for trying, testing and air-gapped use: an object store that speaks S3
// and an image service with its identity service, each of the two on a loopback TCP port, with one account
// that may do everything.
//
// Whoever uses it talks to it through the very clients that talk to the real cloud. Objects, images and jobs
// are kept in its data directory and survive kill -9: what was answered is there after the next start, and
// jobs that had not ended go on. Tokens and temporary keys hold as long as the account stays the same.
//
// Either service answers GET /healthz without a signature: 200 and {"status":"ok"}, or 503 and why not. The
// image service answers GET /metrics in Prometheus' text format.
//
// It can imitate the rules by which OBS differs from S3, see Imitation. Host names below ".localhost" are
// loopback by RFC 6761, section 6.3; where the system's resolver doesn't know that, clients must (package
// upload/obs does, and so do browsers and curl).
package sandbox

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"imgferry/formats"
	"imgferry/limits"
	"imgferry/sandbox/identity"
	"imgferry/sandbox/imageservice"
	"imgferry/sandbox/objectstore"

	"golang.org/x/sync/errgroup"
)

// What Config's empty fields stand for.
const (
	DefaultProjectID = "5a9db0c500000000000000000000c10d"
	DefaultRegion    = "sandbox-1"
	DefaultBucket    = "images"
	DefaultUser      = "sandbox"

	// Domain is the account's name, which owns the user.
	Domain = "sandbox"
	// StoreHost is the host below which the store has the buckets' own host names: BUCKET.obs.localhost.
	StoreHost = "obs.localhost"

	loopback = "127.0.0.1:0" // any free port
)

const (
	// headerTimeout and idleTimeout bound what a connection may hold without asking for anything. There
	// is no limit on a whole request: a part of 5 GiB takes as long as it takes, and the store ends
	// bodies that stand still.
	headerTimeout, idleTimeout = 10 * time.Second, 2 * time.Minute
	// maxHeader bounds a request's header, in bytes: a signed request has under 4 KiB.
	maxHeader = 64 << 10
	// closeTimeout is how long requests under way may take to end by themselves when the sandbox closes.
	closeTimeout = time.Second
	// obsMinPart is OBS's least size of a part that is not the last, in bytes.
	obsMinPart = 100 << 10
)

// databaseFile holds images and jobs, in the data directory.
const databaseFile = "images.db"

// Imitation says which cloud the sandbox is as strict as.
type Imitation string

const (
	// S3 is the least strict store: HTTP, a bucket in the path or in the host, parts from 5 MiB.
	S3 Imitation = ""
	// OBS is Huawei Cloud's: both services speak HTTPS, with a certificate of the sandbox's own
	// authority; the bucket must be in the host name; trailing checksums are refused and other
	// x-amz-checksum headers not heeded; parts from 100 KiB. See objectstore.OBS.
	OBS Imitation = "obs"
)

// Config says where a sandbox lives and whom it lets in.
type Config struct {
	// DataDir is where the objects are kept. It is made if it is missing. Required.
	DataDir string
	// StoreListen and ImageListen are the addresses of the two services, "HOST:PORT". "" is any free
	// port of 127.0.0.1.
	StoreListen, ImageListen string
	// AllowRemote permits addresses that other machines can reach. Without TLS the traffic is not encrypted.
	AllowRemote bool
	// Imitate is S3 or OBS.
	Imitate Imitation
	// RefusePayloadHash refuses requests with a body whose x-amz-content-sha256 is the hash of it: OBS
	// documents only UNSIGNED-PAYLOAD and signed streams. It goes with OBS.
	RefusePayloadHash bool
	// TLS makes both services speak HTTPS. OBS implies it.
	TLS bool
	// AccessKey and SecretKey are the one account. Both "" makes a random pair.
	AccessKey, SecretKey string
	// User and Password log in to it for a token. "" is DefaultUser, and a random password.
	User, Password string
	// ProjectID, Region and Bucket are DefaultProjectID, DefaultRegion and DefaultBucket if "".
	ProjectID, Region, Bucket string
	// OtherProjects are further projects of the account, by id: their names. Images can be shared with them.
	OtherProjects map[string]string
	// Formats is the table of formats that image files may have. nil is ZVHD2 and raw.
	Formats []formats.Format `json:"-"`
	// Resources are what images can be made from besides objects, and where they can be copied to.
	Resources imageservice.Resources
	// Quota is how many images a project may have. 0 is 1000.
	Quota int
	// Logger gets the requests and failures of both services. nil is silence.
	Logger *slog.Logger
}

// Sandbox is a running sandbox.
type Sandbox struct {
	cfg                Config
	store              *objectstore.Store
	images             *imageservice.Service
	identity           *identity.Service
	storeSrv, imageSrv *http.Server
	storeURL, imageURL string
	authority          *authority  // nil without TLS
	tls                *tls.Config // nil without TLS

	serving *errgroup.Group
	ended   context.Context // ends when one of the servers fails, or all have stopped
	close   sync.Once
	err     error // of Close
}

// Start starts a sandbox and makes its bucket. ctx bounds the start only: Close stops it.
func Start(ctx context.Context, cfg Config) (*Sandbox, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	storeListener, err := listen(ctx, cfg.StoreListen, cfg.AllowRemote)
	if err != nil {
		return nil, err
	}
	imageListener, err := listen(ctx, cfg.ImageListen, cfg.AllowRemote)
	if err != nil {
		storeListener.Close()
		return nil, err
	}
	abandon := func(err error) (*Sandbox, error) {
		storeListener.Close()
		imageListener.Close()
		return nil, err
	}
	s := &Sandbox{cfg: cfg}
	if err := s.open(storeListener.Addr(), imageListener.Addr()); err != nil {
		return abandon(err)
	}
	s.serving, s.ended = errgroup.WithContext(context.Background())
	s.storeSrv = s.serve(storeListener, s.storeHandler())
	s.imageSrv = s.serve(imageListener, s.imageHandler())
	return s, nil
}

// open opens what the data directory holds. The store comes first: it makes the directory, and locks it.
func (s *Sandbox) open(store, images net.Addr) (err error) {
	cfg := s.cfg
	s.identity = identity.New(identity.Account{
		AccessKey: cfg.AccessKey, SecretKey: cfg.SecretKey, User: cfg.User, Password: cfg.Password, Domain: Domain,
		ProjectID: cfg.ProjectID, ProjectName: cfg.Region, Others: cfg.OtherProjects,
	}, nil, cfg.Logger.With("service", "identity"))
	options := objectstore.Options{
		Credentials: s.storeSecret, Region: cfg.Region, Domain: StoreHost, Logger: cfg.Logger.With("service", "store"),
	}
	if cfg.Imitate == OBS {
		options.Rules, options.MinPartSize = objectstore.OBS(), obsMinPart
		options.Rules.RefuseLiteralHash = cfg.RefusePayloadHash
	}
	if s.store, err = objectstore.Open(cfg.DataDir, options); err != nil {
		return fmt.Errorf("opening the sandbox's data: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.store.Close())
		}
	}()
	if err := s.store.CreateBucket(cfg.Bucket); err != nil && !errors.Is(err, objectstore.ErrBucketExists) {
		return fmt.Errorf("making the sandbox's bucket: %w", err)
	}
	s.storeURL, s.imageURL = "http://"+store.String(), "http://"+images.String()
	if cfg.TLS {
		if s.authority, err = openAuthority(filepath.Join(cfg.DataDir, authorityDir), time.Now()); err != nil {
			return fmt.Errorf("opening the sandbox's certificate authority: %w", err)
		}
		certificate, err := s.authority.issue(time.Now(), store, images)
		if err != nil {
			return fmt.Errorf("making the sandbox's certificate: %w", err)
		}
		s.tls = &tls.Config{Certificates: []tls.Certificate{certificate}}
		s.storeURL, s.imageURL = "https://"+store.String(), "https://"+images.String()
	}
	if cfg.Imitate == OBS {
		_, port, err := net.SplitHostPort(store.String())
		if err != nil {
			return err
		}
		s.storeURL = "https://" + net.JoinHostPort(StoreHost, port)
	}
	s.images, err = imageservice.Open(imageservice.Config{
		Objects: objects{s.store}, Database: filepath.Join(cfg.DataDir, databaseFile), Authorize: s.identity.Authorize,
		ProjectID: cfg.ProjectID, OtherProjects: slices.Sorted(maps.Keys(cfg.OtherProjects)), Region: cfg.Region, Quota: cfg.Quota,
		Formats: cfg.Formats, Resources: cfg.Resources, Logger: cfg.Logger.With("service", "images"),
	})
	if err != nil {
		return fmt.Errorf("opening the sandbox's images: %w", err)
	}
	return nil
}

// complete checks c and fills in what is left to defaults.
func (c Config) complete() (Config, error) {
	if c.DataDir == "" {
		return c, errors.New("the sandbox needs a data directory")
	}
	if (c.AccessKey == "") != (c.SecretKey == "") {
		return c, errors.New("the sandbox needs both an access key and its secret, or neither")
	}
	if c.AccessKey == "" {
		c.AccessKey, c.SecretKey = "SANDBOX"+rand.Text()[:13], rand.Text()
	}
	switch {
	case c.Imitate != S3 && c.Imitate != OBS:
		return c, fmt.Errorf("the sandbox can't imitate %q, only %q", c.Imitate, OBS)
	case c.RefusePayloadHash && c.Imitate != OBS:
		return c, fmt.Errorf("refusing payload hashes goes with imitating %q", OBS)
	}
	c.TLS = c.TLS || c.Imitate == OBS
	c.User, c.Password = cmp.Or(c.User, DefaultUser), cmp.Or(c.Password, rand.Text())
	c.StoreListen, c.ImageListen = cmp.Or(c.StoreListen, loopback), cmp.Or(c.ImageListen, loopback)
	c.ProjectID, c.Region, c.Bucket = cmp.Or(c.ProjectID, DefaultProjectID), cmp.Or(c.Region, DefaultRegion), cmp.Or(c.Bucket, DefaultBucket)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, limits.Bucket(c.Bucket)
}

// listen listens on a TCP address, which must be of this machine alone unless remote is set.
func listen(ctx context.Context, address string, remote bool) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("the sandbox can't listen: %w", err)
	}
	// The bound address is judged, not the name asked for: a name can mean anything.
	if tcp, ok := l.Addr().(*net.TCPAddr); !remote && (!ok || !tcp.IP.IsLoopback()) {
		l.Close()
		return nil, fmt.Errorf("the sandbox would be reachable from other machines at %s: use a loopback address, or allow it explicitly", l.Addr())
	}
	return l, nil
}

// serve serves h on l until the returned server is shut down.
func (s *Sandbox) serve(l net.Listener, h http.Handler) *http.Server {
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog:  slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelWarn),
		TLSConfig: s.tls,
		// As the services imitated. It also keeps one body per connection, each with its own deadline.
		Protocols: new(http.Protocols),
	}
	srv.Protocols.SetHTTP1(true)
	s.serving.Go(func() error {
		serve := srv.Serve
		if s.tls != nil {
			serve = func(l net.Listener) error { return srv.ServeTLS(l, "", "") }
		}
		if err := serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("the sandbox stopped serving: %w", err)
		}
		return nil
	})
	return srv
}

// storeSecret is objectstore.Options.Credentials.
func (s *Sandbox) storeSecret(accessKey, securityToken string) (string, error) {
	secret, err := s.identity.Secret(accessKey, securityToken)
	switch {
	case errors.Is(err, identity.ErrExpired):
		return "", objectstore.ErrExpiredToken
	case errors.Is(err, identity.ErrToken):
		return "", objectstore.ErrInvalidToken
	}
	return secret, err
}

// storeHandler is the object store with a health check, which no signed request is taken for.
func (s *Sandbox) storeHandler() http.Handler {
	store := s.store.Handler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == healthPath && r.URL.RawQuery == "" && r.Header.Get("Authorization") == "" {
			s.health(w, r)
			return
		}
		store.ServeHTTP(w, r)
	})
}

// imageHandler is the image service with the identity service and a health check.
func (s *Sandbox) imageHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == healthPath:
			s.health(w, r)
		case r.URL.Path == metricsPath:
			s.metrics(w)
		case identity.Serves(r.URL.Path):
			s.identity.ServeHTTP(w, r)
		default:
			s.images.ServeHTTP(w, r)
		}
	})
}

// healthPath is where either service says whether it can work.
const healthPath = "/healthz"

func (s *Sandbox) health(w http.ResponseWriter, _ *http.Request) {
	status, answer := http.StatusOK, map[string]string{"status": "ok"}
	if err := errors.Join(s.store.Healthy(), s.images.Healthy()); err != nil {
		status, answer = http.StatusServiceUnavailable, map[string]string{"status": "failing", "error": err.Error()}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer) // a client that is gone has no use for an error
}

// metricsPath is where the image service tells what it has done, to anybody.
const metricsPath = "/metrics"

func (s *Sandbox) metrics(w http.ResponseWriter) {
	var b bytes.Buffer
	if err := s.images.WriteMetrics(&b); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(b.Bytes()) // a client that is gone has no use for an error
}

// StoreEndpoint returns the object store's address, "http://HOST:PORT", or "https://obs.localhost:PORT" if it
// imitates OBS.
func (s *Sandbox) StoreEndpoint() string { return s.storeURL }

// ImageEndpoint returns the address of the image and the identity service, "http://HOST:PORT" or
// "https://HOST:PORT".
func (s *Sandbox) ImageEndpoint() string { return s.imageURL }

// CertificateFile returns the file with the certificate, in PEM, that makes a client trust the sandbox, or ""
// without TLS.
func (s *Sandbox) CertificateFile() string {
	if s.authority == nil {
		return ""
	}
	return s.authority.file
}

// Certificate returns what is in CertificateFile, or nil without TLS.
func (s *Sandbox) Certificate() []byte {
	if s.authority == nil {
		return nil
	}
	return s.authority.pem
}

// User returns the name to log in with, of the domain Domain.
func (s *Sandbox) User() string { return s.cfg.User }

// Password returns the user's password.
func (s *Sandbox) Password() string { return s.cfg.Password }

// Bucket returns the name of the bucket that is always there.
func (s *Sandbox) Bucket() string { return s.cfg.Bucket }

// AccessKey returns the account's access key.
func (s *Sandbox) AccessKey() string { return s.cfg.AccessKey }

// SecretKey returns the account's secret.
func (s *Sandbox) SecretKey() string { return s.cfg.SecretKey }

// ProjectID returns the project that owns all images.
func (s *Sandbox) ProjectID() string { return s.cfg.ProjectID }

// Region returns the region's name.
func (s *Sandbox) Region() string { return s.cfg.Region }

// Wait returns nil when the sandbox has stopped serving because it was closed, or the failure of a service
// that stopped by itself. Close is needed after the latter too.
func (s *Sandbox) Wait() error {
	<-s.ended.Done()
	if err := context.Cause(s.ended); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// Close stops both services and every import, and waits for all of it. Requests under way have a second to
// end, or until ctx ends, then their connections are cut. Calls after the first return the same error.
func (s *Sandbox) Close(ctx context.Context) error {
	s.close.Do(func() {
		ctx, cancel := context.WithTimeout(ctx, closeTimeout)
		defer cancel()
		// The image service first: its imports read the store.
		stop(ctx, s.imageSrv)
		err := s.images.Close()
		stop(ctx, s.storeSrv)
		s.err = errors.Join(s.serving.Wait(), err, s.store.Close())
	})
	return s.err
}

// stop lets requests under way end until ctx does, then cuts their connections.
func stop(ctx context.Context, srv *http.Server) {
	if srv.Shutdown(ctx) != nil {
		_ = srv.Close() // only repeats failures to close a listener or connection that is of no more use
	}
}

// objects lets the image service read and write the store.
type objects struct{ store *objectstore.Store }

// OpenObject implements imageservice.Objects.
func (o objects) OpenObject(_ context.Context, bucket, key string) (formats.Source, error) {
	object, err := o.store.OpenObject(bucket, key)
	switch {
	case errors.Is(err, objectstore.ErrNoSuchBucket):
		return nil, fmt.Errorf("%w: %w: %w", fs.ErrNotExist, imageservice.ErrNoBucket, err)
	case errors.Is(err, objectstore.ErrNoSuchKey):
		return nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	case err != nil:
		return nil, err
	}
	return object, nil
}

// PutObject implements imageservice.Objects.
func (o objects) PutObject(ctx context.Context, bucket, key string, r io.Reader) error {
	_, err := o.store.PutObject(ctx, bucket, key, r, map[string]string{"content-type": "application/octet-stream"})
	return err
}
