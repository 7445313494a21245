package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"imgferry/formats"
)

type infoCommand struct {
	*app
	sourceFormat string
	json         bool
}

func (a *app) infoCommand() *cobra.Command {
	c := &infoCommand{app: a}
	cmd := &cobra.Command{
		Use:   "info FILE",
		Short: "Say what a disk image is",
		Long: `Info reads an image's header and says what it is. It also answers for images that
can't be read (encrypted, with a backing file, of an unknown feature), and says why.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd.Context(), args[0])
		},
	}
	cmd.Flags().StringVarP(&c.sourceFormat, "source-format", "f", "", "format; default by content")
	cmd.Flags().BoolVar(&c.json, "json", false, "print JSON, with the names of qemu-img where they mean the same")
	return cmd
}

// imageInfo has the names of qemu-img info --output=json where they mean the same.
type imageInfo struct {
	Filename    string          `json:"filename"`
	Format      string          `json:"format"`
	VirtualSize int64           `json:"virtual-size"`
	FileSize    int64           `json:"file-size"`
	ClusterSize int64           `json:"cluster-size,omitempty"`
	Dirty       bool            `json:"dirty-flag"`
	Encrypted   bool            `json:"encrypted,omitempty"`
	Backing     string          `json:"backing-filename,omitempty"`
	BackingType string          `json:"backing-filename-format,omitempty"`
	Specific    *formatSpecific `json:"format-specific,omitempty"`
	Readable    bool            `json:"readable"`
	Problem     string          `json:"problem,omitempty"`
}

type formatSpecific struct {
	Type string         `json:"type"`
	Data map[string]any `json:"data"`
}

func (c *infoCommand) run(ctx context.Context, path string) error {
	src, f, err := detect(path, c.sourceFormat)
	if err != nil {
		return err
	}
	defer src.Close()
	in, err := f.Info(ctx, src)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if c.json {
		err = printJSON(c.stdout, infoOf(path, src.Size(), in))
	} else {
		_, err = io.WriteString(c.stdout, words(path, src.Size(), in))
	}
	if err == nil && errors.Is(in.Problem, formats.ErrCorrupt) {
		// An image that needs a file or a feature was described well; a corrupt one failed.
		err = fmt.Errorf("%s: %w", path, in.Problem)
	}
	return err
}

func infoOf(path string, fileSize int64, in formats.Info) imageInfo {
	o := imageInfo{
		Filename: path, Format: in.Format, VirtualSize: in.VirtualSize, FileSize: fileSize,
		ClusterSize: in.ClusterSize, Dirty: in.Dirty, Encrypted: in.Encrypted, Readable: in.Problem == nil,
	}
	for _, r := range in.Refs {
		if r.Kind == formats.Backing {
			o.Backing, o.BackingType = r.Name, r.Format
		}
	}
	if len(in.Specific) > 0 {
		o.Specific = &formatSpecific{Type: in.Format, Data: map[string]any{}}
		for _, p := range in.Specific {
			o.Specific.Data[strings.ReplaceAll(p.Name, " ", "-")] = p.Value
		}
	}
	if in.Problem != nil {
		o.Problem = in.Problem.Error()
	}
	return o
}

// words describes an image for a person.
func words(path string, fileSize int64, in formats.Info) string {
	var b strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintln(&b, printable(fmt.Sprintf(name+": "+format, args...)))
	}
	row("image", "%s", path)
	row("file format", "%s", in.Format)
	row("virtual size", "%s", bytesWords(in.VirtualSize))
	row("file size", "%s", bytesWords(fileSize))
	if in.ClusterSize > 0 {
		row("cluster size", "%d", in.ClusterSize)
	}
	if in.Encrypted {
		row("encrypted", "yes")
	}
	for _, r := range in.Refs {
		// A name from an image may hold anything; quoting keeps it on its line.
		row(r.Kind.String(), "%q", r.Name)
	}
	if len(in.Specific) > 0 {
		fmt.Fprintln(&b, "format specific information:")
		for _, p := range in.Specific {
			row("    "+p.Name, "%v", p.Value)
		}
	}
	if in.Dirty {
		row("not closed properly", "yes")
	}
	if in.Problem != nil {
		row("can't be read", "%v", in.Problem)
	}
	return b.String()
}
