package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"imgferry/ims"
)

// sharing tells the verbs that share images and end that apart.
type sharing struct {
	use, short, long, example, flag string
	call                            func(c *ims.Client, ctx context.Context, images, projects []string) (string, error)
}

func (a *app) imagesShareCommand() *cobra.Command {
	return a.sharingCommand(sharing{
		use: "share ID|NAME...", short: "Share images with other projects", flag: "with",
		long: `Share lets other projects use images of this one. Each of them must accept the image
(images accept). An image may be shared with up to 128 projects, that of a whole server
with up to 10; encrypted ones can't be shared.`,
		example: "  imgferry images share web --with edc89b490d7d4392898e19b2deb34797",
		call:    (*ims.Client).AddMembers,
	})
}

func (a *app) imagesUnshareCommand() *cobra.Command {
	return a.sharingCommand(sharing{
		use: "unshare ID|NAME...", short: "End the sharing of images", flag: "from",
		long: `Unshare ends the sharing of images with other projects, whether these have accepted
them or not. With --from all, with every project.`,
		example: "  imgferry images unshare web --from edc89b490d7d4392898e19b2deb34797",
		call:    (*ims.Client).RemoveMembers,
	})
}

// everyProject as the value of --from means all that an image is shared with.
const everyProject = "all"

func (a *app) sharingCommand(s sharing) *cobra.Command {
	c := a.jobBase()
	var projects []string
	cmd := &cobra.Command{Use: s.use, Short: s.short, Long: s.long, Example: s.example, Args: cobra.MinimumNArgs(1)}
	cmd.Flags().StringSliceVar(&projects, s.flag, nil, "id of the other project; more of them with commas")
	c.flags(cmd)
	c.completeImages(cmd, maxPage, true)
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		if len(projects) == 0 {
			return usagef("the other project is missing: --%s", s.flag)
		}
		ctx := cmd.Context()
		return c.run(ctx, func(client *ims.Client, _ *started) (string, error) {
			var ids []string
			for _, name := range names {
				image, err := c.findImage(ctx, client, name)
				if err != nil {
					return "", err
				}
				ids = append(ids, image.ID)
			}
			with := projects
			if s.flag == "from" && len(projects) == 1 && projects[0] == everyProject {
				var err error
				if with, err = members(ctx, client, ids); err != nil {
					return "", err
				}
			}
			return s.call(client, ctx, ids, with)
		}, parts)
	}
	return cmd
}

// members are the projects that any of the images is shared with.
func members(ctx context.Context, client *ims.Client, ids []string) ([]string, error) {
	var projects []string
	seen := make(map[string]bool)
	for _, id := range ids {
		list, err := client.Members(ctx, id)
		if err != nil {
			return nil, err
		}
		for _, m := range list {
			if !seen[m.ProjectID] {
				seen[m.ProjectID] = true
				projects = append(projects, m.ProjectID)
			}
		}
	}
	if len(projects) == 0 {
		return nil, fmt.Errorf("no project that the images are shared with: %w", ims.ErrNotFound)
	}
	return projects, nil
}

// parts is the answer of a batch: what became of each part, or of the job.
func parts(w io.Writer, r started) error {
	if len(r.Results) == 0 {
		return printLine(w, strings.ToLower(r.JobStatus))
	}
	return partTable(w, r.Results)
}

// partTable lists the parts of a batch for a person.
func partTable(w io.Writer, list []partReport) error {
	var rows [][]string
	for _, p := range list {
		rows = append(rows, []string{p.ImageID, p.ProjectID, p.Status})
	}
	return printTable(w, []string{"IMAGE", "PROJECT", "STATUS"}, rows)
}

func (a *app) imagesAcceptCommand() *cobra.Command {
	return a.decisionCommand(ims.MemberAccepted, &cobra.Command{
		Use:   "accept ID...",
		Short: "Accept images that others share with this project",
		Long: `Accept adds images that other projects share to those that this one sees and uses.
Images list --shared pending shows those that await a decision. The image of a whole
server needs a vault for its backups.`,
		Example: "  imgferry images accept d164b5df-1bc3-4c3f-893e-3e471fd16e64",
	})
}

func (a *app) imagesRejectCommand() *cobra.Command {
	return a.decisionCommand(ims.MemberRejected, &cobra.Command{
		Use:   "reject ID...",
		Short: "Reject images that others share with this project",
		Long: `Reject takes images that other projects share out of this one's list. They can be
accepted later.`,
		Example: "  imgferry images reject d164b5df-1bc3-4c3f-893e-3e471fd16e64",
	})
}

func (a *app) decisionCommand(decision string, cmd *cobra.Command) *cobra.Command {
	c := a.jobBase()
	var vault string
	cmd.Args = cobra.MinimumNArgs(1)
	if decision == ims.MemberAccepted {
		cmd.Flags().StringVar(&vault, "vault", "", "vault for the backups of whole servers")
	}
	c.flags(cmd)
	cmd.ValidArgsFunction = c.sharedImages()
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		for _, id := range ids {
			if !imageID.MatchString(id) {
				return usagef("%q is no image id: imgferry images list --shared %s shows them", id, ims.MemberPending)
			}
		}
		ctx := cmd.Context()
		return c.run(ctx, func(client *ims.Client, _ *started) (string, error) {
			return client.DecideMembers(ctx, ids, decision, vault)
		}, parts)
	}
	return cmd
}

// sharedImages completes the ids of images that others share and that await a decision.
func (c *imagesCommand) sharedImages() cobra.CompletionFunc {
	return c.online(&c.cloud, &c.sandbox, func(ctx context.Context, args []string) ([]cobra.Completion, error) {
		client, err := c.cloud.service()
		if err != nil {
			return nil, err
		}
		query, err := sharedFilter(ims.MemberPending).Query()
		if err != nil {
			return nil, err
		}
		images, err := client.Images(ctx, query)
		return imageCompletions(images, args, false), err
	})
}

// sharedFilter finds the images that others share with this project (reference, 5.1.1).
func sharedFilter(decision string) ims.Filter {
	return ims.Filter{ImageType: "shared", Visibility: "shared", MemberStatus: decision}
}
