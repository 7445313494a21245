package imageservice

import (
	"net/http"
	"slices"
	"time"

	"imgferry/ims"
	"imgferry/limits"
)

// The states of a membership.
const (
	memberPending  = "pending"
	memberAccepted = "accepted"
	memberRejected = "rejected"
)

// membersStep changes who images are shared with.
type membersStep struct {
	Images   []string
	Projects []string
	Status   string // "" removes
	Vault    string
}

// memberResult is what became of one image and one project (reference, 5.5.1, table 5-20).
type memberResult struct {
	ImageID   string `json:"image_id"`
	ProjectID string `json:"project_id"`
	Status    string `json:"status"`
}

// addMembers is POST /v1/cloudimages/members (reference, 5.2.2).
func (s *Service) addMembers(r request) (int, any, error) {
	st, err := membersOf(r)
	st.Status = memberPending
	if err != nil {
		return 0, nil, err
	}
	return s.submitMembers(r, jobAddMembers, st, func(t tx) error {
		return t.eachImage(r, st, true, func(i *image, project string) error { return i.checkShare(project) })
	})
}

// removeMembers is DELETE /v1/cloudimages/members (reference, 5.2.1).
func (s *Service) removeMembers(r request) (int, any, error) {
	st, err := membersOf(r)
	if err != nil {
		return 0, nil, err
	}
	return s.submitMembers(r, jobDropMembers, st, func(t tx) error {
		return t.eachImage(r, st, true, func(*image, string) error { return nil })
	})
}

func membersOf(r request) (membersStep, error) {
	var q struct {
		Images   []string `json:"images"`
		Projects []string `json:"projects"`
	}
	if err := r.decode(&q); err != nil {
		return membersStep{}, err
	}
	if len(q.Images) == 0 || len(q.Projects) == 0 {
		return membersStep{}, refuse(limits.RequestFormat, "give images and projects")
	}
	for _, p := range q.Projects {
		if err := limits.ProjectID(p); err != nil {
			return membersStep{}, err
		}
	}
	return membersStep{Images: q.Images, Projects: q.Projects}, nil
}

// updateMembers is PUT /v1/cloudimages/members (reference, 5.2.3): a project accepts or rejects.
func (s *Service) updateMembers(r request) (int, any, error) {
	var q struct {
		Images  []string `json:"images"`
		Project string   `json:"project_id"`
		Status  string   `json:"status"`
		Vault   string   `json:"vault_id"`
	}
	if err := r.decode(&q); err != nil {
		return 0, nil, err
	}
	if len(q.Images) == 0 {
		return 0, nil, refuse(limits.RequestFormat, "give images")
	}
	if err := checkAnswer(q.Status); err != nil {
		return 0, nil, err
	}
	if q.Project != r.project {
		return 0, nil, refuse(limits.ProjectForeign, "project_id is %s, the credentials are of %s", shown(q.Project), r.project)
	}
	st := membersStep{Images: q.Images, Projects: []string{q.Project}, Status: q.Status, Vault: q.Vault}
	return s.submitMembers(r, jobTurnMembers, st, func(t tx) error {
		return t.eachImage(r, st, false, func(i *image, project string) error {
			if i.member(project) == nil {
				return refuse(limits.ImageIDUnknown, "image %s is not shared with %s", i.ID, project)
			}
			return s.checkAccept(i, st.Status, st.Vault)
		})
	})
}

func checkAnswer(status string) error {
	if status != memberAccepted && status != memberRejected {
		return refuse(limits.RequestFormat, "the status is %s: it can be accepted or rejected", shown(status))
	}
	return nil
}

// checkAccept asks for a vault where a whole-server image is accepted.
func (s *Service) checkAccept(i *image, status, vault string) error {
	if i.Whole && status == memberAccepted {
		return s.checkVault(vault)
	}
	return nil
}

func (s *Service) submitMembers(r request, kind string, st membersStep, check func(tx) error) (int, any, error) {
	st.Images, st.Projects = unique(st.Images), unique(st.Projects)
	return s.submit(r, s.newTask(r, kind, nil, step{Members: &st}), check)
}

func unique(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}

// eachImage calls f for every image and every project of a step. The images are the caller's own, or shared
// with it.
func (t tx) eachImage(r request, st membersStep, own bool, f func(i *image, project string) error) error {
	for _, id := range st.Images {
		i, ok, err := t.image(id)
		switch {
		case err != nil:
			return err
		case !ok || !i.sees(r.project) || i.Region != r.region:
			return refuse(limits.ImageIDUnknown, "there is no image %s", shown(id))
		case own && i.Owner != r.project:
			return refuse(limits.NotOwner, "image %s is shared with you", id)
		}
		i = i.clone()
		for _, p := range st.Projects {
			if err := f(&i, p); err != nil {
				return err
			}
			if own && st.Status != "" && i.member(p) == nil { // so that the next is one too many
				i.Members = append(i.Members, member{Project: p})
			}
		}
	}
	return nil
}

// checkShare refuses to share an image that must not be, or with one project too many (reference, 9.3).
func (i *image) checkShare(project string) error {
	most := limits.MaxShares
	if i.Whole {
		most = limits.MaxWholeShares
	}
	switch {
	case project == i.Owner:
		return refuse(limits.ShareWithSelf, "project %s has image %s", project, i.ID)
	case i.Status != ims.StatusActive:
		return refuse(limits.ImageUnavailable, "image %s is %s", i.ID, i.Status)
	case i.CMK != "":
		return refuse(limits.EncryptedNotShareable, "image %s is encrypted", i.ID)
	case i.Whole && i.Backup == "":
		return refuse(limits.WholeNotShareable, "image %s was not made from a backup", i.ID)
	case i.member(project) == nil && len(i.Members) >= most:
		return refuse(limits.ShareQuotaReached, "image %s is shared with %d projects", i.ID, most)
	}
	return nil
}

// changeMembers does what a members job says, in one transaction: all of it or nothing.
func (s *Service) changeMembers(t tx, j *job) error {
	st, now := *j.Step.Members, s.cfg.Now()
	for _, id := range st.Images {
		i, ok, err := t.image(id)
		if err != nil {
			return err
		}
		if !ok || i.Status == ims.StatusDeleted {
			return refuse(limits.ImageIDUnknown, "image %s is gone", shown(id))
		}
		for _, p := range st.Projects {
			if st.Status == memberPending {
				if err := i.checkShare(p); err != nil {
					return err
				}
			}
			i.setMember(p, st.Status, st.Vault, now)
			j.Results = append(j.Results, memberResult{id, p, "success"})
		}
		if err := t.putImage(&i); err != nil {
			return err
		}
	}
	return nil
}

// setMember changes one membership; "" removes it, and what is there already is not made pending again.
func (i *image) setMember(project, status, vault string, now time.Time) {
	m := i.member(project)
	switch {
	case status == "":
		i.Members = slices.DeleteFunc(i.Members, func(m member) bool { return m.Project == project })
	case m == nil && status == memberPending:
		i.Members = append(i.Members, member{Project: project, Status: status, Created: now, Updated: now})
	case m != nil && status != memberPending:
		m.Status, m.Vault, m.Updated = status, vault, now
	}
}

// memberAnswer is a membership (reference, 6.3.1). The last two fields are what the SDK looks for.
type memberAnswer struct {
	Status   string `json:"status"`
	Created  string `json:"created_at"`
	Updated  string `json:"updated_at"`
	ImageID  string `json:"image_id"`
	MemberID string `json:"member_id"`
	Schema   string `json:"schema"`
	Type     string `json:"member_type"`
	URN      string `json:"urn"`
}

func (i *image) memberAnswer(m member) memberAnswer {
	return memberAnswer{
		Status: m.Status, Created: m.Created.UTC().Format(time.RFC3339), Updated: m.Updated.UTC().Format(time.RFC3339),
		ImageID: i.ID, MemberID: m.Project, Schema: "/v2/schemas/member", Type: "project",
	}
}

// addMember is POST /v2/images/{image_id}/members (reference, 6.3.1).
func (s *Service) addMember(r request) (int, any, error) {
	var q struct {
		Member string `json:"member"`
	}
	if err := r.decode(&q); err != nil {
		return 0, nil, err
	}
	if err := limits.ProjectID(q.Member); err != nil {
		return 0, nil, err
	}
	var a memberAnswer
	err := s.state.update(func(t tx) error {
		i, err := t.own(r, true)
		if err != nil {
			return err
		}
		if i.member(q.Member) != nil {
			return answerWith(http.StatusConflict, limits.AttributeConflict, "image "+i.ID+" is shared with "+q.Member+" already")
		}
		if err := i.checkShare(q.Member); err != nil {
			return err
		}
		i.setMember(q.Member, memberPending, "", s.cfg.Now())
		a = i.memberAnswer(*i.member(q.Member))
		return t.putImage(&i)
	})
	return http.StatusOK, a, err
}

// updateMember is PUT /v2/images/{image_id}/members/{member_id} (reference, 6.3.2).
func (s *Service) updateMember(r request) (int, any, error) {
	var q struct {
		Status string `json:"status"`
		Vault  string `json:"vault_id"`
	}
	if err := r.decode(&q); err != nil {
		return 0, nil, err
	}
	var a memberAnswer
	err := s.state.update(func(t tx) error {
		i, m, err := t.membership(r)
		if err != nil {
			return err
		}
		if m.Project != r.project {
			return answerWith(http.StatusForbidden, limits.ProjectForeign, "only project "+m.Project+" itself may accept or reject")
		}
		if err := firstOf(checkAnswer(q.Status), s.checkAccept(&i, q.Status, q.Vault)); err != nil {
			return err
		}
		i.setMember(m.Project, q.Status, q.Vault, s.cfg.Now())
		a = i.memberAnswer(*i.member(m.Project))
		return t.putImage(&i)
	})
	return http.StatusOK, a, err
}

// showMember is GET /v2/images/{image_id}/members/{member_id} (reference, 6.3.3).
func (s *Service) showMember(r request) (int, any, error) {
	var a memberAnswer
	err := s.state.view(func(t tx) error {
		i, m, err := t.membership(r)
		if err == nil {
			a = i.memberAnswer(m)
		}
		return err
	})
	return http.StatusOK, a, err
}

// listMembers is GET /v2/images/{image_id}/members (reference, 6.3.4). Members see themselves only.
func (s *Service) listMembers(r request) (int, any, error) {
	all := []memberAnswer{}
	err := s.state.view(func(t tx) error {
		i, err := t.seen(r)
		if err != nil {
			return err
		}
		for _, m := range i.Members {
			if i.Owner == r.project || m.Project == r.project {
				all = append(all, i.memberAnswer(m))
			}
		}
		return nil
	})
	return http.StatusOK, map[string]any{
		"members": all, "schema": "/v2/schemas/members", "page_info": map[string]any{"next_marker": "", "current_count": len(all)},
	}, err
}

// removeMember is DELETE /v2/images/{image_id}/members/{member_id} (reference, 6.3.5).
func (s *Service) removeMember(r request) (int, any, error) {
	err := s.state.update(func(t tx) error {
		i, m, err := t.membership(r)
		if err != nil {
			return err
		}
		if i.Owner != r.project {
			return answerWith(http.StatusForbidden, limits.NotOwner, "image "+i.ID+" is shared with you")
		}
		i.setMember(m.Project, "", "", s.cfg.Now())
		return t.putImage(&i)
	})
	return http.StatusNoContent, nil, err
}

// membership returns the image and the member that a native call names.
func (t tx) membership(r request) (image, member, error) {
	i, err := t.seen(r)
	if err != nil {
		return i, member{}, err
	}
	m := i.member(r.vars["member_id"])
	if m == nil || i.Owner != r.project && m.Project != r.project {
		return i, member{}, absent(limits.ObjectUnknown, "image %s is not shared with %s", i.ID, shown(r.vars["member_id"]))
	}
	return i, *m, nil
}

// seen returns the image that a native call names, if its caller may look at it.
func (t tx) seen(r request) (image, error) {
	i, ok, err := t.image(r.vars["image_id"])
	if err == nil && (!ok || !i.sees(r.project) || i.Region != r.region) {
		err = absent(limits.ImageIDUnknown, "there is no image %s", shown(r.vars["image_id"]))
	}
	return i, err
}

// own is seen for calls that only the owner may make. Native ones answer 404 and 403, others 400.
func (t tx) own(r request, native bool) (image, error) {
	i, err := t.seen(r)
	if err == nil && i.Owner != r.project {
		err = answerWith(http.StatusForbidden, limits.NotOwner, "image "+i.ID+" is shared with you")
	}
	if f := failureFor(err); f != nil && !native {
		f.status = http.StatusBadRequest
	}
	return i, err
}
