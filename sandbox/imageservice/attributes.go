package imageservice

import (
	"cmp"
	"maps"
	"strconv"
	"strings"
	"time"

	"imgferry/limits"
)

// attributes are an image's fields as the reference lists them (5.1.1, table 5-2, and 9.1), by name. Numbers and
// booleans are of those types where the table says so, all else is a string, absent ones are left out.
type attributes map[string]any

// attributes returns what a project sees of an image.
func (i image) attributes(project string) attributes {
	os := systemOf(i)
	visibility := "private"
	if i.Owner != project || len(i.Members) > 0 {
		visibility = "shared" // to both sides (5.1.1, __imagetype)
	}
	a := attributes{
		"id": i.ID, "name": i.Name, "status": i.Status, "owner": i.Owner,
		"self": "/v2/images/" + i.ID, "file": "/v2/images/" + i.ID + "/file", "schema": "/v2/schemas/image",
		"visibility": visibility, "protected": i.Protected, "tags": append([]string{}, i.Tags...),
		"container_format": "bare", "disk_format": i.DiskFormat,
		// The reference calls size and virtual_size unused, and the SDK reads both into 32 bits.
		"min_disk": i.MinDisk, "min_ram": i.MinRAM, "size": 0, "virtual_size": 0,
		// MD5 of nothing: the reference calls the field unused, and its examples have this.
		"checksum":   cmp.Or(i.Checksum, "d41d8cd98f00b204e9800998ecf8427e"),
		"created_at": i.Created.UTC().Format(time.RFC3339), "updated_at": i.Updated.UTC().Format(time.RFC3339),
		"virtual_env_type": i.Environment, "hw_firmware_type": i.firmware(), "architecture": cmp.Or(i.Architecture, "x86"),
		"__imagetype": visibility, "__image_source_type": "uds", "__image_size": strconv.FormatInt(i.FileSize, 10),
		"__isregistered": "true", "__lazyloading": "true", "__root_origin": "file", "__data_origin": i.Origin,
		"__originalimagename": i.Parent, "__backup_id": i.Backup, "__description": i.Description, "__productcode": "",
		"__os_version": os.version, "__os_type": os.kind, "__os_bit": os.bit, "__platform": os.platform,
		"__os_feature_list": "{}", "__sequence_num": "0", "__image_location": "uds://" + i.ID, "__account_code": "",
		"__is_config_init": "false", "__support_fc_inject": "false", "__support_kvm": "true", "__support_amd": "false",
		"hw_vif_multiqueue_enabled": "false",
	}
	optional := func(name, value string) {
		if value != "" {
			a[name] = value
		}
	}
	optional("enterprise_project_id", i.Enterprise)
	optional("__system__cmkid", i.CMK)
	if i.MaxRAM > 0 {
		a["max_ram"] = strconv.Itoa(i.MaxRAM) // a string in the reference, and for the SDK
	}
	if i.Whole {
		a["__whole_image"] = "true"
	}
	if i.Architecture == "arm" {
		a["__support_arm"] = "true"
	}
	if !i.Active.IsZero() {
		a["active_at"] = i.Active.UTC().Format(time.RFC3339)
	}
	for _, special := range specialVirtualization { // which don't go with the plain one
		if i.Extra[special] != "" && i.Extra[special] != removedMark {
			delete(a, "__support_kvm")
		}
	}
	for name, value := range i.Extra {
		if value == removedMark {
			delete(a, name)
			continue
		}
		a[name] = value
	}
	return a
}

// removedMark is the value, which no client can send, of an attribute that is there by default and was removed.
const removedMark = "\x00"

// firmware is how the image boots. arm implies UEFI (reference, 5.1.4).
func (i image) firmware() string {
	if i.Architecture == "arm" {
		return "uefi"
	}
	return cmp.Or(i.Firmware, "bios")
}

// environment is the virtual_env_type of an image type (reference, 9.1).
func environment(imageType string) string {
	switch imageType {
	case limits.TypeBMS, limits.TypeIronic:
		return "Ironic"
	case limits.TypeData:
		return "DataImage"
	case limits.TypeISO:
		return "IsoImage"
	}
	return "FusionCompute"
}

// iso and data report what kind of disk an image holds.
func (i image) iso() bool  { return i.Environment == "IsoImage" }
func (i image) data() bool { return i.Environment == "DataImage" }

// system is what the service says of an image's operating system.
type system struct{ version, kind, bit, platform string }

// platforms are the platforms there are (reference, 5.1.1 and 9.5), and some that came later: the names of
// versions begin with them.
var platforms = []string{"Windows", "Ubuntu", "Red Hat", "SUSE", "CentOS", "Debian", "openSUSE", "Oracle Linux", "Fedora", "CoreOS", "EulerOS", "openEuler", "NeoKylin",
	"AlmaLinux", "Rocky Linux", "Huawei Cloud EulerOS", "Kylin", "UnionTech OS"}

// systemOf derives it from the version asked for.
func systemOf(i image) system {
	s := system{version: i.OSVersion, kind: "Linux", bit: "64", platform: "Other"}
	for _, p := range platforms {
		if strings.HasPrefix(i.OSVersion, p) {
			s.platform = p
		}
	}
	switch {
	case i.data() || i.OSVersion == "" && i.OSType != "":
		s.kind = cmp.Or(i.OSType, "Linux")
	case s.platform == "Windows":
		s.kind = "Windows"
	case strings.HasPrefix(i.OSVersion, "Other(") || i.OSType == "Other":
		s.kind = "Other"
	}
	if strings.Contains(i.OSVersion, "32bit") || strings.Contains(i.OSVersion, "32 bit") {
		s.bit = "32"
	}
	return s
}

// clone returns an image that shares nothing with i.
func (i image) clone() image {
	i.Tags = append([]string(nil), i.Tags...)
	i.Members = append([]member(nil), i.Members...)
	i.Disks = append([]diskFile(nil), i.Disks...)
	i.Extra = maps.Clone(i.Extra)
	return i
}
