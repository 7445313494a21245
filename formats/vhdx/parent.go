package vhdx

import (
	"context"
	"encoding/binary"
	"slices"

	"imgferry/formats"
	"imgferry/formats/mapped"
)

// A parent locator begins with the GUID of its type and the number of its keys, and has an entry for
// each (2.6.2.6).
const (
	locatorHeader   = 20
	locatorEntry    = 12
	offLocatorCount = 18
	// maxLocatorKeys bounds the work: keys may share their bytes. Five are known.
	maxLocatorKeys = 64
)

// Keys of the parent locator for VHDX files (2.6.2.6.3).
const (
	keyLinkage  = "parent_linkage"
	keyLinkage2 = "parent_linkage2" // while a child is being merged into its parent
	keyRelative = "relative_path"
	keyVolume   = "volume_path"
	keyAbsolute = "absolute_win32_path"
)

var guidVHDXLocator = parseGUID("B04AEFB7-D19E-4A81-B789-25B8E9445913")

// locator is what the disk says of its parent.
type locator struct {
	at     int64  // where it lies, bytes
	raw    []byte // nil if there is none
	parent string // the parent's name
	// links are the data write GUIDs, one of which the parent must have.
	links []guid
}

// parse reads the keys (2.6.2.6).
func (l *locator) parse() error {
	le := binary.LittleEndian
	if kind := guid(l.raw); kind != guidVHDXLocator {
		return formats.Unsupported(name, l.at, "the parent locator is of the unknown type %v", kind)
	}
	count := int64(le.Uint16(l.raw[offLocatorCount:]))
	if count > maxLocatorKeys || locatorHeader+count*locatorEntry > int64(len(l.raw)) {
		return formats.Corrupt(name, l.at+offLocatorCount, "the parent locator has %d keys, more than its %d bytes hold or than %d", count, len(l.raw), maxLocatorKeys)
	}
	keys := map[string]string{}
	for i := range count {
		at := locatorHeader + i*locatorEntry
		e := l.raw[at:][:locatorEntry]
		key, ok := l.text(le.Uint32(e), le.Uint16(e[8:]))
		value, ok2 := l.text(le.Uint32(e[4:]), le.Uint16(e[10:]))
		if _, twice := keys[key]; twice || !ok || !ok2 {
			return formats.Corrupt(name, l.at+at, "key %d of the parent locator is there twice, lies outside it, or is not UTF-16", i)
		}
		keys[key] = value
	}
	l.parent = mapped.BestName(keys[keyRelative], keys[keyVolume], keys[keyAbsolute])
	for _, key := range []string{keyLinkage, keyLinkage2} {
		value, there := keys[key]
		if !there && key == keyLinkage2 {
			continue
		}
		link, ok := parseLinkage(value)
		if !ok {
			return formats.Corrupt(name, l.at, "the parent locator's %s is %q, must be a GUID in braces", key, value)
		}
		l.links = append(l.links, link)
	}
	return nil
}

// text returns the string of size bytes at off. It is not ok if it lies outside the locator or is no
// UTF-16.
func (l *locator) text(off uint32, size uint16) (s string, ok bool) {
	if uint64(off)+uint64(size) > uint64(len(l.raw)) {
		return "", false
	}
	return mapped.DecodeName(l.raw[off:][:size], binary.LittleEndian)
}

// parseLinkage reads a GUID in braces, in either case.
func parseLinkage(s string) (g guid, ok bool) {
	if len(s) != len("{00000000-0000-0000-0000-000000000000}") || s[0] != '{' || s[len(s)-1] != '}' {
		return g, false
	}
	return scanGUID(s[1 : len(s)-1])
}

// openParent opens the parent disk, which must be the one that the locator means.
func (s *structure) openParent(ctx context.Context, res formats.Resolver) (formats.Image, error) {
	ref := s.parentRef()
	return mapped.OpenParent(ctx, name, s.locator.at, ref, res, func(src formats.Source, below formats.Resolver) (formats.Image, error) {
		p, err := readStructure(ctx, src)
		if err != nil {
			return nil, mapped.InFile(ref.Name, err)
		}
		switch {
		case !slices.Contains(s.locator.links, p.dataWrite):
			return nil, formats.Corrupt(name, s.locator.at, "the parent disk %q has the data write GUID %v, the disk is based on %v: it is another disk, or was changed since",
				ref.Name, p.dataWrite, s.locator.links[0])
		case p.logicalSector != s.logicalSector:
			return nil, formats.Corrupt(name, s.locator.at, "the parent disk %q has logical sectors of %d bytes, the disk of %d", ref.Name, p.logicalSector, s.logicalSector)
		}
		img, err := p.open(ctx, below)
		if err != nil {
			return nil, mapped.InFile(ref.Name, err)
		}
		return img, nil
	})
}

// parentRef names the parent disk.
func (s *structure) parentRef() formats.Ref {
	return formats.Ref{Kind: formats.Parent, Name: s.locator.parent, Format: name}
}

// refs lists the other files that the image needs.
func (s *structure) refs() []formats.Ref {
	if !s.hasParent {
		return nil
	}
	return []formats.Ref{s.parentRef()}
}
