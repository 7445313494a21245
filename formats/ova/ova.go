// Package ova reads what says which disks are in a virtual machine's package: the OVF descriptor and
// the manifest of its digests (DMTF DSP0243, Open Virtualization Format).
//
// It parses bytes. It opens no files, knows no archive and follows no name: package pipeline does, by
// its own rules.
package ova

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"path"
	"strconv"
	"strings"
)

// Name is what the container is called among formats.
const Name = "ova"

const (
	// MaxDescriptor bounds an OVF descriptor in bytes. Those of large machines have a hundred thousand.
	MaxDescriptor = 4 << 20
	// MaxManifest bounds a manifest in bytes.
	MaxManifest = 1 << 20
	// maxDepth bounds how deep elements are nested; OVF needs about ten.
	maxDepth = 64
	// maxDisks bounds the disks of a package.
	maxDisks = 1024
)

// Package is what a descriptor says of disks.
type Package struct{ Disks []Disk }

// Disk is a disk of a package.
type Disk struct {
	// ID is the descriptor's name for it.
	ID string
	// File is the name of the file that it lies in, "" if it begins empty.
	File string
	// FileSize is that file's length in bytes as the descriptor says it, -1 if it doesn't.
	FileSize int64
	// Capacity is the virtual size in bytes.
	Capacity int64
	// Format is the URI of the format. It is not used to open the disk.
	Format string
	// Parent is the id of the disk that this one differs from, or "".
	Parent string
	// Chunked says that the file is cut into pieces.
	Chunked bool
}

// Probe reports whether p, the first bytes of a file, begin an OVF descriptor.
func Probe(p []byte) bool {
	p = bytes.TrimLeft(bytes.TrimPrefix(p, []byte("\xef\xbb\xbf")), " \t\r\n")
	return bytes.HasPrefix(p, []byte("<")) && bytes.Contains(p, []byte("<")) &&
		(bytes.Contains(p, []byte("http://schemas.dmtf.org/ovf/envelope/")) || bytes.Contains(p, []byte("http://www.vmware.com/schema/ovf/1/envelope")))
}

// References and disks of a descriptor, with the names of DSP0243 9.
type (
	fileXML struct {
		ID        string `xml:"id,attr"`
		Href      string `xml:"href,attr"`
		Size      string `xml:"size,attr"`
		ChunkSize string `xml:"chunkSize,attr"`
	}
	diskXML struct {
		ID       string `xml:"diskId,attr"`
		FileRef  string `xml:"fileRef,attr"`
		Capacity string `xml:"capacity,attr"`
		Units    string `xml:"capacityAllocationUnits,attr"`
		Format   string `xml:"format,attr"`
		Parent   string `xml:"parentRef,attr"`
	}
)

// Parse reads a descriptor. Entities of its own and an encoding other than UTF-8 are refused.
func Parse(p []byte) (Package, error) {
	if len(p) > MaxDescriptor {
		return Package{}, fmt.Errorf("the OVF descriptor has %d bytes: the most is %d", len(p), MaxDescriptor)
	}
	d := xml.NewDecoder(bytes.NewReader(p))
	var files []fileXML
	var disks []diskXML
	var open []string
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			return Package{}, fmt.Errorf("the OVF descriptor is no XML: %w", err)
		}
		switch e := token.(type) {
		case xml.Directive:
			return Package{}, errors.New("the OVF descriptor has a document type of its own")
		case xml.EndElement:
			open = open[:len(open)-1]
		case xml.StartElement:
			if len(open) == 0 && e.Name.Local != "Envelope" {
				return Package{}, fmt.Errorf("the XML is no OVF descriptor: it begins with the element %q", e.Name.Local)
			}
			if len(open) == maxDepth {
				return Package{}, fmt.Errorf("the elements of the OVF descriptor are nested deeper than %d", maxDepth)
			}
			open = append(open, e.Name.Local)
			switch strings.Join(open, "/") {
			case "Envelope/References/File":
				files = append(files, fileOf(e))
			case "Envelope/DiskSection/Disk":
				disks = append(disks, diskOf(e))
			}
			if len(files) > 4*maxDisks || len(disks) > maxDisks {
				return Package{}, fmt.Errorf("the OVF descriptor names more than %d disks or %d files", maxDisks, 4*maxDisks)
			}
		}
	}
	return join(files, disks)
}

func fileOf(e xml.StartElement) (f fileXML) {
	for _, a := range e.Attr {
		set(a, map[string]*string{"id": &f.ID, "href": &f.Href, "size": &f.Size, "chunkSize": &f.ChunkSize})
	}
	return f
}

func diskOf(e xml.StartElement) (d diskXML) {
	for _, a := range e.Attr {
		set(a, map[string]*string{
			"diskId": &d.ID, "fileRef": &d.FileRef, "capacity": &d.Capacity, "capacityAllocationUnits": &d.Units, "format": &d.Format, "parentRef": &d.Parent,
		})
	}
	return d
}

// set stores an attribute of the descriptor's own name space, or of none.
func set(a xml.Attr, fields map[string]*string) {
	if f := fields[a.Name.Local]; f != nil && (*f == "" || strings.Contains(a.Name.Space, "/ovf/")) {
		*f = a.Value
	}
}

// join looks up the files of the disks.
func join(files []fileXML, disks []diskXML) (Package, error) {
	byID := map[string]fileXML{}
	for _, f := range files {
		if _, twice := byID[f.ID]; twice {
			return Package{}, fmt.Errorf("the OVF descriptor has two files with the id %q", f.ID)
		}
		byID[f.ID] = f
	}
	var p Package
	for _, x := range disks {
		d := Disk{ID: x.ID, FileSize: -1, Format: x.Format, Parent: x.Parent}
		var err error
		if d.Capacity, err = capacity(x.Capacity, x.Units); err != nil {
			return Package{}, fmt.Errorf("disk %q of the OVF descriptor: %w", x.ID, err)
		}
		if x.FileRef != "" {
			f, ok := byID[x.FileRef]
			if !ok {
				return Package{}, fmt.Errorf("disk %q of the OVF descriptor lies in the file %q, which it does not name", x.ID, x.FileRef)
			}
			if d.File, err = fileName(f.Href); err != nil {
				return Package{}, fmt.Errorf("disk %q of the OVF descriptor: %w", x.ID, err)
			}
			d.Chunked = f.ChunkSize != "" && f.ChunkSize != "0"
			if n, err := strconv.ParseUint(f.Size, 10, 63); err == nil {
				d.FileSize = int64(n)
			}
		}
		p.Disks = append(p.Disks, d)
	}
	return p, nil
}

// fileName refuses what is not the name of a file beside the descriptor.
func fileName(href string) (string, error) {
	switch {
	case href == "", strings.ContainsAny(href, ":\\\x00"), path.IsAbs(href), strings.Contains("/"+href+"/", "/../"):
		return "", fmt.Errorf("%q is not the name of a file beside the descriptor", href)
	}
	return path.Clean(href), nil
}

// capacity is a size in units such as "byte * 2^30" (DSP0004, C.1); "" is bytes.
func capacity(s, units string) (int64, error) {
	bad := fmt.Errorf("a capacity of %q in units of %q is not known", s, units)
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 63)
	if err != nil {
		return 0, bad
	}
	words := strings.Fields(strings.NewReplacer("*", " ", "bytes", "byte").Replace(strings.ToLower(units)))
	factor := uint64(1)
	for i, w := range words {
		base, exponent, power := strings.Cut(w, "^")
		e := uint64(1)
		if power {
			if e, err = strconv.ParseUint(exponent, 10, 6); err != nil {
				return 0, bad
			}
		}
		b, err := strconv.ParseUint(base, 10, 40)
		switch {
		case i == 0 && w == "byte":
			continue
		case err != nil || b == 0:
			return 0, bad
		}
		for range e {
			high, low := bits.Mul64(factor, b)
			if high != 0 {
				return 0, bad
			}
			factor = low
		}
	}
	high, low := bits.Mul64(n, factor)
	if high != 0 || low > 1<<62 {
		return 0, bad
	}
	return int64(low), nil
}
