package ims

import (
	"strings"
	"time"

	"imgferry/limits"
)

// QuickImportRequest asks for a fast import: an image from an object of ZVHD2 format, or of raw format
// with a bitmap beside it (reference, 5.1.4).
type QuickImportRequest struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	// OSVersion is a name of the service's list. System disks need one.
	OSVersion string `json:"os_version,omitempty"`
	// OSType is Linux, Windows or Other. It counts for data disks only.
	OSType string `json:"os_type,omitempty"`
	// ImageURL is "BUCKET:KEY", see limits.ImageURL.
	ImageURL string `json:"image_url"`
	// MinDisk is the least size of a disk made from the image, in GB of 2^30 bytes.
	MinDisk int `json:"min_disk"`
	// Type is ECS (default), BMS or DataImage.
	Type string `json:"type,omitempty"`
	// Architecture is x86 (default) or arm.
	Architecture string `json:"architecture,omitempty"`
	// Firmware is bios or uefi, "" leaves it to the service.
	Firmware string `json:"hw_firmware_type,omitempty"`
	// LicenseType is platform or byol.
	LicenseType string `json:"license_type,omitempty"`
	// EnterpriseProjectID is "" or "0" for the default enterprise project.
	EnterpriseProjectID string `json:"enterprise_project_id,omitempty"`
	// Tags have the form "key.value". Give these or ImageTags, never both.
	Tags      []string `json:"tags,omitempty"`
	ImageTags []Tag    `json:"image_tags,omitempty"`
}

// Tag marks an image. A list is searched by it as tag=KEY=VALUE.
type Tag struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// TagList returns the tags in whichever form the request has them.
func (r QuickImportRequest) TagList() []Tag { return tagList(r.Tags, r.ImageTags) }

// Check applies the service's rules. The error is the first broken one, a *limits.Error.
func (r QuickImportRequest) Check() error {
	_, _, urlErr := limits.SplitImageURL(r.ImageURL)
	return firstOf(
		limits.Name(r.Name), limits.Description(r.Description), urlErr,
		limits.ImageType(r.Type), limits.OSVersion(r.Type, r.OSVersion), limits.OSType(r.OSType),
		limits.CheckMinDisk(limits.FastImport, r.MinDisk, 0),
		limits.Architecture(r.Architecture), limits.Firmware(r.Firmware), checkTags(r.Tags, r.ImageTags),
	)
}

// JobStatus is the state of a job.
type JobStatus string

// The states of a job (reference, 5.5.1).
const (
	JobInit    JobStatus = "INIT"
	JobRunning JobStatus = "RUNNING"
	JobSuccess JobStatus = "SUCCESS"
	JobFail    JobStatus = "FAIL"
)

// Job is work that the service does in the background.
type Job struct {
	ID, Type string
	Status   JobStatus
	// Progress goes from 0 to 1. The service may not renew it often.
	Progress float64
	// Task is the service's name of the step under way, or "".
	Task string
	// ImageID is the image the job makes, "" while the service doesn't say.
	ImageID, ImageName string
	// Code and Reason say why the job ended with FAIL; else they are "".
	Code, Reason string
	// Begin and End are UTC, zero where unknown.
	Begin, End time.Time
	// Results are what became of each part of a batch, such as sharing images.
	Results []JobResult
	// SubJobs are the jobs that this one is made of, such as one for each disk. They have none of their
	// own. SubJobIDs are their ids, where the service gives those only.
	SubJobs   []Job
	SubJobIDs []string
}

// JobResult is what became of one image and project of a batch (reference, table 5-20).
type JobResult struct {
	ImageID, ProjectID string
	// Status is the service's word: "success" or "failed".
	Status string
}

// OK reports whether that part of the batch succeeded.
func (r JobResult) OK() bool { return strings.EqualFold(r.Status, "success") }

// The states of an image (reference, 5.1.1).
const (
	StatusQueued  = "queued"  // known, no data yet
	StatusSaving  = "saving"  // data is being stored
	StatusActive  = "active"  // ready for use
	StatusKilled  = "killed"  // its import failed
	StatusDeleted = "deleted" // gone
)

// Image is an image as the service lists it (reference, 5.1.1). Strings are as the service sent them:
// whoever prints one to a terminal makes it printable first.
type Image struct {
	ID, Name, Status string
	// Owner is the project the image belongs to.
	Owner string
	// Visibility is private, public or shared; ImageType is private, gold or shared.
	Visibility, ImageType string
	// VirtualEnv is FusionCompute (ECS), Ironic (BMS), DataImage or IsoImage.
	VirtualEnv, DiskFormat string
	Description            string
	OSVersion, OSType      string
	Platform               string
	// Firmware is bios, uefi or "".
	Firmware string
	// OSBit is "32", "64" or "".
	OSBit string
	// Size is the length of the image file in bytes, 0 where unknown.
	Size int64
	// MinDisk is in GB of 2^30 bytes, MinRAM and MaxRAM in MB, 0 where there is no limit.
	MinDisk, MinRAM, MaxRAM int
	// WholeImage says that this is the image of a whole server, with its data disks.
	WholeImage bool
	// CMKID is the key that the image is encrypted with, "" for none.
	CMKID               string
	EnterpriseProjectID string
	Protected           bool
	// Tags have the form "key=value", or "key".
	Tags []string
	// Created, Updated and Activated are UTC, zero where unknown.
	Created, Updated, Activated time.Time
	// Properties are all further attributes with a value, by the service's names; nil: there are none.
	Properties map[string]string
}
