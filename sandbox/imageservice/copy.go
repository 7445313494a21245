package imageservice

import (
	"context"
	"errors"
	"io"

	"imgferry/ims"
	"imgferry/limits"
)

// copyStep copies the disks of an image.
type copyStep struct{ From string }

// copyImage is POST /v1/cloudimages/{image_id}/copy (reference, 5.3.1).
func (s *Service) copyImage(r request) (int, any, error) {
	var q struct {
		common
		CMK string `json:"cmk_id"`
	}
	if err := r.decode(&q); err != nil {
		return 0, nil, err
	}
	from, err := s.copyable(r)
	if err != nil {
		return 0, nil, err
	}
	shared := from.Owner != r.project
	switch {
	case from.Whole:
		return 0, nil, refuse(limits.WholeNotCopyable, "image %s is of a whole server", from.ID)
	case shared && from.member(r.project).Status != "accepted":
		return 0, nil, refuse(limits.ShareNotAccepted, "accept image %s first", from.ID)
	case shared && q.CMK != "":
		return 0, nil, refuse(limits.SharedNotEncrypted, "leave out cmk_id, and encrypt the copy of the copy")
	case q.CMK != "" && q.CMK == from.CMK:
		return 0, nil, refuse(limits.KeySame, "image %s has key %s already", from.ID, shown(q.CMK))
	}
	if err := s.checkKey(q.CMK); err != nil {
		return 0, nil, err
	}
	i, err := s.copyOf(r, from, q.common)
	if err != nil {
		return 0, nil, err
	}
	i.CMK = q.CMK
	return s.submit(r, s.newTask(r, jobCopy, i, step{Copy: &copyStep{from.ID}}), nil)
}

// copyImageAway is POST /v1/cloudimages/{image_id}/cross_region_copy (reference, 5.3.2).
func (s *Service) copyImageAway(r request) (int, any, error) {
	var q struct {
		common
		Region  string `json:"region"`
		Project string `json:"project_name"`
		Agency  string `json:"agency_name"`
		Vault   string `json:"vault_id"`
	}
	if err := r.decode(&q); err != nil {
		return 0, nil, err
	}
	from, err := s.copyable(r)
	if err != nil {
		return 0, nil, err
	}
	if err := s.checkRegion(r, q.Region, q.Project, q.Agency); err != nil {
		return 0, nil, err
	}
	switch {
	case from.Owner != r.project:
		return 0, nil, refuse(limits.NotOwner, "image %s is shared with you", from.ID)
	case from.CMK != "":
		return 0, nil, refuse(limits.EncryptedNotCopyable, "image %s is encrypted", from.ID)
	case from.FileSize > limits.MaxFile:
		return 0, nil, refuse(limits.CopyTooLarge, "image %s has %d bytes", from.ID, from.FileSize)
	}
	if from.Whole {
		if err := s.checkVault(q.Vault); err != nil {
			return 0, nil, err
		}
	}
	there := r
	there.region = q.Region
	if q.Region == s.cfg.Region {
		there.region = ""
	}
	i, err := s.copyOf(there, from, q.common)
	if err != nil {
		return 0, nil, err
	}
	return s.submit(there, s.newTask(r, jobCopyToRegion, i, step{Copy: &copyStep{from.ID}}), func(t tx) error {
		busy, err := t.openJobs(func(j job) bool { return j.Owner == r.project && j.Type == jobCopyToRegion })
		if err == nil && len(busy) >= limits.MaxRegionCopies {
			err = refuse(limits.TooManyCopies, "%d copies are under way", len(busy))
		}
		return err
	})
}

// checkRegion checks where a copy is to go.
func (s *Service) checkRegion(r request, region, project, agency string) error {
	here := r.region
	if here == "" {
		here = s.cfg.Region
	}
	want, known := s.cfg.Resources.Regions[region]
	if region == s.cfg.Region {
		want, known = "", true
	}
	if want == "" {
		want = region
	}
	switch {
	case region != "" && region == here:
		return refuse(limits.RegionSame, "region %s is this one", shown(region))
	case !known:
		return refuse(limits.RegionUnknown, "there is no region %s", shown(region))
	case project != want:
		return refuse(limits.ProjectNameWrong, "region %s has no project %s", shown(region), shown(project))
	case agency == "":
		return refuse(limits.AgencyWrong, "give agency_name")
	}
	return nil
}

// copyable returns the image of a request, if its caller may copy it.
func (s *Service) copyable(r request) (image, error) {
	i, ok, err := s.state.image(r.vars["image_id"])
	switch {
	case err != nil:
		return i, err
	case !ok || !i.sees(r.project) || i.Region != r.region:
		return i, refuse(limits.ImageIDUnknown, "there is no image %s", shown(r.vars["image_id"]))
	case i.Status != ims.StatusActive:
		return i, refuse(limits.ImageUnavailable, "image %s is %s", i.ID, i.Status)
	case i.iso():
		return i, refuse(limits.ISONotSupported, "image %s is a disc", i.ID)
	}
	return i, nil
}

// copyOf returns the image that a copy will be.
func (s *Service) copyOf(r request, from image, c common) (*image, error) {
	i, err := c.image(s, r)
	if err != nil {
		return nil, err
	}
	i.Environment, i.DiskFormat, i.OSVersion, i.OSType, i.Firmware, i.Architecture = from.Environment, from.DiskFormat, from.OSVersion, from.OSType, from.Firmware, from.Architecture
	i.MinDisk, i.MinRAM, i.MaxRAM, i.Whole, i.Checksum, i.FileSize = from.MinDisk, from.MinRAM, from.MaxRAM, from.Whole, from.Checksum, from.FileSize
	i.Parent, i.Origin, i.Extra = from.ID, "image,"+from.ID, from.clone().Extra
	return i, nil
}

// doCopy copies an image's files. They are decoded when they are read: what is damaged does not become active.
func (s *Service) doCopy(ctx context.Context, _ job, st copyStep, progress func(done, total int64)) (outcome, error) {
	from, ok, err := s.state.image(st.From)
	if err != nil || !ok || len(from.Disks) == 0 {
		return nil, errors.Join(err, refuse(limits.ImageIDUnknown, "image %s is gone", shown(st.From)))
	}
	var kept []diskFile
	for n, d := range from.Disks {
		disk, err := s.copyDisk(ctx, d)
		if err != nil {
			s.disks.remove(kept)
			return nil, damagedDisk(from.ID, err)
		}
		kept = append(kept, disk)
		progress(int64(n+1), int64(len(from.Disks)))
	}
	return func(t tx, j *job) error {
		i, err := t.mustImage(j.ImageID)
		if err != nil {
			return err
		}
		i.Disks = kept
		return t.putImage(&i)
	}, nil
}

func (s *Service) copyDisk(ctx context.Context, d diskFile) (diskFile, error) {
	src, err := s.disks.source(d)
	if err != nil {
		return diskFile{}, err
	}
	defer src.Close()
	kept, err := s.disks.keepFile(ctx, io.NewSectionReader(src, 0, src.Size()), d.Format)
	kept.Virtual = d.Virtual
	return kept, err
}
