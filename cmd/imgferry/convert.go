package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"imgferry/convert"
	"imgferry/formats"
	"imgferry/formats/all"
	"imgferry/formats/zvhd2"
	"imgferry/pipeline"
)

type convertCommand struct {
	*app
	source        sourceFlags
	format        string
	digest, force bool
	workers       int
	out           *output
}

func (a *app) convertCommand() *cobra.Command {
	c := &convertCommand{app: a}
	cmd := &cobra.Command{
		Use:   "convert SRC DST -O FORMAT",
		Short: "Convert a disk image to a local file",
		Long: `Convert reads the disk image SRC, of any format it knows, and writes DST.

DST gets its name when it is whole: an interrupted or failed run leaves what was
there before. Zeros become holes in a raw file, and are left out of a ZVHD2 file.`,
		Example: "  imgferry convert disk.qcow2 disk.zvhd2 -O zvhd2\n  imgferry convert disk.zvhd2 disk.raw -O raw --digest",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd.Context(), args[0], args[1])
		},
	}
	f := cmd.Flags()
	f.StringVarP(&c.format, "output-format", "O", "", "target format: raw or zvhd2")
	c.source.flags(cmd)
	f.BoolVar(&c.force, "force", false, "write a raw file even if it begins like an image of another format")
	f.BoolVar(&c.digest, "digest", false, "compute the content digest")
	c.out = a.outputFlags(cmd)
	f.IntVar(&c.workers, "workers", 0, "threads that read and encode (default: one per CPU)")
	return cmd
}

// converted is the result of a conversion.
type converted struct {
	Source       string  `json:"source"`
	SourceFormat string  `json:"source_format"`
	Target       string  `json:"target"`
	Format       string  `json:"format"`
	VirtualSize  int64   `json:"virtual_size"`
	Blocks       int64   `json:"blocks"`
	DataBlocks   int64   `json:"data_blocks"`
	Digest       string  `json:"content_digest,omitempty"`
	Seconds      float64 `json:"seconds"`
}

func (c *convertCommand) run(ctx context.Context, src, dst string) error {
	switch c.format {
	case "raw", "zvhd2":
	case "":
		return usagef("missing: the target format: -O raw or -O zvhd2")
	default:
		return usagef("can't write %q: the target formats are raw and zvhd2", c.format)
	}
	if c.workers < 0 {
		return usagef("--workers takes 1 or more, or 0 for one per CPU")
	}
	if dst == "-" {
		return usagef("can't write to standard output: name a file (./- for one of that name)")
	}
	start := time.Now()
	img, err := c.source.open(ctx, src)
	if err != nil {
		return err
	}
	defer img.Close()
	if same(src, dst) {
		return usagef("%s is the source itself: name another target", dst)
	}
	if err := convert.CheckSize(img); err != nil {
		return fmt.Errorf("%s: %w", src, err)
	}
	if c.format == "raw" && !c.force {
		if err := notNested(img, "Use --force if that is what you want."); err != nil {
			return fmt.Errorf("%s: %w", src, err)
		}
	}
	limitMemory(convertMemory)
	out, err := convert.Create(dst)
	if err != nil {
		return err
	}
	defer out.Discard()
	result, err := c.write(ctx, img, out)
	if err != nil {
		return fmt.Errorf("%s to %s: %w", src, dst, img.Disk().Explain(ctx, err))
	}
	if err := img.Disk().Unchanged(); err != nil {
		return fmt.Errorf("%s: %w", src, err)
	}
	if err := out.Commit(); err != nil {
		return err
	}
	r := converted{
		Source: src, SourceFormat: img.Format, Target: dst, Format: c.format, VirtualSize: img.Size(),
		Blocks: result.Blocks.Len(), DataBlocks: result.Blocks.Count(), Seconds: time.Since(start).Seconds(),
	}
	if c.digest {
		r.Digest = result.Digest.String()
	}
	return c.out.emit(r, func(w io.Writer) error {
		c.say("%s: %s disk, %s of it data, written as %s in %.1f s", dst, humanize.IBytes(uint64(r.VirtualSize)),
			humanize.IBytes(uint64(min(r.DataBlocks*convert.BlockSize, r.VirtualSize))), c.format, r.Seconds)
		if !c.digest {
			return nil
		}
		_, err := fmt.Fprintln(w, r.Digest)
		return err
	})
}

// convertMemory is when the garbage collector begins to work harder, in bytes: below the 200 MiB of
// peak RSS that a conversion may take.
const convertMemory = 160 << 20

// write writes the disk while its progress is shown.
func (c *convertCommand) write(ctx context.Context, img *pipeline.Opened, out *convert.File) (convert.Result, error) {
	var p convert.Progress
	stop := c.watch(func() snapshot {
		return snapshot{read: p.Read.Load(), total: p.Total.Load()}
	})
	defer stop()
	o := convert.Options{Digest: c.digest, Workers: c.workers, Progress: &p}
	var w *zvhd2.Writer
	var err error
	if c.format == "zvhd2" {
		// Before the tables are walked: it may refuse the size.
		if w, err = zvhd2.NewWriter(out, zvhd2.Options{OrigSize: img.Size()}); err != nil {
			return convert.Result{}, err
		}
	}
	blocks, err := convert.Count(ctx, img)
	if err != nil {
		return convert.Result{}, err
	}
	p.Total.Store(blocks * convert.BlockSize)
	if w == nil {
		return convert.Raw(ctx, img, out, o)
	}
	return convert.Stream(ctx, img, w, o)
}

// guest is a disk's content as a source of its own.
type guest struct {
	formats.Image
	failed error // the first failure to read it
}

func (*guest) Close() error     { return nil }
func (*guest) Identity() string { return "" }

func (g *guest) ReadAt(p []byte, off int64) (int, error) {
	n, err := g.Image.ReadAt(p, off)
	if err != nil && err != io.EOF && g.failed == nil {
		g.failed = fmt.Errorf("reading the disk at %d: %w", off, err)
	}
	return n, err
}

// notNested refuses a disk whose content is an image itself: whoever opens the raw file without
// saying that it is raw would follow the names in that image (CVE-2026-27211, CVE-2026-24708). advice is
// the way out.
func notNested(img formats.Image, advice string) error {
	g := &guest{Image: img}
	f, err := formats.Detect(all.Table(), g)
	if g.failed != nil {
		return g.failed // what a probe makes of it says less
	}
	if err != nil {
		return err
	}
	switch f.Name {
	case "qcow2", "qcow", "qed", "vdi", "vmdk", "vpc", "vhdx", "zvhd2", "zvhd":
		return &advised{
			formats.NotAllowed("disk", 0, "its content looks like a %s image, and would be taken for one as a raw file", f.Name),
			[]string{advice},
		}
	}
	return nil
}

// same says that both names are one file, so that writing one destroys the other.
func same(a, b string) bool {
	sa, err := os.Stat(a)
	if err != nil {
		return false
	}
	sb, err := os.Stat(b)
	return err == nil && os.SameFile(sa, sb)
}
