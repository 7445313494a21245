package imageservice

import (
	"context"
	"errors"

	"imgferry/limits"
)

// takeStep makes an image of a disk of Config.Resources; one field of the first three is set.
type takeStep struct {
	Volume   string `json:",omitempty"`
	Instance string `json:",omitempty"`
	Backup   string `json:",omitempty"`
	// All takes every disk of it, not the system disk alone.
	All bool `json:",omitempty"`
}

// files are the names of the disks to take. What was declared with the request may not be any more.
func (s *Service) files(st takeStep) ([]string, error) {
	var files []string
	var ok bool
	unknown, what := limits.VolumeUnknown, st.Volume
	switch r := s.cfg.Resources; {
	case st.Instance != "":
		files, ok = r.Instances[st.Instance]
		unknown, what = limits.InstanceUnknown, st.Instance
	case st.Backup != "":
		files, ok = r.Backups[st.Backup]
		unknown, what = limits.BackupUnknown, st.Backup
	default:
		files = []string{st.Volume}
		_, ok = r.Volumes[st.Volume]
	}
	if !ok || len(files) == 0 {
		return nil, refuse(unknown, "%s is there no more", shown(what))
	}
	if !st.All {
		files = files[:1]
	}
	return files, nil
}

// doTake reads all of one or more disks and keeps them.
func (s *Service) doTake(ctx context.Context, _ job, st takeStep, progress func(done, total int64)) (outcome, error) {
	files, err := s.files(st)
	if err != nil {
		return nil, err
	}
	var kept []diskFile
	for n, name := range files {
		disk, err := s.takeDisk(ctx, name, func(done, total int64) {
			progress(int64(n)*total+done, int64(len(files))*total)
		})
		if err != nil {
			s.disks.remove(kept)
			return nil, err
		}
		kept = append(kept, disk)
	}
	return func(t tx, j *job) error {
		i, err := t.mustImage(j.ImageID)
		if err != nil {
			return err
		}
		i.Disks, i.FileSize, i.DiskFormat = kept, 0, zvhd2Name
		for _, d := range kept {
			i.FileSize += d.Size
		}
		i.MinDisk = gigabytes(kept[0].Virtual)
		return t.putImage(&i)
	}, nil
}

func (s *Service) takeDisk(ctx context.Context, name string, progress func(done, total int64)) (diskFile, error) {
	img, err := s.openResource(ctx, name)
	if err != nil {
		return diskFile{}, damagedDisk(name, err)
	}
	defer img.Close()
	if _, err := limits.MinDisk(limits.AttachedDataImport, img.Size()); err != nil {
		return diskFile{}, err
	}
	disk, _, err := s.disks.keep(ctx, img, progress)
	if err != nil {
		return diskFile{}, damagedDisk(name, err)
	}
	return disk, nil
}

// damagedDisk is the job's failure for a declared disk that can't be read.
func damagedDisk(name string, err error) error {
	var own *keepError
	if errors.As(err, &own) {
		return own
	}
	f := refuse(limits.FileDamaged, "disk %s: %s", name, err)
	f.cause = err
	return f
}
