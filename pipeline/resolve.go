package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"imgferry/formats"
	"imgferry/source"
)

// maxLayers bounds a chain of disks, each based on the next: each layer keeps up to 44 MiB of tables
// and caches in memory, and longer chains are slow everywhere.
const maxLayers = 16

// resolver opens what the last file of chain names.
type resolver struct {
	o     *Opener
	path  string    // of that file, absolute; "": it is not on this machine
	chain []Source  // from the image that the user named
	files *fileList // all that were opened for the disk
}

// resolver returns one for the image that the user named.
func (o *Opener) resolver(src Source) (*resolver, error) {
	r := &resolver{o: o, chain: []Source{src}, files: new(fileList)}
	if _, local := src.(*source.File); local {
		var err error
		if r.path, err = filepath.Abs(src.Path()); err != nil {
			return nil, err
		}
	}
	r.files.add(src)
	return r, nil
}

// Resolve opens the file that ref names if the user allowed it: every name that leads into one of
// the allowed directories, and of extents those that can only be the image's own.
func (r *resolver) Resolve(_ context.Context, ref formats.Ref) (formats.Source, formats.Resolver, error) {
	src, below, err := r.resolve(ref)
	if err != nil {
		return nil, nil, err // a nil *source.File is no nil Source
	}
	return src, below, nil
}

// Open opens the disk in the file that ref names.
func (r *resolver) Open(ctx context.Context, ref formats.Ref) (formats.Image, error) {
	src, below, err := r.resolve(ref)
	if err != nil {
		return nil, err
	}
	format := ref.Format
	if format == "" {
		format = r.o.BackingFormat
	}
	if format == "" {
		src.Close()
		return nil, refuse(ref, "the image does not say which format it is of, and guessing is not safe: say it with --backing-format")
	}
	f, err := r.o.formatOf(src, format)
	if errors.Is(err, formats.ErrUnknown) {
		err = formats.Unsupported(ref.Kind.String(), -1, "%q is said to be of the format %q", ref.Name, format)
	}
	if err != nil {
		src.Close()
		return nil, fmt.Errorf("%s: %w", src.Path(), err)
	}
	img, err := f.Open(ctx, src, below)
	if err != nil {
		src.Close()
		return nil, fmt.Errorf("%s: %w", src.Path(), err)
	}
	return img, nil
}

func (r *resolver) resolve(ref formats.Ref) (*source.File, *resolver, error) {
	if err := formats.CheckName("image", -1, ref); err != nil {
		return nil, nil, err
	}
	if len(r.chain) >= maxLayers {
		return nil, nil, formats.Unsupported(ref.Kind.String(), -1, "a chain of more than %d disks", maxLayers)
	}
	src, path, err := r.open(ref)
	if err != nil {
		return nil, nil, err
	}
	same := func(above Source) bool {
		f, local := above.(*source.File)
		return local && src.Same(f)
	}
	if slices.ContainsFunc(r.chain, same) {
		src.Close()
		return nil, nil, formats.Corrupt(ref.Kind.String(), -1, "%q leads back to a disk that is based on it", ref.Name)
	}
	r.files.add(src)
	return src, &resolver{o: r.o, path: path, chain: append(slices.Clip(r.chain), src), files: r.files}, nil
}

// ErrRemoteName: an image on another machine names a file. It comes with formats.ErrNotAllowed.
var ErrRemoteName = errors.New("names in an image on another machine are not followed")

// remoteName is a refusal that is ErrRemoteName too.
type remoteName struct{ error }

func (e remoteName) Unwrap() []error { return []error{e.error, ErrRemoteName} }

func refuse(ref formats.Ref, why string) error {
	return formats.NotAllowed(ref.Kind.String(), -1, "%q: %s", ref.Name, why)
}

// open opens the file, through os.Root: nothing leads out of the allowed directory, symbolic links
// included.
func (r *resolver) open(ref formats.Ref) (src *source.File, path string, err error) {
	if r.path == "" {
		return nil, "", remoteName{refuse(ref, ErrRemoteName.Error())}
	}
	dir := filepath.Dir(r.path)
	path = ref.Name
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	if r.ownExtent(ref) {
		src, err = openIn(ref, dir, ref.Name, path, true)
		return src, path, err
	}
	for _, allowed := range r.o.Allow {
		if rel, ok := inside(allowed, dir, ref.Name); ok {
			src, err = openIn(ref, allowed, rel, path, false)
			return src, path, err
		}
	}
	if len(r.o.Allow) == 0 {
		return nil, "", refuse(ref, "reading it takes permission")
	}
	return nil, "", refuse(ref, "it lies outside the allowed directories")
}

// ownExtent says that ref is an extent that only the descriptor itself can be about: its name begins
// with the descriptor's and leads nowhere else.
func (r *resolver) ownExtent(ref formats.Ref) bool {
	own := filepath.Base(r.path)
	stem := strings.TrimSuffix(own, filepath.Ext(own))
	return ref.Kind == formats.ExtentOf && ref.Name == filepath.Base(ref.Name) && !strings.ContainsAny(ref.Name, `/\:`) &&
		strings.Trim(stem, ".") != "" && strings.HasPrefix(ref.Name, stem)
}

// inside returns the path from the directory allowed to the file called name in dir, if the names
// say that it is in there. Both directories may be known by several names.
func inside(allowed, dir, name string) (string, bool) {
	for _, root := range names(allowed) {
		for _, base := range names(dir) {
			path := name
			if !filepath.IsAbs(path) {
				path = filepath.Join(base, path)
			}
			if rel, err := filepath.Rel(root, path); err == nil && filepath.IsLocal(rel) {
				return rel, true
			}
		}
	}
	return "", false
}

// names returns the absolute names of a directory: as it was given, and without symbolic links.
func names(dir string) []string {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil
	}
	list := []string{abs}
	if real, err := filepath.EvalSymlinks(abs); err == nil && real != abs {
		list = append(list, real)
	}
	return list
}

// openIn opens the file called name in dir. noLinks refuses a symbolic link even within dir.
func openIn(ref formats.Ref, dir, name, path string, noLinks bool) (*source.File, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if fi, err := root.Lstat(name); noLinks && err == nil && fi.Mode()&fs.ModeSymlink != 0 {
		return nil, refuse(ref, "it is a symbolic link")
	}
	src, err := source.OpenIn(root, name, path)
	var system syscall.Errno
	if err != nil && !errors.As(err, &system) {
		// Not what the system says of a file, but that the file leads out or is no plain file.
		return nil, refuse(ref, err.Error())
	}
	if err != nil {
		// The name is the image's: quoted, it stays on its line.
		return nil, fmt.Errorf("%s %q: %w", ref.Kind, ref.Name, system)
	}
	return src, nil
}
