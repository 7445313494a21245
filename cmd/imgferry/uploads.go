package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

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
	olderThan age
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
than that, of KEY or of all keys. Without --abort the same command only lists them.
KEY may be written as s3://BUCKET/KEY. Where the store lists only those of a KEY
that is named, as MinIO does, the ones that journals on this machine know are listed.

--clean removes what uploads of raw disks keep in the bucket: the objects of zeros
under ` + upload.ZeroPrefix + `, which the next one makes anew.`,
		Example: `  imgferry uploads --older-than 48h
  imgferry uploads --abort --older-than 7d`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			key := ""
			if len(args) == 1 {
				key = args[0]
			}
			if b, k, _ := parseS3(key); b != "" {
				c.cloud.bucket, key = b, k
			}
			return c.run(cmd.Context(), key)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&c.abort, "abort", false, "abort the uploads listed; needs KEY or --older-than")
	f.Var(&c.olderThan, "older-than", "only uploads that began longer ago, such as 48h or 7d")
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
	gone      bool      // it has ended
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
	prefixes := []string{key}
	if c.clean {
		// Each key too, for stores such as MinIO, which list those of a whole key only.
		prefixes = append([]string{upload.ZeroPrefix}, upload.ZeroKeys()...)
	}
	// The first requests give up as early as that of a push: nothing is at stake.
	all, err := listUploads(ctx, upload.WithRetry(bucket, policy.First()), prefixes)
	if err != nil {
		return err
	}
	dir := ""
	if !c.clean {
		dir = c.journals()
	}
	all = c.withNoted(all, dir)
	all = slices.DeleteFunc(all, func(u upload.Unfinished) bool {
		// A longer key that begins the same, or not old enough.
		return key != "" && u.Key != key || c.olderThan != 0 && time.Since(u.Initiated) <= time.Duration(c.olderThan)
	})
	list, gone, err := c.each(ctx, store, all)
	c.prune(dir, gone)
	if err == nil && c.clean {
		err = removeZeros(ctx, bucket, policy)
	}
	if err != nil && !slices.ContainsFunc(list, func(u unfinished) bool { return u.Aborted }) {
		return err
	}
	// What was aborted is said even if others could not be.
	return errors.Join(c.out.emit(list, func(w io.Writer) error { return c.print(w, list, key, err) }), err)
}

// lookers is how many uploads are looked into at the same time: there may be thousands, and each takes a
// request or two.
const lookers = 8

// each looks into every upload, in their order. Those that ended in the meantime are left out; they are gone, and
// so are those that it aborted. One that the store refuses to abort does not keep it from the others; the error is
// the first.
func (c *uploadsCommand) each(ctx context.Context, store upload.Bucket, all []upload.Unfinished) (list []unfinished, gone map[uploadName]bool, err error) {
	list, gone = make([]unfinished, len(all)), make(map[uploadName]bool)
	refused := make([]error, len(all))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(lookers)
	for i, u := range all {
		g.Go(func() error {
			one, err := c.look(ctx, store, u)
			if errors.Is(err, upload.ErrNoUpload) {
				one.gone, err = true, nil
			}
			list[i] = one
			if c.abort && !upload.Temporary(err) && ctx.Err() == nil {
				refused[i], err = err, nil
			}
			return err
		})
	}
	err = g.Wait()
	for i, u := range all {
		if list[i].gone || list[i].Aborted {
			gone[uploadName{u.Key, u.UploadID}] = true
		}
		err = cmp.Or(err, refused[i])
	}
	return slices.DeleteFunc(list, func(u unfinished) bool { return u.UploadID == "" }), gone, err
}

// look finds out what an upload has, and aborts it if that is wanted. Without an answer it returns no upload.
func (c *uploadsCommand) look(ctx context.Context, store upload.Bucket, u upload.Unfinished) (unfinished, error) {
	one := unfinished{Key: u.Key, UploadID: u.UploadID, Initiated: u.Initiated}
	parts, err := store.Parts(ctx, u.Key, u.UploadID)
	if err != nil {
		return unfinished{}, err
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

// uploadName tells uploads apart.
type uploadName struct{ key, id string }

// journals is the folder of the journals; "" if there is no place for any.
func (c *uploadsCommand) journals() string {
	dir, err := profile.StateDir()
	if err != nil {
		return ""
	}
	return pipeline.JournalDir(dir)
}

// withNoted adds to all, which the store listed, the uploads that only journals know: some stores, such as MinIO,
// list those of one key only. The store has not been asked for them yet.
func (c *uploadsCommand) withNoted(all []upload.Unfinished, dir string) []upload.Unfinished {
	if dir == "" {
		return all
	}
	noted, err := upload.JournalUploads(dir, storeID(&c.cloud, &c.sandbox))
	if err != nil {
		c.warn("the journals of uploads can't be read: %v", err)
	}
	return merge(all, noted)
}

// listUploads lists the unfinished uploads whose keys begin with one of the prefixes, newest first.
func listUploads(ctx context.Context, store upload.Bucket, prefixes []string) (all []upload.Unfinished, err error) {
	for _, prefix := range prefixes {
		found, err := store.Uploads(ctx, prefix)
		if err != nil {
			return nil, err
		}
		all = merge(all, found)
	}
	return all, nil
}

// merge returns the uploads of both lists, each once, newest first.
func merge(all, more []upload.Unfinished) []upload.Unfinished {
	known := make(map[uploadName]bool, len(all))
	for _, u := range all {
		known[uploadName{u.Key, u.UploadID}] = true
	}
	for _, u := range more {
		if !known[uploadName{u.Key, u.UploadID}] {
			all = append(all, u)
		}
	}
	slices.SortStableFunc(all, func(a, b upload.Unfinished) int { return b.Initiated.Compare(a.Initiated) })
	return all
}

// prune removes the journals in dir of uploads that are gone.
func (c *uploadsCommand) prune(dir string, gone map[uploadName]bool) {
	if dir == "" {
		return
	}
	err := upload.PruneJournals(dir, storeID(&c.cloud, &c.sandbox), func(key, id string) bool { return gone[uploadName{key, id}] })
	if err != nil {
		c.warn("journals of uploads that are gone could not be removed: %v", err)
	}
}

func (c *uploadsCommand) print(w io.Writer, list []unfinished, key string, failed error) error {
	switch {
	case failed != nil:
	case c.clean:
		c.say("the objects of zeros are removed")
	case len(list) == 0 && key != "":
		c.say("no unfinished uploads of %s/%s", c.cloud.bucket, key)
	case len(list) == 0:
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

// age is a flag: a time above 0, or days such as 7d.
type age time.Duration

// String returns the age as time.Duration has it.
func (a *age) String() string { return (*timeout)(a).String() }

// Type is what the help calls the value.
func (*age) Type() string { return "duration" }

// Set takes what time.ParseDuration does, and days.
func (a *age) Set(s string) error {
	if n, ok := strings.CutSuffix(s, "d"); ok {
		days, err := strconv.ParseUint(n, 10, 16)
		if err != nil || days == 0 {
			return errors.New("use a time such as 12h or 7d")
		}
		*a = age(time.Duration(days) * 24 * time.Hour)
		return nil
	}
	if (*timeout)(a).Set(s) != nil {
		return errors.New("use a time such as 12h or 7d")
	}
	return nil
}
