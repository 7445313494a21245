package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"imgferry/ims"
	"imgferry/limits"
)

// Ways of making an image from an object.
const (
	ViaFast     = "fast"     // fast import: the object is taken as it is; up to 1 TB
	ViaImport   = "import"   // ordinary import: the service converts and checks; up to 128 GB
	ViaRegister = "register" // the image's metadata first, then its file; up to 128 GB
)

// Ways returns the ways, the default first.
func Ways() []string { return []string{ViaFast, ViaImport, ViaRegister} }

// kind is the way's sizes: those of a fast import hold for metadata too.
func (p *Push) kind() limits.Import {
	switch {
	case p.Via != ViaImport:
		return limits.FastImport
	case p.Type == limits.TypeData:
		return limits.DataImport
	}
	return limits.SystemImport
}

// checkWay refuses what the way can't do, for a disk of size bytes.
func (p *Push) checkWay(size int64) error {
	bad := func(field, finding, advice string) error {
		return &limits.Error{Field: field, Finding: finding, Advice: advice}
	}
	switch {
	case p.Via != "" && !slices.Contains(Ways(), p.Via):
		return bad("via", fmt.Sprintf("there is no way of import called %q", p.Via), "use fast, import or register")
	case p.fast() && p.CMKID != "":
		return bad("cmk_id", "a fast import can't encrypt the image", "use the way import, or copy the image with a key afterwards")
	case p.fast():
		return nil
	case size > limits.MaxFile:
		return &limits.Error{Code: limits.FileTooLarge, Field: "image_url",
			Finding: fmt.Sprintf("the disk has %d bytes, and the way %s takes files up to %d GB", size, p.Via, limits.MaxFile>>30), Advice: "use a fast import"}
	case p.Via == ViaImport:
		return nil
	case p.CMKID != "" || p.EnterpriseProject != "":
		return bad("cmk_id", "the way register takes neither an encryption key nor an enterprise project", "use the way import")
	case cmp.Or(p.Type, limits.TypeECS) != limits.TypeECS || cmp.Or(p.Architecture, "x86") != "x86":
		return bad("type", "the way register makes images of system disks of virtual servers (ECS) for x86 only", "use fast or import")
	}
	return nil
}

func (p *Push) fast() bool { return cmp.Or(p.Via, ViaFast) == ViaFast }

// checkRequest applies the service's rules to the request that the way sends.
func (p *Push) checkRequest(q ims.QuickImportRequest) error {
	switch {
	case p.Via == ViaRegister:
		// The tags' own rules hold for the native call too: the image is found by them.
		return cmp.Or(q.Check(), metadataOf(p.Format, q).Check())
	case p.Via == ViaImport && p.Type == limits.TypeData:
		return p.dataImage(q).Check()
	case p.Via == ViaImport:
		return p.systemImage(q).Check()
	}
	return q.Check()
}

func (p *Push) systemImage(q ims.QuickImportRequest) ims.CreateImageRequest {
	return ims.CreateImageRequest{
		Name: q.Name, Description: q.Description, ImageURL: q.ImageURL, OSVersion: q.OSVersion, MinDisk: q.MinDisk, CMKID: p.CMKID,
		Type: q.Type, Architecture: q.Architecture, EnterpriseProjectID: q.EnterpriseProjectID, ImageTags: q.ImageTags,
	}
}

func (p *Push) dataImage(q ims.QuickImportRequest) ims.DataImageRequest {
	return ims.DataImageRequest{
		Name: q.Name, Description: q.Description, ImageURL: q.ImageURL, OSType: q.OSType, MinDisk: q.MinDisk, CMKID: p.CMKID,
		EnterpriseProjectID: q.EnterpriseProjectID, ImageTags: q.ImageTags,
	}
}

func metadataOf(format string, q ims.QuickImportRequest) ims.MetadataRequest {
	m := ims.MetadataRequest{Name: q.Name, Description: q.Description, OSVersion: q.OSVersion, DiskFormat: format, MinDisk: q.MinDisk}
	for _, t := range q.ImageTags {
		m.Tags = append(m.Tags, t.Key+"="+t.Value)
	}
	return m
}

// begin sends the request that makes the image and returns the id of its job, or for ViaRegister that of
// the image that awaits its file.
func (p *Push) begin(ctx context.Context, q ims.QuickImportRequest) (job, image string, err error) {
	switch {
	case p.Via == ViaRegister:
		m, err := p.Images.CreateMetadata(ctx, metadataOf(p.Format, q))
		return "", m.ID, err
	case p.Via == ViaImport && p.Type == limits.TypeData:
		job, err = p.Images.CreateDataImage(ctx, p.dataImage(q))
	case p.Via == ViaImport:
		job, err = p.Images.CreateImage(ctx, p.systemImage(q))
	default:
		job, err = p.Images.QuickImport(ctx, q)
	}
	return job, "", err
}

// fill gives the object to an image whose metadata is there, and waits until it is usable. If the
// service's answer is lost, it looks whether the image has left its queue before it asks again. The image
// of the note, which this disk's registration made, is deleted if the service does not take the object:
// nobody else would ever find out that it is empty.
func (p *Push) fill(ctx context.Context, r *Report, note *intent, id string) error {
	r.ImageID = id
	for try := 1; ; try++ {
		job, err := p.Images.Register(ctx, id, limits.ImageURL(p.BucketName, r.Key))
		if err == nil {
			if err := note.save(r, job); err != nil {
				p.Notice(fmt.Sprintf("the id of import job %s could not be noted: %v", job, err))
			}
			p.Notice(fmt.Sprintf("image %s gets its file: import job %s has started", id, job))
			return p.follow(ctx, r, note, job)
		}
		if ctx.Err() != nil {
			return p.unregistered(r, err) // the note stays
		}
		var call *ims.APIError
		lost := errors.As(err, &call) && call.MaybeDone
		var until time.Time // a refusal: an earlier request may have been taken, so look once
		if lost {
			p.Notice(fmt.Sprintf("the service's answer was lost (%v): looking whether the image has its file", err))
			until = time.Now().Add(p.settle())
		}
		m, lookErr := p.unqueued(ctx, id, until)
		switch {
		case lookErr != nil:
			return p.unregistered(r, errors.Join(err, lookErr))
		case m != nil:
			return p.adopt(ctx, r, note, *m)
		case lost && try < registerTries:
			continue
		case lost || call != nil && call.Temporary:
			return p.unregistered(r, err) // the note stays: the next run goes on with this image
		}
		own := note.Image == id
		note.drop()
		r.ImageID = ""
		if own {
			if failed := p.Images.DeleteImage(ctx, id); failed != nil && !errors.Is(failed, ims.ErrNotFound) {
				p.Notice(fmt.Sprintf("image %s has no file and should be deleted: %v", id, failed))
			}
		}
		return p.unregistered(r, err)
	}
}

// unqueued returns an image that has left its queue, as soon as it has, but not after the time has come.
// nil: it has not, or there is no such image.
func (p *Push) unqueued(ctx context.Context, id string, until time.Time) (*ims.Image, error) {
	for {
		m, err := p.Images.Image(ctx, id)
		switch {
		case errors.Is(err, ims.ErrNotFound):
			return nil, nil
		case err != nil:
			return nil, err
		case m.Status == ims.StatusSaving || m.Status == ims.StatusActive:
			return &m, nil
		case m.Status != ims.StatusQueued:
			return nil, nil
		}
		if over, err := p.pause(ctx, until); over || err != nil {
			return nil, err
		}
	}
}

// pause waits a little until the next look. over: the time has come.
func (p *Push) pause(ctx context.Context, until time.Time) (over bool, err error) {
	d := min(time.Until(until), settlePoll)
	if d <= 0 {
		return true, nil
	}
	select {
	case <-time.After(d):
		return false, nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}
