package zvhd2

import (
	"io"
	"testing"

	"imgferry/formats/formatstest"
)

// endless makes content of a disk that the suite may read beyond: zeros follow it.
type endless struct{ disk }

func (e endless) ReadAt(p []byte, off int64) (int, error) {
	n, err := e.disk.ReadAt(p, off)
	clear(p[n:])
	if err == io.EOF {
		err = nil
	}
	return len(p), err
}

func TestSuite(t *testing.T) {
	var cases []formatstest.Case
	m := readManifest(t)
	for _, g := range m.Files {
		switch g.File {
		case "allzero.zstd.zvhd2", "odd3m100.zlib.zvhd2.gz", "odd5m512.zstd.zvhd2.gz", "sparse3g.zstd-indexzero.zvhd2.gz", "sparse66g.zstd.zvhd2.gz":
			raw := m.Raws[g.Raw]
			d := disk{raw.RoundedSize, map[int64][]byte{}}
			for _, b := range raw.Blocks {
				d.blocks[b.Block] = raw.block(t, b.Block)
			}
			cases = append(cases, formatstest.Case{Name: g.File, Image: unpack(t, g.File), Size: d.size, Content: endless{d}})
		}
	}
	d := newDisk(8<<20+512, 0, 1, 3, 4)
	for _, codec := range []Codec{Zstd, Zlib} {
		cases = append(cases, formatstest.Case{Name: "ours, " + codec.String(), Image: imageOf(t, d, Options{Codec: codec}), Size: d.size, Content: endless{d}})
	}
	formatstest.Run(t, Format(), cases)
}
