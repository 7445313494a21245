package ims

import (
	"context"
	"encoding/json"
	"net/http"

	"imgferry/limits"
)

// checked is a request that knows the service's rules for it.
type checked interface{ Check() error }

// start makes a call that starts a job, and returns the job's id.
func (c *Client) start(ctx context.Context, k call, request checked) (jobID string, err error) {
	err = c.change(ctx, k, request, func(p []byte) (err error) {
		jobID, err = decodeJobID(p)
		return err
	})
	return jobID, err
}

// change makes a call with a body.
func (c *Client) change(ctx context.Context, k call, request checked, decode func([]byte) error) (err error) {
	if err := request.Check(); err != nil {
		return err
	}
	if k.body, err = json.Marshal(request); err != nil {
		return err
	}
	return c.do(ctx, k, decode)
}

// Job returns the state of a job (reference, 5.5.1).
func (c *Client) Job(ctx context.Context, id string) (Job, error) {
	return c.job(ctx, id, "/v1/"+c.cfg.ProjectID+"/jobs/")
}

// JobProgress returns the state of a job by the path that the vendor's console uses, for services that
// don't have the other.
func (c *Client) JobProgress(ctx context.Context, id string) (Job, error) {
	return c.job(ctx, id, "/v1/cloudimages/job/")
}

func (c *Client) job(ctx context.Context, id, path string) (Job, error) {
	if err := checkID(id, limits.ObjectUnknown, "job"); err != nil {
		return Job{}, err
	}
	var j Job
	err := c.do(ctx, call{op: "query job " + id, method: http.MethodGet, path: path + id}, func(p []byte) (err error) {
		j, err = decodeJob(p)
		return err
	})
	if err != nil {
		return Job{}, err
	}
	j.ID = id
	return j, nil
}
