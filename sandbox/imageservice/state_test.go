package imageservice

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"imgferry/ims"
)

// TestForget keeps the newest ended jobs and deleted images that are young enough, and all that are of use.
func TestForget(t *testing.T) {
	s, err := openState(filepath.Join(t.TempDir(), "db"), true)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	now := time.Now()
	old := now.Add(-2 * historyAge)
	record := func(id string, status ims.JobStatus, parent string, end time.Time) {
		t.Helper()
		if err := s.update(func(t tx) error { return t.putJob(&job{ID: id, Status: status, Parent: parent, End: end}) }); err != nil {
			t.Fatal(err)
		}
	}
	record("old", ims.JobSuccess, "", old)
	record("old but open", ims.JobRunning, "", time.Time{})
	record("old part of an open one", ims.JobSuccess, "old but open", old)
	for i := range 8 {
		record(fmt.Sprint("young ", i), ims.JobFail, "", now)
	}
	err = s.update(func(t tx) error {
		for id, i := range map[string]image{"gone": {Status: ims.StatusDeleted, Deleted: old}, "going": {Status: ims.StatusDeleted, Deleted: now}, "there": {Status: ims.StatusActive}} {
			i.ID = id
			if err := t.putImage(&i); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = s.update(func(t tx) error {
		n, err := t.forget(now.Add(-historyAge), 5)
		if err == nil && n != 1+3+1 {
			err = fmt.Errorf("%d were forgotten", n)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	for id, want := range map[string]bool{"old": false, "old but open": true, "old part of an open one": true, "young 2": false, "young 3": true, "young 7": true} {
		if _, ok, err := s.job(id); err != nil || ok != want {
			t.Errorf("%s: %v, %v", id, ok, err)
		}
	}
	for id, want := range map[string]bool{"gone": false, "going": true, "there": true} {
		if _, ok, err := s.image(id); err != nil || ok != want {
			t.Errorf("%s: %v, %v", id, ok, err)
		}
	}
	if err := s.view(func(t tx) error {
		open, err := t.openJobs(func(job) bool { return true })
		if err == nil && (len(open) != 1 || open[0].ID != "old but open") {
			err = fmt.Errorf("open jobs: %v", open)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}
