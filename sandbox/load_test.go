package sandbox_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"imgferry/ims"
	"imgferry/limits"
	"imgferry/sandbox"
)

// loadTime is how long the clients of TestManyClients go on: long enough here to meet each other, and a minute
// with IMGFERRY_LONG=1.
func loadTime() time.Duration {
	if os.Getenv("IMGFERRY_LONG") != "" {
		return time.Minute
	}
	return 3 * time.Second
}

// caller makes calls of the service, signed. The answer is its status and body.
type caller struct {
	endpoint string
	client   *http.Client
}

func (c caller) call(method, path, body string) (int, string, error) {
	r, err := http.NewRequest(method, c.endpoint+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("Content-Type", "application/json")
	if err := ims.AccessKey("AK", "SECRETSECRET", "").Sign(r, []byte(body), time.Now(), "host"); err != nil {
		return 0, "", err
	}
	resp, err := c.client.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(answer), err
}

// TestManyClients has 50 clients make mixed calls at once. Every request must get an answer that is none of the
// service's own fault, and what was answered must be there in the end.
func TestManyClients(t *testing.T) {
	cfg := sandbox.Config{DataDir: t.TempDir(), AccessKey: "AK", SecretKey: "SECRETSECRET", Quota: 1 << 20}
	box, err := sandbox.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close(t.Context())
	disk, mf := raw()
	put(t, box, "good.raw", disk)
	put(t, box, "good.mf", mf)
	client, err := ims.New(ims.Config{Endpoint: box.ImageEndpoint(), ProjectID: box.ProjectID(), Credentials: ims.AccessKey("AK", "SECRETSECRET", "")})
	if err != nil {
		t.Fatal(err)
	}
	first, err := client.QuickImport(t.Context(), ims.QuickImportRequest{Name: "first", OSVersion: "Other Linux(64 bit)", ImageURL: limits.ImageURL(box.Bucket(), "good.raw"), MinDisk: 1})
	if err != nil {
		t.Fatal(err)
	}
	job, err := client.WaitJob(t.Context(), first, ims.Wait{Interval: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	direct := caller{box.ImageEndpoint(), &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 50}}}
	var mu sync.Mutex // guards what follows
	answers := make(map[string]int)
	kept := make(map[string]bool) // images that must be there, active
	var jobs []string
	end := time.Now().Add(loadTime())
	var g sync.WaitGroup
	for n := range 50 {
		g.Go(func() {
			random := rand.New(rand.NewPCG(uint64(n), 1))
			own := ""
			for time.Now().Before(end) {
				method, path, body := "GET", "/v2/cloudimages?limit=20", ""
				switch pick := random.IntN(12); {
				case pick == 0:
					method, path, body = "POST", "/v2/cloudimages/quickimport/action", fmt.Sprintf(`{"name":"n%d","os_version":"Other Linux(64 bit)","image_url":"images:good.raw","min_disk":1}`, n)
				case pick == 1:
					method, path, body = "POST", "/v1/cloudimages/"+job.ImageID+"/copy", `{"name":"copy"}`
				case pick == 2:
					method, path, body = "POST", "/v1/cloudimages/"+job.ImageID+"/file", fmt.Sprintf(`{"bucket_url":"images:out-%d-%d","is_quick_export":true}`, n, random.Int64())
				case pick == 3:
					method, path, body = "POST", "/v2/images", `{"name":"metadata"}`
				case pick == 4 && own != "":
					method, path = "DELETE", "/v2/images/"+own
					own = ""
				case pick == 5:
					method, path, body = "PATCH", "/v2/cloudimages/"+job.ImageID, fmt.Sprintf(`[{"op":"add","path":"/client%d","value":"x"}]`, n)
				case pick == 6:
					method, path, body = "POST", "/v1/cloudimages/members", fmt.Sprintf(`{"images":[%q],"projects":["p%d"]}`, job.ImageID, n)
				case pick == 7:
					method, path, body = "DELETE", "/v1/cloudimages/members", fmt.Sprintf(`{"images":[%q],"projects":["p%d"]}`, job.ImageID, n)
				case pick == 8:
					path = "/v1/cloudimages/quota"
				case pick == 9:
					path = "/v1/cloudimages/job/" + first
				case pick == 10:
					method, path, body = "PUT", "/v1/cloudimages/tags", fmt.Sprintf(`{"image_id":%q,"tag":"t%d.%d"}`, job.ImageID, n%10, n)
				}
				status, answer, err := direct.call(method, path, body)
				mu.Lock()
				answers[fmt.Sprint(status)]++
				switch {
				case err != nil:
					t.Errorf("%s %s: no answer: %v", method, path, err)
				case status >= 500:
					t.Errorf("%s %s: %d %s", method, path, status, answer)
				case status == 201:
					own = field(answer, "id")
				case status == 200 && field(answer, "job_id") != "" && path != "/v1/cloudimages/job/"+first:
					jobs = append(jobs, field(answer, "job_id"))
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	g.Wait()
	codes := make(map[string]int)
	for _, id := range jobs {
		j, err := client.WaitJob(t.Context(), id, ims.Wait{Interval: 5 * time.Millisecond})
		var failed *ims.JobError
		switch {
		case errors.As(err, &failed):
			codes[failed.Code]++
			t.Errorf("job %s %s: %v", id, j.Type, err)
		case err != nil:
			t.Fatalf("job %s is lost: %v", id, err)
		case j.Type == "imsImportImageJob" || j.Type == "imsCopyImageInRegionJob":
			kept[j.ImageID] = true
		}
	}
	images, err := client.Images(t.Context(), url.Values{"status": {"active"}})
	if err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(filepath.Join(cfg.DataDir, "images.db.disks"))
	if err != nil {
		t.Fatal(err)
	}
	if len(images) != len(kept)+1 || len(files) != len(images) {
		t.Errorf("%d active images with %d disks, want %d", len(images), len(files), len(kept)+1)
	}
	for _, i := range images {
		if !kept[i.ID] && i.ID != job.ImageID {
			t.Errorf("image %s came from nowhere", i.ID)
		}
	}
	t.Logf("%d jobs; answers by status: %v", len(jobs), answers)
}

// field is a string of a JSON object, or "".
func field(answer, name string) string {
	_, rest, ok := bytes.Cut([]byte(answer), []byte(`"`+name+`":"`))
	if !ok {
		return ""
	}
	value, _, _ := bytes.Cut(rest, []byte(`"`))
	return string(value)
}
