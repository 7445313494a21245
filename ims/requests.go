package ims

import (
	"cmp"
	"encoding/json"
	"fmt"

	"imgferry/limits"
)

// CreateImageRequest asks for an image by the ordinary way (reference, 5.1.3): from an object in the store
// (ImageURL), a server (InstanceID), or a volume (VolumeID); exactly one of these. DataImages that name
// volumes may stand alone: each becomes a data image.
type CreateImageRequest struct {
	Name        string `json:"name,omitempty"`
	Description string `json:"description,omitempty"`
	// ImageURL is "BUCKET:KEY", see limits.ImageURL. The object may be of any format that an ordinary
	// import takes, up to 128 GB.
	ImageURL   string `json:"image_url,omitempty"`
	InstanceID string `json:"instance_id,omitempty"`
	VolumeID   string `json:"volume_id,omitempty"`
	// OSVersion is a name of the service's list. An image of a volume and one of an ISO file need it.
	OSVersion string `json:"os_version,omitempty"`
	OSType    string `json:"os_type,omitempty"`
	// MinDisk is in GB of 2^30 bytes; for objects only, which need it.
	MinDisk int `json:"min_disk,omitempty"`
	// MinRAM and MaxRAM are in MB; 0 is no limit.
	MinRAM int `json:"min_ram,omitempty"`
	MaxRAM int `json:"max_ram,omitempty"`
	// Configure lets the service prepare the system on the disk: drivers, network, cloud-init.
	Configure bool `json:"is_config,omitempty"`
	// CMKID is the key that the image is encrypted with, "" for none.
	CMKID string `json:"cmk_id,omitempty"`
	// Type is ECS (default), BMS or IsoImage.
	Type string `json:"type,omitempty"`
	// Architecture is x86 (default) or arm, Firmware bios or uefi, "" leaves it to the service.
	Architecture        string `json:"architecture,omitempty"`
	Firmware            string `json:"hw_firmware_type,omitempty"`
	EnterpriseProjectID string `json:"enterprise_project_id,omitempty"`
	// Quick asks for a fast import of the object.
	Quick bool `json:"is_quick_import,omitempty"`
	// Tags have the form "key.value". Give these or ImageTags, never both.
	Tags       []string    `json:"tags,omitempty"`
	ImageTags  []Tag       `json:"image_tags,omitempty"`
	DataImages []DataImage `json:"data_images,omitempty"`
}

// DataImage is a data disk beside the system disk of a CreateImageRequest: an object or a volume.
type DataImage struct {
	Name        string `json:"name,omitempty"`
	Description string `json:"description,omitempty"`
	ImageURL    string `json:"image_url,omitempty"`
	VolumeID    string `json:"volume_id,omitempty"`
	// MinDisk is in GB; for objects only, which need it.
	MinDisk   int      `json:"min_disk,omitempty"`
	Quick     bool     `json:"is_quick_import,omitempty"`
	Tags      []string `json:"tags,omitempty"`
	ImageTags []Tag    `json:"image_tags,omitempty"`
}

// Check applies the service's rules. The error is the first broken one, a *limits.Error.
func (r CreateImageRequest) Check() error {
	sources := 0
	for _, s := range []string{r.ImageURL, r.InstanceID, r.VolumeID} {
		if s != "" {
			sources++
		}
	}
	alone := sources == 0 && len(r.DataImages) > 0
	if sources != 1 && !alone {
		return &limits.Error{Code: limits.RequestFormat, Field: "image_url", Finding: fmt.Sprintf("the image has %d sources", sources),
			Advice: "name one: an object, a server or a volume"}
	}
	if alone {
		return r.checkDataImages(false)
	}
	checks := []error{limits.Name(r.Name), limits.Description(r.Description), limits.Memory(r.MinRAM, r.MaxRAM), checkTags(r.Tags, r.ImageTags)}
	switch {
	case r.ImageURL != "":
		checks = append(checks, r.checkFile())
	case r.VolumeID != "":
		checks = append(checks, limits.ID(r.VolumeID, limits.VolumeUnknown, "volume_id", "volume"), limits.CreateType(r.Type), limits.OSVersion(r.Type, r.OSVersion))
	default:
		checks = append(checks, limits.ID(r.InstanceID, limits.InstanceUnknown, "instance_id", "server"))
	}
	return firstOf(append(checks, r.checkDataImages(r.ImageURL != ""))...)
}

func (r CreateImageRequest) checkFile() error {
	_, key, urlErr := limits.SplitImageURL(r.ImageURL)
	kind, osErr := limits.SystemImport, error(nil)
	switch {
	case r.Quick:
		kind, osErr = limits.FastImport, limits.OSVersion(r.Type, r.OSVersion)
	case r.OSVersion != "":
		osErr = limits.OSVersion(r.Type, r.OSVersion)
	case r.Type == limits.TypeISO || limits.IsISO(key):
		osErr = &limits.Error{Code: limits.ISOVersionMissing, Field: "os_version", Finding: "an image of an ISO file needs the version of its operating system",
			Advice: `give one, such as "CentOS 7.0 64bit"`}
	}
	return firstOf(urlErr, limits.CreateType(r.Type), limits.OSType(r.OSType), osErr, limits.CheckMinDisk(kind, r.MinDisk, 0),
		limits.Architecture(r.Architecture), limits.Firmware(r.Firmware), checkKey(r.CMKID))
}

func (r CreateImageRequest) checkDataImages(files bool) error {
	if len(r.DataImages) > limits.MaxDataDisks && files {
		return &limits.Error{Code: limits.TooManyDataImages, Field: "data_images", Finding: fmt.Sprintf("there are %d data disks", len(r.DataImages)),
			Advice: fmt.Sprintf("use at most %d", limits.MaxDataDisks)}
	}
	for _, d := range r.DataImages {
		if err := d.check(files); err != nil {
			return err
		}
	}
	return nil
}

func (d DataImage) check(file bool) error {
	if !file {
		return firstOf(limits.Name(d.Name), limits.Description(d.Description), limits.ID(d.VolumeID, limits.VolumeUnknown, "volume_id", "volume"), checkTags(d.Tags, d.ImageTags))
	}
	var nameErr error
	if d.Name != "" {
		nameErr = limits.Name(d.Name)
	}
	_, _, urlErr := limits.SplitImageURL(d.ImageURL)
	return firstOf(nameErr, limits.Description(d.Description), urlErr, limits.CheckMinDisk(limits.AttachedDataImport, d.MinDisk, 0), checkTags(d.Tags, d.ImageTags))
}

// DataImageRequest asks for a data image from an object, by the ordinary way (reference, 5.1.5).
type DataImageRequest struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	// OSType is Linux (default) or Windows.
	OSType string `json:"os_type,omitempty"`
	// ImageURL is "BUCKET:KEY".
	ImageURL string `json:"image_url"`
	// MinDisk is in GB of 2^30 bytes.
	MinDisk int `json:"min_disk"`
	// CMKID is the key that the image is encrypted with, "" for none.
	CMKID               string   `json:"cmk_id,omitempty"`
	EnterpriseProjectID string   `json:"enterprise_project_id,omitempty"`
	Tags                []string `json:"tags,omitempty"`
	ImageTags           []Tag    `json:"image_tags,omitempty"`
}

// Check applies the service's rules. The error is the first broken one, a *limits.Error.
func (r DataImageRequest) Check() error {
	_, _, urlErr := limits.SplitImageURL(r.ImageURL)
	return firstOf(limits.Name(r.Name), limits.Description(r.Description), limits.DataOSType(r.OSType), urlErr,
		limits.CheckMinDisk(limits.DataImport, r.MinDisk, 0), checkKey(r.CMKID), checkTags(r.Tags, r.ImageTags))
}

// WholeImageRequest asks for the image of a whole server (reference, 5.1.6): of InstanceID, which is backed
// up into the vault VaultID, or of the backup BackupID.
type WholeImageRequest struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	InstanceID  string `json:"instance_id,omitempty"`
	VaultID     string `json:"vault_id,omitempty"`
	BackupID    string `json:"backup_id,omitempty"`
	// Kind is "CBR" for a backup, as the reference wants it; Check takes "" too.
	Kind                string   `json:"whole_image_type,omitempty"`
	MinRAM              int      `json:"min_ram,omitempty"`
	MaxRAM              int      `json:"max_ram,omitempty"`
	EnterpriseProjectID string   `json:"enterprise_project_id,omitempty"`
	Tags                []string `json:"tags,omitempty"`
	ImageTags           []Tag    `json:"image_tags,omitempty"`
}

// Check applies the service's rules. The error is the first broken one, a *limits.Error.
func (r WholeImageRequest) Check() error {
	source := limits.ID(r.BackupID, limits.BackupMissing, "backup_id", "backup")
	if r.InstanceID != "" {
		source = firstOf(limits.ID(r.InstanceID, limits.InstanceUnknown, "instance_id", "server"), limits.ID(r.VaultID, limits.VaultUnknown, "vault_id", "vault"))
		if r.BackupID != "" {
			source = &limits.Error{Code: limits.RequestFormat, Field: "backup_id", Finding: "both a server and a backup are named", Advice: "name one"}
		}
	}
	return firstOf(limits.Name(r.Name), limits.Description(r.Description), source, limits.Memory(r.MinRAM, r.MaxRAM), checkTags(r.Tags, r.ImageTags))
}

// MetadataRequest asks for an image without a file, which Register or an upload gives it later (reference,
// 6.1.6). All fields may be empty; an image without a name can't be used.
type MetadataRequest struct {
	Name string `json:"name,omitempty"`
	// Description becomes a property of its own.
	Description string `json:"__description,omitempty"`
	OSVersion   string `json:"__os_version,omitempty"`
	// DiskFormat is the format of the file to come: zvhd2 (default), vhd, zvhd, raw, qcow2 or iso.
	DiskFormat string `json:"disk_format,omitempty"`
	// MinDisk is in GB of 2^30 bytes, MinRAM in MB.
	MinDisk int `json:"min_disk,omitempty"`
	MinRAM  int `json:"min_ram,omitempty"`
	// Protected images can't be deleted.
	Protected bool `json:"protected,omitempty"`
	// Tags have the form "key=value" (newer reference) or "key".
	Tags []string `json:"tags,omitempty"`
}

// Check applies the service's rules. The error is the first broken one, a *limits.Error.
func (r MetadataRequest) Check() error {
	var nameErr, osErr, diskErr error
	if r.MinDisk != 0 {
		diskErr = limits.CheckMinDisk(limits.FastImport, r.MinDisk, 0) // the same range
	}
	if r.Name != "" {
		nameErr = limits.Name(r.Name)
	}
	if r.OSVersion != "" {
		osErr = limits.OSVersion("", r.OSVersion)
	}
	for _, t := range r.Tags {
		if err := limits.NativeTag(t); err != nil {
			return err
		}
	}
	return firstOf(nameErr, limits.Description(r.Description), osErr, limits.DiskFormat(r.DiskFormat),
		diskErr, limits.Memory(r.MinRAM, 0))
}

// registerRequest names the object of an image whose metadata is there (reference, 5.1.7).
type registerRequest struct {
	ImageURL string `json:"image_url"`
}

func (r registerRequest) Check() error {
	_, _, err := limits.SplitImageURL(r.ImageURL)
	return err
}

// ExportZVHD2 is the format of a quick export. It names no other.
const ExportZVHD2 = "zvhd2"

// ExportFormats returns the formats that images can be exported in, the usual first.
func ExportFormats() []string { return []string{"qcow2", "vhd", "zvhd", "vmdk", ExportZVHD2} }

// ExportRequest asks for an image's file in the store (reference, 5.1.8).
type ExportRequest struct {
	// BucketURL is the object to write, "BUCKET:KEY".
	BucketURL string
	// Format is one of ExportFormats; ExportZVHD2 is the only one for images above 128 GB.
	Format string
}

// exportWire is an ExportRequest as it is sent.
type exportWire struct {
	BucketURL string `json:"bucket_url"`
	Format    string `json:"file_format,omitempty"`
	Quick     bool   `json:"is_quick_export"`
}

func (r ExportRequest) wire() exportWire {
	if r.Format == ExportZVHD2 {
		return exportWire{r.BucketURL, "", true}
	}
	return exportWire{r.BucketURL, r.Format, false}
}

// MarshalJSON writes the request as the service takes it.
func (r ExportRequest) MarshalJSON() ([]byte, error) { return json.Marshal(r.wire()) }

// Check applies the service's rules. The error is the first broken one, a *limits.Error.
func (r ExportRequest) Check() error {
	_, _, err := limits.SplitImageURL(r.BucketURL)
	w := r.wire()
	return firstOf(err, limits.ExportFormat(w.Format, w.Quick))
}

// CopyRequest asks for a copy of an image in its region (reference, 5.3.1).
type CopyRequest struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	// CMKID is the key that the copy is encrypted with, "" for none.
	CMKID               string `json:"cmk_id,omitempty"`
	EnterpriseProjectID string `json:"enterprise_project_id,omitempty"`
}

// Check applies the service's rules. The error is the first broken one, a *limits.Error.
func (r CopyRequest) Check() error {
	return firstOf(limits.Name(r.Name), limits.Description(r.Description), checkKey(r.CMKID))
}

// RegionCopyRequest asks for a copy of an image in another region (reference, 5.3.2).
type RegionCopyRequest struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	// Region and ProjectName say where the copy goes.
	Region      string `json:"region"`
	ProjectName string `json:"project_name"`
	// AgencyName is the agency (IAM) by which the service may act there.
	AgencyName string `json:"agency_name"`
	// VaultID is needed for the image of a whole server.
	VaultID string `json:"vault_id,omitempty"`
}

// Check applies the service's rules. The error is the first broken one, a *limits.Error.
func (r RegionCopyRequest) Check() error {
	var project, agency error
	if r.ProjectName == "" {
		project = &limits.Error{Code: limits.ProjectNameWrong, Field: "project_name", Finding: "the project to copy to is not named", Advice: "name one of that region"}
	}
	if r.AgencyName == "" {
		agency = &limits.Error{Code: limits.AgencyWrong, Field: "agency_name", Finding: "no agency is named", Advice: "name one that may act on the target project"}
	}
	return firstOf(limits.Name(r.Name), limits.Description(r.Description), limits.ID(r.Region, limits.RegionUnknown, "region", "region"), project, agency)
}

// membersRequest shares images with projects, or ends that (reference, 5.2).
type membersRequest struct {
	Images   []string `json:"images"`
	Projects []string `json:"projects"`
}

func (r membersRequest) Check() error {
	if len(r.Projects) == 0 {
		return limits.ProjectID("")
	}
	if len(r.Projects) > limits.MaxShares {
		return &limits.Error{Code: limits.ShareQuotaReached, Field: "projects", Finding: fmt.Sprintf("there are %d projects", len(r.Projects)),
			Advice: fmt.Sprintf("an image is shared with at most %d", limits.MaxShares)}
	}
	for _, p := range r.Projects {
		if err := limits.ProjectID(p); err != nil {
			return err
		}
	}
	return checkImages(r.Images)
}

// Decisions on images that others share.
const (
	MemberAccepted = "accepted"
	MemberRejected = "rejected"
	MemberPending  = "pending" // not decided yet
)

// decisionRequest accepts or rejects shared images (reference, 5.2.3).
type decisionRequest struct {
	Images    []string `json:"images"`
	ProjectID string   `json:"project_id"`
	Status    string   `json:"status"`
	VaultID   string   `json:"vault_id,omitempty"`
}

func (r decisionRequest) Check() error {
	if r.Status != MemberAccepted && r.Status != MemberRejected {
		return &limits.Error{Code: limits.RequestFormat, Field: "status", Finding: fmt.Sprintf("the decision %q is none", r.Status), Advice: "use accepted or rejected"}
	}
	return checkImages(r.Images)
}

func checkImages(ids []string) error {
	if len(ids) == 0 {
		return limits.ID("", limits.ImageIDUnknown, "images", "image")
	}
	for _, id := range ids {
		if err := limits.ID(id, limits.ImageIDUnknown, "images", "image"); err != nil {
			return err
		}
	}
	return nil
}

// checkKey checks the id of an encryption key, or "" for none.
func checkKey(id string) error {
	if id == "" {
		return nil
	}
	return limits.ID(id, limits.KeyUnknown, "cmk_id", "encryption key")
}

// checkTags checks tags in whichever form they are given, but not in both.
func checkTags(tags []string, imageTags []Tag) error {
	bad := func(finding, advice string) error {
		return &limits.Error{Code: limits.TagInvalid, Field: "tags", Finding: finding, Advice: advice}
	}
	if len(tags) > 0 && len(imageTags) > 0 {
		return bad("tags and image_tags are both given", "use one of them")
	}
	seen := make(map[string]bool)
	for _, t := range tagList(tags, imageTags) {
		if err := limits.Tag(t.Key, t.Value); err != nil {
			return err
		}
		if seen[t.Key] {
			return bad(fmt.Sprintf("the tag key %q is given twice", t.Key), "keys are unique")
		}
		seen[t.Key] = true
	}
	return nil
}

// tagList returns tags of either form in one.
func tagList(tags []string, imageTags []Tag) []Tag {
	list := make([]Tag, 0, len(tags)+len(imageTags))
	for _, s := range tags {
		k, v := limits.SplitTag(s)
		list = append(list, Tag{k, v})
	}
	return append(list, imageTags...)
}

// firstOf returns the first error that there is.
func firstOf(errs ...error) error { return cmp.Or(errs...) }
