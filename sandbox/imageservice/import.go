package imageservice

import (
	"context"
	"errors"
	"io/fs"
	"runtime/debug"
	"time"

	"imgferry/bitmap"
	"imgferry/formats"
	"imgferry/formats/zvhd2"
	"imgferry/ims"
	"imgferry/limits"
)

// runImport waits for its turn, runs the job and records how it ended. If the service closes meanwhile the job
// stays as it is, for the next Open.
func (s *Service) runImport(jobID string, r ims.QuickImportRequest) {
	defer s.setProgress(jobID, 0)
	err := s.awaitTurn(func() error {
		err := s.state.update(jobID, func(j *job, i *image) { j.Status, i.Status, i.Updated = ims.JobRunning, ims.StatusSaving, s.cfg.Now() })
		if err != nil {
			return err
		}
		return s.importObject(jobID, r)
	})
	if s.ctx.Err() != nil && err != nil {
		s.cfg.Logger.Info("import suspended", "job", jobID, "object", r.ImageURL)
		return
	}
	s.cfg.Logger.Info("import ended", "job", jobID, "object", r.ImageURL, "error", err)
	s.record(jobID, func(j *job, i *image) {
		now := s.cfg.Now()
		j.End, i.Updated = now, now
		if err != nil {
			f := failureOf(err)
			j.Status, j.Code, j.Reason, i.Status = ims.JobFail, string(f.code), f.Error(), ims.StatusKilled
			return
		}
		j.Status, i.Status, i.Active = ims.JobSuccess, ims.StatusActive, now
	})
}

// record changes a job and its image, and tries again until it can or the service closes: a job must not stay
// under way because the disk was full for a while.
func (s *Service) record(jobID string, change func(*job, *image)) {
	for {
		err := s.state.update(jobID, change)
		if err == nil {
			return
		}
		s.cfg.Logger.Error("the end of an import can't be recorded", "job", jobID, "error", err)
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(recordInterval):
		}
	}
}

// setProgress says how far a job is, 0 to 1. It is not worth a transaction; 0 forgets it.
func (s *Service) setProgress(jobID string, to float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if to == 0 {
		delete(s.progress, jobID)
		return
	}
	s.progress[jobID] = max(s.progress[jobID], to)
}

// progressOf says how far a job is, 0 to 1.
func (s *Service) progressOf(j job) float64 {
	if j.Status == ims.JobSuccess {
		return 1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.progress[j.ID]
}

// awaitTurn runs f when fewer than Config.Imports imports run. It turns a panic of f, which a hostile
// image must not be able to cause, into an error.
func (s *Service) awaitTurn(f func() error) (err error) {
	select {
	case s.turns <- struct{}{}:
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
	defer func() { <-s.turns }()
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Logger.Error("import panicked", "panic", p, "stack", string(debug.Stack()))
			err = refuse(limits.SystemError, "the import broke: %v", p)
		}
	}()
	return f()
}

// importObject decides by content what the object is, and checks all of it.
func (s *Service) importObject(jobID string, r ims.QuickImportRequest) error {
	bucket, key, err := limits.SplitImageURL(r.ImageURL)
	if err != nil {
		return err
	}
	src, err := s.open(s.ctx, bucket, key)
	if err != nil {
		return err
	}
	defer src.Close()
	if err := limits.FileSize(limits.FastImport, src.Size()); err != nil {
		return err
	}
	is, err := zvhd2.Format().Probe(src)
	if err != nil {
		return damaged(key, err)
	}
	format := "zvhd2"
	if !is {
		format = "raw"
	}
	if err := s.state.update(jobID, func(_ *job, i *image) { i.FileSize, i.DiskFormat = src.Size(), format }); err != nil {
		return err
	}
	progress := func(done, total int64) {
		// All but the last step, which is success itself.
		s.setProgress(jobID, 0.99*float64(done)/float64(total))
	}
	if is {
		return s.importZVHD2(src, key, r, progress)
	}
	return s.importRaw(src, bucket, key, r, progress)
}

func (s *Service) importZVHD2(src formats.Source, key string, r ims.QuickImportRequest, progress func(done, total int64)) error {
	info, err := zvhd2.Format().Info(s.ctx, src)
	if err == nil {
		err = info.Problem
	}
	if err != nil {
		return damaged(key, err)
	}
	if err := limits.CheckMinDisk(limits.FastImport, r.MinDisk, info.VirtualSize); err != nil {
		return err
	}
	if err := zvhd2.Check(s.ctx, src, s.cfg.Workers, progress); err != nil {
		return damaged(key, err)
	}
	return nil
}

func (s *Service) importRaw(src formats.Source, bucket, key string, r ims.QuickImportRequest, progress func(done, total int64)) error {
	if other, err := foreign(src); err != nil {
		return damaged(key, err)
	} else if other != "" {
		return refuse(limits.FastFormat, "object %s is a %s image: convert it", key, other)
	}
	mfKey := limits.BitmapKey(key)
	mf, err := s.open(s.ctx, bucket, mfKey)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return refuse(limits.FastFormat, "object %s is no ZVHD2 image, and there is no bitmap %s for a raw one", key, mfKey)
	case err != nil:
		return err
	}
	defer mf.Close()
	if err := limits.CheckMinDisk(limits.FastImport, r.MinDisk, src.Size()); err != nil {
		return err
	}
	bits, err := readBitmap(mf, bitmap.Blocks(src.Size()))
	if err != nil {
		return damaged(mfKey, err)
	}
	if err := checkRaw(s.ctx, src, bits, progress); err != nil {
		return damaged(key, err)
	}
	return nil
}

// open opens an object. The error is a failure, and matches fs.ErrNotExist where the store's does.
func (s *Service) open(ctx context.Context, bucket, key string) (formats.Source, error) {
	src, err := s.cfg.Objects.OpenObject(ctx, bucket, key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f := refuse(limits.FileDamaged, "there is no object %s in bucket %s", key, bucket)
		f.cause = err
		return nil, f
	case err != nil:
		return nil, damaged(key, err)
	}
	return src, nil
}

// damaged is the job's failure for an object that can't be read or doesn't add up.
func damaged(key string, err error) error {
	f := refuse(limits.FileDamaged, "object %s: %s", key, err)
	f.cause = err
	return f
}
