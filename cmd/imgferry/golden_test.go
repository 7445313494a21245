package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// update writes the tables anew instead of comparing with them. Read each changed line: it says what
// the program should do.
var update = flag.Bool("update", false, "write the tables in testdata anew")

// tableLines are the lines of a table in testdata.
func tableLines(t *testing.T, name string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil && !*update {
		t.Fatal(err)
	}
	lines := make(map[string]bool)
	for line := range strings.Lines(string(text)) {
		lines[strings.TrimSuffix(line, "\n")] = true
	}
	return lines
}

// compareTable compares what was seen with the reviewed table of that name, one line for each cell.
func compareTable(t *testing.T, name, head string, lines []string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	got := head + strings.Join(lines, "\n") + "\n"
	if *update {
		if err := os.MkdirAll("testdata", 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(want, []byte(got)) {
		return
	}
	expected := tableLines(t, name)
	seen := make(map[string]bool)
	for line := range strings.Lines(got) {
		line = strings.TrimSuffix(line, "\n")
		seen[line] = true
		if !expected[line] {
			t.Errorf("not in %s: %s", path, line)
		}
	}
	for line := range strings.Lines(string(want)) {
		if line = strings.TrimSuffix(line, "\n"); !seen[line] {
			t.Errorf("only in %s: %s", path, line)
		}
	}
	if !t.Failed() {
		t.Errorf("%s has these lines in another order", path)
	}
}
