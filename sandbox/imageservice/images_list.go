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

// defaultPage and nativePage are how many images a list holds that asks for no number, of the service's own
// call and of the native one (reference, 5.1.1 and 6.1.1).
const defaultPage, nativePage = 500, 25

// listImages is GET /v2/cloudimages (reference, 5.1.1).
func (s *Service) listImages(r request) (int, any, error) {
	page, _, err := s.page(r, defaultPage)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, map[string]any{"images": page}, nil
}

// listNative is GET /v2/images (reference, 6.1.1): the same, with links to the first and the next page.
func (s *Service) listNative(r request) (int, any, error) {
	page, next, err := s.page(r, nativePage)
	if err != nil {
		return 0, nil, err
	}
	link := func(marker string) string {
		query := r.URL.Query()
		query.Del("marker")
		if marker != "" {
			query.Set("marker", marker)
		}
		if len(query) == 0 {
			return "/v2/images"
		}
		return "/v2/images?" + query.Encode()
	}
	answer := map[string]any{"images": page, "first": link(""), "schema": "/v2/schemas/images"}
	if next != "" {
		answer["next"] = link(next)
	}
	return http.StatusOK, answer, nil
}

// page finds the images that a query asks for, and the marker of the next page or "".
func (s *Service) page(r request, size int) (page []attributes, next string, err error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, "", refuse(limits.URLFormat, "the query is malformed")
	}
	found, err := s.query(r, query)
	if err != nil {
		return nil, "", err
	}
	if err := sortAll(found, query); err != nil {
		return nil, "", err
	}
	return pageOf(found, query, size)
}

// query returns the images that r's caller sees and that a query asks for, newest first.
func (s *Service) query(r request, query url.Values) ([]attributes, error) {
	if err := checkMemberStatus(query["member_status"]); err != nil {
		return nil, err
	}
	if err := checkEnums(query); err != nil {
		return nil, err
	}
	all, err := s.imagesOf(r.region)
	if err != nil {
		return nil, err
	}
	var found []attributes
	for _, i := range all {
		if !i.listedFor(r.project, query) {
			continue
		}
		if a := i.attributes(r.project); a.match(query) {
			found = append(found, a)
		}
	}
	return found, nil
}

func (s *Service) imagesOf(region string) (all []image, err error) {
	err = s.state.view(func(t tx) error {
		all, err = t.images(region)
		return err
	})
	return all, err
}

// listedFor reports whether an image is in the lists of a project: its own, but for deleted ones that it
// doesn't ask for, and those of others that it has accepted, or whose member_status it asks for.
func (i image) listedFor(project string, query url.Values) bool {
	if i.Status == ims.StatusDeleted {
		return i.Owner == project && slices.Contains(query["status"], ims.StatusDeleted)
	}
	if i.Owner == project {
		return true
	}
	m := i.member(project)
	if m == nil {
		return false
	}
	switch want := query.Get("member_status"); want {
	case "all":
		return true
	case "":
		return m.Status == "accepted"
	default:
		return m.Status == want
	}
}

// member returns a project's membership, or nil.
func (i *image) member(project string) *member {
	at := slices.IndexFunc(i.Members, func(m member) bool { return m.Project == project })
	if at < 0 {
		return nil
	}
	return &i.Members[at]
}

// sees reports whether a project may look at an image: its owner, and whoever it is shared with, whatever
// they made of it.
func (i *image) sees(project string) bool {
	return i.Status != ims.StatusDeleted && (i.Owner == project || i.member(project) != nil)
}

// checkMemberStatus checks the filter for images that others share with the project.
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

// enums are the values that filters may have which take only some (reference, 5.1.1).
var enums = map[string][]string{
	"visibility":       {"public", "private", "shared"},
	"__imagetype":      {"gold", "private", "shared", "market"},
	"status":           {ims.StatusQueued, ims.StatusSaving, ims.StatusDeleted, ims.StatusKilled, ims.StatusActive},
	"protected":        {"true", "false"},
	"__whole_image":    {"true", "false"},
	"virtual_env_type": {"FusionCompute", "Ironic", "DataImage", "IsoImage"},
	"__os_type":        {"Linux", "Windows", "Other"},
}

func checkEnums(query url.Values) error {
	for name, allowed := range enums {
		for _, v := range query[name] {
			if v != "" && !slices.ContainsFunc(allowed, func(a string) bool { return strings.EqualFold(a, v) }) {
				return refuse(limits.URLFormat, "%s is %s: it can be %s", name, shown(v), strings.Join(allowed, ", "))
			}
		}
	}
	for _, name := range []string{"min_ram", "min_disk"} {
		for _, v := range query[name] {
			if _, err := strconv.ParseUint(v, 10, 31); err != nil && v != "" {
				return refuse(limits.URLFormat, "%s is %s, which is no number", name, shown(v))
			}
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
			case name == "id" && strings.Contains(want, ","): // several at once
				if !slices.Contains(strings.Split(want, ","), a["id"].(string)) {
					return false
				}
			case known && booleans[name]:
				if !strings.EqualFold(fmt.Sprint(got), want) {
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

// booleans are attributes that clients spell True and true.
var booleans = map[string]bool{"protected": true, "__whole_image": true, "__isregistered": true, "__support_kvm": true}

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

// sortAll sorts as a query asks: by sort_key and sort_dir, or by OpenStack's sort=KEY:DIR,KEY:DIR.
func sortAll(found []attributes, query url.Values) error {
	if !query.Has("sort") {
		return sortBy(found, query.Get("sort_key"), query.Get("sort_dir"))
	}
	keys := strings.Split(query.Get("sort"), ",")
	for _, word := range slices.Backward(keys) { // each keeps the order of those that count less
		key, dir, _ := strings.Cut(word, ":")
		if err := sortBy(found, key, dir); err != nil {
			return err
		}
	}
	return nil
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

// pageOf returns the images after the marker, up to the limit, and the marker of the next page or "".
func pageOf(found []attributes, query url.Values, size int) (page []attributes, next string, err error) {
	if v := query.Get("limit"); v != "" {
		n, err := strconv.ParseUint(v, 10, 31)
		if err != nil {
			return nil, "", refuse(limits.URLFormat, "the limit %s is no number", shown(v))
		}
		size = int(n)
	}
	if marker := query.Get("marker"); marker != "" {
		at := slices.IndexFunc(found, func(a attributes) bool { return a["id"] == marker })
		if at < 0 {
			return nil, "", refuse(limits.ImageIDUnknown, "no image of this list has the marker %s", shown(marker))
		}
		found = found[at+1:]
	}
	// Never null: clients index into the array.
	page = append([]attributes{}, found[:min(size, len(found))]...)
	if len(page) < len(found) && len(page) > 0 {
		next = page[len(page)-1]["id"].(string)
	}
	return page, next, nil
}
