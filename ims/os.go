package ims

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
)

// OSVersion is an operating system of the service's list.
type OSVersion struct {
	// Platform is its family: "Ubuntu".
	Platform string
	// Name is what os_version takes: "Ubuntu 22.04 server 64bit".
	Name string
	// Key is the service's key of it, mostly the same.
	Key string
	// Bits is 32 or 64, 0 where unknown.
	Bits int
	// Type is Linux, Windows or Other.
	Type string
}

// OSVersions lists the operating systems that the region supports (reference, 5.1.9), those with all the
// tags: "bms", "uefi" and others.
func (c *Client) OSVersions(ctx context.Context, tags ...string) ([]OSVersion, error) {
	k := call{op: "list the operating systems", method: http.MethodGet, path: "/v1/cloudimages/os_version"}
	if len(tags) > 0 {
		k.query = url.Values{"tag": tags}
	}
	var versions []OSVersion
	err := c.do(ctx, k, func(p []byte) (err error) {
		versions, err = decodeOSVersions(p)
		return err
	})
	return versions, err
}

// decodeOSVersions reads the list of platforms, which is the answer itself.
func decodeOSVersions(p []byte) ([]OSVersion, error) {
	var platforms []json.RawMessage
	if err := json.Unmarshal(p, &platforms); err != nil {
		return nil, err
	}
	versions := []OSVersion{}
	for _, raw := range platforms {
		var w struct {
			Platform text `json:"platform"`
			Versions objects[struct {
				Platform text   `json:"platform"`
				Key      text   `json:"os_version_key"`
				Name     text   `json:"os_version"`
				Bits     number `json:"os_bit"`
				Type     text   `json:"os_type"`
			}] `json:"version_list"`
		}
		if raw[0] != '{' {
			continue
		}
		if err := json.Unmarshal(raw, &w); err != nil {
			return nil, err
		}
		for _, v := range w.Versions {
			if v.Name == "" {
				continue
			}
			versions = append(versions, OSVersion{first(v.Platform, w.Platform), string(v.Name), first(v.Key, v.Name), count(v.Bits), string(v.Type)})
		}
	}
	return versions, nil
}
