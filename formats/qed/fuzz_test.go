package qed_test

import (
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/qed"
)

func FuzzOpen(f *testing.F) {
	f.Add([]byte(tiny()))
	f.Add([]byte(tiny().u64(tinyL2, 1).u64(tinyL2+8, 0)))
	f.Add([]byte(tiny().u64(48, (tinyEntries+2)*tinyCluster).u64(tinyL1+8, tinyL2).u64(tinyL1, 0)))
	f.Add([]byte(tiny().backing("base", 2|4)))
	f.Add([]byte(tiny().u32(8, 1).u64(tinyL2, tinyL1)))
	f.Fuzz(func(t *testing.T, p []byte) {
		formatstest.Fuzzed{Format: qed.Format(), Source: func() formats.Source { return formatstest.NewSource(p) }, Budget: 4 << 20}.Run(t)
	})
}
