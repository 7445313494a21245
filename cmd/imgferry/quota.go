package main

import (
	"io"
	"strconv"

	"github.com/spf13/cobra"
)

// quotaReport is a quota as it is shown. -1 is no limit.
type quotaReport struct {
	Type  string `json:"type"`
	Used  int    `json:"used"`
	Quota int    `json:"quota"`
	Min   int    `json:"min"`
	Max   int    `json:"max"`
}

func (a *app) quotaCommand() *cobra.Command {
	c := a.imagesBase()
	cmd := &cobra.Command{
		Use:     "quota",
		Short:   "Show how many images the project has and may have",
		Long:    "Quota prints how many private images the project has in the region, and how many it may have.",
		Example: "  imgferry quota -o json",
		Args:    cobra.NoArgs,
	}
	c.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, stop, err := c.connect(cmd.Context())
		if err != nil {
			return err
		}
		defer stop()
		quotas, err := client.Quotas(cmd.Context())
		if err != nil {
			return err
		}
		list := []quotaReport{}
		var rows [][]string
		for _, q := range quotas {
			list = append(list, quotaReport{q.Type, q.Used, q.Limit, q.Min, q.Max})
			rows = append(rows, []string{q.Type, strconv.Itoa(q.Used), quotaWords(q.Limit)})
		}
		return c.out.emit(list, func(w io.Writer) error { return printTable(w, []string{"TYPE", "USED", "QUOTA"}, rows) })
	}
	return cmd
}

func quotaWords(n int) string {
	if n < 0 {
		return "no limit"
	}
	return strconv.Itoa(n)
}
