package profile_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"imgferry/profile"
)

// FuzzLoad: whatever the file holds, it is refused as malformed, or it can be changed and reads back as
// it was.
func FuzzLoad(f *testing.F) {
	for _, seed := range []string{
		"", "current: a\nprofiles:\n  a:\n    region: r\n    sk: 'x: y'\n", "profiles: {a: {ak: 1}, b: }", "{current: , profiles: {}}",
		"&a profiles: {}", "profiles: {a: {sk: !!binary aGk=}}", "profiles:\n  a:\n    user: |\n      x\n", "? current\n: a",
	} {
		f.Add([]byte(seed))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(dir, "config.yaml")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := profile.Load(path)
		if err != nil {
			if !errors.Is(err, profile.ErrFile) {
				t.Fatal(err)
			}
			return
		}
		before := make(map[string]string)
		for _, name := range file.Names() {
			for _, key := range profile.Keys() {
				before[name+"/"+key] = file.Get(name, key)
			}
		}
		if err := file.Set("added", profile.Bucket, "the-bucket"); err != nil {
			t.Fatal(err)
		}
		if err := file.Save(); err != nil {
			t.Fatal(err)
		}
		again, err := profile.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		if again.Get("added", profile.Bucket) != "the-bucket" || again.Current() != file.Current() {
			t.Fatal("what was set is lost")
		}
		for _, name := range again.Names() {
			for _, key := range profile.Keys() {
				if was, known := before[name+"/"+key]; known && name+"/"+key != "added/bucket" && again.Get(name, key) != was {
					t.Fatalf("%s of %s was %q and is %q", key, name, was, again.Get(name, key))
				}
			}
		}
	})
}
