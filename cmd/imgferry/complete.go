package main

import (
	"context"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"imgferry/formats/all"
	"imgferry/ims"
	"imgferry/limits"
	"imgferry/pipeline"
	"imgferry/profile"
)

// completionDeadline bounds what a shell waits for after the Tab key.
const completionDeadline = 2 * time.Second

// addCompletions gives the flags and arguments of cmd and of the commands below it their values. What
// takes neither one of a few words nor a file is completed with nothing, instead of files.
func addCompletions(cmd *cobra.Command) {
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if _, done := cmd.GetFlagCompletionFunc(f.Name); !done && f.NoOptDefVal == "" {
			// The error is that of a flag that there is not.
			_ = cmd.RegisterFlagCompletionFunc(f.Name, valuesOf(f))
		}
	})
	if cmd.ValidArgsFunction == nil && !cmd.HasSubCommands() {
		cmd.ValidArgsFunction = fileArguments
	}
	for _, sub := range cmd.Commands() {
		addCompletions(sub)
	}
}

// fileArguments completes as many files as the command takes arguments.
func fileArguments(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	const most = 3 // no command takes more files
	for n := len(args) + 1; n <= most; n++ {
		if cmd.Args == nil || cmd.Args(cmd, make([]string, n)) == nil {
			return nil, cobra.ShellCompDirectiveDefault
		}
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// valuesOf completes a flag by its name: one means the same in every command.
func valuesOf(f *pflag.Flag) cobra.CompletionFunc {
	kind, _ := pflag.UnquoteUsage(f)
	switch f.Name {
	case "output":
		return anyOf(formTable, formJSON, formYAML)
	case "log-level":
		return anyOf(logLevels...)
	case "log-format":
		return anyOf(logFormats...)
	case "source-format", "backing-format":
		return formatNames
	case "output-format", "format":
		return anyOf(pipeline.ZVHD2, pipeline.Raw)
	case "type":
		return anyOf(limits.TypeECS, limits.TypeBMS, limits.TypeData)
	case "arch":
		return anyOf("x86", "arm")
	case "firmware":
		return anyOf("bios", "uefi")
	case "disk-format":
		return anyOf("zvhd2", "zvhd", "vhd", "raw", "qcow2", "iso")
	case "os-type":
		return anyOf("Linux", "Windows")
	case "via":
		return anyOf(pipeline.Ways()...)
	case "status":
		return anyOf(imageStatuses...)
	case "addressing-style":
		return anyOf(profile.StyleAuto, profile.StylePath, profile.StyleVirtualHost)
	case "region":
		return regionNames
	case "sandbox-data", "data":
		kind = "DIR"
	case "bitmap", "png", "ca-file", "config":
		kind = "FILE"
	}
	switch kind {
	case "DIR":
		return cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs)
	case "FILE":
		return cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault)
	}
	return cobra.NoFileCompletions
}

func anyOf(of ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(of, cobra.ShellCompDirectiveNoFileComp)
}

func formatNames(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var names []string
	for _, f := range all.Table() {
		names = append(names, f.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// regionNames are those that the settings file knows.
func regionNames(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var c cloud
	if f := cmd.Flags().Lookup("config"); f != nil {
		c.config = f.Value.String()
	}
	var names []string
	if c.openFile(false) == nil {
		for _, name := range c.file.Names() {
			if region := c.file.Get(name, profile.Region); region != "" {
				names = append(names, region)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), cobra.ShellCompDirectiveNoFileComp
}

// online makes a completion of what ask finds at a cloud, under a deadline and in silence: a shell
// that completes has no place for an error.
func (a *app) online(c *cloud, box *sandboxFlags, ask func(context.Context, []string) ([]cobra.Completion, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		const nothing = cobra.ShellCompDirectiveNoFileComp
		if box.on {
			return nil, nothing // its cloud runs only while a command does
		}
		a.stderr = io.Discard // notices of retries, warnings about settings
		ctx, cancel := context.WithTimeout(cmd.Context(), completionDeadline)
		defer cancel()
		c.fill()
		found, err := ask(ctx, args)
		if err != nil {
			return nil, nothing
		}
		return found, nothing
	}
}

// completeBuckets completes --bucket with the account's buckets.
func (a *app) completeBuckets(cmd *cobra.Command, c *cloud, box *sandboxFlags) {
	_ = cmd.RegisterFlagCompletionFunc("bucket", a.online(c, box, func(ctx context.Context, _ []string) ([]cobra.Completion, error) {
		names, err := c.buckets(ctx)
		for i := range names {
			names[i] = oneLine(names[i])
		}
		return names, err
	}))
}

// completeImages completes cmd's arguments with the project's own images, by id, and with byName
// also by name.
func (c *imagesCommand) completeImages(cmd *cobra.Command, most int, byName bool) {
	cmd.ValidArgsFunction = c.online(&c.cloud, &c.sandbox, func(ctx context.Context, args []string) ([]cobra.Completion, error) {
		if len(args) >= most {
			return nil, nil
		}
		client, err := c.cloud.service()
		if err != nil {
			return nil, err
		}
		query, err := c.cloud.ownImages().Query()
		if err != nil {
			return nil, err
		}
		images, err := client.Images(ctx, query)
		return imageCompletions(images, args, byName), err
	})
}

// imageCompletions are the images that are not among args yet, by id, and with byName also by name.
func imageCompletions(images []ims.Image, args []string, byName bool) []cobra.Completion {
	var found []cobra.Completion
	for _, i := range images {
		id, name := oneLine(i.ID), oneLine(i.Name)
		if slices.Contains(args, i.ID) {
			continue
		}
		found = append(found, cobra.CompletionWithDesc(id, name))
		if byName {
			found = append(found, cobra.CompletionWithDesc(name, id))
		}
	}
	return found
}
