package imageservice

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"imgferry/ims"
	"imgferry/limits"
)

// quickImport is POST /v2/cloudimages/quickimport/action (reference, 5.1.4).
func (s *Service) quickImport(r request) (int, any, error) {
	if len(bytes.TrimSpace(r.body)) == 0 {
		return 0, nil, refuse(limits.RequestEmpty, "send a JSON object")
	}
	var q ims.QuickImportRequest
	if err := json.Unmarshal(r.body, &q); err != nil {
		return 0, nil, refuse(limits.RequestFormat, "%s", err)
	}
	if err := q.Check(); err != nil {
		return 0, nil, err
	}
	now := s.cfg.Now()
	img := image{ID: newUUID(), Owner: s.cfg.ProjectID, Status: ims.StatusQueued, DiskFormat: "zvhd2", Request: q, Created: now, Updated: now}
	j := job{ID: randomHex(16), Type: jobType(q.Type), Owner: img.Owner, ImageID: img.ID, ImageName: q.Name, Status: ims.JobInit, Begin: now}
	// On the disk before it runs and before the client hears of it.
	if err := s.state.create(img, j); err != nil {
		return 0, nil, err
	}
	if err := s.begin(func() { s.runImport(j.ID, q) }); err != nil {
		return 0, nil, errors.Join(err, s.state.discard(img, j))
	}
	return http.StatusOK, map[string]string{"job_id": j.ID}, nil
}

// jobType is the job_type of an import (reference, 5.5.1).
func jobType(imageType string) string {
	if imageType == limits.TypeData {
		return "imsImportDataImageJob"
	}
	return "imsImportImageJob"
}

// jobAnswer is the answer of the job query. Nulls, empty strings and numbers are as in its example.
type jobAnswer struct {
	Status     ims.JobStatus `json:"status"`
	Entities   jobEntities   `json:"entities"`
	JobID      string        `json:"job_id"`
	JobType    string        `json:"job_type"`
	BeginTime  string        `json:"begin_time"`
	EndTime    string        `json:"end_time"`
	ErrorCode  *string       `json:"error_code"`
	FailReason *string       `json:"fail_reason"`
}

type jobEntities struct {
	ImageID   string  `json:"image_id,omitempty"`
	ImageName string  `json:"image_name"`
	Task      string  `json:"current_task"`
	Percent   float64 `json:"process_percent"`
}

// showJob is GET /v1/{project_id}/jobs/{job_id} (reference, 5.5.1) and GET /v1/cloudimages/job/{job_id}.
func (s *Service) showJob(r request) (int, any, error) {
	j, ok, err := s.state.job(r.vars["job_id"])
	if err != nil {
		return 0, nil, err
	}
	if !ok || j.Owner != s.cfg.ProjectID {
		return 0, nil, answerWith(http.StatusNotFound, limits.ObjectUnknown, "there is no job "+shown(r.vars["job_id"]))
	}
	a := jobAnswer{
		Status: j.Status, JobID: j.ID, JobType: j.Type, BeginTime: jobTime(j.Begin), EndTime: jobTime(j.End),
		Entities: jobEntities{ImageID: j.ImageID, ImageName: j.ImageName, Task: "VerifyImageTask", Percent: s.progressOf(j)},
	}
	if j.Status == ims.JobFail {
		// Never null here: a widely used client crashes otherwise.
		code, reason := cmp.Or(j.Code, string(limits.SystemError)), cmp.Or(j.Reason, limits.SystemError.Text())
		a.ErrorCode, a.FailReason = &code, &reason
	}
	return http.StatusOK, a, nil
}

// jobTime writes a time like the reference's example: "04-Jun-2015 18:11:06:586", UTC. The zero time is "".
func jobTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strings.Replace(t.UTC().Format("02-Jan-2006 15:04:05.000"), ".", ":", 1)
}

// newUUID returns a random UUID, version 4.
func newUUID() string {
	h := []byte(randomHex(16))
	h[12] = '4'
	h[16] = "89ab"[h[16]%4]
	return string(h[:8]) + "-" + string(h[8:12]) + "-" + string(h[12:16]) + "-" + string(h[16:20]) + "-" + string(h[20:])
}
