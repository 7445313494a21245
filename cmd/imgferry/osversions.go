package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"imgferry/ims"
)

// osReport is an operating system as it is shown.
type osReport struct {
	Platform  string `json:"platform"`
	OSVersion string `json:"os_version"`
	Bits      int    `json:"os_bit"`
	Type      string `json:"os_type"`
}

func (a *app) osVersionsCommand() *cobra.Command {
	c := a.imagesBase()
	var tags []string
	cmd := &cobra.Command{
		Use:   "os-versions [TEXT...]",
		Short: "List the operating systems that the service knows, or find one's exact name",
		Long: `Os-versions lists the operating systems that the region's image service knows, as
--os-version takes them. With TEXT, such as ubuntu 22.04 x64, it prints the exact name
of the one that is meant. Where the text may mean several, it lists them and fails.`,
		Example: `  imgferry os-versions
  imgferry os-versions rhel 7.6
  imgferry push disk.qcow2 --os-version "$(imgferry os-versions ubuntu 22.04 x64)"`,
	}
	cmd.Flags().StringArrayVar(&tags, "tag", nil, "only those for bms (bare metal), uefi or another feature; once for each")
	_ = cmd.RegisterFlagCompletionFunc("tag", anyOf("bms", "uefi"))
	c.flags(cmd)
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	cmd.RunE = func(cmd *cobra.Command, words []string) error {
		text := strings.Join(words, " ")
		if len(words) > 0 && strings.TrimSpace(text) == "" {
			return usagef("the text is empty")
		}
		client, stop, err := c.connect(cmd.Context())
		if err != nil {
			return err
		}
		defer stop()
		all, err := client.OSVersions(cmd.Context(), tags...)
		if err != nil {
			return err
		}
		if len(words) == 0 {
			return c.listSystems(all)
		}
		found, sure := ims.MatchOS(all, text)
		switch {
		case len(found) == 0:
			return &coded{unknownOS(text, all), exitNotFound}
		case !sure:
			return ambiguousOS(text, found)
		}
		return c.out.emit(osReportOf(found[0]), func(w io.Writer) error { return printLine(w, found[0].Name) })
	}
	return cmd
}

// ambiguousOS says what text may mean.
func ambiguousOS(text string, found []ims.OSVersion) error {
	return usagef("%q may mean %d operating systems: say more of the name%s", text, len(found), osNames(found))
}

// unknownOS says that no operating system fits text, and which fit the most of its first words: the other
// versions of what it names.
func unknownOS(text string, all []ims.OSVersion) error {
	for words := strings.Fields(text); len(words) > 1; {
		words = words[:len(words)-1]
		if near, _ := ims.MatchOS(all, strings.Join(words, " ")); len(near) > 0 {
			return fmt.Errorf("the service knows no operating system like %q; of %s it has%s", text, strings.Join(words, " "), osNames(near))
		}
	}
	return fmt.Errorf("the service knows no operating system like %q: imgferry os-versions lists them all", text)
}

// osNames are the names of systems, each on a line of its own.
func osNames(list []ims.OSVersion) string {
	var names strings.Builder
	for _, v := range list {
		fmt.Fprintf(&names, "\n  %s", oneLine(v.Name))
	}
	return names.String()
}

func osReportOf(v ims.OSVersion) osReport { return osReport{v.Platform, v.Name, v.Bits, v.Type} }

func (c *imagesCommand) listSystems(all []ims.OSVersion) error {
	list := []osReport{}
	var rows [][]string
	for _, v := range all {
		list = append(list, osReportOf(v))
		bits := ""
		if v.Bits > 0 {
			bits = strconv.Itoa(v.Bits)
		}
		rows = append(rows, []string{v.Platform, v.Name, bits, v.Type})
	}
	return c.out.emit(list, func(w io.Writer) error {
		return printTable(w, []string{"PLATFORM", "OS VERSION", "BITS", "TYPE"}, rows)
	})
}
