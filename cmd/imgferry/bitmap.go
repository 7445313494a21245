package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"imgferry/bitmap"
	"imgferry/convert"
	"imgferry/pipeline"
)

// bitmapDenied is the exit code of bitmap --verify for a bitmap that denies data.
const bitmapDenied = 1

type bitmapCommand struct {
	*app
	source        sourceFlags
	sparse        string
	write, verify string
	workers       int
	out           *output
}

func (a *app) bitmapCommand() *cobra.Command {
	c := &bitmapCommand{app: a}
	cmd := &cobra.Command{
		Use:   "bitmap FILE",
		Short: "Make, show or verify the block bitmap of a disk",
		Long: `Bitmap finds out which blocks of 2 MiB of the disk image FILE hold data. With --write
it writes them as an .mf file: one bit for each block, as the import of a raw disk takes
it. With --verify it compares an .mf file with the disk: a bit that is missing loses
data, one too many only costs time.

If FILE is an .mf file itself, it is shown.

Exit codes of --verify:
    0  all data of the disk is in the bitmap
    1  the bitmap denies data
    3  it is no bitmap of a disk of that size`,
		Example: `  imgferry bitmap disk.qcow2
  imgferry bitmap disk.raw --write disk.mf
  imgferry bitmap disk.raw --verify disk.mf`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd.Context(), args[0])
		},
	}
	c.out = a.outputFlags(cmd)
	c.source.flags(cmd)
	c.source.remoteFlags(cmd)
	f := cmd.Flags()
	sparseFlag(cmd, &c.sparse)
	f.StringVar(&c.write, "write", "", "write the bitmap to this `FILE`")
	f.StringVar(&c.verify, "verify", "", "compare the bitmap in this `FILE` with the disk")
	f.IntVar(&c.workers, "workers", 0, "threads that read (default: one per CPU)")
	return cmd
}

// bitmapReport is what the command found.
type bitmapReport struct {
	Filename    string `json:"filename"`
	VirtualSize int64  `json:"virtual_size,omitempty"`
	Sparse      string `json:"sparse,omitempty"`
	Blocks      int64  `json:"blocks"`
	DataBlocks  int64  `json:"data_blocks"`
	// Data are the runs of blocks with data, in bytes of disk.
	Data    []blockRun `json:"data"`
	Written string     `json:"written,omitempty"`
	// Verified is the bitmap that was compared. Denied are the runs with data that it denies, Extra
	// those without that it claims.
	Verified string     `json:"verified,omitempty"`
	Denied   []blockRun `json:"denied,omitempty"`
	Extra    []blockRun `json:"extra,omitempty"`
}

// blockRun is a run of blocks in bytes of disk.
type blockRun struct {
	Start  int64 `json:"start"`
	Length int64 `json:"length"`
}

// blockRuns returns the runs of blocks below n that in says yes to.
func blockRuns(n int64, in func(int64) bool) []blockRun {
	list := []blockRun{}
	for i := range n {
		if !in(i) {
			continue
		}
		if k := len(list) - 1; k >= 0 && list[k].Start+list[k].Length == i*bitmap.BlockSize {
			list[k].Length += bitmap.BlockSize
		} else {
			list = append(list, blockRun{i * bitmap.BlockSize, bitmap.BlockSize})
		}
	}
	return list
}

// blocksIn is how many blocks runs have.
func blocksIn(runs []blockRun) (n int64) {
	for _, r := range runs {
		n += r.Length / bitmap.BlockSize
	}
	return n
}

func (c *bitmapCommand) run(ctx context.Context, path string) error {
	sparse, err := convert.ParseSparse(c.sparse)
	switch {
	case err != nil:
		return &usageError{err}
	case c.workers < 0:
		return usagef("--workers takes 1 or more, or 0 for one per CPU")
	case c.write != "" && c.verify != "":
		return usagef("--write and --verify contradict each other: first write, then verify")
	case c.verify != "" && sparse != convert.SparseZeros:
		return usagef("--verify goes by the disk's content: leave out --sparse")
	}
	if filepath.Ext(path) == ".mf" && c.source.format == "" {
		return c.show(path)
	}
	if c.write != "" && same(path, c.write) {
		return usagef("%s is the disk itself: name another file", c.write)
	}
	img, err := c.source.open(ctx, path)
	if err != nil {
		return err
	}
	defer img.Close()
	path = publicName(path)
	var claimed *bitmap.Bitmap
	if c.verify != "" { // before the disk is read, which may take long
		if claimed, err = loadBitmap(c.verify, bitmap.Blocks(img.Size())); err != nil {
			return err
		}
	}
	blocks, err := c.scan(ctx, img, sparse)
	if err != nil {
		return fmt.Errorf("%s: %w", path, img.Disk().Explain(ctx, err))
	}
	if err := img.Disk().Unchanged(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	r := bitmapReport{
		Filename: path, VirtualSize: img.Size(), Sparse: sparse.String(), Blocks: blocks.Len(), DataBlocks: blocks.Count(),
		Data: blockRuns(blocks.Len(), blocks.Get), Written: c.write, Verified: c.verify,
	}
	if claimed != nil {
		r.Denied = blockRuns(blocks.Len(), func(i int64) bool { return blocks.Get(i) && !claimed.Get(i) })
		r.Extra = blockRuns(blocks.Len(), func(i int64) bool { return !blocks.Get(i) && claimed.Get(i) })
	}
	if c.write != "" {
		f, err := stageBitmap(c.write, blocks)
		if err != nil {
			return err
		}
		defer f.Discard()
		if err := f.Commit(); err != nil {
			return err
		}
	}
	if err := c.out.emit(r, r.words); err != nil {
		return err
	}
	if len(r.Denied) > 0 {
		return verdict(bitmapDenied)
	}
	return nil
}

// scan reads the disk while its progress is shown.
func (c *bitmapCommand) scan(ctx context.Context, img *pipeline.Opened, sparse convert.Sparse) (*bitmap.Bitmap, error) {
	limitMemory(convertMemory)
	if err := convert.CheckSize(img); err != nil {
		return nil, err
	}
	var p convert.Progress
	stop := c.watch(func() snapshot {
		return snapshot{read: p.Read.Load(), total: p.Total.Load()}
	})
	defer stop()
	total, err := convert.Total(ctx, img, sparse)
	if err != nil {
		return nil, err
	}
	p.Total.Store(total)
	r, err := convert.Scan(ctx, img, convert.Options{Workers: c.workers, Sparse: sparse, Progress: &p})
	return r.Blocks, err
}

// show tells what an .mf file says.
func (c *bitmapCommand) show(path string) error {
	if c.write != "" || c.verify != "" {
		return usagef("%s is a bitmap: name the disk, or say --source-format raw if it is one", path)
	}
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	// The file doesn't say how many blocks the disk has, but no more than these.
	most := fi.Size() * 8
	blocks, err := loadBitmap(path, most)
	if err != nil {
		return err
	}
	r := bitmapReport{Filename: path, Blocks: most, DataBlocks: blocks.Count(), Data: blockRuns(most, blocks.Get)}
	return c.out.emit(r, r.words)
}

// words tells a person.
func (r bitmapReport) words(w io.Writer) error {
	size := ""
	if r.VirtualSize > 0 {
		size = bytesWords(r.VirtualSize)
	}
	fields := [][2]string{
		{"virtual size", size},
		{"blocks of 2 MiB", fmt.Sprint(r.Blocks)},
		{"with data", fmt.Sprintf("%d in %d runs, %s", r.DataBlocks, len(r.Data), bytesWords(r.DataBlocks*bitmap.BlockSize))},
		{"written", r.Written},
	}
	if r.Verified != "" {
		answer := "all data of the disk is in it"
		if len(r.Denied) > 0 {
			answer = fmt.Sprintf("DENIES DATA in %d blocks", blocksIn(r.Denied))
		}
		fields = append(fields, [2]string{r.Verified, answer})
		if n := blocksIn(r.Extra); n > 0 {
			fields = append(fields, [2]string{"claimed without need", fmt.Sprintf("%d blocks", n)})
		}
	}
	if err := printFields(w, fields); err != nil {
		return err
	}
	const most = 20 // lines of findings: more are no help
	for i, d := range r.Denied {
		if i == most {
			_, err := fmt.Fprintf(w, "... and %d more runs\n", len(r.Denied)-most)
			return err
		}
		if _, err := fmt.Fprintf(w, "denied: %d bytes at %d\n", d.Length, d.Start); err != nil {
			return err
		}
	}
	return nil
}

// stageBitmap writes the .mf file of blocks, which Commit gives its name.
func stageBitmap(path string, blocks *bitmap.Bitmap) (*convert.File, error) {
	f, err := convert.Create(path)
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(blocks.Append(nil)); err != nil {
		f.Discard()
		return nil, err
	}
	return f, nil
}

// loadBitmap reads the .mf file of a disk of n blocks.
func loadBitmap(path string, n int64) (*bitmap.Bitmap, error) {
	// The largest disk that there is has this much; the file is not read if it is longer.
	most := bitmap.StoredSize(bitmap.Blocks(convert.MaxSize))
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	var p []byte
	if fi.Mode().IsRegular() && fi.Size() <= most {
		if p, err = os.ReadFile(path); err != nil {
			return nil, err
		}
	}
	b, err := bitmap.Parse(p, n)
	if err != nil || n == 0 {
		if err == nil {
			err = bitmap.ErrFormat
		}
		return nil, &coded{fmt.Errorf("%s: %w", path, err), exitCorrupt}
	}
	return b, nil
}
