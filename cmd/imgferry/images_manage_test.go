package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imgferry/ims"
	"imgferry/limits"
)

const (
	projectB = "9c61004714024f9586705d090530f9fa"
	projectC = "edc89b490d7d4392898e19b2deb34797"
	someKey  = "bd66288c-9081-460a-8227-4cbd0c814cb4"
)

// read decodes what a command printed as JSON.
func read[T any](t *testing.T, r result) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(r.stdout), &v); err != nil {
		t.Fatalf("%v: %q", err, r.stdout)
	}
	return v
}

// The life of an image by commands alone: metadata, file, changes, tags, copies, exports, sharing.
func TestImagesManage(t *testing.T) {
	s := newShell(t)
	s.seed()
	line := func(args ...string) string { return strings.TrimSuffix(s.want(0, args...).stdout, "\n") }

	id := line("images", "create-metadata", "--name", "web", "--os-version", "Ubuntu 18.04 server 64bit", "--min-disk", "40", "--tag", "team=blue", "--description", "the web")
	if got := s.ids("--status", "queued"); !slices.Equal(got, []string{id}) {
		t.Fatalf("queued: %v, not %s", got, id)
	}
	if got := line("images", "register", id, s.box.Bucket()+":"+shellObject); got != id {
		t.Errorf("registered %q, not %s", got, id)
	}
	web := read[imageReport](t, s.want(0, "images", "show", "web", "--json"))
	if web.Status != "active" || web.OSVersion != "Ubuntu 18.04 server 64bit" || web.MinDisk != 40 || !slices.Contains(web.Tags, "team=blue") || web.Description != "the web" {
		t.Errorf("%+v", web)
	}

	imported := line("images", "import", shellObject, "--name", "imported", "--os-version", "CentOS 7.6 64bit", "--cmk-id", someKey, "--tag", "a=b", "--min-memory", "512")
	if i := read[imageReport](t, s.want(0, "images", "show", imported, "-o", "json")); i.Name != "imported" || i.CMKID != someKey || i.MinRAM != 512 || i.MinDisk != 40 {
		t.Errorf("%+v", i)
	}
	data := line("images", "import", shellObject, "--name", "data", "--type", "DataImage", "--os-type", "Windows", "--min-disk", "50")
	if i := read[imageReport](t, s.want(0, "images", "show", data, "-o", "json")); i.Type != "DataImage" || i.MinDisk != 50 {
		t.Errorf("%+v", i)
	}

	changed := read[imageReport](t, s.want(0, "images", "update", "web", "--name", "web2", "--description", "", "--min-memory", "2048", "--set", "stage=test", "--json"))
	if changed.Name != "web2" || changed.Description != "" || changed.MinRAM != 2048 || changed.Properties["stage"] != "test" {
		t.Errorf("%+v", changed)
	}
	if r := read[imageReport](t, s.want(0, "images", "update", id, "--unset", "stage", "--json")); r.Properties["stage"] != "" {
		t.Errorf("%+v", r)
	}

	if got := read[[]tagReport](t, s.want(0, "images", "tag", "add", "web2", "team=red", "x=", "--json")); !slices.Contains(got, tagReport{"team", "red"}) || !slices.Contains(got, tagReport{"x", ""}) {
		t.Errorf("%+v", got)
	}
	s.want(exitNotFound, "images", "tag", "remove", "web2", "team", "nothing")
	if got := read[[]tagReport](t, s.want(0, "images", "tag", "remove", "web2", "team", "x", "--json")); len(got) != 0 {
		t.Errorf("%+v", got)
	}
	if r := s.want(0, "images", "tag", "list", "web2"); r.stdout != "" || !strings.Contains(r.stderr, "no tags") {
		t.Errorf("%+v", r)
	}

	for _, format := range ims.ExportFormats() {
		object := s.box.Bucket() + ":out." + format
		if got := line("images", "export", "web2", "out."+format); got != object {
			t.Errorf("exported to %q", got)
		}
	}
	s.want(exitUsage, "images", "export", "web2", "out.qcow2") // it is there
	s.want(exitNotFound, "images", "export", "nothing", "more.qcow2")
	if again := line("images", "import", "out.vmdk", "--name", "again", "--os-version", "CentOS 7.6 64bit"); !imageID.MatchString(again) {
		t.Errorf("an exported image, imported again: %q", again)
	}

	twin := line("images", "copy", "web2", "twin", "--description", "d", "--cmk-id", someKey)
	if i := read[imageReport](t, s.want(0, "images", "show", twin, "--json")); i.Name != "twin" || i.CMKID != someKey || i.Description != "d" {
		t.Errorf("%+v", i)
	}
	job := line("images", "copy", "web2", "later", "--no-wait")
	if later := line("jobs", "wait", job); !imageID.MatchString(later) {
		t.Errorf("waited for %q", later)
	}
	if j := read[jobReport](t, s.want(0, "jobs", "show", job, "-o", "json")); j.ID != job || j.Status != "SUCCESS" || j.Progress != 1 || j.ImageName == "" && j.ImageID == "" {
		t.Errorf("%+v", j)
	}
	s.want(exitNotFound, "jobs", "show", "0000")

	shared := read[started](t, s.want(0, "images", "share", "web2", "--with", projectB+","+projectC, "--json"))
	if len(shared.Results) != 2 || shared.JobStatus != "SUCCESS" {
		t.Errorf("%+v", shared)
	}
	// It is still the project's own, and found by name; what others share is another matter.
	if got := s.ids("--name", "web2"); !slices.Equal(got, []string{id}) {
		t.Errorf("own: %v", got)
	}
	if got := s.ids("--shared", "pending"); len(got) != 0 {
		t.Errorf("shared by others: %v", got)
	}
	if r := s.want(0, "images", "unshare", "web2", "--from", "all"); strings.Count(r.stdout, "\n") != 3 || !strings.Contains(r.stdout, projectC) {
		t.Errorf("%q", r.stdout)
	}
	s.want(exitNotFound, "images", "unshare", "web2", "--from", "all")
	s.want(exitUsage, "images", "accept", id) // nobody shares it

	var quota []quotaReport
	if quota = read[[]quotaReport](t, s.want(0, "quota", "--json")); len(quota) == 0 || quota[0].Type != "image" || quota[0].Used != len(s.ids()) || quota[0].Quota < quota[0].Used {
		t.Errorf("%+v", quota)
	}
}

func TestImagesManageUsage(t *testing.T) {
	s := newShell(t)
	for _, args := range []string{
		"images create-metadata", "images create-metadata --name x --tag y", "images create-metadata --name x --disk-format tar", "images create-metadata --name x --min-disk 2000",
		"images register x", "images register " + noImage + " a:b:c d",
		"images import x", "images import --name x", "images import k --name x --type VM", "images import k --name x --tag y", "images import k.iso --name x --type IsoImage",
		"images import k --name x --type DataImage --configure", "images import k --name x --min-disk 39", "images import k --name x --cmk-id a/b",
		"images import k --name x --via air", "images import k --name x --via fast --cmk-id k", "images import k --name x --via fast --configure",
		"images create", "images create --name x", "images create --instance i", "images create --name x --instance i --volume v", "images create --name x --volume v",
		"images create --name x --backup b --whole", "images create --name x --instance i --whole", "images create --name x --instance i --vault v",
		"images create --name x --backup b --os-version y", "images create --name x --instance i --type BMS", "images create --name x --volume v --type DataImage --min-memory 1",
		"images create --name x --volume v --type IsoImage", "images create --name x --instance i --tag y", "images create y",
		"images update x --min-memory 2 --max-memory 1",
		"images export x", "images export x y", "images export x y --format raw", "images export x y.iso",
		"images copy x", "images copy x y --agency a", "images copy x y --to-region r --cmk-id k",
		"images update x", "images update x --set y", "images update x --min-memory -1", "images tag add x", "images tag remove x",
		"images share x", "images unshare x", "images accept x", "images reject x", "images accept",
		"images list --name=", "images list --shared no", "images list --shared=", "images list --public --shared pending", "images list --sort owner",
		"images list --created-after yesterday", "images list --supports kvm", "images list --min-disk -1",
		"jobs show", "jobs wait", "jobs wait x --wait-timeout=-1s", "quota x", "os-versions --wait-timeout 1s",
		"push x --via air", "push x --via register --bitmap y", "images copy x y --wait-timeout=-1s",
	} {
		if r := s.want(exitUsage, strings.Fields(args)...); r.stdout != "" {
			t.Errorf("%s: %q", args, r.stdout)
		}
	}
	if r := s.want(exitUsage, "images", "list", "--name", ""); !strings.Contains(r.stderr, "--name is empty") {
		t.Errorf("%+v", r)
	}
	s.want(exitUsage, "os-versions", " ")
	s.want(exitNotFound, "images", "register", "nothing", "k", "--bucket", "images")
}

// fakeService answers by path, for what a sandbox never says.
func (s *shell) fakeService(answers map[string]string) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for path, body := range answers {
			method, path, _ := strings.Cut(path, " ")
			if r.Method == method && strings.HasPrefix(r.URL.Path, path) {
				w.Write([]byte(body))
				return
			}
		}
		w.WriteHeader(http.StatusNotFound)
	}))
	s.t.Cleanup(server.Close)
	s.t.Setenv(envIMSEndpoint, server.URL)
}

func TestOSVersions(t *testing.T) {
	s := newShell(t)
	s.fakeService(map[string]string{"GET /v1/cloudimages/os_version": `[{"platform":"Ubuntu","version_list":[
		{"os_version":"Ubuntu 22.04 server 64bit","os_bit":64,"os_type":"Linux"},{"os_version":"Ubuntu 20.04 server 64bit","os_bit":64,"os_type":"Linux"}]},
		{"platform":"Odd\u001b[2J","version_list":[{"os_version":"Odd\u001b[2J 1","os_bit":null}]}]`})
	r := s.want(0, "os-versions")
	if strings.Count(r.stdout, "\n") != 4 || strings.Contains(r.stdout, "\x1b") || !strings.HasPrefix(r.stdout, "PLATFORM") {
		t.Errorf("%q", r.stdout)
	}
	if r := s.want(0, "os-versions", "ubuntu", "22.04", "x64"); r.stdout != "Ubuntu 22.04 server 64bit\n" || r.stderr != "" {
		t.Errorf("%+v", r)
	}
	if v := read[osReport](t, s.want(0, "os-versions", "ubuntu 20", "-o", "json")); v.OSVersion != "Ubuntu 20.04 server 64bit" || v.Bits != 64 || v.Platform != "Ubuntu" {
		t.Errorf("%+v", v)
	}
	if r := s.want(exitUsage, "os-versions", "ubuntu"); r.stdout != "" || !strings.Contains(r.stderr, "may mean 2") || !strings.Contains(r.stderr, "\n  Ubuntu 20.04 server 64bit") {
		t.Errorf("%+v", r)
	}
	if r := s.want(exitNotFound, "os-versions", "plan9"); !strings.Contains(r.stderr, `"plan9"`) {
		t.Errorf("%+v", r)
	}
}

// What jobs say that did not go well.
func TestJobsThatFail(t *testing.T) {
	s := newShell(t)
	const image = `{"images":[{"id":"` + noImage + `","name":"x","status":"active","__image_size":"1"}]}`
	s.fakeService(map[string]string{
		"GET /v2/cloudimages": image, "POST /v1/cloudimages/": `{"job_id":"j1"}`, "POST /v2/cloudimages/": `{"job_id":"j1"}`, "PUT /v1/cloudimages/": `{"job_id":"j2"}`,
		"GET /v1/" + s.box.ProjectID() + "/jobs/j1": `{"status":"FAIL","error_code":"IMG.0057","fail_reason":"damaged\u001b"}`,
		"GET /v1/" + s.box.ProjectID() + "/jobs/j2": `{"status":"SUCCESS","entities":{"results":[{"image_id":"a","project_id":"p","status":"success"},{"image_id":"b","project_id":"p","status":"failed"}]}}`,
		"GET /v1/" + s.box.ProjectID() + "/jobs/j3": `{"status":"RUNNING","entities":{"process_percent":0.3}}`,
		"GET /v1/cloudimages/job/j4":                `{"status":"INIT"}`,
	})
	for _, args := range []string{"images export x b:k.qcow2 --bucket none", "images copy x y", "images import bucket:k --name n", "jobs wait j1", "images share x --with " + projectB} {
		args = strings.ReplaceAll(args, "b:k.", "bucket:k.")
		if r := s.want(exitImport, strings.Fields(args)...); r.stdout != "" || !strings.Contains(r.stderr, "damaged (IMG.0057)") || strings.Contains(r.stderr, "\x1b") {
			t.Errorf("%s: %+v", args, r)
		}
	}
	r := s.want(exitImport, "images", "accept", noImage, "--json")
	if got := read[started](t, r); len(got.Results) != 2 || !strings.Contains(r.stderr, "1 of 2 parts did not succeed: image b for project p: failed") {
		t.Errorf("%+v", r)
	}
	if r := s.want(exitTimeout, "jobs", "wait", "j3", "--wait-timeout", "300ms"); !strings.Contains(r.stderr, "RUNNING at 30 %") || !strings.Contains(r.stderr, "imgferry jobs wait j3") {
		t.Errorf("%+v", r)
	}
	// The other path, where the service has no first one.
	if j := read[jobReport](t, s.want(0, "jobs", "show", "j4", "--json")); j.Status != "INIT" {
		t.Errorf("%+v", j)
	}
	if r := s.want(0, "jobs", "show", "j2"); !strings.Contains(r.stdout, "IMAGE  PROJECT  STATUS\na      p        success\n") {
		t.Errorf("%q", r.stdout)
	}
	s.want(exitNotFound, "jobs", "show", "j5")
	// Above 128 GB there is only the quick export.
	s.fakeService(map[string]string{"GET /v2/cloudimages": strings.Replace(image, `"1"`, `"137438953473"`, 1), "POST /v1/cloudimages/": `{"job_id":"j"}`})
	s.want(exitUsage, "images", "export", "x", "bucket:k.vhd")
	if r := s.want(0, "images", "export", "x", "bucket:k.zvhd2", "--no-wait"); r.stdout != "j\n" {
		t.Errorf("%+v", r)
	}
}

// The ways of push, each as a user sees it.
func TestPushWays(t *testing.T) {
	s := newShell(t)
	disk := s.disk(1)
	for _, args := range [][]string{{"--via", "import", "--cmk-id", someKey}, {"--via", "register"}, {"--via", "fast", "--enterprise-project", "0"}, {"--via", "import", "--format", "raw"}} {
		name := "by-" + strings.ReplaceAll(strings.Join(args, ""), "--", "-")
		r := s.want(0, append([]string{"push", "--os-version", "CentOS 7.6 64bit", "--name", name[:min(len(name), 40)], "--json", disk}, args...)...)
		push := read[struct {
			ImageID     string `json:"image_id"`
			ImageStatus string `json:"image_status"`
		}](t, r)
		image := read[imageReport](t, s.want(0, "images", "show", push.ImageID, "--json"))
		if push.ImageStatus != "active" || image.OSVersion != "CentOS 7.6 64bit" || slices.Contains(args, someKey) != (image.CMKID == someKey) {
			t.Errorf("%v: %+v %+v", args, push, image)
		}
	}
	large := filepath.Join(t.TempDir(), "large.raw")
	if err := os.WriteFile(large, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, limits.MaxFile+512); err != nil {
		t.Fatal(err)
	}
	s.store.set(answer(500, "")) // nothing is asked for
	s.ims.set(answer(500, ""))
	for _, via := range []string{"import", "register"} {
		if r := s.want(exitUsage, "push", "--source-format", "raw", "--via", via, large); !strings.Contains(r.stderr, "use a fast import (IMG.0059)") {
			t.Errorf("%+v", r)
		}
	}
	s.want(exitUsage, "push", "--cmk-id", someKey, disk)
	s.want(exitUsage, "push", "--via", "register", "--enterprise-project", "0", disk)
}
