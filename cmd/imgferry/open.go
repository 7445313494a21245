package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"imgferry/formats"
	"imgferry/formats/all"
	"imgferry/pipeline"
	"imgferry/source"
)

// sourceFlags say how to open disk images.
type sourceFlags struct {
	format string
	opener pipeline.Opener
}

// formatFlag is for commands that look at one file only.
func (s *sourceFlags) formatFlag(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&s.format, "source-format", "f", "", "format; default by content")
}

// flags are for commands that read disks.
func (s *sourceFlags) flags(cmd *cobra.Command) {
	s.formatFlag(cmd)
	s.chainFlags(cmd)
	cmd.Flags().StringVarP(&s.opener.Snapshot, "snapshot", "l", "", "read the internal snapshot of this name or id")
}

// chainFlags are for commands that follow the names in an image.
func (s *sourceFlags) chainFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&s.opener.Allow, "allow-backing", nil, "`DIR` whose files the image may name as its backing file, parent, data file or extents; may be repeated")
	f.StringVar(&s.opener.BackingFormat, "backing-format", "", "format of backing files for which the image names none")
}

// open opens the disk image at path, with the files it names as far as they are allowed.
func (s *sourceFlags) open(ctx context.Context, path string) (*pipeline.Opened, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	return s.opener.Open(ctx, path, s.format)
}

// detect opens the file at path alone and finds its format.
func (s *sourceFlags) detect(path string) (*source.File, formats.Format, error) {
	if err := s.check(); err != nil {
		return nil, formats.Format{}, err
	}
	return s.opener.Detect(path, s.format)
}

// check refuses formats that there are not, and fills in those there are.
func (s *sourceFlags) check() error {
	s.opener.Table = all.Table()
	var errs []error
	for _, name := range []string{s.format, s.opener.BackingFormat} {
		if name != "" {
			_, err := formats.ByName(s.opener.Table, name)
			errs = append(errs, err)
		}
	}
	for _, dir := range s.opener.Allow {
		if fi, err := os.Stat(dir); err != nil || !fi.IsDir() {
			errs = append(errs, fmt.Errorf("--allow-backing %q is not a folder", dir))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return &usageError{err}
	}
	return nil
}
