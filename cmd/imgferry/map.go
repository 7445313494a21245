package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"imgferry/bitmap"
	"imgferry/convert"
	"imgferry/formats"
	"imgferry/pipeline"
)

type mapCommand struct {
	*app
	source         sourceFlags
	out            *output
	png            string
	start, maximum byteSize
}

func (a *app) mapCommand() *cobra.Command {
	c := &mapCommand{app: a}
	cmd := &cobra.Command{
		Use:   "map FILE",
		Short: "Show where a disk's data lies",
		Long: `Map lists the runs of the virtual disk that hold data, and where they lie in which
file. It reads tables only, never data.

With --json it lists all runs, by the names that qemu-img map uses: depth is the layer
of the backing chain (0 is FILE itself), present says whether any layer has the run,
zero that it reads as zeros, data that something is stored. offset is missing where the
run has no single place, as compressed data has not.

With --png it draws the disk by position.`,
		Example: "  imgferry map disk.qcow2\n  imgferry map disk.qcow2 --png disk.png",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd.Context(), args[0])
		},
	}
	c.out = a.outputFlags(cmd)
	c.source.flags(cmd)
	c.source.remoteFlags(cmd)
	cmd.Flags().StringVar(&c.png, "png", "", "draw the disk into this `FILE` instead of listing runs")
	cmd.Flags().Var(&c.start, "start-offset", "begin at this disk offset")
	cmd.Flags().Var(&c.maximum, "max-length", "look at no more than this; default: the rest of the disk")
	return cmd
}

// mapEntry is a run by the names of qemu-img map --output=json.
type mapEntry struct {
	Start      int64  `json:"start"`
	Length     int64  `json:"length"`
	Depth      int    `json:"depth"`
	Present    bool   `json:"present"`
	Zero       bool   `json:"zero"`
	Data       bool   `json:"data"`
	Compressed bool   `json:"compressed"`
	Offset     *int64 `json:"offset,omitempty"`
	File       string `json:"filename,omitempty"`
}

// entry is e as it is listed; path is the image's own file.
func entry(path string, e formats.Extent) mapEntry {
	m := mapEntry{
		Start: e.Offset, Length: e.Length, Depth: e.Depth, Present: !e.Absent, Zero: e.Zero, Data: !e.Zero, Compressed: e.Compressed,
	}
	if e.HostOffset >= 0 {
		m.Offset = &e.HostOffset
		if m.File = e.File; m.File == "" {
			m.File = path
		}
	}
	return m
}

func (c *mapCommand) run(ctx context.Context, path string) error {
	c.source.opener.MetadataOnly = true
	img, err := c.source.open(ctx, path)
	if err != nil {
		return err
	}
	path = publicName(path)
	defer img.Close()
	if c.png != "" {
		err = c.draw(ctx, img, path)
	} else {
		err = c.list(ctx, img, path)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, img.Disk().Explain(ctx, err))
	}
	return nil
}

// each calls use for the runs in the range that was asked for.
func (c *mapCommand) each(ctx context.Context, img *pipeline.Opened, use func(formats.Extent) error) error {
	start, end := int64(c.start), img.Size()
	if c.maximum > 0 && int64(c.maximum) < end-start {
		end = start + int64(c.maximum)
	}
	for e, err := range img.Extents(ctx) {
		if err != nil {
			return err
		}
		if e.Offset >= end {
			return nil
		}
		from, to := max(e.Offset, start), min(e.Offset+e.Length, end)
		if from >= to {
			continue
		}
		if e.HostOffset >= 0 {
			e.HostOffset += from - e.Offset
		}
		e.Offset, e.Length = from, to-from
		if err := use(e); err != nil {
			return err
		}
	}
	return nil
}

// list prints the runs as they are found: a disk may have millions.
func (c *mapCommand) list(ctx context.Context, img *pipeline.Opened, path string) error {
	w := bufio.NewWriter(c.stdout)
	print := map[string]func(io.Writer, *pipeline.Opened, context.Context, string) error{
		formJSON: c.listJSON, formYAML: c.listYAML, formTable: c.listTable,
	}[c.out.form]
	if err := print(w, img, ctx, path); err != nil {
		w.Flush()
		return err
	}
	return w.Flush()
}

// listJSON writes a run a line, as qemu-img does.
func (c *mapCommand) listJSON(w io.Writer, img *pipeline.Opened, ctx context.Context, path string) error {
	separator := "["
	err := c.each(ctx, img, func(e formats.Extent) error {
		line, err := json.Marshal(entry(path, e))
		if err == nil {
			_, err = fmt.Fprintf(w, "%s%s", separator, line)
		}
		separator = ",\n"
		return err
	})
	if err != nil {
		return err // what was printed has no end, so that nobody takes it for the whole
	}
	if separator == "[" {
		fmt.Fprint(w, "[") // no runs at all
	}
	_, err = fmt.Fprintln(w, "]")
	return err
}

func (c *mapCommand) listYAML(w io.Writer, img *pipeline.Opened, ctx context.Context, path string) error {
	return c.each(ctx, img, func(e formats.Extent) error {
		return printYAML(w, []mapEntry{entry(path, e)})
	})
}

func (c *mapCommand) listTable(w io.Writer, img *pipeline.Opened, ctx context.Context, path string) error {
	const row = "%-16s%-16s%-16s%s\n"
	fmt.Fprintf(w, row, "Offset", "Length", "Mapped to", "File")
	return c.each(ctx, img, func(e formats.Extent) error {
		m := entry(path, e)
		if !m.Data {
			return nil
		}
		to := "compressed"
		if m.Offset != nil {
			to = fmt.Sprintf("%#x", *m.Offset)
		} else if !m.Compressed {
			to = "-"
		}
		_, err := fmt.Fprintf(w, row, fmt.Sprintf("%#x", m.Start), fmt.Sprintf("%#x", m.Length), to, oneLine(m.File))
		return err
	})
}

// draw writes the picture.
func (c *mapCommand) draw(ctx context.Context, img *pipeline.Opened, path string) error {
	p := bitmap.NewPicture(fmt.Sprintf("%s: %s, %s", path, img.Format, bytesWords(img.Size())), img.Size())
	if err := c.each(ctx, img, func(e formats.Extent) error { p.Add(e.Offset, e.Length, storage(e)); return nil }); err != nil {
		return err
	}
	out, err := convert.Create(c.png)
	if err != nil {
		return err
	}
	defer out.Discard()
	if err := p.WritePNG(out); err != nil {
		return err
	}
	return out.Commit()
}

func storage(e formats.Extent) bitmap.Storage {
	switch {
	case e.Absent:
		return bitmap.Absent
	case e.Zero:
		return bitmap.Zeros
	case e.Compressed:
		return bitmap.Compressed
	}
	return bitmap.Stored
}
