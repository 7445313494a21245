package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"imgferry/formats"
	"imgferry/formats/vmdk"
	"imgferry/source"
)

// maxPackings bounds how often something packed is in something packed: an OVA with a compressed disk,
// compressed, has three.
const maxPackings = 4

// streamable are the formats that are read front to back, but for their ends.
var streamable = map[string]bool{"raw": true, "zvhd": true, "zvhd2": true}

// partlyStreamable is the format of which some images are. Whether one is only opening it tells.
const partlyStreamable = "vmdk"

// located is an image, and what it was found in.
type located struct {
	src  source.Packed // what the format reads
	file Source        // the file that it lies in, as far as it is packed
	// packed is what was taken off, from the outside.
	packed  []string
	streams []*source.Stream // those of packed that are compressions
	// pack is the package that src is, and digest what a package's manifest says of src.
	pack   *pack
	digest *digest
}

func (at *located) path() string { return at.src.Path() }

// size is how long the file is that src is, whatever comes out of it.
func (at *located) size(src formats.Source) int64 {
	if len(at.streams) > 0 && len(at.streams) == len(at.packed) {
		return at.file.Size()
	}
	return src.Size()
}

// allocated is what the image takes where it is, in bytes.
func (at *located) allocated() int64 {
	if len(at.packed) == len(at.streams) {
		return at.file.Allocated()
	}
	return at.src.Size()
}

// stream is the compression that src is read through while it is unpacked, or nil.
func (at *located) stream() *source.Stream {
	for _, s := range at.streams {
		if !s.Spilled() {
			return s
		}
	}
	return nil
}

// isRemote reports whether a name is an address.
func isRemote(name string) bool {
	scheme, _, ok := strings.Cut(name, "://")
	switch strings.ToLower(scheme) {
	case "http", "https", "s3":
		return ok
	}
	return false
}

// find opens what name says and takes the compressions off. It stops at a package.
func (o *Opener) find(ctx context.Context, name, format string) (*located, error) {
	at := new(located)
	if isRemote(name) {
		if o.Remote == nil {
			return nil, errors.New("images on other machines can't be read here: fetch the file first")
		}
		file, err := o.Remote(ctx, name)
		if err != nil {
			return nil, err
		}
		at.src, at.file = file, file
	} else {
		file, err := source.Open(name)
		if scheme, _, ok := strings.Cut(name, "://"); ok && errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w; as an address, %q is not one of http, https and s3", err, scheme)
		}
		if err != nil {
			return nil, err
		}
		at.src, at.file = file, file
	}
	if err := o.unwrap(ctx, at, format); err != nil {
		at.src.Close()
		return nil, fmt.Errorf("%s: %w", at.path(), err)
	}
	return at, nil
}

// unwrap takes off what at is packed in, down to an image or a package. A disk that is said to be raw is
// as it is: whoever wrote to it must not make it look like something else.
func (o *Opener) unwrap(ctx context.Context, at *located, format string) error {
	for format != "raw" {
		packing, err := source.PackingOf(at.src)
		if err != nil {
			return err
		}
		if packing == "" {
			return o.openPack(ctx, at)
		}
		if len(at.packed) == maxPackings {
			return formats.Unsupported(string(packing), -1, "something packed in something packed, %d times", maxPackings)
		}
		s, err := source.Unpack(ctx, at.src, packing, o.Unpack)
		if err != nil {
			return unpackError(packing, err)
		}
		at.src = unpacked{s}
		at.streams, at.packed = append(at.streams, s), append(at.packed, string(packing))
	}
	return nil
}

// detect is find with the disk of a package, and its format.
func (o *Opener) detect(ctx context.Context, name, format string) (*located, formats.Format, error) {
	at, err := o.find(ctx, name, format)
	if err != nil {
		return nil, formats.Format{}, err
	}
	return o.settle(ctx, at, format)
}

// settle finds at's format; of a package, that of the disk. What is never read front to back is unpacked
// to a file. It closes at if it fails.
func (o *Opener) settle(ctx context.Context, at *located, format string) (_ *located, f formats.Format, err error) {
	defer func() {
		if err != nil {
			at.src.Close()
			err = fmt.Errorf("%s: %w", at.path(), err)
		}
	}()
	for at.pack != nil {
		if err := o.openDisk(ctx, at); err != nil {
			return nil, f, err
		}
		if err := o.unwrap(ctx, at, format); err != nil {
			return nil, f, err
		}
	}
	if f, err = o.formatOf(at.src, format); err != nil {
		return nil, f, err
	}
	if !streamable[f.Name] && f.Name != partlyStreamable {
		err = at.spill()
	}
	return at, f, err
}

// spill unpacks what is compressed to temporary files.
func (at *located) spill() error {
	for _, s := range at.streams {
		if err := s.Spill(); err != nil {
			return unpackError(s.Packing(), err)
		}
	}
	return nil
}

// openImage opens at as f. What turns out not to be read front to back is unpacked to a file first.
func (o *Opener) openImage(ctx context.Context, at *located, f formats.Format, res formats.Resolver) (formats.Image, error) {
	if at.stream() != nil && f.Name == partlyStreamable {
		if o.Snapshot == "" {
			img, err := vmdk.OpenForward(ctx, at.src)
			if !errors.Is(err, vmdk.ErrOutOfOrder) {
				return img, err
			}
		}
		if err := at.spill(); err != nil {
			return nil, err
		}
	}
	switch {
	case o.Snapshot == "":
		return f.Open(ctx, at.src, res)
	case f.OpenSnapshot == nil:
		return nil, formats.Unsupported(f.Name, -1, "the format has no internal snapshots")
	}
	return f.OpenSnapshot(ctx, at.src, res, o.Snapshot)
}

// unpackError puts the failures of package source in the classes of package formats.
func unpackError(packing source.Packing, err error) error {
	switch {
	case errors.Is(err, source.ErrCorrupt) && errors.Is(err, io.ErrUnexpectedEOF):
		return formats.Corrupt(string(packing), -1, "the compressed file is cut short")
	case errors.Is(err, source.ErrCorrupt):
		return formats.Corrupt(string(packing), -1, "%s", strings.TrimPrefix(err.Error(), fmt.Sprintf("%v (%s): ", source.ErrCorrupt, packing)))
	case errors.Is(err, source.ErrTooLarge):
		return formats.Unsupported(string(packing), -1, "%v: allow more with --max-unpacked or --max-spill", err)
	case errors.Is(err, source.ErrDictionary):
		return formats.Unsupported(string(packing), -1, "%v", err)
	}
	return err
}

// unpacked is a stream whose errors have the classes of package formats.
type unpacked struct{ *source.Stream }

func (u unpacked) ReadAt(p []byte, off int64) (int, error) {
	n, err := u.Stream.ReadAt(p, off)
	return n, unpackError(u.Packing(), err)
}

// inOrder is an image that is unpacked while it is read.
type inOrder struct{ formats.Image }

// Sequential says so.
func (inOrder) Sequential() bool { return true }
