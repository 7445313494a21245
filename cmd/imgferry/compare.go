package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"imgferry/convert"
	"imgferry/formats"
	"imgferry/pipeline"
)

// Exit codes of compare; they are those of qemu-img compare.
const (
	compareDiffers    = 1
	compareOpenFailed = 2
	compareReadFailed = 4
)

type compareCommand struct {
	*app
	a, b    sourceFlags
	out     *output
	strict  bool
	quiet   bool
	workers int
}

func (a *app) compareCommand() *cobra.Command {
	c := &compareCommand{app: a}
	cmd := &cobra.Command{
		Use:   "compare A B",
		Short: "Say whether two images hold the same disk",
		Long: `Compare reads two disk images, of any formats, and says whether a machine would see
the same bytes on both, or where the first difference is. If one disk is longer, the
rest of it must be zeros; --strict takes another size for a difference.

Exit codes, as of qemu-img compare:
    0  the disks are the same
    1  they differ
    2  an image could not be opened, or the command line is wrong
    4  an image could not be read`,
		Example: "  imgferry compare disk.qcow2 disk.zvhd2",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd.Context(), args[0], args[1])
		},
	}
	c.out = a.outputFlags(cmd)
	f := cmd.Flags()
	c.a.chainFlags(cmd)
	c.a.unpackFlags(cmd)
	c.a.remoteFlags(cmd)
	c.b.own = &c.a.cloud
	f.StringVarP(&c.a.format, "a-format", "f", "", "format of A; default by content")
	f.StringVarP(&c.b.format, "b-format", "F", "", "format of B; default by content")
	f.StringVar(&c.a.opener.Snapshot, "a-snapshot", "", "read this internal snapshot of A")
	f.StringVar(&c.b.opener.Snapshot, "b-snapshot", "", "read this internal snapshot of B")
	f.StringVar(&c.a.opener.Disk, "a-disk", "", "which `DISK` of A, an OVA or OVF with several: its number, file name or id")
	f.StringVar(&c.b.opener.Disk, "b-disk", "", "which `DISK` of B")
	f.BoolVarP(&c.strict, "strict", "s", false, "disks of different sizes differ")
	f.BoolVarP(&c.quiet, "quiet", "q", false, "print nothing but errors: the exit code says it")
	f.IntVar(&c.workers, "workers", 0, "threads that read (default: one per CPU)")
	return cmd
}

// comparison is what compare found.
type comparison struct {
	Same bool `json:"same"`
	// Offset is the first byte that differs.
	Offset *int64 `json:"offset,omitempty"`
	SizeA  int64  `json:"size_a"`
	SizeB  int64  `json:"size_b"`
}

func (c *compareCommand) run(ctx context.Context, nameA, nameB string) error {
	if c.workers < 0 {
		return usagef("--workers takes 1 or more, or 0 for one per CPU")
	}
	c.b.opener.Allow, c.b.opener.BackingFormat = c.a.opener.Allow, c.a.opener.BackingFormat
	c.b.maxUnpacked, c.b.maxSpill = c.a.maxUnpacked, c.a.maxSpill
	a, err := c.a.open(ctx, nameA)
	if err != nil {
		return &coded{err, compareOpenFailed}
	}
	defer a.Close()
	b, err := c.b.open(ctx, nameB)
	if err != nil {
		return &coded{err, compareOpenFailed}
	}
	defer b.Close()
	nameA, nameB = publicName(nameA), publicName(nameB)
	r := comparison{SizeA: a.Size(), SizeB: b.Size()}
	differs := c.strict && r.SizeA != r.SizeB
	if !differs {
		offset, err := c.compare(ctx, a, b)
		if err != nil {
			err = b.Disk().Explain(ctx, a.Disk().Explain(ctx, err))
			return &coded{fmt.Errorf("%s and %s: %w", nameA, nameB, err), compareReadFailed}
		}
		for i, d := range []*pipeline.Opened{a, b} {
			if err := d.Disk().Unchanged(); err != nil {
				return &coded{fmt.Errorf("%s: %w", []string{nameA, nameB}[i], err), compareReadFailed}
			}
		}
		if offset >= 0 {
			differs, r.Offset = true, &offset
		}
	}
	r.Same = !differs
	if !c.quiet {
		if err := c.out.emit(r, r.words); err != nil {
			return err
		}
	}
	if differs {
		return verdict(compareDiffers)
	}
	return nil
}

// compare reads both while the progress is shown.
func (c *compareCommand) compare(ctx context.Context, a, b formats.Image) (int64, error) {
	limitMemory(convertMemory)
	var p convert.Progress
	if !c.quiet {
		stop := c.watch(func() snapshot {
			return snapshot{read: p.Read.Load(), total: p.Total.Load()}
		})
		defer stop()
	}
	return convert.Compare(ctx, a, b, convert.Options{Workers: c.workers, Progress: &p})
}

// words writes the answer for a person, in the words of qemu-img.
func (r comparison) words(w io.Writer) error {
	if r.SizeA != r.SizeB {
		fmt.Fprintf(w, "The disks are of different sizes: %d and %d bytes.\n", r.SizeA, r.SizeB)
	}
	var err error
	switch {
	case r.Same:
		_, err = fmt.Fprintln(w, "Images are identical.")
	case r.Offset != nil:
		_, err = fmt.Fprintf(w, "Content mismatch at offset %d!\n", *r.Offset)
	}
	return err
}
