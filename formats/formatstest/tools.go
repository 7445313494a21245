package formatstest

import (
	"os"
	"os/exec"
	"testing"
)

// Tool runs an external program that stands beside the code under test as a second opinion, and
// returns what it wrote to stdout. If the program is missing the test is skipped, or fails where CI
// or IMGFERRY_REQUIRE_TOOLS is set: a test that silently doesn't run proves nothing.
func Tool(t testing.TB, program string, args ...string) []byte {
	t.Helper()
	NeedTool(t, program)
	cmd := exec.Command(program, args...)
	out, err := cmd.Output()
	if err != nil {
		var stderr []byte
		if e, ok := err.(*exec.ExitError); ok {
			stderr = e.Stderr
		}
		t.Fatalf("%s: %v\n%s", cmd, err, stderr)
	}
	return out
}

// NeedTool skips the test, or fails it, if program is missing, as Tool does.
func NeedTool(t testing.TB, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	msg := program + " is missing: apt-get install " + map[string]string{
		"qemu-img": "qemu-utils", "qemu-io": "qemu-utils",
	}[program]
	if os.Getenv("CI") != "" || os.Getenv("IMGFERRY_REQUIRE_TOOLS") != "" {
		t.Fatal(msg)
	}
	t.Skip(msg)
}
