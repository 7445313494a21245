package ims

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"
)

const membersPath = "/v1/cloudimages/members"

// AddMembers starts to share images with projects (reference, 5.2.2) and returns the id of the job, whose
// Results tell of each pair.
func (c *Client) AddMembers(ctx context.Context, images, projects []string) (jobID string, err error) {
	return c.start(ctx, call{op: "share the images", method: http.MethodPost, path: membersPath}, membersRequest{images, projects})
}

// RemoveMembers starts to end the sharing of images with projects (reference, 5.2.1) and returns the id of
// the job, whose Results tell of each pair.
func (c *Client) RemoveMembers(ctx context.Context, images, projects []string) (jobID string, err error) {
	return c.start(ctx, call{op: "end the sharing of the images", method: http.MethodDelete, path: membersPath}, membersRequest{images, projects})
}

// DecideMembers starts to accept or reject images that others share with the client's project (reference,
// 5.2.3) and returns the id of the job. decision is MemberAccepted or MemberRejected; vaultID is where the
// backups of whole servers go, else "".
func (c *Client) DecideMembers(ctx context.Context, images []string, decision, vaultID string) (jobID string, err error) {
	// Twice the same decision is that decision.
	k := call{op: "decide on the shared images", method: http.MethodPut, path: membersPath, harmless: true}
	return c.start(ctx, k, decisionRequest{images, c.cfg.ProjectID, decision, vaultID})
}

// Member is a project that an image is shared with.
type Member struct {
	ImageID, ProjectID string
	// Status is MemberPending, MemberAccepted or MemberRejected.
	Status string
	// Created and Updated are UTC, zero where unknown.
	Created, Updated time.Time
}

// Members lists the projects that an image is shared with, by the native call (reference, 6.3.4).
func (c *Client) Members(ctx context.Context, imageID string) ([]Member, error) {
	path, err := imagePath("/v2/images/", imageID, "/members")
	if err != nil {
		return nil, err
	}
	var members []Member
	err = c.do(ctx, call{op: "list the members of image " + imageID, method: http.MethodGet, path: path}, func(p []byte) (err error) {
		members, err = decodeMembers(p)
		return err
	})
	return members, err
}

func decodeMembers(p []byte) ([]Member, error) {
	var w struct {
		Members *objects[struct {
			ImageID   text `json:"image_id"`
			MemberID  text `json:"member_id"`
			Status    text `json:"status"`
			CreatedAt text `json:"created_at"`
			UpdatedAt text `json:"updated_at"`
		}] `json:"members"`
	}
	if err := json.Unmarshal(p, &w); err != nil {
		return nil, err
	}
	if w.Members == nil {
		return nil, errors.New("the answer holds no list of members")
	}
	members := make([]Member, len(*w.Members))
	for i, m := range *w.Members {
		members[i] = Member{string(m.ImageID), string(m.MemberID), string(m.Status), parseTime(string(m.CreatedAt)), parseTime(string(m.UpdatedAt))}
	}
	return members, nil
}
