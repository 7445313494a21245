package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"imgferry/ims"
	"imgferry/upload/obs"
)

// cloud is how to reach a cloud: flags, then the environment.
type cloud struct {
	region, project          string
	imsEndpoint, obsEndpoint string
	bucket                   string
	ak, sk, token            string
}

// Environment variables. The HUAWEICLOUD_SDK ones are those of the vendor's own clients.
const (
	envAK          = "HUAWEICLOUD_SDK_AK"
	envSK          = "HUAWEICLOUD_SDK_SK"
	envToken       = "HUAWEICLOUD_SDK_SECURITY_TOKEN"
	envProject     = "HUAWEICLOUD_SDK_PROJECT_ID"
	envRegion      = "IMGFERRY_REGION"
	envIMSEndpoint = "IMGFERRY_IMS_ENDPOINT"
	envOBSEndpoint = "IMGFERRY_OBS_ENDPOINT"
	envBucket      = "IMGFERRY_BUCKET"
)

// storeFlags adds what reaching the object store takes.
func (c *cloud) storeFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.bucket, "bucket", "", "bucket, in the image service's region ($"+envBucket+")")
	f.StringVar(&c.region, "region", "", "region, such as cn-north-4 ($"+envRegion+")")
	f.StringVar(&c.obsEndpoint, "obs-endpoint", "", "object store's URL; default from the region ($"+envOBSEndpoint+")")
	f.StringVar(&c.ak, "ak", "", "access key ($"+envAK+")")
	f.StringVar(&c.sk, "sk", "", "secret key; visible to other users of the machine, so rather set $"+envSK)
}

// serviceFlags adds what reaching the image service takes.
func (c *cloud) serviceFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.project, "project-id", "", "project id in the region ($"+envProject+")")
	f.StringVar(&c.imsEndpoint, "ims-endpoint", "", "image service's URL; default from the region ($"+envIMSEndpoint+")")
}

// fill takes from the environment what no flag said, and the endpoints from the region.
func (c *cloud) fill() {
	for _, v := range []struct {
		to  *string
		env string
	}{
		{&c.ak, envAK}, {&c.sk, envSK}, {&c.token, envToken}, {&c.project, envProject}, {&c.region, envRegion},
		{&c.imsEndpoint, envIMSEndpoint}, {&c.obsEndpoint, envOBSEndpoint}, {&c.bucket, envBucket},
	} {
		if *v.to == "" {
			*v.to = os.Getenv(v.env)
		}
	}
	if c.region != "" {
		if c.obsEndpoint == "" {
			c.obsEndpoint = regionOBS(c.region)
		}
		if c.imsEndpoint == "" {
			c.imsEndpoint = "https://ims." + c.region + ".myhuaweicloud.com"
		}
	}
}

// regionOBS is the address of a region's object store.
func regionOBS(region string) string { return "https://obs." + region + ".myhuaweicloud.com" }

// missing names the settings that are not set, as one usage error, or nil.
func missing(settings ...[2]string) error {
	var errs []error
	for _, s := range settings {
		if s[0] == "" {
			errs = append(errs, fmt.Errorf("%s", s[1]))
		}
	}
	if errs == nil {
		return nil
	}
	if len(errs) == 1 {
		return usagef("missing: %w", errs[0])
	}
	return usagef("missing:\n%w", errors.Join(errs...))
}

func (c *cloud) storeSettings() [][2]string {
	return [][2]string{
		{c.bucket, "  the bucket: --bucket or $" + envBucket},
		{c.obsEndpoint, "  the region: --region or $" + envRegion},
		{c.ak, "  the access key: $" + envAK},
		{c.sk, "  the secret key: $" + envSK},
	}
}

// store connects to the bucket. Nothing is sent yet.
func (c *cloud) store() (*obs.Bucket, error) {
	if err := missing(c.storeSettings()...); err != nil {
		return nil, err
	}
	region := c.region
	if region == "" {
		region = "us-east-1" // what S3 servers without regions sign for
	}
	bucket, err := obs.New(obs.Config{
		Endpoint: c.obsEndpoint, Region: region, Bucket: c.bucket,
		AccessKey: c.ak, SecretKey: c.sk, SecurityToken: c.token, UserAgent: userAgent(),
	})
	if err != nil {
		return nil, &usageError{err} // nothing was sent: a setting is wrong
	}
	return bucket, nil
}

// both connects to the bucket and to the image service, or names everything that is missing.
func (c *cloud) both() (*obs.Bucket, *ims.Client, error) {
	settings := append(c.storeSettings(), [2]string{c.project, "  the project id: --project-id or $" + envProject})
	if c.obsEndpoint != "" {
		settings = append(settings, [2]string{c.imsEndpoint, "  the image service's URL: --ims-endpoint or $" + envIMSEndpoint})
	}
	if err := missing(settings...); err != nil {
		return nil, nil, err
	}
	bucket, err := c.store()
	if err != nil {
		return nil, nil, err
	}
	client, err := ims.New(ims.Config{
		Endpoint: c.imsEndpoint, ProjectID: c.project, Region: c.region, UserAgent: userAgent(),
		Credentials: ims.AccessKey(c.ak, c.sk, c.token),
	})
	if err != nil {
		return nil, nil, &usageError{err}
	}
	return bucket, client, nil
}

func userAgent() string { return "imgferry/" + version }
