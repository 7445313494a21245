package imageservice

import (
	"cmp"
	"net/http"
	"strings"
	"time"

	"imgferry/ims"
	"imgferry/limits"
)

// The types of jobs (reference, 5.5.1).
const (
	jobImport       = "imsImportImageJob"
	jobImportData   = "imsImportDataImageJob"
	jobInstance     = "imsCreateImageByInstance"
	jobVolume       = "imsVolumeCreateImageJob"
	jobWholeServer  = "imsCreateWholeImageByInstanceJob"
	jobWholeBackup  = "imsCreateWholeImageByBackupJob"
	jobRegister     = "imsNativeImportImageJob"
	jobExport       = "imsNativeExportImageJob"
	jobAddMembers   = "imsAddImageMembersJob"
	jobDropMembers  = "imsDeleteImageMembersJob"
	jobTurnMembers  = "imsUpdateImageMembersJob"
	jobCopy         = "imsCopyImageInRegionJob"
	jobCopyToRegion = "imsCopyImageCrossUserJob"
)

// step is what a job does besides waiting for its parts: exactly one field is set, or none.
type step struct {
	Import  *importStep  `json:",omitempty"`
	Take    *takeStep    `json:",omitempty"`
	Export  *exportStep  `json:",omitempty"`
	Copy    *copyStep    `json:",omitempty"`
	Members *membersStep `json:",omitempty"`
}

// jobAnswer is the answer of the job query. Nulls, empty strings and numbers are as in its example.
type jobAnswer struct {
	Status     ims.JobStatus `json:"status"`
	Entities   any           `json:"entities"`
	JobID      string        `json:"job_id"`
	JobType    string        `json:"job_type"`
	BeginTime  string        `json:"begin_time"`
	EndTime    string        `json:"end_time"`
	ErrorCode  *string       `json:"error_code"`
	FailReason *string       `json:"fail_reason"`
}

type jobEntities struct {
	ImageID   string         `json:"image_id,omitempty"`
	ImageName string         `json:"image_name"`
	Task      string         `json:"current_task"`
	Percent   float64        `json:"process_percent"`
	Results   []memberResult `json:"results,omitempty"`
	SubJobs   []string       `json:"sub_jobs_list,omitempty"`
	SubResult []jobAnswer    `json:"sub_jobs_result,omitempty"`
}

type subEntities struct {
	ImageID   string `json:"image_id"`
	ImageName string `json:"image_name"`
}

// showJob is GET /v1/{project_id}/jobs/{job_id} (reference, 5.5.1) and GET /v1/cloudimages/job/{job_id}.
func (s *Service) showJob(r request) (int, any, error) {
	var a jobAnswer
	err := s.state.view(func(t tx) error {
		j, ok, err := t.job(r.vars["job_id"])
		if err != nil {
			return err
		}
		if !ok || j.Owner != r.project {
			return absent(limits.ObjectUnknown, "there is no job %s", shown(r.vars["job_id"]))
		}
		e := jobEntities{ImageID: j.ImageID, ImageName: j.ImageName, Task: j.Task, Percent: j.Progress, Results: j.Results, SubJobs: j.Subs}
		for _, id := range j.Subs {
			sub, err := t.mustJob(id)
			if err != nil {
				return err
			}
			e.SubResult = append(e.SubResult, sub.answer(subEntities{sub.ImageID, sub.ImageName}))
		}
		a = j.answer(e)
		return nil
	})
	return http.StatusOK, a, err
}

func (j job) answer(entities any) jobAnswer {
	a := jobAnswer{Status: j.Status, JobID: j.ID, JobType: j.Type, BeginTime: jobTime(j.Begin), EndTime: jobTime(j.End), Entities: entities}
	if j.Status == ims.JobFail {
		// Never null here: a widely used client crashes otherwise.
		code, reason := cmp.Or(j.Code, string(limits.SystemError)), cmp.Or(j.Reason, limits.SystemError.Text())
		a.ErrorCode, a.FailReason = &code, &reason
	}
	return a
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

// task is a job that is about to begin, with the image it makes or nil, and its parts.
type task struct {
	job   job
	image *image
	parts []task
}

// newTask returns a job of r's caller.
func (s *Service) newTask(r request, jobType string, i *image, what step) task {
	j := job{ID: randomHex(16), Type: jobType, Task: strings.ToUpper(jobType[3:4]) + jobType[4:] + "Task", Owner: r.project, Status: ims.JobInit, Begin: s.cfg.Now(), Step: what}
	if i != nil {
		j.ImageID, j.ImageName, j.Makes = i.ID, i.Name, true
	}
	return task{job: j, image: i}
}

// submit records a job and begins it. check runs in the same transaction, before anything is changed.
func (s *Service) submit(r request, k task, check func(tx) error) (int, any, error) {
	if err := s.reserve(); err != nil {
		return 0, nil, err
	}
	// On the disk before it runs and before the client hears of it.
	err := s.state.update(func(t tx) error {
		if check != nil {
			if err := check(t); err != nil {
				return err
			}
		}
		if err := s.checkQuota(t, r, k.images()); err != nil {
			return err
		}
		return t.record(&k)
	})
	if err != nil {
		s.release()
		return 0, nil, err
	}
	go func() {
		defer s.release()
		s.runJob(k.job.ID)
	}()
	s.tidy()
	return http.StatusOK, map[string]string{"job_id": k.job.ID}, nil
}

// images counts the new images that a task makes.
func (k task) images() (n int) {
	if k.image != nil && k.image.Number == 0 {
		n++
	}
	for _, p := range k.parts {
		n += p.images()
	}
	return n
}

// record writes a task and its parts.
func (t tx) record(k *task) error {
	for n := range k.parts {
		p := &k.parts[n]
		p.job.Parent = k.job.ID
		if err := t.record(p); err != nil {
			return err
		}
		k.job.Subs = append(k.job.Subs, p.job.ID)
	}
	if k.image != nil {
		if err := t.putImage(k.image); err != nil {
			return err
		}
	}
	return t.putJob(&k.job)
}

// tidy forgets old jobs now and then.
func (s *Service) tidy() {
	s.mu.Lock()
	s.begun++
	due := s.begun >= forgetEvery
	if due {
		s.begun = 0
	}
	s.mu.Unlock()
	if !due {
		return
	}
	err := s.state.update(func(t tx) error {
		_, err := t.forget(s.cfg.Now().Add(-historyAge), historySize)
		return err
	})
	if err != nil {
		s.cfg.Logger.Error("old jobs can't be forgotten", "error", err)
	}
}
