package formats

import (
	"context"
	"io"
)

// ReadFull fills p from src at off. It fails with io.ErrUnexpectedEOF where the source is shorter
// than off+len(p), never with io.EOF, and never returns a short read without an error.
func ReadFull(src io.ReaderAt, p []byte, off int64) error {
	n, err := src.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// ReadAt is ReadFull for the parsers of the format called format: it fails with the cause of ctx if
// that has ended, else with ReadFailed. what names the bytes: "the L1 table".
func ReadAt(ctx context.Context, format string, src Source, p []byte, off int64, what string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err := ReadFull(src, p, off)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return ReadFailed(format, off, what, err)
}
