package main

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"imgferry/ims"
	"imgferry/limits"
	"imgferry/pipeline"
	"imgferry/profile"
)

// importWays are those of an object that is in the store already, the default first.
var importWays = []string{pipeline.ViaImport, pipeline.ViaFast}

// importFlags are what images import asks for.
type importFlags struct {
	properties
	via       string
	configure bool
}

func (a *app) imagesImportCommand() *cobra.Command {
	c := a.jobBase()
	var p importFlags
	cmd := &cobra.Command{
		Use:   "import [BUCKET:]KEY",
		Short: "Make an image from an object in the store",
		Long: `Import makes an image from an object that is in the store already, waits until it is
usable and prints its id. The ordinary import takes VHD, VMDK, QCOW2, RAW, VHDX, QED, VDI,
QCOW, ZVHD, ZVHD2 or ISO, up to 128 GB; --via fast takes ZVHD2, or RAW with a bitmap
beside it, of up to 1 TB, and changes nothing in it.

Disks on this machine are the business of push.`,
		Example: `  imgferry images import my-images:web.qcow2 --name web --os-version "Ubuntu 22.04 server 64bit" --min-disk 40
  imgferry images import web.zvhd2 --bucket my-images --name web --os-version "CentOS 7.6 64bit" --via fast
  imgferry images import data.vmdk --bucket my-images --name data --type DataImage --min-disk 100
  imgferry images import my-images:install.iso --name setup --type IsoImage --os-version "CentOS 7.6 64bit"`,
		Args: cobra.ExactArgs(1),
	}
	p.jobFlags(cmd, limits.TypeECS, limits.TypeBMS, limits.TypeData, limits.TypeISO)
	f := cmd.Flags()
	f.StringVar(&p.via, "via", importWays[0], "way of import: import, or fast")
	f.StringVar(&p.osType, "os-type", "", "Linux or Windows")
	f.IntVar(&p.minDisk, "min-disk", 40, "smallest disk in GiB, from 40; --via fast: from 1")
	f.StringVar(&p.cmk, "cmk-id", "", "encrypt the image with this key of the key service")
	f.StringVar(&p.arch, "arch", "", "x86 or arm")
	f.StringVar(&p.firmware, "firmware", "", "bios or uefi (default: the service's choice)")
	f.BoolVar(&p.configure, "configure", false, "let the service prepare the system: drivers, network, cloud-init")
	for flag, values := range map[string][]string{"via": importWays, "arch": {"x86", "arm"}, "firmware": {"bios", "uefi"}, "os-type": {"Linux", "Windows"}} {
		_ = cmd.RegisterFlagCompletionFunc(flag, anyOf(values...))
	}
	c.flags(cmd)
	c.cloud.flags(cmd, profile.Bucket)
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		tags, err := parseTags(p.tags)
		if err != nil {
			return err
		}
		if err := p.check(); err != nil {
			return err
		}
		ctx := cmd.Context()
		return c.run(ctx, func(client *ims.Client, _ *started) (string, error) {
			url, err := c.objectURL(args[0])
			if err != nil {
				return "", err
			}
			return p.start(ctx, client, url, tags)
		}, imageOf)
	}
	return cmd
}

// check refuses flags that don't go together.
func (p *importFlags) check() error {
	switch {
	case !slices.Contains(importWays, p.via):
		return usagef("--via takes import or fast, not %q", p.via)
	case p.via == pipeline.ViaFast && (p.cmk != "" || p.configure || p.minRAM != 0 || p.maxRAM != 0):
		return usagef("--cmk-id, --configure, --min-memory and --max-memory are for --via import: a fast import takes the object as it is")
	case p.kind == limits.TypeData && (p.osVersion != "" || p.arch != "" || p.firmware != "" || p.configure):
		return usagef("--os-version, --arch, --firmware and --configure are for system disks")
	}
	return nil
}

// start asks for the import of the object at url and returns the id of its job.
func (p *importFlags) start(ctx context.Context, client *ims.Client, url string, tags []ims.Tag) (string, error) {
	switch {
	case p.via == pipeline.ViaFast:
		return client.QuickImport(ctx, ims.QuickImportRequest{
			Name: p.name, Description: p.description, OSVersion: p.osVersion, OSType: p.osType, ImageURL: url, MinDisk: p.minDisk,
			Type: p.kind, Architecture: p.arch, Firmware: p.firmware, EnterpriseProjectID: p.enterprise, ImageTags: tags,
		})
	case p.kind == limits.TypeData:
		return client.CreateDataImage(ctx, ims.DataImageRequest{
			Name: p.name, Description: p.description, OSType: p.osType, ImageURL: url, MinDisk: p.minDisk,
			CMKID: p.cmk, EnterpriseProjectID: p.enterprise, ImageTags: tags,
		})
	}
	return client.CreateImage(ctx, ims.CreateImageRequest{
		Name: p.name, Description: p.description, ImageURL: url, OSVersion: p.osVersion, OSType: p.osType, MinDisk: p.minDisk,
		MinRAM: p.minRAM, MaxRAM: p.maxRAM, Configure: p.configure, CMKID: p.cmk, Type: p.kind, Architecture: p.arch,
		Firmware: p.firmware, EnterpriseProjectID: p.enterprise, ImageTags: tags,
	})
}
