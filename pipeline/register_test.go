package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"imgferry/ims"
	"imgferry/pipeline"
)

// service is an image service in memory that can lose its answers.
type service struct {
	mu     sync.Mutex
	images []ims.Image
	jobs   map[string]ims.Job
	posts  int
	// post, if not nil, decides about the n-th request: whether it is carried out, and the error of
	// the answer.
	post func(n int) (done bool, err error)
	// hidden is how many lists do not show new images yet.
	hidden int
	// puts is how often an image with metadata was given its file; put decides about the n-th as post does.
	puts int
	put  func(n int) (done bool, err error)
	// calls are the names of the calls that began an image; keys the encryption keys, in order.
	calls, keys []string
}

func (s *service) QuickImport(_ context.Context, r ims.QuickImportRequest) (string, error) {
	return s.begin("QuickImport", "", r)
}

func (s *service) CreateImage(_ context.Context, r ims.CreateImageRequest) (string, error) {
	return s.begin("CreateImage", r.CMKID, ims.QuickImportRequest{Name: r.Name, MinDisk: r.MinDisk, ImageTags: r.ImageTags})
}

func (s *service) CreateDataImage(_ context.Context, r ims.DataImageRequest) (string, error) {
	return s.begin("CreateDataImage", r.CMKID, ims.QuickImportRequest{Name: r.Name, MinDisk: r.MinDisk, ImageTags: r.ImageTags})
}

func (s *service) begin(call, key string, r ims.QuickImportRequest) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.posts++
	s.calls, s.keys = append(s.calls, call), append(s.keys, key)
	done, err := true, error(nil)
	if s.post != nil {
		done, err = s.post(s.posts)
	}
	job := fmt.Sprintf("job%d", s.posts)
	if done {
		s.add(job, r)
	}
	return job, err
}

// CreateMetadata makes an image that is queued until Register.
func (s *service) CreateMetadata(_ context.Context, r ims.MetadataRequest) (ims.Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.posts++
	s.calls = append(s.calls, "CreateMetadata")
	done, err := true, error(nil)
	if s.post != nil {
		done, err = s.post(s.posts)
	}
	m := ims.Image{ID: fmt.Sprintf("queued%d", s.posts), Name: r.Name, Status: ims.StatusQueued, MinDisk: r.MinDisk, Tags: r.Tags, Created: time.Unix(int64(len(s.images)), 0)}
	if done {
		s.images = append(s.images, m)
	}
	if err != nil {
		return ims.Image{}, err
	}
	return m, nil
}

// Register is refused for an image that is not queued, as the service does.
func (s *service) Register(_ context.Context, id, imageURL string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.puts++
	done, err := true, error(nil)
	if s.put != nil {
		done, err = s.put(s.puts)
	}
	i := slices.IndexFunc(s.images, func(m ims.Image) bool { return m.ID == id })
	switch {
	case i < 0:
		return "", &ims.APIError{Op: "register", Status: 404}
	case s.images[i].Status != ims.StatusQueued:
		return "", &ims.APIError{Op: "register", Status: 400, Code: "IMG.1075"}
	case done:
		s.images[i].Status = ims.StatusActive
		if s.jobs == nil {
			s.jobs = map[string]ims.Job{}
		}
		s.jobs["job-of-"+id] = ims.Job{ID: "job-of-" + id, Status: ims.JobSuccess} // tells no image
	}
	return "job-of-" + id, err
}

func (s *service) DeleteImage(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.images = slices.DeleteFunc(s.images, func(m ims.Image) bool { return m.ID == id })
	return nil
}

func (s *service) add(job string, r ims.QuickImportRequest) {
	m := ims.Image{ID: "image-of-" + job, Name: r.Name, Status: ims.StatusActive, MinDisk: r.MinDisk, Created: time.Unix(int64(len(s.images)), 0)}
	for _, t := range r.TagList() {
		m.Tags = append(m.Tags, t.Key+"="+t.Value)
	}
	s.images = append(s.images, m)
	if s.jobs == nil {
		s.jobs = map[string]ims.Job{}
	}
	s.jobs[job] = ims.Job{ID: job, Status: ims.JobSuccess, ImageID: m.ID}
}

func (s *service) Job(_ context.Context, id string) (ims.Job, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	j, ok := s.jobs[id]
	if !ok {
		return j, ims.ErrNotFound
	}
	return j, nil
}

func (s *service) WaitJob(ctx context.Context, id string, _ ims.Wait) (ims.Job, error) {
	return s.Job(ctx, id)
}

func (s *service) Image(_ context.Context, id string) (ims.Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.images {
		if m.ID == id {
			return m, nil
		}
	}
	return ims.Image{}, ims.ErrNotFound
}

func (s *service) WaitImage(ctx context.Context, id string, _ ims.Wait) (ims.Image, error) {
	m, err := s.Image(ctx, id)
	if m.Status == ims.StatusKilled {
		return m, &ims.ImageError{ID: id, Status: m.Status}
	}
	m.Status = ims.StatusActive
	return m, err
}

func (s *service) Images(_ context.Context, filter url.Values) ([]ims.Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if filter.Has("tag") && s.hidden > 0 {
		s.hidden--
		return nil, nil
	}
	var list []ims.Image
	for _, m := range s.images {
		if filter.Has("tag") && !slices.Contains(m.Tags, filter.Get("tag")) ||
			filter.Has("status") && m.Status != filter.Get("status") || filter.Has("name") && m.Name != filter.Get("name") {
			continue
		}
		list = append(list, m)
	}
	return list, nil
}

// lost is an answer that never came.
func lost() error { return &ims.APIError{Op: "start the fast import", MaybeDone: true} }

// registering is a push that registers with s and keeps notes in dir. What it notices goes to notes.
func registering(t *testing.T, c cloud, s *service, dir string, notes *[]string) pipeline.Push {
	p := c.push(rawDisk(t, 4, 1))
	p.Images, p.StateDir, p.NewImage, p.Settle = s, dir, false, 200*time.Millisecond
	p.Notice = func(n string) { *notes = append(*notes, n) }
	return p
}

// TestRegisterOnce: whatever happens to a request and its answer, the disk becomes one image.
func TestRegisterOnce(t *testing.T) {
	refused := &ims.APIError{Op: "start the fast import", Status: 400, Code: "IMG.0001"}
	for _, c := range []struct {
		name   string
		post   func(n int) (bool, error)
		hidden int
		posts  int
		want   error
	}{
		{name: "all well", posts: 1},
		{name: "the answer is lost", post: func(int) (bool, error) { return true, lost() }, posts: 1},
		{name: "the answer is lost, and the image is slow to show", post: func(int) (bool, error) { return true, lost() }, hidden: 3, posts: 1},
		{name: "the request is lost", post: func(n int) (bool, error) {
			if n == 1 {
				return false, lost()
			}
			return true, nil
		}, posts: 2},
		{name: "all requests are lost", post: func(int) (bool, error) { return false, lost() }, posts: 3, want: lost()},
		{name: "refused", post: func(int) (bool, error) { return false, refused }, posts: 1, want: refused},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var notes []string
			s := &service{post: c.post, hidden: c.hidden}
			p := registering(t, newCloud(t), s, t.TempDir(), &notes)
			r, err := p.Run(t.Context())
			if (err == nil) != (c.want == nil) || s.posts != c.posts {
				t.Fatalf("%d requests, %v; want %d, %v (%q)", s.posts, err, c.posts, c.want, notes)
			}
			if c.want != nil {
				if !strings.Contains(err.Error(), c.want.Error()) {
					t.Errorf("%v, want %v", err, c.want)
				}
				return
			}
			if len(s.images) != 1 || r.ImageID != s.images[0].ID || r.ImageStatus != ims.StatusActive {
				t.Errorf("%+v of %+v", r, s.images)
			}
		})
	}
}

// TestPushedAgain: the second push reports the image that is there, and sends nothing.
func TestPushedAgain(t *testing.T) {
	var notes []string
	s := &service{}
	c := newCloud(t)
	p := registering(t, c, s, t.TempDir(), &notes)
	p.DeleteObject = true
	first, err := p.Run(t.Context())
	if err != nil || first.Adopted || !first.ObjectDeleted {
		t.Fatalf("%+v, %v", first, err)
	}
	again, err := p.Run(t.Context())
	if err != nil || !again.Adopted || again.ImageID != first.ImageID || again.Sent != 0 || again.ObjectDeleted || s.posts != 1 {
		t.Errorf("%+v, %v, %d requests", again, err, s.posts)
	}
	// Another image is wanted, and the answer is lost: the older one is not it.
	q := p
	q.NewImage = true
	s.post = func(n int) (bool, error) { return true, lost() }
	if r, err := q.Run(t.Context()); err != nil || r.ImageID == first.ImageID || len(s.images) != 2 {
		t.Errorf("another image, the answer lost: %+v, %v", r, err)
	}
	s.post = nil
	s.images = s.images[:1]
	// Another content, another size, another name: another image.
	for name, change := range map[string]func(*pipeline.Push){
		"content":   func(p *pipeline.Push) { p.Disk = rawDisk(t, 4, 2) },
		"min disk":  func(p *pipeline.Push) { p.MinDisk = 7 },
		"name":      func(p *pipeline.Push) { p.Name = "another" },
		"new image": func(p *pipeline.Push) { p.NewImage = true },
	} {
		q := p
		change(&q)
		before := s.posts
		if r, err := q.Run(t.Context()); err != nil || r.Adopted || s.posts != before+1 {
			t.Errorf("another %s: %+v, %v, %d requests", name, r, err, s.posts-before)
		}
	}
}

// TestTakenUp: a run that was killed while it registered left a note.
func TestTakenUp(t *testing.T) {
	for _, took := range []bool{true, false} {
		var notes []string
		dir := t.TempDir()
		s := &service{}
		s.post = func(n int) (bool, error) { return took || n > 1, nil }
		c := newCloud(t)
		p := registering(t, c, s, dir, &notes)
		ctx, cancel := context.WithCancel(t.Context())
		p.Images = &cancelling{s, cancel}
		if _, err := p.Run(ctx); err == nil {
			t.Fatal("the killed run succeeded")
		}
		p.Images = s
		s.hidden = 2
		r, err := p.Run(t.Context())
		want := 2
		if took {
			want = 1
		}
		if err != nil || s.posts != want || len(s.images) != 1 || r.ImageID != s.images[0].ID || r.Adopted != took {
			t.Errorf("the service took it: %v: %+v, %v, %d requests, %d images (%q)", took, r, err, s.posts, len(s.images), notes)
		}
	}
}

// cancelling ends its caller in the middle of the request to register.
type cancelling struct {
	*service
	cancel func()
}

func (c *cancelling) QuickImport(ctx context.Context, r ims.QuickImportRequest) (string, error) {
	c.service.QuickImport(ctx, r)
	c.cancel()
	return "", &ims.APIError{Op: "start the fast import", MaybeDone: true, Err: context.Canceled}
}

// TestJobTakenUp: a run that was killed while it waited left the job's id.
func TestJobTakenUp(t *testing.T) {
	var notes []string
	dir := t.TempDir()
	s := &service{}
	c := newCloud(t)
	p := registering(t, c, s, dir, &notes)
	p.NoWait = true
	first, err := p.Run(t.Context())
	if err != nil || first.JobID == "" {
		t.Fatalf("%+v, %v", first, err)
	}
	s.images[0].Tags = nil // the image does not show by its tag
	p.NoWait = false
	r, err := p.Run(t.Context())
	if err != nil || r.JobID != first.JobID || r.ImageID != s.images[0].ID || s.posts != 1 {
		t.Errorf("%+v, %v, %d requests (%q)", r, err, s.posts, notes)
	}
}

// TestFoundImages: which images are taken for the one that was asked for.
func TestFoundImages(t *testing.T) {
	for _, c := range []struct {
		name     string
		statuses []string
		adopted  string
		noted    string
		err      error
	}{
		{"on its way", []string{ims.StatusSaving}, "image-of-0", "under way", nil},
		{"queued", []string{ims.StatusQueued}, "image-of-0", "under way", nil},
		{"killed", []string{ims.StatusKilled}, "", "", nil},
		{"two", []string{ims.StatusActive, ims.StatusActive}, "image-of-0", "2 images have this name and content: image-of-0, image-of-1", nil},
		{"killed, then active", []string{ims.StatusKilled, ims.StatusActive}, "image-of-1", "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var notes []string
			s := &service{}
			p := registering(t, newCloud(t), s, t.TempDir(), &notes)
			first, err := p.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			made := s.images[0]
			s.images = nil
			for i, status := range c.statuses {
				m := made
				m.ID, m.Status, m.Created = fmt.Sprintf("image-of-%d", i), status, time.Unix(int64(i), 0)
				s.images = append(s.images, m)
			}
			r, err := p.Run(t.Context())
			if err != nil || r.Adopted != (c.adopted != "") || r.Adopted && r.ImageID != c.adopted || !r.Adopted && r.ImageID == first.ImageID && s.posts != 2 {
				t.Errorf("%+v, %v, want %q", r, err, c.adopted)
			}
			if !strings.Contains(strings.Join(notes, "\n"), c.noted) {
				t.Errorf("%q does not say %q", notes, c.noted)
			}
		})
	}
	var notes []string
	s := &service{}
	p := registering(t, newCloud(t), s, t.TempDir(), &notes)
	if _, err := p.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.images[0].Status = ims.StatusSaving
	killing := &killer{s}
	p.Images = killing
	if _, err := p.Run(t.Context()); !errors.As(err, new(*ims.ImageError)) {
		t.Errorf("an image that is killed while it is waited for: %v", err)
	}
}

// killer kills the image that is waited for.
type killer struct{ *service }

func (k *killer) WaitImage(ctx context.Context, id string, w ims.Wait) (ims.Image, error) {
	k.images[0].Status = ims.StatusKilled
	return k.service.WaitImage(ctx, id, w)
}

// TestDeletedImage: an image that somebody deleted is made again, whatever notes say.
func TestDeletedImage(t *testing.T) {
	var notes []string
	s := &service{}
	p := registering(t, newCloud(t), s, t.TempDir(), &notes)
	p.NoWait = true
	if _, err := p.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.images = nil
	p.NoWait = false
	r, err := p.Run(t.Context())
	if err != nil || len(s.images) != 1 || r.ImageID != s.images[0].ID || s.posts != 2 {
		t.Errorf("%+v, %v, %d requests (%q)", r, err, s.posts, notes)
	}
}

// TestNewImageAfterNote: the note on an earlier registration is not the one that is wanted.
func TestNewImageAfterNote(t *testing.T) {
	var notes []string
	s := &service{}
	p := registering(t, newCloud(t), s, t.TempDir(), &notes)
	p.NoWait = true
	if _, err := p.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.NewImage, p.NoWait = true, false
	r, err := p.Run(t.Context())
	if err != nil || len(s.images) != 2 || r.ImageID != s.images[1].ID || r.Adopted {
		t.Errorf("%+v, %v, %d images (%q)", r, err, len(s.images), notes)
	}
}

// TestOtherKind: an image for other machines is not this one; one with other properties is told.
func TestOtherKind(t *testing.T) {
	var notes []string
	s := &service{}
	p := registering(t, newCloud(t), s, t.TempDir(), &notes)
	if _, err := p.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.images[0].VirtualEnv, s.images[0].Firmware, s.images[0].OSVersion = "DataImage", "bios", "Other Linux(64 bit)"
	if r, err := p.Run(t.Context()); err != nil || r.Adopted || len(s.images) != 2 {
		t.Errorf("a data image: %+v, %v", r, err)
	}
	s.images = s.images[:1]
	s.images[0].VirtualEnv, s.images[0].Firmware = "FusionCompute", "uefi"
	if r, err := p.Run(t.Context()); err != nil || r.Adopted || len(s.images) != 2 {
		t.Errorf("an image for arm: %+v, %v", r, err)
	}
	s.images = s.images[:1]
	s.images[0].Firmware = "bios"
	p.OSVersion, notes = "Debian GNU/Linux 12.0.0 64bit", nil
	p.Tags = []ims.Tag{{Key: "a", Value: "b"}}
	r, err := p.Run(t.Context())
	if told := strings.Join(notes, "\n"); err != nil || !r.Adopted || !strings.Contains(told, `its OS version is "Other Linux(64 bit)", not "Debian`) || !strings.Contains(told, `no tag "a=b"`) {
		t.Errorf("%+v, %v, %q", r, err, notes)
	}
}

// TestPushedAtOnce: many pushes of one disk at once make one image.
func TestPushedAtOnce(t *testing.T) {
	s := &service{}
	c, dir := newCloud(t), t.TempDir()
	disk := rawDisk(t, 4, 1)
	ids := make([]string, 6)
	var wg sync.WaitGroup
	for i := range ids {
		var notes []string
		p := registering(t, c, s, dir, &notes)
		p.Disk = disk
		wg.Go(func() {
			r, err := p.Run(t.Context())
			if err != nil {
				t.Errorf("push %d: %v", i, err)
			}
			ids[i] = r.ImageID
		})
	}
	wg.Wait()
	if len(s.images) != 1 || s.posts != 1 {
		t.Errorf("%d images, %d requests", len(s.images), s.posts)
	}
	for _, id := range ids {
		if id != s.images[0].ID {
			t.Errorf("%q", ids)
		}
	}
}

// TestNowhereForNotes: nothing is sent if no note could be kept.
func TestNowhereForNotes(t *testing.T) {
	var notes []string
	s := &service{}
	c := newCloud(t)
	p := registering(t, c, s, "/dev/null/nowhere", &notes)
	r, err := p.Run(t.Context())
	if err == nil || r.Sent != 0 || s.posts != 0 || !strings.Contains(err.Error(), "XDG_STATE_HOME") {
		t.Errorf("%+v, %v", r, err)
	}
}
