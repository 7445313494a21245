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
)

// sourceFlags say how to open disk images, and where they are.
type sourceFlags struct {
	format string
	opener pipeline.Opener
	// cloud is where s3:// leads, unless the command has one of its own.
	cloud                 cloud
	own                   *cloud
	maxUnpacked, maxSpill byteSize
}

// formatFlag is for commands that look at one file only.
func (s *sourceFlags) formatFlag(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&s.format, "source-format", "f", "", "format; default by content")
	s.placeFlags(cmd)
}

// placeFlags say which disk of a package is meant, what may come out of compressed files, and how to
// reach other machines.
func (s *sourceFlags) placeFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.opener.Disk, "disk", "", "which `DISK` of an OVA or OVF with several: its number, file name or id")
	s.unpackFlags(cmd)
}

// unpackFlags say what may come out of compressed files.
func (s *sourceFlags) unpackFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Var(&s.maxUnpacked, "max-unpacked", "the most that may be in a compressed file (default 2TiB)")
	f.Var(&s.maxSpill, "max-spill", "the most that a compressed file may take in a temporary one (default 64GiB)")
}

// flags are for commands that read disks.
func (s *sourceFlags) flags(cmd *cobra.Command) {
	s.formatFlag(cmd)
	s.chainFlags(cmd)
	cmd.Flags().StringVarP(&s.opener.Snapshot, "snapshot", "l", "", "read the internal snapshot of this name or id")
}

// chainFlags are for commands that follow the names in an image.
func (s *sourceFlags) chainFlags(cmd *cobra.Command) {
	s.allowFlag(cmd)
	cmd.Flags().StringVar(&s.opener.BackingFormat, "backing-format", "", "format of backing files for which the image names none")
}

// allowFlag is for commands that follow the name of a package's disk.
func (s *sourceFlags) allowFlag(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&s.opener.Allow, "allow-backing", nil, "`DIR` whose files the image may name as its backing file, parent, data file or extents; may be repeated")
}

// open opens the disk image called name, a file or an address, with the files it names as far as they
// are allowed.
func (s *sourceFlags) open(ctx context.Context, name string) (*pipeline.Opened, error) {
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	return s.opener.Open(ctx, name, s.format)
}

// detect opens the image alone and finds its format.
func (s *sourceFlags) detect(ctx context.Context, name string) (formats.Source, formats.Format, error) {
	if err := s.check(ctx); err != nil {
		return nil, formats.Format{}, err
	}
	return s.opener.Detect(ctx, name, s.format)
}

// check refuses formats that there are not, and fills in those there are.
func (s *sourceFlags) check(ctx context.Context) error {
	s.opener.Table = all.Table()
	s.opener.Unpack.Size, s.opener.Unpack.Spill = int64(s.maxUnpacked), int64(s.maxSpill)
	s.opener.Unpack.Notice = notice(ctx)
	s.opener.Remote = s.remote
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
