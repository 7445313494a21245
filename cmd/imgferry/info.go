package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imgferry/formats"
	"imgferry/pipeline"
)

type infoCommand struct {
	*app
	source sourceFlags
	out    *output
	chain  bool
}

func (a *app) infoCommand() *cobra.Command {
	c := &infoCommand{app: a}
	cmd := &cobra.Command{
		Use:   "info FILE",
		Short: "Say what a disk image is",
		Long: `Info reads an image's header and says what it is. It also answers for images that
can't be read (encrypted, of an unknown feature, based on a missing file), and says why.

With --backing-chain it goes on to the disks that the image is based on, as far as
--allow-backing allows it.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd.Context(), args[0])
		},
	}
	c.out = a.outputFlags(cmd)
	c.source.formatFlag(cmd)
	c.source.chainFlags(cmd)
	c.source.remoteFlags(cmd)
	cmd.Flags().BoolVar(&c.chain, "backing-chain", false, "describe the disks below too")
	return cmd
}

// imageInfo has the names of qemu-img info --output=json where they mean the same.
type imageInfo struct {
	Filename    string          `json:"filename"`
	Format      string          `json:"format"`
	VirtualSize int64           `json:"virtual-size"`
	FileSize    int64           `json:"file-size"`
	ActualSize  int64           `json:"actual-size"`
	ClusterSize int64           `json:"cluster-size,omitempty"`
	Dirty       bool            `json:"dirty-flag"`
	Encrypted   bool            `json:"encrypted,omitempty"`
	Backing     string          `json:"backing-filename,omitempty"`
	BackingType string          `json:"backing-filename-format,omitempty"`
	Files       []fileInfo      `json:"files,omitempty"`
	Snapshots   []snapshotInfo  `json:"snapshots,omitempty"`
	Specific    *formatSpecific `json:"format-specific,omitempty"`
	Packed      []string        `json:"packed,omitempty"`
	Disks       []imageInfo     `json:"disks,omitempty"`
	Readable    bool            `json:"readable"`
	Problem     string          `json:"problem,omitempty"`
}

// fileInfo is another file that the image names.
type fileInfo struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
}

type snapshotInfo struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	VirtualSize int64  `json:"virtual-size"`
	StateSize   int64  `json:"vm-state-size"`
	DateSec     int64  `json:"date-sec"`
	DateNsec    int    `json:"date-nsec"`
	ClockSec    int64  `json:"vm-clock-sec"`
	ClockNsec   int64  `json:"vm-clock-nsec"`
}

type formatSpecific struct {
	Type string         `json:"type"`
	Data map[string]any `json:"data"`
}

func (c *infoCommand) run(ctx context.Context, path string) error {
	if err := c.source.check(ctx); err != nil {
		return err
	}
	layers, err := c.source.opener.Layers(ctx, path, c.source.format, c.chain)
	if len(layers) == 0 {
		return err
	}
	if printErr := c.print(layers); printErr != nil {
		return printErr
	}
	for _, l := range layers {
		if err == nil && errors.Is(l.Problem, formats.ErrCorrupt) {
			// An image that needs a file or a feature was described well; a corrupt one failed.
			err = fmt.Errorf("%s: %w", l.Path, l.Problem)
		}
	}
	return err
}

func (c *infoCommand) print(layers []pipeline.Layer) error {
	infos := make([]imageInfo, len(layers))
	for i, l := range layers {
		infos[i] = infoOf(l)
	}
	var value any = infos
	if !c.chain {
		value = infos[0]
	}
	return c.out.emit(value, func(w io.Writer) error {
		for i, l := range layers {
			if i > 0 {
				fmt.Fprintln(w)
			}
			if _, err := io.WriteString(w, words(l)); err != nil {
				return err
			}
		}
		return nil
	})
}

func infoOf(l pipeline.Layer) imageInfo {
	o := imageInfo{
		Filename: l.Path, Format: l.Format, VirtualSize: l.VirtualSize, FileSize: l.Size, ActualSize: l.Allocated,
		ClusterSize: l.ClusterSize, Dirty: l.Dirty, Encrypted: l.Encrypted, Readable: l.Problem == nil, Packed: l.Packed,
	}
	for _, d := range l.Disks {
		o.Disks = append(o.Disks, infoOf(d))
	}
	for _, r := range l.Refs {
		if r.Kind == formats.Backing {
			o.Backing, o.BackingType = r.Name, r.Format
		}
		o.Files = append(o.Files, fileInfo{r.Kind.String(), r.Name})
	}
	for _, s := range l.Snapshots {
		o.Snapshots = append(o.Snapshots, snapshotInfo{
			ID: s.ID, Name: s.Name, VirtualSize: s.VirtualSize, StateSize: s.StateSize, DateSec: s.Taken.Unix(), DateNsec: s.Taken.Nanosecond(),
			ClockSec: int64(s.Clock / time.Second), ClockNsec: int64(s.Clock % time.Second),
		})
	}
	if len(l.Specific) > 0 {
		o.Specific = &formatSpecific{Type: l.Format, Data: map[string]any{}}
		for _, p := range l.Specific {
			o.Specific.Data[strings.ReplaceAll(p.Name, " ", "-")] = p.Value
		}
	}
	if l.Problem != nil {
		o.Problem = l.Problem.Error()
	}
	return o
}

// words describes an image for a person.
func words(l pipeline.Layer) string {
	var b strings.Builder
	// name may come from the image: it is never a format.
	row := func(name, format string, args ...any) {
		fmt.Fprintln(&b, oneLine(name+": "+fmt.Sprintf(format, args...)))
	}
	row("image", "%s", l.Path)
	row("file format", "%s", l.Format)
	if len(l.Packed) > 0 {
		row("packed in", "%s", strings.Join(l.Packed, ", in it "))
	}
	row("virtual size", "%s", bytesWords(l.VirtualSize))
	row("file size", "%s", bytesWords(l.Size))
	if l.Allocated < l.Size {
		row("disk space used", "%s", bytesWords(l.Allocated))
	}
	if l.ClusterSize > 0 {
		row("cluster size", "%d", l.ClusterSize)
	}
	if l.Encrypted {
		row("encrypted", "yes")
	}
	permission := false
	for _, r := range l.Refs {
		// A name from an image may hold anything; quoting keeps it on its line.
		row(r.Kind.String(), "%q", r.Name)
		if r.Format != "" {
			row(r.Kind.String()+" format", "%q", r.Format)
		}
		permission = permission || r.Kind != formats.ExtentOf
	}
	if permission {
		row("to read the disk", "allow the directory of that file with --allow-backing DIR")
	}
	if len(l.Snapshots) > 0 {
		fmt.Fprintln(&b, "snapshots:")
		for _, s := range l.Snapshots {
			row("    "+s.ID, "%q, %s, disk of %s", s.Name, s.Taken.UTC().Format(time.DateTime), bytesWords(s.VirtualSize))
		}
	}
	if len(l.Specific) > 0 {
		fmt.Fprintln(&b, "format specific information:")
		for _, p := range l.Specific {
			row("    "+p.Name, "%v", p.Value)
		}
	}
	if l.Dirty {
		row("not closed properly", "yes")
	}
	if l.Problem != nil {
		row("can't be read", "%v", l.Problem)
	}
	for i, d := range l.Disks {
		fmt.Fprintf(&b, "\ndisk %d:\n%s", i+1, words(d))
	}
	return b.String()
}
