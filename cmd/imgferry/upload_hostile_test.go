package main

import (
	"fmt"
	"strings"
	"testing"

	"imgferry/pipeline"
	"imgferry/upload"
)

// What makes no sense is refused with one sentence that says what would, and nothing is left in the bucket.
func TestUploadRefuses(t *testing.T) {
	s := newShell(t)
	disk := s.disk(1)
	for _, c := range []struct {
		code int
		says string
		args string
	}{
		{exitUsage, "parts of 1 B won't do: an upload of this size takes parts of 5 MiB to 2560 MiB", "s3://BUCKET/k --part-size 1"},
		{exitUsage, "parts of 6.0 GiB won't do", "s3://BUCKET/k --part-size 6GiB"},
		{exitUsage, "parts of 5242879 bytes won't do: an upload of this size takes parts of 5 MiB to", "s3://BUCKET/k --part-size 5242879"},
		{exitUsage, "two part buffers of an upload of this size take 21 MiB of memory, and only 16 MiB are allowed", "s3://BUCKET/k --memory 16MiB"},
		{exitUsage, "only 1 B are allowed\nAllow more with --memory.", "s3://BUCKET/k --memory 1"},
		{exitUsage, "--bwlimit takes bytes a second, 8.0 KiB or more, such as 10MiB, not 1", "s3://BUCKET/k --bwlimit 1"},
		{exitUsage, "--concurrency takes 1 to 64", "s3://BUCKET/k --concurrency 1000"},
		{exitUsage, "encryption is AES256, kms or kms:KEYID", "s3://BUCKET/k --sse nonsense"},
		{exitUsage, "The store may not encrypt in this way: leave --sse out", "s3://BUCKET/k --sse kms"},
		{exitUsage, `"No_Bucket!" can't be the name of a bucket`, "s3://No_Bucket!/k"},
		{exitUsage, `the port "99999"`, "s3://BUCKET/k --obs-endpoint http://127.0.0.1:99999"},
		{exitUsage, "holds a space", "s3://BUCKET/aSPACEb"},
		{exitUsage, `has the step ".."`, "s3://BUCKET/a/../b"},
		{exitUsage, "has 1025 bytes", "s3://BUCKET/" + strings.Repeat("k", 1025)},
		{exitNotFound, "Make the bucket first", "s3://no-such-bucket/k"},
	} {
		args := strings.Fields(strings.ReplaceAll(c.args, "BUCKET", s.box.Bucket()))
		args[0] = strings.ReplaceAll(args[0], "SPACE", " ")
		r := s.want(c.code, append([]string{"upload", disk}, args...)...)
		if !strings.Contains(r.stderr, c.says) || r.stdout != "" {
			t.Errorf("%s: %q is not in\n%s", c.args, c.says, r.stderr)
		}
	}
	if r := s.want(0, "uploads"); !strings.Contains(r.stderr, "no unfinished uploads\n") {
		t.Errorf("%s%s", r.stdout, r.stderr)
	}
}

// A flag that would do nothing is refused, each in one sentence. What the environment and the settings file say is not.
func TestIdleFlagsAreRefused(t *testing.T) {
	s := newShell(t)
	disk := s.disk(1)
	s.t.Setenv(envStyle, "path")
	for _, c := range []struct{ says, args string }{
		{"--as-is sends the file as it is: leave --output-format out", "upload DISK s3://BUCKET/k --as-is -O raw"},
		{"--as-is sends the file as it is: leave --output-format out", "upload DISK s3://BUCKET/k --as-is --format zvhd2"},
		{"--as-is sends the file as it is: leave --source-format out", "upload DISK s3://BUCKET/k --as-is -f qcow2"},
		{"--as-is sends the file as it is: leave --snapshot out", "upload DISK s3://BUCKET/k --as-is -l x"},
		{"--as-is sends the file as it is: leave --disk out", "upload DISK s3://BUCKET/k --as-is --disk 1"},
		{"--as-is sends the file as it is: leave --allow-backing out", "upload DISK s3://BUCKET/k --as-is --allow-backing ."},
		{"--as-is sends the file as it is: leave --backing-format out", "upload DISK s3://BUCKET/k --as-is --backing-format raw"},
		{"--as-is sends bytes as they are: leave --compress-level out", "upload DISK s3://BUCKET/k --as-is --compress-level best"},
		{"-O raw sends bytes as they are: leave --compress-level out", "upload DISK s3://BUCKET/k -O raw --unproven-bitmap --compress-level auto"},
		{"--bitmap and --unproven-bitmap go with -O raw", "upload DISK s3://BUCKET/k --unproven-bitmap"},
		{"--bucket other and s3://BUCKET/k contradict each other: leave --bucket out", "upload DISK s3://BUCKET/k --bucket other"},
		{"--sandbox is a cloud of its own: leave --obs-endpoint out", "upload DISK s3://BUCKET/k --sandbox --sandbox-data DATA --obs-endpoint https://obs.example.com"},
		{"--sandbox is a cloud of its own: leave --signature out", "push DISK --sandbox --sandbox-data DATA --signature v2"},
		{"--sandbox is a cloud of its own: leave --ims-endpoint out", "push s3://BUCKET/none --sandbox --sandbox-data DATA --ims-endpoint https://ims.example.com"},
		{"--format raw sends bytes as they are: leave --compress-level out", "push DISK --format raw --unproven-bitmap --compress-level fastest"},
		{"--bitmap and --unproven-bitmap go with --via fast", "push DISK --format raw --via import --unproven-bitmap"},
		{"--arch is for system disks with --via import: leave it out", "push DISK --via import --type DataImage --arch x86"},
	} {
		args := strings.NewReplacer("DISK", disk, "BUCKET", s.box.Bucket(), "DATA", s.dir+"/box").Replace(c.args)
		says := "imgferry: " + strings.ReplaceAll(c.says, "BUCKET", s.box.Bucket()) + "\n"
		if r := s.want(exitUsage, strings.Fields(args)...); !strings.HasPrefix(r.stderr, says) || r.stdout != "" {
			t.Errorf("%s: %q is not\n%s", c.args, says, r.stderr)
		}
	}
	// What says no more than what is done anyway is no mistake.
	for i, args := range []string{
		"--as-is -f raw --verify --concurrency 2 --part-size 5MiB --memory 64MiB", "-O raw --unproven-bitmap --abort-on-interrupt --memory 64MiB", "--bucket BUCKET -O zvhd2 --memory 64MiB",
	} {
		args = strings.ReplaceAll(args, "BUCKET", s.box.Bucket())
		s.want(0, append([]string{"upload", disk, fmt.Sprintf("s3://%s/%d", s.box.Bucket(), i)}, strings.Fields(args)...)...)
	}
	// The environment leads elsewhere, and the sandbox is used all the same.
	s.want(0, "upload", disk, "s3://images/k", "--sandbox", "--sandbox-data", s.dir+"/box")
}

// An object that is there is in the way, and the way out is one that the command has.
func TestUploadWhereThereIsOne(t *testing.T) {
	s := newShell(t)
	to := "s3://" + s.box.Bucket() + "/k"
	disk := s.disk(1)
	r := s.want(0, "upload", disk, to, "--verify")
	if !strings.Contains(r.stderr, " to "+s.box.Bucket()+"/k in ") || !strings.Contains(r.stderr, " s; read it back and found it the same\n") {
		t.Error(r.stderr)
	}
	if r := s.want(0, "upload", disk, to); !strings.Contains(r.stderr, "sent 0 B from a disk of ") || !strings.Contains(r.stderr, " was there already\n") {
		t.Error(r.stderr)
	}
	if r := s.want(exitExists, "upload", "-O", "raw", "--unproven-bitmap", disk, to); !strings.HasSuffix(r.stderr, "\nUse --overwrite to replace it, or name another key.\n") {
		t.Error(r.stderr)
	}
	if r := s.want(exitExists, "push", "--key", "k", s.disk(2)); !strings.HasSuffix(r.stderr, "\nUse --overwrite to replace it, or --key for another name.\n") {
		t.Error(r.stderr)
	}
}

// Uploads takes the address that upload takes, pages of uploads, and ages in days.
func TestUploadsManyAndByAddress(t *testing.T) {
	s := newShell(t)
	const many = 1100 // more than a page
	bucket := s.bucket()
	for i := range many {
		if _, err := bucket.Begin(t.Context(), fmt.Sprintf("many/%04d", i%(many/2)), upload.Metadata{}); err != nil {
			t.Fatal(err)
		}
	}
	rows := func(r result) int { return strings.Count(r.stdout, "many/") }
	if r := s.want(0, "uploads"); rows(r) != many {
		t.Errorf("%d uploads", rows(r))
	}
	for _, c := range []struct {
		want int
		args string
	}{
		{2, "many/0007"}, {0, "many/"}, {0, "many/0007 --older-than 7d"}, {2, "s3://BUCKET/many/0007"}, {many, "s3://BUCKET"},
		{0, "--abort --older-than 1h"}, {0, "--abort no-such-key"}, {2, "--abort s3://BUCKET/many/0007"}, {0, "many/0007"},
	} {
		r := s.want(0, append([]string{"uploads"}, strings.Fields(strings.ReplaceAll(c.args, "BUCKET", s.box.Bucket()))...)...)
		if rows(r) != c.want {
			t.Errorf("%s: %d uploads", c.args, rows(r))
		}
	}
	if r := s.want(0, "uploads", "--abort", "no-such-key"); r.stderr != "no unfinished uploads of "+s.box.Bucket()+"/no-such-key\n" {
		t.Errorf("%q", r.stderr)
	}
	for _, bad := range []string{"-1s", "xyz", "0", "0d", "-1d", "d", "99999d", "7"} {
		if r := s.want(exitUsage, "uploads", "--older-than", bad); !strings.Contains(r.stderr, "use a time such as 12h or 7d") {
			t.Errorf("%s: %s", bad, r.stderr)
		}
	}
}

// An object that is not what was sent is a failure of its own, with a way out.
func TestDiffersIsAFailure(t *testing.T) {
	code, hint := classify(fmt.Errorf("%w: images/k", pipeline.ErrDiffers))
	if code != exitFailure || !strings.Contains(hint, "--overwrite") {
		t.Errorf("%d, %q", code, hint)
	}
	// It is decided before what the object looks like, which is no matter of the source.
	code, again := classify(&advised{fmt.Errorf("%w: %w", pipeline.ErrDiffers, &upload.Error{Temporary: true}), nil})
	if code != exitFailure || again != hint {
		t.Errorf("%d, %q", code, again)
	}
}
