package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"imgferry/convert"
	"imgferry/formats"
	"imgferry/pipeline"
	"imgferry/profile"
	"imgferry/source"
	"imgferry/upload"
	"imgferry/upload/obs"
)

type pullCommand struct {
	*app
	cloud   cloud
	sandbox sandboxFlags
	source  sourceFlags
	format  string
	options []string
	workers int
	force   bool
	out     *output
}

func (a *app) pullCommand() *cobra.Command {
	c := &pullCommand{app: a, cloud: cloud{app: a}}
	cmd := &cobra.Command{
		Use:   "pull s3://BUCKET/KEY DST -O FORMAT",
		Short: "Fetch a disk from the object store",
		Long: `Pull reads a disk image in the object store by parallel ranges, converts it on the
way and writes DST. Only what the disk holds is fetched: of a raw object, what the
bitmap beside it says. What arrives is compared with the content digest that push
left in the object's metadata.

DST gets its name when it is whole. A pull to -O raw that ended early is gone on
with by the same command; other formats begin anew.`,
		Example: "  imgferry pull s3://my-images/disk.zvhd2 disk.qcow2 -O qcow2",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd.Context(), args[0], args[1])
		},
	}
	f := cmd.Flags()
	f.StringVarP(&c.format, "output-format", "O", "", "target format: "+strings.Join(convert.TargetNames(), ", "))
	f.StringArrayVarP(&c.options, "option", "o", nil, "option of the target format, `NAME=VALUE`; imgferry convert -O FORMAT -o help lists them; may be repeated")
	f.IntVar(&c.workers, "concurrency", pullWorkers, fmt.Sprintf("ranges fetched at once, 1 to %d", maxPullWorkers))
	f.BoolVar(&c.force, "force", false, "write a raw file even if it begins like an image of another format")
	c.source.flags(cmd)
	c.out = a.outputFlagsUnder(cmd, "")                              // -o is for options, as in convert
	c.cloud.flags(cmd, profile.OBSEndpoint, profile.AddressingStyle) // the bucket is in the address
	c.cloud.accessFlags(cmd)
	c.sandbox.add(cmd)
	return cmd
}

const (
	// pullWorkers hide the store's answering time; more take memory, 12 MiB each.
	pullWorkers    = 6
	maxPullWorkers = 16
	// pullMemory is when the garbage collector begins to work harder, in bytes.
	pullMemory = 240 << 20
)

func (c *pullCommand) run(ctx context.Context, name, dst string) error {
	bucketName, key, ok := parseS3(name)
	if !ok {
		return usagef("%q is no object: write s3://BUCKET/KEY", publicName(name))
	}
	if c.workers < 1 || c.workers > maxPullWorkers {
		return usagef("--concurrency takes 1 to %d", maxPullWorkers)
	}
	if c.format == "" {
		return usagef("missing: the target format: -O with one of %s", strings.Join(convert.TargetNames(), ", "))
	}
	target, err := convert.TargetByName(c.format)
	if err != nil {
		return asUsage(err)
	}
	settings, err := target.Settings(c.options)
	if err != nil {
		return asUsage(err)
	}
	if dst == "-" {
		return usagef("can't write to standard output: name a file (./- for one of that name)")
	}
	c.cloud.bucket = bucketName
	stop, err := c.sandbox.start(ctx, c.app, &c.cloud)
	if err != nil {
		return err
	}
	defer stop()
	bucket, err := c.cloud.store()
	if err != nil {
		return err
	}
	limitMemory(pullMemory)
	start := time.Now()
	object, err := c.stat(ctx, bucket, key)
	if err != nil {
		return err
	}
	img, remote, err := c.open(ctx, bucket, bucketName, object)
	if err != nil {
		return err
	}
	defer img.Close()
	digest := object.Metadata[pipeline.MetaDigest]
	if digest == "" {
		c.warn("%s has no content digest in its metadata: what arrives can't be compared with it", name)
	}
	if target.Raw() && !c.force {
		if err := notNested(img, "Use --force if that is what you want."); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	p := pipeline.Pull{
		Disk: img, Target: target, Settings: settings, Name: dst, Digest: digest, Identity: remote.Identity(),
		Workers: c.workers, Progress: new(convert.Progress), Interval: c.pace.poll,
		Notice: func(text string) { c.say("%s", text) },
	}
	r, err := c.watched(ctx, p)
	if err != nil {
		return c.advise(fmt.Errorf("%s: %w", name, img.Disk().Explain(ctx, err)), target)
	}
	return c.out.emit(pulled{name, object.Size, remote.Fetched(), time.Since(start).Seconds(), r}, func(w io.Writer) error {
		how := "its content was not compared"
		if r.Verified {
			how = "its content is what was pushed"
		}
		c.say("%s: %s disk, %s fetched of %s, written as %s in %.1f s; %s", dst, humanize.IBytes(uint64(r.VirtualSize)),
			humanize.IBytes(uint64(remote.Fetched())), humanize.IBytes(uint64(object.Size)), r.Format, time.Since(start).Seconds(), how)
		_, err := fmt.Fprintln(w, r.Digest)
		return err
	})
}

// pulled is the result of a pull.
type pulled struct {
	Source     string  `json:"source"`
	ObjectSize int64   `json:"object_size"`
	Fetched    int64   `json:"fetched"`
	Seconds    float64 `json:"seconds"`
	pipeline.PullReport
}

func (c *pullCommand) stat(ctx context.Context, bucket *obs.Bucket, key string) (o upload.Object, err error) {
	err = upload.Retry(ctx, c.cloud.policy(), "look for the object "+key, func(ctx context.Context) (err error) {
		o, err = bucket.Stat(ctx, key)
		return err
	})
	return o, err
}

// open opens the object as a disk. What push left as raw is raw, whatever its content looks like.
func (c *pullCommand) open(ctx context.Context, bucket *obs.Bucket, bucketName string, o upload.Object) (*pipeline.Opened, *source.Remote, error) {
	object := pipeline.NewObject(bucket, s3Scheme+bucketName, o.Key)
	remote, err := source.OpenRemote(ctx, object, c.cloud.readPatience())
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", object.Name(), err)
	}
	if v := remote.Version(); v.ETag != o.ETag || v.Size != o.Size {
		remote.Close()
		return nil, nil, fmt.Errorf("%s: %w", object.Name(), source.ErrChanged)
	}
	var src pipeline.Source = remote
	if c.source.format == "" && o.Metadata[pipeline.MetaFormat] == pipeline.Raw {
		c.source.format = pipeline.Raw
	}
	if c.source.format == pipeline.Raw {
		if src, err = c.withBitmap(ctx, bucket, remote, o); err != nil {
			remote.Close()
			return nil, nil, err
		}
	}
	if err := c.source.check(ctx); err != nil {
		remote.Close()
		return nil, nil, err
	}
	c.source.opener.Remote = func(context.Context, string) (pipeline.Source, error) { return src, nil }
	img, err := c.source.opener.Open(ctx, object.Name(), c.source.format)
	return img, remote, err
}

// withBitmap is a raw object with the bitmap beside it, if there is one that fits and a digest that would
// tell if it were wrong.
func (c *pullCommand) withBitmap(ctx context.Context, bucket *obs.Bucket, remote *source.Remote, o upload.Object) (pipeline.Source, error) {
	key := pipeline.BitmapKey(o.Key)
	beside, err := c.stat(ctx, bucket, key)
	switch {
	case errors.Is(err, upload.ErrNoObject):
		return remote, nil
	case err != nil:
		return nil, err
	case beside.Size != pipeline.BitmapSize(o.Size) || o.Metadata[pipeline.MetaDigest] == "":
		c.warn("the bitmap %s is not used: it is not one of push's", key)
		return remote, nil
	}
	bits, err := source.OpenRemote(ctx, pipeline.NewObject(bucket, s3Scheme+c.cloud.bucket, key), c.cloud.readPatience())
	if err != nil {
		return nil, err
	}
	defer bits.Close()
	p := make([]byte, beside.Size)
	if err := formats.ReadFull(bits, p, 0); err != nil {
		return nil, err
	}
	h, err := pipeline.NewHoles(remote, p)
	if err != nil {
		c.warn("the bitmap %s is not used: %v", key, err)
		return remote, nil
	}
	return h, nil
}

// watched pulls while the progress is shown.
func (c *pullCommand) watched(ctx context.Context, p pipeline.Pull) (pipeline.PullReport, error) {
	stop := c.watch(func() snapshot {
		return snapshot{read: p.Progress.Read.Load(), total: p.Progress.Total.Load()}
	})
	defer stop()
	return p.Run(ctx)
}

// advise adds how to go on.
func (c *pullCommand) advise(err error, target convert.Target) error {
	switch {
	case errors.Is(err, pipeline.ErrDigest):
		return &coded{&advised{err, []string{"Pull again. If it stays so, the object was changed after it was pushed."}}, exitCorrupt}
	case !target.Raw() || errors.Is(err, pipeline.ErrChanged):
		return err
	}
	lines := advice(err)
	return &advised{err, append(lines, "To go on:    run the same command again")}
}
