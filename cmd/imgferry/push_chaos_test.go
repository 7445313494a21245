package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"imgferry/upload/uploadtest"
)

// Whole runs of the program against a store that fails: each ends with the object that an undisturbed
// run makes or with a clear error, keeps at most one unfinished upload and says so, and the same command
// heals whatever came of it.
func TestChaos(t *testing.T) {
	w := newWorld(t)
	disk, data := w.noiseDisk()
	sparse := w.sparseDisk()
	direct := w.bucket()

	all := make(uploadtest.Counts)
	var mu sync.Mutex // guards all
	var runs errgroup.Group
	runs.SetLimit(8)
	count, every := 0, 8
	if raced {
		every = 16
	}
	start := func(kind string, calls []uploadtest.Call, want []byte, args func(key string) []string) {
		schedule := uploadtest.Schedule(uint64(len(kind)), calls, nil, 1)
		for i, faults := range schedule {
			if !long() && (i%every != 0 || stalls(faults)) {
				continue
			}
			count++
			seed := uint64(count)
			runs.Go(func() error {
				key := fmt.Sprintf("%s-%d.img", kind, i)
				proxy := uploadtest.NewProxy(t, uploadtest.Options{Target: w.box.StoreEndpoint(), Seed: seed, Hold: 4 * time.Second})
				defer proxy.Close()
				proxy.Inject(faults...)
				timeout := "1m" // a busy machine may be slow to answer
				if stalls(faults) {
					timeout = "3s"
				}
				settings := append(w.through(proxy.URL), "--retries", "7", "--request-timeout", timeout, "--part-size", chaosPart, "--concurrency", "3")
				command := args(key)
				command = append(append(command[:1:1], settings...), command[1:]...)
				met := func(r result) string {
					return fmt.Sprintf("%v, faults %v, exit code %d: %s", command, faults, r.code, r.stderr)
				}

				r := w.hurried(t.Context(), command...)
				if strings.Contains(r.stderr, "the-test-secret") || strings.Contains(r.stderr, "panic") || (r.stdout != "") != (r.code == 0) {
					t.Errorf("%s; stdout %q", met(r), r.stdout)
				}
				if r.code != 0 && passes(faults) {
					t.Errorf("failed: %s", met(r))
				}
				left, err := unfinishedOf(direct, key)
				kept := strings.Contains(r.stderr, "To go on:")
				if err != nil || len(left) > 1 || (len(left) == 1) != kept {
					t.Errorf("left %v, %v: %s", left, err, met(r))
				}
				if early := proxy.TooSoon(); len(early) > 0 {
					t.Errorf("%v: %s", early, met(r))
				}
				mu.Lock()
				all.Add(proxy.Injected())
				mu.Unlock()

				proxy.Calm()
				if again := w.hurried(t.Context(), command...); again.code != 0 {
					t.Errorf("again: %s\nafter: %s", met(again), met(r))
				}
				got, err := content(direct, key)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("an object of %d bytes instead of %d, %v: %s", len(got), len(want), err, met(r))
				}
				if left, err := unfinishedOf(direct, key); err != nil || len(left) > 0 {
					t.Errorf("left in the end %v, %v: %s", left, err, met(r))
				}
				return nil
			})
		}
	}

	whole := w.hurried(t.Context(), append(append([]string{"upload"}, w.through(w.box.StoreEndpoint())...), "--part-size", chaosPart, disk, "s3://"+w.box.Bucket()+"/whole")...)
	converted, err := content(direct, "whole")
	if whole.code != 0 || err != nil || len(converted) < chaosDisk {
		t.Fatalf("%+v, %v", whole, err)
	}
	to := func(key string) string { return "s3://" + w.box.Bucket() + "/" + key }
	type calls = []uploadtest.Call
	start("push", calls{uploadtest.HeadBucket, uploadtest.Head, uploadtest.ListUploads, uploadtest.Begin, uploadtest.PutPart, uploadtest.Complete, uploadtest.Copy},
		converted, func(key string) []string {
			return []string{"push", "--bucket", w.box.Bucket(), "--ims-endpoint", w.box.ImageEndpoint(), "--project-id", w.box.ProjectID(), "--name", key, "--key", key, disk}
		})
	start("verified", calls{uploadtest.Get, uploadtest.PutPart, uploadtest.Complete}, converted,
		func(key string) []string { return []string{"upload", "--verify", disk, to(key)} })
	start("as-is", calls{uploadtest.Begin, uploadtest.PutPart, uploadtest.Complete}, data,
		func(key string) []string { return []string{"upload", "--as-is", disk, to(key)} })
	if long() {
		start("sparse", calls{uploadtest.CopyPart, uploadtest.PutPart}, sparse.data,
			func(key string) []string {
				return []string{"upload", "-O", "raw", "--unproven-bitmap", sparse.path, to(key)}
			})
	}
	_ = runs.Wait() // no run returns an error
	t.Logf("%d runs met %d faults", count, all.Total())
	if all.Total() < count {
		t.Errorf("%d runs met only %d faults", count, all.Total())
	}
}

// passes reports whether a run succeeds in spite of the faults.
func passes(faults []uploadtest.Fault) bool {
	for _, f := range faults {
		if f.Class.Permanent() || f.Class == uploadtest.Tomorrow || f.Class == uploadtest.WrongETag && f.Call != uploadtest.PutPart {
			return false
		}
	}
	return true
}

// stalls reports whether one of the faults is waited for.
func stalls(faults []uploadtest.Fault) bool {
	return slices.ContainsFunc(faults, func(f uploadtest.Fault) bool {
		return f.Class == uploadtest.StalledRequest || f.Class == uploadtest.StalledReply
	})
}
