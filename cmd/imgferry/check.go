package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"imgferry/formats"
)

// Exit codes of check; they are those of qemu-img check.
const (
	checkFailed      = 1
	checkCorrupt     = 2
	checkLeaks       = 3
	checkUnsupported = 63
)

// maxFindings is how many findings are printed; the others are only counted.
const maxFindings = 1000

type checkCommand struct {
	*app
	source sourceFlags
	out    *output
}

func (a *app) checkCommand() *cobra.Command {
	c := &checkCommand{app: a}
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Look for contradictions in an image's structure",
		Long: `Check reads an image's tables and says what contradicts: clusters outside the file,
used twice, counted wrongly, wrong checksums. It reads one file: the disks below it are
not looked at. It never writes.

Exit codes, as of qemu-img check:
    0  nothing was found
    1  the check could not be carried out
    2  the image is corrupt
    3  the image has leaks (lost space), but no other fault
   63  the format has nothing that can be checked`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd.Context(), args[0])
		},
	}
	c.out = a.outputFlags(cmd)
	c.source.formatFlag(cmd)
	c.source.allowFlag(cmd)
	c.source.remoteFlags(cmd)
	return cmd
}

// checkReport has the names of qemu-img check --output=json where they mean the same.
type checkReport struct {
	Filename    string         `json:"filename"`
	Format      string         `json:"format"`
	CheckErrors int            `json:"check-errors"`
	End         int64          `json:"image-end-offset,omitempty"`
	Corruptions int64          `json:"corruptions,omitempty"`
	Leaks       int64          `json:"leaks,omitempty"`
	Clusters    int64          `json:"total-clusters,omitempty"`
	Allocated   int64          `json:"allocated-clusters,omitempty"`
	Compressed  int64          `json:"compressed-clusters,omitempty"`
	Fragmented  int64          `json:"fragmented-clusters,omitempty"`
	Findings    []checkFinding `json:"findings,omitempty"`
}

type checkFinding struct {
	Kind   string `json:"kind"` // corruption or leak
	Offset *int64 `json:"offset,omitempty"`
	What   string `json:"what"`
}

func (c *checkCommand) run(ctx context.Context, path string) error {
	shown := publicName(path)
	src, f, err := c.source.detect(ctx, path)
	if err != nil {
		return &coded{err, checkFailed}
	}
	defer src.Close()
	if f.Check == nil {
		err := formats.Unsupported(f.Name, -1, "the format has no structure that could be checked")
		return &coded{&advised{error: fmt.Errorf("%s: %w", shown, err)}, checkUnsupported}
	}
	r := checkReport{Filename: shown, Format: f.Name}
	checked, err := f.Check(ctx, src, r.add)
	if err != nil {
		return &coded{fmt.Errorf("%s: the check could not be carried out: %w", shown, err), checkFailed}
	}
	r.End, r.Clusters, r.Allocated, r.Compressed, r.Fragmented = checked.End, checked.Clusters, checked.Allocated, checked.Compressed, checked.Fragmented
	if err := c.out.emit(r, r.words); err != nil {
		return err
	}
	switch {
	case r.Corruptions > 0:
		return verdict(checkCorrupt)
	case r.Leaks > 0:
		return verdict(checkLeaks)
	}
	return nil
}

// add takes a finding.
func (r *checkReport) add(f formats.Finding) {
	kind, count := "corruption", &r.Corruptions
	if f.Leak {
		kind, count = "leak", &r.Leaks
	}
	*count += max(f.Count, 1)
	if len(r.Findings) == maxFindings {
		return
	}
	finding := checkFinding{Kind: kind, What: f.What}
	if f.Offset >= 0 {
		finding.Offset = &f.Offset
	}
	r.Findings = append(r.Findings, finding)
}

// words writes the report for a person.
func (r *checkReport) words(w io.Writer) error {
	for _, f := range r.Findings {
		at := ""
		if f.Offset != nil {
			at = fmt.Sprintf(" (at file offset %d)", *f.Offset)
		}
		fmt.Fprintf(w, "%s: %s%s\n", f.Kind, oneLine(f.What), at)
	}
	if len(r.Findings) == maxFindings {
		fmt.Fprintln(w, "Only the first findings are shown.")
	}
	switch {
	case r.Corruptions > 0:
		fmt.Fprintf(w, "The image is corrupt: %d faults. What is read from it may be wrong.\n", r.Corruptions)
	case r.Leaks == 0:
		fmt.Fprintln(w, "No errors were found on the image.")
	}
	if r.Leaks > 0 {
		fmt.Fprintf(w, "%d leaked clusters: they take space, but harm no data.\n", r.Leaks)
	}
	if r.Clusters > 0 {
		part := func(n, of int64) float64 { return 100 * float64(n) / float64(max(of, 1)) }
		fmt.Fprintf(w, "%d/%d = %.2f%% allocated, %.2f%% fragmented, %.2f%% compressed clusters\n",
			r.Allocated, r.Clusters, part(r.Allocated, r.Clusters), part(r.Fragmented, r.Allocated), part(r.Compressed, r.Allocated))
	}
	if r.End > 0 {
		fmt.Fprintf(w, "Image end offset: %d\n", r.End)
	}
	return nil
}
