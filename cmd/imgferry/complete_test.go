package main

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// complete asks as a shell does what may follow args, the last of which is not complete.
func complete(t *testing.T, args ...string) (values []string, directive cobra.ShellCompDirective) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if err := run(t.Context(), append([]string{cobra.ShellCompRequestCmd}, args...), nil, &stdout, &stderr); err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	if lines := strings.Count(stderr.String(), "\n"); lines != 1 {
		t.Errorf("%q is not silent: %s", args, stderr.String())
	}
	lines := strings.Split(strings.TrimSuffix(stdout.String(), "\n"), "\n")
	n, err := strconv.Atoi(strings.TrimPrefix(lines[len(lines)-1], ":"))
	if err != nil {
		t.Fatalf("%q: %q", args, stdout.String())
	}
	return lines[:len(lines)-1], cobra.ShellCompDirective(n)
}

func TestCompleteWords(t *testing.T) {
	const files, none, dirs = cobra.ShellCompDirectiveDefault, cobra.ShellCompDirectiveNoFileComp, cobra.ShellCompDirectiveFilterDirs
	for line, want := range map[string]struct {
		values    string // "-": not looked at
		directive cobra.ShellCompDirective
	}{
		"push --format|":            {"zvhd2 raw", none},
		"push --format=|":           {"zvhd2 raw", none},
		"push -O|":                  {"zvhd2 raw", none},
		"push --output-format|":     {"zvhd2 raw", none},
		"upload --format|":          {"zvhd2 raw", none},
		"convert a b -O|":           {"raw zvhd2 zvhd qcow2 vpc vmdk", none},
		"convert --sparse|":         {"zeros holes none", none},
		"convert --compress-level|": {"fastest default better best auto", none},
		"bitmap --write|":           {"", files},
		"bitmap|":                   {"", files},
		"push --type|":              {"ECS BMS DataImage", none},
		"push --arch|":              {"x86 arm", none},
		"push --log-level|":         {"debug info warn error off", none},
		"--log-format|":             {"text json", none},
		"version -o|":               {"table json yaml", none},
		"images list --status|":     {"queued saving active killed deleted", none},
		"images list --type|":       {"ECS BMS DataImage IsoImage", none},
		"images list --shared|":     {"pending accepted rejected", none},
		"images export --format|":   {"qcow2 vhd zvhd vmdk zvhd2", none},
		"images import --type|":     {"ECS BMS DataImage IsoImage", none},
		"images import --via|":      {"import fast", none},
		"images create --type|":     {"ECS BMS DataImage", none},
		"images create|":            {"", none},
		"images accept|":            {"-", none},
		"push --via|":               {"fast import register", none},
		"os-versions --tag|":        {"bms uefi", none},
		"jobs|":                     {"show\tShow one job wait\tWait until a job has ended", none},
		"jobs wait|":                {"", none},
		"push --name|":              {"", none},
		"push --sk|":                {"", none},
		"push --concurrency|":       {"", none},
		"push --bitmap|":            {"", files},
		"push --ca-file|":           {"", files},
		"push --sandbox-data|":      {"", dirs},
		"push|":                     {"", files},
		"push disk|":                {"", none},
		"convert a|":                {"", files},
		"convert a b|":              {"", none},
		"info|":                     {"", files},
		"version|":                  {"", none},
		"images list|":              {"", none},
		"images|":                   {"-", none},
		"completion|":               {"-", none},
		"push --sandbox --bucket|":  {"", none},
		"images show --sandbox|":    {"", none},
		"push --addressing-style|":  {"auto path virtual-host", none},
	} {
		args := append(strings.Fields(strings.TrimSuffix(line, "|")), "")
		if strings.HasSuffix(line, "=|") {
			args = strings.Fields(strings.TrimSuffix(line, "|"))
		}
		values, directive := complete(t, args...)
		if want.values != "-" && strings.Join(values, " ") != want.values || directive != want.directive {
			t.Errorf("%s: %q %d", line, values, directive)
		}
	}
	if names, _ := complete(t, "info", "-f", ""); !slices.Contains(names, "qcow2") || !slices.Contains(names, "raw") {
		t.Errorf("formats: %q", names)
	}
}

// No flag that takes a value is completed with files by accident.
func TestCompleteEveryFlag(t *testing.T) {
	files := []string{"bitmap", "ca-file", "config", "png", "write", "verify"}
	elsewhere := []string{"bucket", "profile"} // ask the cloud or the settings file
	a := &app{stdout: io.Discard, stderr: io.Discard}
	seen := 0
	var check func(*cobra.Command)
	check = func(cmd *cobra.Command) {
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.NoOptDefVal != "" || slices.Contains(elsewhere, f.Name) {
				return
			}
			seen++
			values, ok := cmd.GetFlagCompletionFunc(f.Name)
			if !ok {
				t.Errorf("%s --%s has no completion", cmd.CommandPath(), f.Name)
			} else if _, d := values(cmd, nil, ""); (d == cobra.ShellCompDirectiveDefault) != slices.Contains(files, f.Name) {
				t.Errorf("%s --%s: %v", cmd.CommandPath(), f.Name, d)
			}
		})
		for _, sub := range cmd.Commands() {
			check(sub)
		}
	}
	if check(a.command()); seen < 50 {
		t.Errorf("%d flags", seen)
	}
}

func TestCompleteFromCloud(t *testing.T) {
	s := newShell(t)
	s.seed()
	one, two := s.image("one", nil), s.image("the other", nil)
	check := func(want []string, args ...string) {
		t.Helper()
		if got, d := complete(t, args...); !slices.Equal(got, want) || d != cobra.ShellCompDirectiveNoFileComp {
			t.Errorf("%v: %q %d, want %q", args, got, d, want)
		}
	}
	check([]string{s.box.Bucket()}, "push", "--bucket", "")
	check([]string{s.box.Bucket()}, "uploads", "--bucket", "")
	check([]string{two + "\tthe other", "the other\t" + two, one + "\tone", "one\t" + one}, "images", "show", "")
	check(nil, "images", "show", one, "")
	check([]string{two + "\tthe other"}, "images", "delete", one, "")
	check(nil, "push", "--sk", "wrong", "--bucket", "")
	check(nil, "images", "show", "--project-id", "wrong/one", "")
	for _, fault := range []func(http.ResponseWriter, *http.Request) bool{answer(403, ""), answer(200, "garbage")} {
		s.store.set(fault)
		s.ims.set(fault)
		check(nil, "push", "--bucket", "")
		check(nil, "images", "show", "")
	}
	// A service that does not answer is given up after the deadline: nothing is tried a second time.
	hang := func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }
	for _, args := range [][]string{{"push", "--bucket", ""}, {"images", "delete", ""}} {
		s.store.set(hang)
		s.ims.set(hang)
		check(nil, args...)
		if n := s.store.count.Load() + s.ims.count.Load(); n > 1 {
			t.Errorf("%v: %d requests", args, n)
		}
	}
}

func TestCompleteFromSettings(t *testing.T) {
	s := newShell(t)
	s.want(0, "config", "set", "--profile", "prod", "region", "cn-north-4")
	s.want(0, "config", "set", "--profile", "test", "region", "ap-southeast-1")
	if got, _ := complete(t, "push", "--region", ""); !slices.Equal(got, []string{"ap-southeast-1", "cn-north-4"}) {
		t.Errorf("regions: %q", got)
	}
	if got, _ := complete(t, "push", "--profile", ""); !slices.Contains(got, "prod") || !slices.Contains(got, "test") {
		t.Errorf("profiles: %q", got)
	}
}

// The script for bash, in bash: it asks the program and offers what it says.
func TestBashCompletion(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		if os.Getenv("CI") != "" || os.Getenv("IMGFERRY_REQUIRE_TOOLS") != "" {
			t.Fatal("bash is missing")
		}
		t.Skip("needs bash")
	}
	s := newShell(t)
	s.seed()
	id := s.image("one", nil)
	dir := t.TempDir()
	var script bytes.Buffer
	if err := run(t.Context(), []string{"completion", "bash"}, nil, &script, &script); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "imgferry.bash")
	if err := os.WriteFile(file, script.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	// The test's own binary is the program, under its name (TestMain).
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(dir, "imgferry")); err != nil {
		t.Fatal(err)
	}
	// _get_comp_words_by_ref comes with the package bash-completion, which need not be here.
	const driver = `
compopt() { :; } # works only while bash itself completes
_get_comp_words_by_ref() { cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=("${COMP_WORDS[@]}") cword=$COMP_CWORD; }
source "$1"; shift
complete -p imgferry >/dev/null || exit 1
COMP_WORDS=("$@") COMP_CWORD=$(($#-1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE} COMP_TYPE=9
__start_imgferry
printf '%s\n' "${COMPREPLY[@]}"`
	for line, want := range map[string]string{
		"imgferry pus":                          "push",
		"imgferry push --form":                  "--format",
		"imgferry push --format z":              "zvhd2",
		"imgferry version -o y":                 "yaml",
		"imgferry push --bucket " + "":          s.box.Bucket(),
		"imgferry images delete " + id[:4] + "": id,
	} {
		words := strings.Split(line, " ")
		cmd := exec.CommandContext(t.Context(), bash, append([]string{"-c", driver, "bash", file}, words...)...)
		cmd.Env = append(os.Environ(), "PATH="+dir+string(os.PathListSeparator)+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("%q: %q %v, want %q", line, got, err, want)
		}
	}
}

// Each shell has its script, and each script's help says how to install it.
func TestCompletionScripts(t *testing.T) {
	for shell, how := range map[string]string{
		"bash":       "/etc/bash_completion.d/imgferry",
		"zsh":        `"${fpath[1]}/_imgferry"`,
		"fish":       "~/.config/fish/completions/imgferry.fish",
		"powershell": "Invoke-Expression",
	} {
		var script, help bytes.Buffer
		if err := run(t.Context(), []string{"completion", shell}, nil, &script, &script); err != nil || !strings.Contains(script.String(), "__complete") {
			t.Errorf("%s: %v", shell, err)
		}
		if err := run(t.Context(), []string{"completion", shell, "--help"}, nil, &help, &help); err != nil || !strings.Contains(help.String(), how) {
			t.Errorf("%s: %v %s", shell, err, help.String())
		}
	}
}
