package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"imgferry/ims"
)

func (a *app) jobsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "jobs",
		Short: "Show or await jobs of the image service",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.jobsShowCommand(), a.jobsWaitCommand())
	return cmd
}

// jobReport is a job as it is shown.
type jobReport struct {
	ID     string `json:"id"`
	Type   string `json:"type,omitempty"`
	Status string `json:"status"`
	// Progress goes from 0 to 1.
	Progress  float64      `json:"progress"`
	Task      string       `json:"task,omitempty"`
	ImageID   string       `json:"image_id,omitempty"`
	ImageName string       `json:"image_name,omitempty"`
	Code      string       `json:"error_code,omitempty"`
	Reason    string       `json:"fail_reason,omitempty"`
	Begin     time.Time    `json:"begin,omitzero"`
	End       time.Time    `json:"end,omitzero"`
	Results   []partReport `json:"results,omitempty"`
	SubJobs   []jobReport  `json:"sub_jobs,omitempty"`
	SubJobIDs []string     `json:"sub_job_ids,omitempty"`
}

func jobReportOf(j ims.Job) jobReport {
	r := jobReport{
		ID: j.ID, Type: j.Type, Status: string(j.Status), Progress: j.Progress, Task: j.Task, ImageID: j.ImageID, ImageName: j.ImageName,
		Code: j.Code, Reason: j.Reason, Begin: j.Begin, End: j.End, SubJobIDs: j.SubJobIDs,
	}
	for _, p := range j.Results {
		r.Results = append(r.Results, partReport{p.ImageID, p.ProjectID, p.Status})
	}
	for _, s := range j.SubJobs {
		r.SubJobs = append(r.SubJobs, jobReportOf(s))
	}
	return r
}

func jobFields(w io.Writer, r jobReport) error {
	err := printFields(w, [][2]string{
		{"id", r.ID}, {"type", r.Type}, {"status", r.Status}, {"progress", fmt.Sprintf("%.0f%%", r.Progress*100)}, {"task", r.Task},
		{"image", r.ImageID}, {"name", r.ImageName}, {"error code", r.Code}, {"reason", r.Reason}, {"begun", whenWords(r.Begin)}, {"ended", whenWords(r.End)},
	})
	if err == nil && len(r.Results) > 0 {
		err = partTable(w, r.Results)
	}
	var rows [][]string
	for _, s := range r.SubJobs {
		rows = append(rows, []string{s.ID, s.Status, s.ImageID, s.ImageName, s.Reason})
	}
	if err == nil && len(rows) > 0 {
		err = printTable(w, []string{"SUB-JOB", "STATUS", "IMAGE", "NAME", "REASON"}, rows)
	}
	return err
}

func (a *app) jobsShowCommand() *cobra.Command {
	c := a.imagesBase()
	cmd := &cobra.Command{
		Use:     "show JOB",
		Short:   "Show one job",
		Long:    "Show prints what the image service says of a job. A job that failed is no failure of the command.",
		Example: "  imgferry jobs show ff8080814dbd65d7014dbe0d84db0013",
		Args:    cobra.ExactArgs(1),
	}
	c.flags(cmd)
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		client, stop, err := c.connect(cmd.Context())
		if err != nil {
			return err
		}
		defer stop()
		job, err := findJob(cmd.Context(), client, args[0])
		if err != nil {
			return err
		}
		r := jobReportOf(job)
		return c.out.emit(r, func(w io.Writer) error { return jobFields(w, r) })
	}
	return cmd
}

// findJob asks for a job by the one path and, where there is none, by the other.
func findJob(ctx context.Context, client *ims.Client, id string) (ims.Job, error) {
	job, err := client.Job(ctx, id)
	if errors.Is(err, ims.ErrNotFound) {
		if other, failed := client.JobProgress(ctx, id); failed == nil {
			return other, nil
		}
	}
	return job, err
}

func (a *app) jobsWaitCommand() *cobra.Command {
	c := a.jobBase()
	cmd := &cobra.Command{
		Use:   "wait JOB",
		Short: "Wait until a job has ended",
		Long: `Wait waits until a job of the image service has ended and prints the id of the image that
it made, if it made one. Exit code 8: the job failed.`,
		Example: "  imgferry jobs wait $(imgferry push --no-wait disk.qcow2)",
		Args:    cobra.ExactArgs(1),
	}
	c.timeoutFlag(cmd)
	c.imagesCommand.flags(cmd)
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if c.timeout < 0 {
			return usagef("--wait-timeout takes a positive time")
		}
		client, stop, err := c.connect(cmd.Context())
		if err != nil {
			return err
		}
		defer stop()
		job, err := c.wait(cmd.Context(), client, args[0])
		var told *advised
		switch {
		case errors.Is(err, ims.ErrNotFound) && errors.As(err, &told):
			return told.error // there is nothing to wait for again
		case err != nil:
			return err
		}
		err = c.out.emit(jobReportOf(job), func(w io.Writer) error {
			if job.ImageID == "" {
				return nil
			}
			return printLine(w, job.ImageID)
		})
		return errors.Join(err, failedParts(job))
	}
	return cmd
}

// whenWords is nothing for what has not happened yet.
func whenWords(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return dateWords(t)
}
