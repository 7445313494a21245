package imageservice_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgferry/convert"
	"imgferry/formats"
	"imgferry/formats/all"
	"imgferry/formats/formatstest"
	"imgferry/formats/raw"
)

// writeAs returns a disk as a file of a format.
func writeAs(t testing.TB, format string, d []byte) []byte {
	t.Helper()
	target, err := convert.TargetByName(format)
	if err != nil {
		t.Fatal(err)
	}
	settings, err := target.Settings(nil)
	if err != nil {
		t.Fatal(err)
	}
	img, err := raw.Format().Open(t.Context(), formatstest.NewSource(d), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	name := filepath.Join(t.TempDir(), "disk")
	f, err := convert.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Discard()
	if _, err := target.Write(t.Context(), img, f, settings, convert.Options{Workers: 1}); err != nil {
		t.Fatal(err)
	}
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	p, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// digestOf returns the content digest of an image file, and its format.
func digestOf(t testing.TB, p []byte) (convert.Digest, string) {
	t.Helper()
	src := formatstest.NewSource(p)
	f, err := formats.Detect(all.Table(), src)
	if err != nil {
		t.Fatal(err)
	}
	img, err := f.Open(t.Context(), src, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	r, err := convert.Scan(t.Context(), img, convert.Options{Workers: 1, Digest: true})
	if err != nil {
		t.Fatal(err)
	}
	return r.Digest, f.Name
}

// object returns what the store has.
func (c *cloud) object(t testing.TB, key string) []byte {
	t.Helper()
	src, err := c.OpenObject(t.Context(), bucketName, key)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	p := make([]byte, src.Size())
	if err := formats.ReadFull(src, p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestExportFormats exports an image in every format, and imports each of the files again.
func TestExportFormats(t *testing.T) {
	c := newCloud(t)
	d := disk(9<<20+512, 0, 3, 4)
	c.put("in.zvhd2", encode(t, d))
	want, _ := digestOf(t, d)
	id := c.makes(t, "/v2/cloudimages/quickimport/action", `{"name":"in","image_url":"images:in.zvhd2","os_version":"CentOS 7.0 64bit","min_disk":1}`)
	c.put("in.zvhd2", nil) // the image has the data, not the object
	for format, is := range map[string]string{"qcow2": "qcow2", "vhd": "vpc", "zvhd": "zvhd", "vmdk": "vmdk", "": "zvhd2"} {
		key := "out." + format
		body := `{"bucket_url":"images:` + key + `","file_format":"` + format + `"}`
		if format == "" {
			body = `{"bucket_url":"images:` + key + `","is_quick_export":true}`
		}
		c.succeeds(t, "POST", "/v1/cloudimages/"+id+"/file", body)
		if got, name := digestOf(t, c.object(t, key)); got != want || name != is {
			t.Errorf("%s: %s of %s, want %s of %s", format, got, name, want, is)
		}
		again := c.makes(t, "/v2/cloudimages/action", `{"name":"again","image_url":"images:`+key+`","os_version":"CentOS 7.0 64bit","min_disk":40}`)
		_, _, file := c.send(t, "GET", "/v2/images/"+again+"/file", "")
		if got, _ := digestOf(t, []byte(file)); got != want {
			t.Errorf("%s: imported as %s, want %s", format, got, want)
		}
	}
}

// TestImportFormats imports an image of every format that the service takes (reference, 5.1.7), made by
// qemu-img or, where that doesn't know the format, by our own writers; in every way there is.
func TestImportFormats(t *testing.T) {
	c := newCloud(t)
	d := disk(6<<20, 0, 2)
	want, _ := digestOf(t, d)
	files := map[string][]byte{"raw": d, "zvhd2": encode(t, d), "zvhd": writeAs(t, "zvhd", d)}
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, d, 0o600); err != nil {
		t.Fatal(err)
	}
	for format, option := range map[string]string{"qcow2": "", "qcow": "", "qed": "", "vdi": "", "vhdx": "", "vpc": "force_size=on", "vmdk": ""} {
		name := filepath.Join(dir, format)
		args := []string{"convert", "-f", "raw", "-O", format}
		if option != "" {
			args = append(args, "-o", option)
		}
		formatstest.Tool(t, "qemu-img", append(args, plain, name)...)
		p, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files[format] = p
	}
	for format, p := range files {
		c.put(format, p)
		var queued struct{ ID string }
		c.call(t, "POST", "/v2/images", `{"name":"registered"}`, 201, &queued)
		var sent struct{ ID string }
		c.call(t, "POST", "/v2/images", `{"name":"uploaded"}`, 201, &sent)
		c.succeeds(t, "PUT", "/v1/cloudimages/"+queued.ID+"/upload", `{"image_url":"images:`+format+`"}`)
		status, _, answer := c.send(t, "PUT", "/v2/images/"+sent.ID+"/file", string(p), func(r *http.Request) { r.Header.Set("Content-Type", "application/octet-stream") })
		if status != 204 {
			t.Errorf("%s: upload: %d %s", format, status, answer)
		}
		for way, id := range map[string]string{
			"system": c.makes(t, "/v2/cloudimages/action", `{"name":"s","image_url":"images:`+format+`","os_version":"CentOS 7.0 64bit","min_disk":40}`),
			"data":   c.makes(t, "/v1/cloudimages/dataimages/action", `{"name":"d","image_url":"images:`+format+`","min_disk":40}`), "registered": queued.ID, "uploaded": sent.ID,
		} {
			_, _, file := c.send(t, "GET", "/v2/images/"+id+"/file", "")
			if got, _ := digestOf(t, []byte(file)); got != want {
				t.Errorf("%s, %s: %s, want %s", format, way, got, want)
			}
			if img, err := c.client.Image(t.Context(), id); err != nil || img.DiskFormat != strings.Replace(format, "vpc", "vhd", 1) || img.Status != "active" {
				t.Errorf("%s, %s: %s %s, %v", format, way, img.DiskFormat, img.Status, err)
			}
		}
	}
}
