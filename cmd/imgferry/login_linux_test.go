package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgferry/profile"
	"imgferry/upload"
)

// newTerminal returns both ends of a new terminal: what the user types into, and what the program reads.
func newTerminal(t *testing.T) (user, program *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err) // a container without terminals
	}
	t.Cleanup(func() { user.Close() })
	n, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return user, program
}

// echoes reports whether the terminal shows what is typed.
func echoes(t *testing.T, f *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

// A secret that is typed is not shown, and after it the terminal is as it was.
func TestTypedSecret(t *testing.T) {
	clearSettings(t)
	user, program := newTerminal(t)
	var stdout, stderr bytes.Buffer
	done := make(chan error, 1)
	go func() {
		done <- run(t.Context(), []string{"config", "set", "sk"}, program, &stdout, &stderr)
	}()
	for echoes(t, program) { // until the program asks
		select {
		case err := <-done:
			t.Fatalf("it did not ask: %v", err)
		default:
			runtime.Gosched()
		}
	}
	io.WriteString(user, "typed-secret\n")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !echoes(t, program) {
		t.Error("the terminal is left without echo")
	}
	io.WriteString(program, "end")
	var shown []byte
	for buf := make([]byte, 100); !bytes.HasSuffix(shown, []byte("end")); {
		n, err := user.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		shown = append(shown, buf[:n]...)
	}
	if text := string(shown) + stdout.String() + stderr.String(); strings.Contains(text, "typed") {
		t.Errorf("shown: %q", text)
	}
	var c cloud
	if c.openProfile() != nil || c.file.Get("default", profile.SecretKey) != "typed-secret" {
		t.Error("the secret is not stored as it was typed")
	}
}

// An interrupt ends the wait for a secret, and gives the terminal its echo back.
func TestInterruptedSecret(t *testing.T) {
	clearSettings(t)
	user, program := newTerminal(t)
	defer io.WriteString(user, "\n") // for who still reads
	ctx, cancel := context.WithCancelCause(t.Context())
	var stderr bytes.Buffer
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, []string{"config", "set", "sk"}, program, io.Discard, &stderr)
	}()
	for echoes(t, program) {
		runtime.Gosched()
	}
	cancel(upload.ErrInterrupted)
	if err := <-done; exitCode(err) != exitInterrupted {
		t.Errorf("got %v", err)
	}
	if !echoes(t, program) {
		t.Error("the terminal is left without echo")
	}
}
