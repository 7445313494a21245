package limits

import "fmt"

// Import is a way of making an image from a file. The ways differ in the sizes they take.
type Import int

// The ways of import.
const (
	FastImport         Import = iota // quickimport/action, system and data disks
	SystemImport                     // action: an ordinary import of a system disk
	DataImport                       // dataimages/action: an ordinary import of a data disk
	AttachedDataImport               // data_images inside action
)

const (
	// gb is the service's unit of disk size: 1 GB is 1 GiB, in bytes.
	gb = 1 << 30
	// MaxFastFile is the largest file of a fast import, in bytes: "1 TB", counted in the service's GB.
	MaxFastFile = 1024 * gb
	// MaxFile is the largest file of an ordinary import, in bytes.
	MaxFile = 128 * gb
)

// MinDiskRange returns the least and the greatest min_disk, in GB.
func (k Import) MinDiskRange() (lo, hi int) {
	switch k {
	case SystemImport:
		return 40, 1024
	case DataImport:
		return 40, 2048
	case AttachedDataImport:
		return 1, 2048
	}
	return 1, 1024
}

// MaxFileSize returns the length in bytes of the largest file that may be imported.
func (k Import) MaxFileSize() int64 {
	if k == FastImport {
		return MaxFastFile
	}
	return MaxFile
}

// MinDisk returns the smallest min_disk, in GB, for a disk of virtualSize bytes. The error is IMG.0055
// where the service takes no disk that large.
func MinDisk(k Import, virtualSize int64) (int, error) {
	lo, hi := k.MinDiskRange()
	need := sizeGB(virtualSize)
	if need > int64(hi) {
		return 0, &Error{DiskSize, "min_disk", fmt.Sprintf("the disk has %d bytes, which needs %d GB", virtualSize, need),
			fmt.Sprintf("this import takes disks up to %d GB", hi)}
	}
	return max(lo, int(need)), nil
}

// CheckMinDisk checks a min_disk in GB against the range and, where virtualSize is above 0, against the
// disk's size in bytes. The error is IMG.0055.
func CheckMinDisk(k Import, minDisk int, virtualSize int64) error {
	lo, hi := k.MinDiskRange()
	if minDisk < lo || minDisk > hi {
		return &Error{DiskSize, "min_disk", fmt.Sprintf("the minimum disk size is %d GB", minDisk),
			fmt.Sprintf("use %d to %d GB", lo, hi)}
	}
	if need := sizeGB(virtualSize); int64(minDisk) < need {
		return &Error{DiskSize, "min_disk",
			fmt.Sprintf("the minimum disk size is %d GB, but the disk has %d bytes", minDisk, virtualSize),
			fmt.Sprintf("use at least %d GB", need)}
	}
	return nil
}

// FileSize checks the length in bytes of the file to import: IMG.0057 for an empty, IMG.0059 for a too
// large one.
func FileSize(k Import, size int64) error {
	if size <= 0 {
		return &Error{FileDamaged, "image_url", "the image file is empty", "upload an image"}
	}
	if most := k.MaxFileSize(); size > most {
		return &Error{FileTooLarge, "image_url", fmt.Sprintf("the image file has %d bytes", size),
			fmt.Sprintf("this import takes files up to %d GB", most/gb)}
	}
	return nil
}

// sizeGB returns size bytes in GB, rounded up.
func sizeGB(size int64) int64 {
	if size <= 0 {
		return 0
	}
	return (size-1)/gb + 1
}
