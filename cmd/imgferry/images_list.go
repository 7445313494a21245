package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imgferry/ims"
	"imgferry/limits"
)

// imageStatuses are the states that a list can be narrowed to.
var imageStatuses = []string{ims.StatusQueued, ims.StatusSaving, ims.StatusActive, ims.StatusKilled, ims.StatusDeleted}

// decisions are what a project may have said to an image that another shares with it.
var decisions = []string{ims.MemberPending, ims.MemberAccepted, ims.MemberRejected}

// sortKeys are what a list can be sorted by (reference, 5.1.1).
var sortKeys = []string{"name", "container_format", "disk_format", "status", "id", "size", "created_at"}

// maxPage is the longest list that one request asks for.
const maxPage = 500

type imagesListCommand struct {
	imagesCommand
	filter           ims.Filter
	kind, shared     string
	public           bool
	protected, whole bool
	createdAfter, createdBefore,
	updatedAfter, updatedBefore string
	limit int
	given func(flag string) bool
}

func (a *app) imagesListCommand() *cobra.Command {
	c := &imagesListCommand{imagesCommand: a.imagesBase()}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the project's own images, or others that it can use",
		Long: `List prints the project's own images, newest first; with --public those of the cloud,
with --shared those that other projects share with this one. Filters narrow it: an image
must meet all that are given.`,
		Example: `  imgferry images list --status active --tag team=blue
  imgferry images list --name web-server -o json
  imgferry images list --public --platform Ubuntu --sort name
  imgferry images list --shared pending`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.given = cmd.Flags().Changed
			return c.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	q := &c.filter
	f.BoolVar(&c.public, "public", false, "the cloud's public images")
	f.StringVar(&c.shared, "shared", "", "images that other projects share with this one: "+strings.Join(decisions, ", "))
	f.StringVar(&q.Name, "name", "", "images of exactly this name")
	f.StringVar(&q.Status, "status", "", "images in this state: "+strings.Join(imageStatuses, ", "))
	f.StringVar(&c.kind, "type", "", "images of this type: ECS, BMS, DataImage or IsoImage")
	f.StringVar(&q.Tag, "tag", "", "images with this tag, KEY=VALUE")
	f.StringVar(&q.Platform, "platform", "", "images of this platform, such as Ubuntu or Windows")
	f.StringVar(&q.OSType, "os-type", "", "images of this kind of system: Linux, Windows or Other")
	f.StringVar(&q.OSBit, "os-bit", "", "images of systems of 32 or 64 bits")
	f.StringVar(&q.Architecture, "arch", "", "images for x86 or arm")
	f.StringVar(&q.DiskFormat, "disk-format", "", "images of this format, such as zvhd2")
	f.StringVar(&q.Owner, "owner", "", "images of this project")
	f.StringVar(&q.FlavorID, "flavor", "", "images that servers of this flavor can use")
	f.IntVar(&q.MinDisk, "min-disk", 0, "images with this smallest disk, in GiB")
	f.IntVar(&q.MinRAM, "min-memory", 0, "images with this least memory, in MiB")
	f.BoolVar(&c.protected, "protected", false, "images that can't be deleted; =false: that can")
	f.BoolVar(&c.whole, "whole", false, "images of whole servers; =false: no such images")
	f.StringVar(&q.CMKID, "cmk-id", "", "images that are encrypted with this key")
	f.StringVar(&q.EnterpriseProjectID, "enterprise-project", "", "images of this enterprise project")
	f.StringArrayVar(&q.Supports, "supports", nil, "images with this property, such as __support_kvm; once for each")
	f.StringVar(&c.createdAfter, "created-after", "", "images made after this time: 2024-01-31, or with a time of day 2024-01-31T10:00:00Z")
	f.StringVar(&c.createdBefore, "created-before", "", "images made before this time")
	f.StringVar(&c.updatedAfter, "updated-after", "", "images changed after this time")
	f.StringVar(&c.updatedBefore, "updated-before", "", "images changed before this time")
	f.StringVar(&q.SortKey, "sort", "", "order: "+strings.Join(sortKeys, ", ")+" (default)")
	f.BoolVar(&q.Ascending, "ascending", false, "the least first, instead of the greatest or newest")
	f.IntVar(&c.limit, "limit", 0, "at most so many images; 0: all")
	for flag, values := range map[string][]string{
		"shared": decisions, "sort": sortKeys, "os-type": {"Linux", "Windows", "Other"}, "os-bit": {"32", "64"},
		"type": {limits.TypeECS, limits.TypeBMS, limits.TypeData, limits.TypeISO},
	} {
		_ = cmd.RegisterFlagCompletionFunc(flag, anyOf(values...))
	}
	c.flags(cmd)
	return cmd
}

// wanted is what the flags ask for.
func (c *imagesListCommand) wanted() (ims.Filter, error) {
	q := c.filter
	if err := c.whose(&q); err != nil {
		return q, err
	}
	for flag, v := range map[string]string{"name": q.Name, "status": q.Status, "type": c.kind, "tag": q.Tag, "platform": q.Platform, "owner": q.Owner} {
		if c.given(flag) && v == "" {
			return q, usagef("--%s is empty: leave it out to list all", flag)
		}
	}
	if q.Status != "" && !slices.Contains(imageStatuses, q.Status) {
		return q, usagef("--status takes %s, not %q", strings.Join(imageStatuses, ", "), q.Status)
	}
	if c.kind != "" {
		environment, ok := environments[c.kind]
		if !ok {
			return q, usagef("--type takes ECS, BMS, DataImage or IsoImage, not %q", c.kind)
		}
		q.VirtualEnv = environment
	}
	if q.Tag != "" {
		if key, _, ok := strings.Cut(q.Tag, "="); !ok || key == "" {
			return q, usagef("--tag takes KEY=VALUE, not %q", q.Tag)
		}
	}
	if c.limit < 0 {
		return q, usagef("--limit takes a positive number, or 0 for all")
	}
	if c.limit <= maxPage && c.shared == "" {
		q.Limit = c.limit
	}
	if c.given("protected") {
		q.Protected = &c.protected
	}
	if c.given("whole") {
		q.WholeImage = &c.whole
	}
	var err error
	if q.Created, err = timeBounds("created", c.createdAfter, c.createdBefore); err != nil {
		return q, err
	}
	if q.Updated, err = timeBounds("updated", c.updatedAfter, c.updatedBefore); err != nil {
		return q, err
	}
	return q, nil
}

// whose says in q whose images are listed.
func (c *imagesListCommand) whose(q *ims.Filter) error {
	switch {
	case c.public && c.shared != "":
		return usagef("--public and --shared exclude each other")
	case c.public:
		q.ImageType, q.Visibility = "gold", "public"
	case c.given("shared"):
		if !slices.Contains(decisions, c.shared) {
			return usagef("--shared takes %s, not %q", strings.Join(decisions, ", "), c.shared)
		}
		s := sharedFilter(c.shared)
		q.ImageType, q.Visibility, q.MemberStatus = s.ImageType, s.Visibility, s.MemberStatus
	}
	return nil
}

// timeBounds are the conditions of two flags on one time.
func timeBounds(what, after, before string) ([]ims.TimeBound, error) {
	var bounds []ims.TimeBound
	for _, b := range []struct{ flag, op, value string }{{what + "-after", "gt", after}, {what + "-before", "lt", before}} {
		if b.value == "" {
			continue
		}
		at, err := parseWhen(b.value)
		if err != nil {
			return nil, usagef("--%s: %w", b.flag, err)
		}
		bounds = append(bounds, ims.TimeBound{Op: b.op, Time: at})
	}
	return bounds, nil
}

// parseWhen reads a time that a user gives; one without a zone is UTC, as the service's are.
func parseWhen(s string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, time.DateOnly, time.DateTime} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time such as 2024-01-31 or 2024-01-31T10:00:00Z", s)
}

func (c *imagesListCommand) run(ctx context.Context) error {
	filter, err := c.wanted()
	if err != nil {
		return err
	}
	client, stop, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer stop()
	if !c.public && c.shared == "" && filter.Owner == "" {
		filter.Owner = c.cloud.ownImages().Owner // known only now
	}
	query, err := filter.Query()
	if err != nil {
		return err
	}
	images, err := client.Images(ctx, query)
	if err != nil {
		return err
	}
	if c.shared != "" && filter.Owner == "" {
		// Those that this project shares count as shared too.
		images = slices.DeleteFunc(images, func(i ims.Image) bool { return i.Owner == c.cloud.project })
	}
	if c.limit > 0 && len(images) > c.limit {
		images = images[:c.limit]
	}
	list := []imageReport{}
	for _, i := range images {
		list = append(list, imageReportOf(i))
	}
	return c.out.emit(list, func(w io.Writer) error {
		if len(images) == 0 {
			c.say("no such images")
			return nil
		}
		return imageTable(w, images)
	})
}
