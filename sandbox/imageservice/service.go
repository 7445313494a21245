// Package imageservice is the sandbox's image service: an http.Handler that answers the calls of the
// Image Management Service that an import needs, in the service's own words, and really imports.
//
// A fast import reads its object from the store that Config names, checks every structure and every block
// of it, and only then makes the image active. Signatures are verified. State is kept in memory: a
// restarted service knows no images.
//
// It is not a store of objects (package objectstore is) and boots nothing.
package imageservice

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"sync"
	"time"

	"imgferry/formats"
	"imgferry/ims"
	"imgferry/limits"
)

const (
	// maxRequest is the longest body taken, in bytes: longer ones can't be signed (reference, 3.2).
	maxRequest = 12 << 20
	// defaultImports is how many imports run at once; the others wait their turn.
	defaultImports = 2
	// maxImports bounds the imports that run and wait together, before IMG.0060.
	maxImports = 1000
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
	// Credentials returns the secret of an access key. Required.
	Credentials func(accessKey string) (secret string, ok bool)
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
}

// Service is the image service. It is an http.Handler, safe for concurrent use.
type Service struct {
	cfg    Config
	routes []route
	state  *state

	ctx    context.Context // ends with Close; imports run under it
	cancel context.CancelFunc
	turns  chan struct{} // one token for each import that runs

	mu      sync.Mutex // guards closed and pending, and orders running.Add before Close's Wait
	closed  bool
	pending int
	running sync.WaitGroup
}

// New returns a service without images. Close ends its imports.
func New(cfg Config) *Service {
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
	s := &Service{cfg: cfg, state: newState(), turns: make(chan struct{}, cfg.Imports)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.routes = s.table()
	return s
}

// Close stops every import and waits for it; its job then reads FAIL. New imports are refused from now on.
func (s *Service) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.running.Wait()
}

// begin runs f in a goroutine that Close waits for, unless the service is closed or has too much to do.
func (s *Service) begin(f func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return answerWith(http.StatusServiceUnavailable, limits.SystemError, "the service is stopping")
	case s.pending == maxImports:
		return refuse(limits.TooManyTasks, "%d imports are under way", s.pending)
	}
	s.pending++
	s.running.Go(func() {
		defer func() {
			s.mu.Lock()
			s.pending--
			s.mu.Unlock()
		}()
		f()
	})
	return nil
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

func (s *Service) serve(w http.ResponseWriter, r *http.Request) (status int, answer any, err error) {
	handle, vars, err := s.find(w, r)
	if err != nil {
		return 0, nil, err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		var tooLong *http.MaxBytesError
		if errors.As(err, &tooLong) {
			return 0, nil, answerWith(http.StatusRequestEntityTooLarge, limits.RequestFormat, "the body is longer than 12 MB")
		}
		return 0, nil, refuse(limits.RequestFormat, "the body broke off")
	}
	if err := s.authorize(r, body); err != nil {
		return 0, nil, err
	}
	if project, ok := vars["project_id"]; ok && project != s.cfg.ProjectID {
		return 0, nil, refuse(limits.ProjectWrong, "project %s is not served here", shown(project))
	}
	return handle(request{r, body, vars})
}

// authorize verifies who sent r.
func (s *Service) authorize(r *http.Request, body []byte) error {
	deny := func(reason string) error {
		return answerWith(http.StatusUnauthorized, gatewayUnauthorized, "Incorrect IAM authentication information: "+reason)
	}
	if r.Header.Get("X-Auth-Token") != "" {
		return deny("tokens are not issued here, sign with AK/SK")
	}
	if _, err := ims.Verify(r, body, s.cfg.Credentials, s.cfg.Now()); err != nil {
		return deny(err.Error())
	}
	// Clients may add the header after signing; where it is there it must be right.
	if p := r.Header.Get("X-Project-Id"); p != "" && p != s.cfg.ProjectID {
		return refuse(limits.ProjectWrong, "project %s is not served here", shown(p))
	}
	return nil
}
