package qcow_test

import (
	"bytes"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/qcow"
)

func FuzzOpen(f *testing.F) {
	words := deflated(bytes.Repeat([]byte("word"), tinyCluster/4))
	f.Add([]byte(tiny()))
	f.Add([]byte(tiny().packed(0, tinyData, words, 9).packed(2, tinyData+len(words), words, 9)))
	f.Add([]byte(tiny().u64(24, 2*tinyEntries*tinyCluster).u64(tinyL1+8, tinyL2).u64(tinyL1, 0)))
	f.Add([]byte(tiny().backing("base")))
	f.Add([]byte(tiny().u8(32, 10).u8(33, 7)))
	f.Fuzz(func(t *testing.T, p []byte) {
		formatstest.Fuzzed{Format: qcow.Format(), Source: func() formats.Source { return formatstest.NewSource(p) }, Budget: 4 << 20}.Run(t)
	})
}
