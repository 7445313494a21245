package ims

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"imgferry/limits"
)

// tagsRequest adds or removes tags (newer API: POST .../tags and .../tags/action).
type tagsRequest struct {
	Action string `json:"action,omitempty"` // create, which also changes; or delete
	One    *Tag   `json:"tag,omitempty"`
	Tags   []Tag  `json:"tags,omitempty"`
}

func (r tagsRequest) Check() error {
	if r.One != nil {
		return limits.Tag(r.One.Key, r.One.Value)
	}
	if len(r.Tags) == 0 {
		return limits.Tag("", "")
	}
	return checkTags(nil, r.Tags)
}

// tagsPath returns the path of the tags of an image.
func (c *Client) tagsPath(imageID, after string) (string, error) {
	return imagePath("/v2/"+c.cfg.ProjectID+"/images/", imageID, "/tags"+after)
}

// ImageTags lists the tags of an image.
func (c *Client) ImageTags(ctx context.Context, imageID string) ([]Tag, error) {
	path, err := c.tagsPath(imageID, "")
	if err != nil {
		return nil, err
	}
	var tags []Tag
	err = c.do(ctx, call{op: "list the tags of image " + imageID, method: http.MethodGet, path: path}, func(p []byte) error {
		all, err := decodeTags(p)
		tags = make([]Tag, 0, len(all))
		for _, t := range all {
			tags = append(tags, Tag{t.Key, t.Value})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return tags, nil
}

// AddTag adds one tag to an image, or changes the value of the one with that key.
func (c *Client) AddTag(ctx context.Context, imageID string, t Tag) error {
	path, err := c.tagsPath(imageID, "")
	if err != nil {
		return err
	}
	k := call{op: "tag image " + imageID, method: http.MethodPost, path: path, harmless: true}
	return c.change(ctx, k, tagsRequest{One: &t}, nothing)
}

// AddTags adds tags to an image, or changes the values of those with their keys.
func (c *Client) AddTags(ctx context.Context, imageID string, tags ...Tag) error {
	path, err := c.tagsPath(imageID, "/action")
	if err != nil {
		return err
	}
	k := call{op: "tag image " + imageID, method: http.MethodPost, path: path, harmless: true}
	return c.change(ctx, k, tagsRequest{Action: "create", Tags: tags}, nothing)
}

// RemoveTags removes tags from an image, all at once.
func (c *Client) RemoveTags(ctx context.Context, imageID string, tags ...Tag) error {
	path, err := c.tagsPath(imageID, "/action")
	if err != nil {
		return err
	}
	return c.change(ctx, call{op: "remove tags of image " + imageID, method: http.MethodPost, path: path}, tagsRequest{Action: "delete", Tags: tags}, nothing)
}

// RemoveTag removes the tag with that key from an image. The error matches ErrNotFound if there is none.
func (c *Client) RemoveTag(ctx context.Context, imageID, key string) error {
	if err := limits.Tag(key, ""); err != nil {
		return err
	}
	path, err := c.tagsPath(imageID, "/"+key)
	if err != nil {
		return err
	}
	return c.do(ctx, call{op: "remove a tag of image " + imageID, method: http.MethodDelete, path: path}, nothing)
}

// AddNativeTag adds a tag of the native form, "key" or "key=value", to an image.
func (c *Client) AddNativeTag(ctx context.Context, imageID, tag string) error {
	path, err := nativeTagPath(imageID, tag)
	if err != nil {
		return err
	}
	return c.do(ctx, call{op: "tag image " + imageID, method: http.MethodPut, path: path, harmless: true}, nothing)
}

// RemoveNativeTag removes a tag of the native form from an image. The error matches ErrNotFound if there is
// none.
func (c *Client) RemoveNativeTag(ctx context.Context, imageID, tag string) error {
	path, err := nativeTagPath(imageID, tag)
	if err != nil {
		return err
	}
	return c.do(ctx, call{op: "remove a tag of image " + imageID, method: http.MethodDelete, path: path}, nothing)
}

func nativeTagPath(imageID, tag string) (string, error) {
	if err := limits.NativeTag(tag); err != nil {
		return "", err
	}
	if tag == "." || tag == ".." || strings.Contains(tag, "/") {
		return "", &limits.Error{Code: limits.TagInvalid, Field: "tags", Finding: "the tag can't be part of a path", Advice: "use one without '/'"}
	}
	return imagePath("/v2/images/", imageID, "/tags/"+tag)
}

// TagValues is a tag's key with all values that it has in the project.
type TagValues struct {
	Key    string
	Values []string
}

// ProjectTags lists the tags of all images of the project.
func (c *Client) ProjectTags(ctx context.Context) ([]TagValues, error) {
	var tags []TagValues
	k := call{op: "list the project's tags", method: http.MethodGet, path: "/v2/" + c.cfg.ProjectID + "/images/tags"}
	err := c.do(ctx, k, func(p []byte) error {
		all, err := decodeTags(p)
		tags = make([]TagValues, 0, len(all))
		for _, t := range all {
			if t.Value != "" {
				t.Values = append(t.Values, t.Value)
			}
			tags = append(tags, TagValues{t.Key, t.Values})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return tags, nil
}

// decodedTag is a tag of an image, with a value, or of a project, with many.
type decodedTag struct {
	Key, Value string
	Values     []string
}

func decodeTags(p []byte) ([]decodedTag, error) {
	var w struct {
		Tags *objects[struct {
			Key    text `json:"key"`
			Value  text `json:"value"`
			Values list `json:"values"`
		}] `json:"tags"`
	}
	if err := json.Unmarshal(p, &w); err != nil {
		return nil, err
	}
	if w.Tags == nil {
		return nil, errors.New("the answer holds no list of tags")
	}
	tags := make([]decodedTag, 0, len(*w.Tags))
	for _, t := range *w.Tags {
		if t.Key != "" {
			tags = append(tags, decodedTag{string(t.Key), string(t.Value), t.Values})
		}
	}
	return tags, nil
}
