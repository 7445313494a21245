package imageservice

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"imgferry/ims"
	"imgferry/limits"
)

func (i image) checkTagQuota() error {
	if len(i.Tags) > limits.MaxTags {
		return refuse(limits.TagQuotaReached, "%d tags are given, the most is %d", len(i.Tags), limits.MaxTags)
	}
	return nil
}

// pairOf splits a tag as it is listed, "key=value" or "key".
func pairOf(tag string) ims.Tag {
	key, value, _ := strings.Cut(tag, "=")
	return ims.Tag{Key: key, Value: value}
}

func (i image) tagPairs() []ims.Tag {
	pairs := make([]ims.Tag, len(i.Tags))
	for n, t := range i.Tags {
		pairs[n] = pairOf(t)
	}
	return pairs
}

// setTag adds a tag, or gives one another value.
func (i *image) setTag(p ims.Tag) error {
	if err := limits.Tag(p.Key, p.Value); err != nil {
		return err
	}
	at := slices.IndexFunc(i.Tags, func(t string) bool { return pairOf(t).Key == p.Key })
	if at >= 0 {
		i.Tags[at] = p.Key + "=" + p.Value
		return nil
	}
	i.Tags = append(i.Tags, p.Key+"="+p.Value)
	return i.checkTagQuota()
}

// dropTag removes a tag by its key, and by its value where there is one to compare.
func (i *image) dropTag(key string, value *string) bool {
	n := len(i.Tags)
	i.Tags = slices.DeleteFunc(i.Tags, func(t string) bool {
		p := pairOf(t)
		return p.Key == key && (value == nil || *value == "" || *value == p.Value)
	})
	return len(i.Tags) < n
}

// changeTags changes the tags of the caller's own image.
func (s *Service) changeTags(r request, change func(*image) error) error {
	return s.state.update(func(t tx) error {
		i, err := t.own(r, true)
		if err != nil {
			return err
		}
		i = i.clone()
		if err := change(&i); err != nil {
			return err
		}
		i.Updated = s.cfg.Now()
		return t.putImage(&i)
	})
}

// listImageTags is GET /v2/{project_id}/images/{image_id}/tags.
func (s *Service) listImageTags(r request) (int, any, error) {
	var tags []ims.Tag
	err := s.state.view(func(t tx) error {
		i, err := t.seen(r)
		tags = i.tagPairs()
		return err
	})
	return http.StatusOK, map[string]any{"tags": tags}, err
}

// addImageTag is POST /v2/{project_id}/images/{image_id}/tags.
func (s *Service) addImageTag(r request) (int, any, error) {
	var q struct {
		Tag ims.Tag `json:"tag"`
	}
	if err := r.decode(&q); err != nil {
		return 0, nil, err
	}
	return http.StatusNoContent, nil, s.changeTags(r, func(i *image) error { return i.setTag(q.Tag) })
}

// changeImageTags is POST /v2/{project_id}/images/{image_id}/tags/action.
func (s *Service) changeImageTags(r request) (int, any, error) {
	var q struct {
		Action string    `json:"action"`
		Tags   []ims.Tag `json:"tags"`
	}
	if err := r.decode(&q); err != nil {
		return 0, nil, err
	}
	if q.Action != "create" && q.Action != "delete" {
		return 0, nil, refuse(limits.RequestFormat, "the action is %s: it can be create or delete", shown(q.Action))
	}
	return http.StatusNoContent, nil, s.changeTags(r, func(i *image) error {
		for _, p := range q.Tags {
			if q.Action == "delete" {
				i.dropTag(p.Key, &p.Value)
			} else if err := i.setTag(p); err != nil {
				return err
			}
		}
		return nil
	})
}

// removeImageTag is DELETE /v2/{project_id}/images/{image_id}/tags/{key}.
func (s *Service) removeImageTag(r request) (int, any, error) {
	return http.StatusNoContent, nil, s.changeTags(r, func(i *image) error {
		if !i.dropTag(r.vars["key"], nil) {
			return absent(limits.TagInvalid, "image %s has no tag %s", i.ID, shown(r.vars["key"]))
		}
		return nil
	})
}

// removeImageTags is DELETE /v1/{project_id}/cloudimages/{image_id}/tags/delete.
func (s *Service) removeImageTags(r request) (int, any, error) {
	var q struct {
		Tags []ims.Tag `json:"tags"`
	}
	if err := r.decode(&q); err != nil {
		return 0, nil, err
	}
	return http.StatusNoContent, nil, s.changeTags(r, func(i *image) error {
		for _, p := range q.Tags {
			i.dropTag(p.Key, &p.Value)
		}
		return nil
	})
}

// putImageTag is PUT /v1/cloudimages/tags: one tag, in either form.
func (s *Service) putImageTag(r request) (int, any, error) {
	var q struct {
		ImageID  string   `json:"image_id"`
		Tag      string   `json:"tag"`
		ImageTag *ims.Tag `json:"image_tag"`
	}
	if err := r.decode(&q); err != nil {
		return 0, nil, err
	}
	if (q.Tag == "") == (q.ImageTag == nil) {
		return 0, nil, refuse(limits.TagInvalid, "give either tag or image_tag")
	}
	if q.ImageTag == nil {
		key, value := limits.SplitTag(q.Tag)
		q.ImageTag = &ims.Tag{Key: key, Value: value}
	}
	r.vars["image_id"] = q.ImageID
	return http.StatusNoContent, nil, s.changeTags(r, func(i *image) error { return i.setTag(*q.ImageTag) })
}

// addNativeTag is PUT /v2/images/{image_id}/tags/{tag}.
func (s *Service) addNativeTag(r request) (int, any, error) {
	tag := r.vars["tag"]
	if err := limits.NativeTag(tag); err != nil {
		return 0, nil, err
	}
	return http.StatusNoContent, nil, s.changeTags(r, func(i *image) error {
		if slices.Contains(i.Tags, tag) {
			return nil
		}
		i.Tags = append(i.Tags, tag)
		return i.checkTagQuota()
	})
}

// removeNativeTag is DELETE /v2/images/{image_id}/tags/{tag}.
func (s *Service) removeNativeTag(r request) (int, any, error) {
	return http.StatusNoContent, nil, s.changeTags(r, func(i *image) error {
		at := slices.Index(i.Tags, r.vars["tag"])
		if at < 0 {
			return absent(limits.TagInvalid, "image %s has no tag %s", i.ID, shown(r.vars["tag"]))
		}
		i.Tags = slices.Delete(i.Tags, at, at+1)
		return nil
	})
}

// listAllTags is GET /v1/cloudimages/tags: the tags of all images that a query asks for, each once.
func (s *Service) listAllTags(r request) (int, any, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return 0, nil, refuse(limits.URLFormat, "the query is malformed")
	}
	found, err := s.query(r, query)
	if err != nil {
		return 0, nil, err
	}
	all := []string{}
	for _, a := range found {
		all = append(all, a["tags"].([]string)...)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	size, err := queryNumber(query, "limit", len(all))
	if err != nil {
		return 0, nil, err
	}
	page, err := queryNumber(query, "page", 1)
	if err != nil {
		return 0, nil, err
	}
	from := min(max(page-1, 0)*size, len(all))
	return http.StatusOK, map[string]any{"tags": all[from:min(from+size, len(all))]}, nil
}

func queryNumber(query url.Values, name string, otherwise int) (int, error) {
	v := query.Get(name)
	if v == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseUint(v, 10, 20)
	if err != nil {
		return 0, refuse(limits.URLFormat, "%s is %s, which is no number", name, shown(v))
	}
	return int(n), nil
}

// tagValues is a key and the values it has, or may have.
type tagValues struct {
	Key    string   `json:"key"`
	Values []string `json:"values"`
}

// listTagKeys is GET /v2/{project_id}/images/tags: every key of the project's images, with its values.
func (s *Service) listTagKeys(r request) (int, any, error) {
	found, err := s.query(r, nil)
	if err != nil {
		return 0, nil, err
	}
	values := make(map[string][]string)
	for _, a := range found {
		for _, t := range a["tags"].([]string) {
			p := pairOf(t)
			values[p.Key] = append(values[p.Key], p.Value)
		}
	}
	all := []tagValues{}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		slices.Sort(values[key])
		all = append(all, tagValues{key, slices.Compact(values[key])})
	}
	return http.StatusOK, map[string]any{"tags": all}, nil
}

// looseNumber is an integer that clients send as such or as a string.
type looseNumber int

// UnmarshalJSON implements json.Unmarshaler.
func (n *looseNumber) UnmarshalJSON(p []byte) error {
	v, err := strconv.Atoi(strings.Trim(string(p), `"`))
	*n = looseNumber(v)
	if err != nil {
		return &json.UnmarshalTypeError{Value: string(p)}
	}
	return nil
}

// findByTags is POST /v2/{project_id}/images/resource_instances/action: counts or lists images by their tags.
func (s *Service) findByTags(r request) (int, any, error) {
	var q struct {
		Action     string       `json:"action"`
		Tags       []tagValues  `json:"tags"`
		TagsAny    []tagValues  `json:"tags_any"`
		NotTags    []tagValues  `json:"not_tags"`
		NotTagsAny []tagValues  `json:"not_tags_any"`
		Untagged   bool         `json:"without_any_tag"`
		Matches    []ims.Tag    `json:"matches"`
		Limit      *looseNumber `json:"limit"`
		Offset     looseNumber  `json:"offset"`
	}
	if err := r.decode(&q); err != nil {
		return 0, nil, err
	}
	if q.Action != "filter" && q.Action != "count" {
		return 0, nil, refuse(limits.RequestFormat, "the action is %s: it can be filter or count", shown(q.Action))
	}
	found, err := s.query(r, nil)
	if err != nil {
		return 0, nil, err
	}
	type detail struct {
		Status string `json:"status"`
	}
	type resource struct {
		ID     string    `json:"resource_id"`
		Detail detail    `json:"resource_detail"`
		Tags   []ims.Tag `json:"tags"`
		Name   string    `json:"resource_name"`
	}
	all := []resource{}
	for _, a := range found {
		tags := image{Tags: a["tags"].([]string)}.tagPairs()
		has := func(v tagValues) bool { return v.in(tags) }
		name := a["name"].(string)
		fits := !slices.ContainsFunc(q.Tags, func(v tagValues) bool { return !has(v) }) &&
			(len(q.TagsAny) == 0 || slices.ContainsFunc(q.TagsAny, has)) &&
			(len(q.NotTags) == 0 || slices.ContainsFunc(q.NotTags, func(v tagValues) bool { return !has(v) })) &&
			!slices.ContainsFunc(q.NotTagsAny, has) && (!q.Untagged || len(tags) == 0) &&
			!slices.ContainsFunc(q.Matches, func(m ims.Tag) bool {
				return m.Key == "resource_name" && !strings.Contains(strings.ToLower(name), strings.ToLower(m.Value))
			})
		if fits {
			all = append(all, resource{a["id"].(string), detail{a["status"].(string)}, tags, name})
		}
	}
	answer := map[string]any{"total_count": len(all)}
	if q.Action == "filter" {
		slices.SortStableFunc(all, func(a, b resource) int { return cmp.Compare(a.Name, b.Name) })
		size := looseNumber(len(all))
		if q.Limit != nil {
			size = *q.Limit
		}
		if size < 0 || q.Offset < 0 {
			return 0, nil, refuse(limits.RequestFormat, "limit and offset are not below 0")
		}
		from := min(int(q.Offset), len(all))
		answer["resources"] = all[from:min(from+int(size), len(all))]
	}
	return http.StatusOK, answer, nil
}

// in reports whether tags have the key with one of the values; no values stand for any.
func (v tagValues) in(tags []ims.Tag) bool {
	return slices.ContainsFunc(tags, func(t ims.Tag) bool {
		return t.Key == v.Key && (len(v.Values) == 0 || slices.Contains(v.Values, t.Value))
	})
}
