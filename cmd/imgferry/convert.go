package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"imgferry/bitmap"
	"imgferry/convert"
	"imgferry/formats"
	"imgferry/formats/all"
	"imgferry/limits"
	"imgferry/pipeline"
	"imgferry/source"
)

type convertCommand struct {
	*app
	source                sourceFlags
	format, level, sparse string
	options               []string
	digest, force, verify bool
	bitmap, noSync        bool
	compress              bool
	workers               int
	out                   *output
}

// standardOutput is the name of a target that goes to stdout.
const standardOutput = "-"

func (a *app) convertCommand() *cobra.Command {
	c := &convertCommand{app: a}
	cmd := &cobra.Command{
		Use:   "convert SRC DST -O FORMAT",
		Short: "Convert a disk image to a local file, a device or a pipe",
		Long: `Convert reads the disk image SRC, of any format it knows, and writes DST.

A file gets its name when it is whole: an interrupted or failed run leaves what was
there before. Zeros become holes in a raw file, and are left out of other formats.

DST may be a block device: the disk is written to it as it is, and what lies behind a
smaller disk stays. A device that is mounted or not empty takes --force.

DST may be -, standard output, for formats that are written front to back. What stands
there after a failure is not whole: look at the exit code.

Formats and their options (-o NAME=VALUE, -O FORMAT -o help):

` + targetsHelp(),
		Example: `  imgferry convert disk.qcow2 disk.zvhd2 -O zvhd2
  imgferry convert disk.zvhd2 disk.raw -O raw --verify
  imgferry convert disk.vmdk disk.qcow2 -O qcow2 -o compression_type=zstd,cluster_size=128K
  imgferry convert disk.qcow2 - -O raw | ssh host 'dd of=/dev/vdb bs=1M'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if c.wantsHelp() {
				return nil
			}
			return cobra.ExactArgs(2)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if c.wantsHelp() {
				return c.help()
			}
			return c.run(cmd.Context(), args[0], args[1])
		},
	}
	f := cmd.Flags()
	f.StringVarP(&c.format, "output-format", "O", "", "target format: "+strings.Join(convert.TargetNames(), ", "))
	f.StringArrayVarP(&c.options, "option", "o", nil, "option of the target format, `NAME=VALUE`; help lists them; may be repeated (table, json and yaml mean --output)")
	c.source.flags(cmd)
	c.source.remoteFlags(cmd)
	f.BoolVar(&c.force, "force", false, "write a raw disk even if it begins like an image of another format, and to a device that is in use or not empty")
	f.BoolVar(&c.digest, "digest", false, "compute the content digest")
	f.BoolVar(&c.verify, "verify", false, "read back what was written and compare its content digest")
	f.BoolVar(&c.bitmap, "write-bitmap", false, "write the block bitmap of a raw disk beside it, under its name with the extension .mf")
	f.BoolVar(&c.noSync, "no-sync", false, "don't wait until the file is on the disk; a power cut may spoil it (qemu-img never waits)")
	f.BoolVarP(&c.compress, "compress", "c", false, "compress, if the target format can: qcow2 with zlib unless -o says zstd; the others do so anyway")
	f.StringVar(&c.level, "compress-level", "", "how hard to compress: fastest, default, better, best; auto is default here")
	sparseFlag(cmd, &c.sparse)
	c.out = a.outputFlagsUnder(cmd, "")
	f.IntVar(&c.workers, "workers", 0, "threads that read and encode (default: one per CPU)")
	for flag, values := range map[string][]string{
		"output-format": convert.TargetNames(), "compress-level": {"fastest", "default", "better", "best", autoLevel},
	} {
		_ = cmd.RegisterFlagCompletionFunc(flag, anyOf(values...)) // the error is that of a flag that there is not
	}
	return cmd
}

// sparseFlag adds --sparse to cmd.
func sparseFlag(cmd *cobra.Command, value *string) {
	cmd.Flags().StringVar(value, "sparse", convert.SparseZeros.String(), "what counts as empty: zeros (what reads as zeros), holes (only what the image's tables say) or none")
	_ = cmd.RegisterFlagCompletionFunc("sparse", anyOf(convert.SparseNames()...))
}

// targetsHelp lists the targets and their options.
func targetsHelp() string {
	var b strings.Builder
	for _, t := range convert.Targets() {
		fmt.Fprintf(&b, "    %-7s%s\n", t.Name, t.About)
		for _, o := range t.Options {
			fmt.Fprintf(&b, "             %s\n", optionHelp(o))
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// optionHelp is a line about an option.
func optionHelp(o convert.TargetOption) string {
	if o.Values == nil {
		return fmt.Sprintf("%s=SIZE: %s (default %s)", o.Name, o.Help, o.Default)
	}
	return fmt.Sprintf("%s=%s: %s (default %s)", o.Name, strings.Join(o.Values, "|"), o.Help, o.Default)
}

// wantsHelp says that the options of the target are asked for, as with qemu-img: -o help.
func (c *convertCommand) wantsHelp() bool {
	return len(c.options) == 1 && (c.options[0] == "help" || c.options[0] == "?")
}

// help prints the options of the target, or of all.
func (c *convertCommand) help() error {
	if c.format == "" {
		_, err := fmt.Fprintln(c.stdout, targetsHelp())
		return err
	}
	t, err := convert.TargetByName(c.format)
	if err != nil {
		return &usageError{err}
	}
	if len(t.Options) == 0 {
		_, err := fmt.Fprintf(c.stdout, "%s has no options.\n", t.Name)
		return err
	}
	for _, o := range t.Options {
		if _, err := fmt.Fprintln(c.stdout, optionHelp(o)); err != nil {
			return err
		}
	}
	return nil
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
	Verified     bool    `json:"verified,omitempty"`
	Bitmap       string  `json:"bitmap,omitempty"`
	Seconds      float64 `json:"seconds"`
}

// conversion is what the command line asks for.
type conversion struct {
	convert.Target
	settings convert.Settings
	sparse   convert.Sparse
}

// autoLevel is the level that uploads choose while they run.
const autoLevel = "auto"

// parse makes sense of the flags and of the name of the target.
func (c *convertCommand) parse(dst string) (v conversion, err error) {
	if c.format == "" {
		return v, usagef("missing: the target format: -O with one of %s", strings.Join(convert.TargetNames(), ", "))
	}
	if v.Target, err = convert.TargetByName(c.format); err != nil {
		return v, &usageError{err}
	}
	var options []string
	if c.compress && v.Compress != "" {
		options = append(options, v.Compress)
	}
	for _, o := range c.options {
		switch o {
		case formTable, formJSON, formYAML: // what -o means in other commands
			if err := c.out.choose("output", o); err != nil {
				return v, &usageError{err}
			}
		default:
			options = append(options, o)
		}
	}
	if c.level != "" {
		if !v.Has("level") {
			return v, usagef("%s is not compressed: leave out --compress-level", v.Name)
		}
		level := c.level
		if level == autoLevel {
			level = "default"
		}
		options = append(options, "level="+level)
	}
	if v.settings, err = v.Settings(options); err != nil {
		return v, &usageError{err}
	}
	if v.sparse, err = convert.ParseSparse(c.sparse); err != nil {
		return v, &usageError{err}
	}
	packed := v.Compresses(v.settings)
	switch {
	case c.workers < 0:
		return v, usagef("--workers takes 1 or more, or 0 for one per CPU")
	case c.compress && !packed:
		return v, usagef("%s is not compressed, or not with these options: leave out -c", v.Name)
	case c.level != "" && !packed:
		return v, usagef("%s is not compressed with these options: choose %s, or leave out --compress-level", v.Name, v.Compress)
	case c.bitmap && !v.Raw():
		return v, usagef("--write-bitmap is for raw disks: %s has its own tables", v.Name)
	}
	if dst == standardOutput {
		return v, c.checkPipe(v)
	}
	if convert.IsDevice(dst) {
		switch {
		case !v.Raw():
			return v, usagef("%s is a device: only raw disks are written there (-O raw)", dst)
		case c.bitmap:
			return v, usagef("%s is a device: a bitmap has no place beside it; imgferry bitmap writes it elsewhere", dst)
		}
	}
	return v, nil
}

// checkPipe refuses what can't go to standard output.
func (c *convertCommand) checkPipe(v conversion) error {
	switch {
	case !v.Streams(v.settings):
		return usagef("%s can't be written front to back: name a file (./- for one of that name)", v.Name)
	case isTerminal(c.stdout):
		return usagef("standard output is a terminal: name a file, or pipe it into another program")
	case c.verify:
		return usagef("what goes to standard output can't be read back: leave out --verify")
	case c.bitmap:
		return usagef("standard output has no file beside it: leave out --write-bitmap")
	case !c.out.table():
		return usagef("standard output is the disk's: leave out --%s", c.out.set)
	}
	return nil
}

func (c *convertCommand) run(ctx context.Context, src, dst string) error {
	v, err := c.parse(dst)
	if err != nil {
		return err
	}
	start := time.Now()
	img, err := c.source.open(ctx, src)
	if err != nil {
		return err
	}
	defer img.Close()
	src = publicName(src)
	if same(src, dst) {
		return usagef("%s is the source itself: name another target", dst)
	}
	if err := convert.CheckSize(img); err != nil {
		return fmt.Errorf("%s: %w", src, err)
	}
	if v.Raw() && !c.force {
		if err := notNested(img, "Use --force if that is what you want."); err != nil {
			return fmt.Errorf("%s: %w", src, err)
		}
	}
	limitMemory(convertMemory)
	to, err := c.target(ctx, dst)
	if err != nil {
		return err
	}
	defer to.Discard()
	result, err := c.write(ctx, img, to, v)
	if err != nil {
		return fmt.Errorf("%s to %s: %w", src, dst, img.Disk().Explain(ctx, err))
	}
	if err := img.Disk().Unchanged(); err != nil {
		return fmt.Errorf("%s: %w", src, err)
	}
	if c.verify {
		if err := c.readBack(ctx, to.Path(), img.Size(), v, result.Digest); err != nil {
			return fmt.Errorf("reading back %s: %w", dst, err)
		}
	}
	r := converted{
		Source: src, SourceFormat: img.Format, Target: dst, Format: v.Name, VirtualSize: img.Size(),
		Blocks: result.Blocks.Len(), DataBlocks: result.Blocks.Count(), Verified: c.verify,
	}
	if r.Bitmap, err = c.commit(to, dst, v, result.Blocks); err != nil {
		return err
	}
	r.Seconds = time.Since(start).Seconds()
	if c.digest {
		r.Digest = result.Digest.String()
	}
	return c.report(r)
}

func (c *convertCommand) report(r converted) error {
	return c.out.emit(r, func(w io.Writer) error {
		verified := ""
		if r.Verified {
			verified = ", read back and found right"
		}
		c.say("%s: %s disk, %s of it data, written as %s in %.1f s%s", r.Target, humanize.IBytes(uint64(r.VirtualSize)),
			humanize.IBytes(uint64(min(r.DataBlocks*convert.BlockSize, r.VirtualSize))), r.Format, r.Seconds, verified)
		if r.Digest == "" {
			return nil
		}
		if r.Target == standardOutput {
			c.say("content digest %s", r.Digest)
			return nil
		}
		_, err := fmt.Fprintln(w, r.Digest)
		return err
	})
}

// target is where a disk is written to.
type target interface {
	io.Writer
	// Path is where it can be read back before Commit.
	Path() string
	// Commit ends a good run, Discard one that failed; after Commit it does nothing.
	Commit() error
	Discard()
}

// target opens DST.
func (c *convertCommand) target(ctx context.Context, dst string) (target, error) {
	switch {
	case dst == standardOutput:
		return newPipe(ctx, c.stdout), nil
	case !convert.IsDevice(dst):
		f, err := convert.Create(dst)
		if err != nil {
			return nil, err
		}
		if c.noSync {
			f.SkipSync()
		}
		return f, nil
	}
	d, err := convert.OpenDevice(dst, c.force)
	switch {
	case errors.Is(err, convert.ErrInUse):
		return nil, &coded{&advised{err, []string{"Unmount it first, or use --force if you know better."}}, exitExists}
	case errors.Is(err, convert.ErrNotEmpty):
		return nil, &coded{&advised{err, []string{"Use --force to overwrite what it holds."}}, exitExists}
	case err != nil:
		return nil, err
	}
	return device{d, dst}, nil
}

// device is a block device as a target.
type device struct {
	*convert.Device
	path string
}

func (d device) Path() string { return d.path }
func (d device) Discard()     { d.Close() }

func (d device) Commit() error { return errors.Join(d.Sync(), d.Close()) }

// pipe is standard output as a target. A reader that stands still must not keep an interrupt waiting,
// and such a write can't be called off: it goes on in a goroutine that ends with the process.
type pipe struct {
	ctx  context.Context
	data chan []byte
	done chan error
}

func newPipe(ctx context.Context, w io.Writer) *pipe {
	p := &pipe{ctx, make(chan []byte), make(chan error, 1)}
	go func() {
		for b := range p.data {
			n, err := w.Write(b)
			if err == nil && n < len(b) {
				err = io.ErrShortWrite
			}
			p.done <- err
		}
	}()
	return p
}

// Write waits until b is written or the context has ended.
func (p *pipe) Write(b []byte) (int, error) {
	p.data <- b
	select {
	case err := <-p.done:
		if err != nil {
			return 0, err
		}
		return len(b), nil
	case <-p.ctx.Done():
		return 0, context.Cause(p.ctx)
	}
}

func (*pipe) Path() string  { return standardOutput }
func (*pipe) Commit() error { return nil }
func (p *pipe) Discard()    { close(p.data) }

// convertMemory is when the garbage collector begins to work harder, in bytes: below the 200 MiB of
// peak RSS that a conversion may take.
const convertMemory = 160 << 20

// write writes the disk while its progress is shown.
func (c *convertCommand) write(ctx context.Context, img *pipeline.Opened, to target, v conversion) (convert.Result, error) {
	var p convert.Progress
	stop := c.watch(func() snapshot {
		return snapshot{read: p.Read.Load(), total: p.Total.Load()}
	})
	defer stop()
	return v.Write(ctx, img, to, v.settings, convert.Options{
		Digest: c.digest || c.verify, Sparse: v.sparse, Workers: c.workers, Progress: &p,
	})
}

// readBack opens what was written, as the format that it should be, and compares its content digest.
// size is the disk's; a format may have rounded it up, and behind it a device has bytes of its own.
func (c *convertCommand) readBack(ctx context.Context, path string, size int64, v conversion, want convert.Digest) error {
	f, err := formats.ByName(all.Table(), v.Name)
	if err != nil {
		return err
	}
	src, err := source.Open(path)
	if err != nil {
		return err
	}
	img, err := f.Open(ctx, src, nil)
	if err != nil {
		src.Close()
		return err
	}
	defer img.Close()
	if img.Size() < size {
		return fmt.Errorf("the disk has %d bytes instead of %d", img.Size(), size)
	}
	if convert.IsDevice(path) {
		if img, err = convert.Head(img, size); err != nil {
			return err
		}
	}
	var p convert.Progress
	total, err := convert.Total(ctx, img, convert.SparseZeros)
	if err != nil {
		return err
	}
	p.Total.Store(total)
	stop := c.watch(func() snapshot {
		return snapshot{read: p.Read.Load(), total: p.Total.Load()}
	})
	defer stop()
	r, err := convert.Scan(ctx, img, convert.Options{Digest: true, Workers: c.workers, Progress: &p})
	if err != nil {
		return err
	}
	if r.Digest != want {
		return fmt.Errorf("its content differs from what was written: digest %v instead of %v", r.Digest, want)
	}
	return nil
}

// commit gives the target its name, and the bitmap that of the file beside it, which it returns.
func (c *convertCommand) commit(to target, dst string, v conversion, blocks *bitmap.Bitmap) (beside string, err error) {
	if _, file := to.(*convert.File); !file || !v.Raw() {
		return "", to.Commit()
	}
	beside = filepath.Join(filepath.Dir(dst), limits.BitmapKey(filepath.Base(dst)))
	if !c.bitmap {
		if fi, err := os.Stat(beside); err == nil && fi.Mode().IsRegular() && !same(beside, dst) {
			c.warn("%s is the bitmap of another disk now: remove it, or use --write-bitmap to replace it", beside)
		}
		return "", to.Commit()
	}
	if beside == filepath.Clean(dst) {
		return "", usagef("%s is the name of the bitmap too: name another target", dst)
	}
	bits, err := stageBitmap(beside, blocks)
	if err != nil {
		return "", err
	}
	defer bits.Discard()
	// Two files can't be renamed at once. Neither may ever stand beside one that it doesn't belong to.
	if err := os.Remove(beside); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if err := to.Commit(); err != nil {
		return "", err
	}
	return beside, bits.Commit()
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
