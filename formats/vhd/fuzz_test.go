package vhd_test

import (
	"bytes"
	"context"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/vhd"
)

// FuzzOpen is given whole files, whose checksums are made right first: the fuzzer would not find them.
func FuzzOpen(f *testing.F) {
	// Small seeds only: the fuzzer spends its time on minimising large ones.
	data := formatstest.Noise(1, 1024)
	dynamic := spec{size: 1000, block: 512, content: data, stored: []int{1}}
	for _, s := range []spec{
		dynamic,
		{kind: 2, size: 600, content: data[:600]},
		{size: 1024, block: 512, content: data, stored: []int{1}, old: true},
		{creator: "vpc ", chs: [3]int{1, 2, 3}, size: 4096, block: 1024},
		{kind: 4, size: 512, block: 512, parent: "parent.vhd", relative: "p.vhd"},
		{kind: 4, size: 1000, block: 1024, parent: "p", parentID: "0123456789abcdef", content: data, stored: []int{0}, partial: map[int]func(int) bool{0: func(k int) bool { return k == 1 }}},
	} {
		f.Add([]byte(s.make()), s.kind != 2)
	}
	f.Add([]byte(dynamic.make()[:3072]), false)

	parent := formatstest.Files{Bytes: map[string][]byte{"p": dynamic.make()}}
	f.Fuzz(func(t *testing.T, p []byte, seal bool) {
		if seal && len(p) >= headerAt+1024 {
			p = image(bytes.Clone(p)).seal()
		}
		in, _ := vhd.Format().Info(context.Background(), formatstest.NewSource(p))
		formatstest.Fuzzed{
			Format: vhd.Format(), Source: func() formats.Source { return formatstest.NewSource(p) }, Resolver: parent, Budget: 4 << 20,
			OpenVerifies: len(in.Refs) == 0, // Info and Check don't look at a parent
		}.Run(t)
	})
}
