package imageservice

import "imgferry/ims"

// schemas are the answers of GET /v2/schemas/{name} (reference, 6.2). OpenStack's clients hold every image
// against the first: what it says is a string must be one.
var schemas = map[string]any{
	"image": imageSchema, "images": listSchema("images", imageSchema, true),
	"member": memberSchema, "members": listSchema("members", memberSchema, false),
}

type object = map[string]any

const uuidPattern = "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$"

func typed(kind, description string) object { return object{"type": kind, "description": description} }

func with(o object, name string, value any) object {
	o[name] = value
	return o
}

func readOnly(kind, description string) object {
	return with(typed(kind, description+" (READ-ONLY)"), "readOnly", true)
}

// convention is a property that is only a convention of OpenStack's.
func convention(description string) object {
	return with(typed("string", description), "is_base", false)
}

var imageSchema = object{
	"name":                 "image",
	"additionalProperties": object{"type": "string"},
	"links": []object{
		{"href": "{self}", "rel": "self"}, {"href": "{file}", "rel": "enclosure"}, {"href": "{schema}", "rel": "describedby"},
	},
	"properties": object{
		"id":         with(typed("string", "An identifier for the image"), "pattern", uuidPattern),
		"name":       with(object{"type": []string{"null", "string"}, "description": "Descriptive name for the image"}, "maxLength", 255),
		"status":     with(readOnly("string", "Status of the image"), "enum", []string{ims.StatusQueued, ims.StatusSaving, ims.StatusActive, ims.StatusKilled, ims.StatusDeleted, "pending_delete"}),
		"visibility": with(typed("string", "Scope of image accessibility"), "enum", []string{"public", "private", "shared"}),
		"protected":  typed("boolean", "If true, image will not be deletable."),
		"owner":      with(object{"type": []string{"null", "string"}, "description": "Owner of the image"}, "maxLength", 255),
		"tags": object{
			"type": "array", "items": object{"type": "string", "maxLength": 255}, "description": "List of strings related to the image",
		},
		"checksum":         with(readOnly("string", "md5 hash of image contents."), "maxLength", 32),
		"container_format": with(typed("string", "Format of the container"), "enum", []string{"ami", "ari", "aki", "bare", "ovf", "ova"}),
		"disk_format":      with(typed("string", "Format of the disk"), "enum", []string{"ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "qcow", "qed", "vdi", "iso", "zvhd", "zvhd2"}),
		"min_ram":          typed("integer", "Amount of ram (in MB) required to boot image."),
		"min_disk":         typed("integer", "Amount of disk space (in GB) required to boot image."),
		"size":             object{"type": []string{"null", "integer"}, "readOnly": true, "description": "Size of image file in bytes (READ-ONLY)"},
		"virtual_size":     object{"type": []string{"null", "integer"}, "readOnly": true, "description": "Virtual size of image in bytes (READ-ONLY)"},
		"created_at":       readOnly("string", "Date and time of image registration"),
		"updated_at":       readOnly("string", "Date and time of the last image modification"),
		"self":             readOnly("string", "A link to the image"),
		"file":             readOnly("string", "A link to the image file"),
		"schema":           readOnly("string", "A link to this schema"),
		"direct_url":       readOnly("string", "URL to access the image file kept in external store"),
		"locations": object{
			"type": "array", "description": "A set of URLs to access the image file kept in external store",
			"items": object{
				"type": "object", "required": []string{"url", "metadata"},
				"properties": object{"url": object{"type": "string", "maxLength": 255}, "metadata": object{"type": "object"}},
			},
		},
		"properties":    typed("object", "A collection of image attributes"),
		"kernel_id":     with(convention("ID of image stored in Glance that should be used as the kernel when booting an AMI-style image."), "pattern", uuidPattern),
		"ramdisk_id":    with(convention("ID of image stored in Glance that should be used as the ramdisk when booting an AMI-style image."), "pattern", uuidPattern),
		"architecture":  convention("Operating system architecture"),
		"instance_uuid": convention("ID of instance used to create this image."),
		"os_distro":     convention("Common name of operating system distribution"),
		"os_version":    convention("Operating system version as specified by the distributor"),
	},
}

var memberSchema = object{
	"name": "member",
	"properties": object{
		"status":      with(typed("string", "The status of this image member"), "enum", []string{memberPending, memberAccepted, memberRejected}),
		"created_at":  typed("string", "Date and time of image member creation"),
		"updated_at":  typed("string", "Date and time of last modification of image member"),
		"image_id":    with(typed("string", "An identifier for the image"), "pattern", uuidPattern),
		"member_id":   typed("string", "An identifier for the image member (tenantId)"),
		"member_type": typed("string", "What the member is"),
		"urn":         typed("string", "The member's name in other services"),
		"schema":      object{"type": "string", "readOnly": true},
	},
}

// listSchema is the schema of a list, with links from page to page or without.
func listSchema(name string, item object, pages bool) object {
	links := []object{{"href": "{schema}", "rel": "describedby"}}
	properties := object{name: object{"type": "array", "items": item}, "schema": object{"type": "string"}}
	if pages {
		links = append([]object{{"href": "{first}", "rel": "first"}, {"href": "{next}", "rel": "next"}}, links...)
		properties["first"], properties["next"] = object{"type": "string"}, object{"type": "string"}
	}
	return object{"name": name, "links": links, "properties": properties}
}
