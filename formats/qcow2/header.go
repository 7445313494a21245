package qcow2

import (
	"context"
	"encoding/binary"
	"math"

	"imgferry/formats"
)

// Format returns the qcow2 format, versions 2 and 3.
//
// Open refuses, by name, what is not read: encryption and unknown incompatible features
// (formats.ErrUnsupported), backing files and external data files without a Resolver, and with one
// if their names are not those of files (formats.ErrNotAllowed). Info answers for all of these.
// OpenSnapshot takes an id or else a name; formats.ErrNoSnapshot if there is none.
func Format() formats.Format {
	return formats.Format{Name: name, Probe: probe, Open: open, OpenSnapshot: openSnapshot, Info: info, Check: check}
}

// probe leaves version 1, which shares the magic number, to qcow; an unknown later version is still
// qcow2.
func probe(src formats.Source) (bool, error) {
	var p [8]byte
	if src.Size() < int64(len(p)) {
		return false, nil
	}
	if err := formats.ReadFull(src, p[:], 0); err != nil {
		return false, err
	}
	return binary.BigEndian.Uint32(p[offMagic:]) == magic && binary.BigEndian.Uint32(p[offVersion:]) >= 2, nil
}

// firstCluster is what the first cluster says of the image.
type firstCluster struct {
	header
	extensions
	backing string // the backing file's name, or ""
}

// readFirst reads the first cluster, and nothing else. The fields that could be read are filled in
// even if there is an error.
func readFirst(ctx context.Context, src formats.Source) (firstCluster, error) {
	var f firstCluster
	p, err := readUpTo(ctx, src, offCompressionType+8)
	if err != nil {
		return f, err
	}
	if f.header, err = parseHeader(p); err != nil {
		return f, err
	}
	if err := f.checkSizes(); err != nil {
		return f, err
	}
	if p, err = readUpTo(ctx, src, f.clusterSize()); err != nil {
		return f, err
	}
	end := int64(len(p))
	if f.backingOffset != 0 {
		if f.backingOffset+uint64(f.backingSize) > uint64(len(p)) {
			return f, formats.Corrupt(name, offBackingOffset, "the backing file's name reaches past the end of the file")
		}
		end = int64(f.backingOffset)
		f.backing = string(p[end:][:f.backingSize])
	}
	if start := int64(f.headerLen); start < end {
		if f.extensions, err = parseExtensions(p[start:end], start); err != nil {
			return f, err
		}
	}
	return f, nil
}

// readUpTo returns the first n bytes of src, or all of them if there are fewer.
func readUpTo(ctx context.Context, src formats.Source, n int64) ([]byte, error) {
	p := make([]byte, min(n, src.Size()))
	return p, formats.ReadAt(ctx, name, src, p, 0, "the header")
}

// check says whether the image can be read, as far as the first cluster tells, by who is allowed to
// read the files it names.
func (f *firstCluster) check(fileSize int64) error {
	if err := f.checkNeeds(); err != nil {
		return err
	}
	return f.checkL1(f.activeL1(), fileSize)
}

// checkNeeds refuses features that are not known, and names that are not to be followed.
func (f *firstCluster) checkNeeds() error {
	if err := f.checkFeatures(f.extensions); err != nil {
		return err
	}
	for _, r := range f.refs() {
		if r.Name == "" {
			return formats.Unsupported(name, -1, "the image does not name its %s", r.Kind)
		}
		if err := formats.CheckName(name, -1, r); err != nil {
			return err
		}
	}
	return nil
}

// refs lists the other files that the image needs.
func (f *firstCluster) refs() []formats.Ref {
	var refs []formats.Ref
	if f.incompatible&featureDataFile != 0 {
		refs = append(refs, formats.Ref{Kind: formats.DataFile, Name: f.dataFile, Format: "raw"})
	}
	if f.backing != "" {
		refs = append(refs, formats.Ref{Kind: formats.Backing, Name: f.backing, Format: f.backingFormat})
	}
	return refs
}

func info(ctx context.Context, src formats.Source) (formats.Info, error) {
	f, problem := readFirst(ctx, src)
	switch {
	case problem == nil:
		problem = f.check(src.Size())
	case !formats.BlamesImage(problem):
		return formats.Info{}, problem
	}
	in := formats.Info{
		Format:      name,
		VirtualSize: int64(min(f.size, math.MaxInt64)),
		Encrypted:   f.cryptMethod != 0,
		Dirty:       f.incompatible&featureDirty != 0,
		Refs:        f.refs(),
		Specific:    f.properties(),
		Problem:     problem,
	}
	if f.clusterBits < minClusterBits || f.clusterBits > maxClusterBits {
		return in, nil
	}
	in.ClusterSize = f.clusterSize()
	list, _, err := f.readSnapshots(ctx, src)
	if err != nil && !formats.BlamesImage(err) {
		return formats.Info{}, err
	}
	for _, s := range list {
		in.Snapshots = append(in.Snapshots, s.Snapshot)
	}
	if err != nil { // the disk itself can still be read
		in.Specific = append(in.Specific, formats.Property{Name: "snapshot table", Value: err.Error()})
	}
	return in, nil
}

// codec names the compression type, or is "" if it is unknown.
func (f *firstCluster) codec() string {
	switch {
	case f.compat() == "" || f.compressionTyp > compressionZstd:
		return ""
	case f.compressionTyp == compressionZstd:
		return "zstd"
	}
	return "zlib"
}

// compat is the version as qemu-img spells it, or "" if it is unknown.
func (f *firstCluster) compat() string {
	switch f.version {
	case 2:
		return "0.10"
	case 3:
		return "1.1"
	}
	return ""
}

// properties are named and ordered as in qemu-img info, which lists the bitmaps where they are
// counted here.
func (f *firstCluster) properties() []formats.Property {
	if f.compat() == "" {
		return nil
	}
	var list []formats.Property
	add := func(name string, value any) { list = append(list, formats.Property{Name: name, Value: value}) }
	add("compat", f.compat())
	add("compression type", f.codec())
	if f.version == 3 {
		add("lazy refcounts", f.compatible&compatLazyRefcounts != 0)
	}
	if b, err := parseBitmapsExtension(f.bitmaps); err == nil && f.autoclear&autoclearBitmaps != 0 {
		add("bitmap count", int64(b.count))
	}
	add("refcount bits", int64(1)<<min(f.refcountOrder, maxRefcountOrder))
	if cipher := map[uint32]string{cryptAES: "aes", cryptLUKS: "luks"}[f.cryptMethod]; cipher != "" {
		add("encrypt", cipher)
	}
	if f.incompatible&featureDataFile != 0 {
		add("data file", f.dataFile)
		add("data file raw", f.autoclear&autoclearRawData != 0)
	}
	if f.version == 3 {
		add("corrupt", f.incompatible&featureCorrupt != 0)
		add("extended l2", f.extended())
	}
	return list
}
