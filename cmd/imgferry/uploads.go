package main

import (
	"context"
	"errors"
	"io"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"imgferry/pipeline"
	"imgferry/profile"
	"imgferry/upload"
	"imgferry/upload/obs"
)

type uploadsCommand struct {
	*app
	cloud     cloud
	sandbox   sandboxFlags
	abort     bool
	clean     bool
	olderThan timeout
	out       *output
}

func (a *app) uploadsCommand() *cobra.Command {
	c := &uploadsCommand{app: a, cloud: cloud{app: a}}
	cmd := &cobra.Command{
		Use:   "uploads [KEY]",
		Short: "List or abort unfinished uploads",
		Long: `Uploads lists the unfinished multipart uploads in the bucket, all or those of KEY.
They take up space that is paid for until they are completed or aborted. With
--abort those of KEY are aborted; with --older-than, those that began longer ago
than that, of KEY or of all keys.

--clean removes what uploads of raw disks keep in the bucket: the objects of zeros
under ` + upload.ZeroPrefix + `, which the next one makes anew.`,
		Example: `  imgferry uploads --older-than 48h
  imgferry uploads --abort --older-than 168h`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			key := ""
			if len(args) == 1 {
				key = args[0]
			}
			return c.run(cmd.Context(), key)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&c.abort, "abort", false, "abort the uploads listed; needs KEY or --older-than")
	f.Var(&c.olderThan, "older-than", "only uploads that began longer ago, such as 48h")
	f.BoolVar(&c.clean, "clean", false, "remove the objects of zeros, and their unfinished uploads")
	c.out = a.outputFlags(cmd)
	c.cloud.storeFlags(cmd)
	c.sandbox.add(cmd)
	a.completeBuckets(cmd, &c.cloud, &c.sandbox)
	return cmd
}

// unfinished is an upload with what it has.
type unfinished struct {
	Key       string    `json:"key"`
	UploadID  string    `json:"upload_id"`
	Initiated time.Time `json:"initiated"`
	Parts     int       `json:"parts"`
	Size      int64     `json:"size"`
	Aborted   bool      `json:"aborted"`
}

func (c *uploadsCommand) run(ctx context.Context, key string) error {
	switch {
	case c.abort && key == "" && c.olderThan == 0:
		return usagef("--abort needs the KEY whose uploads are to be aborted, or --older-than")
	case c.clean && (c.abort || key != "" || c.olderThan != 0):
		return usagef("--clean removes the objects of zeros and nothing else: leave the rest out")
	}
	stop, err := c.sandbox.start(ctx, c.app, &c.cloud)
	if err != nil {
		return err
	}
	defer stop()
	bucket, err := c.cloud.store()
	if err != nil {
		return err
	}
	policy := c.cloud.policy()
	store := upload.WithRetry(bucket, policy)
	prefix := key
	if c.clean {
		prefix = upload.ZeroPrefix
	}
	// The first request gives up as early as that of a push: nothing is at stake.
	all, err := upload.WithRetry(bucket, policy.First()).Uploads(ctx, prefix)
	if err != nil {
		return err
	}
	if prefix == "" {
		c.prune(all)
	}
	list := []unfinished{}
	for _, u := range all {
		if key != "" && u.Key != key || c.olderThan != 0 && time.Since(u.Initiated) <= time.Duration(c.olderThan) {
			continue // a longer key that begins the same, or not old enough
		}
		one, err := c.look(ctx, store, u)
		if errors.Is(err, upload.ErrNoUpload) {
			continue // ended in the meantime
		}
		if err != nil {
			return err
		}
		list = append(list, one)
	}
	if c.clean {
		if err := removeZeros(ctx, bucket, policy); err != nil {
			return err
		}
	}
	return c.out.emit(list, func(w io.Writer) error { return c.print(w, list) })
}

// look finds out what an upload has, and aborts it if that is wanted.
func (c *uploadsCommand) look(ctx context.Context, store upload.Bucket, u upload.Unfinished) (unfinished, error) {
	one := unfinished{Key: u.Key, UploadID: u.UploadID, Initiated: u.Initiated}
	parts, err := store.Parts(ctx, u.Key, u.UploadID)
	if err != nil {
		return one, err
	}
	one.Parts = len(parts)
	for _, p := range parts {
		one.Size += p.Size
	}
	if c.abort || c.clean {
		if err := store.Abort(ctx, u.Key, u.UploadID); err != nil {
			return one, err
		}
		one.Aborted = true
	}
	return one, nil
}

// removeZeros removes the objects of zeros.
func removeZeros(ctx context.Context, bucket *obs.Bucket, policy upload.Policy) error {
	for _, key := range upload.ZeroKeys() {
		err := upload.Retry(ctx, policy, "remove the object "+key, func(ctx context.Context) error {
			return bucket.Remove(ctx, key)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// prune removes the journals of uploads that are gone. all are those there are in the bucket.
func (c *uploadsCommand) prune(all []upload.Unfinished) {
	dir, err := profile.StateDir()
	if err != nil {
		return // then there are no journals
	}
	alive := make(map[[2]string]bool, len(all))
	for _, u := range all {
		alive[[2]string{u.Key, u.UploadID}] = true
	}
	err = upload.PruneJournals(pipeline.JournalDir(dir), storeID(&c.cloud, &c.sandbox), func(key, id string) bool { return alive[[2]string{key, id}] })
	if err != nil {
		c.warn("journals of uploads that are gone could not be removed: %v", err)
	}
}

func (c *uploadsCommand) print(w io.Writer, list []unfinished) error {
	if c.clean {
		c.say("the objects of zeros are removed")
	} else if len(list) == 0 {
		c.say("no unfinished uploads")
	}
	if len(list) == 0 {
		return nil
	}
	var rows [][]string
	for _, u := range list {
		id := u.UploadID
		if u.Aborted {
			id += " (aborted)"
		}
		rows = append(rows, []string{u.Key, strconv.Itoa(u.Parts), humanize.IBytes(uint64(u.Size)), humanize.Time(u.Initiated), id})
	}
	return printTable(w, []string{"KEY", "PARTS", "SIZE", "STARTED", "UPLOAD ID"}, rows)
}
