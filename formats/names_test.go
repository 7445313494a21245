package formats_test

import (
	"errors"
	"strings"
	"testing"

	"imgferry/formats"
)

func TestCheckName(t *testing.T) {
	for name, why := range map[string]string{
		"base.raw": "", "../up/base": "", "/a/b:c": "", "dir/nbd:x": "", `..\up`: "", "ä ö": "", "a\nb": "",
		"": "empty", "a\x00b": "zero byte", "/a\x00": "zero byte", "nbd:unix:/socket": "protocol", `json:{"driver":"raw"}`: "protocol",
		"https://host/disk": "protocol", `C:\disk`: "protocol", ":": "protocol",
	} {
		err := formats.CheckName("f", 7, formats.Ref{Kind: formats.Backing, Name: name})
		if why == "" && err != nil || why != "" && (!errors.Is(err, formats.ErrNotAllowed) || !strings.Contains(err.Error(), why) ||
			!strings.HasPrefix(err.Error(), "f: not allowed: the backing file ") || strings.ContainsAny(err.Error(), "\x00\n")) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
