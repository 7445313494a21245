package main

import (
	"context"
	"errors"
	"fmt"

	"imgferry/formats"
	"imgferry/formats/all"
	"imgferry/pipeline"
	"imgferry/source"
)

// opened is an image with its source. Close closes both.
type opened struct {
	formats.Image
	format string
	file   *source.File
}

// open opens the image at path. format "" detects it by content.
func open(ctx context.Context, path, format string) (*opened, error) {
	src, f, err := detect(path, format)
	if err != nil {
		return nil, err
	}
	img, err := f.Open(ctx, src, nil)
	if err != nil {
		src.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &opened{img, f.Name, src}, nil
}

// detect opens the file at path and finds its format.
func detect(path, format string) (*source.File, formats.Format, error) {
	table := all.Table()
	var f formats.Format
	var err error
	if format != "" {
		if f, err = formats.ByName(table, format); err != nil {
			return nil, f, &usageError{err}
		}
	}
	src, err := source.Open(path)
	if err != nil {
		return nil, f, err
	}
	if format == "" {
		f, err = formats.Detect(table, src)
	} else if f.Name != "raw" {
		// What the user says is checked; only raw can be anything.
		var ok bool
		if ok, err = f.Probe(src); err == nil && !ok {
			err = formats.Corrupt(f.Name, 0, "the file is no %s image", f.Name)
		}
	}
	if err != nil {
		src.Close()
		if errors.Is(err, formats.ErrUnknown) {
			err = fmt.Errorf("the format is not known: say --source-format raw if it is a raw disk")
		}
		return nil, f, fmt.Errorf("%s: %w", path, err)
	}
	return src, f, nil
}

// disk is the image as pipeline takes it.
func (o *opened) disk() pipeline.Disk {
	return pipeline.Disk{Image: o.Image, Format: o.format, Changed: o.file.Changed}
}
