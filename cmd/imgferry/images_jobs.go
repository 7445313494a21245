package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imgferry/ims"
)

// jobCommand is what the verbs that start a job of the image service have in common.
type jobCommand struct {
	imagesCommand
	noWait  bool
	timeout time.Duration
}

func (a *app) jobBase() jobCommand { return jobCommand{imagesCommand: a.imagesBase()} }

func (c *jobCommand) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&c.noWait, "no-wait", false, "print the job's id instead of waiting for its end")
	c.timeoutFlag(cmd)
	c.imagesCommand.flags(cmd)
}

func (c *jobCommand) timeoutFlag(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&c.timeout, "wait-timeout", time.Hour, "how long to wait for the job; 0: without a limit")
}

// started is what a verb that starts a job reports.
type started struct {
	JobID     string `json:"job_id"`
	JobStatus string `json:"job_status,omitempty"`
	// ImageID is the image that the job made or was about.
	ImageID string `json:"image_id,omitempty"`
	// Object is what an export wrote, BUCKET:KEY.
	Object string `json:"object,omitempty"`
	// Results are what became of each part of a batch.
	Results []partReport `json:"results,omitempty"`
}

// run starts a job and waits for its end. begin may fill in what the report knows before; answer writes
// the report for a person.
func (c *jobCommand) run(ctx context.Context, begin func(*ims.Client, *started) (jobID string, err error), answer func(io.Writer, started) error) error {
	if c.timeout < 0 {
		return usagef("--wait-timeout takes a positive time")
	}
	client, stop, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer stop()
	var r started
	if r.JobID, err = begin(client, &r); err != nil {
		return unsure(err, "images list")
	}
	if c.noWait {
		return c.out.emit(r, func(w io.Writer) error { return printLine(w, r.JobID) })
	}
	job, err := c.wait(ctx, client, r.JobID)
	if err != nil {
		return err
	}
	r.JobStatus = string(job.Status)
	if job.ImageID != "" {
		r.ImageID = job.ImageID
	}
	for _, part := range job.Results {
		r.Results = append(r.Results, partReport{part.ImageID, part.ProjectID, part.Status})
	}
	if err := c.out.emit(r, func(w io.Writer) error { return answer(w, r) }); err != nil {
		return err
	}
	return failedParts(job)
}

// wait waits for a job and tells how far it is.
func (c *jobCommand) wait(ctx context.Context, client *ims.Client, id string) (ims.Job, error) {
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	job, err := client.WaitJob(ctx, id, ims.Wait{Interval: c.pace.poll, Outage: c.pace.outage, Progress: c.jobProgress()})
	var ended *ims.WaitError
	switch {
	case errors.As(err, &ended):
		err = &advised{err, []string{"The job goes on without this program; to wait for it again:  imgferry jobs wait " + id}}
	case errors.As(err, new(*ims.JobError)):
		err = &advised{err, []string{"The code is explained in the service's list of error codes."}}
	}
	return job, err
}

// jobProgress tells each change of a job once.
func (a *app) jobProgress() func(ims.Job) {
	last := ""
	return func(j ims.Job) {
		if now := fmt.Sprintf("job: %s, %.0f%%", strings.ToLower(string(j.Status)), j.Progress*100); now != last {
			a.say("%s", now)
			last = now
		}
	}
}

// partReport is one part of a batch as it is shown.
type partReport struct {
	ImageID   string `json:"image_id"`
	ProjectID string `json:"project_id,omitempty"`
	Status    string `json:"status"`
}

// failedParts is the error of a batch that succeeded in part only, or nil.
func failedParts(job ims.Job) error {
	var failed []string
	for _, r := range job.Results {
		if !r.OK() {
			failed = append(failed, fmt.Sprintf("image %s for project %s: %s", r.ImageID, r.ProjectID, r.Status))
		}
	}
	if len(failed) == 0 {
		return nil
	}
	reason := fmt.Sprintf("%d of %d parts did not succeed: %s", len(failed), len(job.Results), strings.Join(failed, "; "))
	return &advised{&ims.JobError{JobID: job.ID, Reason: reason}, []string{"The other parts were carried out."}}
}

// unsure adds to the error of a call whose answer was lost the command that shows whether it was carried
// out.
func unsure(err error, look string) error {
	var call *ims.APIError
	if errors.As(err, &call) && call.MaybeDone {
		return &advised{err, []string{"Before trying again, look whether it was:  imgferry " + look}}
	}
	return err
}

func printLine(w io.Writer, line string) error {
	_, err := fmt.Fprintln(w, oneLine(line))
	return err
}
