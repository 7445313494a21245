package imageservice

import (
	"net/http"
	"slices"
	"strings"
)

// handler answers a request of a known caller. A nil answer has no body.
type handler func(request) (status int, answer any, err error)

// route is one call of the reference.
type route struct {
	method   string
	path     string   // as the reference writes it
	segments []string // "{name}" stands for any one
	handle   handler
	open     bool // anybody may call
	streams  bool // the body is an image file, not JSON
}

// table returns the calls there are, those with fixed segments before those with names in their place.
func (s *Service) table() []route {
	var all []route
	add := func(method, path string, h handler) *route {
		all = append(all, route{method: method, path: path, segments: strings.Split(path, "/"), handle: h})
		return &all[len(all)-1]
	}
	const (
		get, post, put, del, patch = http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch

		// The calls of v2.1 do as those of v1 and v2, and ask for a confirmation by other means in the cloud.
		safe = "/v2.1"
	)
	// Reference, chapter 5.
	add(get, "/v2/cloudimages", s.listImages)
	add(post, "/v2/cloudimages/action", s.createImage)
	add(post, "/v2/cloudimages/quickimport/action", s.quickImport)
	add(patch, "/v2/cloudimages/{image_id}", s.patchImage)
	add(post, "/v1/cloudimages/dataimages/action", s.createDataImage)
	add(post, "/v1/cloudimages/wholeimages/action", s.createWholeImage)
	add(put, "/v1/cloudimages/{image_id}/upload", s.registerImage)
	add(post, "/v1/cloudimages/{image_id}/file", s.exportImage)
	add(get, "/v1/cloudimages/os_version", s.listOSVersions)
	add(post, "/v1/cloudimages/members", s.addMembers)
	add(del, "/v1/cloudimages/members", s.removeMembers)
	add(put, "/v1/cloudimages/members", s.updateMembers)
	add(post, "/v1/cloudimages/{image_id}/copy", s.copyImage)
	add(post, "/v1/cloudimages/{image_id}/cross_region_copy", s.copyImageAway)
	add(get, "/v1/cloudimages/quota", s.showQuota)
	add(get, "/v1/cloudimages/tags", s.listAllTags)
	add(put, "/v1/cloudimages/tags", s.putImageTag)
	add(get, "/v1/cloudimages/job/{job_id}", s.showJob)
	add(get, "/v1/{project_id}/jobs/{job_id}", s.showJob)

	// Chapter 6.
	add(get, "/v2/images", s.listNative)
	add(post, "/v2/images", s.createMetadata)
	add(get, "/v2/images/{image_id}", s.showNative)
	add(patch, "/v2/images/{image_id}", s.patchNative)
	add(del, "/v2/images/{image_id}", s.deleteImage)
	add(put, "/v2/images/{image_id}/file", s.uploadFile).streams = true
	add(get, "/v2/images/{image_id}/file", s.downloadFile)
	add(post, "/v2/images/{image_id}/members", s.addMember)
	add(get, "/v2/images/{image_id}/members", s.listMembers)
	add(get, "/v2/images/{image_id}/members/{member_id}", s.showMember)
	add(put, "/v2/images/{image_id}/members/{member_id}", s.updateMember)
	add(del, "/v2/images/{image_id}/members/{member_id}", s.removeMember)
	add(put, "/v2/images/{image_id}/tags/{tag}", s.addNativeTag)
	add(del, "/v2/images/{image_id}/tags/{tag}", s.removeNativeTag)
	for name, schema := range schemas {
		add(get, "/v2/schemas/"+name, func(request) (int, any, error) { return http.StatusOK, schema, nil })
	}
	add(del, "/v1.1/images/{image_id}", s.deleteV1)
	add(get, "/v1.1/images/detail", s.listV1)
	add(http.MethodHead, "/v1/images/{image_id}", s.headV1)
	add(get, "/", s.listVersions).open = true
	add(get, "/versions", s.listVersions).open = true
	add(get, "/{api_version}", s.showVersion).open = true
	add(get, "/{api_version}/", s.showVersion).open = true

	// What clients call besides.
	add(post, safe+"/cloudimages/quickimport/action", s.quickImport)
	add(post, safe+"/cloudimages/action", s.createImage)
	add(post, safe+"/cloudimages/dataimages/action", s.createDataImage)
	add(post, safe+"/cloudimages/{image_id}/file", s.exportImage)
	add(post, safe+"/cloudimages/{image_id}/copy", s.copyImage)
	add(get, "/v2/{project_id}/images/tags", s.listTagKeys)
	add(post, "/v2/{project_id}/images/resource_instances/action", s.findByTags)
	add(get, "/v2/{project_id}/images/{image_id}/tags", s.listImageTags)
	add(post, "/v2/{project_id}/images/{image_id}/tags", s.addImageTag)
	add(post, "/v2/{project_id}/images/{image_id}/tags/action", s.changeImageTags)
	add(del, "/v2/{project_id}/images/{image_id}/tags/{key}", s.removeImageTag)
	add(del, "/v1/{project_id}/cloudimages/{image_id}/tags/delete", s.removeImageTags)
	add(get, "/v1/{project_id}/cloudimages/{image_id}/members", s.listMembers)
	add(get, "/v1/{project_id}/cloudimages/{image_id}/members/{member_id}", s.showMember)
	return all
}

// Route is a call that the service answers.
type Route struct{ Method, Path string }

// Routes lists the calls, paths as the reference writes them.
func (s *Service) Routes() []Route {
	var all []Route
	for _, rt := range s.routes {
		all = append(all, Route{rt.method, rt.path})
	}
	return all
}

// find returns the route for r, and what its path says for the route's names.
func (s *Service) find(w http.ResponseWriter, r *http.Request) (route, map[string]string, error) {
	segments := strings.Split(r.URL.Path, "/")
	if len(segments) > 1 {
		segments[1] = strings.ToLower(segments[1]) // the reference writes /V2 once (6.3.5)
	}
	var allowed []string
	for _, rt := range s.routes {
		vars, ok := match(rt.segments, segments)
		if !ok {
			continue
		}
		if rt.method == r.Method {
			return rt, vars, nil
		}
		allowed = append(allowed, rt.method)
	}
	if len(allowed) > 0 {
		slices.Sort(allowed)
		w.Header().Set("Allow", strings.Join(slices.Compact(allowed), ", "))
		return route{}, nil, answerWith(http.StatusMethodNotAllowed, gatewayUnknown, "The method is not allowed for this API.")
	}
	return route{}, nil, answerWith(http.StatusNotFound, gatewayUnknown, "The API does not exist.")
}

func match(pattern, segments []string) (map[string]string, bool) {
	if len(pattern) != len(segments) {
		return nil, false
	}
	vars := make(map[string]string)
	for i, p := range pattern {
		switch {
		case strings.HasPrefix(p, "{") && segments[i] != "":
			vars[p[1:len(p)-1]] = segments[i]
		case p != segments[i]:
			return nil, false
		}
	}
	return vars, true
}
