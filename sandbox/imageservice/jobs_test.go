package imageservice_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imgferry/ims"
	"imgferry/sandbox/imageservice"
)

// TestProgressOutlivesRestart stops the service in the middle of an import: its progress must not go back.
func TestProgressOutlivesRestart(t *testing.T) {
	c := newCloud(t)
	image := encode(t, disk(24<<20, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11))
	tokens := c.gate("slow", image)
	id, err := c.client.QuickImport(t.Context(), quick("slow"))
	if err != nil {
		t.Fatal(err)
	}
	seen := 0.0
	for seen < 0.4 {
		select {
		case tokens <- struct{}{}:
		case <-time.After(20 * time.Millisecond):
		}
		j, err := c.client.Job(t.Context(), id)
		if err != nil || j.Progress < seen {
			t.Fatalf("%+v, %v", j, err)
		}
		seen = j.Progress
	}
	for range 3 {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		c.start(t)
		if j, err := c.client.Job(t.Context(), id); err != nil || j.Progress < seen || j.Status != ims.JobRunning {
			t.Fatalf("after %v: %+v, %v", seen, j, err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c.put("slow", image)
	c.start(t)
	if j, err := c.client.WaitJob(t.Context(), id, ims.Wait{Interval: time.Millisecond}); err != nil || j.Progress != 1 {
		t.Errorf("%+v, %v", j, err)
	}
}

// TestParts imports a system disk with data disks, of which one is damaged: what was made before stays.
func TestParts(t *testing.T) {
	c, _ := newWorld(t)
	c.put("broken.qcow2", []byte("QFI\xfb\x00\x00\x00\x03 and no more"))
	var a struct {
		ID string `json:"job_id"`
	}
	c.call(t, "POST", "/v2/cloudimages/action", `{"name":"s","image_url":"images:centos70.qcow2","os_version":"Windows Server 2019 Standard 64bit","min_disk":40,"data_images":[
		{"name":"good","image_url":"images:fedora_data1.qcow2","min_disk":1},{"name":"bad","image_url":"images:broken.qcow2","min_disk":1},{"name":"never","image_url":"images:centos70.zvhd2","min_disk":1}]}`, 200, &a)
	if j := c.ends(t, a.ID); j.Code != "IMG.0057" || !strings.Contains(j.Reason, "broken.qcow2") {
		t.Errorf("%+v", j)
	}
	var answer struct {
		Entities struct {
			List   []string `json:"sub_jobs_list"`
			Result []struct{ Status string }
		}
	}
	c.call(t, "GET", "/v1/cloudimages/job/"+a.ID, "", 200, &answer)
	if len(answer.Entities.List) != 3 {
		t.Fatalf("%+v", answer)
	}
	for name, want := range map[string]string{"s": "active", "good": "active", "bad": "killed", "never": "killed"} {
		images, err := c.client.Images(t.Context(), map[string][]string{"name": {name}})
		if err != nil || len(images) != 1 || images[0].Status != want {
			t.Errorf("%s: %+v, %v", name, images, err)
		} else if name == "good" && (images[0].OSType != "Windows" || images[0].VirtualEnv != "DataImage") {
			t.Errorf("%+v", images[0])
		}
	}
}

// TestShareLimits shares as far as the reference allows (9.3).
func TestShareLimits(t *testing.T) {
	c, names := newWorld(t)
	for id, most := range map[string]int{names["active"]: 128, names["whole"]: 10} {
		list, err := json.Marshal(many(most))
		if err != nil {
			t.Fatal(err)
		}
		c.succeeds(t, "POST", "/v1/cloudimages/members", fmt.Sprintf(`{"images":[%q],"projects":%s}`, id, list))
		c.succeeds(t, "POST", "/v1/cloudimages/members", fmt.Sprintf(`{"images":[%q],"projects":["p0"]}`, id)) // again is no more
		for path, body := range map[string]string{"/v1/cloudimages/members": fmt.Sprintf(`{"images":[%q],"projects":["more"]}`, id), "/v2/images/" + id + "/members": `{"member":"more"}`} {
			if status, _, answer := c.send(t, "POST", path, body); status != 400 || !strings.Contains(answer, "IMG.0088") {
				t.Errorf("%s: %d %s", path, status, answer)
			}
		}
	}
	// A whole-server image is accepted into a vault only.
	c.succeeds(t, "DELETE", "/v1/cloudimages/members", fmt.Sprintf(`{"images":[%q],"projects":["p0"]}`, names["whole"]))
	c.call(t, "POST", "/v2/images/"+names["whole"]+"/members", `{"member":"`+friend+`"}`, 200)
	path := "/v2/images/" + names["whole"] + "/members/" + friend
	if status, _, answer := c.send(t, "PUT", path, `{"status":"accepted"}`, in(t, friend)); status != 400 || !strings.Contains(answer, "IMG.0184") {
		t.Errorf("%d %s", status, answer)
	}
	if status, _, answer := c.send(t, "PUT", path, `{"status":"accepted","vault_id":"v"}`, in(t, friend)); status != 200 {
		t.Errorf("%d %s", status, answer)
	}
}

// TestSharing follows an image through the lists of both sides.
func TestSharing(t *testing.T) {
	c, names := newWorld(t)
	id := names["other"]
	lists := func(query string) bool {
		_, _, body := c.send(t, "GET", "/v2/cloudimages?"+query, "", in(t, friend))
		return strings.Contains(body, id)
	}
	c.call(t, "POST", "/v2/images/"+id+"/members", `{"member":"`+friend+`"}`, 200)
	for _, step := range []struct {
		status                                 string
		plain, pending, accepted, rejected, to bool
	}{{"", false, true, false, false, true}, {"accepted", true, false, true, false, true}, {"rejected", false, false, false, true, true}} {
		if step.status != "" {
			if status, _, answer := c.send(t, "PUT", "/v2/images/"+id+"/members/"+friend, `{"status":"`+step.status+`"}`, in(t, friend)); status != 200 {
				t.Fatal(answer)
			}
		}
		for query, want := range map[string]bool{"": step.plain, "member_status=pending": step.pending, "member_status=accepted&visibility=shared": step.accepted,
			"member_status=rejected&__imagetype=shared": step.rejected, "member_status=all": true, "owner=" + project: step.plain} {
			if got := lists(query); got != want {
				t.Errorf("%q, %q: listed %v", step.status, query, got)
			}
		}
		if status, _, _ := c.send(t, "GET", "/v2/images/"+id, "", in(t, friend)); status != 200 {
			t.Errorf("%q: shown %d", step.status, status)
		}
	}
	if status, _, _ := c.send(t, "PATCH", "/v2/images/"+id, `[{"op":"replace","path":"/name","value":"mine"}]`, in(t, friend)); status != 403 {
		t.Errorf("a member's patch: %d", status)
	}
	c.call(t, "DELETE", "/v2/images/"+id+"/members/"+friend, "", 204)
	if status, _, _ := c.send(t, "GET", "/v2/images/"+id, "", in(t, friend)); status != 404 {
		t.Errorf("after the end: %d", status)
	}
}

// TestRegions looks at a copy in the region that it went to.
func TestRegions(t *testing.T) {
	c, names := newWorld(t)
	id := c.makes(t, "/v1/cloudimages/"+names["active"]+"/cross_region_copy", goodAway)
	there := func(r *http.Request) {
		r.Host = "region-2.localhost"
		if err := ims.AccessKey(ak, sk, "").Sign(r, nil, time.Now(), "host"); err != nil {
			t.Fatal(err)
		}
	}
	if status, _, body := c.send(t, "GET", "/v2/images/"+id, "", there); status != 200 || !strings.Contains(body, `"status":"active"`) {
		t.Errorf("%d %s", status, body)
	}
	if status, _, _ := c.send(t, "GET", "/v2/images/"+id, ""); status != 404 {
		t.Errorf("here: %d", status)
	}
	if _, _, body := c.send(t, "GET", "/v2/cloudimages", "", there); strings.Contains(body, `"id":"`+names["active"]) || !strings.Contains(body, `"id":"`+id) {
		t.Errorf("%s", body)
	}
	if status, _, body := c.send(t, "GET", "/v2/cloudimages", "", func(r *http.Request) { there(r); r.Host = "nowhere.localhost" }); status == 200 {
		t.Errorf("%s", body)
	}
}

// TestDiskFiles counts the files in the service's folder: one for each disk of an image, and none more.
func TestDiskFiles(t *testing.T) {
	c, names := newWorld(t)
	count := func() int {
		t.Helper()
		entries, err := os.ReadDir(c.database + ".disks")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := count()
	c.succeeds(t, "POST", "/v1/cloudimages/"+names["active"]+"/file", `{"bucket_url":"images:x.vhd","file_format":"vhd"}`)
	c.fails(t, "a damaged bitmap", func() ims.QuickImportRequest { c.put("x.mf", make([]byte, 4096)); return quick("x.raw") }(), "IMG.0057")
	if n := count(); n != before {
		t.Errorf("%d files, want %d", n, before)
	}
	c.call(t, "DELETE", "/v2/images/"+names["doomed"], "", 204)
	if n := count(); n != before-1 {
		t.Errorf("%d files, want %d", n, before-1)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.database+".disks", "left over"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c.start(t)
	if n := count(); n != before-1 {
		t.Errorf("%d files after a restart, want %d", n, before-1)
	}
}

// TestBrokenUpload sends less of a file than it says: the image waits for another attempt.
func TestBrokenUpload(t *testing.T) {
	c := newCloud(t)
	var made struct{ ID string }
	c.call(t, "POST", "/v2/images", `{"disk_format":"zvhd2"}`, 201, &made)
	path := "/v2/images/" + made.ID + "/file"
	file := encode(t, disk(1<<20, 0))
	r, err := http.NewRequestWithContext(t.Context(), "PUT", c.server.URL+path, brokenReader{bytes.NewReader(file[:1000])})
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength = int64(len(file))
	r.Header.Set("X-Auth-Token", token(t))
	if resp, err := http.DefaultClient.Do(r); err == nil {
		resp.Body.Close()
	}
	for t.Context().Err() == nil {
		if img, err := c.client.Image(t.Context(), made.ID); err != nil || img.Status == ims.StatusQueued {
			break
		}
	}
	stream := func(r *http.Request) { r.Header.Set("Content-Type", "application/octet-stream") }
	if status, _, body := c.send(t, "PUT", path, string(file), func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }); status != 415 {
		t.Errorf("%d %s", status, body)
	}
	if status, _, body := c.send(t, "PUT", path, string(file), stream); status != 204 {
		t.Errorf("%d %s", status, body)
	}
	if status, _, body := c.send(t, "PUT", path, string(file), stream); status != 409 {
		t.Errorf("twice: %d %s", status, body)
	}
	if _, _, body := c.send(t, "GET", path, ""); body != string(file) {
		t.Error("the file comes back changed")
	}
	// A damaged one kills the image.
	c.call(t, "POST", "/v2/images", `{}`, 201, &made)
	file[len(file)-4096] ^= 1
	if status, _, body := c.send(t, "PUT", "/v2/images/"+made.ID+"/file", string(file[:len(file)-10]), stream); status != 400 || !strings.Contains(body, "IMG.0057") {
		t.Errorf("%d %s", status, body)
	}
	if img, err := c.client.Image(t.Context(), made.ID); err != nil || img.Status != ims.StatusKilled {
		t.Errorf("%+v, %v", img, err)
	}
}

// brokenReader fails where its reader ends.
type brokenReader struct{ *bytes.Reader }

func (b brokenReader) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err != nil {
		err = http.ErrAbortHandler
	}
	return n, err
}

func TestMetrics(t *testing.T) {
	c := newCloud(t)
	c.put("z", encode(t, disk(1<<20, 0)))
	if _, err := c.importing(t, quick("z")); err != nil {
		t.Fatal(err)
	}
	c.send(t, "BREW", "/any/thing", "")
	for range 100 { // the job is counted after it has ended
		var b bytes.Buffer
		if err := c.WriteMetrics(&b); err != nil {
			t.Fatal(err)
		}
		text := b.String()
		if !strings.Contains(text, `jobs_total{type="imsImportImageJob",result="success"} 1`) {
			time.Sleep(time.Millisecond)
			continue
		}
		for _, want := range []string{`requests_total{method="POST",path="/v2/cloudimages/quickimport/action",status="200"} 1`, `requests_total{method="",path="",status="404"} 1`,
			`images{status="active"} 1`, "# TYPE imgferry_sandbox_jobs gauge\n"} {
			if !strings.Contains(text, want) {
				t.Errorf("no %s in\n%s", want, text)
			}
		}
		return
	}
	t.Error("the job was never counted")
}

func TestParseResource(t *testing.T) {
	for s, want := range map[string]string{"a=b": "a [b]", "a=b,c": "a [b c]", "a=": "a []", "a": "error", "=b": "error", "a=b=c": "a [b=c]"} {
		id, files, err := imageservice.ParseResource(s)
		got := fmt.Sprint(id, " ", files)
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%s: %s, want %s", s, got, want)
		}
	}
}
