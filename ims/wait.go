package ims

import (
	"context"
	"errors"
	"time"
)

const (
	// defaultInterval is the longest pause between two polls of a job; Terraform's provider polls as often.
	defaultInterval = 10 * time.Second
	// firstPoll is the pause before the first poll: small imports end within a second.
	firstPoll     = 250 * time.Millisecond
	defaultOutage = 5 * time.Minute
)

// Wait says how to wait for a job.
type Wait struct {
	// Interval is the longest pause between two polls; the first ones come sooner. 0 is 10 seconds.
	Interval time.Duration
	// Outage is how long the state may stay unknown before waiting gives up. 0 is five minutes.
	Outage time.Duration
	// Progress, if not nil, is called with each state seen, by the goroutine that waits.
	Progress func(Job)
}

func (w Wait) withDefaults() Wait {
	if w.Interval <= 0 {
		w.Interval = defaultInterval
	}
	if w.Outage <= 0 {
		w.Outage = defaultOutage
	}
	return w
}

// WaitJob polls a job until it ends and returns it as it ended. A job that ends with FAIL gives a
// *JobError. A *WaitError says that waiting ended before the job did: the context ended, the service
// refused the query, or could not be asked for w.Outage.
func (c *Client) WaitJob(ctx context.Context, id string, w Wait) (Job, error) {
	w = w.withDefaults()
	var last Job
	pause := min(firstPoll, w.Interval)
	for seen := time.Now(); ; pause = min(2*pause, w.Interval) {
		if err := sleep(ctx, pause); err != nil {
			return last, &WaitError{JobID: id, Last: last, Err: err}
		}
		j, err := c.Job(ctx, id)
		if err != nil {
			var fail *APIError
			transient := errors.As(err, &fail) && fail.Temporary
			if ctx.Err() != nil || !transient || time.Since(seen) > w.Outage {
				return last, &WaitError{JobID: id, Last: last, Err: err}
			}
			continue
		}
		seen, last = time.Now(), j
		if w.Progress != nil {
			w.Progress(j)
		}
		switch j.Status {
		case JobSuccess:
			return j, nil
		case JobFail:
			return j, &JobError{j.ID, j.Code, j.Reason}
		}
	}
}

// WaitImage polls an image until it is active and returns it. If its import fails meanwhile (it is
// killed, deleted or gone) the error is a *ImageError. w.Progress is not called. Waiting ends early as
// WaitJob's does, with a *WaitError that names the image.
func (c *Client) WaitImage(ctx context.Context, id string, w Wait) (Image, error) {
	w = w.withDefaults()
	var last Image
	pause := min(firstPoll, w.Interval)
	for seen := time.Now(); ; pause = min(2*pause, w.Interval) {
		img, err := c.Image(ctx, id)
		switch {
		case errors.Is(err, ErrNotFound):
			return last, &ImageError{id, StatusDeleted}
		case err != nil:
			var fail *APIError
			transient := errors.As(err, &fail) && fail.Temporary
			if ctx.Err() != nil || !transient || time.Since(seen) > w.Outage {
				return last, &WaitError{ImageID: id, Err: err}
			}
		default:
			seen, last = time.Now(), img
			switch img.Status {
			case StatusActive:
				return img, nil
			case StatusKilled, StatusDeleted:
				return img, &ImageError{id, img.Status}
			}
		}
		if err := sleep(ctx, pause); err != nil {
			return last, &WaitError{ImageID: id, Err: err}
		}
	}
}
