package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"imgferry/formats"
	"imgferry/ims"
	"imgferry/limits"
	"imgferry/pipeline"
)

// once is false the first time.
func once(n int) bool { return n > 1 }

// huge is a disk that says that it is larger than an ordinary import takes.
type huge struct{ formats.Image }

func (huge) Size() int64 { return limits.MaxFile + 512 }

// TestWays: each way makes its own calls, and one image of them.
func TestWays(t *testing.T) {
	for _, c := range []struct {
		via, kind string
		calls     string
		minDisk   int
	}{
		{"", "", "QuickImport", 1},
		{pipeline.ViaFast, limits.TypeData, "QuickImport", 1},
		{pipeline.ViaImport, "", "CreateImage", 40},
		{pipeline.ViaImport, limits.TypeBMS, "CreateImage", 40},
		{pipeline.ViaImport, limits.TypeData, "CreateDataImage", 40},
		{pipeline.ViaRegister, "", "CreateMetadata", 1},
	} {
		t.Run(c.via+c.kind, func(t *testing.T) {
			t.Parallel()
			var notes []string
			s := &service{}
			p := registering(t, newCloud(t), s, t.TempDir(), &notes)
			p.Via, p.Type, p.MinDisk = c.via, c.kind, 0
			if c.via == pipeline.ViaImport {
				p.CMKID = "the-key"
			}
			first, err := p.Run(t.Context())
			if err != nil || strings.Join(s.calls, " ") != c.calls || len(s.images) != 1 || first.ImageID != s.images[0].ID || first.ImageStatus != ims.StatusActive ||
				first.MinDisk != c.minDisk || first.JobID == "" {
				t.Fatalf("%+v, %v, calls %q, images %+v", first, err, s.calls, s.images)
			}
			if p.CMKID != "" && !slices.Contains(s.keys, p.CMKID) {
				t.Error("the key is not in the request")
			}
			again, err := p.Run(t.Context())
			if err != nil || !again.Adopted || again.ImageID != first.ImageID || s.posts != 1 {
				t.Errorf("again: %+v, %v", again, err)
			}
		})
	}
}

// TestWaysRefuse: what a way can't do is refused before anything is asked for.
func TestWaysRefuse(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*pipeline.Push)
		code   limits.Code
		says   string
	}{
		"no such way":              {func(p *pipeline.Push) { p.Via = "air" }, "", `"air"`},
		"fast, encrypted":          {func(p *pipeline.Push) { p.CMKID = "k" }, "", "use the way import"},
		"register, encrypted":      {func(p *pipeline.Push) { p.Via, p.CMKID = pipeline.ViaRegister, "k" }, "", "use the way import"},
		"register, project":        {func(p *pipeline.Push) { p.Via, p.EnterpriseProject = pipeline.ViaRegister, "k" }, "", "enterprise project"},
		"register, data":           {func(p *pipeline.Push) { p.Via, p.Type = pipeline.ViaRegister, limits.TypeData }, "", "use fast or import"},
		"register, arm":            {func(p *pipeline.Push) { p.Via, p.Architecture = pipeline.ViaRegister, "arm" }, "", "use fast or import"},
		"import, 39 GB":            {func(p *pipeline.Push) { p.Via, p.MinDisk = pipeline.ViaImport, 39 }, limits.DiskSize, "40 to 1024"},
		"import, above 128 GB":     {func(p *pipeline.Push) { p.Via, p.Disk.Image = pipeline.ViaImport, huge{p.Disk.Image} }, limits.FileTooLarge, "use a fast import"},
		"register, above 128 GB":   {func(p *pipeline.Push) { p.Via, p.Disk.Image = pipeline.ViaRegister, huge{p.Disk.Image} }, limits.FileTooLarge, "128 GB"},
		"import, key that is none": {func(p *pipeline.Push) { p.Via, p.CMKID = pipeline.ViaImport, "a b" }, limits.KeyUnknown, "no id"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var notes []string
			s := &service{}
			p := registering(t, newCloud(t), s, t.TempDir(), &notes)
			p.MinDisk = 0
			c.change(&p)
			p.Bucket = nil // nothing is asked for
			_, err := p.Run(t.Context())
			var rule *limits.Error
			if !errors.As(err, &rule) || rule.Code != c.code || !strings.Contains(err.Error(), c.says) || s.posts != 0 {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestWaysOnce: whatever happens to a request and its answer, the disk becomes one image.
func TestWaysOnce(t *testing.T) {
	refused := &ims.APIError{Op: "register", Status: 400, Code: "IMG.1075"}
	always := func(done bool, err error) func(int) (bool, error) {
		return func(int) (bool, error) { return done, err }
	}
	for _, c := range []struct {
		name, via   string
		post, put   func(n int) (bool, error)
		hidden      int
		posts, puts int
		fails       bool
		left        int // images
	}{
		{name: "import, the answer is lost", via: pipeline.ViaImport, post: always(true, lost()), posts: 1, left: 1},
		{name: "import, the request is lost", via: pipeline.ViaImport, post: func(n int) (bool, error) {
			if once(n) {
				return true, nil
			}
			return false, lost()
		}, posts: 2, left: 1},
		{name: "metadata, the answer is lost", via: pipeline.ViaRegister, post: always(true, lost()), hidden: 2, posts: 1, puts: 1, left: 1},
		{name: "metadata, the request is lost", via: pipeline.ViaRegister, post: func(n int) (bool, error) {
			if once(n) {
				return true, nil
			}
			return false, lost()
		}, posts: 2, puts: 1, left: 1},
		{name: "metadata, refused", via: pipeline.ViaRegister, post: always(false, refused), posts: 1, fails: true},
		{name: "register, the answer is lost", via: pipeline.ViaRegister, put: always(true, lost()), posts: 1, puts: 1, left: 1},
		{name: "register, the request is lost", via: pipeline.ViaRegister, put: func(n int) (bool, error) {
			if once(n) {
				return true, nil
			}
			return false, lost()
		}, posts: 1, puts: 2, left: 1},
		{name: "register, all requests are lost", via: pipeline.ViaRegister, put: always(false, lost()), posts: 1, puts: 3, fails: true, left: 1},
		{name: "register, refused", via: pipeline.ViaRegister, put: always(false, refused), posts: 1, puts: 1, fails: true, left: 0},
		{name: "register, carried out but refused", via: pipeline.ViaRegister, put: always(true, refused), posts: 1, puts: 1, left: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var notes []string
			s := &service{post: c.post, put: c.put, hidden: c.hidden}
			p := registering(t, newCloud(t), s, t.TempDir(), &notes)
			p.Via, p.MinDisk = c.via, 0
			r, err := p.Run(t.Context())
			if (err != nil) != c.fails || s.posts != c.posts || s.puts != c.puts || len(s.images) != c.left {
				t.Fatalf("%v, %d and %d requests, %+v (%q)", err, s.posts, s.puts, s.images, notes)
			}
			if !c.fails && (r.ImageID != s.images[0].ID || r.ImageStatus != ims.StatusActive) {
				t.Errorf("%+v of %+v", r, s.images)
			}
			// The next run finds what is there, or makes what is not.
			s.post, s.put, s.hidden = nil, nil, 0
			if r, err = p.Run(t.Context()); err != nil || len(s.images) != 1 || r.ImageID != s.images[0].ID || s.images[0].Status != ims.StatusActive {
				t.Errorf("the next run: %+v, %v, %+v", r, err, s.images)
			}
		})
	}
}

// dying is a service whose caller is killed in the middle of a call.
type dying struct {
	*service
	kill func()
}

func (d *dying) CreateMetadata(ctx context.Context, r ims.MetadataRequest) (ims.Image, error) {
	m, err := d.service.CreateMetadata(ctx, r)
	if d.kill != nil && err == nil {
		d.kill()
		return ims.Image{}, lost()
	}
	return m, err
}

// dyingLate is killed between the metadata and the file, or after the file was asked for.
type dyingLate struct {
	*service
	kill func()
	took bool
}

func (d *dyingLate) Register(ctx context.Context, id, url string) (string, error) {
	if d.took {
		d.service.Register(ctx, id, url)
	}
	d.kill()
	return "", &ims.APIError{Op: "register", MaybeDone: true, Err: context.Canceled}
}

// TestWaysTakenUp: a run that was killed leaves an image with metadata only. Whatever way the next one is
// told to go, it goes on with that image.
func TestWaysTakenUp(t *testing.T) {
	for _, late := range []string{"with the metadata", "before the file", "with the file"} {
		for _, via := range []string{pipeline.ViaRegister, pipeline.ViaFast} {
			for _, elsewhere := range []bool{false, true} {
				if elsewhere && via == pipeline.ViaFast {
					continue // without the note, it can't be told from an import under way
				}
				t.Run(fmt.Sprint(late, via, elsewhere), func(t *testing.T) {
					t.Parallel()
					var notes []string
					s := &service{}
					p := registering(t, newCloud(t), s, t.TempDir(), &notes)
					p.Via = pipeline.ViaRegister
					ctx, cancel := context.WithCancel(t.Context())
					switch late {
					case "with the metadata":
						p.Images = &dying{s, cancel}
					default:
						p.Images = &dyingLate{s, cancel, late == "with the file"}
					}
					if _, err := p.Run(ctx); err == nil {
						t.Fatal("the killed run succeeded")
					}
					if late == "with the metadata" && via == pipeline.ViaFast {
						return // the image's id was never known
					}
					p.Images, p.Via = s, via
					if elsewhere {
						p.StateDir = t.TempDir()
					}
					r, err := p.Run(t.Context())
					if err != nil || len(s.images) != 1 || r.ImageID != s.images[0].ID || s.images[0].Status != ims.StatusActive || s.posts != 1 {
						t.Errorf("%+v, %v, %d requests, %+v (%q)", r, err, s.posts, s.images, notes)
					}
				})
			}
		}
	}
}

// TestMetadataDeleted: an image with metadata that somebody deleted is made again.
func TestMetadataDeleted(t *testing.T) {
	var notes []string
	s := &service{put: func(int) (bool, error) { return false, lost() }}
	p := registering(t, newCloud(t), s, t.TempDir(), &notes)
	p.Via = pipeline.ViaRegister
	if _, err := p.Run(t.Context()); err == nil {
		t.Fatal("every request was lost, but the run succeeded")
	}
	s.images, s.put = nil, nil
	r, err := p.Run(t.Context())
	if err != nil || len(s.images) != 1 || r.ImageID != s.images[0].ID || s.posts != 2 {
		t.Errorf("%+v, %v, %d requests (%q)", r, err, s.posts, notes)
	}
}

// TestImportNeedsNoBitmap: a raw disk goes without the bitmap that only a fast import reads.
func TestImportNeedsNoBitmap(t *testing.T) {
	for via, want := range map[string]bool{pipeline.ViaFast: true, pipeline.ViaImport: false} {
		var notes []string
		c := newCloud(t)
		p := registering(t, c, &service{}, t.TempDir(), &notes)
		p.Via, p.Format, p.MinDisk, p.Key = via, pipeline.Raw, 0, "disk.raw"
		if _, err := p.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := c.bucket.Stat(t.Context(), limits.BitmapKey(p.Key)); (err == nil) != want {
			t.Errorf("%s: %v", via, err)
		}
	}
}
