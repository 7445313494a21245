package imageservice

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"imgferry/ims"
	"imgferry/limits"
)

// defaultPage is how many images a list holds that asks for no number.
const defaultPage = 500

// attributes are an image's fields as the reference lists them (5.1.1, table 5-2), by name. Numbers and
// booleans are of those types where the table says so, all else is a string, absent ones are left out.
type attributes map[string]any

func (i image) attributes() attributes {
	r := i.Request
	os := systemOf(r)
	a := attributes{
		"id": i.ID, "name": r.Name, "status": i.Status, "owner": i.Owner,
		"self": "/v2/images/" + i.ID, "file": "/v2/images/" + i.ID + "/file", "schema": "/v2/schemas/image",
		"visibility": "private", "protected": false, "tags": tagStrings(r.TagList()),
		"container_format": "bare", "disk_format": i.DiskFormat,
		"min_disk": r.MinDisk, "min_ram": 0, "size": 0,
		// MD5 of nothing: the reference calls the field unused, and its examples have this.
		"checksum":   "d41d8cd98f00b204e9800998ecf8427e",
		"created_at": i.Created.UTC().Format(time.RFC3339), "updated_at": i.Updated.UTC().Format(time.RFC3339),
		"virtual_env_type": environment(r.Type), "hw_firmware_type": firmware(r),
		"__imagetype": "private", "__image_source_type": "uds", "__image_size": strconv.FormatInt(i.FileSize, 10),
		"__isregistered": "true", "__lazyloading": "true", "__root_origin": "file", "__data_origin": "file," + r.ImageURL,
		"__originalimagename": "", "__backup_id": "", "__description": r.Description,
		"__os_version": os.version, "__os_type": os.kind, "__os_bit": os.bit, "__platform": os.platform,
		"__support_kvm": "true",
	}
	if r.EnterpriseProjectID != "" {
		a["enterprise_project_id"] = r.EnterpriseProjectID
	}
	if !i.Active.IsZero() {
		a["active_at"] = i.Active.UTC().Format(time.RFC3339)
	}
	return a
}

// environment is the virtual_env_type of an image type (reference, 9.1).
func environment(imageType string) string {
	switch imageType {
	case limits.TypeBMS:
		return "Ironic"
	case limits.TypeData:
		return "DataImage"
	}
	return "FusionCompute"
}

func firmware(r ims.QuickImportRequest) string {
	if r.Architecture == "arm" {
		return "uefi" // reference, 5.1.4
	}
	return cmp.Or(r.Firmware, "bios")
}

// system is what the service says of an image's operating system.
type system struct{ version, kind, bit, platform string }

// systemOf derives it from the os_version asked for, whose names begin with the platform (reference, 9.5).
func systemOf(r ims.QuickImportRequest) system {
	s := system{version: r.OSVersion, kind: "Linux", bit: "64", platform: "Other"}
	for _, p := range []string{"Windows", "Ubuntu", "Red Hat", "SUSE", "CentOS", "Debian", "openSUSE", "Oracle Linux", "Fedora", "CoreOS", "EulerOS"} {
		if strings.HasPrefix(r.OSVersion, p) {
			s.platform = p
		}
	}
	switch {
	case r.Type == limits.TypeData:
		s.kind = cmp.Or(r.OSType, "Linux")
	case s.platform == "Windows":
		s.kind = "Windows"
	case strings.HasPrefix(r.OSVersion, "Other("):
		s.kind = "Other"
	}
	if strings.Contains(r.OSVersion, "32bit") || strings.Contains(r.OSVersion, "32 bit") {
		s.bit = "32"
	}
	return s
}

// tagStrings writes tags the way they are listed and searched: "key=value" (reference, 5.1.1, tag).
func tagStrings(tags []ims.Tag) []string {
	list := make([]string, len(tags))
	for i, t := range tags {
		list[i] = t.Key + "=" + t.Value
	}
	return list
}

// listImages is GET /v2/cloudimages (reference, 5.1.1).
func (s *Service) listImages(r request) (int, any, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return 0, nil, refuse(limits.URLFormat, "the query is malformed")
	}
	if err := checkMemberStatus(query["member_status"]); err != nil {
		return 0, nil, err
	}
	images, err := s.state.list(s.cfg.ProjectID)
	if err != nil {
		return 0, nil, err
	}
	var found []attributes
	for _, i := range images {
		if a := i.attributes(); a.match(query) {
			found = append(found, a)
		}
	}
	if err := sortBy(found, query.Get("sort_key"), query.Get("sort_dir")); err != nil {
		return 0, nil, err
	}
	page, err := pageOf(found, query)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, map[string]any{"images": page}, nil
}

// checkMemberStatus checks the filter for images that others share with the project. It goes with
// visibility=shared, as the reference has it, and that finds none here: nobody else is here to share.
func checkMemberStatus(values []string) error {
	for _, v := range values {
		switch v {
		case "accepted", "rejected", "pending", "all":
		default:
			return refuse(limits.URLFormat, "the member_status %s is neither accepted, rejected nor pending", shown(v))
		}
	}
	return nil
}

// match reports whether an image has every attribute that the query asks for. Names that are no
// attribute, such as limit and marker, ask for nothing.
func (a attributes) match(query url.Values) bool {
	for name, values := range query {
		got, known := a[name]
		for _, want := range values {
			switch {
			case name == "tag":
				if !hasTag(a["tags"].([]string), want) {
					return false
				}
			case name == "created_at" || name == "updated_at":
				if !matchTime(got.(string), want) {
					return false
				}
			case known && fmt.Sprint(got) != want:
				return false
			case !known && strings.HasPrefix(name, "__") && want != "" && want != "false":
				return false // "__support_xen" and its like are there only if true
			}
		}
	}
	return true
}

// hasTag reports whether tags, written "key=value", hold the one asked for as KEY=VALUE, as KEY.VALUE, which
// the reference calls the old form, or as the key of one without a value.
func hasTag(tags []string, want string) bool {
	if slices.Contains(tags, want) || slices.Contains(tags, want+"=") {
		return true
	}
	// A key and a value may hold dots too: each may be the one between them.
	for i, c := range want {
		if c == '.' && slices.Contains(tags, want[:i]+"="+want[i+1:]) {
			return true
		}
	}
	return false
}

// matchTime compares a time with a condition "OPERATOR:TIME". What is no condition matches nothing.
func matchTime(at, condition string) bool {
	op, when, _ := strings.Cut(condition, ":")
	got, err := time.Parse(time.RFC3339, at)
	if err != nil {
		return false
	}
	limit, err := time.Parse(time.RFC3339, when)
	if err != nil {
		if limit, err = time.Parse("2006-01-02 15:04:05", when); err != nil {
			return false
		}
	}
	order := got.Compare(limit)
	switch op {
	case "gt":
		return order > 0
	case "gte":
		return order >= 0
	case "lt":
		return order < 0
	case "lte":
		return order <= 0
	case "eq":
		return order == 0
	case "neq":
		return order != 0
	}
	return false
}

// sortBy sorts by one of the keys that the reference allows. found comes newest first, which is the
// default and the order among equals.
func sortBy(found []attributes, key, dir string) error {
	if dir != "" && dir != "asc" && dir != "desc" {
		return refuse(limits.URLFormat, "the sort_dir %s is neither asc nor desc", shown(dir))
	}
	switch key {
	case "", "created_at":
		if dir == "asc" {
			slices.Reverse(found)
		}
		return nil
	case "name", "container_format", "disk_format", "status", "id", "size":
	default:
		return refuse(limits.URLFormat, "images can't be sorted by %s", shown(key))
	}
	slices.SortStableFunc(found, func(a, b attributes) int {
		order := cmp.Compare(fmt.Sprint(a[key]), fmt.Sprint(b[key]))
		if dir != "asc" {
			order = -order
		}
		return order
	})
	return nil
}

// pageOf returns the images after the marker, up to the limit.
func pageOf(found []attributes, query url.Values) ([]attributes, error) {
	limit := defaultPage
	if v := query.Get("limit"); v != "" {
		n, err := strconv.ParseUint(v, 10, 31)
		if err != nil {
			return nil, refuse(limits.URLFormat, "the limit %s is no number", shown(v))
		}
		limit = int(n)
	}
	if marker := query.Get("marker"); marker != "" {
		at := slices.IndexFunc(found, func(a attributes) bool { return a["id"] == marker })
		if at < 0 {
			return nil, refuse(limits.ImageIDUnknown, "no image of this list has the marker %s", shown(marker))
		}
		found = found[at+1:]
	}
	// Never null: clients index into the array.
	return append([]attributes{}, found[:min(limit, len(found))]...), nil
}

// deleteImage is DELETE /v2/images/{image_id} (reference, 6.1.5). Its body, if any, is about backups of
// whole-server images, which are not made here.
func (s *Service) deleteImage(r request) (int, any, error) {
	err := s.state.remove(r.vars["image_id"], func(i image, ok bool) error {
		switch {
		case !ok || i.Owner != s.cfg.ProjectID:
			return answerWith(http.StatusNotFound, limits.ImageIDUnknown, "there is no image "+shown(r.vars["image_id"]))
		case i.Status == ims.StatusQueued || i.Status == ims.StatusSaving:
			return refuse(limits.ImageInCreation, "image %s is %s", i.ID, i.Status)
		}
		return nil
	})
	return http.StatusNoContent, nil, err
}
