// Command imgferry takes a virtual disk from wherever it is to a running cloud image.
//
// This package parses flags, wires the rooms together and prints; what happens is in them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"

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

// interruptible returns a context that the first SIGINT, SIGTERM or SIGHUP cancels with
// upload.ErrInterrupted. The second one ends the process at once.
func interruptible(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		select {
		case <-signals:
			cancel(upload.ErrInterrupted)
		case <-done:
			return
		}
		select {
		case <-signals:
			os.Exit(exitInterrupted)
		case <-done:
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel(nil)
	}
}

// run is the program: it parses args, does the work and reports a failure on stderr. The error it
// returns says the exit code (exitCode).
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := a.command()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, context.Canceled) && !errors.Is(err, cause) {
		err = cause // why the context ended says more than that it did
	}
	if !a.started {
		// Nothing ran: cobra refused the command line.
		err = &usageError{err}
	}
	report(stderr, err)
	return err
}

// app is one run of the program.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	started        bool // a command's own code has begun

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
		},
	}
	root.AddCommand(a.pushCommand(), a.convertCommand(), a.infoCommand(), a.uploadsCommand(), a.sandboxCommand(), a.versionCommand())
	return root
}

func (a *app) versionCommand() *cobra.Command {
	var json bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if json {
				return printJSON(a.stdout, map[string]string{
					"version": version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH,
				})
			}
			_, err := fmt.Fprintln(a.stdout, "imgferry", version)
			return err
		},
	}
	cmd.Flags().BoolVar(&json, "json", false, "print JSON")
	return cmd
}

// say prints one line for the user on stderr, past a progress bar. Any goroutine may call it.
func (a *app) say(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.clear != nil {
		a.clear()
	}
	fmt.Fprintln(a.stderr, printable(fmt.Sprintf(format, args...)))
}

// usageError is a command line that makes no sense.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// report prints err and, where there is one, the way out.
func report(w io.Writer, err error) {
	fmt.Fprintln(w, "imgferry:", printable(err.Error()))
	var usage *usageError
	if errors.As(err, &usage) {
		fmt.Fprintln(w, "Run 'imgferry help' for the commands, 'imgferry COMMAND --help' for one's flags.")
		return
	}
	var known *advised
	if errors.As(err, &known) {
		for _, line := range known.lines {
			fmt.Fprintln(w, line)
		}
	} else if _, hint := classify(err); hint != "" {
		fmt.Fprintln(w, hint)
	}
}

// advised is an error whose way out the command knows better than its class.
type advised struct {
	error
	lines []string
}

func (e *advised) Unwrap() error { return e.error }
