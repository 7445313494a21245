package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages",
		Long: `Man writes a manual page in roff for each command into DIR, made from the text of
--help. The pages have no date: the same program writes the same bytes.`,
		Example: "  imgferry man share/man/man1",
		Hidden:  true, // for those who package the program
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o777); err != nil {
				return err
			}
			return manPages(cmd.Root(), func(name string, page []byte) error {
				return os.WriteFile(filepath.Join(args[0], name), page, 0o666)
			})
		},
	}
}

// noDate is what package doc writes for the zero time.
const noDate = `"Jan 0001"`

// manPages hands the pages of cmd and of the commands below it to write, by file name.
func manPages(cmd *cobra.Command, write func(name string, page []byte) error) error {
	cmd.DisableAutoGenTag = true // it holds a date
	var page bytes.Buffer
	header := &doc.GenManHeader{Section: "1", Source: "imgferry " + version, Manual: "imgferry", Date: new(time.Time)}
	if err := doc.GenMan(cmd, header, &page); err != nil {
		return err
	}
	dateless := bytes.Replace(page.Bytes(), []byte(noDate), []byte(`""`), 1)
	name := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".1"
	if err := write(name, dateless); err != nil {
		return err
	}
	for _, sub := range cmd.Commands() {
		if !sub.IsAvailableCommand() || sub.IsAdditionalHelpTopicCommand() {
			continue
		}
		if err := manPages(sub, write); err != nil {
			return err
		}
	}
	return nil
}
