package source

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// Member is a file in an archive.
type Member struct {
	Name string
	// Offset is where its bytes begin in the archive, Size how many there are.
	Offset, Size int64
}

// maxMembers bounds the files of an archive: an OVA has a descriptor, a manifest, a certificate, disks
// and text files.
const maxMembers = 4096

// ErrArchive is wrapped by what is wrong with an archive.
var ErrArchive = errors.New("the archive can't be used")

// IsTar reports whether src is a tar archive of POSIX or GNU.
func IsTar(src Packed) (bool, error) {
	var b [8]byte
	const at = 257 // POSIX.1-2017, pax: magic and version
	if src.Size() < at+int64(len(b)) {
		return false, nil
	}
	if n, err := src.ReadAt(b[:], at); n < len(b) {
		return false, err
	}
	return string(b[:]) == "ustar\x0000" || string(b[:]) == "ustar  \x00", nil
}

// Members lists the files of a tar archive without reading what is in them. It refuses, with
// ErrArchive, what a name could lead astray with: absolute names, "..", links, devices, the same name
// twice; and sparse files, whose bytes are not all there. Folders are left out.
func Members(ctx context.Context, src Packed) ([]Member, error) {
	at := &position{ctx: ctx, r: io.NewSectionReader(src, 0, src.Size())}
	r := tar.NewReader(at)
	var list []Member
	seen := map[string]bool{}
	for {
		h, err := r.Next()
		if at.err != nil {
			return nil, at.err
		}
		if err == io.EOF {
			return list, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: at %d: %w", ErrArchive, at.off, err)
		}
		name, err := memberName(h)
		if err != nil {
			return nil, fmt.Errorf("%w: %q at %d %w", ErrArchive, h.Name, at.off, err)
		}
		switch {
		case h.Typeflag == tar.TypeDir, h.Typeflag == tar.TypeXGlobalHeader:
			continue
		case seen[name]:
			return nil, fmt.Errorf("%w: %q is in it twice", ErrArchive, name)
		case len(list) == maxMembers:
			return nil, fmt.Errorf("%w: it has more than %d files", ErrArchive, maxMembers)
		case h.Size < 0 || h.Size > src.Size()-at.off:
			return nil, fmt.Errorf("%w: %q of %d bytes reaches past the end of the archive: it is cut short", ErrArchive, name, h.Size)
		}
		seen[name] = true
		list = append(list, Member{name, at.off, h.Size})
	}
}

// memberName is the name of the file that h is about.
func memberName(h *tar.Header) (string, error) {
	switch h.Typeflag {
	case tar.TypeXGlobalHeader:
		return "", nil
	case tar.TypeReg, tar.TypeDir:
	case tar.TypeLink, tar.TypeSymlink:
		return "", errors.New("is a link")
	default: // '7', contiguous files, is none that anybody writes
		return "", fmt.Errorf("is of the kind %q, which is no plain file", h.Typeflag)
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return "", errors.New("is a sparse file: pack it without --sparse")
		}
	}
	name := path.Clean(h.Name)
	switch {
	case strings.ContainsAny(h.Name, "\\\x00"):
		return "", errors.New("has a backslash or a zero byte in its name")
	case path.IsAbs(h.Name), len(h.Name) > 1 && h.Name[1] == ':':
		return "", errors.New("is an absolute name")
	case strings.Contains("/"+h.Name+"/", "/../"):
		return "", errors.New("leads out of the archive")
	}
	return name, nil
}

// position is a reader that knows how far it is. archive/tar reads whole blocks, so that after a header
// it is where the file begins.
type position struct {
	ctx context.Context
	r   *io.SectionReader
	off int64
	err error // the first failure to read
}

func (p *position) Read(b []byte) (int, error) {
	if p.err == nil && p.ctx.Err() != nil {
		p.err = context.Cause(p.ctx)
	}
	if p.err != nil {
		return 0, p.err
	}
	n, err := p.r.Read(b)
	p.off += int64(n)
	if err != nil && err != io.EOF {
		p.err = err
	}
	return n, err
}

// Seek lets archive/tar skip what is in the files.
func (p *position) Seek(offset int64, whence int) (int64, error) {
	off, err := p.r.Seek(offset, whence)
	if err == nil {
		p.off = off
	}
	return off, err
}

// Section is a member of an archive as a source: its bytes are read in place. It owns the archive.
type Section struct {
	Packed
	r      *io.SectionReader
	member Member
}

// NewSection returns the member of src. It takes ownership of src.
func NewSection(src Packed, m Member) *Section {
	return &Section{src, io.NewSectionReader(src, m.Offset, m.Size), m}
}

// ReadAt reads in the member.
func (s *Section) ReadAt(p []byte, off int64) (int, error) { return s.r.ReadAt(p, off) }

// Size is the member's length in bytes.
func (s *Section) Size() int64 { return s.member.Size }

// Path is the archive's name and the member's.
func (s *Section) Path() string { return s.Packed.Path() + ":" + s.member.Name }

// Identity is that of the archive, and the member; "" if the archive has none.
func (s *Section) Identity() string {
	archive := s.Packed.Identity()
	if archive == "" {
		return ""
	}
	return fmt.Sprintf("%s member=%q at=%d size=%d", archive, s.member.Name, s.member.Offset, s.member.Size)
}
