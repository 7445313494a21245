package pipeline_test

import (
	"errors"
	"fmt"
	"runtime"
	"testing"

	"imgferry/formats"
	"imgferry/pipeline"
	"imgferry/source"
	"imgferry/upload"
)

// outage is a disk that can't be reached from an offset on, once the store has parts of it.
type outage struct {
	formats.Image
	from     int64
	progress *upload.Progress
}

func (o outage) ReadAt(p []byte, off int64) (int, error) {
	if off < o.from {
		return o.Image.ReadAt(p, off)
	}
	for o.progress.Parts() == 0 {
		runtime.Gosched()
	}
	return 0, fmt.Errorf("reading far away: %w", source.ErrUnreachable)
}

// A source that can't be reached for a while costs nothing that is stored already.
func TestUnreachableSourceKeepsTheUpload(t *testing.T) {
	c := newCloud(t)
	p := c.push(noisy(t, 64, [2]int64{0, 64}))
	p.Key, p.Progress = "kept", new(pipeline.Progress)
	p.Senders = upload.HeadParts // the first part that is stored is one of these
	image := p.Disk.Image
	p.Disk.Image = outage{image, 48 << 20, &p.Progress.Upload}
	var kept *upload.UnfinishedError
	if _, err := p.Upload(t.Context()); !errors.As(err, &kept) || !errors.Is(err, source.ErrUnreachable) || kept.PartsDone == 0 {
		t.Fatal(err)
	}
	p.Disk.Image, p.Progress, p.Verify = image, nil, true
	if r, err := p.Upload(t.Context()); err != nil || r.Skipped == 0 || !r.Verified {
		t.Errorf("%+v, %v", r, err)
	}
}
