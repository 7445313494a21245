package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"golang.org/x/time/rate"

	"imgferry/formats/zvhd2"
	"imgferry/pipeline"
	"imgferry/profile"
	"imgferry/upload"
	"imgferry/upload/obs"
)

// sendFlags say how an object is sent; push and upload have them.
type sendFlags struct {
	memory, partSize, bwlimit byteSize
	sse, level                string
}

// defaultMemory is what part buffers may take unless told otherwise.
const defaultMemory byteSize = 224 << 20

func (s *sendFlags) add(cmd *cobra.Command, p *pipeline.Push) {
	f := cmd.Flags()
	f.BoolVar(&p.Overwrite, "overwrite", false, "replace an object of the same key")
	f.BoolVar(&p.AbortOnInterrupt, "abort-on-interrupt", false, "delete what was sent when interrupted, instead of keeping it")
	f.BoolVar(&p.Verify, "verify", false, "read the object back and compare its content with the disk's")
	f.IntVar(&p.Senders, "concurrency", 0, fmt.Sprintf("parts sent at once, 1 to %d (default: begins with 4, and finds out)", maxSenders))
	s.memory = defaultMemory
	f.Var(&s.memory, "memory", "memory for part buffers")
	f.Lookup("memory").DefValue = "224MiB"
	f.Var(&s.partSize, "part-size", "size of parts, such as 16MiB (default: follows from the disk). An interrupted\nrun is resumed with the same size only")
	f.Lookup("part-size").DefValue = ""
	f.Var(&s.bwlimit, "bwlimit", "the most to send in a second, such as 10MiB, all parts together")
	f.Lookup("bwlimit").DefValue = ""
	f.StringVar(&s.sse, "sse", "", "have the store encrypt the object: AES256, kms or kms:KEYID")
	f.StringVar(&s.level, "compress-level", zvhd2.LevelDefault.String(), `how hard to compress: fastest, default, better, best, or auto, which
measures whether the encoder or the link is the slower one`)
	_ = cmd.RegisterFlagCompletionFunc("compress-level", anyOf(append(levelNames(), autoLevel)...))
}

func levelNames() []string {
	return []string{zvhd2.LevelFastest.String(), zvhd2.LevelDefault.String(), zvhd2.LevelBetter.String(), zvhd2.LevelBest.String()}
}

// maxSenders bounds --concurrency: the store's client keeps as many connections, and no link gets
// faster by more of them.
const maxSenders = 64

// maxMemory bounds --memory in bytes.
const maxMemory = 1 << 40

// apply checks the flags and puts them into p and c.
func (s *sendFlags) apply(a *app, p *pipeline.Push, c *cloud) (err error) {
	if p.Senders < 0 || p.Senders > maxSenders {
		return usagef("--concurrency takes 1 to %d, not %d", maxSenders, p.Senders)
	}
	if s.memory <= 0 || s.memory > maxMemory {
		return usagef("--memory takes a size such as 224MiB, up to 1TiB")
	}
	if s.level == autoLevel {
		p.AutoLevel = true
	} else if p.Level, err = zvhd2.ParseLevel(s.level); err != nil {
		return usagef("--compress-level: %w, or auto", err)
	}
	if c.encryption, err = obs.ParseEncryption(s.sse); err != nil {
		return usagef("--sse: %w", err)
	}
	p.Encrypted = s.sse
	p.Memory, p.PartSize = int64(s.memory), int64(s.partSize)
	if s.bwlimit > 0 {
		p.Limit = rate.NewLimiter(rate.Limit(s.bwlimit), int(max(minBurst, min(maxBurst, s.bwlimit/8))))
	}
	p.Program = userAgent()
	p.Notice = func(text string) { a.say("%s", text) }
	p.Retry = c.policy()
	p.Progress = new(pipeline.Progress)
	return nil
}

// The largest piece that goes out at once under --bwlimit, in bytes.
const (
	minBurst = 4 << 10
	maxBurst = 1 << 20
)

// open makes p's disk of img, whose bytes differ with the flags that opened it.
func (s *sendFlags) open(img *pipeline.Opened, from *sourceFlags) pipeline.Disk {
	d := img.Disk()
	d.Identity = fmt.Sprintf("snapshot %q, disk %q, backing %q\n%s", from.opener.Snapshot, from.opener.Disk, from.opener.BackingFormat, img.Identity())
	return d
}

// places tells p where its notes and journals are, and what they are about.
func (s *sendFlags) places(a *app, p *pipeline.Push, c *cloud, box *sandboxFlags) {
	var err error
	if p.StateDir, err = profile.StateDir(); err != nil {
		a.warn("no notes and no journal are kept, since there is no place for them (set XDG_STATE_HOME): %v", err)
	}
	p.BucketName, p.StoreID = c.bucket, storeID(c, box)
}

// storeID tells buckets apart.
func storeID(c *cloud, box *sandboxFlags) string {
	if box.on { // its ports change, its folder does not
		return "sandbox " + box.data + " " + c.bucket
	}
	return strings.TrimSuffix(c.obsEndpoint, "/") + " " + c.bucket
}

// snapshotOf is how far p is.
func snapshotOf(p *pipeline.Push) snapshot {
	pr := p.Progress
	return snapshot{
		read: pr.Convert.Read.Load(), total: pr.Convert.Total.Load(),
		sent: pr.Upload.Sent(), skipped: pr.Upload.Skipped(), copied: pr.Upload.Copied(),
	}
}

// sentSummary says what became of the object's bytes.
func sentSummary(r pipeline.Report) string {
	text := "sent " + humanize.IBytes(uint64(r.Sent))
	if r.Skipped > 0 {
		text += fmt.Sprintf(", %s was there already", humanize.IBytes(uint64(r.Skipped)))
	}
	if r.Copied > 0 {
		text += fmt.Sprintf(", %s of zeros was copied by the store", humanize.IBytes(uint64(r.Copied)))
	}
	if r.Retries > 0 {
		text += fmt.Sprintf(", repeated %d requests (of %d allowed)", r.Retries, r.RetryBudget)
	}
	if r.Verified {
		text += ", read it back and found it the same"
	}
	return text
}

// advise adds to err how to go on after an upload that was kept.
func (s *sendFlags) advise(err error, c *cloud, box *sandboxFlags) error {
	var kept *upload.UnfinishedError
	var stuck *upload.AbortError
	var size *upload.PartSizeError
	abort := "imgferry uploads --abort " + box.where(*c) + " -- "
	switch {
	case errors.As(err, &size):
		return &usageError{err}
	case errors.As(err, &stuck):
		return &advised{err, []string{"To remove what was left behind:  " + abort + shellQuote(stuck.Key)}}
	case errors.As(err, &kept):
		return &advised{err, []string{
			"To go on:    run the same command again",
			"To give up:  " + abort + shellQuote(kept.Key),
		}}
	}
	return err
}
