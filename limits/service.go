package limits

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The image types of an ordinary import besides ECS and BMS (reference, 5.1.3).
const (
	TypeFusionCompute = "FusionCompute" // another word for ECS
	TypeIronic        = "Ironic"        // another word for BMS
	TypeISO           = "IsoImage"      // a disc to install a system from
)

const (
	// MaxNativeName is the longest name in native calls, in characters (reference, 6.1.6).
	MaxNativeName = 255
	// MaxNativeTag is the longest tag in native calls, in characters (reference, 9.2).
	MaxNativeTag = 255
	// MaxTags is how many tags an image may have (user guide, "Managing Tags").
	MaxTags = 20
	// MaxShares and MaxWholeShares are how many projects an image, and a whole-server image, may be shared
	// with (reference, 9.3).
	MaxShares, MaxWholeShares = 128, 10
	// MaxDataDisks is how many data disks an import may have beside its system disk (reference, 5.1.3).
	MaxDataDisks = 3
	// MaxRegionCopies is how many images may be copied to other regions at a time (reference, 5.3.2).
	MaxRegionCopies = 5
	// MaxUpload is the longest image file that may be sent in a request, in bytes, exclusive (reference, 6.1.4).
	MaxUpload = 2 << 30
	// MaxRAM bounds min_ram and max_ram, in MB. The reference leaves it to the flavours; 64 TB is above all.
	MaxRAM = 64 << 20
)

// CreateType checks the image type of an ordinary import or of an image made from a volume.
func CreateType(s string) error {
	return oneOf(s, SourceTypeWrong, "type", "image type", TypeECS, TypeBMS, TypeFusionCompute, TypeIronic, TypeISO)
}

// DataOSType checks the operating system type of a data disk: Linux (default) or Windows (reference, 5.1.5).
func DataOSType(s string) error {
	return oneOf(s, OSTypeInvalid, "os_type", "operating system type", "Linux", "Windows")
}

// DiskFormat checks the disk_format of an image's metadata, "" for zvhd2: what pages and clients name.
func DiskFormat(s string) error {
	return oneOf(s, FormatUnsupported, "disk_format", "disk format", "zvhd2", "zvhd", "vhd", "vhdx", "raw", "qcow2", "qcow", "qed", "vdi", "vmdk", "iso")
}

// exportFormats are the file formats of an export that is not a quick one (reference, 5.1.8).
var exportFormats = []string{"qcow2", "vhd", "zvhd", "vmdk"}

// ExportFormat checks the file_format of an export: none goes with a quick one, one of four with any other.
func ExportFormat(s string, quick bool) error {
	switch {
	case quick && s != "":
		return &Error{RequestFormat, "file_format", "a quick export has no file format of its own", "leave file_format empty"}
	case !quick && !slices.Contains(exportFormats, s):
		return &Error{FormatUnsupported, "file_format", fmt.Sprintf("images can't be exported as %s", quote(s)), "use " + strings.Join(exportFormats, ", ")}
	}
	return nil
}

// RAM checks min_ram and max_ram in MB; 0 is no limit.
func RAM(field string, mb int) error {
	if mb < 0 || mb > MaxRAM {
		return &Error{DiskSize, field, fmt.Sprintf("%s is %d MB", field, mb), "use 0 to " + strconv.Itoa(MaxRAM)}
	}
	return nil
}

// Memory checks min_ram and max_ram together, in MB; a greatest one of 0 is no limit.
func Memory(least, most int) error {
	if most > 0 && least > most {
		return &Error{DiskSize, "max_ram", fmt.Sprintf("the least memory is %d MB and the greatest %d MB", least, most), "use a least one that is not greater"}
	}
	return cmp.Or(RAM("min_ram", least), RAM("max_ram", most))
}

// NativeName checks an image's name in native calls, which may be empty and longer.
func NativeName(s string) error {
	if n := utf8.RuneCountInString(s); n > MaxNativeName {
		return &Error{NameTooLong, "name", fmt.Sprintf("the image name has %d characters", n), "use at most 255"}
	}
	if at, bad := firstNot(s, func(r rune) bool { return !unicode.IsControl(r) }); bad != "" {
		return &Error{NameFormat, "name", fmt.Sprintf("the image name has %s at character %d", bad, at), "remove it"}
	}
	return nil
}

// NativeTag checks a tag of native calls: 1 to 255 characters, which the service reads as "key" or "key=value".
func NativeTag(s string) error {
	if n := utf8.RuneCountInString(s); n == 0 || n > MaxNativeTag || strings.ContainsFunc(s, unicode.IsControl) {
		return &Error{TagInvalid, "tags", fmt.Sprintf("the tag %s has %d characters", quote(s), n), "use 1 to 255 printable ones"}
	}
	return nil
}

var projectForm = regexp.MustCompile(`^[0-9A-Za-z_-]{1,64}$`)

// ProjectID checks the id of a project: up to 64 letters, digits, '-' and '_'. Real ones have 32 hexadecimal digits.
func ProjectID(s string) error {
	if !projectForm.MatchString(s) {
		return &Error{ProjectWrong, "project_id", fmt.Sprintf("%s is no project id", quote(s)), "see GET /v3/projects"}
	}
	return nil
}
