package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// canaryText is in a file that images name and that nobody may read for them.
const canaryText = "THE-CANARY-SINGS"

// lyingFolder makes a folder with the files that the images name: "lies" is inside, a directory that
// commands may be allowed.
func lyingFolder(t *testing.T) (top string) {
	t.Helper()
	top = t.TempDir()
	at := func(name string) string { return filepath.Join(top, name) }
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	check(os.Mkdir(at("lies"), 0o777))
	text := []byte(strings.Repeat(canaryText, 4096))
	for _, name := range []string{"canary", "lies/canary", "lies/inside"} {
		check(os.WriteFile(at(name), text, 0o666))
	}
	check(os.Symlink(at("canary"), at("lies/link")))
	check(os.Symlink(at("canary"), at("lies/this-link")))
	check(os.Mkdir(at("lies/this-folder"), 0o777))
	if err := mkfifo(at("lies/this-pipe")); err != nil {
		t.Logf("no pipe: %v", err)
	}
	check(os.WriteFile(at("lies/this-flat"), make([]byte, 16*512), 0o666))
	check(os.WriteFile(at("zeros.raw"), make([]byte, 4096), 0o666))
	return top
}

const liesHead = `# What the commands say of images that lie, or ask for what they should not get.
# Made by go test ./cmd/imgferry -run TestLies -update; each line is reviewed. THIS is the image. Where info
# says what can't be read, and where check finds something, that is shown before stderr.
#
# format | lie                               | command | exit code | what it says
`

func TestLies(t *testing.T) {
	top := lyingFolder(t)
	at := func(name string) string { return filepath.Join(top, name) }
	source := (&world{t: t, dir: t.TempDir()}).disk(4)
	converted := func(format string) lying {
		good := at("good." + format)
		if _, err := runOnLie(t, "convert", source, good, "-O", format); err != nil {
			t.Fatal(err)
		}
		p, err := os.ReadFile(good)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	this, beside := at("lies/this"), at("lies/beside")
	out := at("out")
	var lines []string
	for _, l := range append(lies(at("canary"), converted("zvhd2")), variantLies(at("canary"), converted("zvhd"))...) {
		if strings.Contains(l.name, "a pipe") && runtime.GOOS == "windows" {
			continue
		}
		if err := os.WriteFile(this, l.image, 0o666); err != nil {
			t.Fatal(err)
		}
		if l.beside != nil {
			if err := os.WriteFile(beside, l.beside, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		for _, command := range [][]string{
			{"info", this}, {"map", this}, {"check", this}, {"compare", this, at("zeros.raw")}, {"digest", this},
			{"convert", this, out, "-O", "raw"}, {"push", "--sandbox", "--sandbox-data", at("box"), "--os-version", "Other", "--name", "lie", this},
			{"push raw", "--format", "raw", "--unproven-bitmap", "--sandbox", "--sandbox-data", at("box"), "--os-version", "Other", "--name", "lie", this},
		} {
			args := append(slices.Concat(strings.Fields(command[0])[:1], command[1:]), l.flagsFor(command[0], at("lies"))...)
			r, err := runOnLie(t, args...)
			where := fmt.Sprintf("%-6s | %-34s | %-8s", l.format, l.name, command[0])
			lines = append(lines, fmt.Sprintf("%s | %3d | %s", where, exitCode(err), r.says(top)))
			written, readErr := os.ReadFile(out)
			os.Remove(out)
			if (readErr == nil) != (command[0] == "convert" && err == nil) {
				t.Errorf("%s: a target of %d bytes, %v", where, len(written), err)
			}
			if bytes.Contains(written, []byte(canaryText)) || strings.Contains(r.stdout+r.stderr, canaryText) {
				t.Errorf("%s: the canary was read", where)
			}
			os.RemoveAll(at("box"))
		}
		os.Remove(beside)
	}
	left, err := os.ReadDir(at("lies"))
	if err != nil || len(left) > 8 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	compareTable(t, "lies.txt", liesHead, lines)
}

// flagsFor are the lie's flags as far as the command has them. allowed is the directory "lies".
func (l lie) flagsFor(command, allowed string) []string {
	var flags []string
	for i := 0; i < len(l.args); i += 2 {
		name, value := l.args[i], l.args[i+1]
		if name == "--allow-backing" {
			value = allowed
		}
		switch {
		case command == "check" && name != "--source-format":
			continue
		case command == "compare" && name == "--source-format":
			name = "--a-format"
		}
		flags = append(flags, name, value)
	}
	return flags
}

// runOnLie runs the program on an image, within a minute and without a great deal of memory.
func runOnLie(t *testing.T, args ...string) (result, error) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("the program hangs"))
	defer cancel()
	var stdout, stderr bytes.Buffer
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := (&app{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, pace: hurry}).run(ctx, args)
	runtime.ReadMemStats(&after)
	if ctx.Err() != nil {
		t.Errorf("%v: %v", args, context.Cause(ctx))
	}
	// What reads only tables needs next to nothing, whatever an image says of its size; the engine has its
	// buffers.
	limit := uint64(64 << 20)
	switch args[0] {
	case "compare", "digest", "convert", "push":
		limit = 512 << 20
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > limit {
		t.Errorf("%v: %d MiB were allocated", args, took>>20)
	}
	return result{exitCode(err), stdout.String(), stderr.String()}, err
}

// tells matches the lines of stdout that say what is wrong.
var tells = regexp.MustCompile(`^(can't be read: |corruption: |leak: )`)

func (r result) says(dir string) string {
	var lines []string
	for line := range strings.Lines(r.stdout) {
		if tells.MatchString(line) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	if len(lines) > 2 {
		lines = append(lines[:2], "...")
	}
	for line := range strings.Lines(r.stderr) {
		line = strings.TrimSpace(normalText(line))
		if !strings.HasPrefix(line, "sandbox: ") && !ordinary.MatchString(line) {
			lines = append(lines, line)
		}
	}
	text := strings.ReplaceAll(strings.Join(lines, " // "), filepath.Join(dir, "lies", "this"), "THIS")
	return normalText(text, dir)
}
