package ims

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func seedAnswers(f *testing.F) {
	for _, s := range []string{
		``, `null`, `[]`, `{}`, `"x"`, `{"status":"SUCCESS","entities":[{"image_id":"i","process_percent":0.20}],"begin_time":"04-Jun-2015 18:11:06:586","error_code":null}`,
		`{"status":"FAIL","entities":{"process_percent":"20"},"fail_reason":"x"}`, `{"entities":[[],{}]}`,
		`{"error_code":"IMG.0001","error_msg":"m"}`, `{"error":{"code":401,"message":null}}`, `{"error":[]}`, `<Error/>`,
		`{"images":[{"id":"i","__image_size":"9223372036854775808","min_disk":1e99,"tags":[1,null,"a"],"protected":"true"}]}`, `{"images":null}`,
	} {
		f.Add([]byte(s))
	}
}

func tame(t *testing.T, s string, n int) {
	t.Helper()
	if utf8.RuneCountInString(s) > n || strings.ContainsAny(s, "\n\r\x1b\x00") || !utf8.ValidString(s) {
		t.Errorf("untamed text %q", s)
	}
}

func FuzzDecodeJob(f *testing.F) {
	seedAnswers(f)
	f.Fuzz(func(t *testing.T, p []byte) {
		j, err := decodeJob(p)
		if err != nil {
			return
		}
		if j.Status == "" && len(p) < 100 {
			return // a status without a printable character
		}
		if !(j.Progress >= 0 && j.Progress <= 1) {
			t.Errorf("progress %v", j.Progress)
		}
		tame(t, j.Reason, 1000)
		tame(t, j.Code, 40)
		tame(t, string(j.Status), 40)
	})
}

func FuzzDecodeError(f *testing.F) {
	seedAnswers(f)
	f.Fuzz(func(t *testing.T, p []byte) {
		code, message, id := decodeError(p)
		tame(t, code, 40)
		tame(t, message, 1000)
		tame(t, id, 100)
	})
}

func FuzzDecodeImages(f *testing.F) {
	seedAnswers(f)
	f.Fuzz(func(t *testing.T, p []byte) {
		images, err := decodeImages(p)
		for _, img := range images {
			if err != nil || img.Size < 0 || img.MinDisk < 0 || img.MinRAM < 0 {
				t.Errorf("%+v, %v", img, err)
			}
		}
	})
}

// FuzzParseAuthorization also holds that what is read, written and read again stays the same.
func FuzzParseAuthorization(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.AuthorizationHeader)
	}
	f.Add("SDK-HMAC-SHA256 Access=,Access=a,SignedHeaders=;;,Signature=")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := parseAuthorization(s)
		if err != nil {
			return
		}
		if again, err := parseAuthorization(a.String()); err != nil || again != a {
			t.Errorf("%q reads as %+v, then as %+v, %v", s, a, again, err)
		}
	})
}
