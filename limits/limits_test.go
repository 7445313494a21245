package limits_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"imgferry/limits"
)

func ExampleMinDisk() {
	gb, err := limits.MinDisk(limits.FastImport, 10<<30+512) // a disk of one sector above 10 GiB
	fmt.Println(gb, err)
	_, err = limits.MinDisk(limits.FastImport, 2<<40)
	fmt.Println(err)
	// Output:
	// 11 <nil>
	// the disk has 2199023255552 bytes, which needs 2048 GB: this import takes disks up to 1024 GB (IMG.0055)
}

// check compares the code that err carries; "" wants no error.
func check(t *testing.T, what string, err error, want limits.Code) {
	t.Helper()
	var e *limits.Error
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v", what, err)
	case want == "":
	case !errors.As(err, &e):
		t.Errorf("%s: error %v, want code %s", what, err, want)
	case e.Code != want:
		t.Errorf("%s: code %s (%v), want %s", what, e.Code, err, want)
	case e.Field == "" || e.Finding == "" || e.Advice == "":
		t.Errorf("%s: incomplete error %+v", what, e)
	case want.Text() == "":
		t.Errorf("%s: code %s has no text", what, want)
	case strings.ContainsAny(err.Error(), "\n\r\x00"):
		t.Errorf("%s: message breaks its line: %q", what, err)
	}
}

func TestName(t *testing.T) {
	for s, want := range map[string]limits.Code{
		"a": "", "centos-7.9_x 64": "", strings.Repeat("n", 128): "", strings.Repeat("中", 128): "", "镜像1": "",
		"":                       limits.NameMissing,
		strings.Repeat("n", 129): limits.NameTooLong, strings.Repeat("中", 129): limits.NameTooLong,
		" a": limits.NameFormat, "a ": limits.NameFormat, " ": limits.NameFormat, "a/b": limits.NameFormat,
		"a\nb": limits.NameFormat, "a\x00": limits.NameFormat, "é": limits.NameFormat, "a\xff": limits.NameFormat,
		"a\u00a0b": limits.NameFormat, "\ufffd": limits.NameFormat,
	} {
		check(t, fmt.Sprintf("name %q", s), limits.Name(s), want)
	}
	if limits.NameWarning("disk 1") != "" || !strings.Contains(limits.NameWarning("镜像"), "Chinese") {
		t.Error("warnings")
	}
}

func TestDescription(t *testing.T) {
	for s, want := range map[string]limits.Code{
		"": "", "OBS文件制作镜像, é!": "", strings.Repeat("d", 1024): "", strings.Repeat("中", 1024): "",
		strings.Repeat("d", 1025): limits.DescriptionTooLong,
		"a<b":                     limits.DescriptionFormat, "a>b": limits.DescriptionFormat, "a\nb": limits.DescriptionFormat,
		"a\rb": limits.DescriptionFormat, "\xc3": limits.DescriptionFormat,
	} {
		check(t, fmt.Sprintf("description %.20q", s), limits.Description(s), want)
	}
}

func TestTag(t *testing.T) {
	for _, c := range []struct {
		key, value string
		want       limits.Code
	}{
		{"k", "", ""}, {"k_-9", "v.1-_", ""}, {"键", "值", ""},
		{strings.Repeat("k", 36), strings.Repeat("v", 43), ""},
		{"imgferry", "4jJrJH3uSSyip27gRXQl4lqpBFuq3gFUApmPWMT_It8", ""}, // a content digest
		{"", "v", limits.TagInvalid}, {"a.b", "v", limits.TagInvalid}, {"a=b", "", limits.TagInvalid},
		{strings.Repeat("k", 37), "", limits.TagInvalid}, {"k", strings.Repeat("v", 44), limits.TagInvalid},
		{"k", "a b", limits.TagInvalid}, {"k", "a=b", limits.TagInvalid}, {"k", "\xff", limits.TagInvalid},
	} {
		check(t, fmt.Sprintf("tag %q=%q", c.key, c.value), limits.Tag(c.key, c.value), c.want)
	}
	for s, want := range map[string][2]string{"aaa.111": {"aaa", "111"}, "a.b.c": {"a", "b.c"}, "a": {"a", ""}, ".b": {"", "b"}} {
		if k, v := limits.SplitTag(s); k != want[0] || v != want[1] {
			t.Errorf("tag %q: %q, %q", s, k, v)
		}
	}
}

func TestMinDisk(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		k    limits.Import
		size int64
		want int
		code limits.Code
	}{
		{limits.FastImport, 0, 1, ""}, {limits.FastImport, 1, 1, ""}, {limits.FastImport, gib, 1, ""},
		{limits.FastImport, gib + 1, 2, ""}, {limits.FastImport, 1024 * gib, 1024, ""},
		{limits.FastImport, 1024*gib + 1, 0, limits.DiskSize}, {limits.FastImport, 1<<63 - 1, 0, limits.DiskSize},
		{limits.SystemImport, gib, 40, ""}, {limits.SystemImport, 41 * gib, 41, ""},
		{limits.DataImport, 2048 * gib, 2048, ""}, {limits.AttachedDataImport, 5, 1, ""},
	} {
		gb, err := limits.MinDisk(c.k, c.size)
		check(t, fmt.Sprintf("import %d of %d bytes", c.k, c.size), err, c.code)
		if gb != c.want {
			t.Errorf("import %d of %d bytes: %d GB, want %d", c.k, c.size, gb, c.want)
		}
		if err == nil {
			check(t, "its own answer", limits.CheckMinDisk(c.k, gb, c.size), "")
		}
	}
	for _, c := range []struct {
		gb   int
		size int64
		code limits.Code
	}{
		{1, 0, ""}, {1024, 0, ""}, {0, 0, limits.DiskSize}, {1025, 0, limits.DiskSize}, {-1, 0, limits.DiskSize},
		{1, gib, ""}, {1, gib + 1, limits.DiskSize}, {2, gib + 1, ""},
	} {
		check(t, fmt.Sprintf("min_disk %d", c.gb), limits.CheckMinDisk(limits.FastImport, c.gb, c.size), c.code)
	}
}

func TestFileSize(t *testing.T) {
	for _, c := range []struct {
		k    limits.Import
		size int64
		code limits.Code
	}{
		{limits.FastImport, 1, ""}, {limits.FastImport, 1 << 40, ""}, {limits.FastImport, 1<<40 + 1, limits.FileTooLarge},
		{limits.FastImport, 0, limits.FileDamaged}, {limits.SystemImport, 128 << 30, ""},
		{limits.SystemImport, 128<<30 + 1, limits.FileTooLarge},
	} {
		check(t, fmt.Sprintf("file of %d", c.size), limits.FileSize(c.k, c.size), c.code)
	}
}

func TestImageURL(t *testing.T) {
	for s, want := range map[string]limits.Code{
		"ims-image:centos70.zvhd2": "", "b.c:a/b:c=d+中.raw": "", "abc:" + strings.Repeat("k", 1024): "",
		"": limits.URLFormat, "centos.raw": limits.URLFormat, "abc:": limits.URLFormat, ":key": limits.BucketMissing,
		"ab:k": limits.BucketFormat, strings.Repeat("b", 64) + ":k": limits.BucketFormat, "Abc:k": limits.BucketFormat,
		"a_b:k": limits.BucketFormat, "-abc:k": limits.BucketFormat, "abc.:k": limits.BucketFormat, "a..b:k": limits.BucketFormat,
		"a.-b:k": limits.BucketFormat, "127.0.0.1:k": limits.BucketFormat, "中国国:k": limits.BucketFormat,
		"abc:a b": limits.KeySpaces, "abc:a\u3000b": limits.KeySpaces, "abc:a\tb": limits.KeySpaces,
		"abc:" + strings.Repeat("k", 1025): limits.KeyTooLong,
		"abc:a\x01":                        limits.KeyFormat, "abc:a\\b": limits.KeyFormat, "abc:\xff": limits.KeyFormat,
		"abc:/k": limits.KeyFormat, "abc:k/": limits.KeyFormat, "abc:a//b": limits.KeyFormat, "abc:../k": limits.KeyFormat,
	} {
		bucket, key, err := limits.SplitImageURL(s)
		check(t, fmt.Sprintf("address %.30q", s), err, want)
		if err == nil && limits.ImageURL(bucket, key) != s {
			t.Errorf("address %q: parts %q, %q", s, bucket, key)
		}
	}
	for key, want := range map[string]string{"x.raw": "x.mf", "a.b/x": "a.b/x.mf", "x.1.raw": "x.1.mf", "x.mf": "x.mf"} {
		if got := limits.BitmapKey(key); got != want {
			t.Errorf("bitmap of %q: %q, want %q", key, got, want)
		}
	}
}

func TestKinds(t *testing.T) {
	for _, c := range []struct {
		what string
		err  error
		want limits.Code
	}{
		{"no type", limits.ImageType(""), ""}, {"ECS", limits.ImageType("ECS"), ""}, {"BMS", limits.ImageType("BMS"), ""},
		{"DataImage", limits.ImageType("DataImage"), ""}, {"ecs", limits.ImageType("ecs"), limits.ImageTypeWrong},
		{"x86", limits.Architecture("x86"), ""}, {"arm", limits.Architecture("arm"), ""},
		{"arm64", limits.Architecture("arm64"), limits.ArchitectureWrong},
		{"uefi", limits.Firmware("uefi"), ""}, {"UEFI", limits.Firmware("UEFI"), limits.FirmwareInvalid},
		{"Linux", limits.OSType("Linux"), ""}, {"linux", limits.OSType("linux"), limits.OSTypeInvalid},
		{"no os", limits.OSVersion("", ""), limits.OSVersionMissing}, {"no os, BMS", limits.OSVersion("BMS", ""), limits.OSVersionMissing},
		{"no os, data", limits.OSVersion("DataImage", ""), ""}, {"other", limits.OSVersion("ECS", "Other Linux(64 bit)"), ""},
		{"long os", limits.OSVersion("ECS", strings.Repeat("x", 256)), limits.OSVersionInvalid},
		{"os with a line break", limits.OSVersion("ECS", "a\nb"), limits.OSVersionInvalid},
	} {
		check(t, c.what, c.err, c.want)
	}
}
