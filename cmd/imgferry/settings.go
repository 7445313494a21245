package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imgferry/ims"
	"imgferry/profile"
)

// Environment variables. The HUAWEICLOUD_SDK ones are those of the vendor's own clients.
const (
	envAK          = "HUAWEICLOUD_SDK_AK"
	envSK          = "HUAWEICLOUD_SDK_SK"
	envToken       = "HUAWEICLOUD_SDK_SECURITY_TOKEN"
	envProject     = "HUAWEICLOUD_SDK_PROJECT_ID"
	envRegion      = "IMGFERRY_REGION"
	envIMSEndpoint = "IMGFERRY_IMS_ENDPOINT"
	envOBSEndpoint = "IMGFERRY_OBS_ENDPOINT"
	envIAMEndpoint = "IMGFERRY_IAM_ENDPOINT"
	envBucket      = "IMGFERRY_BUCKET"
	envStyle       = "IMGFERRY_ADDRESSING_STYLE"
	envSignature   = "IMGFERRY_SIGNATURE"
	envProxy       = "IMGFERRY_PROXY"
	envCAFile      = "IMGFERRY_CA_FILE"
	envUser        = "IMGFERRY_USER"
	envDomain      = "IMGFERRY_DOMAIN"
	envConfig      = "IMGFERRY_CONFIG"
	envProfile     = "IMGFERRY_PROFILE"
)

// setting is one value that reaching the cloud takes. Its flag has the name that it has in the settings
// file.
type setting struct {
	name, env, help string
	field           func(*cloud) *string
}

var settings = []setting{
	{profile.Region, envRegion, "region, such as cn-north-4", func(c *cloud) *string { return &c.region }},
	{profile.Bucket, envBucket, "bucket, in the image service's region", func(c *cloud) *string { return &c.bucket }},
	{profile.ProjectID, envProject, "project id in the region", func(c *cloud) *string { return &c.project }},
	{profile.AccessKey, envAK, "access key", func(c *cloud) *string { return &c.ak }},
	{profile.SecretKey, envSK, "secret key; visible to other users of the machine, so rather use the settings file or the environment", func(c *cloud) *string { return &c.sk }},
	{profile.SecurityToken, envToken, "security token of a temporary access key; as visible as --sk", func(c *cloud) *string { return &c.token }},
	{profile.OBSEndpoint, envOBSEndpoint, "object store's URL; default from the region", func(c *cloud) *string { return &c.obsEndpoint }},
	{profile.IMSEndpoint, envIMSEndpoint, "image service's URL; default from the region", func(c *cloud) *string { return &c.imsEndpoint }},
	{profile.IAMEndpoint, envIAMEndpoint, "identity service's URL, for login; default from the region", func(c *cloud) *string { return &c.iamEndpoint }},
	{profile.AddressingStyle, envStyle, "where the bucket's name goes in requests: auto, path or virtual-host", func(c *cloud) *string { return &c.style }},
	{profile.Signature, envSignature, "how requests to the store are signed: v4, or v2 for one that refuses that", func(c *cloud) *string { return &c.signature }},
	{profile.Proxy, envProxy, "proxy's URL, or none; default from HTTPS_PROXY and its like", func(c *cloud) *string { return &c.proxy }},
	{profile.CAFile, envCAFile, "PEM file of certificates to trust besides the system's", func(c *cloud) *string { return &c.caFile }},
	{profile.User, envUser, "user's name, for login", func(c *cloud) *string { return &c.user }},
	{profile.Domain, envDomain, "name of the user's account, for login", func(c *cloud) *string { return &c.domain }},
}

var (
	// credentialSettings go together.
	credentialSettings = []string{profile.AccessKey, profile.SecretKey, profile.SecurityToken}
	// accessSettings are those that reaching either the store or the image service takes; storeSettings, what the
	// store takes, besides the bucket.
	accessSettings = slices.Concat([]string{profile.Region}, credentialSettings, []string{profile.Proxy, profile.CAFile})
	storeSettings  = slices.Concat(accessSettings, []string{profile.OBSEndpoint, profile.AddressingStyle, profile.Signature})
	// loginSettings are those that a login is made with, and good for.
	loginSettings = []string{profile.Region, profile.ProjectID, profile.IAMEndpoint, profile.User, profile.Domain}
)

func settingNamed(name string) setting {
	for _, s := range settings {
		if s.name == name {
			return s
		}
	}
	panic("no setting " + name) // only constants come here
}

// storeFlags adds what reaching the object store takes.
func (c *cloud) storeFlags(cmd *cobra.Command) {
	c.flags(cmd, profile.Bucket)
	c.flags(cmd, storeSettings...)
	c.accessFlags(cmd)
}

// serviceFlags adds what reaching the image service takes.
func (c *cloud) serviceFlags(cmd *cobra.Command) {
	c.flags(cmd, profile.ProjectID, profile.IMSEndpoint)
	c.accessFlags(cmd)
}

// accessFlags adds what reaching either takes.
func (c *cloud) accessFlags(cmd *cobra.Command) {
	c.flags(cmd, accessSettings...)
	c.patience.flags(cmd)
	c.profileFlags(cmd)
}

// flags adds the flags of the settings named that cmd does not have yet.
func (c *cloud) flags(cmd *cobra.Command, names ...string) {
	f := cmd.Flags()
	for _, name := range names {
		if s := settingNamed(name); f.Lookup(name) == nil {
			f.StringVar(s.field(c), name, "", s.help+" ($"+s.env+")")
		}
	}
}

// configFlag adds --config.
func (c *cloud) configFlag(cmd *cobra.Command) {
	if cmd.Flags().Lookup("config") == nil {
		cmd.Flags().StringVar(&c.config, "config", "", "settings file; see imgferry config path ($"+envConfig+")")
	}
}

// profileFlags adds --config and --profile.
func (c *cloud) profileFlags(cmd *cobra.Command) {
	c.configFlag(cmd)
	if cmd.Flags().Lookup("profile") != nil {
		return
	}
	cmd.Flags().StringVar(&c.profile, "profile", "", "profile of the settings file ($"+envProfile+")")
	// It fails only for a flag that is not there.
	_ = cmd.RegisterFlagCompletionFunc("profile", c.completeProfiles)
}

// fill takes from the environment, the profile and the login what no flag said. What is wrong with them
// is said by whoever needs them: store, service, both, httpClient.
func (c *cloud) fill() {
	c.from = make(map[string]string)
	c.err = c.openProfile()
	if c.err != nil {
		return
	}
	var errs []error
	for _, s := range settings {
		if !slices.Contains(credentialSettings, s.name) {
			errs = append(errs, c.take(s))
		}
	}
	errs = append(errs, c.takeCredentials())
	if c.ak == "" {
		errs = append(errs, c.loadLogin())
		c.useLogin()
	}
	c.derive()
	c.err = errors.Join(errs...)
}

// namedConfig is the settings file that --config or the environment names, or "".
func (c *cloud) namedConfig() string {
	if c.config != "" {
		return c.config
	}
	return os.Getenv(envConfig)
}

// configPath is where the settings file is, or would be.
func (c *cloud) configPath() (string, error) {
	if named := c.namedConfig(); named != "" {
		return filepath.Abs(named)
	}
	return profile.Path()
}

// openFile reads the settings file; one that is named must exist if must says so.
func (c *cloud) openFile(must bool) error {
	path, err := c.configPath()
	if err != nil {
		return err
	}
	f, err := profile.Load(path)
	if errors.Is(err, profile.ErrFile) {
		return &usageError{err}
	} else if err != nil {
		return err
	}
	if must && c.namedConfig() != "" && !f.Exists() {
		return fmt.Errorf("the settings file %s: %w", path, fs.ErrNotExist)
	}
	if f.Exposed() {
		c.warnf("%s holds secrets, and others on this machine may read it: chmod 600 %s", f.Path(), shellQuote(f.Path()))
	}
	c.file = f
	return nil
}

// openProfile reads the settings file and says in c.profile which of its profiles is meant.
func (c *cloud) openProfile() error {
	c.named = c.profile != ""
	named := c.named || os.Getenv(envProfile) != ""
	if err := c.openFile(true); err != nil {
		if _, nowhere := c.configPath(); nowhere != nil && !named {
			return nil // a machine without a home: flags and the environment do
		}
		return err
	}
	c.chooseProfile()
	if named {
		return asUsage(c.file.Require(c.profile))
	}
	if c.profile != profile.DefaultName && !c.file.Has(c.profile) {
		return usagef("%w: choose one with imgferry config use NAME", c.file.Require(c.profile))
	}
	return nil
}

// chooseProfile sets c.profile to the name of the profile that is meant.
func (c *cloud) chooseProfile() {
	if c.profile == "" {
		c.profile = os.Getenv(envProfile)
	}
	if c.profile == "" {
		c.profile = c.file.Current()
	}
}

// asUsage is err as a wrong command line, or nil.
func asUsage(err error) error {
	if err == nil {
		return nil
	}
	return &usageError{err}
}

// place is one that settings come from.
type place struct {
	name string // in words
	get  func(setting) string
	says func(setting) string // where in it a setting is, in words
}

// places returns where settings come from, the first first.
func (c *cloud) places() []place {
	all := []place{
		{"the command line", func(s setting) string { return *s.field(c) }, func(s setting) string { return "--" + s.name }},
		{"the environment", func(s setting) string { return os.Getenv(s.env) }, func(s setting) string { return "$" + s.env }},
	}
	if c.file != nil {
		name := "profile " + c.profile
		all = append(all, place{name, c.inProfile, func(setting) string { return name }})
	}
	return all
}

// inProfile is what the profile has for a setting.
func (c *cloud) inProfile(s setting) string {
	v := c.file.Get(c.profile, s.name)
	if s.name == profile.CAFile && v != "" && !filepath.IsAbs(v) {
		v = filepath.Join(filepath.Dir(c.file.Path()), v) // wherever the program is started
	}
	return v
}

// set gives a setting its value, and refuses one that it can't have.
func (c *cloud) set(s setting, value, from string) error {
	*s.field(c), c.from[s.name] = value, from
	if err := profile.Check(s.name, value); err != nil {
		return usagef("%w (from %s)", err, from)
	}
	return nil
}

// take gives one setting the value of the first place that has one.
func (c *cloud) take(s setting) error {
	for _, at := range c.places() {
		if v := at.get(s); v != "" {
			return c.set(s, v, at.says(s))
		}
	}
	return nil
}

// takeCredentials takes the access key, the secret key and the security token from the first place that
// has any of them, all from there.
func (c *cloud) takeCredentials() error {
	for _, at := range c.places() {
		var errs []error
		var lacks []string
		given := false
		for _, name := range credentialSettings {
			s := settingNamed(name)
			if v := at.get(s); v != "" {
				given = true
				errs = append(errs, c.set(s, v, at.says(s)))
			} else if name != profile.SecurityToken {
				lacks = append(lacks, name)
			}
		}
		if !given {
			continue
		}
		if len(lacks) > 0 {
			errs = append(errs, usagef("%s has no %s beside its other credentials: access key, secret key and security token are taken from one place",
				at.name, strings.Join(lacks, " and no ")))
		}
		if c.named && at.name == "the environment" && c.file.Get(c.profile, profile.AccessKey) != "" {
			c.warnf("the access key of the environment ($%s) goes before that of profile %s", envAK, c.profile)
		}
		return errors.Join(errs...)
	}
	return nil
}

// loadLogin looks for a login of the profile. It is good for the settings that it was made with, and
// gives those that are not set.
func (c *cloud) loadLogin() error {
	if c.file == nil {
		return nil
	}
	l, err := c.file.Login(c.profile)
	if c.loginAnew && errors.Is(err, profile.ErrFile) {
		c.warnf("%v: this login replaces it", err)
		return nil
	}
	if l == nil || err != nil {
		return err
	}
	for _, name := range loginSettings {
		is, was := *settingNamed(name).field(c), l.Bound[name]
		if is != "" && was != "" && is != was {
			c.otherLogin = &loginError{fmt.Sprintf("the login of profile %s is for the %s %q, not %q (from %s): run %s",
				c.profile, name, was, is, c.from[name], c.command("login"))}
			return nil
		}
	}
	for _, name := range loginSettings {
		s := settingNamed(name)
		if *s.field(c) == "" && l.Bound[name] != "" {
			if err := c.set(s, l.Bound[name], fromLogin); err != nil {
				return err
			}
		}
	}
	c.login = l
	return nil
}

// fromLogin is where a setting came from that the login has.
const fromLogin = "login"

// useLogin takes the temporary keys that the login gave.
func (c *cloud) useLogin() {
	if c.login == nil || c.login.AccessKey == "" {
		return
	}
	c.ak, c.sk, c.token = c.login.AccessKey, c.login.SecretKey.Reveal(), c.login.SecurityToken.Reveal()
	for _, name := range credentialSettings {
		c.from[name] = fromLogin
	}
}

// loginError is a login that can't be used.
type loginError struct{ text string }

func (e *loginError) Error() string { return e.text }

// Is puts it among the missing credentials.
func (e *loginError) Is(target error) bool { return target == ims.ErrDenied }

// checkLogin refuses a login that has ended, or is for something else.
func (c *cloud) checkLogin(now time.Time) error {
	switch {
	case c.otherLogin != nil:
		return &advised{error: c.otherLogin}
	case c.login != nil && !now.Before(c.login.Ends()):
		return &advised{error: &loginError{fmt.Sprintf("the login of profile %s ended on %s: run %s",
			c.profile, c.login.Ends().Local().Format(timeLayout), c.command("login"))}}
	}
	return nil
}

// timeLayout is how times are told to people.
const timeLayout = "2006-01-02 15:04:05 MST"

// command is a command of this program for the same profile.
func (c *cloud) command(words string) string {
	return "imgferry " + strings.Join(append([]string{words}, c.where()...), " ")
}

// where repeats the flags that lead another command to the same profile, as far as it would not find
// it by itself.
func (c *cloud) where() []string {
	var words []string
	if c.config != "" {
		words = append(words, "--config", shellQuote(c.config))
	}
	if c.file != nil && c.profile != c.file.Current() && c.profile != os.Getenv(envProfile) {
		words = append(words, "--profile", shellQuote(c.profile))
	}
	return words
}

// given repeats the flags among the settings named that were given. What the environment and the profile say need
// not be repeated; secrets are not.
func (c *cloud) given(names ...string) []string {
	var words []string
	for _, name := range names {
		value := *settingNamed(name).field(c)
		if c.from[name] != "--"+name || slices.Contains(credentialSettings, name) {
			continue
		}
		if u, err := url.Parse(value); err == nil && u.User != nil {
			u.User = url.User(u.User.Username())
			value = u.String()
		}
		words = append(words, "--"+name, shellQuote(value))
	}
	return words
}

// derive makes the endpoints that are not given from the region.
func (c *cloud) derive() {
	if c.region == "" || profile.Check(profile.Region, c.region) != nil {
		return
	}
	for name, url := range map[string]string{
		profile.OBSEndpoint: regionOBS(c.region),
		profile.IMSEndpoint: "https://ims." + c.region + ".myhuaweicloud.com",
		profile.IAMEndpoint: "https://iam." + c.region + ".myhuaweicloud.com",
	} {
		if p := settingNamed(name).field(c); *p == "" {
			*p, c.from[name] = url, "the region"
		}
	}
}

// regionOBS is the address of a region's object store.
func regionOBS(region string) string { return "https://obs." + region + ".myhuaweicloud.com" }
