package pipeline

import (
	"cmp"
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
	// clockSkew is how far this machine's clock and the service's may be apart.
	clockSkew = 5 * time.Minute
	// registerTries is how often a request whose fate is unknown, and that left no trace, is sent.
	registerTries = 3
)

// register makes the image from the object, unless it is there or on its way already, and waits
// until it is usable.
func (p *Push) register(ctx context.Context, r *Report) error {
	note, err := p.openIntent(ctx, r)
	if err != nil {
		return p.unregistered(r, err)
	}
	defer note.release()
	switch {
	case note.Job != "" && p.NewImage:
		note.drop() // that registration was carried out; another image is wanted
	case note.Job != "":
		known, err := p.resume(ctx, r, note)
		if known {
			return err
		}
	case note.Image != "" && !p.NewImage:
		known, err := p.refill(ctx, r, note)
		if known {
			return err
		}
	}
	if !p.NewImage || !note.Since.IsZero() {
		// Until the request of a run that was killed must show. Of another image that is wanted,
		// only one that the killed run has made is the one.
		var made time.Time
		if p.NewImage {
			made = note.Since.Add(-clockSkew)
		}
		image, err := p.find(ctx, r, func(m ims.Image) bool { return !m.Created.Before(made) }, note.Since.Add(p.settle()))
		if err != nil {
			return p.unregistered(r, err)
		}
		if image != nil {
			return p.takeUp(ctx, r, note, *image)
		}
	}
	job, image, err := p.post(ctx, r, note)
	switch {
	case err != nil:
		return p.unregistered(r, err)
	case image != nil:
		return p.takeUp(ctx, r, note, *image)
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
	gone := errors.Is(err, ims.ErrNotFound) || err == nil && j.Status == ims.JobFail
	if err == nil && j.Status == ims.JobSuccess {
		// Somebody may have deleted the image since.
		var m ims.Image
		m, err = p.Images.Image(ctx, j.ImageID)
		gone = errors.Is(err, ims.ErrNotFound) || err == nil && (m.Status == ims.StatusKilled || m.Status == ims.StatusDeleted)
	}
	switch {
	case gone:
		note.drop()
		return false, nil
	case err != nil:
		return true, err
	}
	p.Notice(fmt.Sprintf("import job %s was started by an earlier run: going on with it", note.Job))
	return true, p.follow(ctx, r, note, note.Job)
}

// refill goes on with an image whose metadata an earlier run had made, unless it is gone or not what was
// noted any more.
func (p *Push) refill(ctx context.Context, r *Report, note *intent) (known bool, err error) {
	m, err := p.Images.Image(ctx, note.Image)
	switch {
	case errors.Is(err, ims.ErrNotFound), err == nil && (m.Status == ims.StatusKilled || m.Status == ims.StatusDeleted):
		note.drop()
		return false, nil
	case err != nil:
		return true, p.unregistered(r, err)
	}
	p.Notice(fmt.Sprintf("the metadata of image %s was made by an earlier run: going on with it", m.ID))
	return true, p.takeUp(ctx, r, note, m)
}

// takeUp goes on with an image that was found: one of which there is only the metadata gets its file, for
// any other it waits.
func (p *Push) takeUp(ctx context.Context, r *Report, note *intent, m ims.Image) error {
	if m.Status == ims.StatusQueued && (p.Via == ViaRegister || m.ID == note.Image) {
		return p.fill(ctx, r, note, m.ID)
	}
	return p.adopt(ctx, r, note, m)
}

// post asks for the import, or for the metadata that comes first. If the service's answer is lost, it
// looks for the image before it asks again.
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
		var made string
		job, made, err = p.begin(ctx, q)
		var call *ims.APIError
		unknown := errors.As(err, &call) && call.MaybeDone
		if err == nil && made != "" {
			if err := note.await(r, made); err != nil {
				p.Notice(fmt.Sprintf("the id of image %s could not be noted: %v", made, err))
			}
			return "", &ims.Image{ID: made, Status: ims.StatusQueued}, nil
		}
		if err == nil {
			if err := note.save(r, job); err != nil {
				p.Notice(fmt.Sprintf("the id of import job %s could not be noted: %v", job, err))
			}
			return job, nil, nil
		}
		if !unknown {
			note.drop()
			return "", nil, err
		}
		if ctx.Err() != nil {
			return "", nil, err // the note stays
		}
		p.Notice(fmt.Sprintf("the service's answer was lost (%v): looking whether the image is under way", err))
		image, lookErr := p.find(ctx, r, func(m ims.Image) bool { return !hasImage(before, m.ID) }, time.Now().Add(p.settle()))
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

// find looks for the image that a request like this one makes, among those that may be it, until it
// is there or the time has come. nil: there is none.
func (p *Push) find(ctx context.Context, r *Report, mayBe func(ims.Image) bool, until time.Time) (*ims.Image, error) {
	for told := false; ; told = true {
		found, err := p.alike(ctx, r, tagged(r))
		if err != nil {
			return nil, err
		}
		found = slices.DeleteFunc(found, func(m ims.Image) bool { return !mayBe(m) })
		if len(found) > 0 {
			return p.oldest(found), nil
		}
		if !told && time.Until(until) > 0 {
			p.Notice(fmt.Sprintf("an earlier request to register this image may be under way: waiting up to %.0f s for it to show", time.Until(until).Seconds()))
		}
		if over, err := p.pause(ctx, until); over || err != nil {
			return nil, err
		}
	}
}

// alike lists the images, usable or on their way, that a request like this one would make. The
// service lists one status at a time: in the order in which an image goes through them, so that none
// slips through while it changes.
func (p *Push) alike(ctx context.Context, r *Report, filter url.Values) ([]ims.Image, error) {
	var found []ims.Image
	for _, status := range []string{ims.StatusQueued, ims.StatusSaving, ims.StatusActive} {
		filter.Set("status", status)
		filter.Set("name", r.Name)
		images, err := p.Images.Images(ctx, filter)
		if err != nil {
			return nil, err
		}
		for _, m := range images {
			digest := r.Digest == "" && digestOf(m) != "" || slices.Contains(m.Tags, digestTag+"="+r.Digest)
			// The image counts in GiB, as the format does: that is the disk's size as far as it matters.
			if digest && m.Name == r.Name && m.MinDisk == r.MinDisk && m.Status == status && p.sameKind(m) &&
				!hasImage(found, m.ID) {
				found = append(found, m)
			}
		}
	}
	return found, nil
}

// sameKind says that m is for the machines that this push is for, as far as the service tells.
func (p *Push) sameKind(m ims.Image) bool {
	env := map[string]string{limits.TypeECS: "FusionCompute", limits.TypeBMS: "Ironic", limits.TypeData: "DataImage"}[cmp.Or(p.Type, limits.TypeECS)]
	if m.VirtualEnv != "" && m.VirtualEnv != env {
		return false
	}
	// Lists don't tell the architecture; images for arm boot by UEFI, those for x86 that are made here don't.
	return m.Firmware == "" || (m.Firmware == "uefi") == (p.Architecture == "arm")
}

// differences tells what of m is not as it was asked for.
func (p *Push) differences(m ims.Image) string {
	var list []string
	add := func(what, is, want string) {
		if is != "" && want != "" && is != want {
			list = append(list, fmt.Sprintf("its %s is %q, not %q", what, is, want))
		}
	}
	if p.Type != limits.TypeData {
		add("OS version", m.OSVersion, p.OSVersion)
	}
	add("description", cmp.Or(m.Description, "none"), p.Description)
	for _, t := range p.Tags {
		if tag := t.Key + "=" + t.Value; !slices.Contains(m.Tags, tag) {
			list = append(list, fmt.Sprintf("it has no tag %q", tag))
		}
	}
	return strings.Join(list, ", ")
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
	r.Digest = digest
	note, err := p.openIntent(ctx, r)
	if err != nil {
		return false, err
	}
	defer note.release()
	// One that has only metadata still needs the object.
	candidates = slices.DeleteFunc(candidates, func(m ims.Image) bool {
		return m.Status == ims.StatusQueued && (p.Via == ViaRegister || m.ID == note.Image)
	})
	if len(candidates) == 0 {
		return false, nil
	}
	if p.DeleteObject || p.Overwrite {
		p.Notice("nothing has to be sent: no object is written or deleted")
	}
	r.Key = "" // no object was looked at, and none will be deleted
	return true, p.adopt(ctx, r, note, *p.oldest(candidates))
}

// adopt takes an image that is there, or on its way, for the one that was asked for.
func (p *Push) adopt(ctx context.Context, r *Report, note *intent, m ims.Image) error {
	r.ImageID, r.ImageStatus, r.Adopted = m.ID, m.Status, true
	note.release() // others may go on
	if d := p.differences(m); d != "" {
		p.Notice(fmt.Sprintf("image %s has this name and content, but %s; --new-image makes another", m.ID, d))
	}
	if m.Status == ims.StatusActive {
		p.Notice(fmt.Sprintf("image %s has this name and content already", m.ID))
		note.drop()
		return p.finish(ctx, r)
	}
	p.Notice(fmt.Sprintf("image %s of this name and content is under way (%s)", m.ID, m.Status))
	if m.Status == ims.StatusQueued {
		// Nothing that the service documents tells an import that waits its turn from metadata that nobody
		// fills any more.
		p.Notice("if it stays queued, a push --via register was ended before it gave the image its file: the same push --via register goes on with it, and so does --new-image with another")
	}
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
	note.release() // the job's id is in it: others wait for the same job
	if p.NoWait {
		return nil
	}
	waiting, cancel := p.deadline(ctx)
	defer cancel()
	done, err := p.Images.WaitJob(waiting, job, p.Wait)
	r.ImageID = cmp.Or(done.ImageID, r.ImageID)
	if err != nil {
		if errors.As(err, new(*ims.JobError)) {
			note.drop()
		}
		return err
	}
	image, err := p.Images.Image(ctx, r.ImageID)
	if errors.Is(err, ims.ErrNotFound) {
		note.drop() // somebody deleted it
	}
	if err != nil {
		return fmt.Errorf("image %s was made, but can't be shown: %w", r.ImageID, err)
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
	if p.Format == Raw && p.fast() {
		keys = append(keys, limits.BitmapKey(r.Key))
	}
	for _, key := range keys {
		err := upload.Retry(ctx, p.Retry, "delete the object "+key, func(ctx context.Context) error {
			return p.Bucket.Remove(ctx, key)
		})
		if err != nil {
			return fmt.Errorf("image %s is usable, but the object could not be deleted: %w", r.ImageID, err)
		}
	}
	r.ObjectDeleted = true
	return nil
}
