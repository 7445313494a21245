package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"imgferry/ims"
	"imgferry/limits"
)

// imagesCommand is what the verbs below "images" have in common.
type imagesCommand struct {
	*app
	cloud   cloud
	sandbox sandboxFlags
	out     *output
}

func (a *app) imagesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "images",
		Short: "List, make, change, share, copy, export and delete cloud images",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.imagesListCommand(), a.imagesShowCommand(), a.imagesDeleteCommand(), a.imagesCreateMetadataCommand(), a.imagesRegisterCommand(),
		a.imagesImportCommand(), a.imagesCreateCommand(), a.imagesExportCommand(), a.imagesUpdateCommand(), a.imagesTagCommand(), a.imagesShareCommand(), a.imagesUnshareCommand(),
		a.imagesAcceptCommand(), a.imagesRejectCommand(), a.imagesCopyCommand())
	return cmd
}

func (a *app) imagesBase() imagesCommand { return imagesCommand{app: a, cloud: cloud{app: a}} }

func (c *imagesCommand) flags(cmd *cobra.Command) {
	c.out = c.outputFlags(cmd)
	c.cloud.serviceFlags(cmd)
	c.sandbox.add(cmd)
}

// connect returns the client of the image service, and what ends a sandbox that it belongs to.
func (c *imagesCommand) connect(ctx context.Context) (*ims.Client, func(), error) {
	stop, err := c.sandbox.start(ctx, c.app, &c.cloud)
	if err != nil {
		return nil, nil, err
	}
	client, err := c.cloud.service()
	if err != nil {
		stop()
		return nil, nil, err
	}
	return client, stop, nil
}

// imageReport is an image as it is shown.
type imageReport struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Status string `json:"status"`
	// Type is ECS, BMS or DataImage, as push takes it, or the service's own word for another kind.
	Type string `json:"type"`
	// Size is the length of the image's file in bytes, 0 where the service doesn't say.
	Size int64 `json:"size"`
	// MinDisk is in GiB, MinRAM in MiB.
	MinDisk     int       `json:"min_disk"`
	MinRAM      int       `json:"min_ram"`
	MaxRAM      int       `json:"max_ram,omitempty"`
	Platform    string    `json:"platform,omitempty"`
	OSType      string    `json:"os_type,omitempty"`
	OSVersion   string    `json:"os_version,omitempty"`
	Firmware    string    `json:"firmware,omitempty"`
	DiskFormat  string    `json:"disk_format,omitempty"`
	Visibility  string    `json:"visibility,omitempty"`
	Protected   bool      `json:"protected"`
	Description string    `json:"description,omitempty"`
	Tags        []string  `json:"tags"`
	Created     time.Time `json:"created,omitzero"`
	Updated     time.Time `json:"updated,omitzero"`
	// Owner is the project that the image belongs to.
	Owner string `json:"owner,omitempty"`
	// Whole says that this is the image of a whole server.
	Whole bool `json:"whole_image,omitempty"`
	// CMKID is the key that the image is encrypted with.
	CMKID             string `json:"cmk_id,omitempty"`
	EnterpriseProject string `json:"enterprise_project_id,omitempty"`
	// Properties are all other properties, by the service's names.
	Properties map[string]string `json:"properties,omitempty"`
}

// environments are the service's words for the types of push (reference, 9.1).
var environments = map[string]string{limits.TypeECS: "FusionCompute", limits.TypeBMS: "Ironic", limits.TypeData: "DataImage", limits.TypeISO: "IsoImage"}

func imageReportOf(i ims.Image) imageReport {
	r := imageReport{
		ID: i.ID, Name: i.Name, Status: i.Status, Type: i.VirtualEnv, Size: i.Size, MinDisk: i.MinDisk, MinRAM: i.MinRAM, MaxRAM: i.MaxRAM, Platform: i.Platform,
		OSType: i.OSType, OSVersion: i.OSVersion, Firmware: i.Firmware, DiskFormat: i.DiskFormat, Visibility: i.Visibility,
		Protected: i.Protected, Description: i.Description, Tags: append([]string{}, i.Tags...), Created: i.Created, Updated: i.Updated,
		Owner: i.Owner, Whole: i.WholeImage, CMKID: i.CMKID, EnterpriseProject: i.EnterpriseProjectID, Properties: i.Properties,
	}
	for word, environment := range environments {
		if i.VirtualEnv == environment {
			r.Type = word
		}
	}
	return r
}

// imageTable lists images for a person.
func imageTable(w io.Writer, images []ims.Image) error {
	var rows [][]string
	for _, i := range images {
		rows = append(rows, []string{i.ID, i.Name, i.Status, sizeWords(i.Size), gibWords(i.MinDisk), dateWords(i.Created)})
	}
	return printTable(w, []string{"ID", "NAME", "STATUS", "SIZE", "MIN DISK", "CREATED (UTC)"}, rows)
}

// What the service doesn't say is "-".

func sizeWords(n int64) string {
	if n == 0 {
		return "-"
	}
	return humanize.IBytes(uint64(n))
}

func gibWords(n int) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(n) + " GiB"
}

// mibWords is nothing where there is no limit.
func mibWords(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n) + " MiB"
}

func dateWords(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04")
}

func imageFields(w io.Writer, i imageReport) error {
	yes := map[bool]string{true: "yes"}
	return printFields(w, [][2]string{
		{"id", i.ID}, {"name", i.Name}, {"status", i.Status}, {"type", i.Type}, {"size", sizeWords(i.Size)},
		{"min disk", gibWords(i.MinDisk)}, {"min memory", mibWords(i.MinRAM)}, {"max memory", mibWords(i.MaxRAM)}, {"os type", i.OSType}, {"os version", i.OSVersion},
		{"firmware", i.Firmware}, {"disk format", i.DiskFormat}, {"visibility", i.Visibility}, {"protected", yes[i.Protected]}, {"whole server", yes[i.Whole]},
		{"encrypted with", i.CMKID}, {"enterprise project", i.EnterpriseProject},
		{"description", i.Description}, {"tags", strings.Join(i.Tags, ", ")},
		{"created", dateWords(i.Created)}, {"updated", dateWords(i.Updated)},
	})
}

// ownImages is the filter for the project's own images, those that it shares included (reference, 5.1.1).
func (c *cloud) ownImages() ims.Filter { return ims.Filter{Owner: c.project} }

type imagesShowCommand struct{ imagesCommand }

func (a *app) imagesShowCommand() *cobra.Command {
	c := &imagesShowCommand{a.imagesBase()}
	cmd := &cobra.Command{
		Use:   "show ID|NAME",
		Short: "Show one image",
		Long: `Show prints what the service says of an image. An id may be that of any image that the
account can see; a name is looked up among the project's own images, and must be that
of one only.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args[0]) },
	}
	c.flags(cmd)
	c.completeImages(cmd, 1, true)
	return cmd
}

func (c *imagesShowCommand) run(ctx context.Context, name string) error {
	client, stop, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer stop()
	image, err := c.findImage(ctx, client, name)
	if err != nil {
		return err
	}
	r := imageReportOf(image)
	return c.out.emit(r, func(w io.Writer) error { return imageFields(w, r) })
}

// imageID matches the ids of images, which are UUIDs.
var imageID = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// findImage returns the image with that id or, if there is none, the project's own one of that name.
func (c *imagesCommand) findImage(ctx context.Context, client *ims.Client, name string) (ims.Image, error) {
	if imageID.MatchString(name) {
		image, err := client.Image(ctx, name)
		if !errors.Is(err, ims.ErrNotFound) {
			return image, err
		}
	}
	own := c.cloud.ownImages()
	own.Name = name
	query, err := own.Query()
	if err != nil {
		return ims.Image{}, err
	}
	images, err := client.Images(ctx, query)
	if err != nil {
		return ims.Image{}, err
	}
	switch len(images) {
	case 0:
		return ims.Image{}, fmt.Errorf("image %q: %w", name, ims.ErrNotFound)
	case 1:
		return images[0], nil
	}
	var table strings.Builder
	if err := imageTable(&table, images); err != nil {
		return ims.Image{}, err
	}
	return ims.Image{}, usagef("%d images have the name %q: say which by its id\n%s", len(images), name, strings.TrimSuffix(table.String(), "\n"))
}

type imagesDeleteCommand struct {
	imagesCommand
	yes bool
}

func (a *app) imagesDeleteCommand() *cobra.Command {
	c := &imagesDeleteCommand{imagesCommand: a.imagesBase()}
	cmd := &cobra.Command{
		Use:   "delete ID...",
		Short: "Delete images",
		Long: `Delete deletes images for good, after a question on the terminal. Where there is no
terminal it takes --yes. Nothing is deleted unless all the images exist. It prints the
ids of those that are deleted.

The objects that the images were made from stay in their bucket.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args) },
	}
	cmd.Flags().BoolVarP(&c.yes, "yes", "y", false, "don't ask")
	c.flags(cmd)
	c.completeImages(cmd, maxPage, false)
	return cmd
}

// deletion is what became of an image that was to be deleted.
type deletion struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Deleted bool   `json:"deleted"`
	Error   string `json:"error,omitempty"`
}

func (c *imagesDeleteCommand) run(ctx context.Context, ids []string) error {
	for i, id := range ids {
		if !imageID.MatchString(id) {
			return usagef("%q is no image id: imgferry images list --name NAME shows those of a name", id)
		}
		if slices.Contains(ids[:i], id) {
			return usagef("image %s is named twice", id)
		}
	}
	if !c.yes && !isTerminal(c.stdin) {
		return usagef("there is no terminal to ask on: say --yes to delete images without a question")
	}
	client, stop, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer stop()
	var images []ims.Image
	for _, id := range ids {
		image, err := client.Image(ctx, id)
		if err != nil {
			return err
		}
		images = append(images, image)
	}
	if !c.yes {
		if ok, err := c.confirm(ctx, images); err != nil || !ok {
			return err
		}
	}
	results := []deletion{}
	var failed []error
	for _, image := range images {
		d := deletion{ID: image.ID, Name: image.Name}
		if err := deleteImage(ctx, client, image.ID); err != nil {
			d.Error = err.Error()
			failed = append(failed, err)
		} else {
			d.Deleted = true
		}
		results = append(results, d)
	}
	err = c.out.emit(results, func(w io.Writer) error {
		var lines strings.Builder
		for _, d := range results {
			if d.Deleted {
				fmt.Fprintln(&lines, d.ID)
			}
		}
		_, err := io.WriteString(w, lines.String())
		return err
	})
	return errors.Join(append(failed, err)...)
}

// deleteImage deletes an image. Where the answer was lost it looks whether the image is gone.
func deleteImage(ctx context.Context, client *ims.Client, id string) error {
	err := client.DeleteImage(ctx, id)
	var call *ims.APIError
	if errors.As(err, &call) && call.MaybeDone {
		if _, look := client.Image(ctx, id); errors.Is(look, ims.ErrNotFound) {
			return nil
		}
	}
	return err
}

// confirm shows the images and asks on the terminal whether to delete them.
func (c *imagesDeleteCommand) confirm(ctx context.Context, images []ims.Image) (bool, error) {
	if err := imageTable(pastBar{c.app}, images); err != nil {
		return false, err
	}
	these := "this image"
	if len(images) > 1 {
		these = fmt.Sprintf("these %d images", len(images))
	}
	fmt.Fprintf(pastBar{c.app}, "Delete %s for good? [y/N] ", these)
	answer := make(chan string, 1)
	// A read from a terminal can't be called off: after an interrupt it ends with the process.
	go func() {
		line, _ := bufio.NewReader(c.stdin).ReadString('\n')
		answer <- line
	}()
	select {
	case <-ctx.Done():
		return false, context.Cause(ctx)
	case line := <-answer:
		switch strings.ToLower(strings.TrimSpace(line)) {
		case "y", "yes":
			return true, nil
		}
		c.say("nothing was deleted")
		return false, nil
	}
}
