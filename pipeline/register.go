package pipeline

import (
	"context"
	"fmt"

	"imgferry/ims"
	"imgferry/limits"
	"imgferry/upload"
)

// register makes the image from the object, and waits until it is usable.
func (p *Push) register(ctx context.Context, r *Report) error {
	q := p.request(r)
	q.ImageTags = append(q.ImageTags, ims.Tag{Key: digestTag, Value: r.Digest})
	job, err := p.Images.QuickImport(ctx, q)
	if err != nil {
		return fmt.Errorf("the object is in place as %s/%s, but it could not be registered: %w", p.BucketName, r.Key, err)
	}
	r.JobID = job
	p.Notice(fmt.Sprintf("import job %s has started", job))
	if p.NoWait {
		return nil
	}
	done, err := p.wait(ctx, job)
	r.ImageID = done.ImageID
	if err != nil {
		return err
	}
	image, err := p.Images.Image(ctx, done.ImageID)
	if err != nil {
		return fmt.Errorf("image %s was made, but can't be shown: %w", done.ImageID, err)
	}
	r.ImageStatus = image.Status
	if image.Status != ims.StatusActive {
		return fmt.Errorf("the job succeeded, but image %s is %s and not active", image.ID, image.Status)
	}
	if p.DeleteObject {
		return p.deleteObject(ctx, r)
	}
	return nil
}

func (p *Push) wait(ctx context.Context, job string) (ims.Job, error) {
	if p.WaitTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.WaitTimeout)
		defer cancel()
	}
	return p.Images.WaitJob(ctx, job, p.Wait)
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
