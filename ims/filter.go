package ims

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"imgferry/limits"
)

// Filter narrows a list of images (reference, 5.1.1). Its zero value asks for all that the project can
// see, public images included. An image must meet all that is set.
type Filter struct {
	ID string
	// Name is the exact name.
	Name string
	// Status is one of StatusQueued and its like.
	Status string
	Owner  string
	// ImageType is gold (public), private or shared; Visibility is public, private or shared.
	ImageType, Visibility string
	// MemberStatus goes with Visibility shared: MemberPending, MemberAccepted or MemberRejected.
	MemberStatus string
	// VirtualEnv is FusionCompute (ECS), Ironic (BMS), DataImage or IsoImage.
	VirtualEnv          string
	DiskFormat          string
	ContainerFormat     string
	Platform            string
	OSType              string // Linux, Windows, Other
	OSBit               string // 32, 64
	Architecture        string // x86, arm
	CMKID               string
	EnterpriseProjectID string
	// FlavorID asks for images that servers of that kind can use.
	FlavorID string
	// Tag has the form "KEY=VALUE".
	Tag string
	// MinDisk is in GB, MinRAM in MB; 0 is not set.
	MinDisk, MinRAM int
	// Protected and WholeImage are set if not nil.
	Protected, WholeImage *bool
	// Supports are the properties that must be true, "__support_kvm" and its like; one with a value is
	// written "__support_kvm_gpu_type=V100".
	Supports []string
	// Created and Updated bound the times, each with an operator: see Since and Before.
	Created, Updated []TimeBound
	// SortKey is name, container_format, disk_format, status, id, size or created_at (default); the order
	// is descending unless Ascending.
	SortKey   string
	Ascending bool
	// Marker is the id of the image before the first one; Limit bounds the list, 0: all of it.
	Marker string
	Limit  int
}

// TimeBound is a condition on a time.
type TimeBound struct {
	// Op is gt, gte, lt, lte, eq or neq.
	Op   string
	Time time.Time
}

// String is the condition as the service takes it.
func (b TimeBound) String() string { return b.Op + ":" + b.Time.UTC().Format(time.RFC3339) }

// Query returns the filter as the query of the list. The error is a *limits.Error of what can't be asked
// for.
func (f Filter) Query() (url.Values, error) {
	bad := func(field, finding, advice string) (url.Values, error) {
		return nil, &limits.Error{Code: limits.URLFormat, Field: field, Finding: finding, Advice: advice}
	}
	q := make(url.Values)
	for name, v := range map[string]string{
		"id": f.ID, "name": f.Name, "status": f.Status, "owner": f.Owner, "__imagetype": f.ImageType, "visibility": f.Visibility,
		"member_status": f.MemberStatus, "virtual_env_type": f.VirtualEnv, "disk_format": f.DiskFormat, "container_format": f.ContainerFormat,
		"__platform": f.Platform, "__os_type": f.OSType, "__os_bit": f.OSBit, "architecture": f.Architecture, "__system__cmkid": f.CMKID,
		"enterprise_project_id": f.EnterpriseProjectID, "flavor_id": f.FlavorID, "tag": f.Tag, "sort_key": f.SortKey, "marker": f.Marker,
	} {
		if v != "" {
			q.Set(name, v)
		}
	}
	for name, n := range map[string]int{"min_disk": f.MinDisk, "min_ram": f.MinRAM, "limit": f.Limit} {
		if n < 0 {
			return bad(name, fmt.Sprintf("%s is %d", name, n), "use a positive number")
		}
		if n > 0 {
			q.Set(name, strconv.Itoa(n))
		}
	}
	for name, b := range map[string]*bool{"protected": f.Protected, "__whole_image": f.WholeImage} {
		if b != nil {
			q.Set(name, strconv.FormatBool(*b))
		}
	}
	for _, s := range f.Supports {
		name, value, given := strings.Cut(s, "=")
		if !strings.HasPrefix(name, "__support_") {
			return bad("__support_", fmt.Sprintf("%q is no such property", s), "their names begin with __support_")
		}
		if !given {
			value = "true"
		}
		q.Set(name, value)
	}
	for name, bounds := range map[string][]TimeBound{"created_at": f.Created, "updated_at": f.Updated} {
		for _, b := range bounds {
			q.Add(name, b.String())
		}
	}
	switch f.SortKey {
	case "", "name", "container_format", "disk_format", "status", "id", "size", "created_at":
	default:
		return bad("sort_key", fmt.Sprintf("images can't be sorted by %q", f.SortKey), "use name, container_format, disk_format, status, id, size or created_at")
	}
	if f.Ascending {
		q.Set("sort_dir", "asc")
	}
	return q, nil
}
