package imageservice

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"imgferry/ims"
	"imgferry/limits"
)

// v1Time is how the abandoned version writes times.
const v1Time = "2006-01-02T15:04:05.000000"

// deleteV1 is DELETE /v1.1/images/{image_id} (reference, 6.1.7). The image stays, with the status deleted.
func (s *Service) deleteV1(r request) (int, any, error) {
	return http.StatusNoContent, nil, s.remove(r)
}

// listV1 is GET /v1.1/images/detail (reference, 6.1.9).
func (s *Service) listV1(r request) (int, any, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return 0, nil, refuse(limits.URLFormat, "the query is malformed")
	}
	fits, err := filterV1(query)
	if err != nil {
		return 0, nil, err
	}
	all, err := s.imagesOf(r.region)
	if err != nil {
		return 0, nil, err
	}
	found := []map[string]any{}
	for _, i := range all {
		if i.listedFor(r.project, query) && fits(i) {
			found = append(found, i.v1())
		}
	}
	return http.StatusOK, map[string]any{"images": found}, nil
}

// filterV1 returns what a query of the abandoned version asks for.
func filterV1(query url.Values) (func(image) bool, error) {
	low, high := int64(0), int64(1<<62)
	for name, to := range map[string]*int64{"size_min": &low, "size_max": &high} {
		if v := query.Get(name); v != "" {
			n, err := strconv.ParseInt(v, 10, 63)
			if err != nil {
				return nil, refuse(limits.URLFormat, "%s is %s, which is no number", name, shown(v))
			}
			*to = n
		}
	}
	var since time.Time
	if v := query.Get("changes-since"); v != "" {
		var err error
		if since, err = time.Parse(time.RFC3339, v); err != nil {
			if since, err = time.Parse("2006-01-02T15:04:05", v); err != nil {
				return nil, refuse(limits.URLFormat, "changes-since is %s, which is no time", shown(v))
			}
		}
	}
	is := func(name, got string) bool { return query.Get(name) == "" || query.Get(name) == got }
	return func(i image) bool {
		return is("name", i.Name) && is("disk_format", i.DiskFormat) && is("container_format", "bare") && is("status", i.Status) &&
			i.FileSize >= low && i.FileSize <= high && !i.Updated.Before(since)
	}, nil
}

// v1 is an image as the abandoned version has it.
func (i image) v1() map[string]any {
	m := map[string]any{
		"id": i.ID, "name": i.Name, "status": i.Status, "owner": i.Owner, "container_format": "bare", "disk_format": i.DiskFormat,
		"deleted": i.Status == ims.StatusDeleted, "protected": i.Protected, "is_public": false, "min_ram": i.MinRAM, "min_disk": i.MinDisk,
		"size": i.FileSize, "virtual_size": i.virtualSize(), "checksum": i.attributes(i.Owner)["checksum"],
		"created_at": i.Created.UTC().Format(v1Time), "updated_at": i.Updated.UTC().Format(v1Time), "deleted_at": nil, "properties": i.properties(),
	}
	if !i.Deleted.IsZero() {
		m["deleted_at"] = i.Deleted.UTC().Format(v1Time)
	}
	return m
}

// properties are the attributes that only this service has.
func (i image) properties() map[string]any {
	p := make(map[string]any)
	for name, v := range i.attributes(i.Owner) {
		if strings.HasPrefix(name, "__") || i.Extra[name] != "" {
			p[name] = v
		}
	}
	return p
}

// headV1 is HEAD /v1/images/{image_id} (reference, 6.1.8): all of it in the header.
func (s *Service) headV1(r request) (int, any, error) {
	i, ok, err := s.state.image(r.vars["image_id"])
	if err != nil {
		return 0, nil, err
	}
	if !ok || i.Region != r.region || i.Owner != r.project && !i.sees(r.project) {
		return 0, nil, absent(limits.ImageIDUnknown, "there is no image %s", shown(r.vars["image_id"]))
	}
	h := http.Header{"Content-Type": {"text/html; charset=UTF-8"}, "Content-Length": {"0"}}
	for name, v := range i.v1() {
		if name == "properties" {
			continue
		}
		var text string
		switch v := v.(type) {
		case string:
			text = v
		case bool: // as Python writes them
			text = map[bool]string{false: "False", true: "True"}[v]
		case int:
			text = strconv.Itoa(v)
		case int64:
			text = strconv.FormatInt(v, 10)
		default:
			continue
		}
		h.Set("X-Image-Meta-"+name, headerText(text))
	}
	for name, v := range i.properties() {
		if text, ok := v.(string); ok {
			h.Set("X-Image-Meta-Property-"+name, headerText(text))
		}
	}
	h.Set("Etag", h.Get("X-Image-Meta-Checksum"))
	return http.StatusOK, download{header: h}, nil
}

// headerText is a text as a header can hold it.
func headerText(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
