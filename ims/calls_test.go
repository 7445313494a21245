package ims_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"imgferry/ims"
	"imgferry/limits"
)

const (
	imageA = "d164b5df-1bc3-4c3f-893e-3e471fd16e64"
	imageB = "0b680482-acaa-4045-b14c-9a8c7dfe9c70"
	other  = "9c61004714024f9586705d090530f9fa"
	begun  = `{"job_id":"edc89b490d7d4392898e19b2deb34797"}`
	jobOf  = "edc89b490d7d4392898e19b2deb34797"
)

// updated is an image as an update answers it, with nulls, empty texts and properties of a user's own.
const updated = `{"file":"/v2/images/33ad552d/file","owner":"` + project + `","id":"33ad552d-1149-471c-8190-ff6776174a00","size":2,"self":"/v2/images/33ad552d",
"status":"active","tags":["a=b"],"visibility":"private","name":"renamed","protected":false,"min_ram":0,"max_ram":"4096","updated_at":"2015-12-08T02:30:49Z",
"__os_bit":"64","__os_version":"Ubuntu 14.04 server 64bit","__description":"of the test","disk_format":"vhd","__os_type":"Linux","min_disk":40,
"virtual_env_type":"FusionCompute","__imagetype":"private","created_at":"2015-12-04T09:45:33Z","virtual_size":0,"__backup_id":"","__image_size":"449261568",
"__data_origin":null,"hw_firmware_type":"bios","__system__cmkid":"the-key","__whole_image":"true","enterprise_project_id":"0","team":"blue","odd":{"a":1},
"active_at":"2015-12-04T09:50:00Z","__platform":"Ubuntu"}`

var updatedImage = ims.Image{
	ID: "33ad552d-1149-471c-8190-ff6776174a00", Name: "renamed", Status: "active", Owner: project, Visibility: "private", ImageType: "private",
	VirtualEnv: "FusionCompute", DiskFormat: "vhd", Description: "of the test", OSVersion: "Ubuntu 14.04 server 64bit", OSType: "Linux", OSBit: "64",
	Platform: "Ubuntu", Firmware: "bios", Size: 449261568, MinDisk: 40, MaxRAM: 4096, WholeImage: true, CMKID: "the-key", EnterpriseProjectID: "0",
	Tags: []string{"a=b"}, Created: time.Date(2015, 12, 4, 9, 45, 33, 0, time.UTC), Updated: time.Date(2015, 12, 8, 2, 30, 49, 0, time.UTC),
	Activated:  time.Date(2015, 12, 4, 9, 50, 0, 0, time.UTC),
	Properties: map[string]string{"file": "/v2/images/33ad552d/file", "self": "/v2/images/33ad552d", "size": "2", "virtual_size": "0", "team": "blue"},
}

// theCall is one call of the client: what it sends, and what it makes of the answer that the reference
// shows.
type theCall struct {
	name string
	make func(context.Context, *ims.Client) (any, error)
	// sends is the method, the path and the query; body is what it sends as JSON, "" for nothing.
	sends, body string
	status      int
	answer      string
	want        any
	// again says that the call is sent again after an answer that may be lost.
	again bool
}

func calls() []theCall {
	job := func(id string, err error) (any, error) { return id, err }
	none := func(err error) (any, error) { return nil, err }
	tags := []ims.Tag{{Key: "key2", Value: "value2"}}
	return []theCall{
		{"fast import", func(ctx context.Context, c *ims.Client) (any, error) { return job(c.QuickImport(ctx, goodImport)) },
			"POST /v2/cloudimages/quickimport/action", `{"name":"ims_test_file","os_version":"CentOS 7.0 64bit","image_url":"ims-image:centos70.zvhd2","min_disk":40,"type":"ECS"}`,
			200, begun, jobOf, false},
		{"import", func(ctx context.Context, c *ims.Client) (any, error) {
			return job(c.CreateImage(ctx, ims.CreateImageRequest{Name: "n", Description: "d", ImageURL: "ims-image:centos70.qcow2", OSVersion: "CentOS 7.0 64bit",
				MinDisk: 40, Configure: true, CMKID: "k", Type: "BMS", Architecture: "arm", MinRAM: 1, MaxRAM: 2, EnterpriseProjectID: "0", ImageTags: tags,
				DataImages: []ims.DataImage{{Name: "d1", ImageURL: "ims-image:d.vhd", MinDisk: 1, Quick: true}}}))
		}, "POST /v2/cloudimages/action", `{"name":"n","description":"d","image_url":"ims-image:centos70.qcow2","os_version":"CentOS 7.0 64bit","min_disk":40,"is_config":true,
			"cmk_id":"k","type":"BMS","architecture":"arm","min_ram":1,"max_ram":2,"enterprise_project_id":"0","image_tags":[{"key":"key2","value":"value2"}],
			"data_images":[{"name":"d1","image_url":"ims-image:d.vhd","min_disk":1,"is_quick_import":true}]}`, 200, begun, jobOf, false},
		{"import of an ISO file", func(ctx context.Context, c *ims.Client) (any, error) {
			return job(c.CreateImage(ctx, ims.CreateImageRequest{Name: "n", ImageURL: "ims-image:centos70.iso", OSType: "Linux", OSVersion: "CentOS 7.0 64bit", Type: "IsoImage", MinDisk: 40}))
		}, "POST /v2/cloudimages/action", `{"name":"n","image_url":"ims-image:centos70.iso","os_type":"Linux","os_version":"CentOS 7.0 64bit","type":"IsoImage","min_disk":40}`, 200, begun, jobOf, false},
		{"image of a server", func(ctx context.Context, c *ims.Client) (any, error) {
			return job(c.CreateImage(ctx, ims.CreateImageRequest{Name: "n", InstanceID: imageA, Tags: []string{"aaa.111"}}))
		}, "POST /v2/cloudimages/action", `{"name":"n","instance_id":"` + imageA + `","tags":["aaa.111"]}`, 200, begun, jobOf, false},
		{"image of a volume", func(ctx context.Context, c *ims.Client) (any, error) {
			return job(c.CreateImage(ctx, ims.CreateImageRequest{Name: "n", VolumeID: imageA, OSVersion: "CentOS 7.0 64bit", Type: "ECS"}))
		}, "POST /v2/cloudimages/action", `{"name":"n","volume_id":"` + imageA + `","os_version":"CentOS 7.0 64bit","type":"ECS"}`, 200, begun, jobOf, false},
		{"data image of a volume", func(ctx context.Context, c *ims.Client) (any, error) {
			return job(c.CreateImage(ctx, ims.CreateImageRequest{DataImages: []ims.DataImage{{Name: "n", VolumeID: imageB, Tags: []string{"a.1"}}}}))
		}, "POST /v2/cloudimages/action", `{"data_images":[{"name":"n","volume_id":"` + imageB + `","tags":["a.1"]}]}`, 200, begun, jobOf, false},
		{"data image", func(ctx context.Context, c *ims.Client) (any, error) {
			return job(c.CreateDataImage(ctx, ims.DataImageRequest{Name: "fedora-data1", ImageURL: "image-test:fedora_data1.qcow2", MinDisk: 40, OSType: "Linux", ImageTags: tags, CMKID: "k"}))
		}, "POST /v1/cloudimages/dataimages/action", `{"name":"fedora-data1","image_url":"image-test:fedora_data1.qcow2","min_disk":40,"os_type":"Linux","cmk_id":"k","image_tags":[{"key":"key2","value":"value2"}]}`, 200, begun, jobOf, false},
		{"whole image", func(ctx context.Context, c *ims.Client) (any, error) {
			return job(c.CreateWholeImage(ctx, ims.WholeImageRequest{Name: "n", InstanceID: imageA, VaultID: imageB}))
		}, "POST /v1/cloudimages/wholeimages/action", `{"name":"n","instance_id":"` + imageA + `","vault_id":"` + imageB + `"}`, 200, begun, jobOf, false},
		{"whole image of a backup", func(ctx context.Context, c *ims.Client) (any, error) {
			return job(c.CreateWholeImage(ctx, ims.WholeImageRequest{Name: "n", BackupID: imageA}))
		}, "POST /v1/cloudimages/wholeimages/action", `{"name":"n","backup_id":"` + imageA + `","whole_image_type":"CBR"}`, 200, begun, jobOf, false},
		{"metadata", func(ctx context.Context, c *ims.Client) (any, error) {
			img, err := c.CreateMetadata(ctx, ims.MetadataRequest{Name: "test", OSVersion: "Ubuntu 14.04 server 64bit", DiskFormat: "vhd", MinDisk: 1, MinRAM: 1024, Tags: []string{"test=testvalue"}})
			return img.ID + " " + img.Status, err
		}, "POST /v2/images", `{"name":"test","__os_version":"Ubuntu 14.04 server 64bit","disk_format":"vhd","min_disk":1,"min_ram":1024,"tags":["test=testvalue"]}`,
			201, `{"schema":"/v2/schemas/image","min_disk":1,"id":"4ca46bf1-5c61-48ff-b4f3-0ad4e5e3ba86","status":"queued","__image_size":"0","tags":["test=testvalue"]}`,
			"4ca46bf1-5c61-48ff-b4f3-0ad4e5e3ba86 queued", false},
		{"register", func(ctx context.Context, c *ims.Client) (any, error) {
			return job(c.Register(ctx, imageA, "bucketname:Centos6.5-disk1.vmdk"))
		}, "PUT /v1/cloudimages/" + imageA + "/upload", `{"image_url":"bucketname:Centos6.5-disk1.vmdk"}`, 200, begun, jobOf, false},
		{"export", func(ctx context.Context, c *ims.Client) (any, error) {
			return job(c.Export(ctx, imageA, ims.ExportRequest{BucketURL: "ims-image:centos7_5.qcow2", Format: "qcow2"}))
		}, "POST /v1/cloudimages/" + imageA + "/file", `{"bucket_url":"ims-image:centos7_5.qcow2","file_format":"qcow2","is_quick_export":false}`, 200, begun, jobOf, false},
		{"quick export", func(ctx context.Context, c *ims.Client) (any, error) {
			return job(c.Export(ctx, imageA, ims.ExportRequest{BucketURL: "ims-image:centos7_5.zvhd2", Format: ims.ExportZVHD2}))
		}, "POST /v1/cloudimages/" + imageA + "/file", `{"bucket_url":"ims-image:centos7_5.zvhd2","is_quick_export":true}`, 200, begun, jobOf, false},
		{"copy", func(ctx context.Context, c *ims.Client) (any, error) {
			return job(c.Copy(ctx, imageA, ims.CopyRequest{Name: "copy", Description: "test copy", CMKID: "bd66288c-9081-460a-8227-4cbd0c814cb4"}))
		}, "POST /v1/cloudimages/" + imageA + "/copy", `{"name":"copy","description":"test copy","cmk_id":"bd66288c-9081-460a-8227-4cbd0c814cb4"}`, 200, begun, jobOf, false},
		{"copy to a region", func(ctx context.Context, c *ims.Client) (any, error) {
			return job(c.CopyToRegion(ctx, imageA, ims.RegionCopyRequest{Name: "copy", Region: "region-1", ProjectName: "project-1", AgencyName: "ims_copy_image", VaultID: imageB}))
		}, "POST /v1/cloudimages/" + imageA + "/cross_region_copy", `{"name":"copy","region":"region-1","project_name":"project-1","agency_name":"ims_copy_image","vault_id":"` + imageB + `"}`, 200, begun, jobOf, false},
		{"update", func(ctx context.Context, c *ims.Client) (any, error) {
			return c.UpdateImage(ctx, imageA, ims.Patch{Op: "replace", Property: "name", Value: "renamed"}, ims.Patch{Op: "add", Property: "a/b~", Value: ""})
		}, "PATCH /v2/cloudimages/" + imageA, `[{"op":"replace","path":"/name","value":"renamed"},{"op":"add","path":"/a~1b~0","value":""}]`, 200, updated, updatedImage, true},
		{"update that removes", func(ctx context.Context, c *ims.Client) (any, error) {
			return c.UpdateImage(ctx, imageA, ims.Patch{Op: "remove", Property: "team"})
		}, "PATCH /v2/cloudimages/" + imageA, `[{"op":"remove","path":"/team"}]`, 200, updated, updatedImage, false},
		{"native show", func(ctx context.Context, c *ims.Client) (any, error) { return c.NativeImage(ctx, imageA) },
			"GET /v2/images/" + imageA, "", 200, updated, updatedImage, true},
		{"delete", func(ctx context.Context, c *ims.Client) (any, error) { return none(c.DeleteImage(ctx, imageA)) },
			"DELETE /v2/images/" + imageA, "", 204, "", nil, false},
		{"delete with backup", func(ctx context.Context, c *ims.Client) (any, error) { return none(c.DeleteWholeImage(ctx, imageA)) },
			"DELETE /v2/images/" + imageA, `{"delete_backup":true}`, 204, "", nil, false},
		{"share", func(ctx context.Context, c *ims.Client) (any, error) {
			return job(c.AddMembers(ctx, []string{imageA, imageB}, []string{other}))
		}, "POST /v1/cloudimages/members", `{"images":["` + imageA + `","` + imageB + `"],"projects":["` + other + `"]}`, 200, begun, jobOf, false},
		{"unshare", func(ctx context.Context, c *ims.Client) (any, error) {
			return job(c.RemoveMembers(ctx, []string{imageA}, []string{other}))
		}, "DELETE /v1/cloudimages/members", `{"images":["` + imageA + `"],"projects":["` + other + `"]}`, 200, begun, jobOf, false},
		{"accept", func(ctx context.Context, c *ims.Client) (any, error) {
			return job(c.DecideMembers(ctx, []string{imageA}, ims.MemberAccepted, "v"))
		}, "PUT /v1/cloudimages/members", `{"images":["` + imageA + `"],"project_id":"` + project + `","status":"accepted","vault_id":"v"}`, 200, begun, jobOf, true},
		{"members", func(ctx context.Context, c *ims.Client) (any, error) { return c.Members(ctx, imageA) },
			"GET /v2/images/" + imageA + "/members", "", 200,
			`{"members":[{"status":"accepted","created_at":"2016-09-01T02:05:14Z","updated_at":"2016-09-01T02:37:11Z","image_id":"` + imageA + `","member_id":"` + other + `","schema":"/v2/schemas/member"}],"schema":"/v2/schemas/members"}`,
			[]ims.Member{{ImageID: imageA, ProjectID: other, Status: ims.MemberAccepted, Created: time.Date(2016, 9, 1, 2, 5, 14, 0, time.UTC), Updated: time.Date(2016, 9, 1, 2, 37, 11, 0, time.UTC)}}, true},
		{"quota", func(ctx context.Context, c *ims.Client) (any, error) { return c.Quotas(ctx) },
			"GET /v1/cloudimages/quota", "", 200, `{"quotas":{"resources":[{"type":"image","used":0,"quota":20,"min":1,"max":1000},{"type":"other","used":"7","quota":-1}]}}`,
			[]ims.Quota{{Type: "image", Limit: 20, Min: 1, Max: 1000}, {Type: "other", Used: 7, Limit: -1}}, true},
		{"operating systems", func(ctx context.Context, c *ims.Client) (any, error) { return c.OSVersions(ctx, "kvm", "uefi") },
			"GET /v1/cloudimages/os_version?tag=kvm&tag=uefi", "", 200,
			`[{"platform":"SUSE","version_list":[{"platform":"SUSE","os_version_key":"SUSE Linux Enterprise Server 15 64bit","os_version":"SUSE Linux Enterprise Server 15 64bit","os_bit":64,"os_type":"Linux"}]},
			{"platform":"Other","version_list":[{"os_version":"Other(32 bit)","os_bit":"32","os_type":"Linux"},{"os_version":null}]},null,{"platform":"Empty","version_list":null}]`,
			[]ims.OSVersion{{Platform: "SUSE", Name: "SUSE Linux Enterprise Server 15 64bit", Key: "SUSE Linux Enterprise Server 15 64bit", Bits: 64, Type: "Linux"},
				{Platform: "Other", Name: "Other(32 bit)", Key: "Other(32 bit)", Bits: 32, Type: "Linux"}}, true},
		{"job", func(ctx context.Context, c *ims.Client) (any, error) { return c.Job(ctx, jobID) },
			"GET /v1/" + project + "/jobs/" + jobID, "", 200,
			`{"status":"FAIL","job_id":"x","job_type":"imsAddImageMembersJob","error_code":"IMG.0112","fail_reason":"no","begin_time":"2020-01-02T03:04:05Z","entities":{"image_id":"","process_percent":1,
			"results":[{"image_id":"` + imageA + `","project_id":"` + other + `","status":"success"},{"image_id":"` + imageB + `","project_id":"` + other + `","status":"failed"}],
			"sub_jobs_result":[{"status":"SUCCESS","job_id":"s1","job_type":"imsImportDataImageJob","entities":{"image_id":"` + imageB + `","image_name":"d"},"begin_time":"","end_time":"2020-01-02T03:04:06Z"}],"sub_jobs_list":["s1","s2"]}}`,
			ims.Job{ID: jobID, Type: "imsAddImageMembersJob", Status: ims.JobFail, Progress: 1, Code: "IMG.0112", Reason: "no", Begin: time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC),
				Results:   []ims.JobResult{{ImageID: imageA, ProjectID: other, Status: "success"}, {ImageID: imageB, ProjectID: other, Status: "failed"}},
				SubJobs:   []ims.Job{{ID: "s1", Type: "imsImportDataImageJob", Status: ims.JobSuccess, Progress: 1, ImageID: imageB, ImageName: "d", End: time.Date(2020, 1, 2, 3, 4, 6, 0, time.UTC)}},
				SubJobIDs: []string{"s1", "s2"}}, true},
		{"job's progress", func(ctx context.Context, c *ims.Client) (any, error) { return c.JobProgress(ctx, jobID) },
			"GET /v1/cloudimages/job/" + jobID, "", 200, `{"status":"RUNNING","entities":{"sub_jobs_result":"none","sub_jobs_list":{},"results":null}}`, ims.Job{ID: jobID, Status: ims.JobRunning}, true},
		{"tags of an image", func(ctx context.Context, c *ims.Client) (any, error) { return c.ImageTags(ctx, imageA) },
			"GET /v2/" + project + "/images/" + imageA + "/tags", "", 200, `{"tags":[{"key":"a","value":"b"},{"key":"c"},{"value":"d"},7]}`, []ims.Tag{{Key: "a", Value: "b"}, {Key: "c"}}, true},
		{"add a tag", func(ctx context.Context, c *ims.Client) (any, error) {
			return none(c.AddTag(ctx, imageA, ims.Tag{Key: "a", Value: "b"}))
		},
			"POST /v2/" + project + "/images/" + imageA + "/tags", `{"tag":{"key":"a","value":"b"}}`, 204, "", nil, true},
		{"add tags", func(ctx context.Context, c *ims.Client) (any, error) { return none(c.AddTags(ctx, imageA, tags...)) },
			"POST /v2/" + project + "/images/" + imageA + "/tags/action", `{"action":"create","tags":[{"key":"key2","value":"value2"}]}`, 204, "", nil, true},
		{"remove tags", func(ctx context.Context, c *ims.Client) (any, error) { return none(c.RemoveTags(ctx, imageA, tags...)) },
			"POST /v2/" + project + "/images/" + imageA + "/tags/action", `{"action":"delete","tags":[{"key":"key2","value":"value2"}]}`, 204, "", nil, false},
		{"remove a tag", func(ctx context.Context, c *ims.Client) (any, error) { return none(c.RemoveTag(ctx, imageA, "a")) },
			"DELETE /v2/" + project + "/images/" + imageA + "/tags/a", "", 204, "", nil, false},
		{"tags of the project", func(ctx context.Context, c *ims.Client) (any, error) { return c.ProjectTags(ctx) },
			"GET /v2/" + project + "/images/tags", "", 200, `{"tags":[{"key":"a","values":["b","c"]},{"key":"d","value":"e"}]}`,
			[]ims.TagValues{{Key: "a", Values: []string{"b", "c"}}, {Key: "d", Values: []string{"e"}}}, true},
		{"add a native tag", func(ctx context.Context, c *ims.Client) (any, error) { return none(c.AddNativeTag(ctx, imageA, "a=b")) },
			"PUT /v2/images/" + imageA + "/tags/a=b", "", 204, "", nil, true},
		{"remove a native tag", func(ctx context.Context, c *ims.Client) (any, error) {
			return none(c.RemoveNativeTag(ctx, imageA, "a=b"))
		},
			"DELETE /v2/images/" + imageA + "/tags/a=b", "", 204, "", nil, false},
	}
}

// TestCalls: each call sends what the reference asks for, signed, and reads what it answers.
func TestCalls(t *testing.T) {
	for _, call := range calls() {
		t.Run(call.name, func(t *testing.T) {
			sent := 0
			c := client(t, served{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				sent++
				body, _ := io.ReadAll(r.Body)
				secret := func(ak string) (string, bool) { return sk, ak == "AKEXAMPLE0000000001" }
				if _, err := ims.Verify(r, body, secret, time.Now()); err != nil {
					t.Errorf("signature: %v", err)
				}
				if got := r.Method + " " + r.RequestURI; got != call.sends {
					t.Errorf("sends %s, want %s", got, call.sends)
				}
				if call.body == "" && len(body) > 0 || call.body != "" && !alikeJSON(body, []byte(call.body)) {
					t.Errorf("sends %s\nwant  %s", body, call.body)
				}
				if want := map[bool]string{true: "application/json"}[call.body != ""]; r.Header.Get("Content-Type") != want {
					t.Errorf("content type %q", r.Header.Get("Content-Type"))
				}
				answer(call.status, call.answer)(w, r)
			})})
			got, err := call.make(t.Context(), c)
			if err != nil || sent != 1 || !reflect.DeepEqual(got, call.want) {
				t.Errorf("%v after %d requests\n got %+v\nwant %+v", err, sent, got, call.want)
			}
		})
	}
}

func alikeJSON(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

// TestCallsFail holds each call against hostile and broken answers: an error that says what was tried, no
// secret, no second try where that might do harm, and no call that takes somebody else's answer for good.
func TestCallsFail(t *testing.T) {
	const attempts = 6
	for name, f := range map[string]struct {
		handler http.HandlerFunc
		sent    func(again bool) int
		maybe   func(again bool) bool
		class   error
	}{
		"not allowed":     {answer(403, `<html>no`), always(1), never, ims.ErrDenied},
		"absent":          {answer(404, ``), always(1), never, ims.ErrNotFound},
		"refused":         {answer(400, `{"error":{"message":"The image is unavailable.","code":"IMG.0046"}}`), always(1), never, nil},
		"busy":            {answer(429, ``), always(attempts), never, nil},
		"broken":          {answer(500, `<Error>x</Error>`), func(again bool) int { return map[bool]int{true: attempts, false: 1}[again] }, func(again bool) bool { return !again }, nil},
		"somebody else's": {answer(200, `<html>log in`), always(1), func(again bool) bool { return !again }, nil},
		"another array":   {answer(200, `[[1]]x`), always(1), func(again bool) bool { return !again }, nil},
		"a text":          {answer(200, `"x"`), always(1), func(again bool) bool { return !again }, nil},
		"endless":         {answer(200, `{"job_id":"`+strings.Repeat("x", 8<<20)), always(1), func(again bool) bool { return !again }, nil},
		"deep":            {answer(200, strings.Repeat("[", 20000)), always(1), func(again bool) bool { return !again }, nil},
	} {
		for _, call := range calls() {
			synctest.Test(t, func(t *testing.T) {
				h := &sequence{handlers: []http.HandlerFunc{f.handler}}
				_, err := call.make(t.Context(), client(t, served{h}))
				var e *ims.APIError
				if !errors.As(err, &e) || h.calls != f.sent(call.again) || e.MaybeDone != f.maybe(call.again) || f.class != nil && !errors.Is(err, f.class) {
					t.Errorf("%s, %s: %v, sent %d times", call.name, name, err, h.calls)
					return
				}
				if s := err.Error(); strings.Contains(s, sk) || strings.ContainsAny(s, "\n\x1b") || len(s) > 700 {
					t.Errorf("%s, %s: message %q", call.name, name, s)
				}
			})
		}
	}
}

func always(n int) func(bool) int { return func(bool) int { return n } }
func never(bool) bool             { return false }

// TestRefusedBeforeSending: what breaks a rule is not sent, and the error has the service's own code.
func TestRefusedBeforeSending(t *testing.T) {
	transport := &failing{err: errors.New("sent")}
	c := client(t, transport)
	ctx := t.Context()
	long := strings.Repeat("x", 129)
	create := func(r ims.CreateImageRequest) error { _, err := c.CreateImage(ctx, r); return err }
	first := func(_ string, err error) error { return err }
	many := make([]string, 129)
	for i := range many {
		many[i] = other
	}
	for name, c := range map[string]struct {
		err  error
		code limits.Code
	}{
		"no source":               {create(ims.CreateImageRequest{Name: "n"}), limits.RequestFormat},
		"two sources":             {create(ims.CreateImageRequest{Name: "n", InstanceID: "i", VolumeID: "v"}), limits.RequestFormat},
		"name":                    {create(ims.CreateImageRequest{Name: long, InstanceID: "i"}), limits.NameTooLong},
		"39 GB":                   {create(ims.CreateImageRequest{Name: "n", ImageURL: "bucket:k", MinDisk: 39}), limits.DiskSize},
		"39 GB, fast":             {create(ims.CreateImageRequest{Name: "n", ImageURL: "bucket:k", MinDisk: 39, Quick: true}), limits.OSVersionMissing},
		"ISO without a system":    {create(ims.CreateImageRequest{Name: "n", ImageURL: "bucket:k.ISO", MinDisk: 40}), limits.ISOVersionMissing},
		"volume without a system": {create(ims.CreateImageRequest{Name: "n", VolumeID: "v"}), limits.OSVersionMissing},
		"type":                    {create(ims.CreateImageRequest{Name: "n", ImageURL: "bucket:k", MinDisk: 40, Type: "DataImage"}), limits.SourceTypeWrong},
		"memory":                  {create(ims.CreateImageRequest{Name: "n", InstanceID: "i", MinRAM: 3, MaxRAM: 2}), limits.DiskSize},
		"four data disks":         {create(ims.CreateImageRequest{Name: "n", ImageURL: "bucket:k", MinDisk: 40, DataImages: make([]ims.DataImage, 4)}), limits.TooManyDataImages},
		"data disk of nothing":    {create(ims.CreateImageRequest{DataImages: []ims.DataImage{{Name: "n"}}}), limits.VolumeUnknown},
		"data image's system":     {first(c.CreateDataImage(ctx, ims.DataImageRequest{Name: "n", ImageURL: "bucket:k", MinDisk: 40, OSType: "Other"})), limits.OSTypeInvalid},
		"whole without a vault":   {first(c.CreateWholeImage(ctx, ims.WholeImageRequest{Name: "n", InstanceID: "i"})), limits.VaultUnknown},
		"whole of both":           {first(c.CreateWholeImage(ctx, ims.WholeImageRequest{Name: "n", InstanceID: "i", VaultID: "v", BackupID: "b"})), limits.RequestFormat},
		"export's format":         {first(c.Export(ctx, imageA, ims.ExportRequest{BucketURL: "bucket:k", Format: "raw"})), limits.FormatUnsupported},
		"export to nowhere":       {first(c.Export(ctx, imageA, ims.ExportRequest{BucketURL: "bucket", Format: "vhd"})), limits.URLFormat},
		"register's object":       {first(c.Register(ctx, imageA, "bucket:a b")), limits.KeySpaces},
		"copy's key":              {first(c.Copy(ctx, imageA, ims.CopyRequest{Name: "n", CMKID: "a/b"})), limits.KeyUnknown},
		"copy's region":           {first(c.CopyToRegion(ctx, imageA, ims.RegionCopyRequest{Name: "n", ProjectName: "p", AgencyName: "a"})), limits.RegionUnknown},
		"copy's project":          {first(c.CopyToRegion(ctx, imageA, ims.RegionCopyRequest{Name: "n", Region: "r", AgencyName: "a"})), limits.ProjectNameWrong},
		"copy's agency":           {first(c.CopyToRegion(ctx, imageA, ims.RegionCopyRequest{Name: "n", Region: "r", ProjectName: "p"})), limits.AgencyWrong},
		"share with nobody":       {first(c.AddMembers(ctx, []string{imageA}, nil)), limits.ProjectWrong},
		"share with 129":          {first(c.AddMembers(ctx, []string{imageA}, many)), limits.ShareQuotaReached},
		"share nothing":           {first(c.AddMembers(ctx, nil, []string{other})), limits.ImageIDUnknown},
		"no decision":             {first(c.DecideMembers(ctx, []string{imageA}, ims.MemberPending, "")), limits.RequestFormat},
		"no change":               {second(c.UpdateImage(ctx, imageA)), limits.RequestEmpty},
		"no such operation":       {second(c.UpdateImage(ctx, imageA, ims.Patch{Op: "move", Property: "name"})), limits.RequestFormat},
		"no property":             {second(c.UpdateImage(ctx, imageA, ims.Patch{Op: ims.PatchAdd})), limits.RequestFormat},
		"no name":                 {second(c.UpdateImage(ctx, imageA, ims.Patch{Op: ims.PatchReplace, Property: "name"})), limits.NameMissing},
		"metadata's format":       {second(c.CreateMetadata(ctx, ims.MetadataRequest{DiskFormat: "tar"})), limits.FormatUnsupported},
		"metadata's disk":         {second(c.CreateMetadata(ctx, ims.MetadataRequest{MinDisk: 1025})), limits.DiskSize},
		"tag":                     {c.AddTag(ctx, imageA, ims.Tag{Key: "a b"}), limits.TagInvalid},
		"no tags":                 {c.AddTags(ctx, imageA), limits.TagInvalid},
		"tag twice":               {c.AddTags(ctx, imageA, ims.Tag{Key: "a"}, ims.Tag{Key: "a"}), limits.TagInvalid},
		"native tag":              {c.AddNativeTag(ctx, imageA, ".."), limits.TagInvalid},
		"native tag, a path":      {c.RemoveNativeTag(ctx, imageA, "a/b"), limits.TagInvalid},
	} {
		var rule *limits.Error
		if !errors.As(c.err, &rule) || rule.Code != c.code {
			t.Errorf("%s: %v, want %s", name, c.err, c.code)
		}
	}
	for _, bad := range []string{"", "..", "a/b", "a b"} {
		for _, err := range []error{
			first(c.Export(ctx, bad, ims.ExportRequest{BucketURL: "bucket:k", Format: "vhd"})), first(c.Register(ctx, bad, "bucket:k")), first(c.Copy(ctx, bad, ims.CopyRequest{Name: "n"})),
			c.AddTag(ctx, bad, ims.Tag{Key: "a"}), c.AddNativeTag(ctx, bad, "a"), second(c.NativeImage(ctx, bad)), second(c.Members(ctx, bad)), second(c.ImageTags(ctx, bad)),
			second(c.UpdateImage(ctx, bad, ims.Patch{Op: ims.PatchAdd, Property: "a"})), first(c.AddMembers(ctx, []string{bad}, []string{other})),
			first(c.AddMembers(ctx, []string{imageA}, []string{bad})),
		} {
			if err == nil || errors.Is(err, transport.err) {
				t.Errorf("the id %q was sent: %v", bad, err)
			}
		}
	}
	if transport.calls != 0 {
		t.Errorf("%d requests were sent", transport.calls)
	}
}

func second[T any](_ T, err error) error { return err }

func TestFilter(t *testing.T) {
	yes := true
	at := time.Date(2018, 10, 28, 10, 0, 0, 0, time.UTC)
	f := ims.Filter{
		ID: "i", Name: "n", Status: "active", Owner: "o", ImageType: "shared", Visibility: "shared", MemberStatus: "pending", VirtualEnv: "Ironic", DiskFormat: "vhd",
		ContainerFormat: "bare", Platform: "Ubuntu", OSType: "Linux", OSBit: "64", Architecture: "arm", CMKID: "k", EnterpriseProjectID: "e", FlavorID: "f", Tag: "a=b",
		MinDisk: 40, MinRAM: 1, Protected: &yes, WholeImage: new(bool), Supports: []string{"__support_kvm", "__support_kvm_gpu_type=V100"},
		Created: []ims.TimeBound{{Op: "gt", Time: at}, {Op: "lt", Time: at.Add(time.Hour)}}, Updated: []ims.TimeBound{{Op: "neq", Time: at}},
		SortKey: "name", Ascending: true, Marker: "m", Limit: 7,
	}
	const want = "__imagetype=shared&__os_bit=64&__os_type=Linux&__platform=Ubuntu&__support_kvm=true&__support_kvm_gpu_type=V100&__system__cmkid=k&__whole_image=false&architecture=arm" +
		"&container_format=bare&created_at=gt%3A2018-10-28T10%3A00%3A00Z&created_at=lt%3A2018-10-28T11%3A00%3A00Z&disk_format=vhd&enterprise_project_id=e&flavor_id=f&id=i&limit=7&marker=m" +
		"&member_status=pending&min_disk=40&min_ram=1&name=n&owner=o&protected=true&sort_dir=asc&sort_key=name&status=active&tag=a%3Db&updated_at=neq%3A2018-10-28T10%3A00%3A00Z" +
		"&virtual_env_type=Ironic&visibility=shared"
	if q, err := f.Query(); err != nil || q.Encode() != want {
		t.Errorf("%v\n got %s\nwant %s", err, q.Encode(), want)
	}
	if q, err := (ims.Filter{}).Query(); err != nil || len(q) != 0 {
		t.Errorf("%v, %v", q, err)
	}
	for _, bad := range []ims.Filter{{SortKey: "owner"}, {Limit: -1}, {MinDisk: -1}, {Supports: []string{"kvm"}}} {
		if _, err := bad.Query(); !errors.As(err, new(*limits.Error)) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// TestEndlessPages: a service that never ends its list, or repeats a page, is not followed for ever.
func TestEndlessPages(t *testing.T) {
	page := `{"images":[` + strings.Repeat(`{"id":"i"},`, 499) + `{"id":"i"}]}`
	h := &sequence{handlers: []http.HandlerFunc{answer(200, page)}}
	if _, err := client(t, served{h}).Images(t.Context(), nil); err == nil || h.calls > 3 || !strings.Contains(err.Error(), "again") {
		t.Errorf("%v after %d pages", err, h.calls)
	}
}
