package vmdk

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"imgferry/formats"
)

// descriptorMark begins a descriptor in a file of its own ("The Descriptor File").
const descriptorMark = "# Disk DescriptorFile"

const (
	// maxDescriptorVersion: later versions may mean other things by the same lines.
	maxDescriptorVersion = 4
	// maxExtents is 16 TiB in files of 2 GB; each may be an open file.
	maxExtents = 8192
	// maxNameBytes is more than file systems allow in one name.
	maxNameBytes = 1023
	// noParent is the parentCID of a disk that is based on no other.
	noParent = 0xffffffff
)

// The types of extents that can be read.
const (
	extentFlat   = "FLAT"
	extentVMFS   = "VMFS" // flat on ESX
	extentSparse = "SPARSE"
	extentZero   = "ZERO"
	extentCOWD   = "VMFSSPARSE"
	extentSE     = "SESPARSE"
)

// sparseTypes are the extents that have tables, with what their files must be.
var sparseTypes = map[string]fileKind{extentSparse: sparseFile, extentCOWD: cowdFile, extentSE: seSparseFile}

// The values of createType for disks in one file, which describes itself.
const (
	monolithicSparse = "monolithicSparse"
	streamOptimized  = "streamOptimized"
)

// createTypes lists the kinds of disks that can be read, with the types of extents each may have.
// Nothing else is opened: a descriptor that could name anything could name a host's files.
var createTypes = map[string][]string{
	monolithicSparse:       {extentSparse},
	streamOptimized:        {extentSparse},
	"monolithicFlat":       {extentFlat, extentZero},
	"twoGbMaxExtentFlat":   {extentFlat, extentZero},
	"vmfs":                 {extentVMFS, extentFlat, extentZero},
	"twoGbMaxExtentSparse": {extentSparse, extentZero},
	"vmfsSparse":           {extentCOWD},
	"seSparse":             {extentSE},
}

// flatTypes are those kinds of disks that hold all of their bytes, and so need no parent.
var flatTypes = map[string]bool{"monolithicFlat": true, "twoGbMaxExtentFlat": true, "vmfs": true}

// descriptor is what the text says.
type descriptor struct {
	base       int64 // where in the file the text begins, bytes
	version    int64
	cid        uint32
	parentCID  uint32
	parentHint string // parentFileNameHint
	createType string
	extents    []extentLine
}

// extentLine is a line of the extent description.
type extentLine struct {
	at      int64 // where in the file, bytes
	access  string
	sectors int64 // of disk
	typ     string
	file    string // name, or ""
	offset  int64  // in the file, sectors
}

// sparse says that the extent has tables.
func (e extentLine) sparse() bool { return sparseTypes[e.typ] != foreign }

// bytes is how much of the disk the extent holds.
func (e extentLine) bytes() int64 { return e.sectors * sectorSize }

// size is the disk's virtual size in bytes.
func (d *descriptor) size() int64 {
	var sectors int64
	for _, e := range d.extents {
		sectors += e.sectors
	}
	return sectors * sectorSize
}

// based says whether the disk is only what differs from another one.
func (d *descriptor) based() bool { return d.parentCID != noParent || d.parentHint != "" }

// parseDescriptor reads the text, which lies at base of the file and ends with it or with a NUL: QEMU
// leaves the end of a longer text behind that. What could be read is filled in even if there is an
// error. Keys that it doesn't need are skipped.
func parseDescriptor(text []byte, base int64) (descriptor, error) {
	d := descriptor{base: base, parentCID: noParent}
	if end := bytes.IndexByte(text, 0); end >= 0 {
		text = text[:end]
	}
	seen := map[string]bool{}
	var sectors int64
	at := base
	for raw := range bytes.Lines(text) {
		line := strings.TrimSpace(string(raw))
		here := at
		at += int64(len(raw))
		if line == "" || line[0] == '#' {
			continue
		}
		if word := strings.Fields(line)[0]; word == "RW" || word == "RDONLY" || word == "NOACCESS" {
			e, what := parseExtent(line)
			if what == "" && (e.sectors > maxDiskSectors-sectors || len(d.extents) == maxExtents) {
				what = "has more extents or a larger disk than is allowed"
			}
			if what != "" {
				return d, formats.Corrupt(name, here, "the extent line %q %s", clip(line), what)
			}
			e.at = here
			sectors += e.sectors
			d.extents = append(d.extents, e)
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return d, formats.Corrupt(name, here, "the descriptor's line %q is neither a value nor an extent", clip(line))
		}
		// Readers differ in how they compare keys, and in which of two equal keys they take.
		key = strings.ToLower(strings.Trim(key, " \t"))
		if what := d.set(key, strings.Trim(value, " \t"), seen); what != "" {
			return d, formats.Corrupt(name, here, "the descriptor's line %q %s", clip(line), what)
		}
	}
	switch {
	case !seen["version"]:
		return d, formats.Corrupt(name, base, "the descriptor has no version")
	case !seen["createtype"]:
		return d, formats.Corrupt(name, base, "the descriptor has no createType")
	}
	return d, nil
}

// clip shortens what goes into a message.
func clip(line string) string {
	const most = 80
	if len(line) > most {
		return line[:most] + "..."
	}
	return line
}

// set notes the value of a key, in lower case, if it is one that matters. what is the fault if
// there is one.
func (d *descriptor) set(key, value string, seen map[string]bool) (what string) {
	if len(value) > 0 && value[0] == '"' {
		if len(value) < 2 || strings.IndexByte(value[1:], '"') != len(value)-2 {
			return "has stray quotation marks"
		}
		value = value[1 : len(value)-1]
	}
	var err error
	switch key {
	case "version":
		d.version, err = parseNumber(value)
	case "cid":
		d.cid, err = parseCID(value)
	case "parentcid":
		d.parentCID, err = parseCID(value)
	case "createtype":
		d.createType = value
	case "parentfilenamehint":
		d.parentHint = value
	default:
		return ""
	}
	if seen[key] {
		return "repeats a key"
	}
	seen[key] = true
	if err != nil {
		return "has no valid number"
	}
	return ""
}

// parseNumber reads decimal digits.
func parseNumber(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err
}

func parseCID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 16, 32)
	return uint32(n), err
}

// parseExtent reads `ACCESS SECTORS TYPE ["NAME" [OFFSET]]`. what is the fault if there is one.
func parseExtent(line string) (e extentLine, what string) {
	head, rest, named := strings.Cut(line, `"`)
	words := strings.Fields(head)
	if len(words) != 3 {
		return e, "is incomplete"
	}
	var err error
	e.access, e.typ = words[0], words[2]
	if e.sectors, err = parseNumber(words[1]); err != nil || e.sectors == 0 || e.sectors > maxDiskSectors {
		return e, "has no valid size"
	}
	if !named {
		if e.typ != extentZero {
			return e, "names no file"
		}
		return e, ""
	}
	var ok bool
	if e.file, rest, ok = strings.Cut(rest, `"`); !ok {
		return e, "has a name without an end"
	}
	if len(e.file) > maxNameBytes || e.file == "" {
		return e, fmt.Sprintf("has a name of %d bytes", len(e.file))
	}
	// Extents on devices have more behind the offset: those that can be read don't.
	if words = strings.Fields(rest); len(words) > 0 {
		if e.offset, err = parseNumber(words[0]); err != nil || e.offset > maxDiskSectors-e.sectors {
			return e, "has no valid offset"
		}
	}
	return e, ""
}

// check says whether the disk is one that can be read. own says that the text is embedded in the
// one extent that it describes.
func (d *descriptor) check(own bool) error {
	types, known := createTypes[d.createType]
	self := d.createType == monolithicSparse || d.createType == streamOptimized
	switch {
	case d.version < 1 || d.version > maxDescriptorVersion:
		return formats.Unsupported(name, d.base, "descriptor version %d (known are 1 to %d)", d.version, maxDescriptorVersion)
	case !known:
		return formats.Unsupported(name, d.base, "disks of the createType %q", d.createType)
	case self && !own:
		return formats.Unsupported(name, d.base, "a descriptor of a %s disk apart from the disk", d.createType)
	case own && !self:
		return formats.Unsupported(name, d.base, "a descriptor of a %s disk inside one of its extents", d.createType)
	case own && len(d.extents) > 1:
		return formats.Unsupported(name, d.base, "a %s disk of %d extents", d.createType, len(d.extents))
	case !own && len(d.extents) == 0:
		return formats.Corrupt(name, d.base, "the descriptor names no extents")
	}
	for _, e := range d.extents {
		if err := d.checkExtent(e, types); err != nil {
			return err
		}
	}
	return d.checkParent()
}

// checkExtent refuses an extent that doesn't fit createType, or whose name is none of a file.
func (d *descriptor) checkExtent(e extentLine, types []string) error {
	switch {
	case !slices.Contains(types, e.typ):
		return formats.Unsupported(name, e.at, "an extent of the type %q in a %s disk", e.typ, d.createType)
	case e.typ == extentZero && e.file == "":
		return nil
	case e.typ == extentZero:
		return formats.Corrupt(name, e.at, "an extent of zeros names the file %q", e.file)
	case e.sparse() && e.offset != 0:
		return formats.Corrupt(name, e.at, "the sparse extent %q begins within its file", e.file)
	case e.access == "NOACCESS":
		return formats.Unsupported(name, e.at, "the extent %q must not be accessed (NOACCESS)", e.file)
	}
	return formats.CheckName(name, e.at, extentRef(e))
}

// refs lists the files that the disk needs besides the one with the descriptor: those of extents,
// unless own, and the parent.
func (d *descriptor) refs(own bool) []formats.Ref {
	var refs []formats.Ref
	seen := map[string]bool{}
	for _, e := range d.extents {
		if own || e.file == "" || seen[e.file] {
			continue
		}
		seen[e.file] = true
		refs = append(refs, extentRef(e))
	}
	if d.based() {
		refs = append(refs, d.parentRef())
	}
	return refs
}

func extentRef(e extentLine) formats.Ref {
	r := formats.Ref{Kind: formats.ExtentOf, Name: e.file, Format: "raw"}
	if e.sparse() {
		r.Format = name
	}
	return r
}
