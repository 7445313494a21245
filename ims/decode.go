package ims

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// The service's answers differ from its reference, and the reference from itself (process_percent,
// entities, begin_time): a field of another type than expected reads as absent instead of making the
// whole answer unreadable.

// text is a JSON string; numbers and booleans count as their spelling, all else as "".
type text string

func (t *text) UnmarshalJSON(p []byte) error {
	*t = ""
	switch p[0] {
	case '"':
		return json.Unmarshal(p, (*string)(t))
	case '{', '[', 'n':
	default:
		*t = text(p)
	}
	return nil
}

// number is a JSON number, also inside a string; all else counts as 0.
type number float64

func (n *number) UnmarshalJSON(p []byte) error {
	var s text
	if err := s.UnmarshalJSON(p); err != nil {
		return err
	}
	f, err := strconv.ParseFloat(string(s), 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		f = 0
	}
	*n = number(f)
	return nil
}

// flag is a JSON boolean, also inside a string.
type flag bool

func (f *flag) UnmarshalJSON(p []byte) error {
	var s text
	err := s.UnmarshalJSON(p)
	*f = flag(strings.EqualFold(string(s), "true"))
	return err
}

// list is a JSON array of strings; all else counts as empty.
type list []string

func (l *list) UnmarshalJSON(p []byte) error {
	*l = nil
	if p[0] != '[' {
		return nil
	}
	var items []text
	if err := json.Unmarshal(p, &items); err != nil {
		return err
	}
	for _, s := range items {
		*l = append(*l, string(s))
	}
	return nil
}

// objects is a JSON array of objects; one object alone counts as an array of it, all else is left out.
type objects[T any] []T

func (o *objects[T]) UnmarshalJSON(p []byte) error {
	*o = nil
	items := []json.RawMessage{p}
	if p[0] == '[' {
		items = nil
		if err := json.Unmarshal(p, &items); err != nil {
			return err
		}
	}
	for _, item := range items {
		if item[0] != '{' {
			continue
		}
		var v T
		if err := json.Unmarshal(item, &v); err != nil {
			return err
		}
		*o = append(*o, v)
	}
	return nil
}

// first returns the first object, or the zero value.
func (o objects[T]) first() (v T) {
	if len(o) > 0 {
		v = o[0]
	}
	return v
}

// wireJob is a job as the service sends it. E is what its entities are, of which the reference has an
// array in its example and an object in its table.
type wireJob[E any] struct {
	Status     text       `json:"status"`
	JobID      text       `json:"job_id"`
	JobType    text       `json:"job_type"`
	BeginTime  text       `json:"begin_time"`
	EndTime    text       `json:"end_time"`
	ErrorCode  text       `json:"error_code"`
	FailReason text       `json:"fail_reason"`
	Entities   objects[E] `json:"entities"`
}

// entities are a job's results.
type entities struct {
	subEntities
	Task      text                          `json:"current_task"`
	Results   objects[wireResult]           `json:"results"`
	SubJobs   objects[wireJob[subEntities]] `json:"sub_jobs_result"`
	SubJobIDs list                          `json:"sub_jobs_list"`
}

// subEntities are the results of a job or of a part of one.
type subEntities struct {
	ImageID   text   `json:"image_id"`
	ImageName text   `json:"image_name"`
	Percent   number `json:"process_percent"`
	ErrorCode text   `json:"error_code"`
	ErrorMsg  text   `json:"error_msg"`
}

type wireResult struct {
	ImageID   text `json:"image_id"`
	ProjectID text `json:"project_id"`
	Status    text `json:"status"`
}

// job makes a Job of w, whose entities say e.
func (w wireJob[E]) job(e subEntities) Job {
	j := Job{
		ID: printable(string(w.JobID), 100), Type: printable(string(w.JobType), 100), Status: JobStatus(printable(string(w.Status), 40)),
		Progress: progress(float64(e.Percent)), ImageID: string(e.ImageID), ImageName: printable(string(e.ImageName), 300),
		Code: printable(string(w.ErrorCode), 40), Reason: printable(string(w.FailReason), 1000),
		Begin: parseTime(string(w.BeginTime)), End: parseTime(string(w.EndTime)),
	}
	switch j.Status {
	case JobSuccess:
		j.Progress = 1
	case JobFail:
		// The reference puts code and message of a failed job into entities as well.
		if j.Code == "" {
			j.Code = printable(string(e.ErrorCode), 40)
		}
		if j.Reason == "" {
			j.Reason = printable(string(e.ErrorMsg), 1000)
		}
	}
	return j
}

// decodeJob reads the answer of a job query.
func decodeJob(p []byte) (Job, error) {
	var w wireJob[entities]
	if err := json.Unmarshal(p, &w); err != nil {
		return Job{}, err
	}
	if w.Status == "" {
		return Job{}, errors.New("the job has no status")
	}
	e := w.Entities.first()
	j := w.job(e.subEntities)
	j.Task = printable(string(e.Task), 100)
	for _, r := range e.Results {
		j.Results = append(j.Results, JobResult{printable(string(r.ImageID), 100), printable(string(r.ProjectID), 100), printable(string(r.Status), 40)})
	}
	for _, s := range e.SubJobs {
		j.SubJobs = append(j.SubJobs, s.job(s.Entities.first()))
	}
	for _, id := range e.SubJobIDs {
		j.SubJobIDs = append(j.SubJobIDs, printable(id, 100))
	}
	return j, nil
}

// decodeJobID reads the answer of a call that starts a job.
func decodeJobID(p []byte) (string, error) {
	var w struct {
		JobID text `json:"job_id"`
	}
	if err := json.Unmarshal(p, &w); err != nil {
		return "", err
	}
	if !isID(string(w.JobID)) {
		return "", errors.New("it names no job")
	}
	return string(w.JobID), nil
}

// progress makes a fraction of a process_percent, which the reference shows as 0.20 and documents as a
// percentage.
func progress(v float64) float64 {
	if v > 1 {
		v /= 100
	}
	return min(max(v, 0), 1)
}

// decodeImages reads the answer of the image list.
func decodeImages(p []byte) ([]Image, error) {
	var w struct {
		Images []json.RawMessage `json:"images"`
	}
	if err := json.Unmarshal(p, &w); err != nil {
		return nil, err
	}
	if w.Images == nil {
		return nil, errors.New("the answer holds no list of images")
	}
	images := make([]Image, len(w.Images))
	for i, v := range w.Images {
		var err error
		if images[i], err = parseImage(v); err != nil {
			return nil, err
		}
	}
	return images, nil
}

// decodeImage reads an answer that is one image.
func decodeImage(p []byte) (Image, error) {
	img, err := parseImage(p)
	if err == nil && !isID(img.ID) {
		return Image{}, errors.New("it is no image")
	}
	return img, err
}

// parseImage reads one image, null as the empty one.
func parseImage(p []byte) (Image, error) {
	var w wireImage
	if err := json.Unmarshal(p, &w); err != nil {
		return Image{}, err
	}
	var all map[string]text
	if err := json.Unmarshal(p, &all); err != nil {
		return Image{}, err
	}
	img := w.image()
	for name, v := range all {
		if v == "" || imageFields[name] {
			continue
		}
		if img.Properties == nil {
			img.Properties = make(map[string]string)
		}
		img.Properties[name] = string(v)
	}
	return img, nil
}

type wireImage struct {
	ID          text   `json:"id"`
	Name        text   `json:"name"`
	Status      text   `json:"status"`
	Owner       text   `json:"owner"`
	Visibility  text   `json:"visibility"`
	ImageType   text   `json:"__imagetype"`
	VirtualEnv  text   `json:"virtual_env_type"`
	DiskFormat  text   `json:"disk_format"`
	Description text   `json:"__description"`
	OSVersion   text   `json:"__os_version"`
	OSType      text   `json:"__os_type"`
	OSBit       text   `json:"__os_bit"`
	Platform    text   `json:"__platform"`
	Firmware    text   `json:"hw_firmware_type"`
	ImageSize   text   `json:"__image_size"`
	MinDisk     number `json:"min_disk"`
	MinRAM      number `json:"min_ram"`
	MaxRAM      number `json:"max_ram"`
	WholeImage  flag   `json:"__whole_image"`
	// The reference writes it with one underscore in the middle, clients with two.
	CMKID      text `json:"__system__cmkid"`
	CMKIDDoc   text `json:"__system_cmkid"`
	Enterprise text `json:"enterprise_project_id"`
	Protected  flag `json:"protected"`
	Tags       list `json:"tags"`
	CreatedAt  text `json:"created_at"`
	UpdatedAt  text `json:"updated_at"`
	ActiveAt   text `json:"active_at"`
}

// imageFields are the names of the attributes that have a field in Image.
var imageFields = jsonNames(reflect.TypeFor[wireImage]())

// jsonNames returns the names of a struct's fields in JSON.
func jsonNames(t reflect.Type) map[string]bool {
	names := make(map[string]bool, t.NumField())
	for i := range t.NumField() {
		names[t.Field(i).Tag.Get("json")] = true
	}
	return names
}

func (w wireImage) image() Image {
	size, err := strconv.ParseInt(string(w.ImageSize), 10, 64)
	if err != nil || size < 0 {
		size = 0
	}
	return Image{
		ID: string(w.ID), Name: string(w.Name), Status: string(w.Status), Owner: string(w.Owner),
		Visibility: string(w.Visibility), ImageType: string(w.ImageType), VirtualEnv: string(w.VirtualEnv),
		DiskFormat: string(w.DiskFormat), Description: string(w.Description), OSVersion: string(w.OSVersion),
		OSType: string(w.OSType), OSBit: string(w.OSBit), Platform: string(w.Platform), Firmware: string(w.Firmware),
		Size: size, MinDisk: count(w.MinDisk), MinRAM: count(w.MinRAM), MaxRAM: count(w.MaxRAM), WholeImage: bool(w.WholeImage),
		CMKID: first(w.CMKID, w.CMKIDDoc), EnterpriseProjectID: string(w.Enterprise), Protected: bool(w.Protected), Tags: w.Tags,
		Created: parseTime(string(w.CreatedAt)), Updated: parseTime(string(w.UpdatedAt)), Activated: parseTime(string(w.ActiveAt)),
	}
}

// count makes a small whole number of n; what is none is 0.
func count(n number) int {
	if n < 0 || n > math.MaxInt32 {
		return 0
	}
	return int(n)
}

// parseTime reads the times of the service: "2018-09-06T14:03:27Z", with or without a fraction, and
// "04-Jun-2015 18:11:06:586" of jobs, all UTC. What is none of them is the zero time.
func parseTime(s string) time.Time {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t.UTC()
	}
	// The colon before the milliseconds is beyond package time.
	if i := strings.LastIndexByte(s, ':'); i > 0 && strings.Count(s, ":") == 3 {
		s = s[:i] + "." + s[i+1:]
	}
	for _, layout := range []string{"02-Jan-2006 15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04:05"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t
		}
	}
	return time.Time{}
}

// decodeError reads code, message and request id from the body of a refusal, in both shapes the
// reference has and in those of the gateway and of native calls. A body that is no such JSON gives its
// beginning as the message.
func decodeError(p []byte) (code, message, requestID string) {
	var w struct {
		ErrorCode text            `json:"error_code"`
		ErrorMsg  text            `json:"error_msg"`
		Code      text            `json:"code"`
		Message   text            `json:"message"`
		RequestID text            `json:"request_id"`
		Error     json.RawMessage `json:"error"`
	}
	var nested struct {
		Code    text `json:"code"`
		Message text `json:"message"`
	}
	if json.Unmarshal(p, &w) != nil {
		return "", printable(string(p), maxExcerpt), ""
	}
	if len(w.Error) > 0 && w.Error[0] == '{' {
		if json.Unmarshal(w.Error, &nested) != nil {
			return "", printable(string(p), maxExcerpt), ""
		}
	}
	code = first(w.ErrorCode, nested.Code, w.Code)
	message = first(w.ErrorMsg, nested.Message, w.Message)
	requestID = printable(string(w.RequestID), 100)
	if code == "" && message == "" {
		return "", printable(string(p), maxExcerpt), requestID
	}
	return printable(code, 40), printable(message, 1000), requestID
}

func first(texts ...text) string {
	for _, t := range texts {
		if t != "" {
			return string(t)
		}
	}
	return ""
}

// maxExcerpt is how much of an unreadable body a message shows, in characters.
const maxExcerpt = 200

// printable returns at most n characters of s, each run of blanks and unprintable characters as one
// space: text of a server must not move a terminal's cursor.
func printable(s string, n int) string {
	var b strings.Builder
	gap := false
	for _, r := range s {
		if !unicode.IsGraphic(r) || unicode.IsSpace(r) || r == unicode.ReplacementChar {
			gap = b.Len() > 0
			continue
		}
		if gap {
			if n--; n <= 0 {
				break
			}
			b.WriteByte(' ')
			gap = false
		}
		if n--; n < 0 {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}

// unreadable is the error for an answer that should have been JSON.
func unreadable(body []byte, err error) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return errors.New("the answer is empty")
	}
	return fmt.Errorf("the answer can't be read: %v; it begins %q", err, printable(string(body), maxExcerpt))
}
