package limits_test

import (
	"errors"
	"strings"
	"testing"

	"imgferry/limits"
)

// TestServiceRules tries each rule of the service's calls at its edges.
func TestServiceRules(t *testing.T) {
	long := strings.Repeat("n", 256)
	for name, c := range map[string]struct {
		err  error
		code limits.Code
	}{
		"type": {limits.CreateType("FusionCompute"), ""}, "no type": {limits.CreateType(""), ""}, "bad type": {limits.CreateType("DataImage"), limits.SourceTypeWrong},
		"data system": {limits.DataOSType("Linux"), ""}, "other data system": {limits.DataOSType("Other"), limits.OSTypeInvalid},
		"format": {limits.DiskFormat("zvhd2"), ""}, "no format": {limits.DiskFormat(""), ""}, "bad format": {limits.DiskFormat("ova"), limits.FormatUnsupported},
		"export": {limits.ExportFormat("vmdk", false), ""}, "quick export": {limits.ExportFormat("", true), ""},
		"no export format": {limits.ExportFormat("", false), limits.FormatUnsupported}, "quick export with a format": {limits.ExportFormat("qcow2", true), limits.RequestFormat},
		"memory": {limits.RAM("min_ram", limits.MaxRAM), ""}, "less than none": {limits.RAM("min_ram", -1), limits.DiskSize}, "too much": {limits.RAM("max_ram", limits.MaxRAM+1), limits.DiskSize},
		"native name": {limits.NativeName(long[:255]), ""}, "no native name": {limits.NativeName(""), ""}, "long native name": {limits.NativeName(long), limits.NameTooLong},
		"native name of two lines": {limits.NativeName("a\nb"), limits.NameFormat},
		"native tag":               {limits.NativeTag(long[:255]), ""}, "no native tag": {limits.NativeTag(""), limits.TagInvalid}, "long native tag": {limits.NativeTag(long), limits.TagInvalid},
		"project": {limits.ProjectID("5a9db0c500000000000000000000c10d"), ""}, "no project": {limits.ProjectID(""), limits.ProjectWrong}, "a path": {limits.ProjectID("a/b"), limits.ProjectWrong},
	} {
		var broken *limits.Error
		if c.code == "" && c.err == nil {
			continue
		}
		if !errors.As(c.err, &broken) || broken.Code != c.code || broken.Advice == "" {
			t.Errorf("%s: %v, want %q", name, c.err, c.code)
		}
	}
}

// TestTexts holds the codes to the reference's number of them, each with its text.
func TestTexts(t *testing.T) {
	codes := limits.Codes()
	if len(codes) != 180 {
		t.Errorf("%d codes, the reference has 180", len(codes))
	}
	for _, c := range codes {
		if text := c.Text(); !strings.HasPrefix(string(c), "IMG.") || !strings.HasSuffix(text, ".") {
			t.Errorf("%s: %q", c, text)
		}
	}
	if limits.Code("IMG.9999").Text() != "" {
		t.Error("a code that isn't there has a text")
	}
}

func TestMemory(t *testing.T) {
	for _, m := range [][2]int{{0, 0}, {512, 0}, {512, 512}, {0, 1}} {
		if err := limits.Memory(m[0], m[1]); err != nil {
			t.Errorf("%v: %v", m, err)
		}
	}
	for _, m := range [][2]int{{2, 1}, {-1, 0}, {0, -1}, {limits.MaxRAM + 1, 0}} {
		var broken *limits.Error
		if err := limits.Memory(m[0], m[1]); !errors.As(err, &broken) || broken.Code != limits.DiskSize {
			t.Errorf("%v: %v", m, err)
		}
	}
}
