package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"imgferry/profile"
)

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Keep cloud settings in named profiles",
		Long: `Config keeps what reaching a cloud takes in a file, as named profiles. A command
uses the profile that --profile or $` + envProfile + ` names, else the current one.

Each setting comes from the first place that has it: the flag of its name, the
environment, the profile, a login, or what follows from the region. The access key,
the secret key and the security token are one set: all from one place.

The file is made with mode 0600. It is YAML and may be edited by hand.`,
		Example: `  imgferry config set region cn-north-4
  imgferry config set bucket my-images
  imgferry config set ak AKEXAMPLE
  imgferry config set sk          # asks for it
  imgferry config show
  imgferry config set --profile test region ap-southeast-1
  imgferry config use test`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.configListCommand(), a.configShowCommand(), a.configSetCommand(), a.configUnsetCommand(),
		a.configUseCommand(), a.configDeleteCommand(), a.configPathCommand())
	return cmd
}

// listedProfile is a profile as `config list` prints it.
type listedProfile struct {
	Name    string    `json:"name"`
	Current bool      `json:"current"`
	Region  string    `json:"region,omitempty"`
	Bucket  string    `json:"bucket,omitempty"`
	Login   time.Time `json:"login_until,omitzero"`
}

func (a *app) configListCommand() *cobra.Command {
	c := &cloud{app: a}
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the profiles",
		Args:    cobra.NoArgs,
	}
	out := a.outputFlags(cmd)
	c.configFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		if err := c.openFile(true); err != nil {
			return err
		}
		c.chooseProfile()
		list := []listedProfile{}
		for _, name := range c.file.Names() {
			p := listedProfile{
				Name: name, Current: name == c.profile,
				Region: c.file.Get(name, profile.Region), Bucket: c.file.Get(name, profile.Bucket),
			}
			l, err := c.file.Login(name)
			if err != nil {
				return err
			}
			if l != nil {
				p.Login = l.Ends()
			}
			list = append(list, p)
		}
		return out.emit(list, func(w io.Writer) error {
			if len(list) == 0 {
				a.say("no profiles; imgferry config set region REGION begins one")
				return nil
			}
			rows := make([][]string, len(list))
			for i, p := range list {
				rows[i] = []string{"", p.Name, p.Region, p.Bucket, loginWords(p.Login, time.Now())}
				if p.Current {
					rows[i][0] = "*"
				}
			}
			return printTable(w, []string{"CURRENT", "NAME", "REGION", "BUCKET", "LOGIN"}, rows)
		})
	}
	return cmd
}

// loginWords says how long a login lasts; of the zero time, nothing.
func loginWords(ends, now time.Time) string {
	switch {
	case ends.IsZero():
		return ""
	case now.Before(ends):
		return "until " + ends.Local().Format(timeLayout)
	}
	return "ended " + ends.Local().Format(timeLayout)
}

// shownSetting is a setting as `config show` prints it.
type shownSetting struct {
	Name string `json:"name"`
	// Value is shown without what is secret of it.
	Value string `json:"value"`
	From  string `json:"from"`
}

// shownProfile is what `config show` prints.
type shownProfile struct {
	File     string         `json:"file"`
	Profile  string         `json:"profile"`
	Settings []shownSetting `json:"settings"`
	Login    time.Time      `json:"login_until,omitzero"`
}

func (a *app) configShowCommand() *cobra.Command {
	c := &cloud{app: a}
	cmd := &cobra.Command{
		Use:   "show [NAME]",
		Short: "Show what a command would use, and where each setting comes from",
		Long: `Show prints the settings that a command with the same flags, in the same
environment, would use, and where each comes from. Secrets are not shown.`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: c.completeProfiles,
	}
	out := a.outputFlags(cmd)
	c.storeFlags(cmd)
	c.serviceFlags(cmd)
	c.flags(cmd, loginSettings...)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if len(args) == 1 {
			if c.profile != "" && c.profile != args[0] {
				return usagef("--profile and NAME name two profiles")
			}
			c.profile = args[0]
		}
		c.fill()
		if c.file == nil || c.err != nil && len(c.from) == 0 {
			return c.err // there is no such file or profile
		}
		shown := shownProfile{File: c.file.Path(), Profile: c.profile, Settings: []shownSetting{}}
		for _, s := range settings {
			if v := *s.field(c); v != "" {
				shown.Settings = append(shown.Settings, shownSetting{s.name, showable(s.name, v), c.from[s.name]})
			}
		}
		if c.login != nil {
			shown.Login = c.login.Ends()
		}
		err := out.emit(shown, func(w io.Writer) error {
			rows := [][]string{{"profile", shown.Profile, shown.File}}
			for _, s := range shown.Settings {
				rows = append(rows, []string{s.Name, s.Value, s.From})
			}
			if c.login != nil {
				rows = append(rows, []string{"token", loginWords(shown.Login, time.Now()), fromLogin})
			}
			return printTable(w, []string{"SETTING", "VALUE", "FROM"}, rows)
		})
		if err != nil {
			return err
		}
		if c.err == nil && c.otherLogin != nil {
			c.warnf("%v", c.otherLogin)
		}
		return c.err // what a command would fail with
	}
	return cmd
}

// showable is a setting's value without what is secret of it.
func showable(name, value string) string {
	if !profile.IsSecret(name, value) {
		return value
	}
	if u, err := url.Parse(value); name == profile.Proxy && err == nil && u.Host != "" {
		u.User = url.User("hidden")
		return u.String()
	}
	return "[hidden]"
}

func (a *app) configSetCommand() *cobra.Command {
	c := &cloud{app: a}
	cmd := &cobra.Command{
		Use:   "set KEY [VALUE]",
		Short: "Set a setting of a profile",
		Long: `Set sets one setting of the profile that --profile names, else of the current one,
and makes file and profile if they are not there.

A secret (` + profile.SecretKey + `, ` + profile.SecurityToken + `, a proxy with a password) is not taken from the
command line, where other users of the machine and the shell's history see it: leave
VALUE out, and it is asked for, or read from standard input if that is no terminal.

` + settingsHelp(),
		Args: cobra.RangeArgs(1, 2),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			return completeSettings(args)
		},
	}
	c.profileFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		key := args[0]
		if !slices.Contains(profile.Keys(), key) {
			return asUsage(profile.Check(key, ""))
		}
		if err := c.openFile(false); err != nil {
			return err
		}
		c.chooseProfile()
		value, err := a.settingValue(cmd.Context(), key, args[1:])
		if err != nil {
			return err
		}
		begun := false
		err = c.file.Change(cmd.Context(), func(f *profile.File) (bool, error) {
			begun = f.Has(c.profile)
			return true, asUsage(f.Set(c.profile, key, value))
		})
		if err != nil {
			return err
		}
		if !begun {
			a.say("began profile %s in %s", c.profile, c.file.Path())
		}
		return nil
	}
	return cmd
}

// settingValue is the value for key that the user gives: on the command line, or for a secret another
// way.
func (a *app) settingValue(ctx context.Context, key string, args []string) (string, error) {
	if len(args) == 1 {
		value := args[0]
		if profile.IsSecret(key, value) {
			return "", usagef("a secret on the command line is seen by others: leave it out, and imgferry config set %s asks for it or reads it from standard input", key)
		}
		if key != profile.CAFile || value == "" {
			return value, nil
		}
		path, err := filepath.Abs(value) // the program will be started elsewhere
		if err != nil {
			return "", err
		}
		_, err = rootsWith(path) // better said now
		return path, err
	}
	switch key {
	case profile.SecretKey, profile.SecurityToken, profile.Proxy:
		return a.secret(ctx, key)
	}
	return "", usagef("the value is missing: imgferry config set %s VALUE", key)
}

// settingsHelp lists the settings with what they are.
func settingsHelp() string {
	text := "Settings:"
	for _, s := range settings {
		help := s.help
		switch s.name { // without the flag's warning
		case profile.SecretKey:
			help = "secret key"
		case profile.SecurityToken:
			help = "security token of a temporary access key"
		}
		text += fmt.Sprintf("\n  %-18s%s ($%s)", s.name, help, s.env)
	}
	return text
}

func (a *app) configUnsetCommand() *cobra.Command {
	c := &cloud{app: a}
	cmd := &cobra.Command{
		Use:   "unset KEY",
		Short: "Remove a setting from a profile",
		Args:  cobra.ExactArgs(1),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			return completeSettings(args)
		},
	}
	c.profileFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains(profile.Keys(), args[0]) {
			return asUsage(profile.Check(args[0], ""))
		}
		if err := c.openFile(true); err != nil {
			return err
		}
		c.chooseProfile()
		var was bool
		err := c.file.Change(cmd.Context(), func(f *profile.File) (_ bool, err error) {
			was, err = f.Unset(c.profile, args[0])
			return was, asUsage(err)
		})
		if err == nil && !was {
			a.say("%s was not set in profile %s", args[0], c.profile)
		}
		return err
	}
	return cmd
}

func (a *app) configUseCommand() *cobra.Command {
	c := &cloud{app: a}
	cmd := &cobra.Command{
		Use:               "use NAME",
		Short:             "Make a profile the current one",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.completeProfiles,
	}
	c.configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := c.openFile(true); err != nil {
			return err
		}
		return c.file.Change(cmd.Context(), func(f *profile.File) (bool, error) { return true, asUsage(f.Use(args[0])) })
	}
	return cmd
}

func (a *app) configDeleteCommand() *cobra.Command {
	c := &cloud{app: a}
	cmd := &cobra.Command{
		Use:               "delete NAME",
		Aliases:           []string{"rm"},
		Short:             "Delete a profile and its login",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.completeProfiles,
	}
	c.configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := c.openFile(true); err != nil {
			return err
		}
		var wasCurrent bool
		err := c.file.Change(cmd.Context(), func(f *profile.File) (bool, error) {
			wasCurrent = f.Current() == args[0]
			return true, asUsage(f.Delete(args[0]))
		})
		if err != nil {
			return err
		}
		if wasCurrent {
			a.say("%s", withoutCurrent(c.file))
		}
		_, err = c.file.DeleteLogin(args[0])
		return err
	}
	return cmd
}

// withoutCurrent says what commands do after the current profile was deleted.
func withoutCurrent(f *profile.File) string {
	const was, choose = "that was the current profile: ", "choose another with imgferry config use NAME"
	switch {
	case f.Has(profile.DefaultName):
		return was + "commands use profile " + profile.DefaultName + " from now on, or " + choose
	case len(f.Names()) > 0:
		return was + "commands use none from now on; " + choose
	}
	return was + "there is none left"
}

func (a *app) configPathCommand() *cobra.Command {
	c := &cloud{app: a}
	cmd := &cobra.Command{
		Use:   "path",
		Short: "Print where the settings file is",
		Args:  cobra.NoArgs,
	}
	c.configFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		path, err := c.configPath()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(a.stdout, path)
		return err
	}
	return cmd
}

// completeProfiles completes the one argument, or the flag, that names a profile.
func (c *cloud) completeProfiles(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 || c.openFile(true) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.file.Names(), cobra.ShellCompDirectiveNoFileComp
}

// completeSettings completes the KEY of set and unset.
func completeSettings(args []string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault // a VALUE: perhaps a file
	}
	return profile.Keys(), cobra.ShellCompDirectiveNoFileComp
}
