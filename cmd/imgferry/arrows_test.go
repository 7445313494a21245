package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// pkg is what this test needs of `go list -json`.
type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func goList(t *testing.T, args ...string) []pkg {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,Deps"}, args...)...).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// mayImport says, for each room, which rooms it may import. A room's own subfolders are allowed,
// unless they are rooms here.
var mayImport = map[string][]string{
	"cmd": {"pipeline", "convert", "upload", "upload/obs", "ims", "sandbox", "formats", "formats/all", "source",
		"limits", "profile", "bitmap", "inflate"},
	"pipeline":          {"convert", "upload", "ims", "formats", "source", "limits", "bitmap", "inflate"},
	"convert":           {"formats", "source", "limits", "bitmap", "inflate", "sha256lanes"},
	"upload":            {"limits"},
	"upload/obs":        {"upload"},
	"upload/uploadtest": {"upload", "upload/obs"}, // test support: nothing may import it
	"ims":               {"limits"},
	"sandbox":           {"formats", "convert", "bitmap", "limits", "ims"},
	"formats":           {"bitmap", "inflate", "deflate"},
	"formats/all":       {"formats"},
	"source":            {"bitmap", "inflate"},
	"limits":            {"bitmap", "inflate"},
	"profile":           {},
	"bitmap":            {},
	"inflate":           {},
	"deflate":           {},
	"sha256lanes":       {},
	"conformance":       {"pipeline", "convert", "formats", "formats/all", "source"},
	"bench":             {"convert", "formats", "formats/all", "source", "bitmap"},
}

// room is the longest entry of mayImport that path lies in.
func room(path string) string {
	best := ""
	for r := range mayImport {
		if (path == r || strings.HasPrefix(path, r+"/")) && len(r) > len(best) {
			best = r
		}
	}
	return best
}

func TestArrows(t *testing.T) {
	pkgs := goList(t, "imgferry/...")
	if len(pkgs) < 10 {
		t.Fatalf("go list found %d packages", len(pkgs))
	}
	for _, p := range pkgs {
		from := room(strings.TrimPrefix(p.ImportPath, "imgferry/"))
		if from == "" {
			t.Errorf("%s is in no room: give it a line in ARCHITECTURE.md and in this test", p.ImportPath)
			continue
		}
		for _, dep := range p.Imports {
			path, ours := strings.CutPrefix(dep, "imgferry/")
			if !ours {
				continue
			}
			if to := room(path); to != from && !slices.Contains(mayImport[from], to) {
				t.Errorf("%s imports %s: %s may not import %s", p.ImportPath, dep, from, to)
			}
		}
	}
}

// What the rooms below can't do by way of others either.
func TestNoWayAround(t *testing.T) {
	for room, never := range map[string][]string{
		"imgferry/pipeline": {"imgferry/sandbox", "imgferry/formats/all", "imgferry/upload/obs", "imgferry/cmd", "github.com/minio/minio-go/v7"},
		"imgferry/convert":  {"imgferry/upload", "imgferry/ims", "net/http"},
		"imgferry/upload":   {"imgferry/formats", "imgferry/convert", "github.com/minio/minio-go/v7"},
		"imgferry/ims":      {"imgferry/formats", "imgferry/convert", "imgferry/upload"},
	} {
		for _, p := range goList(t, room) {
			for _, dep := range p.Deps {
				for _, n := range never {
					if dep == n || strings.HasPrefix(dep, n+"/") {
						t.Errorf("%s depends on %s", room, dep)
					}
				}
			}
		}
	}
	for _, p := range goList(t, "imgferry/formats/...") {
		for _, dep := range p.Deps {
			for _, n := range []string{"imgferry/convert", "imgferry/upload", "imgferry/pipeline", "imgferry/cmd", "net/http"} {
				if strings.HasPrefix(dep, n) {
					t.Errorf("%s depends on %s", p.ImportPath, dep)
				}
			}
		}
	}
}

// The libraries that the program stands on are really in it.
func TestLibraries(t *testing.T) {
	deps := goList(t, "imgferry/cmd/imgferry")[0].Deps
	for _, want := range []string{
		"github.com/minio/minio-go/v7", "github.com/klauspost/compress/zstd", "github.com/klauspost/compress/flate",
		"github.com/schollz/progressbar/v3", "golang.org/x/sync/errgroup", "github.com/dustin/go-humanize",
		"github.com/spf13/cobra", "github.com/spf13/cobra/doc", "go.yaml.in/yaml/v3",
	} {
		if !slices.Contains(deps, want) {
			t.Errorf("imgferry does not use %s", want)
		}
	}
}
