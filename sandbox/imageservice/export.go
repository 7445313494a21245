package imageservice

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"imgferry/convert"
	"imgferry/formats"
	"imgferry/ims"
	"imgferry/limits"
)

// exportStep writes an image to the store.
type exportStep struct {
	URL    string
	Format string // of the file
}

// exportImage is POST /v1/cloudimages/{image_id}/file (reference, 5.1.8).
func (s *Service) exportImage(r request) (int, any, error) {
	var q struct {
		URL    string `json:"bucket_url"`
		Format string `json:"file_format"`
		Quick  bool   `json:"is_quick_export"`
	}
	if err := r.decode(&q); err != nil {
		return 0, nil, err
	}
	i, err := s.exportable(r)
	if err != nil {
		return 0, nil, err
	}
	if err := limits.ExportFormat(q.Format, q.Quick); err != nil {
		return 0, nil, err
	}
	st := exportStep{URL: q.URL, Format: q.Format}
	if q.Quick {
		st.Format = zvhd2Name
	}
	if !q.Quick && i.virtualSize() > limits.MaxFile {
		return 0, nil, refuse(limits.ExportTooLarge, "image %s has %d bytes: use a quick export", i.ID, i.virtualSize())
	}
	if _, err := convert.TargetByName(st.Format); err != nil {
		return 0, nil, refuse(limits.FormatUnsupported, "%s", err)
	}
	if err := s.checkTarget(r.Context(), q.URL); err != nil {
		return 0, nil, err
	}
	k := s.newTask(r, jobExport, nil, step{Export: &st})
	k.job.ImageID, k.job.ImageName = i.ID, i.Name
	return s.submit(r, k, func(t tx) error {
		now, err := t.mustImage(i.ID)
		switch {
		case err != nil:
			return err
		case now.Status != ims.StatusActive:
			return refuse(limits.ImageUnavailable, "image %s is %s", i.ID, now.Status)
		case now.Exporting != "":
			return refuse(limits.ImageInExport, "job %s does it", now.Exporting)
		}
		now.Exporting = k.job.ID
		return t.putImage(&now)
	})
}

// exportable returns the image of a request, if it may be exported.
func (s *Service) exportable(r request) (image, error) {
	i, ok, err := s.state.image(r.vars["image_id"])
	switch {
	case err != nil:
		return i, err
	case !ok || !i.sees(r.project) || i.Region != r.region:
		return i, refuse(limits.ImageIDUnknown, "there is no image %s", shown(r.vars["image_id"]))
	case i.Owner != r.project:
		return i, refuse(limits.NotOwner, "image %s is shared with you", i.ID)
	case i.Status != ims.StatusActive:
		return i, refuse(limits.ImageUnavailable, "image %s is %s", i.ID, i.Status)
	case i.Backup != "":
		return i, refuse(limits.BackupNotExportable, "image %s was made from backup %s", i.ID, i.Backup)
	case i.Whole:
		return i, refuse(limits.WholeNotExportable, "image %s is of a whole server", i.ID)
	case i.iso():
		return i, refuse(limits.ISONotSupported, "image %s is a disc", i.ID)
	}
	return i, nil
}

// checkTarget checks the object that an export is to make: the bucket is there, the object is not.
func (s *Service) checkTarget(ctx context.Context, url string) error {
	if _, key, ok := strings.Cut(url, ":"); ok && key == "" {
		return refuse(limits.ExportNameMissing, "give the object's key")
	}
	bucket, key, err := limits.SplitImageURL(url)
	if err != nil {
		return err
	}
	src, err := s.cfg.Objects.OpenObject(ctx, bucket, key)
	switch {
	case errors.Is(err, ErrNoBucket):
		return refuse(limits.BucketUnreachable, "there is no bucket %s", shown(bucket))
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return refuse(limits.BucketUnreachable, "bucket %s: %s", shown(bucket), err)
	}
	src.Close()
	return refuse(limits.ObjectExists, "object %s is in bucket %s", shown(key), bucket)
}

// doExport encodes a disk, and sends it to the store as it is encoded.
func (s *Service) doExport(ctx context.Context, j job, st exportStep, progress func(done, total int64)) (outcome, error) {
	bucket, key, err := limits.SplitImageURL(st.URL)
	if err != nil {
		return nil, err
	}
	i, ok, err := s.state.image(j.ImageID)
	if err != nil || !ok || len(i.Disks) == 0 {
		return nil, errors.Join(err, refuse(limits.ImageIDUnknown, "the image is gone"))
	}
	img, err := s.disks.image(ctx, i.Disks[0])
	if err != nil {
		return nil, damagedDisk(i.ID, err)
	}
	defer img.Close()
	put := func(r io.Reader) error { return s.cfg.Objects.PutObject(ctx, bucket, key, r) }
	if err := s.encode(ctx, st.Format, &readCounter{Image: img, progress: progress}, put); err != nil {
		f := refuse(limits.BucketUnreachable, "object %s: %s", key, err)
		f.cause = err
		return nil, f
	}
	return nil, nil
}

// encode writes a disk in a format and hands the file to put: as it is written, or where the format needs to
// go back to its head, from a file of the service's own.
func (s *Service) encode(ctx context.Context, format string, img formats.Image, put func(io.Reader) error) error {
	target, err := convert.TargetByName(format)
	if err != nil {
		return err
	}
	settings, err := target.Settings(nil)
	if err != nil {
		return err
	}
	options := convert.Options{Workers: s.cfg.Workers}
	if target.Streams(settings) {
		return throughPipe(func(w io.Writer) error {
			_, err := target.Write(ctx, img, w, settings, options)
			return err
		}, put)
	}
	f, name, err := s.disks.create("export")
	if err != nil {
		return err
	}
	defer f.Discard()
	defer s.disks.remove([]diskFile{{Name: name}})
	if _, err := target.Write(ctx, img, f, settings, options); err != nil {
		return err
	}
	if err := f.Commit(); err != nil {
		return err
	}
	file, err := os.Open(filepath.Join(s.disks.dir, name))
	if err != nil {
		return err
	}
	defer file.Close() // before the file goes
	return put(contextReader{ctx, file})
}

// throughPipe runs a writer and the reader of what it writes, and returns when both have ended. The first
// error ends both.
func throughPipe(write func(io.Writer) error, read func(io.Reader) error) error {
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := write(w)
		w.CloseWithError(err) // nil is io.EOF
		done <- err
	}()
	err := read(r)
	r.CloseWithError(cause(err, io.ErrClosedPipe))
	if werr := <-done; werr != nil && !errors.Is(werr, io.ErrClosedPipe) {
		return werr
	}
	return err
}

func cause(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// readCounter tells how much of a disk has been read; order does not matter.
type readCounter struct {
	formats.Image
	progress func(done, total int64)
}

func (c *readCounter) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.Image.ReadAt(p, off)
	c.progress(off+int64(n), c.Size())
	return n, err
}

// download is an answer that is a file.
type download struct {
	header http.Header
	body   io.ReadCloser
}

func (d download) send(w http.ResponseWriter, status int) {
	for name, values := range d.header {
		w.Header()[name] = values
	}
	w.WriteHeader(status)
	if d.body == nil {
		return
	}
	defer d.body.Close()
	_, _ = io.Copy(w, d.body) // a client that is gone has no use for an error
}
