package sdktest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/auth/basic"
	ims "github.com/huaweicloud/huaweicloud-sdk-go-v3/services/ims/v2"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/services/ims/v2/model"
)

// envBinary names a built imgferry. Without it the test builds one.
const envBinary = "IMGFERRY_BINARY"

const (
	friend = "0123456789abcdef0123456789abcdef"
	server = "877a2cda-ba63-4e1e-b95f-e67e48b6129a"
	volume = "c5dfbd0c-bf0a-4798-a453-61dc6b54aa30"
)

// box is a sandbox in a process of its own, with a client of the SDK for its project and one for a friend's.
type box struct {
	t          *testing.T
	dir        string
	binary     string
	settings   map[string]string
	me, friend *ims.ImsClient
	called     map[string]bool
}

func start(t *testing.T) *box {
	t.Helper()
	b := &box{t: t, dir: t.TempDir(), binary: os.Getenv(envBinary), called: make(map[string]bool)}
	if b.binary == "" {
		b.binary = filepath.Join(b.dir, "imgferry")
		build := exec.Command("go", "build", "-C", "..", "-o", b.binary, "./cmd/imgferry")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
	}
	disk := make([]byte, 5<<20)
	copy(disk, "first block")
	copy(disk[4<<20:], "third block")
	b.write("disk.raw", disk)
	cmd := exec.Command(b.binary, "sandbox", "--json", "--listen-store", "127.0.0.1:0", "--listen-images", "127.0.0.1:0",
		"--data", filepath.Join(b.dir, "data"), "--volume", volume+"="+b.at("disk.raw"), "--instance", server+"="+b.at("disk.raw")+","+volume,
		"--backup", "backup-1="+b.at("disk.raw"), "--region-peer", "region-2=project-2", "--other-project", friend)
	cmd.Env = b.home()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	if err := json.NewDecoder(bufio.NewReader(out)).Decode(&b.settings); err != nil {
		t.Fatalf("the sandbox does not come up: %v", err)
	}
	go io.Copy(io.Discard, out) // ends with the process
	b.me, b.friend = b.client(b.settings["IMGFERRY_PROJECT_ID"]), b.client(friend)
	return b
}

func (b *box) at(name string) string { return filepath.Join(b.dir, name) }

func (b *box) write(name string, content []byte) {
	if err := os.WriteFile(b.at(name), content, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// home is an environment without the user's own settings.
func (b *box) home() []string {
	env := []string{"HOME=" + b.dir, "PATH=" + os.Getenv("PATH"), "XDG_STATE_HOME=" + b.at("state"), "XDG_CONFIG_HOME=" + b.at("config")}
	for name, v := range b.settings {
		env = append(env, name+"="+v)
	}
	return env
}

// setting is the first of the sandbox's settings whose name ends so.
func (b *box) setting(suffix string) string {
	for name, v := range b.settings {
		if strings.HasSuffix(name, suffix) {
			return v
		}
	}
	b.t.Fatalf("the sandbox has no setting %s among %v", suffix, b.settings)
	return ""
}

func (b *box) client(project string) *ims.ImsClient {
	if project == "" {
		project = b.setting("PROJECT_ID")
	}
	credentials, err := basic.NewCredentialsBuilder().WithAk(b.setting("_AK")).WithSk(b.setting("_SK")).WithProjectId(project).SafeBuild()
	if err != nil {
		b.t.Fatal(err)
	}
	hc, err := ims.ImsClientBuilder().WithEndpoints([]string{b.setting("IMS_ENDPOINT")}).WithCredential(credentials).SafeBuild()
	if err != nil {
		b.t.Fatal(err)
	}
	return ims.NewImsClient(hc)
}

// call notes that a call of the SDK was made, and ends the test if it failed.
func call[Q, A any](b *box, f func(*Q) (*A, error), q *Q) *A {
	b.t.Helper()
	name := strings.TrimSuffix(reflect.TypeFor[Q]().Name(), "Request") // requests are called after their calls
	b.called[name] = true
	a, err := f(q)
	if err != nil {
		b.t.Fatalf("%s: %v", name, err)
	}
	return a
}

// job waits for a job, which must succeed, and returns its image's id.
func (b *box) job(id *string, as ...*ims.ImsClient) string {
	b.t.Helper()
	c := b.me
	if len(as) > 0 {
		c = as[0]
	}
	if id == nil {
		b.t.Fatal("no job_id was parsed")
	}
	for range 2000 {
		a := call(b, c.ShowJob, &model.ShowJobRequest{JobId: *id})
		switch a.Status.Value() {
		case "SUCCESS":
			if a.Entities.ImageId == nil {
				return ""
			}
			return *a.Entities.ImageId
		case "FAIL":
			b.t.Fatalf("job %s: %s %s", *a.JobType, *a.ErrorCode, *a.FailReason)
		}
		time.Sleep(5 * time.Millisecond)
	}
	b.t.Fatal("the job does not end")
	return ""
}

func ptr[T any](v T) *T { return &v }

// equal compares something that the client parsed, which may be behind a pointer.
func equal(b *box, what string, got, want any) {
	b.t.Helper()
	v := reflect.ValueOf(got)
	for v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	if fmt.Sprint(v) != fmt.Sprint(want) {
		b.t.Errorf("%s: %v, want %v", what, v, want)
	}
}

// object puts the disk into the bucket as ZVHD2, and returns the image_url.
func (b *box) object() string {
	b.t.Helper()
	push := exec.Command(b.binary, "push", "--os-version", "Ubuntu 18.04 server 64bit", "--name", "pushed", b.at("disk.raw"))
	push.Env = b.home()
	var stderr strings.Builder
	push.Stderr = &stderr
	out, err := push.Output()
	if err != nil {
		b.t.Fatalf("push: %v\n%s", err, stderr.String())
	}
	id := strings.TrimSpace(string(out))
	a := call(b, b.me.GlanceShowImage, &model.GlanceShowImageRequest{ImageId: id})
	_, url, ok := strings.Cut(*a.DataOrigin, ",")
	if !ok {
		b.t.Fatalf("the image is made from %s", *a.DataOrigin)
	}
	equal(b, "status", a.Status.Value(), "active")
	equal(b, "os type", a.OsType.Value(), "Linux")
	equal(b, "platform", a.Platform.Value(), "Ubuntu")
	equal(b, "name", a.Name, "pushed")
	return url
}

// TestEveryCall makes every call that the SDK has, and compares what its client parsed.
func TestEveryCall(t *testing.T) {
	b := start(t)
	url := b.object()
	id := b.images(url)
	b.jobs(id)
	b.tags(id)
	b.members(id)
	b.native(url)
	b.copies(id)

	client := reflect.TypeFor[*ims.ImsClient]()
	for i := range client.NumMethod() {
		if name := client.Method(i).Name; !strings.HasSuffix(name, "Invoker") && !b.called[name] {
			t.Errorf("%s was never called", name)
		}
	}
	t.Logf("%d calls", len(b.called))
}

// images makes images in every way, and lists, changes and exports one.
func (b *box) images(url string) string {
	quick := &model.QuickImportImageByFileRequestBody{
		Name: "quick", OsVersion: "CentOS 7.0 64bit", ImageUrl: url, MinDisk: 10, LicenseType: ptr("byol"), Tags: &[]string{"a.b"},
		Type: ptr(model.GetQuickImportImageByFileRequestBodyTypeEnum().ECS), HwFirmwareType: ptr(model.GetQuickImportImageByFileRequestBodyHwFirmwareTypeEnum().UEFI),
	}
	id := b.job(call(b, b.me.ImportImageQuick, &model.ImportImageQuickRequest{Body: quick}).JobId)
	data := *quick
	data.Name, data.OsVersion, data.HwFirmwareType, data.Type = "data", "", nil, ptr(model.GetQuickImportImageByFileRequestBodyTypeEnum().DATA_IMAGE)
	b.job(call(b, b.me.ImportImageQuickInSafeMode, &model.ImportImageQuickInSafeModeRequest{Body: &data}).JobId)

	file := &model.CreateImageRequestBody{Name: ptr("file"), OsVersion: ptr("CentOS 7.0 64bit"), ImageUrl: &url, MinDisk: ptr(int32(40)), MaxRam: ptr(int32(4096)), CmkId: ptr("key")}
	made := b.job(call(b, b.me.CreateImage, &model.CreateImageRequest{Body: file}).JobId)
	encrypted := call(b, b.me.GlanceShowImage, &model.GlanceShowImageRequest{ImageId: made})
	equal(b, "max_ram", *encrypted.MaxRam, "4096")
	equal(b, "key", *encrypted.SystemCmkid, "key")
	b.job(call(b, b.me.CreateImageInSafeMode, &model.CreateImageInSafeModeRequest{Body: &model.CreateImageRequestBody{Name: ptr("server"), InstanceId: ptr(server)}}).JobId)
	parts := call(b, b.me.CreateImage, &model.CreateImageRequest{Body: &model.CreateImageRequestBody{
		DataImages: &[]model.CreateDataImage{{Name: "part", VolumeId: volume, Tags: &[]string{"a.b"}}},
	}})
	b.job(parts.JobId)
	a := call(b, b.me.ShowJob, &model.ShowJobRequest{JobId: *parts.JobId})
	equal(b, "sub jobs", len(*a.Entities.SubJobsList), 1)
	equal(b, "sub job", *(*a.Entities.SubJobsResult)[0].Entities.ImageName, "part")

	dataBody := &model.CreateDataImageRequestBody{Name: "data2", ImageUrl: url, MinDisk: 40, OsType: ptr(model.GetCreateDataImageRequestBodyOsTypeEnum().WINDOWS)}
	b.job(call(b, b.me.CreateDataImage, &model.CreateDataImageRequest{Body: dataBody}).JobId)
	b.job(call(b, b.me.CreateDataImageInSafeMode, &model.CreateDataImageInSafeModeRequest{Body: dataBody}).JobId)
	b.job(call(b, b.me.CreateWholeImage, &model.CreateWholeImageRequest{Body: &model.CreateWholeImageRequestBody{
		Name: "whole", BackupId: ptr("backup-1"), WholeImageType: ptr("CBR"),
	}}).JobId)

	list := *call(b, b.me.ListImages, &model.ListImagesRequest{Id: &id}).Images
	equal(b, "images", len(list), 1)
	got := list[0]
	equal(b, "id", got.Id, id)
	equal(b, "min_disk", got.MinDisk, 10)
	equal(b, "status", got.Status.Value(), "active")
	equal(b, "firmware", got.HwFirmwareType.Value(), "uefi")
	equal(b, "tags", strings.Join(got.Tags, " "), "a=b")
	equal(b, "environment", got.VirtualEnvType.Value(), "FusionCompute")
	if got.ImageSize == "" || got.ImageSize == "0" || got.ActiveAt == "" {
		b.t.Errorf("image %+v", got)
	}
	updated := call(b, b.me.UpdateImage, &model.UpdateImageRequest{ImageId: id, Body: &[]model.UpdateImageRequestBody{
		{Op: model.GetUpdateImageRequestBodyOpEnum().REPLACE, Path: "/name", Value: "renamed"},
		{Op: model.GetUpdateImageRequestBodyOpEnum().ADD, Path: "/mine", Value: "1"},
		{Op: model.GetUpdateImageRequestBodyOpEnum().REMOVE, Path: "/mine", Value: ""},
		{Op: model.GetUpdateImageRequestBodyOpEnum().REPLACE, Path: "/min_ram", Value: "2048"},
	}})
	equal(b, "name", updated.Name, "renamed")
	equal(b, "min_ram", updated.MinRam, 2048)
	quota := (*call(b, b.me.ShowImageQuota, &model.ShowImageQuotaRequest{}).Quotas).Resources[0]
	equal(b, "quota", quota.Type, "image")
	equal(b, "quota", quota.Quota, 1000)
	if quota.Used < 8 {
		b.t.Errorf("used: %d", quota.Used)
	}
	versions := *call(b, b.me.ListOsVersions, &model.ListOsVersionsRequest{Tag: ptr("uefi")}).Body
	if len(versions) < 10 || versions[0].VersionList[0].OsBit != 64 {
		b.t.Errorf("%+v", versions)
	}
	bucket, _, _ := strings.Cut(url, ":")
	b.job(call(b, b.me.ExportImage, &model.ExportImageRequest{ImageId: id, Body: &model.ExportImageRequestBody{
		BucketUrl: bucket + ":out.qcow2", FileFormat: model.GetExportImageRequestBodyFileFormatEnum().QCOW2,
	}}).JobId)
	b.job(call(b, b.me.ExportImageInSafeMode, &model.ExportImageInSafeModeRequest{ImageId: id, Body: &model.ExportImageRequestBody{
		BucketUrl: bucket + ":out.zvhd2", IsQuickExport: ptr(true),
	}}).JobId)
	// What was exported can be imported.
	b.job(call(b, b.me.CreateImage, &model.CreateImageRequest{Body: &model.CreateImageRequestBody{
		Name: ptr("again"), OsVersion: ptr("CentOS 7.0 64bit"), ImageUrl: ptr(bucket + ":out.qcow2"), MinDisk: ptr(int32(40)),
	}}).JobId)
	return id
}

// jobs asks for a job in both ways.
func (b *box) jobs(id string) {
	j := call(b, b.me.CopyImageInRegion, &model.CopyImageInRegionRequest{ImageId: id, Body: &model.CopyImageInRegionRequestBody{Name: "copy"}}).JobId
	made := b.job(j)
	a := call(b, b.me.ShowJobProgress, &model.ShowJobProgressRequest{JobId: *j})
	equal(b, "status", a.Status.Value(), "SUCCESS")
	equal(b, "type", *a.JobType, "imsCopyImageInRegionJob")
	equal(b, "image", *a.Entities.ImageId, made)
	equal(b, "name", *a.Entities.ImageName, "copy")
	equal(b, "percent", *a.Entities.ProcessPercent, 1)
	b.job(call(b, b.me.CopyImageInRegionInSafeMode, &model.CopyImageInRegionInSafeModeRequest{ImageId: id, Body: &model.CopyImageInRegionRequestBody{Name: "copy2"}}).JobId)
	// A refusal is parsed, too.
	_, err := b.me.CopyImageInRegion(&model.CopyImageInRegionRequest{ImageId: "none", Body: &model.CopyImageInRegionRequestBody{Name: "copy"}})
	if err == nil || !strings.Contains(err.Error(), "IMG.0027") {
		b.t.Errorf("copying nothing: %v", err)
	}
}

func (b *box) tags(id string) {
	tag := model.ResourceTag{Key: "colour", Value: "red"}
	call(b, b.me.AddImageTag, &model.AddImageTagRequest{ImageId: id, Body: &model.AddImageTagRequestBody{Tag: &tag}})
	call(b, b.me.BatchAddOrDeleteTags, &model.BatchAddOrDeleteTagsRequest{ImageId: id, Body: &model.BatchAddOrDeleteTagsRequestBody{
		Action: model.GetBatchAddOrDeleteTagsRequestBodyActionEnum().CREATE, Tags: []model.ResourceTag{{Key: "size", Value: "9"}, {Key: "shape", Value: "round"}},
	}})
	call(b, b.me.CreateOrUpdateTags, &model.CreateOrUpdateTagsRequest{Body: &model.AddOrUpdateTagsRequestBody{ImageId: id, Tag: ptr("taste.sweet")}})
	call(b, b.me.GlanceCreateTag, &model.GlanceCreateTagRequest{ImageId: id, Tag: "plain"})
	has := func(want string) {
		b.t.Helper()
		var got []string
		for _, p := range *call(b, b.me.ListImageTags, &model.ListImageTagsRequest{ImageId: id}).Tags {
			got = append(got, p.Key+"="+p.Value)
		}
		slices.Sort(got)
		equal(b, "tags", strings.Join(got, " "), want)
	}
	has("a=b colour=red plain= shape=round size=9 taste=sweet")
	found := call(b, b.me.ListImageByTags, &model.ListImageByTagsRequest{Body: &model.ListImageByTagsRequestBody{
		Action: model.GetListImageByTagsRequestBodyActionEnum().FILTER, Tags: &[]model.Tags{{Key: "colour", Values: []string{"red"}}}, Limit: ptr("10"), Offset: ptr("0"),
	}})
	equal(b, "found", *found.TotalCount, 1)
	equal(b, "found", (*found.Resources)[0].ResourceId, id)
	equal(b, "found", (*found.Resources)[0].ResourceDetail.Status, "active")
	all := *call(b, b.me.ListImagesTags, &model.ListImagesTagsRequest{}).Tags
	equal(b, "a key", slices.ContainsFunc(all, func(k model.Tags) bool { return k.Key == "shape" && slices.Equal(k.Values, []string{"round"}) }), true)
	equal(b, "a tag", slices.Contains(*call(b, b.me.ListTags, &model.ListTagsRequest{Limit: ptr(int32(100))}).Tags, "colour=red"), true)
	call(b, b.me.DeleteImageTag, &model.DeleteImageTagRequest{ImageId: id, Key: "colour"})
	call(b, b.me.BatchDeleteTags, &model.BatchDeleteTagsRequest{ImageId: id, Body: &model.BatchDeleteTagsRequestBody{Tags: []model.ResourceTag{{Key: "size", Value: "9"}}}})
	call(b, b.me.GlanceDeleteTag, &model.GlanceDeleteTagRequest{ImageId: id, Tag: "plain"})
	has("a=b shape=round taste=sweet")
}

func (b *box) members(id string) {
	two := &model.BatchAddMembersRequestBody{Images: []string{id}, Projects: []string{friend, "ffffffffffffffffffffffffffffffff"}}
	j := call(b, b.me.BatchAddMembers, &model.BatchAddMembersRequest{Body: two}).JobId
	b.job(j)
	results := *call(b, b.me.ShowJob, &model.ShowJobRequest{JobId: *j}).Entities.Results
	equal(b, "results", len(results), 2)
	equal(b, "result", *results[0].Status, "success")
	b.job(call(b, b.friend.BatchUpdateMembers, &model.BatchUpdateMembersRequest{Body: &model.BatchUpdateMembersRequestBody{
		Images: []string{id}, ProjectId: friend, Status: model.GetBatchUpdateMembersRequestBodyStatusEnum().ACCEPTED,
	}}).JobId, b.friend)
	list := call(b, b.me.ListImageMembers, &model.ListImageMembersRequest{ImageId: id})
	equal(b, "members", len(*list.Members), 2)
	equal(b, "count", list.PageInfo.CurrentCount, 2)
	m := call(b, b.me.ShowImageMember, &model.ShowImageMemberRequest{ImageId: id, MemberId: friend})
	equal(b, "member", *m.Status, "accepted")
	shared := *call(b, b.friend.ListImages, &model.ListImagesRequest{Imagetype: ptr(model.GetListImagesRequestImagetypeEnum().SHARED)}).Images
	equal(b, "shared images", len(shared), 1)
	equal(b, "owner", shared[0].Owner, b.setting("PROJECT_ID"))
	b.job(call(b, b.me.BatchDeleteMembers, &model.BatchDeleteMembersRequest{Body: two}).JobId)

	added := call(b, b.me.GlanceAddImageMember, &model.GlanceAddImageMemberRequest{ImageId: id, Body: &model.GlanceAddImageMemberRequestBody{Member: friend}})
	equal(b, "member", *added.MemberId, friend)
	equal(b, "member", *added.Status, "pending")
	turned := call(b, b.friend.GlanceUpdateImageMember, &model.GlanceUpdateImageMemberRequest{ImageId: id, MemberId: friend, Body: &model.GlanceUpdateImageMemberRequestBody{
		Status: model.GetGlanceUpdateImageMemberRequestBodyStatusEnum().REJECTED,
	}})
	equal(b, "member", *turned.Status, "rejected")
	equal(b, "member", *call(b, b.me.GlanceShowImageMember, &model.GlanceShowImageMemberRequest{ImageId: id, MemberId: friend}).Status, "rejected")
	equal(b, "members", (*call(b, b.me.GlanceListImageMembers, &model.GlanceListImageMembersRequest{ImageId: id}).Members)[0].Status, "rejected")
	call(b, b.me.GlanceDeleteImageMember, &model.GlanceDeleteImageMemberRequest{ImageId: id, MemberId: friend})
}

func (b *box) native(url string) {
	made := call(b, b.me.GlanceCreateImageMetadata, &model.GlanceCreateImageMetadataRequest{Body: &model.GlanceCreateImageMetadataRequestBody{
		Name: ptr("meta"), OsVersion: ptr("Ubuntu 14.04 server 64bit"), MinDisk: ptr(int32(50)), Tags: &[]string{"a=b"}, Visibility: ptr("private"),
		DiskFormat: ptr(model.GetGlanceCreateImageMetadataRequestBodyDiskFormatEnum().ZVHD2),
	}})
	equal(b, "status", made.Status.Value(), "queued")
	equal(b, "min_disk", *made.MinDisk, 50)
	id := *made.Id
	b.job(call(b, b.me.RegisterImage, &model.RegisterImageRequest{ImageId: id, Body: &model.RegisterImageRequestBody{ImageUrl: url}}).JobId)
	shown := call(b, b.me.GlanceShowImage, &model.GlanceShowImageRequest{ImageId: id})
	equal(b, "status", shown.Status.Value(), "active")
	equal(b, "platform", shown.Platform.Value(), "Ubuntu")
	turned := call(b, b.me.GlanceUpdateImage, &model.GlanceUpdateImageRequest{ImageId: id, Body: &[]model.GlanceUpdateImageRequestBody{
		{Op: model.GetGlanceUpdateImageRequestBodyOpEnum().REPLACE, Path: "/name", Value: ptr("renamed")},
	}})
	equal(b, "name", turned.Name, "renamed")
	list := call(b, b.me.GlanceListImages, &model.GlanceListImagesRequest{Limit: ptr(int32(2))})
	equal(b, "images", len(*list.Images), 2)
	equal(b, "next", strings.HasPrefix(*list.Next, "/v2/images?"), true)
	call(b, b.me.GlanceDeleteImage, &model.GlanceDeleteImageRequest{ImageId: id, Body: &model.GlanceDeleteImageRequestBody{DeleteBackup: ptr(true)}})
	if _, err := b.me.GlanceShowImage(&model.GlanceShowImageRequest{ImageId: id}); err == nil || !strings.Contains(err.Error(), "IMG.0027") {
		b.t.Errorf("a deleted image: %v", err)
	}

	equal(b, "schema", *call(b, b.me.GlanceShowImageSchemas, &model.GlanceShowImageSchemasRequest{}).Name, "image")
	equal(b, "schema", call(b, b.me.GlanceShowImageSchemas, &model.GlanceShowImageSchemasRequest{}).AdditionalProperties.Type, "string")
	equal(b, "schema", len(*call(b, b.me.GlanceListImageSchemas, &model.GlanceListImageSchemasRequest{}).Links), 3)
	equal(b, "schema", *call(b, b.me.GlanceShowImageMemberSchemas, &model.GlanceShowImageMemberSchemasRequest{}).Name, "member")
	equal(b, "schema", len(*call(b, b.me.GlanceListImageMemberSchemas, &model.GlanceListImageMemberSchemasRequest{}).Links), 1)
	equal(b, "versions", len(*call(b, b.me.ListVersions, &model.ListVersionsRequest{}).Versions), 5)
	equal(b, "version", *(*call(b, b.me.ShowVersion, &model.ShowVersionRequest{Version: "v2.0"}).Versions)[0].Id, "v2.0")
}

func (b *box) copies(id string) {
	b.job(call(b, b.me.CopyImageCrossRegion, &model.CopyImageCrossRegionRequest{ImageId: id, Body: &model.CopyImageCrossRegionRequestBody{
		Name: "away", Region: "region-2", ProjectName: "project-2", AgencyName: "agency",
	}}).JobId)
}
