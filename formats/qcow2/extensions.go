package qcow2

import (
	"encoding/binary"
	"fmt"
	"strings"

	"imgferry/formats"
)

// Header extensions ("Header extensions").
const (
	extHeaderLen        = 8 // type and length
	extEnd              = 0x00000000
	extBackingFormat    = 0xe2792aca
	extFeatureNames     = 0x6803f857
	extDataFile         = 0x44415441
	extCrypto           = 0x0537be77
	extBitmaps          = 0x23852875
	featureNameLen      = 48 // one entry of the feature name table
	featureIncompatible = 0  // its type for incompatible features
)

// extensions is what the rest of the first cluster says.
type extensions struct {
	backingFormat string
	dataFile      string
	featureNames  map[int]string // incompatible features by bit
	// crypto and bitmaps are the data of extensions that only Check reads; nil: there are none.
	crypto, bitmaps []byte
}

// parseExtensions reads the header extensions, which lie in area, at offset base of the file.
// Unknown ones are skipped.
func parseExtensions(area []byte, base int64) (extensions, error) {
	var x extensions
	for pos := 0; len(area)-pos >= extHeaderLen; {
		typ := binary.BigEndian.Uint32(area[pos:])
		if typ == extEnd {
			break
		}
		n := int64(binary.BigEndian.Uint32(area[pos+4:]))
		if n > int64(len(area)-pos-extHeaderLen) {
			return x, formats.Corrupt(name, base+int64(pos), "a header extension of %d bytes reaches past the header area", n)
		}
		data := area[pos+extHeaderLen:][:n]
		switch typ {
		case extBackingFormat:
			x.backingFormat = string(data)
		case extDataFile:
			x.dataFile = string(data)
		case extFeatureNames:
			x.featureNames = parseFeatureNames(data)
		case extCrypto:
			x.crypto = data
		case extBitmaps:
			x.bitmaps = data
		}
		pos += extHeaderLen + int(n+7)&^7
	}
	return x, nil
}

// parseFeatureNames reads the names of incompatible features ("Feature name table").
func parseFeatureNames(p []byte) map[int]string {
	names := map[int]string{}
	for ; len(p) >= featureNameLen; p = p[featureNameLen:] {
		if p[0] == featureIncompatible && p[1] < 64 {
			names[int(p[1])] = strings.TrimRight(string(p[2:featureNameLen]), "\x00")
		}
	}
	return names
}

// featureList names the bits that are set: `bit 7 ("shiny"), bit 9`.
func (x extensions) featureList(set uint64) string {
	var list []string
	for bit := range 64 {
		if set&(1<<bit) == 0 {
			continue
		}
		s := fmt.Sprintf("bit %d", bit)
		if n := x.featureNames[bit]; n != "" {
			s += fmt.Sprintf(" (%q)", n)
		}
		list = append(list, s)
	}
	return strings.Join(list, ", ")
}
