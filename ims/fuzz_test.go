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

// FuzzDecodeCalls holds the decoders of the further calls to what they promise: no panic, and nothing that
// is not in the answer.
func FuzzDecodeCalls(f *testing.F) {
	seedAnswers(f)
	for _, s := range []string{
		`{"quotas":{"resources":[{"type":"image","used":0,"quota":1e300,"min":-9}]}}`, `{"quotas":[{"resources":{"type":"image"}}]}`,
		`[{"platform":"SUSE","version_list":[{"os_version":"SUSE 15 64bit","os_bit":64}]},null,7]`, `[{"version_list":{"os_version":"x"}}]`,
		`{"members":[{"image_id":"i","member_id":"p","status":"accepted"}]}`, `{"members":null}`, `{"tags":[{"key":"a","values":["b"]},{"key":7,"value":true}]}`,
		`{"status":"RUNNING","entities":{"results":[{"image_id":"i"}],"sub_jobs_result":[{"entities":{"sub_jobs_result":[{}]}}],"sub_jobs_list":["a",1]}}`,
		`{"id":"i","__x":{"a":1},"a":1,"b":true,"__system_cmkid":"k"}`, `{"job_id":"a/b"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		if quotas, err := decodeQuotas(p); err == nil {
			for _, q := range quotas {
				if q.Used < -1 || q.Limit < -1 || q.Min < -1 || q.Max < -1 {
					t.Errorf("%+v", q)
				}
			}
		}
		if list, err := decodeOSVersions(p); err == nil {
			for _, v := range list {
				if v.Name == "" || v.Key == "" || v.Bits < 0 {
					t.Errorf("%+v", v)
				}
				MatchOS(list, v.Name)
			}
		}
		if tags, err := decodeTags(p); err == nil {
			for _, tag := range tags {
				if tag.Key == "" {
					t.Errorf("%+v", tag)
				}
			}
		}
		if id, err := decodeJobID(p); err == nil && !isID(id) {
			t.Errorf("job id %q", id)
		}
		if img, err := decodeImage(p); err == nil && (!isID(img.ID) || img.Size < 0 || img.MaxRAM < 0) {
			t.Errorf("%+v", img)
		}
		decodeMembers(p)
		MatchOS([]OSVersion{{Name: string(p)}}, string(p))
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
