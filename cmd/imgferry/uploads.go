package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"imgferry/upload"
)

type uploadsCommand struct {
	*app
	cloud       cloud
	sandbox     sandboxFlags
	abort, json bool
}

func (a *app) uploadsCommand() *cobra.Command {
	c := &uploadsCommand{app: a}
	cmd := &cobra.Command{
		Use:   "uploads [KEY]",
		Short: "List or abort unfinished uploads",
		Long: `Uploads lists the unfinished multipart uploads in the bucket, all or those of KEY.
They take up space that is paid for until they are completed or aborted. With
--abort those of KEY are aborted.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key := ""
			if len(args) == 1 {
				key = args[0]
			}
			return c.run(cmd.Context(), key)
		},
	}
	cmd.Flags().BoolVar(&c.abort, "abort", false, "abort the unfinished uploads of KEY")
	cmd.Flags().BoolVar(&c.json, "json", false, "print JSON")
	c.cloud.storeFlags(cmd)
	c.sandbox.add(cmd)
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
	store := upload.WithRetry(bucket, upload.Policy{})
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
	if c.json {
		return printJSON(c.stdout, list)
	}
	return c.print(list)
}

func (c *uploadsCommand) print(list []unfinished) error {
	if len(list) == 0 {
		c.say("no unfinished uploads")
		return nil
	}
	w := tabwriter.NewWriter(c.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "KEY\tPARTS\tSIZE\tSTARTED\tUPLOAD ID")
	for _, u := range list {
		id := u.UploadID
		if u.Aborted {
			id += " (aborted)"
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", u.Key, u.Parts, humanize.IBytes(uint64(u.Size)), humanize.Time(u.Initiated), id)
	}
	return w.Flush()
}
