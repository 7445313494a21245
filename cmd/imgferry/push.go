package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imgferry/ims"
	"imgferry/limits"
	"imgferry/pipeline"
)

// defaultOS is the service's own word for a Linux that it doesn't know more of.
const defaultOS = "Other Linux(64 bit)"

type pushCommand struct {
	*app
	cloud cloud
	push  pipeline.Push

	source  sourceFlags
	tags    []string
	bitmap  bitmapFlags
	sandbox sandboxFlags
	out     *output
	sending sendFlags
	timeout time.Duration

	given flagGiven
}

func (a *app) pushCommand() *cobra.Command {
	c := &pushCommand{app: a, cloud: cloud{app: a}}
	cmd := &cobra.Command{
		Use:   "push IMAGE",
		Short: "Make a cloud image from a disk image",
		Long: `Push converts the disk image while it uploads it in parallel parts, registers it by
fast import, waits until it is usable and prints the image's id on stdout.

With --sandbox it does the same against a cloud of its own on this machine: no
account and no network.

Settings come from flags, then from the environment, then from a profile of the
settings file (imgferry config). The variables are ` + envAK + `,
` + envSK + `, ` + envToken + `, ` + envProject + `,
` + envRegion + `, ` + envBucket + `, ` + envOBSEndpoint + `, ` + envIMSEndpoint + `.

An interrupted push keeps what was sent; the same command goes on from there. Where an
image of this name and content exists already, push reports that one.`,
		Example: `  imgferry push --sandbox disk.qcow2
  imgferry push disk.qcow2 --bucket my-images --region cn-north-4 --os-version "Debian GNU/Linux 12.0.0 64bit"`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.given = cmd.Flags().Changed
			return c.run(cmd.Context(), args[0])
		},
	}
	f := cmd.Flags()
	p := &c.push
	f.StringVar(&p.Name, "name", "", "the image's name (default: the file's name)")
	f.StringVar(&p.Key, "key", "", "the object's key (default: NAME-HASH.FORMAT)")
	f.StringVar(&p.OSVersion, "os-version", defaultOS, "operating system, as the service spells it")
	f.StringVar(&p.OSType, "os-type", "Linux", "Linux or Windows; for data images only")
	f.IntVar(&p.MinDisk, "min-disk", 0, "smallest system disk in GiB (default: the virtual size)")
	f.StringVar(&p.Type, "type", "ECS", "ECS, BMS or DataImage")
	f.StringVar(&p.Architecture, "arch", "x86", "x86 or arm")
	f.StringArrayVar(&c.tags, "tag", nil, "KEY=VALUE, once for each tag")
	f.StringVar(&p.Description, "description", "", "up to 1024 characters")
	f.StringVarP(&p.Format, "format", "O", pipeline.ZVHD2, "what to upload: zvhd2, or raw with its bitmap")
	alias(f, "output-format", "format")
	f.StringVar(&p.Via, "via", pipeline.ViaFast, "way of import: fast, import or register; the last two up to 128 GB")
	f.StringVar(&p.CMKID, "cmk-id", "", "with --via import: encrypt the image with this key of the key service")
	f.StringVar(&p.EnterpriseProject, "enterprise-project", "", "enterprise project that the image belongs to")
	f.BoolVar(&p.NewImage, "new-image", false, "register another image even if there is one of this name and content")
	f.BoolVar(&p.NoWait, "no-wait", false, "print the import job's id instead of waiting for the image")
	f.DurationVar(&c.timeout, "wait-timeout", time.Hour, "how long to wait for the import job; 0: without a limit")
	f.BoolVar(&p.DeleteObject, "delete-object", false, "delete the object once the image is active")
	c.bitmap.add(cmd, "--format")
	c.sending.add(cmd, p)
	c.source.flags(cmd)
	c.source.own = &c.cloud
	c.sandbox.add(cmd)
	c.out = a.outputFlags(cmd)
	c.cloud.storeFlags(cmd)
	c.cloud.serviceFlags(cmd)
	a.completeBuckets(cmd, &c.cloud, &c.sandbox)
	return cmd
}

func (c *pushCommand) run(ctx context.Context, path string) (err error) {
	if err := c.complete(path); err != nil {
		return err
	}
	img, err := c.sending.open(ctx, path, &c.source, &c.push, "--format zvhd2")
	if err != nil {
		return err
	}
	defer img.Close()

	stop, err := c.sandbox.start(ctx, c.app, &c.cloud)
	if err != nil {
		return err
	}
	defer stop()
	bucket, images, err := c.cloud.both()
	if err != nil {
		return err
	}
	c.push.Bucket, c.push.Images = bucket, images
	c.sending.places(c.app, &c.push, &c.cloud, &c.sandbox)
	c.push.Account = c.cloud.imsEndpoint + " " + c.cloud.project
	if c.sandbox.on { // its ports change, its folder does not
		c.push.Account = "sandbox " + c.sandbox.data
	}
	if !c.given("os-version") && c.push.Type != limits.TypeData {
		c.warn("no --os-version given: registering as %q; some features depend on the right one", defaultOS)
	}
	if w := limits.NameWarning(c.push.Name); w != "" {
		c.warn("%s", w)
	}
	start := time.Now()
	r, err := c.watched(ctx)
	if err != nil {
		return c.advise(r, ofImage(path, err))
	}
	return c.out.emit(r, func(w io.Writer) error {
		c.summary(r, time.Since(start))
		id := r.ImageID
		if c.push.NoWait && r.JobID != "" {
			id = r.JobID
		}
		_, err := fmt.Fprintln(w, id)
		return err
	})
}

// complete fills in what follows from flags alone, and refuses what makes no sense.
func (c *pushCommand) complete(path string) error {
	p := &c.push
	if p.Format != pipeline.ZVHD2 && p.Format != pipeline.Raw {
		return usagef("--format takes zvhd2 or raw, not %q", p.Format)
	}
	if !slices.Contains(pipeline.Ways(), p.Via) {
		return usagef("--via takes %s, not %q", strings.Join(pipeline.Ways(), ", "), p.Via)
	}
	if p.Via != pipeline.ViaFast && c.bitmap.given() {
		return usagef("--bitmap and --unproven-bitmap go with --via %s", pipeline.ViaFast)
	}
	if p.Via == pipeline.ViaFast {
		if err := c.bitmap.apply(p, "--format", c.sandbox.on); err != nil {
			return err
		}
	}
	if err := c.checkIdle(path); err != nil {
		return err
	}
	if p.MinDisk < 0 || c.timeout < 0 {
		return usagef("--min-disk and --wait-timeout take positive numbers")
	}
	if p.NoWait && p.DeleteObject {
		return usagef("--delete-object needs to wait for the image: leave --no-wait out")
	}
	err := c.sending.apply(c.app, p, &c.cloud)
	if err != nil {
		return err
	}
	for _, t := range c.tags {
		key, value, ok := strings.Cut(t, "=")
		if !ok {
			return usagef("--tag takes KEY=VALUE, not %q", t)
		}
		p.Tags = append(p.Tags, ims.Tag{Key: key, Value: value})
	}
	if p.Name == "" {
		base := filepath.Base(publicName(path))
		p.Name = strings.TrimSuffix(base, filepath.Ext(base))
	}
	p.Wait.Interval, p.Wait.Outage = c.pace.poll, c.pace.outage
	p.Settle = max(c.pace.settle, c.cloud.patience.settle())
	return nil
}

// checkIdle refuses flags that were given and do nothing beside the others.
func (c *pushCommand) checkIdle(path string) error {
	p := &c.push
	data := p.Type == limits.TypeData
	switch {
	case data && c.given("os-version"):
		return usagef("--os-version is for system disks: a data image has --os-type")
	case !data && c.given("os-type"):
		return usagef("--os-type is for data images (--type %s): a system disk has --os-version", limits.TypeData)
	case data && p.Via == pipeline.ViaImport && c.given("arch"):
		return usagef("--arch is for system disks with --via %s: leave it out", pipeline.ViaImport)
	}
	if p.Format == pipeline.Raw {
		if err := c.sending.checkIdle(c.given, "--format raw"); err != nil {
			return err
		}
	}
	return c.sandbox.checkIdle(c.given, path)
}

// watched runs the push while its progress is shown.
func (c *pushCommand) watched(ctx context.Context) (pipeline.Report, error) {
	stop := c.watch(func() snapshot { return snapshotOf(&c.push) })
	stopped := false
	defer func() {
		if !stopped {
			stop()
		}
	}()
	c.push.Wait.Progress = func(j ims.Job) {
		if !stopped {
			stop() // the bytes are through; from here on it is the service's progress
			stopped = true
		}
		c.say("import job: %s, %.0f%%", strings.ToLower(string(j.Status)), j.Progress*100)
	}
	c.push.WaitTimeout = c.timeout
	return c.push.Run(ctx)
}

func (c *pushCommand) summary(r pipeline.Report, took time.Duration) {
	what := "image " + r.ImageID + " is active"
	switch {
	case r.Adopted && r.Key == "":
		c.say("nothing was sent (--new-image makes another image)")
		return
	case r.Adopted:
		what = "image " + r.ImageID + " is " + r.ImageStatus
	case c.push.NoWait:
		what = "import job " + r.JobID + " is under way"
	}
	c.say("%s: %s", what, sentSummary(r, took))
}

// advise adds to err how to go on after an upload that was kept, or a wait that was ended.
func (c *pushCommand) advise(r pipeline.Report, err error) error {
	var wait *ims.WaitError
	var call *ims.APIError
	switch {
	case errors.As(err, &call) && call.MaybeDone:
		return &advised{err, []string{"Before trying again, look for an image with the tag imgferry-digest=" + r.Digest + ": it may be under way."}}
	case errors.As(err, &wait) && c.sandbox.on:
		return &advised{err, []string{"The sandbox ends with this command; its import job goes on when it starts again."}}
	case errors.As(err, &wait):
		name := "Import job " + wait.JobID
		if wait.JobID == "" {
			name = "The import of image " + wait.ImageID
		}
		return &advised{err, []string{fmt.Sprintf("%s goes on without this program, and the same command waits for it again; the object is %s/%s.", name, r.Bucket, r.Key)}}
	}
	return c.sending.advise(err, &c.cloud, &c.sandbox)
}
