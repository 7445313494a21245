// Command imgferry takes a virtual disk from wherever it is to a running cloud image.
//
// This package parses flags, wires the rooms together and prints; what happens is in them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"imgferry/upload"
)

// version is set by the linker (make build).
var version = "dev"

func main() {
	ctx, stop := interruptible(context.Background())
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(exitCode(err))
}

// echo is how long after the first signal another one is taken for the same: timeout(1) and some supervisors
// signal the process and then its group. Who presses the keys again is slower.
const echo = 500 * time.Millisecond

// interruptible returns a context that the first SIGINT, SIGTERM or SIGHUP cancels with
// upload.ErrInterrupted. The second one ends the process at once, unless it is an echo of the first.
func interruptible(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		if heed(signals, done, time.Now, func() { cancel(upload.ErrInterrupted) }) {
			os.Exit(exitInterrupted)
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel(nil)
	}
}

// heed calls first at the first of the signals, and returns true at the next that is no echo of it, or false
// when done is closed.
func heed(signals <-chan os.Signal, done <-chan struct{}, now func() time.Time, first func()) (again bool) {
	var since time.Time
	for {
		select {
		case <-signals:
		case <-done:
			return false
		}
		switch at := now(); {
		case since.IsZero():
			since = at
			first()
		case at.Sub(since) >= echo:
			return true
		}
	}
}

// run is the program: it parses args, does the work and reports a failure on stderr. The error it
// returns says the exit code (exitCode).
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	return (&app{stdin: stdin, stdout: stdout, stderr: stderr}).run(ctx, args)
}

func (a *app) run(ctx context.Context, args []string) error {
	root := a.command()
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	err := root.ExecuteContext(context.WithValue(ctx, appKey{}, a))
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, context.Canceled) && !errors.Is(err, cause) {
		err = cause // why the context ended says more than that it did
	}
	if !a.started {
		// Nothing ran: cobra refused the command line.
		err = &usageError{err}
		a.startLog()
	}
	if !errors.As(err, new(verdict)) {
		a.report(err)
	}
	return err
}

// app is one run of the program.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	started        bool // a command's own code has begun

	logLevel, logFormat string // flags
	log                 *slog.Logger

	pace pace

	mu    sync.Mutex // guards stderr and clear
	clear func()     // wipes the progress bar off the line, or nil
}

func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "imgferry",
		Short: "Take a virtual disk from wherever it is to a running cloud image",
		Long: `imgferry reads a virtual disk image, converts it on the fly, uploads it to object
storage in parallel parts, registers it with the cloud's image service and waits
until it is usable.

` + exitCodesHelp,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRun: func(*cobra.Command, []string) {
			a.started = true
			a.startLog()
		},
	}
	a.logFlags(root)
	root.AddCommand(a.pushCommand(), a.pullCommand(), a.convertCommand(), a.infoCommand(), a.mapCommand(), a.checkCommand(), a.compareCommand(), a.digestCommand(), a.bitmapCommand(), a.uploadCommand(), a.uploadsCommand(), a.imagesCommand(), a.osVersionsCommand(), a.quotaCommand(), a.jobsCommand(), a.configCommand(), a.loginCommand(), a.logoutCommand(), a.sandboxCommand(), a.versionCommand(), a.manCommand())
	addCompletions(root)
	return root
}

func (a *app) versionCommand() *cobra.Command {
	var out *output
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := versionReport{version, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			return out.emit(v, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, "imgferry", version)
				return err
			})
		},
	}
	out = a.outputFlags(cmd)
	return cmd
}

type versionReport struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// usageError is a command line that makes no sense.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// advised is an error whose way out the command knows better than its class.
type advised struct {
	error
	lines []string
}

func (e *advised) Unwrap() error { return e.error }
