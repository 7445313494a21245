package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// plainRoff is the text of a manual page in one line of words, without its markup.
func plainRoff(page string) string {
	page = regexp.MustCompile(`(?m)^\.(SH|SS|PP|RS|RE|EX|EE|nh|br|IP|TP|TH).*?( |$)`).ReplaceAllString(page, "")
	page = regexp.MustCompile(`\\f.`).ReplaceAllString(page, "")
	page = strings.NewReplacer(`\-`, "-", `\&`, "", `\(aq`, "'", `\\`, `\`, `\e`, `\`).Replace(page)
	return strings.Join(strings.Fields(page), " ")
}

// Every command has a page with all of its help, and no page depends on the day.
func TestManPages(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "")
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	for _, to := range []string{one, two} {
		if err := run(t.Context(), []string{"man", to}, nil, io.Discard, io.Discard); err != nil {
			t.Fatal(err)
		}
	}
	pages, err := filepath.Glob(filepath.Join(one, "*"))
	if err != nil || len(pages) < 15 {
		t.Fatalf("%v %v", pages, err)
	}
	for _, page := range pages {
		a, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(two, filepath.Base(page)))
		if err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs: %v", filepath.Base(page), err)
		}
		if !bytes.HasPrefix(bytes.TrimPrefix(a, []byte(".nh\n")), []byte(`.TH "IMGFERRY`)) || bytes.Contains(a, []byte(time.Now().Format("2006"))) || bytes.Contains(a, []byte("0001")) {
			t.Errorf("%s: %.80s", filepath.Base(page), a)
		}
	}
	a := &app{stdout: io.Discard, stderr: io.Discard}
	var check func(*cobra.Command)
	check = func(cmd *cobra.Command) {
		if cmd.Hidden {
			return
		}
		name := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".1"
		b, err := os.ReadFile(filepath.Join(one, name))
		if err != nil {
			t.Error(err)
			return
		}
		page := plainRoff(string(b))
		texts := []string{cmd.Short}
		texts = append(texts, strings.Split(cmd.Long, "\n")...)
		texts = append(texts, strings.Split(cmd.Example, "\n")...)
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) { texts = append(texts, strings.ReplaceAll(f.Usage, "`", "")) })
		for _, text := range texts {
			if text = strings.Join(strings.Fields(text), " "); !strings.Contains(page, text) {
				t.Errorf("%s lacks %q", name, text)
			}
		}
		for _, sub := range cmd.Commands() {
			check(sub)
		}
	}
	check(a.command())
}
