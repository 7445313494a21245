package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"imgferry/convert"
)

type digestCommand struct {
	*app
	source  sourceFlags
	out     *output
	workers int
}

func (a *app) digestCommand() *cobra.Command {
	c := &digestCommand{app: a}
	cmd := &cobra.Command{
		Use:   "digest FILE...",
		Short: "Compute the content digest of disks",
		Long: `Digest reads disk images and prints the digest of each one's content: a SHA-256 over
what is on the disk, whatever format holds it. Two images with the same digest and the
same virtual size hold the same disk.`,
		Example: "  imgferry digest disk.qcow2 disk.zvhd2",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd.Context(), args)
		},
	}
	c.out = a.outputFlags(cmd)
	c.source.flags(cmd)
	c.source.remoteFlags(cmd)
	cmd.Flags().IntVar(&c.workers, "workers", 0, "threads that read (default: one per CPU)")
	return cmd
}

// digested is one disk's digest.
type digested struct {
	Filename    string `json:"filename"`
	Digest      string `json:"content_digest"`
	VirtualSize int64  `json:"virtual_size"`
}

func (c *digestCommand) run(ctx context.Context, paths []string) error {
	if c.workers < 0 {
		return usagef("--workers takes 1 or more, or 0 for one per CPU")
	}
	limitMemory(convertMemory)
	list := []digested{}
	for _, path := range paths {
		d, err := c.digest(ctx, path)
		if err != nil {
			return err
		}
		list = append(list, d)
		if c.out.table() {
			// At once: the next one may take an hour.
			if _, err := fmt.Fprintf(c.stdout, "%s  %d  %s\n", d.Digest, d.VirtualSize, oneLine(path)); err != nil {
				return err
			}
		}
	}
	return c.out.emit(list, func(io.Writer) error { return nil })
}

func (c *digestCommand) digest(ctx context.Context, path string) (digested, error) {
	img, err := c.source.open(ctx, path)
	if err != nil {
		return digested{}, err
	}
	defer img.Close()
	path = publicName(path)
	var p convert.Progress
	stop := c.watch(func() snapshot {
		return snapshot{read: p.Read.Load(), total: p.Total.Load()}
	})
	defer stop()
	blocks, err := convert.Count(ctx, img)
	if err == nil {
		p.Total.Store(blocks * convert.BlockSize)
		var r convert.Result
		if r, err = convert.Scan(ctx, img, convert.Options{Digest: true, Workers: c.workers, Progress: &p}); err == nil {
			if err = img.Disk().Unchanged(); err == nil {
				return digested{path, r.Digest.String(), img.Size()}, nil
			}
		}
	}
	return digested{}, fmt.Errorf("%s: %w", path, img.Disk().Explain(ctx, err))
}
