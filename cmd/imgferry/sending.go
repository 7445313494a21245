package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/dustin/go-humanize/english"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/time/rate"

	"imgferry/formats"
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

func (s *sendFlags) add(cmd *cobra.Command, p *pipeline.Push) {
	f := cmd.Flags()
	f.BoolVar(&p.Overwrite, "overwrite", false, "replace an object of the same key")
	f.BoolVar(&p.AbortOnInterrupt, "abort-on-interrupt", false, "delete what was sent when interrupted, instead of keeping it")
	f.BoolVar(&p.Verify, "verify", false, "read the object back and compare its content with the disk's")
	f.IntVar(&p.Senders, "concurrency", 0, fmt.Sprintf("parts sent at once, 1 to %d (default: begins with 4, and finds out)", maxSenders))
	s.memory = upload.DefaultMemory
	f.Var(&s.memory, "memory", "memory for part buffers")
	f.Lookup("memory").DefValue = strings.ReplaceAll(humanize.IBytes(upload.DefaultMemory), " ", "")
	f.Var(&s.partSize, "part-size", "size of parts, such as 16MiB (default: follows from the disk). An interrupted\nrun is resumed with the same size only")
	f.Lookup("part-size").DefValue = ""
	f.Var(&s.bwlimit, "bwlimit", "the most to send in a second, such as 10MiB, all parts together")
	f.Lookup("bwlimit").DefValue = ""
	f.StringVar(&s.sse, "sse", "", "have the store encrypt the object: AES256, kms or kms:KEYID")
	f.StringVar(&s.level, "compress-level", zvhd2.LevelDefault.String(), `how hard to compress: fastest, default, better, best, or auto, which
measures whether the encoder or the link is the slower one`)
	_ = cmd.RegisterFlagCompletionFunc("compress-level", anyOf(append(levelNames(), autoLevel)...))
}

// alias makes other a second name of the flag called name, which no help shows: what push calls the format,
// upload and convert call the output format.
func alias(f *pflag.FlagSet, other, name string) {
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, given string) pflag.NormalizedName {
		if given == other {
			given = name
		}
		return pflag.NormalizedName(given)
	})
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
	if s.bwlimit > 0 && s.bwlimit < minLimit {
		return usagef("--bwlimit takes bytes a second, %s or more, such as 10MiB, not %d", humanize.IBytes(minLimit), s.bwlimit)
	}
	if s.bwlimit > 0 {
		p.Limit = rate.NewLimiter(rate.Limit(s.bwlimit), int(max(minBurst, min(maxBurst, s.bwlimit/8))))
	}
	p.Program = userAgent()
	p.Notice = func(text string) { a.say("%s", text) }
	p.Retry = c.policy()
	p.Progress = new(pipeline.Progress)
	return nil
}

// checkIdle refuses the flags of an encoder where the disk is sent as it is, by the flag called how. Bounds such as
// --memory are kept all the same.
func (s *sendFlags) checkIdle(given flagGiven, how string) error {
	return given.refuse(how+" sends bytes as they are", "compress-level")
}

// flagGiven says whether the flag of that name is on the command line. What the settings file and the environment
// say is for many commands: a flag that does nothing for this one is a mistake.
type flagGiven func(name string) bool

// refuse refuses the first flag of those named that was given, since why.
func (given flagGiven) refuse(why string, names ...string) error {
	for _, name := range names {
		if given(name) {
			return usagef("%s: leave --%s out", why, name)
		}
	}
	return nil
}

// minLimit is the least that --bwlimit takes, in bytes a second: slower, stores end the connection in the
// middle of a part, and a plain number was most likely meant in KiB or MiB.
const minLimit = 8 << 10

// The largest piece that goes out at once under --bwlimit, in bytes.
const (
	minBurst = 4 << 10
	maxBurst = 1 << 20
)

// open opens the disk image called path, as p's disk. instead is the flag for a format that a disk which may
// not be sent raw can have.
func (s *sendFlags) open(ctx context.Context, path string, from *sourceFlags, p *pipeline.Push, instead string) (*pipeline.Opened, error) {
	limitMemory(p.HeapLimit())
	img, err := from.open(ctx, path)
	if err != nil {
		return nil, err
	}
	p.Disk = img.Disk()
	if id := img.Identity(); id != "" {
		// The flags decide what bytes are in it, too.
		p.Disk.Identity = fmt.Sprintf("snapshot %q, disk %q, backing %q\n%s", from.opener.Snapshot, from.opener.Disk, from.opener.BackingFormat, id)
	}
	if from.format == "" && p.Disk.Format == "raw" && p.Disk.Image.Size()%sectorSize != 0 {
		p.Notice(fmt.Sprintf("%s is taken as a raw disk, but its size is no multiple of %d bytes: if it is not one, its image will not boot", publicName(path), sectorSize))
	}
	if p.Format == pipeline.Raw {
		if err := notNested(img, "Use "+instead+", which can't be taken for anything else."); err != nil {
			img.Close()
			return nil, fmt.Errorf("%s: %w", publicName(path), err)
		}
	}
	return img, nil
}

// sectorSize is what disks are whole multiples of, in bytes.
const sectorSize = 512

// ofImage adds to err the name of the image where it is about that.
func ofImage(path string, err error) error {
	if errors.As(err, new(*formats.Error)) || errors.Is(err, pipeline.ErrChanged) {
		return fmt.Errorf("%s: %w", publicName(path), err)
	}
	return err
}

// limitMemory makes the garbage collector work harder as the heap comes near limit bytes, instead
// of letting it grow to twice what is in use. Buffers are most of the heap and live to the end, so
// that costs next to nothing. What the user said by GOMEMLIMIT stands.
func limitMemory(limit int64) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit)
	}
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
		sent: pr.Upload.Sent(), skipped: pr.Upload.Skipped(), copied: pr.Upload.Copied(), size: pr.Size.Load(),
	}
}

// sentSummary says what became of the object's bytes.
func sentSummary(r pipeline.Report, took time.Duration) string {
	text := fmt.Sprintf("sent %s from a disk of %s to %s/%s in %.1f s",
		humanize.IBytes(uint64(r.Sent)), humanize.IBytes(uint64(r.VirtualSize)), r.Bucket, r.Key, took.Seconds())
	if r.Skipped > 0 {
		text += fmt.Sprintf("; %s was there already", humanize.IBytes(uint64(r.Skipped)))
	}
	if r.Copied > 0 {
		text += fmt.Sprintf("; the store copied %s of zeros", humanize.IBytes(uint64(r.Copied)))
	}
	if r.Retries > 0 {
		text += fmt.Sprintf("; %s repeated (%d allowed)", english.Plural(int(r.Retries), "request was", "requests were"), r.RetryBudget)
	}
	if r.Verified {
		text += "; read it back and found it the same"
	}
	return text
}

// advise adds to err how to go on after an upload that was kept, and what else flags say better than the
// error's class.
func (s *sendFlags) advise(err error, c *cloud, box *sandboxFlags) error {
	var kept *upload.UnfinishedError
	var stuck *upload.AbortError
	var size *upload.PartSizeError
	var store *upload.Error
	abort := "imgferry uploads --abort " + box.where(*c) + " -- "
	switch {
	case errors.As(err, &size):
		return &usageError{err}
	case s.sse != "" && errors.As(err, &store) && refusesEncryption(store):
		return &coded{&advised{err, []string{"The store may not encrypt in this way: leave --sse out, or ask for another one."}}, exitUsage}
	case errors.As(err, &stuck):
		return &advised{err, []string{"To remove what was left behind:  " + abort + shellQuote(stuck.Key)}}
	case errors.As(err, &kept):
		goOn := "To go on:    run the same command again"
		if errors.Is(err, upload.ErrExpired) {
			goOn = "To go on:    log in again (imgferry login, or new keys), then run the same command again"
		}
		return &advised{err, []string{
			goOn,
			"To give up:  " + abort + shellQuote(kept.Key),
		}}
	}
	return err
}

// refusesEncryption reports a store's refusal that may be due to the encryption that was asked for.
func refusesEncryption(e *upload.Error) bool {
	code := strings.ToLower(e.Code) // AWS says KMS.NotFoundException, MinIO kms:KeyNotFound
	return e.Class == upload.ErrPlain || e.Status == http.StatusNotImplemented || e.Code == "NotImplemented" || e.Code == "InvalidArgument" ||
		strings.Contains(code, "kms") || strings.Contains(code, "encrypt")
}
