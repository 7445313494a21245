package imageservice

import (
	"slices"
	"sync"
	"time"

	"imgferry/ims"
)

// image is what the service keeps of an image. Its fields are plain data, so that a database can keep
// them.
type image struct {
	ID, Owner  string
	Status     string // ims.Status...
	DiskFormat string
	FileSize   int64 // of the object it was made from, in bytes
	Request    ims.QuickImportRequest
	Created    time.Time
	Updated    time.Time
	Active     time.Time // when it became active, or zero
	number     int64     // order of creation: times may be equal
}

// job is what the service keeps of a job.
type job struct {
	ID, Type, ImageID string
	ImageName         string
	Status            ims.JobStatus
	Progress          float64 // 0 to 1
	Code, Reason      string  // of a failed job
	Begin, End        time.Time
}

// state is all that the service remembers. Each method is one transaction: what it changes is seen as a
// whole or not at all. Callers get copies.
type state struct {
	mu     sync.Mutex
	images map[string]image
	jobs   map[string]job
	count  int64 // of images ever made
}

func newState() *state {
	return &state{images: make(map[string]image), jobs: make(map[string]job)}
}

// create adds an image and the job that makes it.
func (s *state) create(i image, j job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	i.number = s.count
	s.images[i.ID], s.jobs[j.ID] = i, j
}

// update changes a job and its image together.
func (s *state) update(jobID string, change func(*job, *image)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.jobs[jobID]
	i := s.images[j.ImageID]
	change(&j, &i)
	s.jobs[jobID], s.images[j.ImageID] = j, i
}

// job returns a job.
func (s *state) job(id string) (job, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	j, ok := s.jobs[id]
	return j, ok
}

// list returns every image, newest first.
func (s *state) list() []image {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]image, 0, len(s.images))
	for _, i := range s.images {
		all = append(all, i)
	}
	slices.SortFunc(all, func(a, b image) int { return int(b.number - a.number) })
	return all
}

// remove deletes an image if allowed says nothing against it.
func (s *state) remove(id string, allowed func(i image, ok bool) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.images[id]
	if err := allowed(i, ok); err != nil {
		return err
	}
	delete(s.images, id)
	return nil
}

// discard undoes create.
func (s *state) discard(jobID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.images, s.jobs[jobID].ImageID)
	delete(s.jobs, jobID)
}
