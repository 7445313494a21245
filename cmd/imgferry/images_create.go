package main

import (
	"cmp"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"imgferry/ims"
	"imgferry/limits"
	"imgferry/profile"
)

// parseTags reads tags of the form KEY=VALUE.
func parseTags(words []string) ([]ims.Tag, error) {
	var tags []ims.Tag
	for _, w := range words {
		key, value, ok := strings.Cut(w, "=")
		if !ok || key == "" {
			return nil, usagef("a tag has the form KEY=VALUE, not %q", w)
		}
		tags = append(tags, ims.Tag{Key: key, Value: value})
	}
	return tags, nil
}

// objectURL is the service's address of an object that is named [BUCKET:]KEY.
func (c *imagesCommand) objectURL(object string) (string, error) {
	url := object
	if !strings.Contains(object, ":") {
		if err := missing(c.cloud.asks(profile.Bucket, "the bucket")); err != nil {
			return "", err
		}
		url = limits.ImageURL(c.cloud.bucket, object)
	}
	_, _, err := limits.SplitImageURL(url)
	return url, err
}

// properties are the flags of an image that is about to be.
type properties struct {
	name, description, osVersion, osType, kind, arch, firmware string
	cmk, enterprise                                            string
	tags                                                       []string
	minDisk, minRAM, maxRAM                                    int
}

// flags adds those that every new image has.
func (p *properties) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.name, "name", "", "the image's name")
	f.StringVar(&p.osVersion, "os-version", "", "operating system, as the service spells it (imgferry os-versions)")
	f.IntVar(&p.minRAM, "min-memory", 0, "least memory of a server, in MiB")
	f.StringVar(&p.description, "description", "", "up to 1024 characters")
	f.StringArrayVar(&p.tags, "tag", nil, "KEY=VALUE, once for each tag")
}

// jobFlags adds those of images that a job makes.
func (p *properties) jobFlags(cmd *cobra.Command, types ...string) {
	p.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&p.kind, "type", limits.TypeECS, strings.Join(types[:len(types)-1], ", ")+" or "+types[len(types)-1])
	f.IntVar(&p.maxRAM, "max-memory", 0, "greatest memory of a server, in MiB; 0: no limit")
	f.StringVar(&p.enterprise, "enterprise-project", "", "enterprise project that the image belongs to")
	_ = cmd.RegisterFlagCompletionFunc("type", anyOf(types...))
}

func (a *app) imagesCreateMetadataCommand() *cobra.Command {
	c := a.imagesBase()
	var p properties
	var format string
	var protected bool
	cmd := &cobra.Command{
		Use:   "create-metadata",
		Short: "Make an image without a file",
		Long: `Create-metadata makes an image that is queued until it gets its file: by images
register from an object, or by an upload with another client. It prints the image's id.`,
		Example: "  imgferry images create-metadata --name web --os-version \"Ubuntu 22.04 server 64bit\" --min-disk 40",
		Args:    cobra.NoArgs,
	}
	p.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&format, "disk-format", "zvhd2", "format of the file to come")
	f.IntVar(&p.minDisk, "min-disk", 0, "smallest system disk in GiB, 1 to 1024 (default: the service's)")
	f.BoolVar(&protected, "protected", false, "the image can't be deleted until that is changed")
	c.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if p.name == "" {
			return usagef("the name is missing: --name")
		}
		if _, err := parseTags(p.tags); err != nil {
			return err
		}
		client, stop, err := c.connect(cmd.Context())
		if err != nil {
			return err
		}
		defer stop()
		image, err := client.CreateMetadata(cmd.Context(), ims.MetadataRequest{
			Name: p.name, Description: p.description, OSVersion: p.osVersion, DiskFormat: format,
			MinDisk: p.minDisk, MinRAM: p.minRAM, Protected: protected, Tags: p.tags,
		})
		if err != nil {
			return unsure(err, "images list --name "+shellQuote(p.name))
		}
		return c.out.emit(imageReportOf(image), func(w io.Writer) error { return printLine(w, image.ID) })
	}
	return cmd
}

func (a *app) imagesRegisterCommand() *cobra.Command {
	c := a.jobBase()
	cmd := &cobra.Command{
		Use:   "register ID|NAME [BUCKET:]KEY",
		Short: "Give an image made by create-metadata its file",
		Long: `Register makes an object in the store the file of an image that create-metadata made,
waits until the image is usable and prints its id. The object may be of any format that
the service knows, up to 128 GB.`,
		Example: "  imgferry images register 4ca46bf1-5c61-48ff-b4f3-0ad4e5e3ba86 my-images:web.qcow2",
		Args:    cobra.ExactArgs(2),
	}
	c.flags(cmd)
	c.cloud.flags(cmd, profile.Bucket)
	c.completeImages(cmd, 1, true)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		return c.run(ctx, func(client *ims.Client, r *started) (string, error) {
			url, err := c.objectURL(args[1])
			if err != nil {
				return "", err
			}
			image, err := c.findImage(ctx, client, args[0])
			if err != nil {
				return "", err
			}
			r.ImageID = image.ID
			return client.Register(ctx, image.ID, url)
		}, imageOf)
	}
	return cmd
}

// imageOf is the answer of a job that makes an image.
func imageOf(w io.Writer, r started) error { return printLine(w, cmp.Or(r.ImageID, r.JobID)) }
