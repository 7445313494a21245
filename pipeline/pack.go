package pipeline

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"imgferry/formats"
	"imgferry/formats/ova"
	"imgferry/source"
)

// pack is a virtual machine's package: an archive with a descriptor (ova), or a descriptor with files
// beside it (ovf).
type pack struct {
	kind  string // ova or ovf
	disks []ova.Disk
	// members are the files of an archive by name; nil: they lie beside the descriptor.
	members  map[string]source.Member
	manifest map[string]ova.Digest // nil: there is none
}

// digest is what a manifest says of a disk's file.
type digest struct {
	name string
	ova.Digest
}

const ovf = "ovf"

// openPack finds out whether at is a package.
func (o *Opener) openPack(ctx context.Context, at *located) error {
	tar, err := source.IsTar(at.src)
	if err != nil {
		return err
	}
	if tar {
		return o.openArchive(ctx, at)
	}
	if at.src.Size() > ova.MaxDescriptor || at.pack != nil {
		return nil
	}
	head := make([]byte, min(at.src.Size(), 8<<10))
	if err := formats.ReadAt(ctx, ovf, at.src, head, 0, "the first bytes"); err != nil {
		return err
	}
	if !ova.Probe(head) {
		return nil
	}
	p := make([]byte, at.src.Size())
	if err := formats.ReadAt(ctx, ovf, at.src, p, 0, "the descriptor"); err != nil {
		return err
	}
	k := &pack{kind: ovf}
	if err := k.parse(p); err != nil {
		return err
	}
	if err := k.findManifest(ctx, o, at); err != nil {
		return err
	}
	at.pack = k
	return k.checkDescriptor(path.Base(strings.ReplaceAll(at.file.Path(), `\`, "/")), p)
}

// openArchive reads the descriptor and the manifest of an archive, if it is an OVA.
func (o *Opener) openArchive(ctx context.Context, at *located) error {
	list, err := source.Members(ctx, at.src)
	if err != nil {
		return archiveError(err)
	}
	k := &pack{kind: ova.Name, members: map[string]source.Member{}}
	var descriptor, manifest string
	for _, m := range list {
		k.members[m.Name] = m
		switch ext := strings.ToLower(path.Ext(m.Name)); {
		case ext == ".ovf" && descriptor == "":
			descriptor = m.Name
		case ext == ".mf" && manifest == "":
			manifest = m.Name
		}
	}
	if descriptor == "" {
		return nil // another archive: nothing says what is a disk in it
	}
	p, err := k.readMember(ctx, at.src, descriptor, ova.MaxDescriptor)
	if err != nil {
		return err
	}
	if err := k.parse(p); err != nil {
		return err
	}
	if manifest != "" {
		m, err := k.readMember(ctx, at.src, manifest, ova.MaxManifest)
		if err != nil {
			return err
		}
		if k.manifest, err = ova.ParseManifest(m); err != nil {
			return formats.Corrupt(k.kind, -1, "%v", err)
		}
	}
	at.pack = k
	return k.checkDescriptor(descriptor, p)
}

func archiveError(err error) error {
	return formats.Corrupt(ova.Name, -1, "%v (say --source-format raw if it is a raw disk and no archive)", err)
}

// readMember returns the bytes of a small file of the archive.
func (k *pack) readMember(ctx context.Context, src formats.Source, name string, most int64) ([]byte, error) {
	m := k.members[name]
	if m.Size > most {
		return nil, formats.Unsupported(k.kind, m.Offset, "%q has %d bytes: the most is %d", name, m.Size, most)
	}
	p := make([]byte, m.Size)
	return p, formats.ReadAt(ctx, k.kind, src, p, m.Offset, strconv.Quote(name))
}

func (k *pack) parse(descriptor []byte) error {
	p, err := ova.Parse(descriptor)
	if err != nil {
		return formats.Corrupt(k.kind, -1, "%v", err)
	}
	for _, d := range p.Disks {
		if d.File != "" { // the others begin empty: there is nothing to read
			k.disks = append(k.disks, d)
		}
	}
	if len(k.disks) == 0 {
		return formats.Unsupported(k.kind, -1, "the package has no disk with anything on it")
	}
	return nil
}

// findManifest reads the manifest beside a descriptor: it has the same name but for the ending.
func (k *pack) findManifest(ctx context.Context, o *Opener, at *located) error {
	local, ok := at.file.(*source.File)
	if !ok || len(at.packed) > 0 {
		return nil
	}
	res, err := o.resolver(local)
	if err != nil {
		return err
	}
	base := path.Base(strings.ReplaceAll(res.path, `\`, "/"))
	ref := formats.Ref{Kind: formats.ExtentOf, Name: strings.TrimSuffix(base, path.Ext(base)) + ".mf"}
	f, _, err := res.open(ref)
	if err != nil {
		return nil // most have none
	}
	defer f.Close()
	if f.Size() > ova.MaxManifest {
		return formats.Unsupported(k.kind, -1, "%q has %d bytes: the most is %d", ref.Name, f.Size(), ova.MaxManifest)
	}
	p := make([]byte, f.Size())
	if err := formats.ReadAt(ctx, k.kind, f, p, 0, strconv.Quote(ref.Name)); err != nil {
		return err
	}
	if k.manifest, err = ova.ParseManifest(p); err != nil {
		return formats.Corrupt(k.kind, -1, "%q: %v", ref.Name, err)
	}
	return nil
}

// checkDescriptor compares the descriptor with the manifest.
func (k *pack) checkDescriptor(name string, p []byte) error {
	d, err := k.digestOf(name)
	if d == nil || err != nil {
		return err
	}
	h := d.Hash()
	h.Write(p)
	return d.compare(k.kind, h.Sum(nil))
}

// digestOf is what the manifest says of a file; nil: there is no manifest.
func (k *pack) digestOf(name string) (*digest, error) {
	if k.manifest == nil {
		return nil, nil
	}
	d, ok := k.manifest[name]
	if !ok {
		return nil, formats.Corrupt(k.kind, -1, "the manifest has no digest of %q", name)
	}
	return &digest{name, d}, nil
}

func (d *digest) compare(kind string, sum []byte) error {
	if !bytes.Equal(sum, d.Sum) {
		return formats.Corrupt(kind, -1, "%q is not the file that the manifest is about: its %s digest is %x, not %x", d.name, d.Algorithm, sum, d.Sum)
	}
	return nil
}

// choose returns the disk that is asked for, or the only one.
func (k *pack) choose(which string) (ova.Disk, error) {
	if which == "" && len(k.disks) == 1 {
		return k.disks[0], nil
	}
	if n, err := strconv.Atoi(which); err == nil && n >= 1 && n <= len(k.disks) {
		return k.disks[n-1], nil
	}
	names := make([]string, len(k.disks))
	for i, d := range k.disks {
		if which != "" && (which == d.File || which == d.ID) {
			return d, nil
		}
		names[i] = fmt.Sprintf("%d (%q)", i+1, d.File)
	}
	if which != "" {
		return ova.Disk{}, formats.Unsupported(k.kind, -1, "there is no disk %q in the package: choose %s with --disk (compare: --a-disk, --b-disk)", which, strings.Join(names, " or "))
	}
	return ova.Disk{}, formats.Unsupported(k.kind, -1, "the package has %d disks: choose %s with --disk (compare: --a-disk, --b-disk)", len(k.disks), strings.Join(names, " or "))
}

// openDisk goes on from a package to the file of the disk that was asked for.
func (o *Opener) openDisk(ctx context.Context, at *located) error {
	k := at.pack
	d, err := k.choose(o.Disk)
	if err != nil {
		return err
	}
	return o.enter(at, d)
}

// enter makes at the file of one of its package's disks.
func (o *Opener) enter(at *located, d ova.Disk) (err error) {
	k := at.pack
	switch {
	case d.Chunked:
		return formats.Unsupported(k.kind, -1, "%q is cut into pieces", d.File)
	case d.Parent != "":
		return formats.Unsupported(k.kind, -1, "%q differs from another disk of the package", d.File)
	case len(at.packed) == maxPackings:
		return formats.Unsupported(k.kind, -1, "something packed in something packed, %d times", maxPackings)
	}
	if at.digest, err = k.digestOf(d.File); err != nil {
		return err
	}
	if k.members != nil {
		m, ok := k.members[d.File]
		if !ok {
			return formats.Corrupt(k.kind, -1, "the disk %q is not in the archive", d.File)
		}
		at.src = source.NewSection(at.src, m)
	} else {
		res, err := o.resolver(at.file)
		if err != nil {
			return err
		}
		f, _, err := res.resolve(formats.Ref{Kind: formats.ExtentOf, Name: d.File})
		if err != nil {
			return err
		}
		at.src.Close()
		at.src, at.file = f, f
	}
	if d.FileSize >= 0 && d.FileSize != at.src.Size() {
		return formats.Corrupt(k.kind, -1, "%q has %d bytes, but %d by the descriptor", d.File, at.src.Size(), d.FileSize)
	}
	at.packed, at.pack = append(at.packed, k.kind), nil
	return nil
}

// verify compares the disk's file with its package's manifest: all of it is read.
func (at *located) verify(ctx context.Context, o *Opener) error {
	if at.digest == nil || o.MetadataOnly {
		return nil
	}
	if o.Unpack.Notice != nil {
		o.Unpack.Notice(fmt.Sprintf("%s: comparing it with the package's manifest (%s)", at.path(), at.digest.Algorithm))
	}
	src := at.src
	if len(at.streams) > 0 {
		if inner, ok := src.(unpacked); ok {
			src = inner.Packed() // the manifest is about the compressed file
		}
	}
	h := at.digest.Hash()
	buf := make([]byte, 1<<20)
	for off := int64(0); off < src.Size(); {
		p := buf[:min(int64(len(buf)), src.Size()-off)]
		if err := formats.ReadAt(ctx, ova.Name, src, p, off, "the disk's file"); err != nil {
			return err
		}
		h.Write(p)
		off += int64(len(p))
	}
	return at.digest.compare(ova.Name, h.Sum(nil))
}

// describe is a package and its disks.
func (o *Opener) describe(ctx context.Context, at *located) (Layer, error) {
	k := at.pack
	l := Layer{Path: at.path(), Size: at.size(at.src), Allocated: at.allocated(), Packed: at.packed, Info: formats.Info{Format: k.kind}}
	for _, d := range k.disks {
		one, err := o.describeDisk(ctx, *at, d)
		if err != nil {
			one.Problem = err
		}
		if one.Path == "" {
			one.Path = at.path() + ":" + d.File
		}
		one.VirtualSize = max(one.VirtualSize, 0)
		if one.Format == "" {
			one.VirtualSize = d.Capacity
		}
		l.Disks = append(l.Disks, one)
		l.VirtualSize += one.VirtualSize
	}
	return l, ctx.Err()
}

// describeDisk leaves at, a copy, open where its files are the package's.
func (o *Opener) describeDisk(ctx context.Context, at located, d ova.Disk) (Layer, error) {
	at.src = keptOpen{at.src}
	if err := o.enter(&at, d); err != nil {
		return Layer{}, err
	}
	if err := o.unwrap(ctx, &at, ""); err != nil {
		at.src.Close()
		return Layer{}, err
	}
	whole, f, err := o.settle(ctx, &at, "")
	if err != nil {
		return Layer{}, err
	}
	defer whole.src.Close()
	in, err := f.Info(ctx, whole.src)
	return Layer{Path: whole.path(), Size: whole.size(whole.src), Allocated: whole.allocated(), Packed: whole.packed, Info: in}, err
}

// keptOpen is a source that outlives what was opened in it.
type keptOpen struct{ source.Packed }

// Close does nothing.
func (keptOpen) Close() error { return nil }

var _ io.Closer = keptOpen{}
