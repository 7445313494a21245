// Package imageservice is the sandbox's image service: an http.Handler that answers the calls of the Image
// Management Service, in the service's own words, and really does what they ask for.
//
// An import reads its object from the store that Config names, decodes every block of it, keeps the disk in
// a folder of its own, and only then makes the image active. An export writes the disk back to the store, in
// the format asked for. Instances, volumes and backups, which a sandbox has not got, are files that
// Config.Resources names; other regions are lists of images that can be looked at under another host name.
//
// What was answered survives kill -9 and power loss: images and jobs are in a database, see state. A job that
// had not ended when the service stopped, in whatever way, goes on with the next start under its old id, as
// jobs of a cloud outlive the machine that they ran on. It begins its work again, but never tells less
// progress than it has told before. Ended jobs and deleted images are forgotten after 30 days, or when there
// are 10,000 newer ones.
//
// It is not a store of objects (package objectstore is) and boots nothing.
//
// One file holds one kind of calls; routes.go lists them all.
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
	"slices"
	"strings"
	"sync"
	"time"

	"imgferry/formats"
	"imgferry/formats/raw"
	"imgferry/formats/zvhd2"
	"imgferry/ims"
	"imgferry/limits"
)

const (
	// maxRequest is the longest body taken, in bytes: longer ones can't be signed (reference, 3.2).
	maxRequest = 12 << 20
	// defaultImports is how many imports, exports and copies run at once; the others wait their turn.
	defaultImports = 2
	// defaultMaxJobs bounds the jobs that run and wait together, before IMG.0060.
	defaultMaxJobs = 1000
	// defaultBodyTimeout is how long a client may take to send a request's body: 12 MB at 1.6 Mbit/s.
	defaultBodyTimeout = time.Minute
	// uploadTimeout is how long an image file may take: 2 GB at 5 Mbit/s.
	uploadTimeout = time.Hour
	// recordInterval is how long the service waits before it tries again to record how a job ended, on a
	// disk that may be full.
	recordInterval = time.Second
	// defaultQuota is how many images a project may have: the most that the reference's example shows.
	defaultQuota = 1000
	// forgetEvery is after how many new jobs old ones are looked for.
	forgetEvery = 1000
)

// ErrNoBucket is what errors of Objects match if there is no such bucket.
var ErrNoBucket = errors.New("no such bucket")

// Objects is where image files come from and go to: an object store.
type Objects interface {
	// OpenObject opens an object for reading. The error matches fs.ErrNotExist if there is no such
	// bucket or object, and ErrNoBucket too in the first case. If the Source is a formats.HoleFinder
	// too, large empty disks import quickly.
	OpenObject(ctx context.Context, bucket, key string) (formats.Source, error)
	// PutObject stores what r gives as an object, which is there as a whole or not at all.
	PutObject(ctx context.Context, bucket, key string, r io.Reader) error
}

// Config says whom the service serves.
type Config struct {
	// Objects is required.
	Objects Objects
	// Database is the file that holds images and jobs. It is made if it is missing; beside it is a folder
	// of its name and ".disks" with the disks of the images. Required.
	Database string
	// NoSync skips the database's fsync: faster, and nothing survives a power loss. For tests.
	NoSync bool
	// Authorize says who calls: it returns the project that the caller acts for, or a clause that says
	// why it may not. It must be safe for concurrent use. Required.
	Authorize func(r *http.Request, body []byte) (project string, err error)
	// ProjectID is the project that a request is for if it names none. OtherProjects are served too: images
	// can be shared with them.
	ProjectID     string
	OtherProjects []string
	// Region is the service's own region.
	Region string
	// Quota is how many images a project may have. 0 is 1000.
	Quota int
	// MaxJobs is how many jobs may run and wait together. 0 is 1000.
	MaxJobs int
	// Formats is the table of formats that image files may have, in the order of probing. nil is ZVHD2 and raw.
	Formats []formats.Format
	// Resources are what images can be made from besides objects.
	Resources Resources
	// Now is the clock. nil is time.Now.
	Now func() time.Time
	// Logger gets a line for each request and each job's end. nil is silence.
	Logger *slog.Logger
	// Imports is how many imports, exports and copies run at once. 0 is 2.
	Imports int
	// Workers is how many goroutines decode for one of them, about 10 MiB of memory each. 0 is one for
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
	disks  disks
	counts counts

	ctx    context.Context // ends with Close; jobs run under it
	cancel context.CancelFunc
	turns  chan struct{} // one token for each job that runs

	mu       sync.Mutex // guards what follows, and orders running.Add before Close's Wait
	closed   bool
	pending  int
	begun    int                // jobs since the last look for old ones
	progress map[string]float64 // 0 to 1, by the id of a job that runs
	running  sync.WaitGroup
}

// complete fills in defaults.
func (c Config) complete() Config {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Imports <= 0 {
		c.Imports = defaultImports
	}
	if c.Workers <= 0 {
		c.Workers = min(runtime.GOMAXPROCS(0), 4)
	}
	if c.BodyTimeout <= 0 {
		c.BodyTimeout = defaultBodyTimeout
	}
	if c.Quota <= 0 {
		c.Quota = defaultQuota
	}
	if c.MaxJobs <= 0 {
		c.MaxJobs = defaultMaxJobs
	}
	if c.Formats == nil {
		c.Formats = []formats.Format{zvhd2.Format(), raw.Format()}
	}
	return c
}

// Open returns a service with the images and jobs of its database, and goes on with the jobs that had not
// ended. Close ends it. It fails if the database is in use, damaged, or not one of this service.
func Open(cfg Config) (*Service, error) {
	cfg = cfg.complete()
	state, err := openState(cfg.Database, cfg.NoSync)
	if err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, state: state, turns: make(chan struct{}, cfg.Imports), progress: make(map[string]float64)}
	s.disks = disks{dir: cfg.Database + ".disks", formats: cfg.Formats, workers: cfg.Workers}
	s.counts.init()
	waiting, err := s.recover()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading image database %s: %w", cfg.Database, err), state.close())
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.routes = s.table()
	for _, j := range waiting {
		cfg.Logger.Info("job goes on", "job", j.ID, "type", j.Type, "image", j.ImageID)
		s.start(func() { s.runJob(j.ID) })
	}
	return s, nil
}

// recover mends what a sudden end left: uploads that broke off can begin again, disks of no image are
// removed. It returns the jobs that had not ended, oldest first.
func (s *Service) recover() (waiting []job, err error) {
	used := make(map[string]bool)
	err = s.state.update(func(t tx) error {
		var broken []image
		err := each(t, imagesBucket, func(i image) {
			for _, d := range i.Disks {
				used[d.Name] = true
			}
			if i.Native && i.Status == ims.StatusSaving {
				broken = append(broken, i)
			}
		})
		if err != nil {
			return err
		}
		if waiting, err = t.openJobs(func(j job) bool { return j.Parent == "" }); err != nil {
			return err
		}
		for _, i := range broken {
			if slices.ContainsFunc(waiting, func(j job) bool { return j.ImageID == i.ID }) {
				continue
			}
			i.Status = ims.StatusQueued
			if err := t.putImage(&i); err != nil {
				return err
			}
		}
		_, err = t.forget(s.cfg.Now().Add(-historyAge), historySize)
		return err
	})
	if err != nil {
		return nil, err
	}
	return waiting, s.disks.open(used)
}

// Close stops every job and waits for it; it goes on with the next Open. New jobs are refused from now on,
// and other requests are answered with 503.
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

// reserve makes room for a job that start will run, unless the service is closed or has too much to do.
func (s *Service) reserve() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return errStopping
	case s.pending >= s.cfg.MaxJobs:
		return refuse(limits.TooManyTasks, "%d jobs are under way", s.pending)
	}
	s.pending++
	s.running.Add(1)
	return nil
}

// release gives back what reserve or start took.
func (s *Service) release() {
	s.mu.Lock()
	s.pending--
	s.mu.Unlock()
	s.running.Done()
}

// start runs f, for which reserve made no room, before anybody else has s.
func (s *Service) start(f func()) {
	s.pending++
	s.running.Add(1)
	go func() {
		defer s.release()
		f()
	}()
}

// request is a request of a caller who is known.
type request struct {
	*http.Request
	w       http.ResponseWriter // for calls that answer with more than JSON
	body    []byte
	vars    map[string]string // what stands for {name} in the route
	project string            // that the caller acts for
	region  string            // "" is the service's own
}

// decode reads a JSON body.
func (r request) decode(v any) error {
	if len(strings.TrimSpace(string(r.body))) == 0 {
		return refuse(limits.RequestEmpty, "send a JSON object")
	}
	if err := json.Unmarshal(r.body, v); err != nil {
		return refuse(limits.RequestFormat, "%s", err)
	}
	return nil
}

// ServeHTTP answers one request. Each answer has an X-Request-Id.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := randomHex(16)
	w.Header().Set("X-Request-Id", id)
	status, answer, pattern, err := s.serve(w, r)
	if err != nil {
		status, answer = errorAnswer(r.URL.Path, err, id)
	}
	s.counts.request(r.Method, pattern, status)
	s.cfg.Logger.Info("request", "id", id, "method", r.Method, "path", r.URL.Path, "status", status, "error", err)
	switch answer := answer.(type) {
	case nil:
		w.WriteHeader(status)
	case download:
		answer.send(w, status)
	default:
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
}

// errStopping is the answer of a service that is closing or closed.
var errStopping = answerWith(http.StatusServiceUnavailable, limits.SystemError, "the service is stopping")

func (s *Service) serve(w http.ResponseWriter, r *http.Request) (status int, answer any, pattern string, err error) {
	if s.ctx.Err() != nil {
		return 0, nil, "", errStopping
	}
	rt, vars, err := s.find(w, r)
	if err != nil {
		return 0, nil, "", err
	}
	q := request{Request: r, w: w, vars: vars}
	// A token tells who calls without the body: image files need not fit in memory, nor in 12 MB.
	if !rt.streams || r.Header.Get("X-Auth-Token") == "" {
		if q.body, err = s.readBody(w, r); err != nil {
			return 0, nil, rt.path, err
		}
	}
	if !rt.open {
		if err := s.authorize(&q); err != nil {
			return 0, nil, rt.path, err
		}
	}
	if q.region, err = s.regionOf(r); err != nil {
		return 0, nil, rt.path, err
	}
	status, answer, err = rt.handle(q)
	return status, answer, rt.path, err
}

// readBody reads all of a request's body, for no longer than Config.BodyTimeout.
func (s *Service) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	// Fails only where deadlines are unknown. The server moves it for the connection's next request.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.cfg.BodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		return nil, bodyFailure(w, err, "12 MB")
	}
	return body, nil
}

// bodyFailure is the answer to a body that could not be read to its end.
func bodyFailure(w http.ResponseWriter, err error, most string) error {
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &tooLong):
		return answerWith(http.StatusRequestEntityTooLarge, limits.RequestFormat, "the body is longer than "+most)
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.Header().Set("Connection", "close") // or net/http would wait for the rest
		return answerWith(http.StatusRequestTimeout, limits.RequestFormat, "the body did not arrive in time")
	}
	return refuse(limits.RequestFormat, "the body broke off")
}

// authorize finds out who sent q, and for which project: the credentials say, or the path, or a header that
// clients may add after signing.
func (s *Service) authorize(q *request) error {
	project, err := s.cfg.Authorize(q.Request, q.body)
	if err != nil {
		return answerWith(http.StatusUnauthorized, gatewayUnauthorized, "Incorrect IAM authentication information: "+err.Error())
	}
	named := q.vars["project_id"]
	if q.project = project; project == "" {
		q.project = s.cfg.ProjectID
		if named != "" {
			q.project = named
		}
	}
	for _, p := range []string{q.project, named, q.Header.Get("X-Project-Id")} {
		if p != "" && !s.serves(p) {
			return refuse(limits.ProjectWrong, "project %s is not served here", shown(p))
		}
	}
	if named != "" && named != q.project {
		return refuse(limits.ProjectForeign, "the path is of project %s, the credentials are of %s", shown(named), q.project)
	}
	return nil
}

// serves reports whether a project is the account's.
func (s *Service) serves(project string) bool {
	return project == s.cfg.ProjectID || slices.Contains(s.cfg.OtherProjects, project)
}

// regionSuffix follows a region's name in the host name under which its images are to be seen.
const regionSuffix = ".localhost"

// regionOf returns the region that a request's host name is of: NAME.localhost for another than the own.
func (s *Service) regionOf(r *http.Request) (string, error) {
	host, _, _ := strings.Cut(r.Host, ":")
	name, ok := strings.CutSuffix(host, regionSuffix)
	if !ok || name == s.cfg.Region {
		return "", nil
	}
	if _, ok := s.cfg.Resources.Regions[name]; !ok {
		return "", refuse(limits.RegionUnknown, "there is no region %s here", shown(name))
	}
	return name, nil
}
