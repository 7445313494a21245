package imageservice

import (
	"context"
	"errors"
	"math"
	"runtime/debug"
	"time"

	"imgferry/ims"
	"imgferry/limits"
)

// outcome changes the records by what a step has done, in the transaction that ends it.
type outcome func(t tx, j *job) error

// runJob runs a job and its parts to their ends, or until the service closes: then they stay as they are, for
// the next Open.
func (s *Service) runJob(id string) {
	err := s.runStep(id)
	j, _, jerr := s.state.job(id)
	if err = errors.Join(err, jerr); s.ctx.Err() != nil && err != nil {
		s.cfg.Logger.Info("job suspended", "job", id)
		return
	}
	for n, sub := range j.Subs {
		if err != nil {
			s.end(sub, err) // nothing is half done
			continue
		}
		if subErr := s.runStep(sub); subErr != nil {
			if s.ctx.Err() != nil {
				return
			}
			s.end(sub, subErr)
			err = subErr
			continue
		}
		s.end(sub, nil)
		s.tell(id, float64(n+2)/float64(len(j.Subs)+1))
	}
	s.end(id, err)
	s.cfg.Logger.Info("job ended", "job", id, "type", j.Type, "image", j.ImageID, "error", err)
	s.counts.job(j.Type, err == nil)
}

// runStep does a job's own work, unless it was done before the service was last stopped.
func (s *Service) runStep(id string) error {
	j, _, err := s.state.job(id)
	if err != nil || j.ended() || j.StepDone {
		return endedAs(j, err)
	}
	share := 1 / float64(len(j.Subs)+1)
	progress := func(done, total int64) {
		// All but the last step, which is success itself.
		s.tell(id, share*0.99*float64(done)/float64(max(total, 1)))
	}
	if j.Step.Members != nil { // takes no time, and no turn
		return s.stepDone(id, s.changeMembers)
	}
	return s.awaitTurn(func() error {
		err := s.state.update(func(t tx) error { return t.begin(id, s.cfg.Now()) })
		if err != nil {
			return err
		}
		change, err := s.work(s.ctx, j, progress)
		if err != nil {
			return err
		}
		return s.stepDone(id, change)
	})
}

// endedAs is the result of a part that has ended already.
func endedAs(j job, err error) error {
	if err == nil && j.Status == ims.JobFail {
		return &failure{status: 400, code: limits.Code(j.Code), finding: j.Reason, whole: true}
	}
	return err
}

// begin marks a job, and the image it makes, as under way.
func (t tx) begin(id string, now time.Time) error {
	j, err := t.mustJob(id)
	if err != nil {
		return err
	}
	j.Status = ims.JobRunning
	if j.Makes {
		i, err := t.mustImage(j.ImageID)
		if err != nil {
			return err
		}
		i.Status, i.Updated = ims.StatusSaving, now
		if err := t.putImage(&i); err != nil {
			return err
		}
	}
	return t.putJob(&j)
}

// work does what a job's step says.
func (s *Service) work(ctx context.Context, j job, progress func(done, total int64)) (outcome, error) {
	switch st := j.Step; {
	case st.Import != nil:
		return s.doImport(ctx, j, *st.Import, progress)
	case st.Take != nil:
		return s.doTake(ctx, j, *st.Take, progress)
	case st.Export != nil:
		return s.doExport(ctx, j, *st.Export, progress)
	case st.Copy != nil:
		return s.doCopy(ctx, j, *st.Copy, progress)
	}
	return nil, nil
}

// stepDone records what a step has done.
func (s *Service) stepDone(id string, change outcome) error {
	return s.state.update(func(t tx) error {
		j, err := t.mustJob(id)
		if err != nil {
			return err
		}
		if change != nil {
			if err := change(t, &j); err != nil {
				return err
			}
		}
		j.StepDone = true
		if j.Makes && len(j.Subs) > 0 { // the parts are images of their own: this one doesn't wait for them
			i, err := t.mustImage(j.ImageID)
			if err != nil {
				return err
			}
			i.Status, i.Active = ims.StatusActive, s.cfg.Now()
			i.Updated = i.Active
			if err := t.putImage(&i); err != nil {
				return err
			}
		}
		return t.putJob(&j)
	})
}

// end records the end of a job, and tries again until it can or the service closes: a job must not stay under
// way because the disk was full for a while.
func (s *Service) end(id string, failed error) {
	for {
		var gone []diskFile
		err := s.state.update(func(t tx) (err error) {
			gone, err = t.end(id, failed, s.cfg.Now())
			return err
		})
		if err == nil {
			s.disks.remove(gone)
			s.forgetProgress(id)
			return
		}
		s.cfg.Logger.Error("the end of a job can't be recorded", "job", id, "error", err)
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(recordInterval):
		}
	}
}

// end ends a job: its image becomes active or is killed. It returns the files that no image has any more.
func (t tx) end(id string, failed error, now time.Time) (gone []diskFile, err error) {
	j, err := t.mustJob(id)
	if err != nil || j.ended() {
		return nil, err
	}
	j.End = now
	if failed != nil {
		f := failureOf(failed)
		j.Status, j.Code, j.Reason = ims.JobFail, string(f.code), f.Error() // its progress stays
	} else {
		j.Status, j.Progress = ims.JobSuccess, 1
	}
	if j.ImageID != "" {
		i, ok, err := t.image(j.ImageID)
		if err != nil {
			return nil, err
		}
		if ok {
			if gone, err = t.settle(j, i, now); err != nil {
				return nil, err
			}
		}
	}
	return gone, t.putJob(&j)
}

// settle changes the image of a job that ends.
func (t tx) settle(j job, i image, now time.Time) (gone []diskFile, err error) {
	if i.Exporting == j.ID {
		i.Exporting = ""
		return nil, t.putImage(&i)
	}
	// What was active is past the job's reach: a part that fails does not take it back.
	if !j.Makes || i.Status == ims.StatusDeleted || i.Status == ims.StatusActive {
		return nil, nil
	}
	i.Updated = now
	if j.Status == ims.JobSuccess {
		i.Status, i.Active = ims.StatusActive, now
		return nil, t.putImage(&i)
	}
	gone = i.Disks
	i.Status, i.Disks = ims.StatusKilled, nil
	return gone, t.putImage(&i)
}

// toldSteps is in how many steps progress is told: each is a transaction, so that none is taken back by a
// restart.
const toldSteps = 20

// tell says how far a job is, 0 to 1. It never goes back.
func (s *Service) tell(id string, to float64) {
	to = math.Floor(to*toldSteps) / toldSteps
	s.mu.Lock()
	old, known := s.progress[id]
	if to <= old && known || to <= 0 {
		s.mu.Unlock()
		return
	}
	s.progress[id] = to
	s.mu.Unlock()
	err := s.state.update(func(t tx) error {
		j, err := t.mustJob(id)
		if err != nil || j.ended() || to <= j.Progress {
			return err
		}
		j.Progress = to
		return t.putJob(&j)
	})
	if err != nil {
		s.cfg.Logger.Warn("the progress of a job can't be recorded", "job", id, "error", err)
	}
}

func (s *Service) forgetProgress(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.progress, id)
}

// awaitTurn runs f when fewer than Config.Imports jobs run. It turns a panic of f, which a hostile image must
// not be able to cause, into an error.
func (s *Service) awaitTurn(f func() error) (err error) {
	select {
	case s.turns <- struct{}{}:
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
	defer func() { <-s.turns }()
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Logger.Error("job panicked", "panic", p, "stack", string(debug.Stack()))
			err = refuse(limits.SystemError, "the job broke: %v", p)
		}
	}()
	return f()
}
