package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
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

// YAML has the names, the order and the values of JSON, whatever they hold.
func TestYAMLIsJSON(t *testing.T) {
	type inner struct {
		Z string   `json:"z"`
		A []string `json:"a"`
		N *int     `json:"n"`
	}
	value := struct {
		Last  int64          `json:"last"`
		First float64        `json:"first,omitempty"`
		Left  string         `json:"left,omitempty"`
		Yes   bool           `json:"yes"`
		Inner inner          `json:"inner"`
		None  []inner        `json:"none"`
		Map   map[string]any `json:"map"`
		Empty map[string]any `json:"empty"`
		Many  []inner        `json:"many"`
	}{
		Last: 1<<63 - 1, First: 0.25, Yes: true, None: []inner{}, Empty: map[string]any{},
		Map: map[string]any{"y": 1, "a b: c": nil, "": 2, "~": "x", "1": 3},
		Many: []inner{{Z: "x", A: []string{
			"true", "yes", "off", "null", "~", "", " ", "1", "0x10", "1e3", "1_000", "017", "0o7", ".inf", "2024-01-01", "12:30", "a: b", "- a", "#x",
			"a #b", "*a", "&a", "!a", "<<", "=", "%", "@", "`", "\"", "'", "\\", "two\nlines\n", "\ttab ", "\x00\x01\x1b\x7f\u0085\u009b\u2028\ufeff\ufffd", "größe 镜像 🚢", "{", "[", "?", "|", ">",
		}}},
	}
	var asJSON, asYAML bytes.Buffer
	if err := errors.Join(printJSON(&asJSON, value), printYAML(&asYAML, value)); err != nil {
		t.Fatal(err)
	}
	var fromJSON, fromYAML any
	if err := json.Unmarshal(asJSON.Bytes(), &fromJSON); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(asYAML.Bytes(), &fromYAML); err != nil {
		t.Fatalf("%v:\n%s", err, asYAML.String())
	}
	again, err := json.Marshal(fromYAML) // of which numbers stay what they are
	if err != nil {
		t.Fatal(err)
	}
	var viaYAML any
	if err := json.Unmarshal(again, &viaYAML); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(fromJSON, viaYAML) {
		t.Errorf("as JSON %v\nas YAML %v", fromJSON, viaYAML)
	}
	if !strings.HasPrefix(asYAML.String(), "last: 9223372036854775807\nfirst: 0.25\n\"yes\": true\ninner:\n  z: \"\"\n  a: null\n  \"n\": null\nnone: []\n") {
		t.Errorf("%s", asYAML.String())
	}
	for _, text := range []string{asJSON.String(), asYAML.String()} {
		if strings.ContainsAny(text, "\x1b\x7f\u009b\u2028") {
			t.Errorf("%q would steer a terminal", text)
		}
	}
}

// Every command that reports takes the same three forms, and refuses others.
func TestOutputFlags(t *testing.T) {
	image := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(image, bytes.Repeat([]byte("disk"), 1<<10), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"version"}, {"info", image}, {"convert", image, filepath.Join(t.TempDir(), "out"), "-O", "zvhd2"}} {
		forms := make(map[string]any)
		for _, flags := range [][]string{{"--json"}, {"-o", "json"}, {"-o=json", "--json"}, {"--output=yaml"}} {
			var stdout bytes.Buffer
			if err := run(t.Context(), append(args, flags...), nil, &stdout, io.Discard); err != nil {
				t.Fatalf("%v %v: %v", args, flags, err)
			}
			var got map[string]any
			if err := yaml.Unmarshal(stdout.Bytes(), &got); err != nil {
				t.Errorf("%v %v: %v", args, flags, err)
			}
			delete(got, "seconds")
			if len(got) < 2 || forms["first"] != nil && !reflect.DeepEqual(got, forms["first"]) {
				t.Errorf("%v %v: %v\nwant %v", args, flags, got, forms["first"])
			}
			forms["first"] = got
			if isJSON := json.Valid(stdout.Bytes()); isJSON != (flags[0] != "--output=yaml") {
				t.Errorf("%v %v: %s", args, flags, stdout.String())
			}
		}
		for _, flags := range [][]string{{"-o", "xml"}, {"-o", ""}, {"--json", "-o", "yaml"}, {"-o", "table", "--json"}, {"--json=perhaps"}} {
			var stdout bytes.Buffer
			if err := run(t.Context(), append(args, flags...), nil, &stdout, io.Discard); exitCode(err) != exitUsage || stdout.Len() > 0 {
				t.Errorf("%v %v: %v %s", args, flags, err, stdout.String())
			}
		}
		for _, flags := range [][]string{{"-o", "table"}, {"--json=false"}} {
			var stdout bytes.Buffer
			if err := run(t.Context(), append(args, flags...), nil, &stdout, io.Discard); err != nil || json.Valid(stdout.Bytes()) {
				t.Errorf("%v %v: %v %s", args, flags, err, stdout.String())
			}
		}
	}
}
