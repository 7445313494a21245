package main

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"imgferry/ims"
	"imgferry/limits"
)

const noImage = "00000000-0000-4000-8000-000000000000"

// ids are the ids of the images that "images list" prints with these filters.
func (s *shell) ids(filters ...string) []string {
	s.t.Helper()
	r := s.want(0, append([]string{"images", "list", "--json"}, filters...)...)
	var list []imageReport
	if err := json.Unmarshal([]byte(r.stdout), &list); err != nil {
		s.t.Fatalf("%v: %s", err, r.stdout)
	}
	ids := []string{}
	for _, i := range list {
		ids = append(ids, i.ID)
	}
	return ids
}

func TestImagesList(t *testing.T) {
	s := newShell(t)
	if r := s.want(0, "images", "list"); r.stdout != "" || !strings.Contains(r.stderr, "no such images") {
		t.Errorf("%+v", r)
	}
	if r := s.want(0, "images", "list", "-o", "json"); r.stdout != "[]\n" || r.stderr != "" {
		t.Errorf("%+v", r)
	}
	s.seed()
	web := s.image("web", nil)
	data := s.image("data", func(q *ims.QuickImportRequest) {
		q.Type, q.OSVersion, q.OSType = limits.TypeData, "", "Linux"
		q.ImageTags = []ims.Tag{{Key: "team", Value: "blue"}}
	})
	again := s.image("web", nil)
	for _, c := range []struct {
		filters []string
		want    []string
	}{
		{nil, []string{again, data, web}},
		{[]string{"--name", "web"}, []string{again, web}},
		{[]string{"--name", "we"}, []string{}},
		{[]string{"--type", "DataImage"}, []string{data}},
		{[]string{"--type", "ECS", "--limit", "1"}, []string{again}},
		{[]string{"--type", "BMS"}, []string{}},
		{[]string{"--status", "active"}, []string{again, data, web}},
		{[]string{"--status", "queued"}, []string{}},
		{[]string{"--tag", "team=blue"}, []string{data}},
		{[]string{"--tag", "team=red"}, []string{}},
		{[]string{"--tag", "team=blue", "--name", "web"}, []string{}},
		{[]string{"--limit", "2"}, []string{again, data}},
		{[]string{"--limit", "1000"}, []string{again, data, web}},
	} {
		if got := s.ids(c.filters...); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.filters, got, c.want)
		}
	}
	r := s.want(0, "images", "list", "--name", "data")
	lines := strings.Split(r.stdout, "\n")
	if len(lines) != 3 || strings.Join(strings.Fields(lines[0]), " ") != "ID NAME STATUS SIZE MIN DISK CREATED (UTC)" ||
		!strings.HasPrefix(lines[1], data+"  data  active  ") || !strings.Contains(lines[1], "MiB  40 GiB    20") {
		t.Errorf("%q", r.stdout)
	}
	for _, wrong := range [][]string{{"--status", "fine"}, {"--type", "VM"}, {"--tag", "blue"}, {"--tag", "=blue"}, {"--limit", "-1"}, {"more"}, {"--limit", "x"}} {
		s.want(exitUsage, append([]string{"images", "list"}, wrong...)...)
	}
	s.want(exitUsage, "images", "remove")
}

func TestImagesShow(t *testing.T) {
	s := newShell(t)
	s.seed()
	one := s.image("one", func(q *ims.QuickImportRequest) { q.Description, q.Firmware = "the first", "uefi" })
	twin, twin2 := s.image("twin", nil), s.image("twin", nil)
	for _, name := range []string{"one", one} {
		r := s.want(0, "images", "show", name)
		for _, line := range []string{"id: " + one, "name: one", "status: active", "type: ECS", "min disk: 40 GiB", "firmware: uefi", "description: the first"} {
			if !strings.Contains("\n"+r.stdout, "\n"+line+"\n") {
				t.Errorf("no line %q:\n%s", line, r.stdout)
			}
		}
	}
	var shown imageReport
	if err := json.Unmarshal([]byte(s.want(0, "images", "show", "--json", one).stdout), &shown); err != nil || shown.ID != one || shown.MinDisk != 40 || shown.Type != "ECS" {
		t.Errorf("%+v %v", shown, err)
	}
	if r := s.want(exitUsage, "images", "show", "twin"); !strings.Contains(r.stderr, twin) || !strings.Contains(r.stderr, twin2) || r.stdout != "" {
		t.Errorf("%+v", r)
	}
	s.want(exitNotFound, "images", "show", "none")
	s.want(exitNotFound, "images", "show", noImage)
	s.want(exitUsage, "images", "show")
}

func isDelete(r *http.Request) bool { return r.Method == http.MethodDelete }

func TestImagesDelete(t *testing.T) {
	s := newShell(t)
	s.seed()
	a, b, c := s.image("a", nil), s.image("b", nil), s.image("c", nil)
	s.want(exitUsage, "images", "delete", "--yes")
	s.want(exitUsage, "images", "delete", "--yes", "a")
	s.want(exitUsage, "images", "delete", "--yes", a, a)
	if r := s.want(exitUsage, "images", "delete", a); !strings.Contains(r.stderr, "--yes") {
		t.Errorf("%+v", r)
	}
	s.want(exitNotFound, "images", "delete", "--yes", a, noImage)
	if got := s.ids(); !slices.Equal(got, []string{c, b, a}) {
		t.Fatalf("left: %v", got)
	}
	// One is refused: the others go, and the report says which.
	s.ims.set(when(func(r *http.Request) bool { return isDelete(r) && strings.HasSuffix(r.URL.Path, b) },
		answer(403, `{"error_code":"IMG.0026","error_msg":"no role"}`)))
	var list []deletion
	r := s.want(exitDenied, "images", "delete", "--yes", "-o", "json", a, b, c)
	if err := json.Unmarshal([]byte(r.stdout), &list); err != nil || len(list) != 3 || !list[0].Deleted || list[1].Deleted || !strings.Contains(list[1].Error, "IMG.0026") || !list[2].Deleted {
		t.Errorf("%+v %v", r, err)
	}
	if got := s.ids(); !slices.Equal(got, []string{b}) {
		t.Fatalf("left: %v", got)
	}
	// The answer is lost on its way.
	s.ims.set(when(isDelete, func(http.ResponseWriter, *http.Request) bool {
		if err := s.client.DeleteImage(t.Context(), b); err != nil {
			t.Error(err)
		}
		panic(http.ErrAbortHandler)
	}))
	if r := s.want(0, "images", "delete", "-y", b); r.stdout != b+"\n" || r.stderr != "" {
		t.Errorf("%+v", r)
	}
}

func TestImagesFaults(t *testing.T) {
	s := newShell(t)
	for name, c := range map[string]struct {
		fault func(http.ResponseWriter, *http.Request) bool
		code  int
	}{
		"denied":  {answer(403, `{"error_code":"IMG.0026","error_msg":"no role"}`), exitDenied},
		"garbage": {answer(200, "<html>"), exitUnreachable},
		"wrong":   {answer(400, `{"error_code":"IMG.0015","error_msg":"no"}`), exitUsage},
	} {
		s.ims.set(c.fault)
		for _, args := range [][]string{{"list"}, {"show", "x"}, {"show", noImage}, {"delete", "--yes", noImage}} {
			if r := s.want(c.code, append([]string{"images"}, args...)...); r.stdout != "" {
				t.Errorf("%s: %+v", name, r)
			}
		}
	}
	// What the service says reaches the terminal as one line, and nothing in it steers.
	s.ims.set(answer(200, `{"images":[{"id":"`+noImage+`","name":"a\u001b]0;x\u0007\nb","status":"active"}]}`))
	if r := s.want(0, "images", "list"); strings.ContainsAny(r.stdout, "\x1b\x07") || strings.Count(r.stdout, "\n") != 2 {
		t.Errorf("%q", r.stdout)
	}
}
