package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imgferry/pipeline"
)

type uploadCommand struct {
	*app
	cloud   cloud
	push    pipeline.Push
	source  sourceFlags
	sandbox sandboxFlags
	sending sendFlags
	bitmap  bitmapFlags
	asIs    bool
	given   flagGiven
	out     *output
}

func (a *app) uploadCommand() *cobra.Command {
	c := &uploadCommand{app: a, cloud: cloud{app: a}}
	cmd := &cobra.Command{
		Use:   "upload SRC s3://BUCKET/KEY",
		Short: "Send a disk image to a bucket, converted on the way",
		Long: `Upload converts the disk image while it sends it in parallel parts, as push does, and
ends when the object is whole. No image is registered. A key that ends in / is
completed with the file's name.

With -O raw the disk's zeros are not sent: the store copies them from an object of
zeros that is kept under imgferry-zeros/ (imgferry uploads --clean removes it). Its
bitmap, KEY with the ending .mf, comes last. With --as-is the file's own bytes are
sent, whatever they are.

An interrupted upload keeps what was sent; the same command goes on from there, with
a journal of what was done ($XDG_STATE_HOME/imgferry/uploads) without encoding it
again.`,
		Example: `  imgferry upload disk.qcow2 s3://my-images/disk.zvhd2
  imgferry upload --sandbox -O raw disk.vmdk s3://images/raw/`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: fileThenNothing,
		RunE: func(cmd *cobra.Command, args []string) error {
			c.given = cmd.Flags().Changed
			return c.run(cmd.Context(), args[0], args[1])
		},
	}
	f := cmd.Flags()
	f.StringVarP(&c.push.Format, "output-format", "O", pipeline.ZVHD2, "target format: zvhd2 or raw")
	alias(f, "format", "output-format")
	f.BoolVar(&c.asIs, "as-is", false, "send the file's own bytes, without conversion")
	c.bitmap.add(cmd, "-O")
	c.sending.add(cmd, &c.push)
	c.source.flags(cmd)
	c.source.own = &c.cloud
	c.sandbox.add(cmd)
	c.out = a.outputFlags(cmd)
	c.cloud.storeFlags(cmd)
	_ = cmd.RegisterFlagCompletionFunc("output-format", anyOf(pipeline.ZVHD2, pipeline.Raw))
	a.completeBuckets(cmd, &c.cloud, &c.sandbox)
	return cmd
}

// fileThenNothing completes the first argument with files.
func fileThenNothing(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

func (c *uploadCommand) run(ctx context.Context, path, to string) error {
	if err := c.complete(path, to); err != nil {
		return err
	}
	img, err := c.sending.open(ctx, path, &c.source, &c.push, "-O zvhd2")
	if err != nil {
		return err
	}
	defer img.Close()

	stop, err := c.sandbox.start(ctx, c.app, &c.cloud)
	if err != nil {
		return err
	}
	defer stop()
	bucket, err := c.cloud.store()
	if err != nil {
		return err
	}
	c.push.Bucket = bucket
	c.sending.places(c.app, &c.push, &c.cloud, &c.sandbox)
	start := time.Now()
	stopWatch := c.watch(func() snapshot { return snapshotOf(&c.push) })
	r, err := c.push.Upload(ctx)
	stopWatch()
	if errors.Is(err, pipeline.ErrExists) {
		err = &advised{err, []string{"Use --overwrite to replace it, or name another key."}}
	}
	if err != nil {
		return c.sending.advise(ofImage(path, err), &c.cloud, &c.sandbox)
	}
	return c.out.emit(r, func(w io.Writer) error {
		c.say("%s", sentSummary(r, time.Since(start)))
		_, err := fmt.Fprintf(w, "s3://%s/%s\n", r.Bucket, r.Key)
		return err
	})
}

// complete fills in what follows from flags alone, and refuses what makes no sense.
func (c *uploadCommand) complete(path, to string) error {
	p := &c.push
	if strings.HasSuffix(to, "/") {
		base := filepath.Base(path)
		if !c.asIs {
			base = strings.TrimSuffix(base, filepath.Ext(base)) + "." + p.Format
		}
		to += base
	}
	bucket, key, ok := parseS3(to)
	if !ok {
		return usagef("the target must be s3://BUCKET/KEY")
	}
	if c.given("bucket") && c.cloud.bucket != bucket {
		return usagef("--bucket %s and %s contradict each other: leave --bucket out", c.cloud.bucket, to)
	}
	c.cloud.bucket, p.Key = bucket, key
	if err := c.checkFormat(); err != nil {
		return err
	}
	if err := c.sandbox.checkIdle(c.given, path); err != nil {
		return err
	}
	if err := c.bitmap.apply(p, "-O", c.sandbox.on); err != nil {
		return err
	}
	return c.sending.apply(c.app, p, &c.cloud)
}

// checkFormat refuses formats that can't be sent, and flags that do nothing for the one that is.
func (c *uploadCommand) checkFormat() error {
	switch p := &c.push; {
	case c.asIs:
		if c.source.format != "" && c.source.format != "raw" {
			return usagef("--as-is sends the file as it is: leave --source-format out")
		}
		err := c.given.refuse("--as-is sends the file as it is", "output-format", "snapshot", "disk", "allow-backing", "backing-format")
		if err != nil {
			return err
		}
		p.Format, c.source.format = pipeline.AsIs, "raw"
		return c.sending.checkIdle(c.given, "--as-is")
	case p.Format == pipeline.Raw:
		return c.sending.checkIdle(c.given, "-O raw")
	case p.Format != pipeline.ZVHD2:
		return usagef("-O takes zvhd2 or raw, not %q", p.Format)
	}
	return nil
}
