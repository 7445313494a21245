//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// child is what a command took.
type child struct {
	Wall   time.Duration
	CPU    float64 // user and system seconds
	PeakMB int64   // MiB; on Linux, where Maxrss is in KiB
	Failed string
}

// measureFlag makes this program measure the command that follows it. A process inherits the peak
// memory of the one that forks it, and this one holds the data: so a small one forks.
const measureFlag = "-measure-child"

// runChild measures a command from a small process.
func runChild(env []string, args ...string) (child, error) {
	self, err := os.Executable()
	if err != nil {
		return child{}, err
	}
	cmd := exec.Command(self, append([]string{measureFlag}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.Output()
	if err != nil {
		return child{}, err
	}
	var c child
	if err := json.Unmarshal(out, &c); err != nil {
		return c, err
	}
	if c.Failed != "" {
		return c, fmt.Errorf("%v: %s", args, c.Failed)
	}
	return c, nil
}

// measureChild is the other side of runChild.
func measureChild(args []string) {
	cmd := exec.Command(args[0], args[1:]...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	start := time.Now()
	err := cmd.Run()
	c := child{Wall: time.Since(start)}
	if err != nil {
		c.Failed = err.Error() + ": " + said.String()
	}
	if cmd.ProcessState != nil {
		u := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		c.CPU, c.PeakMB = seconds(u.Utime)+seconds(u.Stime), int64(u.Maxrss)>>10
	}
	if err := json.NewEncoder(os.Stdout).Encode(c); err != nil {
		os.Exit(1)
	}
}
