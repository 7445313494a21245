package imageservice_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"imgferry/ims"
)

// three makes three images: two that are active, one whose import failed.
func three(t *testing.T, c *cloud) (ids [3]string) {
	t.Helper()
	c.put("z", encode(t, disk(1<<20, 0)))
	for i, r := range []ims.QuickImportRequest{
		{Name: "b", OSVersion: "Windows Server 2019 Standard 64bit", ImageURL: "images:z", MinDisk: 40, Tags: []string{"a.b", "x.1"}},
		{Name: "c", OSType: "Windows", Type: "DataImage", ImageURL: "images:z", MinDisk: 50, ImageTags: []ims.Tag{{Key: "a", Value: "b"}}},
		{Name: "a", OSVersion: "Other(32 bit)", Type: "BMS", ImageURL: "images:gone", MinDisk: 60, Tags: []string{"a.c"}},
	} {
		job, err := c.importing(t, r)
		if (err != nil) != (i == 2) {
			t.Fatal(err)
		}
		ids[i] = job.ImageID
	}
	return ids
}

func TestListFilters(t *testing.T) {
	c := newCloud(t)
	ids := three(t, c)
	for query, want := range map[string]string{
		"": "a c b", "__imagetype=private": "a c b", "__imagetype=gold": "", "name=b": "b", "name=B": "", "status=active": "c b", "status=killed": "a",
		"status=queued": "", "id=" + ids[1]: "c", "id=x": "", "tag=a%3Db": "c b", "tag=a=b": "c b", "tag=a=c": "a", "tag=a": "", "tag=a.b": "c b", "tag=a.c": "a", "tag=b.a": "", "tag=.": "", "member_status=accepted": "a c b", "member_status=accepted&visibility=shared": "",
		"tag=a=b&tag=x=1": "b", "tag=a=b&name=c": "c", "owner=" + project: "a c b", "owner=x": "", "min_disk=50": "c", "protected=false": "a c b",
		"protected=true": "", "visibility=private": "a c b", "disk_format=zvhd2": "a c b", "virtual_env_type=DataImage": "c", "virtual_env_type=Ironic": "a",
		"__os_type=Windows": "c b", "__os_bit=32": "a", "__platform=Windows": "b", "__isregistered=true": "a c b", "__support_kvm=true": "a c b",
		"__support_xen=true": "", "__whole_image=false": "a c b", "__whole_image=true": "", "unknown=1": "a c b",
		"limit=2": "a c", "limit=1&marker=" + ids[2]: "c", "marker=" + ids[0]: "", "limit=0": "", "limit=9&sort_key=name&sort_dir=asc": "a b c",
		"sort_key=name": "c b a", "sort_dir=asc": "b c a", "sort_key=status&sort_dir=asc": "c b a",
		"created_at=gt:2018-10-28T10:00:00Z": "a c b", "created_at=lt:2018-10-28T10:00:00Z": "", "updated_at=gte:2018-10-28 10:00:00": "a c b",
		"created_at=neq:2018-10-28T10:00:00Z": "a c b", "created_at=eq:2018-10-28T10:00:00Z": "", "created_at=lte:x": "", "created_at=2018": "",
	} {
		status, _, body := c.send(t, "GET", "/v2/cloudimages?"+strings.ReplaceAll(query, " ", "%20"), "")
		var answer struct{ Images []struct{ Name string } }
		if err := json.Unmarshal([]byte(body), &answer); err != nil || status != 200 || answer.Images == nil {
			t.Errorf("%s: %d %s", query, status, body)
			continue
		}
		var names []string
		for _, i := range answer.Images {
			names = append(names, i.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	// Through the client, which pages.
	if images, err := c.client.Images(t.Context(), url.Values{"tag": {"a=b"}, "status": {"active"}}); err != nil || len(images) != 2 {
		t.Errorf("%d images, %v", len(images), err)
	}
}

// TestAnswerTypes holds the answers to the types that clients break on.
func TestAnswerTypes(t *testing.T) {
	c := newCloud(t)
	ids := three(t, c)
	_, _, body := c.send(t, "GET", "/v2/cloudimages?id="+ids[1], "")
	var list struct{ Images []map[string]any }
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list.Images) != 1 {
		t.Fatal(body, err)
	}
	img := list.Images[0]
	for name, want := range map[string]string{
		"id": "string", "name": "string", "status": "string", "owner": "string", "self": "string", "file": "string", "schema": "string",
		"visibility": "string", "tags": "[]interface {}", "protected": "bool", "checksum": "string", "container_format": "string",
		"min_disk": "float64", "min_ram": "float64", "size": "float64", "created_at": "string", "updated_at": "string", "active_at": "string",
		"disk_format": "string", "virtual_env_type": "string", "hw_firmware_type": "string", "__os_bit": "string", "__os_version": "string",
		"__description": "string", "__isregistered": "string", "__platform": "string", "__os_type": "string", "__image_source_type": "string",
		"__imagetype": "string", "__originalimagename": "string", "__backup_id": "string", "__image_size": "string", "__data_origin": "string",
		"__lazyloading": "string", "__root_origin": "string", "__support_kvm": "string",
	} {
		if got := fmt.Sprintf("%T", img[name]); got != want {
			t.Errorf("%s is %s (%v), want %s", name, got, img[name], want)
		}
	}
	for name, v := range img {
		if v == nil {
			t.Errorf("%s is null", name)
		}
	}

	failing, err := c.client.QuickImport(t.Context(), quick("gone"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.client.WaitJob(t.Context(), failing, ims.Wait{Interval: 1e6}); err == nil {
		t.Fatal("imported nothing")
	}
	for _, path := range []string{"/v1/" + project + "/jobs/", "/v1/cloudimages/job/"} {
		_, _, body := c.send(t, "GET", path+failing, "")
		var job map[string]any
		if err := json.Unmarshal([]byte(body), &job); err != nil {
			t.Fatal(err)
		}
		entities, _ := job["entities"].(map[string]any)
		if _, ok := entities["process_percent"].(float64); !ok || job["status"] != "FAIL" || job["error_code"] != "IMG.0057" || job["fail_reason"] == nil ||
			job["job_id"] != failing || job["job_type"] != "imsImportImageJob" {
			t.Errorf("%s: %s", path, body)
		}
		if begin, _ := job["begin_time"].(string); len(begin) != len("04-Jun-2015 18:11:06:586") {
			t.Errorf("begin_time %q", begin)
		}
	}
}

func TestDeleteImage(t *testing.T) {
	c := newCloud(t)
	ids := three(t, c)
	for _, id := range ids { // active ones and the killed one
		if err := c.client.DeleteImage(t.Context(), id); err != nil {
			t.Error(err)
		}
		if _, err := c.client.Image(t.Context(), id); !errors.Is(err, ims.ErrNotFound) {
			t.Errorf("deleted image: %v", err)
		}
		if err := c.client.DeleteImage(t.Context(), id); !errors.Is(err, ims.ErrNotFound) {
			t.Errorf("deleted twice: %v", err)
		}
	}
	c.put("z", encode(t, disk(1<<20, 0)))
	job, err := c.importing(t, quick("z"))
	if err != nil {
		t.Fatal(err)
	}
	if status, _, body := c.send(t, "DELETE", "/v2/images/"+job.ImageID, `{"delete_backup":true}`); status != 204 || body != "" {
		t.Errorf("with a body: %d %s", status, body)
	}
}
