// Package formats says what a disk image is to the rest of the program: a virtual disk with a
// size, readable at any offset, that can tell which of its runs hold data without reading them.
//
// It holds the interfaces, the sentinel errors and the detection that all formats share. It is not
// the place of any one format (those are its subfolders), nor of where bytes come from (package
// source), nor of the list of formats a program knows (package formats/all): whoever opens images
// is handed a table.
package formats

import (
	"context"
	"io"
	"iter"
	"time"
)

// Source is what an image is read from: a file, a device, an object.
type Source interface {
	io.ReaderAt
	io.Closer
	// Size is the length of the source in bytes, fixed while it is open.
	Size() int64
	// Identity changes whenever the bytes may have changed: size, modification time, ETag. "": there is
	// nothing that would tell.
	Identity() string
}

// HoleFinder is a Source that knows which of its runs were never written (SEEK_DATA and SEEK_HOLE
// of lseek(2)).
type HoleFinder interface {
	// NextData returns the first run [start, end) of data at or after off, in bytes. A source
	// without data at or after off returns start == end == Size(). A source that can't tell
	// returns everything from off on as data.
	NextData(off int64) (start, end int64, err error)
}

// Extent is a run of the virtual disk. All units are bytes.
type Extent struct {
	Offset, Length int64
	// Zero says that the run reads as zeros, known without reading data.
	Zero bool
	// Compressed says that the run is stored compressed.
	Compressed bool
	// Unit is how many bytes of a compressed run are decoded at once, in pieces that are aligned to it;
	// reading a part of one costs as much as all of it. 0: not known.
	Unit int64
	// HostOffset is where the run's bytes lie in File, or -1 where that has no single answer (zero
	// runs, compressed runs).
	HostOffset int64
	// File is the name, as the image spells it, of the other file that HostOffset counts in; "" is
	// the image's own file.
	File string
	// Depth is the layer that holds the run: 0 is the image itself, 1 the disk it is based on.
	Depth int
	// Absent says that no layer holds the run. It reads as zeros, so Zero is set too.
	Absent bool
}

// Image is an opened virtual disk.
type Image interface {
	// ReaderAt reads guest bytes and is safe for concurrent use. Reads follow io.ReaderAt: a read
	// that reaches past Size returns what there is and io.EOF.
	io.ReaderAt
	// Close ends reads under way and closes the source.
	io.Closer
	// Size is the virtual size in bytes.
	Size() int64
	// Sequential says that the image should be read in order by one goroutine, because random
	// access costs a decode from the start (zvhd, compressed streams).
	Sequential() bool
	// Extents yields ascending, gap-free runs that cover [0, Size). After an error it yields
	// nothing more; neighbouring runs need not be merged.
	Extents(ctx context.Context) iter.Seq2[Extent, error]
}

// RefKind tells what a name found inside an image is for.
type RefKind int

// The kinds of names that images hold.
const (
	Backing  RefKind = iota // the disk below: what is not stored here is read there
	ExtentOf                // a file with a part of this disk's data
	Parent                  // the disk a differencing disk differs from
	DataFile                // a file with all of this disk's data
)

// String returns the kind in the words used in messages.
func (k RefKind) String() string {
	switch k {
	case Backing:
		return "backing file"
	case ExtentOf:
		return "extent file"
	case Parent:
		return "parent disk"
	case DataFile:
		return "external data file"
	}
	return "file"
}

// Ref is a name found inside an image. Following it is policy, never a parser's decision.
type Ref struct {
	Kind RefKind
	// Name is as the image spells it: a file name, never a URL or JSON.
	Name string
	// Format is the format the image claims for it, or "".
	Format string
}

// Resolver opens what a Ref names. It is rooted at the file that holds the name, counts depth and
// refuses cycles. Parsers refuse every name, with ErrNotAllowed, where the Resolver is nil. Its errors
// name the file: parsers hand them on as they are.
type Resolver interface {
	// Resolve opens the file, for parsers that know what it must be (an extent, a parent of the
	// same format). The returned Resolver is rooted at that file. The caller closes the Source.
	Resolve(ctx context.Context, r Ref) (Source, Resolver, error)
	// Open opens the disk in the file, of whatever format it is. ctx bounds every later read. The
	// caller closes the Image.
	Open(ctx context.Context, r Ref) (Image, error)
}

// Format is one image format.
type Format struct {
	// Name is the lower-case name that qemu-img uses where it knows the format.
	Name string
	// Probe tells from a few reads whether src is of this format. It judges by identifying bytes
	// only: a damaged image of the format is still of the format. Errors are I/O errors.
	Probe func(src Source) (bool, error)
	// Open reads src as this format. It takes ownership of src only if it returns no error. ctx
	// bounds every later read too.
	Open func(ctx context.Context, src Source, res Resolver) (Image, error)
	// OpenSnapshot is Open for the disk as it was when the internal snapshot of this name or id was
	// taken; ErrNoSnapshot if there is none. nil: the format has no internal snapshots.
	OpenSnapshot func(ctx context.Context, src Source, res Resolver, snapshot string) (Image, error)
	// Info reads the header only, and answers for images that Open would refuse. It does not take
	// ownership of src.
	Info func(ctx context.Context, src Source) (Info, error)
	// Check looks for contradictions in the structure of one image file, without the disks below it.
	// It calls found for each, from one goroutine. The error is a reason why the check could not be
	// carried out to its end; findings alone are none. It never takes ownership of src. nil: the
	// format has no structure to check.
	Check func(ctx context.Context, src Source, found func(Finding)) (Checked, error)
}

// Finding is one contradiction that Check found.
type Finding struct {
	// Leak says that space is lost, but no data. Otherwise the image is corrupt.
	Leak bool
	// Offset is where in the file the trouble lies, in bytes, or -1.
	Offset int64
	// What is the finding in a few words.
	What string
	// Count is how many clusters are concerned; 0 counts as one.
	Count int64
}

// Checked is what Check has looked at. Clusters are the format's units of allocation.
type Checked struct {
	// Clusters is how many the virtual disk has, Allocated how many of them are stored, Compressed
	// how many of those are compressed, Fragmented how many do not follow their predecessor's bytes.
	Clusters, Allocated, Compressed, Fragmented int64
	// End is the first byte of the file that nothing uses.
	End int64
}

// Info is what an image's header says of itself. Sizes are in bytes.
type Info struct {
	Format      string
	VirtualSize int64
	// ClusterSize is the format's unit of allocation, or 0.
	ClusterSize int64
	Encrypted   bool
	// Dirty says that the image was not closed properly by its last writer.
	Dirty bool
	// Refs are the other files that the image needs.
	Refs []Ref
	// Snapshots are the internal snapshots.
	Snapshots []Snapshot
	// Specific holds what only this format has, in the order it is to be shown. Names are those
	// of qemu-img's format-specific information where it has them.
	Specific []Property
	// Problem says why the image can't be opened, or is nil. That Refs need permission is none.
	Problem error
}

// Snapshot is an internal snapshot of an image.
type Snapshot struct {
	ID, Name string
	// VirtualSize is the disk's size when it was taken, in bytes.
	VirtualSize int64
	// StateSize is the size of the machine's saved memory in bytes, or 0.
	StateSize int64
	// Taken is when.
	Taken time.Time
	// Clock is how long the machine had run.
	Clock time.Duration
}

// Property is a named fact about an image. Value is a string, bool, int64 or uint64.
type Property struct {
	Name  string
	Value any
}
