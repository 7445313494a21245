package limits

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// The image types of a fast import (reference, 5.1.4).
const (
	TypeECS  = "ECS"       // the system disk of a virtual server; the default
	TypeBMS  = "BMS"       // the system disk of a bare metal server
	TypeData = "DataImage" // a data disk
)

// ImageType checks an image type: ECS, BMS, DataImage, or "" for ECS.
func ImageType(s string) error {
	return oneOf(s, ImageTypeWrong, "type", "image type", TypeECS, TypeBMS, TypeData)
}

// Architecture checks a processor architecture: x86, arm, or "" for x86. arm implies UEFI.
func Architecture(s string) error {
	return oneOf(s, ArchitectureWrong, "architecture", "architecture", "x86", "arm")
}

// Firmware checks a boot mode: bios, uefi, or "" to leave it to the service.
func Firmware(s string) error {
	return oneOf(s, FirmwareInvalid, "hw_firmware_type", "boot mode", "bios", "uefi")
}

// OSType checks an operating system type: Linux, Windows, Other, or "".
func OSType(s string) error {
	return oneOf(s, OSTypeInvalid, "os_type", "operating system type", "Linux", "Windows", "Other")
}

// OSVersion checks the operating system of an image of the given type: a system disk needs one (IMG.0159),
// a data disk may go without. The service's list of names is its own matter and changes by region.
func OSVersion(imageType, s string) error {
	const most = 255 // of the reference's names the longest has 52; Glance stores 255
	if s == "" && imageType != TypeData {
		return &Error{OSVersionMissing, "os_version", "a system disk needs the version of its operating system",
			`give one, such as "Other Linux(64 bit)"`}
	}
	if len(s) > most || strings.ContainsFunc(s, unicode.IsControl) {
		return &Error{OSVersionInvalid, "os_version", fmt.Sprintf("the operating system version %s is no name", quote(s)),
			"use at most 255 printable characters"}
	}
	return nil
}

func oneOf(s string, code Code, field, words string, allowed ...string) error {
	if s == "" || slices.Contains(allowed, s) {
		return nil
	}
	return &Error{code, field, fmt.Sprintf("the %s %s is unknown", words, quote(s)), "use " + strings.Join(allowed, ", ")}
}
