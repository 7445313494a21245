package pipeline

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"imgferry/ims"
	"imgferry/limits"
	"imgferry/upload"
)

const (
	// defaultSettle is how long a request to register may take to show in the list of images: longer
	// than the client waits for its answer.
	defaultSettle = 45 * time.Second
	// settlePoll is the pause between two looks, at most.
	settlePoll = 5 * time.Second
	// registerTries is how often a request whose fate is unknown, and that left no trace, is sent.
	registerTries = 3
)

// register makes the image from the object, unless it is there or on its way already, and waits
// until it is usable.
func (p *Push) register(ctx context.Context, r *Report) error {
	note, err := p.openIntent(r)
	if err != nil {
		return fmt.Errorf("the object is in place as %s/%s, but the note on its registration can't be read: %w", p.BucketName, r.Key, err)
	}
	if note.Job != "" {
		known, err := p.resume(ctx, r, note)
		if known {
			return err
		}
	}
	if !p.NewImage || !note.Since.IsZero() {
		// Until the request of a run that was killed must show.
		image, err := p.find(ctx, r, nil, note.Since.Add(p.settle()))
		if err != nil {
			return p.unregistered(r, err)
		}
		if image != nil {
			return p.adopt(ctx, r, note, *image)
		}
	}
	job, image, err := p.post(ctx, r, note)
	switch {
	case err != nil:
		return p.unregistered(r, err)
	case image != nil:
		return p.adopt(ctx, r, note, *image)
	}
	p.Notice(fmt.Sprintf("import job %s has started", job))
	return p.follow(ctx, r, note, job)
}

func (p *Push) unregistered(r *Report, err error) error {
	return fmt.Errorf("the object is in place as %s/%s, but it could not be registered: %w", p.BucketName, r.Key, err)
}

func (p *Push) settle() time.Duration {
	if p.Settle > 0 {
		return p.Settle
	}
	return defaultSettle
}

// resume takes up the job that an earlier run had started, unless the service knows nothing of it,
// or it has failed.
func (p *Push) resume(ctx context.Context, r *Report, note *intent) (known bool, err error) {
	j, err := p.Images.Job(ctx, note.Job)
	switch {
	case errors.Is(err, ims.ErrNotFound), err == nil && j.Status == ims.JobFail:
		note.drop()
		*note = intent{path: note.path}
		return false, nil
	case err != nil:
		return true, err
	}
	if j.Status == ims.JobSuccess && p.NewImage {
		return false, nil // it ended; another image is wanted
	}
	p.Notice(fmt.Sprintf("import job %s was started by an earlier run: going on with it", note.Job))
	return true, p.follow(ctx, r, note, note.Job)
}

// post asks for the import. If the service's answer is lost, it looks for the image before it
// asks again.
func (p *Push) post(ctx context.Context, r *Report, note *intent) (job string, image *ims.Image, err error) {
	// Another image is wanted: those that are there now are not it.
	var before []ims.Image
	if p.NewImage {
		if before, err = p.alike(ctx, r, tagged(r)); err != nil {
			return "", nil, err
		}
	}
	q := p.request(r)
	q.ImageTags = append(q.ImageTags, ims.Tag{Key: digestTag, Value: r.Digest})
	for try := 1; ; try++ {
		if err := note.save(r, ""); err != nil {
			return "", nil, fmt.Errorf("the note that a registration begins can't be written: %w", err)
		}
		job, err = p.Images.QuickImport(ctx, q)
		var call *ims.APIError
		unknown := errors.As(err, &call) && call.MaybeDone
		if err == nil {
			return job, nil, note.save(r, job)
		}
		if !unknown {
			note.drop()
			return "", nil, err
		}
		if ctx.Err() != nil {
			return "", nil, err // the note stays
		}
		p.Notice(fmt.Sprintf("the service's answer was lost (%v): looking whether the image is under way", err))
		image, lookErr := p.find(ctx, r, before, time.Now().Add(p.settle()))
		switch {
		case lookErr != nil:
			return "", nil, errors.Join(err, lookErr)
		case image != nil:
			return "", image, nil
		case try == registerTries:
			return "", nil, err
		}
	}
}

// tagged is the filter for images with the content of r.
func tagged(r *Report) url.Values { return url.Values{"tag": {digestTag + "=" + r.Digest}} }

// find looks for the image that a request like this one makes, and that is none of before, until it
// is there or the time has come. nil: there is none.
func (p *Push) find(ctx context.Context, r *Report, before []ims.Image, until time.Time) (*ims.Image, error) {
	for {
		found, err := p.alike(ctx, r, tagged(r))
		if err != nil {
			return nil, err
		}
		found = slices.DeleteFunc(found, func(m ims.Image) bool { return hasImage(before, m.ID) })
		if len(found) > 0 {
			return p.oldest(found), nil
		}
		pause := min(time.Until(until), settlePoll)
		if pause <= 0 {
			return nil, nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// alike lists the images, usable or on their way, that a request like this one would make. The
// service lists one status at a time.
func (p *Push) alike(ctx context.Context, r *Report, filter url.Values) ([]ims.Image, error) {
	var found []ims.Image
	for _, status := range []string{ims.StatusActive, ims.StatusSaving, ims.StatusQueued} {
		filter.Set("status", status)
		filter.Set("name", r.Name)
		images, err := p.Images.Images(ctx, filter)
		if err != nil {
			return nil, err
		}
		for _, m := range images {
			digest := r.Digest == "" && digestOf(m) != "" || slices.Contains(m.Tags, digestTag+"="+r.Digest)
			// The image counts in GiB, as the format does: that is the disk's size as far as it matters.
			if digest && m.Name == r.Name && m.MinDisk == r.MinDisk && m.Status == status &&
				!hasImage(found, m.ID) {
				found = append(found, m)
			}
		}
	}
	return found, nil
}

func hasImage(list []ims.Image, id string) bool {
	return slices.ContainsFunc(list, func(m ims.Image) bool { return m.ID == id })
}

// digestOf is the content digest that an image was tagged with, or "".
func digestOf(m ims.Image) string {
	for _, tag := range m.Tags {
		if d, ok := strings.CutPrefix(tag, digestTag+"="); ok {
			return d
		}
	}
	return ""
}

// oldest chooses among images that are alike, and tells of the others: none is ever deleted.
func (p *Push) oldest(found []ims.Image) *ims.Image {
	slices.SortStableFunc(found, func(a, b ims.Image) int { return a.Created.Compare(b.Created) })
	if len(found) > 1 {
		ids := make([]string, len(found))
		for i, m := range found {
			ids[i] = m.ID
		}
		p.Notice(fmt.Sprintf("%d images have this name and content: %s; using the oldest", len(found), strings.Join(ids, ", ")))
	}
	return &found[0]
}

// present looks, before anything is sent, for an image of this name that has this content. The disk
// is only read if there is one that may have.
func (p *Push) present(ctx context.Context, r *Report) (bool, error) {
	if p.NewImage {
		return false, nil
	}
	candidates, err := p.alike(ctx, &Report{Name: r.Name, MinDisk: r.MinDisk}, url.Values{})
	if err != nil || len(candidates) == 0 {
		return false, err
	}
	p.Notice(fmt.Sprintf("an image called %q exists: comparing its content with the disk's", r.Name))
	found, err := p.scan(ctx)
	if err != nil {
		return false, p.Disk.Explain(ctx, err)
	}
	digest := found.Digest.String()
	candidates = slices.DeleteFunc(candidates, func(m ims.Image) bool { return digestOf(m) != digest })
	if len(candidates) == 0 {
		return false, nil
	}
	if err := p.Disk.Unchanged(); err != nil {
		return false, err
	}
	r.Digest, r.Key = digest, "" // no object was looked at, and none will be deleted
	note, err := p.openIntent(r)
	if err != nil {
		return false, err
	}
	return true, p.adopt(ctx, r, note, *p.oldest(candidates))
}

// adopt takes an image that is there, or on its way, for the one that was asked for.
func (p *Push) adopt(ctx context.Context, r *Report, note *intent, m ims.Image) error {
	r.ImageID, r.ImageStatus, r.Adopted = m.ID, m.Status, true
	if m.Status == ims.StatusActive {
		p.Notice(fmt.Sprintf("image %s has this name and content already", m.ID))
		note.drop()
		return p.finish(ctx, r)
	}
	p.Notice(fmt.Sprintf("image %s of this name and content is under way (%s)", m.ID, m.Status))
	if p.NoWait {
		return nil
	}
	ctx, cancel := p.deadline(ctx)
	defer cancel()
	done, err := p.Images.WaitImage(ctx, m.ID, p.Wait)
	if err != nil {
		return err
	}
	r.ImageStatus = done.Status
	note.drop()
	return p.finish(ctx, r)
}

// follow waits for the import job and looks at the image it made.
func (p *Push) follow(ctx context.Context, r *Report, note *intent, job string) error {
	r.JobID = job
	if p.NoWait {
		return nil
	}
	waiting, cancel := p.deadline(ctx)
	defer cancel()
	done, err := p.Images.WaitJob(waiting, job, p.Wait)
	r.ImageID = done.ImageID
	if err != nil {
		if errors.As(err, new(*ims.JobError)) {
			note.drop()
		}
		return err
	}
	image, err := p.Images.Image(ctx, done.ImageID)
	if err != nil {
		return fmt.Errorf("image %s was made, but can't be shown: %w", done.ImageID, err)
	}
	note.drop()
	r.ImageStatus = image.Status
	if image.Status != ims.StatusActive {
		return fmt.Errorf("the job succeeded, but image %s is %s and not active", image.ID, image.Status)
	}
	return p.finish(ctx, r)
}

// deadline bounds the waiting as the user asked.
func (p *Push) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if p.WaitTimeout > 0 {
		return context.WithTimeout(ctx, p.WaitTimeout)
	}
	return context.WithCancel(ctx)
}

// finish runs when the image is usable.
func (p *Push) finish(ctx context.Context, r *Report) error {
	if p.DeleteObject && r.Key != "" {
		return p.deleteObject(ctx, r)
	}
	return nil
}

// deleteObject runs after success only: after a failure the object is what one looks into.
func (p *Push) deleteObject(ctx context.Context, r *Report) error {
	keys := []string{r.Key}
	if p.Format == Raw {
		keys = append(keys, limits.BitmapKey(r.Key))
	}
	for _, key := range keys {
		err := upload.Retry(ctx, p.Retry, "delete the object", func(ctx context.Context) error {
			return p.Bucket.Remove(ctx, key)
		})
		if err != nil {
			return fmt.Errorf("image %s is usable, but the object could not be deleted: %w", r.ImageID, err)
		}
	}
	r.ObjectDeleted = true
	return nil
}
