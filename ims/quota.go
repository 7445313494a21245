package ims

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
)

// Quota is how much of a resource the project has and may have in the region.
type Quota struct {
	// Type is the resource: "image".
	Type string
	// Used of Limit; the latter can be set between Min and Max. -1 is no limit.
	Used, Limit, Min, Max int
}

// Quotas returns the project's quotas (reference, 5.4.1).
func (c *Client) Quotas(ctx context.Context) ([]Quota, error) {
	var quotas []Quota
	err := c.do(ctx, call{op: "query the quota", method: http.MethodGet, path: "/v1/cloudimages/quota"}, func(p []byte) (err error) {
		quotas, err = decodeQuotas(p)
		return err
	})
	return quotas, err
}

func decodeQuotas(p []byte) ([]Quota, error) {
	var w struct {
		Quotas objects[struct {
			Resources objects[struct {
				Type  text   `json:"type"`
				Used  number `json:"used"`
				Quota number `json:"quota"`
				Min   number `json:"min"`
				Max   number `json:"max"`
			}] `json:"resources"`
		}] `json:"quotas"`
	}
	if err := json.Unmarshal(p, &w); err != nil {
		return nil, err
	}
	if len(w.Quotas) == 0 {
		return nil, errors.New("the answer holds no quotas")
	}
	var quotas []Quota
	for _, group := range w.Quotas {
		for _, r := range group.Resources {
			quotas = append(quotas, Quota{string(r.Type), bounded(r.Used), bounded(r.Quota), bounded(r.Min), bounded(r.Max)})
		}
	}
	return quotas, nil
}

// bounded makes a whole number of n; those below 0 are -1, which the service writes for no limit.
func bounded(n number) int { return int(min(max(n, -1), math.MaxInt32)) }
