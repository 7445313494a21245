package main

import (
	"context"

	"github.com/spf13/cobra"

	"imgferry/ims"
	"imgferry/limits"
)

// originFlags are what images create asks for.
type originFlags struct {
	properties
	instance, volume, backup, vault string
	whole                           bool
}

func (a *app) imagesCreateCommand() *cobra.Command {
	c := a.jobBase()
	var p originFlags
	cmd := &cobra.Command{
		Use:   "create --name NAME (--instance ID | --volume ID | --backup ID)",
		Short: "Make an image from a server, a volume or a backup in the cloud",
		Long: `Create makes an image from what is in the cloud already, waits until it is usable and
prints its id: from a server's system disk (--instance); from the whole server, data disks
included (--instance with --whole, and --vault for the backup that this makes); from a
volume (--volume), as a system disk, which takes --os-version, or with --type DataImage;
or from a server's backup (--backup), which makes the image of a whole server too.

Disks on this machine are the business of push, objects in the store that of images
import.`,
		Example: `  imgferry images create --name web --instance 877a2cda-ba63-4e1e-b95f-e67e48b6129a
  imgferry images create --name web-all --instance 877a2cda-ba63-4e1e-b95f-e67e48b6129a --whole --vault 3c2fb5c4-4e31-4d3d-a7c5-1a2b3c4d5e6f
  imgferry images create --name disk --volume 0b3c09ac-5a1c-4c3a-9a8b-2f0c5c5a9d01 --os-version "CentOS 7.6 64bit"
  imgferry images create --name data --volume 0b3c09ac-5a1c-4c3a-9a8b-2f0c5c5a9d01 --type DataImage
  imgferry images create --name saved --backup c2b67c3a-5c4b-4b5a-8b1f-1d1d1d1d1d1d`,
		Args: cobra.NoArgs,
	}
	p.jobFlags(cmd, limits.TypeECS, limits.TypeBMS, limits.TypeData)
	f := cmd.Flags()
	f.StringVar(&p.instance, "instance", "", "id of the server")
	f.StringVar(&p.volume, "volume", "", "id of the volume")
	f.StringVar(&p.backup, "backup", "", "id of a server's backup (CBR)")
	f.BoolVar(&p.whole, "whole", false, "all disks of the server, instead of its system disk")
	f.StringVar(&p.vault, "vault", "", "with --whole: vault that the server is backed up to")
	c.flags(cmd)
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		tags, err := parseTags(p.tags)
		if err != nil {
			return err
		}
		if err := p.check(cmd.Flags().Changed("type")); err != nil {
			return err
		}
		ctx := cmd.Context()
		return c.run(ctx, func(client *ims.Client, _ *started) (string, error) { return p.start(ctx, client, tags) }, imageOf)
	}
	return cmd
}

// check refuses flags that don't go together. typed: the user named the type.
func (p *originFlags) check(typed bool) error {
	sources := 0
	for _, id := range []string{p.instance, p.volume, p.backup} {
		if id != "" {
			sources++
		}
	}
	data := p.kind == limits.TypeData
	switch {
	case sources != 1:
		return usagef("the source is one of --instance, --volume and --backup")
	case p.whole && p.instance == "":
		return usagef("--whole goes with --instance: a backup makes a whole image anyway, and a volume none")
	case p.whole && p.vault == "":
		return usagef("--whole takes the vault that the server is backed up to: --vault")
	case p.vault != "" && !p.whole:
		return usagef("--vault goes with --whole")
	case p.wholeServer() && (typed || p.osVersion != ""):
		return usagef("--type and --os-version are not for images of whole servers")
	case p.volume == "" && (typed || p.osVersion != ""):
		return usagef("--type and --os-version go with --volume: a server's are known")
	case data && (p.osVersion != "" || p.enterprise != "" || p.minRAM != 0 || p.maxRAM != 0):
		return usagef("--os-version, --enterprise-project, --min-memory and --max-memory are not for data images of volumes")
	}
	return nil
}

// wholeServer reports whether the image is that of a server with all its disks.
func (p *originFlags) wholeServer() bool { return p.whole || p.backup != "" }

// start asks for the image and returns the id of its job.
func (p *originFlags) start(ctx context.Context, client *ims.Client, tags []ims.Tag) (string, error) {
	switch {
	case p.wholeServer():
		return client.CreateWholeImage(ctx, ims.WholeImageRequest{
			Name: p.name, Description: p.description, InstanceID: p.instance, VaultID: p.vault, BackupID: p.backup,
			MinRAM: p.minRAM, MaxRAM: p.maxRAM, EnterpriseProjectID: p.enterprise, ImageTags: tags,
		})
	case p.kind == limits.TypeData:
		return client.CreateImage(ctx, ims.CreateImageRequest{
			DataImages: []ims.DataImage{{Name: p.name, Description: p.description, VolumeID: p.volume, ImageTags: tags}},
		})
	}
	q := ims.CreateImageRequest{
		Name: p.name, Description: p.description, InstanceID: p.instance, VolumeID: p.volume, OSVersion: p.osVersion,
		MinRAM: p.minRAM, MaxRAM: p.maxRAM, EnterpriseProjectID: p.enterprise, ImageTags: tags,
	}
	if p.volume != "" {
		q.Type = p.kind
	}
	return client.CreateImage(ctx, q)
}
