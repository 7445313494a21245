package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgferry/upload"
)

// terminal returns both ends of a pseudo-terminal: the user's, and the program's.
func terminal(t *testing.T) (user, program *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { user.Close() })
	if err := unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { program.Close() })
	return user, program
}

// On a terminal delete asks, and does nothing unless the answer is yes.
func TestImagesDeleteAsks(t *testing.T) {
	s := newShell(t)
	s.seed()
	a, b := s.image("a", nil), s.image("b", nil)
	for _, c := range []struct {
		answer string
		left   []string
	}{
		{"\n", []string{b, a}}, {"n\n", []string{b, a}}, {"delete\n", []string{b, a}}, {"Yes\n", []string{}},
	} {
		user, program := terminal(t)
		if _, err := io.WriteString(user, c.answer); err != nil { // waits in the terminal until it is read
			t.Fatal(err)
		}
		r := s.runWith(program, "images", "delete", a, b)
		if r.code != 0 || !strings.Contains(r.stderr, "Delete these 2 images for good? [y/N] ") || !strings.Contains(r.stderr, a) {
			t.Errorf("%q: %+v", c.answer, r)
		}
		if got := s.ids(); !slices.Equal(got, c.left) {
			t.Fatalf("%q: left %v", c.answer, got)
		}
		if deleted := len(c.left) == 0; (r.stdout != "") != deleted || strings.Contains(r.stderr, "nothing was deleted") == deleted {
			t.Errorf("%q: %+v", c.answer, r)
		}
	}
}

// An interrupt ends the question.
func TestInterruptedQuestion(t *testing.T) {
	s := newShell(t)
	s.seed()
	id := s.image("a", nil)
	_, program := terminal(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	asked, stderr := io.Pipe()
	go func() { // ends with the pipe
		words := bufio.NewReader(asked)
		if _, err := words.ReadString('?'); err == nil {
			cancel(upload.ErrInterrupted)
		}
		io.Copy(io.Discard, words)
	}()
	var stdout bytes.Buffer
	err := run(ctx, []string{"images", "delete", id}, program, &stdout, stderr)
	stderr.Close()
	if exitCode(err) != exitInterrupted || stdout.Len() > 0 {
		t.Errorf("%v %s", err, stdout.String())
	}
	if got := s.ids(); !slices.Equal(got, []string{id}) {
		t.Errorf("left: %v", got)
	}
}
