//go:build conformance

package conformance

import (
	"context"
	"hash/fnv"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"imgferry/formats/all"
	"imgferry/pipeline"
)

// TestConformance runs all cases.
func TestConformance(t *testing.T) {
	list := cases()
	count, caught := map[string]int{}, map[string]bool{}
	for _, c := range list {
		count[c.format]++
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			seed := fnv.New64a()
			seed.Write([]byte(c.name))
			k := c.make(maker{t, dir, rand.New(rand.NewPCG(seed.Sum64(), 1))})
			q := ask(t, dir, k)
			o := pipeline.Opener{Table: all.Table(), Allow: []string{dir}, BackingFormat: k.backingFormat, Snapshot: k.snapshot}
			img, err := o.Open(context.Background(), filepath.Join(dir, k.path), formatFlag(k.format))
			if err != nil {
				t.Fatal(err)
			}
			defer img.Close()
			if img.Format != k.format {
				t.Errorf("detected %s, made %s", img.Format, k.format)
			}
			if err := q.check(img); err != nil {
				t.Error(err)
			}
			if c.broken && !t.Failed() {
				caught[c.format] = true
				expectCaught(t, img, q)
			}
		})
	}
	t.Logf("%d cases: %v", len(list), count)
	if len(list) < 300 {
		t.Errorf("only %d cases", len(list))
	}
	for format, n := range count {
		if n < 15 || !caught[format] {
			t.Errorf("%s: %d cases, broken readers tried: %v", format, n, caught[format])
		}
	}
}

// formatFlag is what a user has to say: nothing, but for raw disks, whose content may be anything.
func formatFlag(format string) string {
	if format == "raw" {
		return "raw"
	}
	return ""
}
