package main

import (
	"context"
	"errors"
	"io"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"imgferry/upload"
)

type uploadsCommand struct {
	*app
	cloud   cloud
	sandbox sandboxFlags
	abort   bool
	out     *output
}

func (a *app) uploadsCommand() *cobra.Command {
	c := &uploadsCommand{app: a, cloud: cloud{app: a}}
	cmd := &cobra.Command{
		Use:   "uploads [KEY]",
		Short: "List or abort unfinished uploads",
		Long: `Uploads lists the unfinished multipart uploads in the bucket, all or those of KEY.
They take up space that is paid for until they are completed or aborted. With
--abort those of KEY are aborted.`,
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
	cmd.Flags().BoolVar(&c.abort, "abort", false, "abort the unfinished uploads of KEY")
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
	if c.abort && key == "" {
		return usagef("--abort needs the KEY whose uploads are to be aborted")
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
	store := upload.WithRetry(bucket, c.cloud.policy())
	all, err := store.Uploads(ctx, key)
	if err != nil {
		return err
	}
	list := []unfinished{}
	for _, u := range all {
		if key != "" && u.Key != key {
			continue // a longer key that begins the same
		}
		parts, err := store.Parts(ctx, u.Key, u.UploadID)
		if errors.Is(err, upload.ErrNoUpload) {
			continue // ended in the meantime
		}
		if err != nil {
			return err
		}
		one := unfinished{Key: u.Key, UploadID: u.UploadID, Initiated: u.Initiated, Parts: len(parts)}
		for _, p := range parts {
			one.Size += p.Size
		}
		if c.abort {
			if err := store.Abort(ctx, u.Key, u.UploadID); err != nil {
				return err
			}
			one.Aborted = true
		}
		list = append(list, one)
	}
	return c.out.emit(list, func(w io.Writer) error { return c.print(w, list) })
}

func (c *uploadsCommand) print(w io.Writer, list []unfinished) error {
	if len(list) == 0 {
		c.say("no unfinished uploads")
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
