// Package imageservice is the sandbox's image service: an http.Handler that answers the calls of the
// Image Management Service that an import needs, in the service's own words, and really imports.
//
// A fast import reads its object from the store that Config names, checks every structure and every block
// of it, and only then makes the image active.
//
// What was answered survives kill -9 and power loss: images and jobs are in a database, see state. A job that
// had not ended when the service stopped, in whatever way, goes on with the next start under its old id, as
// jobs of a cloud outlive the machine that they ran on: it waits its turn as INIT again, its image is queued,
// and it begins again, since it only reads. A client that polls sees its progress go back to 0 and the job
// end as if nothing had been.
//
// It is not a store of objects (package objectstore is) and boots nothing.
package imageservice

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"sync"
	"time"

	"imgferry/formats"
	"imgferry/limits"
)

const (
	// maxRequest is the longest body taken, in bytes: longer ones can't be signed (reference, 3.2).
	maxRequest = 12 << 20
	// defaultImports is how many imports run at once; the others wait their turn.
	defaultImports = 2
	// maxImports bounds the imports that run and wait together, before IMG.0060.
	maxImports = 1000
	// defaultBodyTimeout is how long a client may take to send a request's body: 12 MB at 1.6 Mbit/s.
	defaultBodyTimeout = time.Minute
	// recordInterval is how long the service waits before it tries again to record how a job ended, on a
	// disk that may be full.
	recordInterval = time.Second
)

// Objects is where the files to import are: an object store.
type Objects interface {
	// OpenObject opens an object for reading. The error matches fs.ErrNotExist if there is no such
	// bucket or object. If the Source is a formats.HoleFinder too, large empty disks import quickly.
	OpenObject(ctx context.Context, bucket, key string) (formats.Source, error)
}

// Config says whom the service serves.
type Config struct {
	// Objects is required.
	Objects Objects
	// Database is the file that holds images and jobs. It is made if it is missing. Required.
	Database string
	// NoSync skips fsync: faster, and nothing survives a power loss. For tests.
	NoSync bool
	// Authorize says who may call: it returns nil, or a clause that says why not. It must be safe for
	// concurrent use. Required.
	Authorize func(r *http.Request, body []byte) error
	// ProjectID is the one project there is.
	ProjectID string
	// Now is the clock. nil is time.Now.
	Now func() time.Time
	// Logger gets a line for each request and each import's end. nil is silence.
	Logger *slog.Logger
	// Imports is how many imports run at once. 0 is 2.
	Imports int
	// Workers is how many goroutines decode for one import, about 6 MiB of memory each. 0 is one for
	// each processor, up to four.
	Workers int
	// BodyTimeout is how long a client may take to send a request's body. 0 is a minute.
	BodyTimeout time.Duration
}

// Service is the image service. It is an http.Handler, safe for concurrent use.
type Service struct {
	cfg    Config
	routes []route
	state  *state

	ctx    context.Context // ends with Close; imports run under it
	cancel context.CancelFunc
	turns  chan struct{} // one token for each import that runs

	mu       sync.Mutex // guards what follows, and orders running.Add before Close's Wait
	closed   bool
	pending  int
	progress map[string]float64 // 0 to 1, by the id of a job that runs
	running  sync.WaitGroup
}

// Open returns a service with the images and jobs of its database, and goes on with the jobs that had not
// ended. Close ends it. It fails if the database is in use, damaged, or not one of this service.
func Open(cfg Config) (*Service, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Imports <= 0 {
		cfg.Imports = defaultImports
	}
	if cfg.Workers <= 0 {
		cfg.Workers = min(runtime.GOMAXPROCS(0), 4)
	}
	if cfg.BodyTimeout <= 0 {
		cfg.BodyTimeout = defaultBodyTimeout
	}
	state, err := openState(cfg.Database, cfg.NoSync)
	if err != nil {
		return nil, err
	}
	waiting, err := state.rewind()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading image database %s: %w", cfg.Database, err), state.close())
	}
	s := &Service{cfg: cfg, state: state, turns: make(chan struct{}, cfg.Imports), progress: make(map[string]float64)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.routes = s.table()
	for _, u := range waiting {
		cfg.Logger.Info("import goes on", "job", u.job.ID, "object", u.image.Request.ImageURL)
		s.start(func() { s.runImport(u.job.ID, u.image.Request) })
	}
	return s, nil
}

// Close stops every import and waits for it; its job goes on with the next Open. New imports are refused from
// now on, and other requests are answered with 503.
func (s *Service) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.running.Wait()
	return s.state.close()
}

// Healthy returns nil if the service can answer.
func (s *Service) Healthy() error {
	_, _, err := s.state.job("")
	return err
}

// begin runs f in a goroutine that Close waits for, unless the service is closed or has too much to do.
func (s *Service) begin(f func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return errStopping
	case s.pending == maxImports:
		return refuse(limits.TooManyTasks, "%d imports are under way", s.pending)
	}
	s.start(f)
	return nil
}

// start is begin with s.mu held, or before anybody else has s.
func (s *Service) start(f func()) {
	s.pending++
	s.running.Go(func() {
		defer func() {
			s.mu.Lock()
			s.pending--
			s.mu.Unlock()
		}()
		f()
	})
}

// request is a request whose signature has been verified.
type request struct {
	*http.Request
	body []byte
	vars map[string]string // what stands for {name} in the route
}

// ServeHTTP answers one request. Each answer has an X-Request-Id.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := randomHex(16)
	w.Header().Set("X-Request-Id", id)
	status, answer, err := s.serve(w, r)
	if err != nil {
		status, answer = errorAnswer(err, id)
	}
	s.cfg.Logger.Info("request", "id", id, "method", r.Method, "path", r.URL.Path, "status", status, "error", err)
	if answer == nil {
		w.WriteHeader(status)
		return
	}
	body, err := json.Marshal(answer)
	if err != nil {
		s.cfg.Logger.Error("answer can't be encoded", "id", id, "error", err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that is gone has no use for an error
}

// errStopping is the answer of a service that is closing or closed.
var errStopping = answerWith(http.StatusServiceUnavailable, limits.SystemError, "the service is stopping")

func (s *Service) serve(w http.ResponseWriter, r *http.Request) (status int, answer any, err error) {
	if s.ctx.Err() != nil {
		return 0, nil, errStopping
	}
	handle, vars, err := s.find(w, r)
	if err != nil {
		return 0, nil, err
	}
	body, err := s.readBody(w, r)
	if err != nil {
		return 0, nil, err
	}
	if err := s.authorize(r, body); err != nil {
		return 0, nil, err
	}
	if project, ok := vars["project_id"]; ok && project != s.cfg.ProjectID {
		return 0, nil, refuse(limits.ProjectWrong, "project %s is not served here", shown(project))
	}
	return handle(request{r, body, vars})
}

// readBody reads all of a request's body, for no longer than Config.BodyTimeout.
func (s *Service) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	// Fails only where deadlines are unknown. The server moves it for the connection's next request.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.cfg.BodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	var tooLong *http.MaxBytesError
	switch {
	case err == nil:
		return body, nil
	case errors.As(err, &tooLong):
		return nil, answerWith(http.StatusRequestEntityTooLarge, limits.RequestFormat, "the body is longer than 12 MB")
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.Header().Set("Connection", "close") // or net/http would wait for the rest
		return nil, answerWith(http.StatusRequestTimeout, limits.RequestFormat, "the body did not arrive in time")
	}
	return nil, refuse(limits.RequestFormat, "the body broke off")
}

// authorize verifies who sent r.
func (s *Service) authorize(r *http.Request, body []byte) error {
	if err := s.cfg.Authorize(r, body); err != nil {
		return answerWith(http.StatusUnauthorized, gatewayUnauthorized, "Incorrect IAM authentication information: "+err.Error())
	}
	// Clients may add the header after signing; where it is there it must be right.
	if p := r.Header.Get("X-Project-Id"); p != "" && p != s.cfg.ProjectID {
		return refuse(limits.ProjectWrong, "project %s is not served here", shown(p))
	}
	return nil
}
