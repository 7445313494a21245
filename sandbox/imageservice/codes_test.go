package imageservice_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"imgferry/formats"
	"imgferry/ims"
	"imgferry/limits"
	"imgferry/sandbox/imageservice"

	"context"
)

// attempt is a request that is refused, or begins a job that fails, with a code.
type attempt struct {
	method, path, body string
	as                 string                       // the project, if not the first
	before             func(*testing.T, *codeWorld) // what must have happened, or nil
}

// codeWorld is where the attempts are made: what a name in braces stands for.
type codeWorld struct {
	*cloud
	names map[string]string
}

const (
	action  = "/v2/cloudimages/action"
	quickly = "/v2/cloudimages/quickimport/action"
	wholly  = "/v1/cloudimages/wholeimages/action"
	members = "/v1/cloudimages/members"
)

// post is an attempt to make an image; fields are added to a good body of that kind.
func post(path, good, change string) attempt {
	m := make(map[string]any)
	for _, s := range []string{good, change} {
		if err := json.Unmarshal([]byte(s), &m); err != nil {
			panic(err)
		}
	}
	p, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return attempt{method: "POST", path: path, body: string(p)}
}

const (
	goodQuick  = `{"name":"n","os_version":"CentOS 7.0 64bit","image_url":"images:centos70.zvhd2","min_disk":40}`
	goodCreate = `{"name":"n","os_version":"CentOS 7.0 64bit","image_url":"images:centos70.qcow2","min_disk":40}`
	goodVolume = `{"name":"n","os_version":"CentOS 7.0 64bit","volume_id":"{volume}"}`
	goodServer = `{"name":"n","instance_id":"{instance}"}`
	goodWhole  = `{"name":"n","instance_id":"{instance}","vault_id":"v"}`
	goodBackup = `{"name":"n","backup_id":"{backup1}","whole_image_type":"CBR"}`
	goodAway   = `{"name":"n","region":"region-2","project_name":"project-1","agency_name":"a"}`
)

func quicklyWith(change string) attempt { return post(quickly, goodQuick, change) }
func create(change string) attempt      { return post(action, goodCreate, change) }
func copying(of, body string) attempt {
	return attempt{method: "POST", path: "/v1/cloudimages/" + of + "/copy", body: body}
}
func away(of, change string) attempt {
	a := post("/v1/cloudimages/"+of+"/cross_region_copy", goodAway, change)
	return a
}
func exporting(of, body string) attempt {
	return attempt{method: "POST", path: "/v1/cloudimages/" + of + "/file", body: body}
}
func sharing(of string, with ...string) attempt {
	return attempt{method: "POST", path: members, body: fmt.Sprintf(`{"images":["%s"],"projects":["%s"]}`, of, strings.Join(with, `","`))}
}
func patching(body string) attempt {
	return attempt{method: "PATCH", path: "/v2/cloudimages/{active}", body: body}
}

// arising are the codes of the reference's appendix B that the service answers with, and how.
var arising = map[limits.Code]attempt{
	"IMG.0001": {method: "POST", path: quickly, body: "["},
	"IMG.0002": quicklyWith(`{"name":"` + strings.Repeat("n", 129) + `"}`),
	"IMG.0003": quicklyWith(`{"name":" n"}`),
	"IMG.0004": quicklyWith(`{"description":"` + strings.Repeat("d", 1025) + `"}`),
	"IMG.0005": post(action, goodServer, `{"instance_id":"unknown"}`),
	"IMG.0007": {method: "POST", path: action},
	"IMG.0012": post(action, `{"name":"n"}`, `{}`),
	"IMG.0013": quicklyWith(`{"name":""}`),
	"IMG.0015": {method: "POST", path: "/v2/images", body: `{}`, before: func(t *testing.T, w *codeWorld) {
		for range 60 {
			if status, _, _ := w.send(t, "POST", "/v2/images", `{"name":"one more"}`); status != 201 {
				return
			}
		}
	}},
	"IMG.0017": quicklyWith(`{"image_url":"images"}`),
	"IMG.0019": post(wholly, `{"name":"n","whole_image_type":"CBR"}`, `{}`),
	"IMG.0020": post(wholly, goodBackup, `{"backup_id":"unknown"}`),
	"IMG.0024": quicklyWith(`{"type":"VM"}`),
	"IMG.0027": copying("unknown", `{"name":"n"}`),
	"IMG.0028": {method: "DELETE", path: "/v2/images/{other}", before: func(t *testing.T, w *codeWorld) {
		w.call(t, "PATCH", "/v2/images/"+w.names["other"], `[{"op":"replace","path":"/protected","value":true}]`, 200)
	}},
	"IMG.0029": post(wholly, `{"name":"n","backup_id":"b4"}`, `{}`),
	"IMG.0030": {method: "PUT", path: members, body: `{"images":["{active}"],"project_id":"{friend}","status":"accepted"}`},
	"IMG.0035": patching(`[{"op":"add","path":"/__support_xen","value":"true"},{"op":"add","path":"/__support_kvm_infiniband","value":"true"}]`),
	"IMG.0046": {method: "PATCH", path: "/v2/cloudimages/{queued}", body: `[{"op":"replace","path":"/name","value":"n"}]`},
	"IMG.0047": {method: "PATCH", path: "/v2/cloudimages/{shared}", body: `[{"op":"replace","path":"/name","value":"n"}]`, as: friend},
	"IMG.0054": quicklyWith(`{"description":"<"}`),
	"IMG.0055": quicklyWith(`{"min_disk":1025}`),
	"IMG.0056": create(`{"os_version":"\u0007"}`),
	"IMG.0057": quicklyWith(`{"image_url":"images:nothing"}`),
	"IMG.0059": create(`{"image_url":"images:huge"}`),
	"IMG.0060": {method: "POST", path: quickly, body: goodQuick, before: func(t *testing.T, w *codeWorld) {
		w.gate("slow", encode(t, disk(1<<20, 0)))
		for range 11 {
			status, _, _ := w.send(t, "POST", quickly, strings.Replace(goodQuick, "centos70.zvhd2", "slow", 1))
			if status != 200 {
				return
			}
		}
	}},
	"IMG.0061": quicklyWith(`{"image_url":"images:panic"}`),
	"IMG.0067": {method: "GET", path: "/v1/other/jobs/x"},
	"IMG.0068": quicklyWith(`{"image_url":":x"}`),
	"IMG.0069": exporting("{active}", `{"bucket_url":"elsewhere:x","file_format":"qcow2"}`),
	"IMG.0070": exporting("{active}", `{"bucket_url":"images:x.raw","file_format":"qcow2"}`),
	"IMG.0072": exporting("{active}", `{"bucket_url":"images:new","file_format":"raw"}`),
	"IMG.0073": exporting("{active}", `{"bucket_url":"images:","file_format":"qcow2"}`),
	"IMG.0074": exporting("{active}", `{"bucket_url":"images:`+strings.Repeat("x", 1025)+`","file_format":"qcow2"}`),
	"IMG.0075": quicklyWith(`{"image_url":"images:a//b"}`),
	"IMG.0076": sharing("{active}", "{project}"),
	"IMG.0080": exporting("{whole}", `{"bucket_url":"images:new","file_format":"qcow2"}`),
	"IMG.0088": sharing("{active}", many(129)...),
	"IMG.0090": {method: "DELETE", path: "/v2/images/{slow}", before: func(t *testing.T, w *codeWorld) {
		w.gate("slow", encode(t, disk(1<<20, 0)))
		var a struct {
			ID string `json:"job_id"`
		}
		w.call(t, "POST", quickly, strings.Replace(goodQuick, "centos70.zvhd2", "slow", 1), 200, &a)
		job, err := w.client.Job(t.Context(), a.ID)
		if err != nil {
			t.Fatal(err)
		}
		w.names["slow"] = job.ImageID
	}},
	"IMG.0092": {method: "DELETE", path: "/v2/images/{shared}", as: friend},
	"IMG.0095": create(`{"cmk_id":"unknown"}`),
	"IMG.0096": copying("{rich}", `{"name":"n","cmk_id":"k"}`),
	"IMG.0098": sharing("{rich}", "{friend}"),
	"IMG.0105": patching(`[{"op":"replace","path":"/status","value":"killed"}]`),
	"IMG.0109": quicklyWith(`{"image_url":"I:x"}`),
	"IMG.0115": quicklyWith(`{"tags":["a b.c"]}`),
	"IMG.0116": quicklyWith(`{"tags":["` + strings.Join(many(21), `","`) + `"]}`),
	"IMG.0117": create(`{"type":"VM"}`),
	"IMG.0118": create(`{"type":"BMS","cmk_id":"k"}`),
	"IMG.0119": post(action, goodServer, `{"instance_id":"bare"}`),
	"IMG.0120": post(action, goodVolume, `{"volume_id":"unknown"}`),
	"IMG.0121": {method: "GET", path: "/v1/cloudimages/job/x"},
	"IMG.0122": create(`{"os_type":"BeOS"}`),
	"IMG.0123": create(`{"data_images":[{"image_url":"images:centos70.qcow2","min_disk":1}]}`),
	"IMG.0128": exporting("{wholeServer}", `{"bucket_url":"images:new","file_format":"qcow2"}`),
	"IMG.0130": copying("{whole}", `{"name":"n"}`),
	"IMG.0135": sharing("{wholeServer}", "{friend}"),
	"IMG.0140": post(action, `{}`, `{"data_images":[{"name":"a","volume_id":"{volume}"},{"name":"b","volume_id":"lonely"}]}`),
	"IMG.0141": quicklyWith(`{"hw_firmware_type":"x"}`),
	"IMG.0142": away("{active}", `{"region":"region-1"}`),
	"IMG.0143": away("{rich}", `{}`),
	"IMG.0145": away("{active}", `{"project_name":"other"}`),
	"IMG.0146": away("{big}", `{}`),
	"IMG.0147": away("{active}", `{"region":"nowhere"}`),
	"IMG.0148": {method: "POST", path: "/v1/cloudimages/{active}/file", body: `{"bucket_url":"images:new2","file_format":"qcow2"}`, before: func(t *testing.T, w *codeWorld) {
		w.stall(t)
		w.call(t, "POST", "/v1/cloudimages/"+w.names["active"]+"/file", `{"bucket_url":"images:new","file_format":"qcow2"}`, 200)
	}},
	"IMG.0149": {method: "POST", path: "/v1/cloudimages/{active}/cross_region_copy", body: goodAway, before: func(t *testing.T, w *codeWorld) {
		w.stall(t)
		for range 5 {
			w.call(t, "POST", "/v1/cloudimages/"+w.names["active"]+"/cross_region_copy", goodAway, 200)
		}
	}},
	"IMG.0151": away("{active}", `{"agency_name":""}`),
	"IMG.0158": quicklyWith(`{"image_url":"images:centos70.qcow2"}`),
	"IMG.0159": quicklyWith(`{"os_version":""}`),
	"IMG.0160": exporting("{big}", `{"bucket_url":"images:new","file_format":"qcow2"}`),
	"IMG.0166": create(`{"image_url":"images:centos70.iso","os_version":"","type":"IsoImage"}`),
	"IMG.0167": copying("{iso}", `{"name":"n"}`),
	"IMG.0175": quicklyWith(`{"image_url":"images:a b"}`),
	"IMG.0184": post(wholly, goodWhole, `{"vault_id":""}`),
	"IMG.0190": post(wholly, goodBackup, `{"whole_image_type":"CSBS"}`),
	"IMG.0194": create(`{"data_images":[{},{},{},{}]}`),
	"IMG.0196": {method: "POST", path: "/v1/cloudimages/{shared}/copy", body: `{"name":"n"}`, as: friend},
	"IMG.0197": {method: "POST", path: "/v1/cloudimages/{accepted}/copy", body: `{"name":"n","cmk_id":"k"}`, as: friend},
	"IMG.0212": quicklyWith(`{"architecture":"arm64"}`),
	"IMG.1075": {method: "PUT", path: "/v1/cloudimages/{active}/upload", body: `{"image_url":"images:x.raw"}`},
}

// many returns different names.
func many(n int) []string {
	var all []string
	for i := range n {
		all = append(all, "p"+strconv.Itoa(i))
	}
	return all
}

// Why a code can't arise.
const (
	noPower   = "a declared server is files: it neither runs nor has tasks"
	noStates  = "declared disks, backups and vaults have no states"
	noPublic  = "there are no public, charged or marketplace images"
	noIAM     = "the sandbox is its own identity service, and answers 401 of the gateway instead"
	noOBS     = "the store is in the same process, and open to the account"
	noKMS     = "keys are declared: they have no states and no owners"
	noAccount = "the one account is allowed everything, and pays nothing"
	noReplace = "images are not replaced by others: the reference has no such call"
	noTitle   = "the reference has no call for titles"
	inside    = "a failure inside the cloud, which is one process here"
	older     = "of services that the reference has no call for"
)

// absent are the codes that can't arise, with the reason.
var absent = map[limits.Code]string{
	"IMG.0006": noPower, "IMG.0008": noPower, "IMG.0010": noPower, "IMG.0022": noStates, "IMG.0032": noStates, "IMG.0063": noPower,
	"IMG.0009": "names need not differ: the list finds several by one name", "IMG.0011": "no request has forceCreate",
	"IMG.0014": inside, "IMG.0016": inside, "IMG.0018": inside, "IMG.0023": inside, "IMG.0036": noIAM, "IMG.0037": noIAM,
	"IMG.0021": "IMG.0012 says that no source is given", "IMG.0025": "no request has a user type",
	"IMG.0026": noAccount, "IMG.0031": "each kind of id has a code of its own",
	"IMG.0033": "a backup's first disk is its system disk, by declaration", "IMG.0034": "no request has a number of images",
	"IMG.0038": noOBS, "IMG.0039": noOBS, "IMG.0040": noOBS, "IMG.0041": noIAM, "IMG.0045": noPublic, "IMG.0053": noIAM,
	"IMG.0058": "the store has one region", "IMG.0062": "IMG.0002, 0003 and 0013 say what is wrong with a name",
	"IMG.0064": noIAM, "IMG.0065": noIAM, "IMG.0066": "IMG.0027 says so", "IMG.0071": "IMG.0080, 0128 and 0167 say why",
	"IMG.0077": noPublic, "IMG.0079": noPublic, "IMG.0081": "contradicts 5.1.8: images from files may be exported",
	"IMG.0083": noPublic, "IMG.0084": noPublic, "IMG.0085": noPublic, "IMG.0086": "IMG.0027 says so", "IMG.0087": noIAM, "IMG.0089": noPublic,
	"IMG.0094": noPublic, "IMG.0097": noKMS, "IMG.0099": noKMS, "IMG.0100": noKMS, "IMG.0101": noKMS, "IMG.0102": noKMS, "IMG.0103": noKMS,
	"IMG.0104": "a region has one project, named in its declaration", "IMG.0106": "IMG.0047 says so",
	"IMG.0108": "any project may be named: the sandbox knows only its own", "IMG.0110": noStates, "IMG.0111": "IMG.0055 says so",
	"IMG.0112": inside, "IMG.0113": inside, "IMG.0114": inside, "IMG.0125": noPublic, "IMG.0126": noPower, "IMG.0136": noPower, "IMG.0137": inside,
	"IMG.0138": inside, "IMG.0139": noPower, "IMG.0144": "IMG.0027 says so", "IMG.0150": older, "IMG.0152": older, "IMG.0153": older, "IMG.0154": older,
	"IMG.0157": "IMG.0024 and 0117 say so", "IMG.0161": noTitle, "IMG.0162": noTitle, "IMG.0163": noTitle, "IMG.0164": noPower,
	"IMG.0168": noReplace, "IMG.0169": noReplace, "IMG.0170": noReplace, "IMG.0171": noReplace, "IMG.0172": noReplace, "IMG.0173": noReplace,
	"IMG.0174": noReplace, "IMG.0176": "declared backups stay", "IMG.0177": older, "IMG.0178": older, "IMG.0179": older, "IMG.0180": noStates, "IMG.0181": inside,
	"IMG.0182": noStates, "IMG.0183": noStates, "IMG.0185": noStates, "IMG.0187": noKMS, "IMG.0188": noStates, "IMG.0189": noStates, "IMG.0191": older,
	"IMG.0192": older, "IMG.0193": noStates, "IMG.0195": "a whole-server image without os_version is taken for other Linux",
	"IMG.0198": "IMG.0020 and 0190 say so", "IMG.0238": noAccount, "IMG.0239": noAccount, "IMG.0241": noAccount, "IMG.0242": noAccount,
}

// TestCodes makes every code arise that is said to, and sees that every code of the reference is either that
// or has a reason why not.
func TestCodes(t *testing.T) {
	for _, code := range limits.Codes() {
		_, is := arising[code]
		if _, not := absent[code]; is == not {
			t.Errorf("%s %s: is in %v of the two tables", code, code.Text(), is)
		}
	}
	t.Logf("%d codes arise, %d can't", len(arising), len(absent))
	c, names := newWorld(t)
	w := &codeWorld{c, names}
	w.prepare(t)
	fresh := []limits.Code{"IMG.0015", "IMG.0060", "IMG.0090", "IMG.0148", "IMG.0149"} // these leave jobs behind, or no room
	for code, a := range arising {
		if !slices.Contains(fresh, code) {
			w.try(t, code, a)
		}
	}
	for _, code := range fresh {
		t.Run(string(code), func(t *testing.T) {
			c, names := newWorld(t, func(cfg *imageservice.Config) { cfg.Quota, cfg.MaxJobs = 60, 10 })
			(&codeWorld{c, names}).try(t, code, arising[code])
		})
	}
}

// prepare adds what only the codes need to the world.
func (w *codeWorld) prepare(t *testing.T) {
	t.Helper()
	w.names["iso"] = w.makes(t, action, `{"name":"iso","image_url":"images:centos70.iso","os_version":"CentOS 7.0 64bit","min_disk":40}`)
	w.names["wholeServer"] = w.makes(t, wholly, strings.Replace(goodWhole, "{instance}", w.names["instance"], 1))
	for _, name := range []string{"shared", "accepted"} {
		w.names[name] = w.makes(t, quickly, goodQuick)
		w.call(t, "POST", "/v2/images/"+w.names[name]+"/members", `{"member":"`+friend+`"}`, 200)
	}
	if status, _, body := w.send(t, "PUT", "/v2/images/"+w.names["accepted"]+"/members/"+friend, `{"status":"accepted"}`, in(t, friend)); status != 200 {
		t.Fatal(body)
	}
	w.source("huge", func(context.Context) (formats.Source, error) { return sparse{size: 129 << 30}, nil })
	w.source("panic", func(context.Context) (formats.Source, error) { panic("boom") })
	w.source("big.raw", func(context.Context) (formats.Source, error) { return sparse{size: 129 << 30}, nil })
	w.put("big.mf", make([]byte, 3*4096))
	w.names["big"] = w.makes(t, quickly, `{"name":"big","image_url":"images:big.raw","os_version":"CentOS 7.0 64bit","min_disk":200}`)
}

// stall takes both turns that jobs wait for.
func (w *codeWorld) stall(t *testing.T) {
	t.Helper()
	w.gate("slow", encode(t, disk(1<<20, 0)))
	for range 2 {
		w.call(t, "POST", quickly, strings.Replace(goodQuick, "centos70.zvhd2", "slow", 1), 200)
	}
	for t.Context().Err() == nil {
		if saving, err := w.client.Images(t.Context(), map[string][]string{"status": {"saving"}}); err != nil || len(saving) == 2 {
			return
		}
	}
}

func (w *codeWorld) try(t *testing.T, code limits.Code, a attempt) {
	t.Helper()
	if a.before != nil {
		a.before(t, w)
	}
	var pairs []string
	for name, v := range w.names {
		pairs = append(pairs, "{"+name+"}", v)
	}
	fill := strings.NewReplacer(pairs...).Replace
	var alter []func(*http.Request)
	if a.as != "" {
		alter = append(alter, in(t, a.as))
	}
	if code == "IMG.0095" {
		w = withKeys(t, w)
	}
	status, _, answer := w.send(t, a.method, fill(a.path), fill(a.body), alter...)
	var got struct {
		Code  limits.Code `json:"error_code"`
		Text  string      `json:"error_msg"`
		Job   string      `json:"job_id"`
		Error struct {
			Code    limits.Code
			Message string
		}
	}
	if err := json.Unmarshal([]byte(answer), &got); err != nil {
		t.Errorf("%s: %d %s", code, status, answer)
		return
	}
	text := got.Text
	if strings.HasPrefix(a.path, "/v2/images") { // OpenStack's clients fail on anything beside the object
		got.Code, text = got.Error.Code, got.Error.Message
		if strings.Contains(answer, "error_code") {
			t.Errorf("%s: %s", code, answer)
		}
	}
	if status == 200 && got.Job != "" {
		j := w.ends(t, got.Job, alter...)
		if j.Status != ims.JobFail {
			t.Errorf("%s: the job is %s", code, j.Status)
		}
		if code == "IMG.0057" && j.Progress != 0 { // nothing was read
			t.Errorf("%s: the job failed at %v", code, j.Progress)
		}
		got.Code, got.Error.Code, text = limits.Code(j.Code), limits.Code(j.Code), j.Reason
	}
	if got.Code != code || got.Error.Code != code || !strings.HasPrefix(text, code.Text()+" ") {
		t.Errorf("%s: %d %s", code, status, answer)
	}
}

// withKeys returns a world where keys are declared.
func withKeys(t *testing.T, w *codeWorld) *codeWorld {
	t.Helper()
	c := newCloud(t, func(cfg *imageservice.Config) { cfg.Resources.Keys = []string{"k"} })
	return &codeWorld{c, w.names}
}
