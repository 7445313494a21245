package imageservice

import (
	"net/http"
	"slices"
	"strings"
)

// handler answers a verified request. A nil answer has no body.
type handler func(request) (status int, answer any, err error)

// route is one call of the reference.
type route struct {
	method  string
	pattern []string // segments of the path; "{name}" stands for any one
	handle  handler
}

// table returns the calls there are.
func (s *Service) table() []route {
	call := func(method, path string, h handler) route {
		return route{method, strings.Split(path, "/"), h}
	}
	return []route{
		call(http.MethodPost, "/v2/cloudimages/quickimport/action", s.quickImport),
		call(http.MethodGet, "/v2/cloudimages", s.listImages),
		call(http.MethodDelete, "/v2/images/{image_id}", s.deleteImage),
		call(http.MethodGet, "/v1/{project_id}/jobs/{job_id}", s.showJob),
		call(http.MethodGet, "/v1/cloudimages/job/{job_id}", s.showJob),
	}
}

// find returns the handler for r, and what its path says for the pattern's names.
func (s *Service) find(w http.ResponseWriter, r *http.Request) (handler, map[string]string, error) {
	segments := strings.Split(r.URL.Path, "/")
	var allowed []string
	for _, rt := range s.routes {
		vars, ok := match(rt.pattern, segments)
		if !ok {
			continue
		}
		if rt.method == r.Method {
			return rt.handle, vars, nil
		}
		allowed = append(allowed, rt.method)
	}
	if len(allowed) > 0 {
		slices.Sort(allowed)
		w.Header().Set("Allow", strings.Join(slices.Compact(allowed), ", "))
		return nil, nil, answerWith(http.StatusMethodNotAllowed, gatewayUnknown, "The method is not allowed for this API.")
	}
	return nil, nil, answerWith(http.StatusNotFound, gatewayUnknown, "The API does not exist.")
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
