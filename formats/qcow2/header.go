package qcow2

import (
	"context"
	"encoding/binary"
	"errors"

	"imgferry/formats"
)

// Format returns the qcow2 format, versions 2 and 3.
//
// Open refuses, by name, what is not read: encryption, extended L2 entries and unknown incompatible
// features (formats.ErrUnsupported), backing files and external data files (formats.ErrNotAllowed).
// Info answers for all of these.
func Format() formats.Format {
	return formats.Format{Name: name, Probe: probe, Open: open, Info: info}
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
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p := make([]byte, min(n, src.Size()))
	if err := formats.ReadFull(src, p, 0); err != nil {
		return nil, formats.ReadFailed(name, 0, "the header", err)
	}
	return p, nil
}

// check says whether the image can be read, as far as the first cluster tells.
func (f *firstCluster) check(fileSize int64, res formats.Resolver) error {
	if err := f.checkFeatures(f.extensions); err != nil {
		return err
	}
	if refs := f.refs(); len(refs) > 0 {
		if res == nil {
			return formats.NotAllowed(name, -1, "the disk needs the %s %q", refs[0].Kind, refs[0].Name)
		}
		return formats.Unsupported(name, -1, "the disk needs the %s %q, which is not followed yet", refs[0].Kind, refs[0].Name)
	}
	return f.checkL1(fileSize)
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
	f, err := readFirst(ctx, src)
	switch {
	case err == nil:
		err = f.check(src.Size(), nil)
	case !errors.Is(err, formats.ErrCorrupt) && !errors.Is(err, formats.ErrUnsupported):
		return formats.Info{}, err
	}
	in := formats.Info{
		Format:      name,
		VirtualSize: int64(min(f.size, 1<<63-1)),
		Encrypted:   f.cryptMethod != 0,
		Dirty:       f.incompatible&featureDirty != 0,
		Refs:        f.refs(),
		Specific:    f.properties(),
		Problem:     err,
	}
	if f.clusterBits >= minClusterBits && f.clusterBits <= maxClusterBits {
		in.ClusterSize = f.clusterSize()
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

// properties are named and ordered as in qemu-img info; "snapshots" is ours.
func (f *firstCluster) properties() []formats.Property {
	if f.compat() == "" {
		return nil
	}
	list := []formats.Property{
		{Name: "compat", Value: f.compat()},
		{Name: "compression type", Value: f.codec()},
	}
	if f.version == 3 {
		list = append(list, formats.Property{Name: "lazy refcounts", Value: f.compatible&compatLazyRefcounts != 0})
	}
	list = append(list, formats.Property{Name: "refcount bits", Value: int64(1) << min(f.refcountOrder, maxRefcountOrder)})
	if f.version == 3 {
		list = append(list,
			formats.Property{Name: "corrupt", Value: f.incompatible&featureCorrupt != 0},
			formats.Property{Name: "extended l2", Value: f.incompatible&featureExtendedL2 != 0})
	}
	if f.snapshots > 0 {
		list = append(list, formats.Property{Name: "snapshots", Value: int64(f.snapshots)})
	}
	return list
}
