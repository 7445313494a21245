// Package all is the list of image formats that the program knows.
//
// Whoever opens images is handed this table; only the command itself imports the package. It holds
// the formats that can be read, then those that are only recognised, so that a LUKS disk or a gzip file
// is refused by its name instead of being taken for a raw disk.
package all

import (
	"imgferry/formats"
	"imgferry/formats/qcow"
	"imgferry/formats/qcow2"
	"imgferry/formats/qed"
	"imgferry/formats/raw"
	"imgferry/formats/vdi"
	"imgferry/formats/vhd"
	"imgferry/formats/vhdx"
	"imgferry/formats/vmdk"
	"imgferry/formats/zvhd"
	"imgferry/formats/zvhd2"
)

// Table returns the formats in the order in which they are to be probed. raw, which knows
// everything, is last. The slice is the caller's.
func Table() []formats.Format {
	table := []formats.Format{zvhd2.Format(), zvhd.Format(), qcow2.Format(), qcow.Format(), qed.Format(), vdi.Format(), vhdx.Format(), vmdk.Format()}
	for _, r := range recognised {
		table = append(table, r.format())
	}
	// A fixed VHD is only known by its end, so whatever has a mark at its start comes first.
	return append(table, vhd.Format(), raw.Format())
}
