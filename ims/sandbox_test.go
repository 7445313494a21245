package ims_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"imgferry/ims"
	"imgferry/sandbox"
	"imgferry/sandbox/imageservice"
)

// TestAgainstSandbox makes the calls that no command makes against a service that really does the work:
// images of servers, volumes and backups, decisions on shared images, native tags, other regions.
func TestAgainstSandbox(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(disk, []byte("the first sector of a disk"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, 1<<20); err != nil {
		t.Fatal(err)
	}
	const server, volume, backup, elsewhere = "server-1", "volume-1", "backup-1", "edc89b490d7d4392898e19b2deb34797"
	box, err := sandbox.Start(t.Context(), sandbox.Config{
		DataDir: t.TempDir(), OtherProjects: map[string]string{elsewhere: "elsewhere"},
		Resources: imageservice.Resources{
			Volumes: map[string]string{volume: disk}, Instances: map[string][]string{server: {disk, disk}}, Backups: map[string][]string{backup: {disk}},
			Regions: map[string]string{"region-2": "project-2"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { box.Close(context.Background()) })
	project := func(id string) *ims.Client {
		c, err := ims.New(ims.Config{Endpoint: box.ImageEndpoint(), ProjectID: id, Credentials: ims.AccessKey(box.AccessKey(), box.SecretKey(), "")})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c, other := project(box.ProjectID()), project(elsewhere)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := func(c *ims.Client, id string, err error) ims.Job {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		job, err := c.WaitJob(ctx, id, ims.Wait{Interval: 20 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		if again, err := c.JobProgress(ctx, id); err != nil || again.Status != ims.JobSuccess {
			t.Errorf("%+v, %v", again, err)
		}
		return job
	}
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}

	id, err := c.CreateImage(ctx, ims.CreateImageRequest{Name: "of-a-server", InstanceID: server, ImageTags: []ims.Tag{{Key: "a", Value: "b"}}})
	image := done(c, id, err).ImageID
	id, err = c.CreateImage(ctx, ims.CreateImageRequest{Name: "of-a-volume", VolumeID: volume, OSVersion: "CentOS 7.6 64bit"})
	done(c, id, err)
	id, err = c.CreateWholeImage(ctx, ims.WholeImageRequest{Name: "whole", BackupID: backup})
	whole := done(c, id, err).ImageID
	id, err = c.CopyToRegion(ctx, image, ims.RegionCopyRequest{Name: "away", Region: "region-2", ProjectName: "project-2", AgencyName: "agency"})
	done(c, id, err)
	if m, err := c.Image(ctx, whole); err != nil || !m.WholeImage {
		t.Errorf("%+v, %v", m, err)
	}

	id, err = c.AddMembers(ctx, []string{image}, []string{elsewhere})
	if job := done(c, id, err); len(job.Results) != 1 || !job.Results[0].OK() {
		t.Errorf("%+v", job)
	}
	pending, err := (ims.Filter{ImageType: "shared", Visibility: "shared", MemberStatus: ims.MemberPending}).Query()
	ok(err)
	for _, decision := range []string{ims.MemberAccepted, ims.MemberRejected} {
		if images, err := other.Images(ctx, pending); err != nil || decision == ims.MemberAccepted && (len(images) != 1 || images[0].ID != image) {
			t.Errorf("%s: %+v, %v", decision, images, err)
		}
		id, err = other.DecideMembers(ctx, []string{image}, decision, "")
		done(other, id, err)
		if members, err := c.Members(ctx, image); err != nil || len(members) != 1 || members[0].Status != decision || members[0].ProjectID != elsewhere {
			t.Errorf("%+v, %v", members, err)
		}
	}

	ok(c.AddTag(ctx, image, ims.Tag{Key: "team", Value: "blue"}))
	ok(c.AddNativeTag(ctx, image, "stage=test"))
	if tags, err := c.ImageTags(ctx, image); err != nil || len(tags) != 3 || !slices.Contains(tags, ims.Tag{Key: "stage", Value: "test"}) {
		t.Errorf("%+v, %v", tags, err)
	}
	if tags, err := c.ProjectTags(ctx); err != nil || !slices.ContainsFunc(tags, func(v ims.TagValues) bool { return v.Key == "team" && slices.Equal(v.Values, []string{"blue"}) }) {
		t.Errorf("%+v, %v", tags, err)
	}
	ok(c.RemoveNativeTag(ctx, image, "stage=test"))
	ok(c.RemoveTag(ctx, image, "team"))
	if m, err := c.NativeImage(ctx, image); err != nil || m.ID != image || !slices.Equal(m.Tags, []string{"a=b"}) {
		t.Errorf("%+v, %v", m, err)
	}
	ok(c.DeleteWholeImage(ctx, whole))
}
