package sandbox_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"imgferry/ims"
	"imgferry/limits"
	"imgferry/sandbox"
)

// serveConfig names, in the environment, the settings in JSON with which this program is to be a sandbox
// until it is killed.
const serveConfig = "SANDBOX_TEST_SERVE"

func TestMain(m *testing.M) {
	if cfg := os.Getenv(serveConfig); cfg != "" {
		fmt.Fprintln(os.Stderr, serve([]byte(cfg)))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func serve(p []byte) error {
	var cfg sandbox.Config
	if err := json.Unmarshal(p, &cfg); err != nil {
		return err
	}
	s, err := sandbox.Start(context.Background(), cfg)
	if err != nil {
		return err
	}
	fmt.Println(s.ImageEndpoint())
	return s.Wait()
}

// process is a sandbox in a process of its own.
type process struct {
	cmd      *exec.Cmd
	client   *ims.Client
	endpoint string
}

func startProcess(t *testing.T, cfg sandbox.Config) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	settings, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(exe)}
	p.cmd.Env = append(os.Environ(), serveConfig+"="+string(settings))
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	endpoint, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the sandbox does not come up: %v", err)
	}
	p.endpoint = endpoint[:len(endpoint)-1]
	p.client, err = ims.New(ims.Config{
		Endpoint: p.endpoint, ProjectID: sandbox.DefaultProjectID, Credentials: ims.AccessKey(cfg.AccessKey, cfg.SecretKey, ""),
		RequestTimeout: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// kill is kill -9, and waits for the end.
func (p *process) kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

// TestKillDuringImports kills a sandbox, several times, while imports begin, run and end, and images are
// deleted. What was answered must be there after the restart, and every job must end as if nothing had been.
func TestKillDuringImports(t *testing.T) {
	cfg := sandbox.Config{DataDir: t.TempDir(), AccessKey: "AK", SecretKey: "SECRETSECRET"}
	disk, mf := raw()
	box, err := sandbox.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	put(t, box, "good.raw", disk)
	put(t, box, "good.mf", mf)
	put(t, box, "bad.raw", disk) // without a bitmap
	if err := box.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	jobs := make(map[string]string)    // acknowledged: the object of each job's id
	deleted := make(map[string]string) // by image id: "yes", or "maybe" if nobody answered
	for round := range 3 {
		p := startProcess(t, cfg)
		// Jobs of the rounds before: by now most have ended.
		older := slices.Collect(maps.Keys(jobs))
		maps.Copy(jobs, killUnderLoad(t, p, 24+13*round, older, deleted))
	}

	p := startProcess(t, cfg)
	expected := make(map[string]string) // the status of each image that there must be
	for id, object := range jobs {
		job, err := p.client.WaitJob(t.Context(), id, ims.Wait{Interval: 5 * time.Millisecond})
		var failed *ims.JobError
		switch {
		case object == "good.raw" && (err != nil || job.Progress != 1):
			t.Errorf("job %s of a good object: %+v, %v", id, job, err)
		case object == "bad.raw" && (!errors.As(err, &failed) || failed.Code != string(limits.FastFormat)):
			t.Errorf("job %s of a bad object: %+v, %v", id, job, err)
		}
		expected[job.ImageID] = ims.StatusActive
		if object == "bad.raw" {
			expected[job.ImageID] = ims.StatusKilled
		}
	}
	images, err := p.client.Images(t.Context(), url.Values{})
	if err != nil {
		t.Fatal(err)
	}
	listed := make(map[string]bool)
	for _, img := range images {
		listed[img.ID] = true
		want, known := expected[img.ID]
		switch {
		case deleted[img.ID] == "yes":
			t.Errorf("deleted image %s is back", img.ID)
		case known && img.Status != want:
			t.Errorf("image %s is %s, not %s", img.ID, img.Status, want)
		case !known && img.Status != ims.StatusActive && img.Status != ims.StatusKilled && img.Status != ims.StatusQueued && img.Status != ims.StatusSaving:
			// The answer to its request was lost: it may be there, but whole.
			t.Errorf("image %s is %s", img.ID, img.Status)
		}
	}
	for id := range expected {
		if !listed[id] && deleted[id] == "" {
			t.Errorf("image %s is lost", id)
		}
	}
	t.Logf("%d jobs answered, %d images, %d deletions begun", len(jobs), len(images), len(deleted))
	if len(jobs) < 30 || len(deleted) == 0 {
		t.Error("the kills came too soon to show anything")
	}
}

// killUnderLoad begins imports from four goroutines, while a fifth deletes the images of older jobs as they end,
// until that many imports were answered; then it kills the process, with imports and requests under way.
func killUnderLoad(t *testing.T, p *process, until int, older []string, deleted map[string]string) map[string]string {
	t.Helper()
	jobs := make(map[string]string)
	var mu sync.Mutex // guards jobs
	var g sync.WaitGroup
	for worker := range 4 {
		g.Go(func() {
			for i := worker; ; i++ {
				object := "good.raw"
				if i%4 == 3 {
					object = "bad.raw"
				}
				id, err := p.client.QuickImport(t.Context(), ims.QuickImportRequest{
					Name: "test", OSVersion: "Other Linux(64 bit)", ImageURL: limits.ImageURL(sandbox.DefaultBucket, object), MinDisk: 1,
				})
				if err != nil {
					return // killed
				}
				mu.Lock()
				jobs[id] = object
				if len(jobs) == until {
					p.cmd.Process.Kill()
				}
				mu.Unlock()
			}
		})
	}
	for _, id := range older { // nobody else uses deleted meanwhile
		job, err := p.client.Job(t.Context(), id)
		if err != nil {
			break // killed
		}
		if job.Status != ims.JobSuccess || deleted[job.ImageID] != "" {
			continue
		}
		deleted[job.ImageID] = "maybe"
		if p.client.DeleteImage(t.Context(), job.ImageID) == nil {
			deleted[job.ImageID] = "yes"
		}
	}
	g.Wait()
	p.kill()
	return jobs
}

// TestKillDuringJobs kills a sandbox in the middle of copies, exports and shares. Each job must end well after
// the restart, what was exported must be whole, and the progress that was told must not be taken back.
func TestKillDuringJobs(t *testing.T) {
	cfg := sandbox.Config{DataDir: t.TempDir(), AccessKey: "AK", SecretKey: "SECRETSECRET"}
	disk, mf := raw()
	box, err := sandbox.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	put(t, box, "good.raw", disk)
	put(t, box, "good.mf", mf)
	if err := box.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := startProcess(t, cfg)
	var images []string
	for range 6 {
		id, err := p.client.QuickImport(t.Context(), ims.QuickImportRequest{Name: "test", OSVersion: "Other Linux(64 bit)", ImageURL: limits.ImageURL(sandbox.DefaultBucket, "good.raw"), MinDisk: 1})
		if err != nil {
			t.Fatal(err)
		}
		job, err := p.client.WaitJob(t.Context(), id, ims.Wait{Interval: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, job.ImageID)
	}
	jobs := make(map[string]float64) // by id: the progress that was told
	for round := range 3 {
		direct := caller{p.endpoint, http.DefaultClient}
		for n, image := range images {
			for path, body := range map[string]string{
				"/v1/cloudimages/" + image + "/file": fmt.Sprintf(`{"bucket_url":"images:out-%d-%d.qcow2","file_format":"qcow2"}`, round, n),
				"/v1/cloudimages/" + image + "/copy": `{"name":"copy"}`,
				"/v1/cloudimages/members":            fmt.Sprintf(`{"images":[%q],"projects":["p%d"]}`, image, round),
			} {
				status, answer, err := direct.call("POST", path, body)
				if err != nil || status != 200 {
					t.Fatalf("%s: %d %s %v", path, status, answer, err)
				}
				jobs[field(answer, "job_id")] = 0
			}
		}
		for id, before := range jobs {
			job, err := p.client.Job(t.Context(), id)
			if err != nil || job.Progress < before {
				t.Errorf("job %s went from %v to %+v, %v", id, before, job, err)
			}
			jobs[id] = job.Progress
		}
		p.kill()
		p = startProcess(t, cfg)
		for id, before := range jobs {
			job, err := p.client.Job(t.Context(), id)
			if err != nil || job.Progress < before {
				t.Errorf("job %s went from %v to %+v, %v", id, before, job, err)
			}
		}
		for id := range jobs { // an image is exported once at a time
			if _, err := p.client.WaitJob(t.Context(), id, ims.Wait{Interval: 2 * time.Millisecond}); err != nil {
				t.Errorf("job %s: %v", id, err)
			}
			jobs[id] = 1
		}
	}
	all, err := p.client.Images(t.Context(), url.Values{"status": {ims.StatusActive}})
	if err != nil || len(all) != 4*len(images) {
		t.Errorf("%d images are active, want %d, %v", len(all), 4*len(images), err)
	}
	p.kill()
	box, err = sandbox.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close(t.Context())
	want := ""
	for round := range 3 {
		for n := range images {
			got := content(t, box, fmt.Sprintf("out-%d-%d.qcow2", round, n))
			if want = cmp.Or(want, got); got != want {
				t.Errorf("export %d of image %d differs", round, n)
			}
		}
	}
}
