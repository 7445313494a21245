package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(manyRuns{m}, map[string]func(){"imgferry": main})
}

// manyRuns are the tests, most of which run the program in this one process. Its limit of memory is for one
// run: here it would stay, and stop everything again and again once the heap of all of them is near it.
// Garbage of many small runs is collected more seldom.
type manyRuns struct{ testscript.TestingM }

const noMemoryLimit = "GOMEMLIMIT=off"

func (m manyRuns) Run() int {
	name, value, _ := strings.Cut(noMemoryLimit, "=")
	if err := os.Setenv(name, value); err != nil {
		panic(err)
	}
	debug.SetGCPercent(400)
	return m.TestingM.Run()
}

// ownEnv is the environment of a run in a process of its own, which has its own limit of memory.
func ownEnv(more ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return v == noMemoryLimit })
	return append(env, more...)
}

// TestScripts runs the program as users do: each script of testdata/script in a folder of its own.
func TestScripts(t *testing.T) {
	data, err := filepath.Abs(filepath.Join("..", "..", "testdata"))
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join(data, "script"),
		Setup: func(env *testscript.Env) error {
			env.Setenv("LINUX", filepath.Join(data, "linux.qcow2"))
			env.Setenv("HOME", env.WorkDir)
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond != "qemu-img" {
				return false, errors.New("unknown condition")
			}
			_, err := exec.LookPath("qemu-img")
			if err != nil && (os.Getenv("CI") != "" || os.Getenv("IMGFERRY_REQUIRE_TOOLS") != "") {
				return false, errors.New("qemu-img is missing: apt-get install qemu-utils")
			}
			return err == nil, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits,
			"patch": patch,
		},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

// exits CODE PROGRAM ARG... runs a program that must exit with CODE.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG...")
	}
	want, err := strconv.Atoi(args[0])
	if err != nil {
		ts.Fatalf("%v", err)
	}
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("%v: exit code %d, want %d", args[1:], got, want)
	}
}

// patch FILE OFFSET BYTES writes a Go-quoted string into a file at an offset in bytes; offset
// "end" cuts the file to the length BYTES instead.
func patch(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: patch FILE OFFSET BYTES")
	}
	name := ts.MkAbs(args[0])
	if args[1] == "end" {
		n, err := strconv.ParseInt(args[2], 0, 64)
		ts.Check(err)
		ts.Check(os.Truncate(name, n))
		return
	}
	off, err := strconv.ParseInt(args[1], 0, 64)
	ts.Check(err)
	text, err := strconv.Unquote(`"` + args[2] + `"`)
	ts.Check(err)
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	ts.Check(err)
	_, err = f.WriteAt([]byte(text), off)
	ts.Check(err)
	ts.Check(f.Close())
}
