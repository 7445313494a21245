package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"imgferry/ims"
	"imgferry/limits"
)

func (a *app) imagesUpdateCommand() *cobra.Command {
	c := a.imagesBase()
	var p properties
	var set, unset []string
	cmd := &cobra.Command{
		Use:   "update ID|NAME",
		Short: "Change an image's name, description and other properties",
		Long: `Update changes properties of one of the project's own images, which must be active.
--set and --unset are for any property by the service's name, such as
hw_vif_multiqueue_enabled or protected, and for those of one's own.`,
		Example: `  imgferry images update web --name web-2024 --description "with the fix"
  imgferry images update web --set __support_kvm=true --unset team`,
		Args: cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.StringVar(&p.name, "name", "", "the new name")
	f.StringVar(&p.description, "description", "", `the new description; "" removes it`)
	f.IntVar(&p.minRAM, "min-memory", 0, "least memory of a server, in MiB; 0: no limit")
	f.IntVar(&p.maxRAM, "max-memory", 0, "greatest memory of a server, in MiB; 0: no limit")
	f.StringVar(&p.firmware, "firmware", "", "boot mode: bios or uefi")
	f.StringVar(&p.enterprise, "enterprise-project", "", "enterprise project that the image belongs to")
	f.StringArrayVar(&set, "set", nil, "PROPERTY=VALUE, once for each property")
	f.StringArrayVar(&unset, "unset", nil, "PROPERTY to remove, once for each")
	c.flags(cmd)
	c.completeImages(cmd, 1, true)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		changes, err := p.changes(cmd.Flags().Changed, set, unset)
		if err != nil {
			return err
		}
		ctx := cmd.Context()
		client, stop, err := c.connect(ctx)
		if err != nil {
			return err
		}
		defer stop()
		image, err := c.findImage(ctx, client, args[0])
		if err != nil {
			return err
		}
		now, err := client.UpdateImage(ctx, image.ID, changes...)
		if err != nil {
			return unsure(err, "images show "+image.ID)
		}
		r := imageReportOf(now)
		return c.out.emit(r, func(w io.Writer) error { return imageFields(w, r) })
	}
	return cmd
}

// changes are those that the flags ask for; given says which flags there are.
func (p *properties) changes(given func(string) bool, set, unset []string) ([]ims.Patch, error) {
	var list []ims.Patch
	add := func(flag, op, property, value string) {
		if given(flag) {
			list = append(list, ims.Patch{Op: op, Property: property, Value: value})
		}
	}
	add("name", ims.PatchReplace, "name", p.name)
	if given("description") && p.description == "" {
		add("description", ims.PatchRemove, "__description", "")
	} else {
		add("description", ims.PatchAdd, "__description", p.description)
	}
	add("min-memory", ims.PatchReplace, "min_ram", strconv.Itoa(p.minRAM))
	add("max-memory", ims.PatchAdd, "max_ram", strconv.Itoa(p.maxRAM))
	add("firmware", ims.PatchAdd, "hw_firmware_type", p.firmware)
	add("enterprise-project", ims.PatchAdd, "enterprise_project_id", p.enterprise)
	if err := limits.Memory(p.minRAM, p.maxRAM); err != nil {
		return nil, err
	}
	for _, s := range set {
		property, value, ok := strings.Cut(s, "=")
		if !ok || property == "" {
			return nil, usagef("--set takes PROPERTY=VALUE, not %q", s)
		}
		list = append(list, ims.Patch{Op: ims.PatchAdd, Property: property, Value: value})
	}
	for _, property := range unset {
		list = append(list, ims.Patch{Op: ims.PatchRemove, Property: property})
	}
	if len(list) == 0 {
		return nil, usagef("nothing is to be changed: name a property, such as --name")
	}
	return list, nil
}

func (a *app) imagesTagCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tag",
		Short: "List, add or remove an image's tags",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		a.tagVerb("list ID|NAME", "List an image's tags", "  imgferry images tag list web", 1, nil),
		a.tagVerb("add ID|NAME KEY=VALUE...", "Add tags to an image, or change their values", "  imgferry images tag add web team=blue stage=test", 2, addTags),
		a.tagVerb("remove ID|NAME KEY...", "Remove tags from an image", "  imgferry images tag remove web team", 2, removeTags),
	)
	return cmd
}

// tagReport is a tag as it is shown.
type tagReport struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// tagVerb is a verb on the tags of an image: change, if not nil, is done with the words after the image.
// Then it lists the tags.
func (a *app) tagVerb(use, short, example string, least int, change func(context.Context, *ims.Client, string, []string) error) *cobra.Command {
	c := a.imagesBase()
	cmd := &cobra.Command{Use: use, Short: short, Example: example, Args: cobra.MinimumNArgs(least)}
	if least == 1 {
		cmd.Args = cobra.ExactArgs(1)
	}
	c.flags(cmd)
	c.completeImages(cmd, 1, true)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		client, stop, err := c.connect(ctx)
		if err != nil {
			return err
		}
		defer stop()
		image, err := c.findImage(ctx, client, args[0])
		if err != nil {
			return err
		}
		if change != nil {
			if err := change(ctx, client, image.ID, args[1:]); err != nil {
				return unsure(err, "images tag list "+image.ID)
			}
		}
		tags, err := client.ImageTags(ctx, image.ID)
		if err != nil {
			return err
		}
		list := []tagReport{}
		rows := [][]string{}
		for _, t := range tags {
			list = append(list, tagReport{t.Key, t.Value})
			rows = append(rows, []string{t.Key, t.Value})
		}
		return c.out.emit(list, func(w io.Writer) error {
			if len(rows) == 0 {
				c.say("the image has no tags")
				return nil
			}
			return printTable(w, []string{"KEY", "VALUE"}, rows)
		})
	}
	return cmd
}

func addTags(ctx context.Context, client *ims.Client, id string, words []string) error {
	tags, err := parseTags(words)
	if err != nil {
		return err
	}
	return client.AddTags(ctx, id, tags...)
}

// removeTags removes the tags with these keys. Those that the image hasn't got are an error before
// anything is removed.
func removeTags(ctx context.Context, client *ims.Client, id string, keys []string) error {
	all, err := client.ImageTags(ctx, id)
	if err != nil {
		return err
	}
	var tags []ims.Tag
	for _, key := range keys {
		i := slices.IndexFunc(all, func(t ims.Tag) bool { return t.Key == key })
		if i < 0 {
			return &coded{fmt.Errorf("the image has no tag %q", key), exitNotFound}
		}
		tags = append(tags, all[i])
	}
	return client.RemoveTags(ctx, id, tags...)
}
