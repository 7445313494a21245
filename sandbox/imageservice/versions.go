package imageservice

import "net/http"

// versions are the versions of the native interface (reference, 6.4.1), and the path that each is under.
var versions = []struct{ id, status, path string }{
	{"v2.2", "CURRENT", "/v2/"}, {"v2.1", "SUPPORTED", "/v2/"}, {"v2.0", "SUPPORTED", "/v2/"},
	{"v1.1", "DEPRECATED", "/v1/"}, {"v1.0", "DEPRECATED", "/v1/"},
}

type versionLink struct {
	Href string `json:"href"`
	Rel  string `json:"rel"`
}

type versionAnswer struct {
	Status string        `json:"status"`
	ID     string        `json:"id"`
	Links  []versionLink `json:"links"`
}

// listVersions is GET / (reference, 6.4.1).
func (s *Service) listVersions(r request) (int, any, error) {
	return http.StatusMultipleChoices, map[string]any{"versions": versionsOf(r, func(string) bool { return true })}, nil
}

// showVersion is GET /{api_version} (reference, 6.4.2). v1 and v2 stand for all of theirs: clients that look
// for a version ask there.
func (s *Service) showVersion(r request) (int, any, error) {
	want := r.vars["api_version"]
	found := versionsOf(r, func(id string) bool { return id == want || len(want) == 2 && id[:2] == want })
	if len(found) == 0 {
		return 0, nil, absent(gatewayUnknown, "The API does not exist.")
	}
	return http.StatusMultipleChoices, map[string]any{"versions": found}, nil
}

func versionsOf(r request, fits func(id string) bool) []versionAnswer {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	all := []versionAnswer{}
	for _, v := range versions {
		if fits(v.id) {
			all = append(all, versionAnswer{v.status, v.id, []versionLink{{scheme + "://" + r.Host + v.path, "self"}}})
		}
	}
	return all
}
