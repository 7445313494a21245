// Package sandbox is a local cloud for trying, testing and air-gapped use: an object store that speaks S3
// and an image service, each on a loopback TCP port, with one account that may do everything.
//
// Whoever uses it talks to it through the very clients that talk to the real cloud. The objects are kept
// in its data directory; images are forgotten when it stops.
package sandbox

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"imgferry/formats"
	"imgferry/limits"
	"imgferry/sandbox/imageservice"
	"imgferry/sandbox/objectstore"

	"golang.org/x/sync/errgroup"
)

// What Config's empty fields stand for.
const (
	DefaultProjectID = "5a9db0c500000000000000000000c10d"
	DefaultRegion    = "sandbox-1"
	DefaultBucket    = "images"

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
)

// Config says where a sandbox lives and whom it lets in.
type Config struct {
	// DataDir is where the objects are kept. It is made if it is missing. Required.
	DataDir string
	// StoreListen and ImageListen are the addresses of the two services, "HOST:PORT". "" is any free
	// port of 127.0.0.1.
	StoreListen, ImageListen string
	// AllowRemote permits addresses that other machines can reach. The traffic is not encrypted.
	AllowRemote bool
	// AccessKey and SecretKey are the one account. Both "" makes a random pair.
	AccessKey, SecretKey string
	// ProjectID, Region and Bucket are DefaultProjectID, DefaultRegion and DefaultBucket if "".
	ProjectID, Region, Bucket string
	// Logger gets the requests and failures of both services. nil is silence.
	Logger *slog.Logger
}

// Sandbox is a running sandbox.
type Sandbox struct {
	cfg                Config
	store              *objectstore.Store
	images             *imageservice.Service
	storeSrv, imageSrv *http.Server
	storeURL, imageURL string

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
	credentials := func(accessKey string) (string, bool) { return cfg.SecretKey, accessKey == cfg.AccessKey }
	store, err := objectstore.Open(cfg.DataDir, objectstore.Options{
		Credentials: credentials, Region: cfg.Region, Logger: cfg.Logger.With("service", "store"),
	})
	if err != nil {
		return abandon(fmt.Errorf("opening the sandbox's data: %w", err))
	}
	if err := store.CreateBucket(cfg.Bucket); err != nil && !errors.Is(err, objectstore.ErrBucketExists) {
		return abandon(errors.Join(fmt.Errorf("making the sandbox's bucket: %w", err), store.Close()))
	}
	s := &Sandbox{
		cfg: cfg, store: store,
		images: imageservice.New(imageservice.Config{
			Objects: objects{store}, Credentials: credentials, ProjectID: cfg.ProjectID,
			Logger: cfg.Logger.With("service", "images"),
		}),
		storeURL: "http://" + storeListener.Addr().String(),
		imageURL: "http://" + imageListener.Addr().String(),
	}
	s.serving, s.ended = errgroup.WithContext(context.Background())
	s.storeSrv = s.serve(storeListener, store.Handler())
	s.imageSrv = s.serve(imageListener, s.images)
	return s, nil
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
		ErrorLog: slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelWarn),
	}
	s.serving.Go(func() error {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("the sandbox stopped serving: %w", err)
		}
		return nil
	})
	return srv
}

// StoreEndpoint returns the object store's address, "http://HOST:PORT".
func (s *Sandbox) StoreEndpoint() string { return s.storeURL }

// ImageEndpoint returns the image service's address, "http://HOST:PORT".
func (s *Sandbox) ImageEndpoint() string { return s.imageURL }

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
		s.images.Close()
		stop(ctx, s.storeSrv)
		s.err = errors.Join(s.serving.Wait(), s.store.Close())
	})
	return s.err
}

// stop lets requests under way end until ctx does, then cuts their connections.
func stop(ctx context.Context, srv *http.Server) {
	if srv.Shutdown(ctx) != nil {
		_ = srv.Close() // only repeats failures to close a listener or connection that is of no more use
	}
}

// objects lets the image service read the store.
type objects struct{ store *objectstore.Store }

// OpenObject implements imageservice.Objects.
func (o objects) OpenObject(_ context.Context, bucket, key string) (formats.Source, error) {
	object, err := o.store.OpenObject(bucket, key)
	switch {
	case errors.Is(err, objectstore.ErrNoSuchBucket) || errors.Is(err, objectstore.ErrNoSuchKey):
		return nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	case err != nil:
		return nil, err
	}
	return object, nil
}
