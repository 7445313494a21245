package vhdx

import (
	"cmp"
	"context"
	"math"
	"slices"

	"imgferry/formats"
)

// Format returns the VHDX format.
//
// Open replays a log in memory if the file needs that; Info calls such a file dirty, and Check looks at
// what it is after the replay. The parent of a differencing disk is opened by the Resolver, by the name
// relative to the file if there is one, and must have the identity that the disk says. Names with drives or
// shares are formats.ErrNotAllowed, as are all without a Resolver. Info lists the parent among the names.
func Format() formats.Format {
	return formats.Format{Name: name, Probe: probe, Open: open, Info: info, Check: check}
}

func probe(src formats.Source) (bool, error) {
	p := make([]byte, len(fileSignature))
	if src.Size() < int64(len(p)) {
		return false, nil
	}
	if err := formats.ReadFull(src, p, 0); err != nil {
		return false, err
	}
	return string(p) == fileSignature, nil
}

// structure is what the header section and the metadata say.
type structure struct {
	// src is the file, after its log was replayed if that must be; fileSize is its size then, in bytes.
	src      formats.Source
	fileSize int64
	replayed *replayed // nil if the log is empty
	creator  string
	header
	headerAt      int64 // where the header that counts lies, bytes
	regions       []region
	bat, metadata region
	disk
}

// readStructure reads headers, region table and metadata. The fields that could be read are filled in
// even if there is an error.
func readStructure(ctx context.Context, src formats.Source) (structure, error) {
	s := structure{src: src, fileSize: src.Size()}
	for _, step := range []func(context.Context) error{
		s.readSignature, s.readHeader, s.replayLog, s.readRegions, s.readMetadata, s.readLocator,
	} {
		if err := step(ctx); err != nil {
			return s, err
		}
	}
	if !s.bat.holds(s.entries()*8, s.fileSize) {
		return s, formats.Corrupt(name, s.bat.at, "the block allocation table needs %d entries: its region or the file ends before", s.entries())
	}
	return s, nil
}

// replayLog lets the file be read as after the replay of its log. All that follows goes by that: before,
// nothing but the headers is known to be right, or wrong.
func (s *structure) replayLog(ctx context.Context) (err error) {
	if s.logGUID == (guid{}) {
		return nil
	}
	if s.replayed, err = replay(ctx, s.src, s.header, s.headerAt); err != nil {
		return err
	}
	s.src, s.fileSize = s.replayed, s.replayed.size
	return nil
}

// read returns the n bytes at off.
func read(ctx context.Context, src formats.Source, n, off int64, what string) ([]byte, error) {
	if off > src.Size()-n {
		return nil, formats.Corrupt(name, src.Size(), "the file ends before %s", what)
	}
	p := make([]byte, n)
	return p, formats.ReadAt(ctx, name, src, p, off, what)
}

func (s *structure) readSignature(ctx context.Context) error {
	p, err := read(ctx, s.src, creatorOffset+creatorSize, 0, "the file type identifier")
	if err != nil {
		return err
	}
	if string(p[:len(fileSignature)]) != fileSignature {
		return formats.Corrupt(name, 0, "not a VHDX image: the signature is missing")
	}
	s.creator = decodeUTF16(p[creatorOffset:])
	if s.fileSize > maxFileSize {
		return formats.Unsupported(name, -1, "the file has %d bytes, more than any disk needs: at most %d are read", s.fileSize, int64(maxFileSize))
	}
	return nil
}

// readHeader takes the good header with the larger sequence number (2.2.2).
func (s *structure) readHeader(ctx context.Context) error {
	found := false
	for _, off := range headerOffsets {
		h, good, err := headerAt(ctx, s.src, off)
		switch {
		case err != nil:
			return err
		case !good || found && h.sequence < s.sequence:
		case found && h.sequence == s.sequence:
			// Disk2vhd writes the same header twice.
			if h != s.header {
				return formats.Corrupt(name, off+offSequence, "both headers have the sequence number %d, but differ", h.sequence)
			}
		default:
			s.header, s.headerAt, found = h, off, true
		}
	}
	if !found {
		return formats.Corrupt(name, headerOffsets[0], "neither header is whole: signature or checksum are wrong")
	}
	return s.header.check(s.headerAt)
}

func headerAt(ctx context.Context, src formats.Source, off int64) (h header, good bool, err error) {
	p, err := read(ctx, src, headerBytes, off, "the headers")
	if err != nil {
		return h, false, err
	}
	h, good = parseHeader(p)
	return h, good, nil
}

// readRegions takes the first region table that is good (2.2.3).
func (s *structure) readRegions(ctx context.Context) error {
	for _, off := range regionTableOffsets {
		list, good, err := regionsAt(ctx, s.src, off)
		if err != nil {
			return err
		}
		if good {
			s.regions = list
			return s.checkRegions()
		}
	}
	return formats.Corrupt(name, regionTableOffsets[0], "neither region table is whole: signature or checksum are wrong")
}

func regionsAt(ctx context.Context, src formats.Source, off int64) (list []region, good bool, err error) {
	p, err := read(ctx, src, regionTableBytes, off, "the region tables")
	if err != nil {
		return nil, false, err
	}
	return parseRegions(p, off)
}

// checkRegions finds the regions that are needed, and refuses those that are required and unknown,
// not where regions may lie, listed twice, or over each other or the log.
func (s *structure) checkRegions() error {
	seen := map[guid]bool{}
	for _, r := range s.regions {
		switch {
		case seen[r.id]:
			return formats.Corrupt(name, r.at, "the region %v is listed twice", r.id)
		case !r.placed():
			return formats.Corrupt(name, r.at, "the region %v, %d bytes at %d, doesn't lie on whole MiB behind the headers", r.id, r.size, r.off)
		case r.id == guidBAT:
			s.bat = r
		case r.id == guidMetadata:
			s.metadata = r
		case r.required:
			return formats.Unsupported(name, r.at, "the unknown region %v is required", r.id)
		}
		seen[r.id] = true
	}
	if !seen[guidBAT] || !seen[guidMetadata] {
		return formats.Corrupt(name, regionTableOffsets[0], "the region table lacks the block allocation table or the metadata")
	}
	all := slices.Clone(s.regions)
	if s.log.size > 0 {
		all = append(all, region{extent: s.log, at: s.headerAt + offLogOffset})
	}
	slices.SortFunc(all, func(a, b region) int { return cmp.Compare(a.off, b.off) })
	for i := 1; i < len(all); i++ {
		if all[i].off < all[i-1].off+all[i-1].size {
			return formats.Corrupt(name, all[i].at, "the regions or the log overlap at file offset %d", all[i].off)
		}
	}
	return nil
}

// readMetadata reads the metadata table and the known items (2.6).
func (s *structure) readMetadata(ctx context.Context) error {
	base := int64(min(s.metadata.off, math.MaxInt64))
	if !s.metadata.holds(metadataTableBytes, s.fileSize) {
		return formats.Corrupt(name, s.metadata.at, "the metadata table reaches past its region or the end of the file")
	}
	p, err := read(ctx, s.src, metadataTableBytes, base, "the metadata table")
	if err != nil {
		return err
	}
	items, err := parseItems(p, base)
	if err != nil {
		return err
	}
	if err := checkItems(items, s.metadata.size); err != nil {
		return err
	}
	var have []guid
	for _, i := range items {
		ok, err := s.readItem(ctx, i)
		switch {
		case err != nil:
			return err
		case ok:
			have = append(have, i.id)
		case i.flags&flagRequired != 0:
			return formats.Unsupported(name, i.at, "the unknown metadata item %v is required", i.id)
		}
	}
	for _, k := range known {
		if k.id != guidParentLocator && !slices.Contains(have, k.id) {
			return formats.Corrupt(name, base, "the metadata lack the %s", k.what)
		}
	}
	return s.disk.check(base)
}

// readItem reads the item i if it is a known one.
func (s *structure) readItem(ctx context.Context, i item) (ok bool, err error) {
	for _, k := range known {
		if k.id != i.id || i.flags&flagUser != 0 {
			continue
		}
		if i.size < k.size || k.id != guidParentLocator && i.size > k.size {
			return false, formats.Corrupt(name, i.at, "the metadata item %s has %d bytes, must have %d", k.what, i.size, k.size)
		}
		p, err := read(ctx, s.src, int64(i.size), int64(s.metadata.off)+int64(i.offset), "the metadata item "+k.what)
		if err != nil {
			return false, err
		}
		k.parse(&s.disk, p)
		if k.id == guidParentLocator {
			s.locator.at = int64(s.metadata.off) + int64(i.offset)
		}
		return true, nil
	}
	return false, nil
}

// readLocator reads the parent locator of a differencing disk.
func (s *structure) readLocator(context.Context) error {
	if !s.hasParent {
		return nil
	}
	return s.locator.parse()
}

func info(ctx context.Context, src formats.Source) (formats.Info, error) {
	s, err := readStructure(ctx, src)
	if err != nil && !formats.BlamesImage(err) {
		return formats.Info{}, err
	}
	return formats.Info{
		Format:      name,
		VirtualSize: int64(min(s.size, math.MaxInt64)),
		ClusterSize: int64(s.blockSize),
		Dirty:       s.logGUID != guid{},
		Refs:        s.refs(),
		Specific:    s.properties(),
		Problem:     err,
	}, nil
}

// properties are ours: qemu-img has none for this format.
func (s *structure) properties() []formats.Property {
	list := []formats.Property{{Name: "creator", Value: s.creator}}
	if s.replayed != nil {
		list = append(list, formats.Property{Name: "log entries replayed", Value: int64(s.replayed.entries)})
	}
	if s.blockSize == 0 {
		return list // the metadata could not be read
	}
	list = append(list,
		formats.Property{Name: "subformat", Value: s.subformat()},
		formats.Property{Name: "logical sector size", Value: int64(s.logicalSector)},
		formats.Property{Name: "physical sector size", Value: int64(s.physicalSector)},
		formats.Property{Name: "virtual disk id", Value: s.id.String()},
		formats.Property{Name: "data write guid", Value: s.dataWrite.String()},
	)
	for _, link := range s.locator.links {
		list = append(list, formats.Property{Name: "parent's data write guid", Value: link.String()})
	}
	return list
}
