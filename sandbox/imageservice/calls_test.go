package imageservice_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"imgferry/ims"
	"imgferry/sandbox/imageservice"
)

// The fields of answers, as the reference's tables list them: a name and its type. A question mark stands
// before those that the table says are there only under a condition; they must have the type if they are.
const (
	jobFields = "job_id:string"

	// Table 5-2.
	imageFields = "file:string owner:string id:string size:number self:string schema:string status:string tags:strings visibility:string " +
		"name:string checksum:string protected:bool container_format:string min_ram:number max_ram:string updated_at:string __os_bit:string " +
		"__os_version:string __description:string disk_format:string __isregistered:string __platform:string __os_type:string " +
		"min_disk:number virtual_env_type:string __image_source_type:string __imagetype:string created_at:string virtual_size:number " +
		"__originalimagename:string __backup_id:string __image_size:string __data_origin:string __lazyloading:string active_at:string " +
		"__os_feature_list:string ?__support_kvm:string ?__support_xen:string __support_largememory:string __support_diskintensive:string " +
		"__support_highperformance:string ?__support_xen_gpu_type:string __support_kvm_gpu_type:string ?__support_xen_hana:string " +
		"__support_kvm_infiniband:string __root_origin:string __sequence_num:string __support_fc_inject:string hw_firmware_type:string " +
		"hw_vif_multiqueue_enabled:string __system__cmkid:string __support_amd:string"
	patchedFields = imageFields + " __account_code:string __image_location:string __is_config_init:string"

	createdFields = "visibility:string name:string protected:bool container_format:string disk_format:string tags:strings min_ram:number " +
		"min_disk:number status:string created_at:string updated_at:string self:string id:string file:string schema:string " +
		"__image_source_type:string __image_size:string __isregistered:string __os_version:string __os_type:string __platform:string " +
		"__os_bit:string __imagetype:string virtual_env_type:string owner:string __root_origin:string checksum:string size:number " +
		"virtual_size:number properties:object"
	memberFields = "status:string created_at:string updated_at:string image_id:string member_id:string schema:string"
	v1Fields     = "status:string virtual_size:number name:string deleted:bool container_format:string created_at:string disk_format:string " +
		"updated_at:string properties:object owner:string protected:bool min_ram:number checksum:string min_disk:number is_public:bool " +
		"?deleted_at:string id:string size:number"
	jobAnswerFields = "status:string job_id:string job_type:string begin_time:string end_time:string ?error_code:string ?fail_reason:string " +
		"entities:object entities.image_id:string entities.current_task:string entities.image_name:string entities.process_percent:number"
	subJobFields = "status:string job_id:string job_type:string begin_time:string end_time:string ?error_code:string ?fail_reason:string " +
		"entities:object entities.image_id:string entities.image_name:string"
)

// example is a call of the reference with the request of its example.
type example struct {
	section, method, path, body string
	status                      int
	fields                      string // "PATH.TO.NAME:type", separated by spaces; "[]" is the first element
	as                          string // the project, if not the first
	job                         bool   // the answer is a job, which must succeed
}

// examples are the calls of the reference. {NAME} stands for something that the world of the test has.
var examples = []example{
	{"5.1.1", "GET", "/v2/cloudimages?__imagetype=gold&sort_key=name&limit=1", "", 200, "images:array", "", false},
	{"5.1.1", "GET", "/v2/cloudimages?id={rich}", "", 200, under("images.[]", imageFields), "", false},
	{"5.1.1", "GET", "/v2/cloudimages?__imagetype=gold&visibility=public&protected=true", "", 200, "images:array", "", false},
	{"5.1.1", "GET", "/v2/cloudimages?owner={project}", "", 200, "images.[].id:string", "", false},
	{"5.1.1", "GET", "/v2/cloudimages?member_status=accepted&visibility=shared&__imagetype=shared", "", 200, "images:array", "{friend}", false},
	{"5.1.1", "GET", "/v2/cloudimages?member_status=rejected&visibility=shared&__imagetype=shared", "", 200, "images:array", "{friend}", false},
	{"5.1.1", "GET", "/v2/cloudimages?member_status=pending&visibility=shared&__imagetype=shared", "", 200, "images.[].id:string", "{friend}", false},
	{"5.1.1", "GET", "/v2/cloudimages?created_at=lt:2018-10-28T10:00:00Z", "", 200, "images:array", "", false},
	{"5.1.2", "PATCH", "/v2/cloudimages/{rich}", `[{"op":"replace","path":"/name","value":"ims_test"}]`, 200, patchedFields, "", false},
	{"5.1.3", "POST", "/v2/cloudimages/action", `{"name":"ims_test","description":"made from a server","instance_id":"{instance}","tags":["aaa.111","bbb.333","ccc.444"]}`, 200, jobFields, "", true},
	{"5.1.3", "POST", "/v2/cloudimages/action", `{"data_images":[{"name":"ims_data_image_test","description":"made from a volume","volume_id":"{volume}","tags":["aaa.111","bbb.333","ccc.444"]}]}`, 200, jobFields, "", true},
	{"5.1.3", "POST", "/v2/cloudimages/action", `{"name":"ims_test_file","description":"made from a file","image_url":"images:centos70.qcow2","os_version":"CentOS 7.0 64bit","min_disk":40,"tags":["aaa.111","bbb.333","ccc.444"]}`, 200, jobFields, "", true},
	{"5.1.3", "POST", "/v2/cloudimages/action", `{"name":"ims_test","description":"made from a server","instance_id":"{instance}","image_tags":[{"key":"key2","value":"value2"},{"key":"key1","value":"value1"}]}`, 200, jobFields, "", true},
	{"5.1.3", "POST", "/v2/cloudimages/action", `{"data_images":[{"name":"ims_data_image_test","description":"made from a volume","volume_id":"{volume}","image_tags":[{"key":"key2","value":"value2"},{"key":"key1","value":"value1"}]}]}`, 200, jobFields, "", true},
	{"5.1.3", "POST", "/v2/cloudimages/action", `{"name":"ims_test_file","description":"made from a file","image_url":"images:centos70.qcow2","os_version":"CentOS 7.0 64bit","min_disk":40,"image_tags":[{"key":"key2","value":"value2"},{"key":"key1","value":"value1"}]}`, 200, jobFields, "", true},
	{"5.1.3", "POST", "/v2/cloudimages/action", `{"name":"ims_test_file","description":"newer page","image_url":"images:centos70.qcow2","os_version":"CentOS 7.0 64bit","is_config_init":true,"min_disk":40,"is_config":true,"tags":["aaa.111"]}`, 200, jobFields, "", true},
	{"5.1.3", "POST", "/v2/cloudimages/action", `{"name":"ims_test","description":"made from a volume","volume_id":"{volume}","type":"ECS","os_version":"CentOS 7.0 64bit","tags":["aaa.111","bbb.333","ccc.444"]}`, 200, jobFields, "", true},
	{"5.1.3", "POST", "/v2/cloudimages/action", `{"name":"ims_test","description":"made from a volume","volume_id":"{volume}","type":"ECS","os_version":"CentOS 7.0 64bit","image_tags":[{"key":"key2","value":"value2"},{"key":"key1","value":"value1"}]}`, 200, jobFields, "", true},
	{"5.1.3", "POST", "/v2/cloudimages/action", `{"name":"with data","image_url":"images:centos70.qcow2","os_version":"CentOS 7.0 64bit","min_disk":40,"data_images":[{"image_url":"images:fedora_data1.qcow2","min_disk":1},{"name":"quick","image_url":"images:centos70.zvhd2","min_disk":2,"is_quick_import":true}]}`, 200, jobFields, "", true},
	{"7.1", "POST", "/v2/cloudimages/action", `{"name":"ims_test_file","description":"a disc","image_url":"images:centos70.iso","os_type":"Linux","os_version":"CentOS 7.0 64bit","type":"IsoImage","min_disk":40,"image_tags":[{"key":"key2","value":"value2"},{"key":"key1","value":"value1"}]}`, 200, jobFields, "", true},
	{"5.1.4", "POST", "/v2/cloudimages/quickimport/action", `{"name":"ims_test_file","description":"made from a file","image_url":"images:centos70.zvhd2","os_version":"CentOS 7.0 64bit","min_disk":40,"type":"ECS","tags":["aaa.111","bbb.333","ccc.444"]}`, 200, jobFields, "", true},
	{"5.1.4", "POST", "/v2/cloudimages/quickimport/action", `{"name":"ims_test_file","description":"made from a file","image_url":"images:centos70.zvhd2","os_version":"CentOS 7.0 64bit","min_disk":40,"type":"ECS","image_tags":[{"key":"key2","value":"value2"},{"key":"key1","value":"value1"}]}`, 200, jobFields, "", true},
	{"5.1.4", "POST", "/v2/cloudimages/quickimport/action", `{"name":"ims_test_file","description":"made from a file","image_url":"images:centos70.zvhd2","os_type":"Linux","min_disk":40,"type":"DataImage","tags":["aaa.111","bbb.333","ccc.444"]}`, 200, jobFields, "", true},
	{"5.1.4", "POST", "/v2/cloudimages/quickimport/action", `{"name":"ims_test_file","description":"made from a file","image_url":"images:centos70.zvhd2","os_type":"Linux","min_disk":40,"type":"DataImage","image_tags":[{"key":"key2","value":"value2"},{"key":"key1","value":"value1"}]}`, 200, jobFields, "", true},
	{"5.1.5", "POST", "/v1/cloudimages/dataimages/action", `{"name":"fedora-data1","image_url":"images:fedora_data1.qcow2","description":"a data disk","min_disk":40,"tags":["aaa.111","bbb.222"],"os_type":"Linux"}`, 200, jobFields, "", true},
	{"5.1.5", "POST", "/v1/cloudimages/dataimages/action", `{"name":"fedora-data2","image_url":"images:fedora_data1.qcow2","description":"a data disk","min_disk":40,"image_tags":[{"key":"aaa","value":"111"},{"key":"bbb","value":"222"}],"os_type":"Linux"}`, 200, jobFields, "", true},
	{"5.1.6", "POST", "/v1/cloudimages/wholeimages/action", `{"name":"instance_whole_image","description":"made from a server","instance_id":"{instance}","vault_id":"{vault}","tags":["aaa.111","bbb.333","ccc.444"]}`, 200, jobFields, "", true},
	{"5.1.6", "POST", "/v1/cloudimages/wholeimages/action", `{"name":"instance_whole_image","description":"made from a server","instance_id":"{instance}","vault_id":"{vault}","image_tags":[{"key":"key2","value":"value2"},{"key":"key1","value":"value1"}]}`, 200, jobFields, "", true},
	{"5.1.6", "POST", "/v1/cloudimages/wholeimages/action", `{"name":"backup_whole_image","description":"made","backup_id":"{backup1}","image_tags":[{"key":"key2","value":"value2"},{"key":"key1","value":"value1"}]}`, 200, jobFields, "", true},
	{"5.1.6", "POST", "/v1/cloudimages/wholeimages/action", `{"name":"backup_whole_image","description":"made from a backup","backup_id":"{backup2}","whole_image_type":"CBR","tags":["aaa.111","bbb.333","ccc.444"]}`, 200, jobFields, "", true},
	{"5.1.6", "POST", "/v1/cloudimages/wholeimages/action", `{"name":"backup_whole_image","description":"made from a backup","backup_id":"{backup3}","whole_image_type":"CBR","instance_id":"","image_tags":[{"key":"key2","value":"value2"},{"key":"key1","value":"value1"}]}`, 200, jobFields, "", true},
	{"5.1.7", "PUT", "/v1/cloudimages/{queued}/upload", `{"image_url":"images:Centos6.5-disk1.vmdk"}`, 200, jobFields, "", true},
	{"5.1.8", "POST", "/v1/cloudimages/{active}/file", `{"bucket_url":"images:out/centos7_5.qcow2","file_format":"qcow2","is_quick_export":false}`, 200, jobFields, "", true},
	{"5.1.8", "POST", "/v1/cloudimages/{active}/file", `{"bucket_url":"images:out/quick.zvhd2","file_format":"","is_quick_export":true}`, 200, jobFields, "", true},
	{"5.1.9", "GET", "/v1/cloudimages/os_version", "", 200, "[].platform:string [].version_list:array [].version_list.[].platform:string [].version_list.[].os_version_key:string [].version_list.[].os_version:string [].version_list.[].os_bit:number [].version_list.[].os_type:string", "", false},
	{"5.1.9", "GET", "/v1/cloudimages/os_version?tag=kvm&tag=uefi", "", 200, "[].platform:string", "", false},
	{"5.2.2", "POST", "/v1/cloudimages/members", `{"images":["{active}","{other}"],"projects":["{friend}","edc89b490d7d4392898e19b2deb34797"]}`, 200, jobFields, "", true},
	{"5.2.3", "PUT", "/v1/cloudimages/members", `{"images":["{active}","{other}"],"project_id":"{friend}","status":"accepted"}`, 200, jobFields, "{friend}", true},
	{"5.2.3", "PUT", "/v1/cloudimages/members", `{"images":["{active}","{other}"],"project_id":"{friend}","status":"accepted","vault_id":"{vault}"}`, 200, jobFields, "{friend}", true},
	{"5.2.1", "DELETE", "/v1/cloudimages/members", `{"images":["{active}","{other}"],"projects":["{friend}","edc89b490d7d4392898e19b2deb34797"]}`, 200, jobFields, "", true},
	{"5.3.1", "POST", "/v1/cloudimages/{active}/copy", `{"name":"ims_encrypted_copy3","description":"test copy","cmk_id":"bd66288c-9081-460a-8227-4cbd0c814cb4"}`, 200, jobFields, "", true},
	{"5.3.2", "POST", "/v1/cloudimages/{active}/cross_region_copy", `{"name":"test-copy-1001-4","description":"test","region":"region-2","project_name":"project-1","agency_name":"ims_copy_image"}`, 200, jobFields, "", true},
	{"5.3.2", "POST", "/v1/cloudimages/{whole}/cross_region_copy", `{"name":"test-copy-1001-4","description":"test","region":"region-2","project_name":"project-1","agency_name":"ims_copy_image","vault_id":"{vault}"}`, 200, jobFields, "", true},
	{"5.4.1", "GET", "/v1/cloudimages/quota", "", 200, "quotas:object quotas.resources:array quotas.resources.[].type:string quotas.resources.[].used:number quotas.resources.[].quota:number quotas.resources.[].min:number quotas.resources.[].max:number", "", false},
	{"5.5.1", "GET", "/v1/{project}/jobs/{job}", "", 200, jobAnswerFields, "", false},
	{"5.5.1", "GET", "/v1/{project}/jobs/{partsJob}", "", 200, jobAnswerFields + " entities.sub_jobs_list:strings " + under("entities.sub_jobs_result.[]", subJobFields), "", false},
	{"5.5.1", "GET", "/v1/{project}/jobs/{memberJob}", "", 200, "entities.results.[].image_id:string entities.results.[].project_id:string entities.results.[].status:string", "", false},
	{"clients", "GET", "/v1/cloudimages/job/{job}", "", 200, jobAnswerFields, "", false},

	{"6.1.1", "GET", "/v2/images", "", 200, "schema:string first:string next:string images.[].id:string", "", false},
	{"6.1.1", "GET", "/v2/images?id={rich}", "", 200, under("images.[]", patchedFields), "", false},
	{"6.1.1", "GET", "/v2/images?__imagetype=gold&visibility=public&protected=true", "", 200, "images:array", "", false},
	{"6.1.1", "GET", "/v2/images?owner={project}", "", 200, "images:array", "", false},
	{"6.1.1", "GET", "/v2/images?member_status=accepted&visibility=shared&__imagetype=shared", "", 200, "images:array", "{friend}", false},
	{"clients", "GET", "/v2/images?sort=name:asc,id:desc&limit=1", "", 200, "images.[].id:string", "", false},
	{"6.1.2", "GET", "/v2/images/{rich}", "", 200, patchedFields, "", false},
	{"6.1.3", "PATCH", "/v2/images/{rich}", `v2.1[{"op":"replace","path":"/name","value":"test01"}]`, 200, patchedFields + " __support_agent_list:string", "", false},
	{"6.1.3", "PATCH", "/v2/images/{rich}", `v2.0[{"replace":"/name","value":"test01"}]`, 200, patchedFields, "", false},
	{"6.1.4", "PUT", "/v2/images/{queued2}/file", "{file}", 204, "", "", false},
	{"6.1.4", "GET", "/v2/images/{queued2}/file", "", 200, "", "", false},
	{"6.1.5", "DELETE", "/v2/images/{doomed}", `{"delete_backup":true}`, 204, "", "", false},
	{"6.1.6", "POST", "/v2/images", `{"__os_version":"Ubuntu 14.04 server 64bit","container_format":"bare","disk_format":"vhd","min_disk":100,"min_ram":1024,"name":"test","tags":["test=testvalue","image=imagevalue"],"visibility":"private","protected":false}`, 201, createdFields, "", false},
	{"6.1.6", "POST", "/v2/images", `{"__os_version":"Ubuntu 14.04 server 64bit","container_format":"bare","disk_format":"vhd","min_disk":1,"min_ram":1024,"name":"test","tags":["test","image"],"visibility":"private","protected":false}`, 201, createdFields, "", false},
	{"6.1.7", "DELETE", "/v1.1/images/{doomed2}", "", 204, "", "", false},
	{"6.1.8", "HEAD", "/v1/images/{active}", "", 200, "", "", false},
	{"6.1.9", "GET", "/v1.1/images/detail?disk_format=zvhd2", "", 200, under("images.[]", v1Fields), "", false},
	{"6.2.1", "GET", "/v2/schemas/image", "", 200, "additionalProperties:object additionalProperties.type:string name:string links:array links.[].href:string links.[].rel:string properties:object", "", false},
	{"6.2.2", "GET", "/v2/schemas/images", "", 200, "name:string links:array links.[].href:string links.[].rel:string properties:object properties.images.items.properties:object", "", false},
	{"6.2.3", "GET", "/v2/schemas/member", "", 200, "name:string properties:object properties.status.enum:strings", "", false},
	{"6.2.4", "GET", "/v2/schemas/members", "", 200, "name:string links:array links.[].href:string links.[].rel:string properties:object properties.members.items.name:string", "", false},
	{"6.3.1", "POST", "/v2/images/{active}/members", `{"member":"{friend}"}`, 200, memberFields, "", false},
	{"6.3.2", "PUT", "/v2/images/{active}/members/{friend}", `{"status":"accepted"}`, 200, memberFields, "{friend}", false},
	{"6.3.2", "PUT", "/v2/images/{active}/members/{friend}", `{"status":"accepted","vault_id":"{vault}"}`, 200, memberFields, "{friend}", false},
	{"6.3.3", "GET", "/v2/images/{active}/members/{friend}", "", 200, memberFields, "", false},
	{"6.3.4", "GET", "/v2/images/{active}/members", "", 200, "members:array schema:string " + under("members.[]", memberFields), "", false},
	{"clients", "GET", "/v1/{project}/cloudimages/{active}/members", "", 200, "members:array schema:string " + under("members.[]", memberFields) + " page_info.current_count:number", "", false},
	{"clients", "GET", "/v1/{project}/cloudimages/{active}/members/{friend}", "", 200, memberFields, "", false},
	{"6.3.5", "DELETE", "/V2/images/{active}/members/{friend}", "", 204, "", "", false},
	{"6.4.1", "GET", "/", "", 300, "versions:array versions.[].status:string versions.[].id:string versions.[].links.[].href:string versions.[].links.[].rel:string", "", false},
	{"6.4.2", "GET", "/v2.0", "", 300, "versions:array versions.[].status:string versions.[].id:string versions.[].links.[].href:string versions.[].links.[].rel:string", "", false},
	{"clients", "GET", "/v2", "", 300, "versions:array", "", false},
	{"clients", "GET", "/v2/", "", 300, "versions:array", "", false},
	{"clients", "GET", "/versions", "", 300, "versions:array", "", false},

	{"clients", "POST", "/v2.1/cloudimages/quickimport/action", `{"name":"safe","image_url":"images:centos70.zvhd2","os_version":"CentOS 7.0 64bit","min_disk":40}`, 200, jobFields, "", true},
	{"clients", "POST", "/v2.1/cloudimages/action", `{"name":"safe","image_url":"images:centos70.qcow2","min_disk":40}`, 200, jobFields, "", true},
	{"clients", "POST", "/v2.1/cloudimages/dataimages/action", `{"name":"safe","image_url":"images:fedora_data1.qcow2","min_disk":40}`, 200, jobFields, "", true},
	{"clients", "POST", "/v2.1/cloudimages/{active}/file", `{"bucket_url":"images:out/safe.vmdk","file_format":"vmdk"}`, 200, jobFields, "", true},
	{"clients", "POST", "/v2.1/cloudimages/{active}/copy", `{"name":"safe"}`, 200, jobFields, "", true},
	{"clients", "POST", "/v2/{project}/images/{active}/tags", `{"tag":{"key":"colour","value":"red"}}`, 204, "", "", false},
	{"clients", "GET", "/v2/{project}/images/{active}/tags", "", 200, "tags.[].key:string tags.[].value:string", "", false},
	{"clients", "POST", "/v2/{project}/images/{active}/tags/action", `{"action":"create","tags":[{"key":"size","value":"9"},{"key":"shape","value":""}]}`, 204, "", "", false},
	{"clients", "GET", "/v2/{project}/images/tags", "", 200, "tags.[].key:string tags.[].values:strings", "", false},
	{"clients", "POST", "/v2/{project}/images/resource_instances/action", `{"action":"filter","tags":[{"key":"colour","values":["red"]}],"limit":"10","offset":"0"}`, 200, "total_count:number resources.[].resource_id:string resources.[].resource_name:string resources.[].resource_detail.status:string resources.[].tags.[].key:string", "", false},
	{"clients", "POST", "/v2/{project}/images/resource_instances/action", `{"action":"count","tags_any":[{"key":"colour","values":[]}]}`, 200, "total_count:number", "", false},
	{"clients", "DELETE", "/v2/{project}/images/{active}/tags/colour", "", 204, "", "", false},
	{"clients", "DELETE", "/v1/{project}/cloudimages/{active}/tags/delete", `{"tags":[{"key":"size","value":"9"}]}`, 204, "", "", false},
	{"clients", "PUT", "/v1/cloudimages/tags", `{"image_id":"{active}","image_tag":{"key":"colour","value":"blue"}}`, 204, "", "", false},
	{"clients", "PUT", "/v1/cloudimages/tags", `{"image_id":"{active}","tag":"taste.sweet"}`, 204, "", "", false},
	{"clients", "GET", "/v1/cloudimages/tags?limit=10&page=1", "", 200, "tags:strings", "", false},
	{"clients", "PUT", "/v2/images/{active}/tags/plain", "", 204, "", "", false},
	{"clients", "DELETE", "/v2/images/{active}/tags/plain", "", 204, "", "", false},
}

// under puts a path before each field of a list.
func under(path, fields string) string {
	var all []string
	for _, f := range strings.Fields(fields) {
		rest, optional := strings.CutPrefix(f, "?")
		f = path + "." + rest
		if optional {
			f = "?" + f
		}
		all = append(all, f)
	}
	return strings.Join(all, " ")
}

// newWorld returns a cloud in which every example can be tried, and what the names in braces stand for.
func newWorld(t *testing.T, alter ...func(*imageservice.Config)) (*cloud, map[string]string) {
	t.Helper()
	dir := t.TempDir()
	d := disk(5<<20, 0, 2)
	files := []string{"system", "data", "backup"}
	for _, name := range files {
		if err := os.WriteFile(filepath.Join(dir, name), d, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	c := newCloud(t, func(cfg *imageservice.Config) {
		cfg.Resources = imageservice.Resources{
			Volumes:   map[string]string{"c5dfbd0c-bf0a-4798-a453-61dc6b54aa30": at("data"), "lonely": at("data")},
			Instances: map[string][]string{"877a2cda-ba63-4e1e-b95f-e67e48b6129a": {at("system"), "c5dfbd0c-bf0a-4798-a453-61dc6b54aa30"}, "bare": nil},
			Backups:   map[string][]string{"b1": {at("backup")}, "b2": {at("backup"), at("data")}, "b3": {at("backup")}, "b4": {at("backup")}, "empty": nil},
			Regions:   map[string]string{"region-2": "project-1"},
		}
		for _, f := range alter {
			f(cfg)
		}
	})
	c.put("centos70.zvhd2", encode(t, d))
	c.put("x.raw", d)
	c.put("x.mf", bitmapOf(d))
	iso := disk(1<<20, 0)
	copy(iso[16*2048:], "\x01CD001\x01")
	c.put("centos70.iso", iso)
	for key, format := range map[string]string{"centos70.qcow2": "qcow2", "fedora_data1.qcow2": "qcow2", "Centos6.5-disk1.vmdk": "vmdk"} {
		c.put(key, writeAs(t, format, d))
	}
	names := map[string]string{
		"project": project, "friend": friend, "instance": "877a2cda-ba63-4e1e-b95f-e67e48b6129a", "volume": "c5dfbd0c-bf0a-4798-a453-61dc6b54aa30",
		"vault": "de9fcf45-11b2-432c-8562-5c5428574600", "backup1": "b1", "backup2": "b2", "backup3": "b3",
		"file": string(encode(t, disk(1<<20, 0))),
	}
	for _, name := range []string{"active", "other", "doomed", "doomed2"} {
		job, err := c.importing(t, quick("centos70.zvhd2"))
		if err != nil {
			t.Fatal(err)
		}
		names[name], names["job"] = job.ImageID, job.ID
	}
	names["rich"] = c.makes(t, "/v2/cloudimages/action", `{"name":"rich","image_url":"images:centos70.qcow2","os_version":"CentOS 7.0 64bit","min_disk":40,"max_ram":4096,"min_ram":1024,"cmk_id":"k"}`)
	c.call(t, "PATCH", "/v2/cloudimages/"+names["rich"], `[{"op":"add","path":"/__support_kvm_gpu_type","value":"P100"},{"op":"add","path":"/__support_largememory","value":"true"},
		{"op":"add","path":"/__support_diskintensive","value":"true"},{"op":"add","path":"/__support_highperformance","value":"true"},{"op":"add","path":"/__support_kvm_infiniband","value":"true"},{"op":"add","path":"/__support_agent_list","value":"hss,ces"}]`, 200)
	names["whole"] = c.makes(t, "/v1/cloudimages/wholeimages/action", `{"name":"whole","backup_id":"b4","whole_image_type":"CBR"}`)
	pending := c.makes(t, "/v2/cloudimages/quickimport/action", `{"name":"pending","image_url":"images:centos70.zvhd2","os_version":"CentOS 7.0 64bit","min_disk":40}`)
	names["memberJob"] = c.succeeds(t, "POST", "/v1/cloudimages/members", fmt.Sprintf(`{"images":[%q],"projects":[%q]}`, pending, friend)).ID
	names["partsJob"] = c.succeeds(t, "POST", "/v2/cloudimages/action", fmt.Sprintf(`{"data_images":[{"name":"part","volume_id":%q}]}`, names["volume"])).ID
	for _, name := range []string{"queued", "queued2"} {
		var made struct{ ID string }
		c.call(t, "POST", "/v2/images", `{"name":"queued"}`, 201, &made)
		names[name] = made.ID
	}
	for range 20 { // so that there are two native pages
		c.call(t, "POST", "/v2/images", `{"name":"filler"}`, 201)
	}
	return c, names
}

// call sends a request, whose status must be that, and reads the answer into v.
func (c *cloud) call(t testing.TB, method, path, body string, status int, v ...any) {
	t.Helper()
	got, _, answer := c.send(t, method, path, body)
	if got != status {
		t.Fatalf("%s %s: %d %s", method, path, got, answer)
	}
	for _, to := range v {
		if err := json.Unmarshal([]byte(answer), to); err != nil {
			t.Fatal(err)
		}
	}
}

// ends waits for a job.
func (c *cloud) ends(t testing.TB, id string, alter ...func(*http.Request)) ims.Job {
	t.Helper()
	for t.Context().Err() == nil {
		_, _, body := c.send(t, "GET", "/v1/cloudimages/job/"+id, "", alter...)
		var a struct {
			Status, JobType string
			ErrorCode       *string `json:"error_code"`
			FailReason      *string `json:"fail_reason"`
			Entities        struct {
				ImageID string `json:"image_id"`
			}
		}
		if err := json.Unmarshal([]byte(body), &a); err != nil {
			t.Fatal(err, body)
		}
		j := ims.Job{ID: id, Status: ims.JobStatus(a.Status), ImageID: a.Entities.ImageID}
		if j.Status == ims.JobFail {
			j.Code, j.Reason = *a.ErrorCode, *a.FailReason
		}
		if j.Status == ims.JobFail || j.Status == ims.JobSuccess {
			return j
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("the test is over")
	return ims.Job{}
}

// succeeds sends a request that begins a job, which must succeed.
func (c *cloud) succeeds(t testing.TB, method, path, body string) ims.Job {
	t.Helper()
	var a struct {
		ID string `json:"job_id"`
	}
	c.call(t, method, path, body, 200, &a)
	j := c.ends(t, a.ID)
	if j.Status != ims.JobSuccess {
		t.Fatalf("%s %s: %+v", method, path, j)
	}
	return j
}

// makes is succeeds for a job that makes an image, whose id it returns.
func (c *cloud) makes(t testing.TB, path, body string) string {
	t.Helper()
	return c.succeeds(t, "POST", path, body).ImageID
}

// in acts for a project.
func in(t testing.TB, project string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("X-Project-Id", project) }
}

// TestExamples tries every call of the reference with the request of its example, and holds the answer against
// the table of its fields.
func TestExamples(t *testing.T) {
	c, names := newWorld(t)
	var pairs []string
	for name, v := range names {
		pairs = append(pairs, "{"+name+"}", v)
	}
	fill := strings.NewReplacer(pairs...).Replace
	cases := 0
	for _, e := range examples {
		body := fill(e.body)
		var alter []func(*http.Request)
		if e.as != "" {
			alter = append(alter, in(t, fill(e.as)))
		}
		switch {
		case strings.HasPrefix(body, "v2."):
			kind := "application/openstack-images-" + body[:4] + "-json-patch"
			body = body[4:]
			alter = append(alter, func(r *http.Request) { r.Header.Set("Content-Type", kind) })
		case strings.HasSuffix(e.path, "/file") && e.method == "PUT":
			alter = append(alter, func(r *http.Request) { r.Header.Set("Content-Type", "application/octet-stream") })
		}
		status, header, answer := c.send(t, e.method, fill(e.path), body, alter...)
		cases++
		if status != e.status || header.Get("X-Request-Id") == "" {
			t.Errorf("%s %s %s: %d %s, want %d", e.section, e.method, e.path, status, answer, e.status)
			continue
		}
		if e.fields != "" {
			var v any
			if err := json.Unmarshal([]byte(answer), &v); err != nil {
				t.Errorf("%s %s: %v", e.method, e.path, err)
			}
			for _, field := range strings.Fields(e.fields) {
				cases++
				if err := checkField(v, field); err != nil {
					t.Errorf("%s %s %s: %v", e.section, e.method, e.path, err)
				}
			}
		}
		if e.job {
			var a struct {
				ID string `json:"job_id"`
			}
			if err := json.Unmarshal([]byte(answer), &a); err != nil {
				t.Fatal(err)
			}
			if j := c.ends(t, a.ID, alter...); j.Status != ims.JobSuccess {
				t.Errorf("%s %s %s %s: %+v", e.section, e.method, e.path, e.body, j)
			}
		}
	}
	t.Logf("%d examples, %d cases", len(examples), cases)
}

// checkField follows a path to a field and checks its type.
func checkField(v any, field string) error {
	path, optional := strings.CutPrefix(field, "?")
	path, kind, _ := strings.Cut(path, ":")
	for step := range strings.SplitSeq(path, ".") {
		if step == "[]" {
			list, _ := v.([]any)
			if len(list) == 0 {
				return fmt.Errorf("%s: no element", field)
			}
			v = list[0]
			continue
		}
		m, _ := v.(map[string]any)
		got, ok := m[step]
		if !ok || got == nil {
			if optional {
				return nil
			}
			return fmt.Errorf("%s: there is no %s", field, step)
		}
		v = got
	}
	got := map[string]bool{}
	switch v := v.(type) {
	case string:
		got["string"] = true
	case float64:
		got["number"] = true
	case bool:
		got["bool"] = true
	case map[string]any:
		got["object"] = true
	case []any:
		got["array"] = true
		got["strings"] = !slices.ContainsFunc(v, func(e any) bool { _, ok := e.(string); return !ok })
	}
	if !got[kind] {
		return fmt.Errorf("%s is %T", field, v)
	}
	return nil
}

// TestEveryRoute holds the service's routes against the examples: each has one, and none is missing.
func TestEveryRoute(t *testing.T) {
	c := newCloud(t)
	tried := func(r imageservice.Route) bool {
		return slices.ContainsFunc(examples, func(e example) bool {
			path, _, _ := strings.Cut(strings.ToLower(e.path), "?")
			a, b := strings.Split(path, "/"), strings.Split(r.Path, "/")
			if len(a) != len(b) || e.method != r.Method {
				return false
			}
			for i := range a {
				if b[i] != a[i] && !strings.HasPrefix(b[i], "{") {
					return false
				}
			}
			return true
		})
	}
	for _, r := range c.Routes() {
		if !tried(r) {
			t.Errorf("%s %s is never tried", r.Method, r.Path)
		}
		path := strings.NewReplacer("{project_id}", project, "{image_id}", "x", "{job_id}", "x", "{member_id}", "x", "{tag}", "x", "{key}", "x", "{api_version}", "v2").Replace(r.Path)
		status, _, body := c.send(t, r.Method, path, "")
		if status == 405 || status == 501 || status >= 500 || status == 404 && strings.Contains(body, "APIGW") {
			t.Errorf("%s %s: %d %s", r.Method, r.Path, status, body)
		}
	}
	t.Logf("%d routes", len(c.Routes()))
}
