package main

import (
	"context"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"imgferry/ims"
	"imgferry/limits"
	"imgferry/profile"
)

func (a *app) imagesExportCommand() *cobra.Command {
	c := a.jobBase()
	var format string
	cmd := &cobra.Command{
		Use:   "export ID|NAME [BUCKET:]KEY",
		Short: "Write an image's file into the store",
		Long: `Export writes the file of one of the project's own images to an object, waits until it
is there and prints BUCKET:KEY. The format is that of the key's extension unless
--format says another. zvhd2 is a quick export: the service's own format, and the only
one for images above 128 GB.`,
		Example: `  imgferry images export web my-images:web.qcow2
  imgferry images export web web.img --format vmdk --bucket my-images --no-wait`,
		Args: cobra.ExactArgs(2),
	}
	cmd.Flags().StringVar(&format, "format", "", strings.Join(ims.ExportFormats(), ", ")+" (default: by the key's extension)")
	_ = cmd.RegisterFlagCompletionFunc("format", anyOf(ims.ExportFormats()...))
	c.flags(cmd)
	c.cloud.flags(cmd, profile.Bucket)
	c.completeImages(cmd, 1, true)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		format, err := exportFormat(format, args[1])
		if err != nil {
			return err
		}
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
			if image.Size > limits.MaxFile && format != ims.ExportZVHD2 {
				return "", usagef("the image's file has %s: above 128 GB it can be exported as %s only", sizeWords(image.Size), ims.ExportZVHD2)
			}
			r.ImageID, r.Object = image.ID, url
			return client.Export(ctx, image.ID, ims.ExportRequest{BucketURL: url, Format: format})
		}, func(w io.Writer, r started) error { return printLine(w, r.Object) })
	}
	return cmd
}

// exportFormat is the format of an export to key, if the user names none.
func exportFormat(format, key string) (string, error) {
	if format == "" {
		format = strings.ToLower(strings.TrimPrefix(path.Ext(key), "."))
		if !slices.Contains(ims.ExportFormats(), format) {
			return "", usagef("the key has no extension that says the format: name it with --format %s", strings.Join(ims.ExportFormats(), "|"))
		}
	}
	if !slices.Contains(ims.ExportFormats(), format) {
		return "", usagef("--format takes %s, not %q", strings.Join(ims.ExportFormats(), ", "), format)
	}
	return format, nil
}

func (a *app) imagesCopyCommand() *cobra.Command {
	c := a.jobBase()
	var p properties
	var to ims.RegionCopyRequest
	cmd := &cobra.Command{
		Use:   "copy ID|NAME NEWNAME",
		Short: "Copy an image, in its region or to another",
		Long: `Copy makes another image of one, waits until it is usable and prints its id. In the
same region the copy can be encrypted: --cmk-id. A copy of an encrypted image without a
key is not encrypted.

To another region it takes that region, a project there and an agency (IAM) by which
the image service may act for you. Such an image must not be encrypted, nor have over
128 GB.`,
		Example: `  imgferry images copy web web-encrypted --cmk-id bd66288c-9081-460a-8227-4cbd0c814cb4
  imgferry images copy web web --to-region ap-southeast-1 --to-project ap-southeast-1 --agency ims_copy_image`,
		Args: cobra.ExactArgs(2),
	}
	f := cmd.Flags()
	f.StringVar(&p.description, "description", "", "up to 1024 characters")
	f.StringVar(&p.cmk, "cmk-id", "", "encrypt the copy with this key of the key service")
	f.StringVar(&p.enterprise, "enterprise-project", "", "enterprise project that the copy belongs to")
	f.StringVar(&to.Region, "to-region", "", "copy to this region")
	f.StringVar(&to.ProjectName, "to-project", "", "name of the project in that region")
	f.StringVar(&to.AgencyName, "agency", "", "agency by which the image service may act there")
	f.StringVar(&to.VaultID, "vault", "", "vault in that region, for the image of a whole server")
	_ = cmd.RegisterFlagCompletionFunc("to-region", regionNames)
	c.flags(cmd)
	c.completeImages(cmd, 1, true)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if to.Region == "" && to.ProjectName+to.AgencyName+to.VaultID != "" {
			return usagef("--to-project, --agency and --vault go with --to-region")
		}
		if to.Region != "" && p.cmk+p.enterprise != "" {
			return usagef("--cmk-id and --enterprise-project are for copies in the same region")
		}
		ctx := cmd.Context()
		return c.run(ctx, func(client *ims.Client, _ *started) (string, error) {
			image, err := c.findImage(ctx, client, args[0])
			if err != nil {
				return "", err
			}
			return copyImage(ctx, client, image.ID, args[1], p, to)
		}, imageOf)
	}
	return cmd
}

func copyImage(ctx context.Context, client *ims.Client, id, name string, p properties, to ims.RegionCopyRequest) (string, error) {
	if to.Region == "" {
		return client.Copy(ctx, id, ims.CopyRequest{Name: name, Description: p.description, CMKID: p.cmk, EnterpriseProjectID: p.enterprise})
	}
	to.Name, to.Description = name, p.description
	return client.CopyToRegion(ctx, id, to)
}
