package qcow2_test

import (
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/qcow2"
)

// FuzzOpen opens, walks and reads whatever it is given. Besides panics and hangs it looks for
// contradictions: between Info and Open, between Check and Open, between extents and content, and
// between two ways to read.
func FuzzOpen(f *testing.F) {
	// Small seeds only: the fuzzer spends its time on minimising large ones.
	f.Add([]byte(tiny(2)))
	f.Add([]byte(tiny(3).u64(tinyL2, 1).u64(tinyL2+8, 0)))
	f.Add([]byte(tiny(3).str(tinyData, deflated(512)).u64(tinyL2, 1<<62|tinyData)))
	f.Add([]byte(tiny(3).zstd().str(tinyData, "\x28\xb5\x2f\xfd\x60\x00\x01\x4c\x00\x00\x08aa\x01\x00\x47\x15").u64(tinyL2, 1<<62|tinyData)))
	f.Add([]byte(tiny(3).ext(tinyExt, 0x6803f857, string(make([]byte, 96))).u64(72, 1<<9)))
	f.Add([]byte(backed()))
	f.Add([]byte(withDataFile(2)))
	f.Add([]byte(snapshotted()))
	f.Add([]byte(counted16()))
	f.Add([]byte(subclustered()[:3*subCluster+600]))

	// The files that images may name. Which disks are in them is not this target's business.
	files := askedFor(map[string][]byte{"base": formatstest.Noise(3, 700), "data": formatstest.Noise(4, tinyCount*tinyCluster)})
	f.Fuzz(func(t *testing.T, p []byte) {
		formatstest.Fuzzed{
			Format: qcow2.Format(), Source: func() formats.Source { return formatstest.NewSource(p) }, Resolver: files, Budget: 4 << 20,
			CheckVerifies: len(p) < 80 || p[79]&4 == 0, // the check doesn't look into external data files
		}.Run(t)
	})
}

// counted16 is a tiny image whose refcounts are right.
func counted16() imageBytes {
	p := tiny(3).more(2).u64(48, tinySnap).u64(tinySnap, tinySnap+512)
	for i := range len(p) / 512 {
		p[tinySnap+512+2*i+1] = 1
	}
	return p
}
