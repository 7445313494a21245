package vmdk

import (
	"context"

	"imgferry/formats"
	"imgferry/formats/mapped"
)

// parentRef names the parent disk. Programs on Windows write backslashes.
func (d *descriptor) parentRef() formats.Ref {
	return formats.Ref{Kind: formats.Parent, Name: mapped.BestName(d.parentHint), Format: name}
}

// checkParent refuses what contradicts itself about the parent.
func (d *descriptor) checkParent() error {
	switch {
	case !d.based():
		return nil
	case flatTypes[d.createType]:
		return formats.Unsupported(name, d.base, "a %s disk with the parent disk %q", d.createType, d.parentHint)
	case d.parentHint == "":
		return formats.Corrupt(name, d.base, "the disk holds only what differs from a parent disk (parentCID %08x), but doesn't name it", d.parentCID)
	case d.parentCID == noParent:
		return formats.Corrupt(name, d.base, "the disk names the parent disk %q, but its parentCID says that there is none", d.parentHint)
	}
	return nil
}

// openParent opens the parent disk, which must be the one that the disk of size bytes was made for, as it
// was then: its CID changes when it is written to.
func (d *descriptor) openParent(ctx context.Context, res formats.Resolver, size int64) (formats.Image, error) {
	ref := d.parentRef()
	return mapped.OpenParent(ctx, name, d.base, ref, res, func(src formats.Source, below formats.Resolver) (formats.Image, error) {
		p, err := readHead(ctx, src)
		if err == nil && !p.described {
			err = formats.Corrupt(name, 0, "the file has no descriptor, which alone could tell that it is the parent")
		}
		if err != nil {
			return nil, mapped.InFile(ref.Name, err)
		}
		switch {
		case p.cid != d.parentCID:
			return nil, formats.Corrupt(name, d.base, "the parent disk %q has the CID %08x, the disk is based on %08x: it is another disk, or was changed since", ref.Name, p.cid, d.parentCID)
		case p.size() != size:
			return nil, formats.Corrupt(name, d.base, "the disk has %d bytes, its parent disk %q %d: they must be equal", size, ref.Name, p.size())
		}
		img, err := p.open(ctx, src, below)
		if err != nil {
			return nil, mapped.InFile(ref.Name, err)
		}
		return img, nil
	})
}
