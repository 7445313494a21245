package imageservice

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"imgferry/formats"
	"imgferry/ims"
	"imgferry/limits"
)

// createMetadata is POST /v2/images (reference, 6.1.6): an image without data, to be uploaded or registered.
func (s *Service) createMetadata(r request) (int, any, error) {
	var fields map[string]any
	if err := r.decode(&fields); err != nil {
		return 0, nil, err
	}
	now := s.cfg.Now()
	i := image{
		ID: newUUID(), Owner: r.project, Region: r.region, Status: ims.StatusQueued, Native: true,
		DiskFormat: zvhd2Name, OSVersion: defaultOSVersion, Environment: environment(""), Origin: "file", Created: now, Updated: now,
	}
	for name, value := range fields {
		if err := i.setNative(name, value); err != nil {
			return 0, nil, err
		}
	}
	if i.DiskFormat == "iso" {
		i.Environment = environment(limits.TypeISO)
	}
	if err := i.checkVirtualization(); err != nil {
		return 0, nil, err
	}
	err := s.state.update(func(t tx) error {
		if err := s.checkQuota(t, r, 1); err != nil {
			return err
		}
		return t.putImage(&i)
	})
	a := i.attributes(r.project)
	a["properties"] = map[string]any{}
	r.w.Header().Set("Location", "/v2/images/"+i.ID)
	return http.StatusCreated, a, err
}

// setNative sets one field of new metadata.
func (i *image) setNative(name string, value any) error {
	text, isText := value.(string)
	c := change{op: "add", name: name, value: value}
	if value == nil {
		return nil // as if it were not there
	}
	switch name {
	case "id":
		if !isText || !isUUID(text) {
			return refuse(limits.RequestFormat, "the id %s is no UUID", shown(text))
		}
		return refuse(limits.NotSupported, "the service chooses the id")
	case "disk_format":
		if !isText {
			return wrongType(c, "a string")
		}
		if text != "" {
			i.DiskFormat = text
		}
		return limits.DiskFormat(text)
	case "container_format":
		if text != "bare" {
			return refuse(limits.RequestFormat, "the container_format is %s: it can be bare", shown(fmt.Sprint(value)))
		}
		return nil
	case "visibility":
		if text != "private" {
			return refuse(limits.RequestFormat, "the visibility is %s: new images are private", shown(fmt.Sprint(value)))
		}
		return nil
	case "__os_type":
		i.OSType = text
		return limits.OSType(text)
	case "virtual_env_type":
		if !slices.Contains(enums[name], text) {
			return refuse(limits.ImageTypeWrong, "the virtual_env_type is %s", shown(fmt.Sprint(value)))
		}
		i.Environment = text
		return nil
	case "architecture":
		i.Architecture = text
		if text == "x86_64" || text == "aarch64" { // OpenStack's names
			i.Architecture = map[string]string{"x86_64": "x86", "aarch64": "arm"}[text]
		}
		return limits.Architecture(i.Architecture)
	case "__system__cmkid":
		i.CMK = text
		return nil
	case "min_disk":
		n, ok := number(value)
		if !ok {
			return wrongType(c, "a number")
		}
		i.MinDisk = n
		if n == 0 {
			return nil
		}
		return limits.CheckMinDisk(limits.FastImport, n, 0)
	}
	return i.apply(c, true)
}

func isUUID(s string) bool {
	p, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	return err == nil && len(p) == 16
}

// showNative is GET /v2/images/{image_id} (reference, 6.1.2).
func (s *Service) showNative(r request) (int, any, error) {
	var a attributes
	err := s.state.view(func(t tx) error {
		i, err := t.seen(r)
		a = i.attributes(r.project)
		return err
	})
	return http.StatusOK, a, err
}

// deleteImage is DELETE /v2/images/{image_id} (reference, 6.1.5).
func (s *Service) deleteImage(r request) (int, any, error) {
	var q struct {
		Backup bool `json:"delete_backup"` // backups are declared, and stay
	}
	if len(bytes.TrimSpace(r.body)) > 0 {
		if err := json.Unmarshal(r.body, &q); err != nil {
			return 0, nil, refuse(limits.RequestFormat, "%s", err)
		}
	}
	return http.StatusNoContent, nil, s.remove(r)
}

// remove deletes the image that r names. Its record stays as one of a deleted image for a while.
func (s *Service) remove(r request) error {
	var gone []diskFile
	err := s.state.update(func(t tx) error {
		i, err := t.seen(r)
		switch {
		case err != nil:
			return err
		case i.Owner != r.project:
			return answerWith(http.StatusForbidden, limits.DeleteNotOwner, "image "+i.ID+" is shared with you")
		case i.Protected:
			return answerWith(http.StatusForbidden, limits.ImageProtected, "change protected to false first")
		case i.Exporting != "":
			return refuse(limits.ImageInExport, "job %s does it", i.Exporting)
		}
		busy, err := t.openJobs(func(j job) bool {
			return j.ImageID == i.ID || j.Step.Copy != nil && j.Step.Copy.From == i.ID
		})
		if err != nil {
			return err
		}
		if len(busy) > 0 || i.Status == ims.StatusSaving {
			return refuse(limits.ImageInCreation, "image %s is %s", i.ID, i.Status)
		}
		gone = i.Disks
		i.Status, i.Disks, i.Members, i.Deleted = ims.StatusDeleted, nil, nil, s.cfg.Now()
		i.Updated = i.Deleted
		return t.putImage(&i)
	})
	if err == nil {
		s.disks.remove(gone)
	}
	return err
}

// uploadFile is PUT /v2/images/{image_id}/file (reference, 6.1.4): the image file itself, below 2 GB. The
// image is saving while it arrives, and active when all of it has been decoded once.
func (s *Service) uploadFile(r request) (int, any, error) {
	if kind := r.Header.Get("Content-Type"); kind != "" && kind != "application/octet-stream" {
		return 0, nil, answerWith(http.StatusUnsupportedMediaType, limits.RequestFormat, "an image file has the content type application/octet-stream, not "+shown(kind))
	}
	if r.ContentLength >= limits.MaxUpload {
		return 0, nil, answerWith(http.StatusRequestEntityTooLarge, limits.FileTooLarge, "files from 2 GB on are registered from the store")
	}
	var i image
	err := s.state.update(func(t tx) (err error) {
		if i, err = t.own(r, true); err != nil {
			return err
		}
		if !i.Native || i.Status != ims.StatusQueued {
			return answerWith(http.StatusConflict, limits.ImageUnavailable, "image "+i.ID+" is "+i.Status+": only new metadata takes a file")
		}
		i.Status, i.Updated = ims.StatusSaving, s.cfg.Now()
		return t.putImage(&i)
	})
	if err != nil {
		return 0, nil, err
	}
	kept, sum, format, err := s.receive(r, i)
	return http.StatusNoContent, nil, errors.Join(err, s.received(i.ID, kept, sum, format, err))
}

// received records how an upload ended.
func (s *Service) received(id string, kept diskFile, sum, format string, failed error) error {
	err := s.state.update(func(t tx) error {
		i, err := t.mustImage(id)
		if err != nil {
			return err
		}
		now := s.cfg.Now()
		i.Updated = now
		var broken *bodyError
		switch {
		case errors.As(failed, &broken):
			i.Status = ims.StatusQueued // nothing came of it: it may be sent again
		case failed != nil:
			i.Status = ims.StatusKilled
		default:
			i.Status, i.Active, i.Disks, i.FileSize, i.Checksum, i.DiskFormat = ims.StatusActive, now, []diskFile{kept}, kept.Size, sum, format
			if i.MinDisk == 0 {
				i.MinDisk = gigabytes(kept.Virtual)
			}
		}
		return t.putImage(&i)
	})
	if failed != nil || err != nil {
		s.disks.remove([]diskFile{kept})
	}
	return err
}

// bodyError is a body that did not arrive.
type bodyError struct{ error }

func (e *bodyError) Unwrap() error { return e.error }

// receive keeps the file that a request has for a body, and decodes all of it.
func (s *Service) receive(r request, i image) (kept diskFile, sum, format string, err error) {
	body := io.Reader(bytes.NewReader(r.body))
	if r.body == nil {
		// Fails only where deadlines are unknown.
		_ = http.NewResponseController(r.w).SetReadDeadline(time.Now().Add(uploadTimeout))
		body = http.MaxBytesReader(r.w, r.Body, limits.MaxUpload-1)
	}
	hash := md5.New()
	kept, err = s.disks.keepFile(r.Context(), io.TeeReader(body, hash), "upload")
	var own *keepError
	if errors.As(err, &own) {
		return kept, "", "", &bodyError{own} // the client may try again when there is room
	}
	if err != nil {
		return kept, "", "", &bodyError{bodyFailure(r.w, err, "2 GB")}
	}
	if err := limits.FileSize(limits.SystemImport, kept.Size); err != nil {
		return kept, "", "", err
	}
	src, err := s.disks.source(kept)
	if err != nil {
		return kept, "", "", err
	}
	defer src.Close()
	found, err := s.uploadFormat(src, i.DiskFormat)
	if err != nil {
		return kept, "", "", damaged("the file", err)
	}
	if kept.Virtual, err = s.decode(r, src, found); err != nil {
		return kept, "", "", damaged("the file", err)
	}
	if i.MinDisk > 0 {
		if err := checkMinDisk(i.MinDisk, kept.Virtual); err != nil {
			return kept, "", "", err
		}
	}
	kept.Format, format = found.Name, serviceName(found)
	if i.DiskFormat == "iso" {
		format = "iso"
	}
	return kept, hex.EncodeToString(hash.Sum(nil)), format, nil
}

// uploadFormat is the format of an uploaded file. What was declared raw is never taken for anything else.
func (s *Service) uploadFormat(src formats.Source, declared string) (formats.Format, error) {
	switch declared {
	case "raw":
		return formats.ByName(s.cfg.Formats, "raw")
	case "iso":
		if disc, err := isISO(src); err != nil || !disc {
			return formats.Format{}, errors.Join(err, errors.New("it is no ISO 9660 disc"))
		}
		return formats.ByName(s.cfg.Formats, "raw")
	}
	return s.disks.detect(src)
}

// decode reads every block of an image, and returns the size of its disk in bytes.
func (s *Service) decode(r request, src formats.Source, format formats.Format) (int64, error) {
	img, err := format.Open(r.Context(), borrowed{src}, nil)
	if err != nil {
		return 0, err
	}
	defer img.Close()
	return img.Size(), scan(r.Context(), img, s.cfg.Workers)
}

// downloadFile is GET /v2/images/{image_id}/file: the file as it is kept. The reference names the link only.
func (s *Service) downloadFile(r request) (int, any, error) {
	var i image
	err := s.state.view(func(t tx) (err error) {
		i, err = t.seen(r)
		return err
	})
	if err != nil {
		return 0, nil, err
	}
	if i.Owner != r.project {
		return 0, nil, answerWith(http.StatusForbidden, limits.NotOwner, "image "+i.ID+" is shared with you")
	}
	if len(i.Disks) == 0 {
		return http.StatusNoContent, nil, nil // as Glance does where there is no data yet
	}
	src, err := s.disks.source(i.Disks[0])
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, download{http.Header{
		"Content-Type": {"application/octet-stream"}, "Content-Length": {strconv.FormatInt(src.Size(), 10)}, "Content-Md5": {i.Checksum},
	}, src}, nil
}
