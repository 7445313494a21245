package ims

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"imgferry/limits"
)

// imagePath returns the path of a call about an image.
func imagePath(before, id, after string) (string, error) {
	if err := checkID(id, limits.ImageIDUnknown, "image"); err != nil {
		return "", err
	}
	return before + id + after, nil
}

// NativeImage returns an image by the native call (reference, 6.1.2), which tells of some that are not in
// the list: those that the project shares. The error matches ErrNotFound if there is none.
func (c *Client) NativeImage(ctx context.Context, id string) (Image, error) {
	path, err := imagePath("/v2/images/", id, "")
	if err != nil {
		return Image{}, err
	}
	var img Image
	err = c.do(ctx, call{op: "show image " + id, method: http.MethodGet, path: path}, func(p []byte) (err error) {
		img, err = decodeImage(p)
		return err
	})
	return img, err
}

// DeleteImage deletes an image (reference, 6.1.5). The error matches ErrNotFound if there is none.
func (c *Client) DeleteImage(ctx context.Context, id string) error {
	path, err := imagePath("/v2/images/", id, "")
	if err != nil {
		return err
	}
	return c.do(ctx, call{op: "delete image " + id, method: http.MethodDelete, path: path}, nothing)
}

// DeleteWholeImage deletes the image of a whole server with the backup that it is made of.
func (c *Client) DeleteWholeImage(ctx context.Context, id string) error {
	path, err := imagePath("/v2/images/", id, "")
	if err != nil {
		return err
	}
	return c.do(ctx, call{op: "delete image " + id, method: http.MethodDelete, path: path, body: []byte(`{"delete_backup":true}`)}, nothing)
}

// nothing is the decoder of answers that should be empty.
func nothing(p []byte) error {
	if p = bytes.TrimSpace(p); len(p) > 0 && string(p) != "{}" {
		return errors.New("it should be empty") // somebody else's answer
	}
	return nil
}

// Operations of an update (RFC 6902).
const (
	PatchAdd     = "add" // also replaces
	PatchReplace = "replace"
	PatchRemove  = "remove"
)

// Patch is one change of an image's properties.
type Patch struct {
	// Op is PatchAdd, PatchReplace or PatchRemove; the latter two are refused where the image has no such
	// property.
	Op string
	// Property is its name: "name", "__description", "min_ram", "hw_firmware_type", or one of the user's.
	Property string
	// Value is the new value. Numbers and booleans are written as text too.
	Value string
}

// MarshalJSON writes the operation as RFC 6902 has it.
func (p Patch) MarshalJSON() ([]byte, error) {
	w := struct {
		Op    string  `json:"op"`
		Path  string  `json:"path"`
		Value *string `json:"value,omitempty"`
	}{Op: p.Op, Path: "/" + pointer.Replace(p.Property)}
	if p.Op != PatchRemove {
		w.Value = &p.Value
	}
	return json.Marshal(w)
}

// pointer escapes a name for a JSON pointer (RFC 6901).
var pointer = strings.NewReplacer("~", "~0", "/", "~1")

// patches is the body of an update.
type patches []Patch

func (list patches) Check() error {
	if len(list) == 0 {
		return &limits.Error{Code: limits.RequestEmpty, Field: "op", Finding: "nothing is to be changed", Advice: "name a property"}
	}
	for _, p := range list {
		if err := p.check(); err != nil {
			return err
		}
	}
	return nil
}

func (p Patch) check() error {
	if p.Op != PatchAdd && p.Op != PatchReplace && p.Op != PatchRemove {
		return &limits.Error{Code: limits.RequestFormat, Field: "op", Finding: fmt.Sprintf("%q is no operation", p.Op), Advice: "use add, replace or remove"}
	}
	var err error
	if p.Op != PatchRemove {
		switch p.Property {
		case "name":
			err = limits.Name(p.Value)
		case "__description":
			err = limits.Description(p.Value)
		case "hw_firmware_type":
			err = limits.Firmware(p.Value)
		}
	}
	return firstOf(limits.Property(p.Property), err)
}

// harmless reports whether the list sent twice does no more than once: what is removed can't be removed
// again.
func (list patches) harmless() bool {
	for _, p := range list {
		if p.Op == PatchRemove {
			return false
		}
	}
	return true
}

// UpdateImage changes properties of an active image (reference, 5.1.2) and returns it as it is then.
func (c *Client) UpdateImage(ctx context.Context, id string, changes ...Patch) (Image, error) {
	path, err := imagePath("/v2/cloudimages/", id, "")
	if err != nil {
		return Image{}, err
	}
	var img Image
	body := patches(changes)
	k := call{op: "update image " + id, method: http.MethodPatch, path: path, harmless: body.harmless()}
	err = c.change(ctx, k, body, func(p []byte) (err error) {
		img, err = decodeImage(p)
		return err
	})
	return img, err
}
