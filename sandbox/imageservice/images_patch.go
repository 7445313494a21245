package imageservice

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"imgferry/ims"
	"imgferry/limits"
)

// The two forms of a native patch (reference, 6.1.3).
const (
	patchV20 = "application/openstack-images-v2.0-json-patch"
	patchV21 = "application/openstack-images-v2.1-json-patch"
)

// change is one operation of a patch.
type change struct {
	op    string // add, replace, remove
	name  string // of the attribute
	value any    // string, float64, bool, []any or nil
}

// patchImage is PATCH /v2/cloudimages/{image_id} (reference, 5.1.2): active images only.
func (s *Service) patchImage(r request) (int, any, error) { return s.patch(r, false) }

// patchNative is PATCH /v2/images/{image_id} (reference, 6.1.3).
func (s *Service) patchNative(r request) (int, any, error) { return s.patch(r, true) }

func (s *Service) patch(r request, native bool) (int, any, error) {
	changes, err := parsePatch(r.Header.Get("Content-Type"), r.body)
	if err != nil {
		return 0, nil, err
	}
	var a attributes
	err = s.state.update(func(t tx) error {
		i, err := t.own(r, native)
		if err != nil {
			return err
		}
		if !native && i.Status != ims.StatusActive {
			return refuse(limits.ImageUnavailable, "image %s is %s: only active ones can be changed", i.ID, i.Status)
		}
		i = i.clone()
		for _, c := range changes {
			if err := i.apply(c, native); err != nil {
				return err
			}
		}
		if err := firstOf(i.checkVirtualization(), limits.Memory(i.MinRAM, i.MaxRAM)); err != nil {
			return err
		}
		i.Updated = s.cfg.Now()
		a = i.attributes(r.project)
		return t.putImage(&i)
	})
	return http.StatusOK, a, err
}

// parsePatch reads a patch, and checks all of it but the attributes.
func parsePatch(contentType string, body []byte) ([]change, error) {
	kind, _, err := mime.ParseMediaType(contentType)
	if contentType != "" && err != nil {
		kind = contentType
	}
	switch kind {
	case "", "application/json", patchV20, patchV21:
	default:
		return nil, answerWith(http.StatusUnsupportedMediaType, limits.RequestFormat,
			"a patch has the content type "+patchV21+", "+patchV20+" or application/json, not "+shown(contentType))
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, refuse(limits.RequestEmpty, "send a JSON array of operations")
	}
	var operations []map[string]any
	if err := json.Unmarshal(body, &operations); err != nil {
		return nil, refuse(limits.RequestFormat, "%s", err)
	}
	if len(operations) == 0 {
		return nil, refuse(limits.RequestFormat, "the patch has no operation")
	}
	changes := make([]change, len(operations))
	for n, o := range operations {
		c := change{value: o["value"]}
		var path string
		if op, ok := o["op"]; ok { // version 2.1
			c.op, _ = op.(string)
			path, _ = o["path"].(string)
		} else { // version 2.0: the operation is the path's name
			for _, op := range []string{"add", "replace", "remove"} {
				if p, ok := o[op].(string); ok {
					c.op, path = op, p
				}
			}
		}
		if !slices.Contains([]string{"add", "replace", "remove"}, c.op) {
			return nil, refuse(limits.RequestFormat, "operation %d is none of add, replace, remove", n+1)
		}
		name, ok := strings.CutPrefix(path, "/")
		name = strings.ReplaceAll(strings.ReplaceAll(name, "~1", "/"), "~0", "~") // RFC 6901
		if !ok || name == "" || len(name) > maxAttribute {
			return nil, refuse(limits.RequestFormat, "operation %d has the path %s: it is / and the name of an attribute", n+1, shown(path))
		}
		if c.op != "remove" && c.value == nil {
			return nil, refuse(limits.RequestFormat, "operation %d has no value", n+1)
		}
		c.name = name
		changes[n] = c
	}
	return changes, nil
}

// maxAttribute and maxAttributeValue bound an attribute of a client's own, in bytes (reference, 6.1.6, and
// Glance's column); maxExtra bounds how many an image has.
const maxAttribute, maxAttributeValue, maxExtra = 255, 64 << 10, 128

// patchable are the attributes of the service that a patch may set, and the values they may have; nil is any
// (reference, 5.1.2). name, __description, min_ram, min_disk, protected and tags have rules of their own.
var patchable = map[string][]string{
	"__support_kvm": {"true", "false"}, "__support_xen": {"true", "false"}, "__support_largememory": {"true", "false"},
	"__support_diskintensive": {"true", "false"}, "__support_highperformance": {"true", "false"},
	"__support_xen_gpu_type": {"M60_vGPU"}, "__support_kvm_gpu_type": {"M60", "V100_vGPU", "P2V_V100", "P100", "V100"},
	"__support_xen_hana": {"true"}, "__support_kvm_infiniband": {"true"}, "__support_amd": {"true", "false"},
	"__support_agent_list": nil, "__support_fc_inject": {"true", "false"},
	"__is_config_init": {"true", "false"}, "hw_vif_multiqueue_enabled": {"true", "false"},
	"__os_feature_list": nil, "__root_origin": nil, "__sequence_num": nil,
}

// apply changes one attribute.
func (i *image) apply(c change, native bool) error {
	text, isText := c.value.(string)
	remove := c.op == "remove"
	switch c.name {
	case "name":
		if err := i.setName(text, native); err != nil || isText && !remove {
			return err
		}
		return wrongType(c, "a string")
	case "__description":
		if remove {
			text, isText = "", true
		}
		if !isText {
			return wrongType(c, "a string")
		}
		i.Description = text
		return limits.Description(text)
	case "hw_firmware_type":
		if remove {
			text, isText = "", true
		}
		if !isText {
			return wrongType(c, "a string")
		}
		i.Firmware = text
		return limits.Firmware(text)
	case "min_ram", "max_ram", "min_disk":
		n, ok := number(c.value)
		if remove {
			n, ok = 0, c.name != "min_disk"
		}
		if !ok {
			return wrongType(c, "a number")
		}
		switch c.name {
		case "min_ram":
			i.MinRAM = n
			return limits.RAM(c.name, n)
		case "max_ram":
			i.MaxRAM = n
			return limits.RAM(c.name, n)
		}
		i.MinDisk = n
		return limits.CheckMinDisk(limits.FastImport, n, i.virtualSize())
	case "protected":
		on, ok := c.value.(bool)
		if isText {
			v, err := strconv.ParseBool(text)
			on, ok = v, err == nil
		}
		if remove || !ok {
			return wrongType(c, "true or false")
		}
		i.Protected = on
		return nil
	case "enterprise_project_id":
		if remove || !isText {
			return wrongType(c, "a string")
		}
		i.Enterprise = text
		return nil
	case "tags":
		return i.replaceTags(c)
	case "__os_version":
		if remove || !isText {
			return wrongType(c, "a string")
		}
		i.OSVersion = text
		return firstOf(limits.OSVersion(limits.TypeData, text), checkOSVersion(text))
	}
	return i.applyExtra(c, native)
}

// applyExtra changes an attribute that is only kept: one of the service's that has no further meaning here, or
// one of the client's own.
func (i *image) applyExtra(c change, native bool) error {
	allowed, known := patchable[c.name]
	current := i.attributes(i.Owner)
	_, there := current[c.name]
	if !known && (there && i.Extra[c.name] == "" || strings.HasPrefix(c.name, "__")) {
		if native {
			return answerWith(http.StatusForbidden, limits.NotSupported, "the attribute "+shown(c.name)+" is read-only")
		}
		return refuse(limits.NotSupported, "the attribute %s can't be changed", shown(c.name))
	}
	if !there && c.op != "add" && !(known && c.op == "replace") {
		finding := fmt.Sprintf("the image has no attribute %s", shown(c.name))
		if native {
			return answerWith(http.StatusConflict, limits.AttributeConflict, finding)
		}
		return refuse(limits.AttributeConflict, "%s", finding)
	}
	if i.Extra == nil {
		i.Extra = make(map[string]string)
	}
	if c.op == "remove" {
		delete(i.Extra, c.name)
		if _, still := i.attributes(i.Owner)[c.name]; still {
			i.Extra[c.name] = removedMark
		}
		return nil
	}
	value, ok := c.value.(string)
	if b, isBool := c.value.(bool); isBool && known {
		value, ok = strconv.FormatBool(b), true
	}
	switch {
	case !ok:
		return wrongType(c, "a string")
	case len(value) > maxAttributeValue || strings.Contains(value, removedMark):
		return refuse(limits.RequestFormat, "the value of %s is longer than %d bytes or holds a NUL", shown(c.name), maxAttributeValue)
	case known && allowed != nil && !slices.Contains(allowed, value):
		return refuse(limits.RequestFormat, "%s is %s: it can be %s", c.name, shown(value), strings.Join(allowed, ", "))
	case len(i.Extra) >= maxExtra && i.Extra[c.name] == "":
		return refuse(limits.RequestFormat, "the image has %d attributes of its own, which is the most", maxExtra)
	}
	i.Extra[c.name] = value
	return nil
}

// specialVirtualization are the attributes that go with neither __support_kvm nor __support_xen.
var specialVirtualization = []string{"__support_xen_gpu_type", "__support_kvm_gpu_type", "__support_xen_hana"}

// checkVirtualization holds the attributes about virtualization against each other: types of graphics cards
// and HANA go with neither of the plain ones, Infiniband not with Xen (reference, 5.1.2).
func (i image) checkVirtualization() error {
	set := func(name string) bool {
		v := i.Extra[name]
		return v != "" && v != "false" && v != removedMark
	}
	for _, special := range specialVirtualization {
		for _, plain := range []string{"__support_kvm", "__support_xen"} {
			if set(special) && set(plain) {
				return refuse(limits.AttributeConflict, "%s does not go with %s", special, plain)
			}
		}
	}
	if set("__support_kvm_infiniband") && set("__support_xen") {
		return refuse(limits.AttributeConflict, "__support_kvm_infiniband does not go with __support_xen")
	}
	return nil
}

func (i *image) setName(name string, native bool) error {
	check := limits.Name
	if native {
		check = limits.NativeName
	}
	if err := check(name); err != nil {
		return err
	}
	i.Name = name
	return nil
}

// replaceTags is a native patch of the whole list.
func (i *image) replaceTags(c change) error {
	list, ok := c.value.([]any)
	if c.op == "remove" || !ok {
		return wrongType(c, "an array of strings")
	}
	tags := make([]string, 0, len(list))
	for _, v := range list {
		tag, ok := v.(string)
		if !ok {
			return wrongType(c, "an array of strings")
		}
		if err := limits.NativeTag(tag); err != nil {
			return err
		}
		if !slices.Contains(tags, tag) {
			tags = append(tags, tag)
		}
	}
	i.Tags = tags
	return i.checkTagQuota()
}

// virtualSize is the size of the image's first disk in bytes, 0 where there is none.
func (i image) virtualSize() int64 {
	if len(i.Disks) == 0 {
		return 0
	}
	return i.Disks[0].Virtual
}

func wrongType(c change, want string) error {
	if c.op == "remove" {
		return refuse(limits.NotSupported, "the attribute %s can't be removed", shown(c.name))
	}
	return refuse(limits.RequestFormat, "the value of %s is not %s", shown(c.name), want)
}

// number reads a whole number, which clients send as such or as a string.
func number(v any) (int, bool) {
	switch v := v.(type) {
	case float64:
		return int(v), v == float64(int(v))
	case string:
		n, err := strconv.Atoi(v)
		return n, err == nil
	}
	return 0, false
}
