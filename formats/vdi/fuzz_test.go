package vdi_test

import (
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/vdi"
)

func FuzzOpen(f *testing.F) {
	f.Add([]byte(tiny()))
	f.Add([]byte(tiny().entry(0, 0xffffffff).entry(2, 0xfffffffe)))
	f.Add([]byte(tiny().u32(376, 512).u64(368, 32*512).u32(384, 32)))
	f.Add([]byte(tiny().u32(380, 512).u32(76, 2)))
	f.Fuzz(func(t *testing.T, p []byte) {
		formatstest.Fuzzed{Format: vdi.Format(), Source: func() formats.Source { return formatstest.NewSource(p) }, Budget: 4 << 20}.Run(t)
	})
}
