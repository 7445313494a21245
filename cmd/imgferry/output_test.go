package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"disk.qcow2: fine\nsecond line": "disk.qcow2: fine\nsecond line",
		"größe 镜像":                      "größe 镜像",
		"a\x1b[31mred\x07":              `a\x1b[31mred\a`,
		"back\rforth\u202e":             `back\rforth\u202e`,
		"bad \xff byte":                 `bad � byte`,
	} {
		if got := printable(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// Nothing that a file's name holds reaches the terminal as it is.
func TestHostileName(t *testing.T) {
	for _, args := range [][]string{{"info", "no\x1b]0;title\x07such"}, {"convert", "no\x1b[2Jsuch", "x", "-O", "raw"}, {"no\x1bsuch"}} {
		var stdout, stderr bytes.Buffer
		if err := run(t.Context(), args, nil, &stdout, &stderr); err == nil || strings.ContainsAny(stderr.String()+stdout.String(), "\x1b\x07") {
			t.Errorf("%v: %q %v", args, stderr.String(), err)
		}
	}
}
