package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"imgferry/formats"
	"imgferry/formats/all"
	"imgferry/limits"
	"imgferry/pipeline"
	"imgferry/profile"
	"imgferry/sandbox"
	"imgferry/sandbox/imageservice"
	"imgferry/upload"
)

// sandboxDirHelp is sandboxDir in words.
const sandboxDirHelp = "$XDG_STATE_HOME/imgferry/sandbox, or ~/.local/state/imgferry/sandbox"

// sandboxDir is where a sandbox keeps its objects when nobody says otherwise.
func sandboxDir() (string, error) {
	dir, err := profile.StateDir()
	if err != nil {
		return "", fmt.Errorf("no folder for the sandbox: %w; name one", err)
	}
	return filepath.Join(dir, "sandbox"), nil
}

// sandboxFlags let a command run against a sandbox in its own process.
type sandboxFlags struct {
	on   bool
	data string
}

func (s *sandboxFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&s.on, "sandbox", false, "use a cloud of its own on this machine")
	cmd.Flags().StringVar(&s.data, "sandbox-data", "", "where --sandbox keeps objects (default: "+sandboxDirHelp+")")
}

// checkIdle refuses flags that lead to another cloud than the sandbox, unless the image called path may be there.
func (s *sandboxFlags) checkIdle(given flagGiven, path string) error {
	if !s.on {
		return nil
	}
	names := []string{profile.ProjectID, profile.IMSEndpoint}
	if !strings.Contains(path, "://") {
		names = append(names, storeSettings...)
	}
	return given.refuse("--sandbox is a cloud of its own", names...)
}

// start fills c: with a running sandbox if it is wanted, else with the environment. The returned
// function stops the sandbox and waits for it.
func (s *sandboxFlags) start(ctx context.Context, a *app, c *cloud) (stop func(), err error) {
	if !s.on {
		if s.data != "" {
			return nil, usagef("--sandbox-data goes with --sandbox")
		}
		c.fill()
		return func() {}, nil
	}
	dir := s.data
	if dir == "" {
		if dir, err = sandboxDir(); err != nil {
			return nil, err
		}
	}
	box, err := sandbox.Start(ctx, sandbox.Config{DataDir: dir, Bucket: c.bucket, Formats: all.Table()})
	if err != nil {
		return nil, err
	}
	c.region, c.project, c.bucket = box.Region(), box.ProjectID(), box.Bucket()
	c.obsEndpoint, c.imsEndpoint = box.StoreEndpoint(), box.ImageEndpoint()
	c.ak, c.sk, c.token = box.AccessKey(), box.SecretKey(), ""
	a.say("sandbox: objects are kept in %s", dir)
	return func() { closeSandbox(box) }, nil
}

// where repeats the flags that lead another command to the same bucket.
func (s *sandboxFlags) where(c cloud) string {
	words := []string{"--bucket", shellQuote(c.bucket)}
	if !s.on {
		return strings.Join(slices.Concat(words, c.where(), c.given(storeSettings...)), " ")
	}
	words = append(words, "--sandbox")
	if s.data != "" {
		words = append(words, "--sandbox-data", shellQuote(s.data))
	}
	return strings.Join(words, " ")
}

// closeSandbox stops what may be running even after an interrupt.
func closeSandbox(box *sandbox.Sandbox) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return box.Close(ctx)
}

// shellQuote quotes s for a POSIX shell where it needs it.
func shellQuote(s string) string {
	plain := strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=@%+,") == ""
	if plain && s != "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// envAWSCAFile names the certificates that AWS's own clients trust.
const envAWSCAFile = "AWS_CA_BUNDLE"

func (a *app) sandboxCommand() *cobra.Command {
	var cfg sandbox.Config
	var declared sandboxResources
	var json bool
	var imitate string
	cmd := &cobra.Command{
		Use:   "sandbox",
		Short: "Run a cloud of its own on this machine: object store and image service",
		Long: `Sandbox runs an S3 object store and the image service with all its documented calls,
and a login for tokens and temporary keys, on loopback, until it is interrupted. It
checks signatures, and its jobs really import, copy and export: every block is checked
before an image becomes active. It prints the settings that point imgferry, or any S3
client, at it.

Objects, images and jobs are kept in --data and survive a crash; jobs that had not
ended go on with the next start. GET /healthz says whether either service works, and
GET /metrics of the image service what it has done, for Prometheus.

Servers, volumes and backups, which it has not got, are disk images that you name, so
that images can be made from them too: --volume, --instance, --backup. Images can be
shared with each --other-project (clients act for one with X-Project-Id), and copied to
each --region-peer, whose images are seen under the host name NAME.localhost.

With --imitate obs it is as strict as Huawei Cloud's store: HTTPS with a certificate
authority of its own (its certificate is in $` + envCAFile + ` among the settings), the
bucket in the host name only (BUCKET.` + sandbox.StoreHost + `, which imgferry takes for this
machine whatever the resolver says), parts from 100 KiB, no trailing checksums.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.Imitate = sandbox.Imitation(imitate)
			if err := declared.fill(&cfg); err != nil {
				return err
			}
			return a.runSandbox(cmd.Context(), cfg, json)
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.DataDir, "data", "", "where objects, images and jobs are kept (default: "+sandboxDirHelp+")")
	f.StringVar(&cfg.StoreListen, "listen-store", "127.0.0.1:9820", "address of the object store")
	f.StringVar(&cfg.ImageListen, "listen-images", "127.0.0.1:9821", "address of the image service")
	f.BoolVar(&cfg.AllowRemote, "allow-remote", false, "allow addresses that other machines can reach")
	f.StringVar(&cfg.Bucket, "bucket", "", `bucket to make (default "`+sandbox.DefaultBucket+`")`)
	f.StringVar(&imitate, "imitate", "", "be as strict as another cloud's store: obs")
	f.BoolVar(&cfg.RefusePayloadHash, "refuse-payload-hash", false, "with --imitate obs: refuse bodies that are signed by their hash")
	f.BoolVar(&cfg.TLS, "tls", false, "speak HTTPS, with a certificate authority in the data folder")
	f.StringVar(&cfg.User, "user", "", "name to log in with, of the domain "+sandbox.Domain+" (default: $"+envUser+", else "+sandbox.DefaultUser+")")
	f.StringVar(&cfg.Password, "password", "", "password to log in with (default: $"+envPassword+", else a random one)")
	f.StringVar(&cfg.AccessKey, "ak", "", "access key (default: $"+envAK+", else a random one)")
	f.StringVar(&cfg.ProjectID, "project", "", `id of the project (default "`+sandbox.DefaultProjectID+`")`)
	f.StringVar(&cfg.Region, "region", "", `name of the region (default "`+sandbox.DefaultRegion+`")`)
	f.IntVar(&cfg.Quota, "quota", 0, "how many images a project may have (default 1000)")
	declared.flags(f)
	f.BoolVar(&json, "json", false, "print the settings as JSON instead of shell exports")
	f.StringVar(&cfg.SecretKey, "sk", "", "secret key (default: $"+envSK+", else a random one)")
	return cmd
}

// sandboxResources are the flags that name what a sandbox has not got by itself.
type sandboxResources struct {
	volumes, instances, backups []string
	regions, projects           []string
	keys, vaults                []string
}

func (d *sandboxResources) flags(f *pflag.FlagSet) {
	f.StringArrayVar(&d.volumes, "volume", nil, "`ID=FILE`: a disk image that is a volume; may be repeated")
	f.StringArrayVar(&d.instances, "instance", nil, "`ID=FILE[,FILE...]`: disk images, or ids of volumes, that are a server's disks, the system disk first; may be repeated")
	f.StringArrayVar(&d.backups, "backup", nil, "`ID=FILE[,FILE...]`: disk images that are a server's backup; may be repeated")
	f.StringArrayVar(&d.regions, "region-peer", nil, "`NAME[=PROJECT]`: another region that images can be copied to, and its project's name; may be repeated")
	f.StringArrayVar(&d.projects, "other-project", nil, "`ID[=NAME]`: another project of the account, to share images with; may be repeated")
	f.StringArrayVar(&d.keys, "key", nil, "`ID` of an encryption key; without any, all ids are taken; may be repeated")
	f.StringArrayVar(&d.vaults, "vault", nil, "`ID` of a backup vault; without any, all ids are taken; may be repeated")
}

// fill checks the flags and puts what they say into cfg. The files are opened when they are needed.
func (d *sandboxResources) fill(cfg *sandbox.Config) error {
	cfg.Formats = all.Table()
	cfg.OtherProjects = make(map[string]string)
	r := &cfg.Resources
	*r = imageservice.Resources{
		Volumes: make(map[string]string), Instances: make(map[string][]string), Backups: make(map[string][]string),
		Regions: make(map[string]string), Keys: d.keys, Vaults: d.vaults,
		Open: func(ctx context.Context, name string) (formats.Image, error) {
			return (&pipeline.Opener{Table: cfg.Formats}).Open(ctx, name, "")
		},
	}
	for _, s := range d.volumes {
		id, files, err := imageservice.ParseResource(s)
		if err != nil || len(files) != 1 {
			return usagef("--volume takes ID=FILE, not %q", s)
		}
		r.Volumes[id] = files[0]
	}
	for name, list := range map[string]struct {
		given []string
		to    map[string][]string
	}{"instance": {d.instances, r.Instances}, "backup": {d.backups, r.Backups}} {
		for _, s := range list.given {
			id, files, err := imageservice.ParseResource(s)
			if err != nil {
				return usagef("--%s takes ID=FILE[,FILE...], not %q", name, s)
			}
			list.to[id] = files
		}
	}
	for _, s := range d.regions {
		name, project, _ := strings.Cut(s, "=")
		r.Regions[name] = project
	}
	for _, s := range d.projects {
		id, name, _ := strings.Cut(s, "=")
		if err := limits.ProjectID(id); err != nil {
			return usagef("--other-project: %v", err)
		}
		cfg.OtherProjects[id] = cmp.Or(name, id)
	}
	return nil
}

func (a *app) runSandbox(ctx context.Context, cfg sandbox.Config, json bool) (err error) {
	if cfg.Imitate != sandbox.S3 && cfg.Imitate != sandbox.OBS {
		return usagef("--imitate takes %s, not %q", sandbox.OBS, cfg.Imitate)
	}
	if cfg.RefusePayloadHash && cfg.Imitate != sandbox.OBS {
		return usagef("--refuse-payload-hash goes with --imitate %s", sandbox.OBS)
	}
	if cfg.DataDir == "" {
		if cfg.DataDir, err = sandboxDir(); err != nil {
			return err
		}
	}
	if cfg.AccessKey == "" && cfg.SecretKey == "" {
		cfg.AccessKey, cfg.SecretKey = os.Getenv(envAK), os.Getenv(envSK)
	}
	cfg.User, cfg.Password = cmp.Or(cfg.User, os.Getenv(envUser)), cmp.Or(cfg.Password, os.Getenv(envPassword))
	if a.logLevel == "" {
		a.logLevel = "info" // a server says what it does
		a.startLog()
	}
	cfg.Logger = a.log
	box, err := sandbox.Start(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := closeSandbox(box); err == nil {
			err = cerr
		}
	}()
	if err := a.printSettings(box, json); err != nil {
		return err
	}
	a.say("The sandbox is running; its data is in %s. Ctrl-C ends it.", cfg.DataDir)
	failed := make(chan error, 1)
	go func() { failed <- box.Wait() }() // Wait returns at the latest when Close does
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		if errors.Is(context.Cause(ctx), upload.ErrInterrupted) {
			return nil // the way to end it
		}
		return context.Cause(ctx)
	}
}

// printSettings prints what points imgferry, or any S3 client, at the sandbox: for a shell to read,
// or as JSON.
func (a *app) printSettings(box *sandbox.Sandbox, json bool) error {
	settings := [][2]string{
		{envOBSEndpoint, box.StoreEndpoint()}, {envIMSEndpoint, box.ImageEndpoint()}, {envRegion, box.Region()},
		{envBucket, box.Bucket()}, {envProject, box.ProjectID()}, {envAK, box.AccessKey()}, {envSK, box.SecretKey()},
		{envIAMEndpoint, box.ImageEndpoint()}, {envDomain, sandbox.Domain}, {envUser, box.User()}, {envPassword, box.Password()},
	}
	if file := box.CertificateFile(); file != "" {
		// The second is for the AWS clients.
		settings = append(settings, [2]string{envCAFile, file}, [2]string{envAWSCAFile, file})
	}
	if json {
		byName := make(map[string]string, len(settings))
		for _, s := range settings {
			byName[s[0]] = s[1]
		}
		return printJSON(a.stdout, byName)
	}
	for _, s := range settings {
		if _, err := fmt.Fprintf(a.stdout, "export %s=%s\n", s[0], shellQuote(s[1])); err != nil {
			return err
		}
	}
	return nil
}
