package pipeline

import (
	"context"

	"imgferry/bitmap"
	"imgferry/convert"
	"imgferry/upload"
)

// pageSize is the unit in which data is told from zeros within a block, in bytes: that of file systems.
const pageSize = 4096

const pagesPerBlock = convert.BlockSize / pageSize

// surveyor is a target of the engine that writes nothing: it notes where a disk has data.
type surveyor struct{ found *upload.DataMap }

// BlockSize returns the unit of the engine in bytes.
func (surveyor) BlockSize() int { return convert.BlockSize }

// MaxEncodedSize returns the most bytes that Encode appends.
func (surveyor) MaxEncodedSize() int { return pagesPerBlock / 8 }

// Encode appends a bit for each page of the block, set where there is data.
func (surveyor) Encode(dst []byte, _ int64, block []byte) ([]byte, error) {
	for i := 0; i < pagesPerBlock; i += 8 {
		var bits byte
		for k := range 8 {
			at := (i + k) * pageSize
			if !bitmap.IsZero(block[at : at+pageSize]) {
				bits |= 1 << k
			}
		}
		dst = append(dst, bits)
	}
	return dst, nil
}

// WriteBlock notes the pages with data.
func (s surveyor) WriteBlock(index int64, bits []byte) error {
	for i := range pagesPerBlock {
		if bits[i/8]&(1<<(i%8)) != 0 {
			at := index*convert.BlockSize + int64(i)*pageSize
			s.found.Add(at, at+pageSize)
		}
	}
	return nil
}

// Close does nothing.
func (surveyor) Close() error { return nil }

// survey reads the disk for its digest, its bitmap, and the places of its data in an object of size
// bytes.
func (p *Push) survey(ctx context.Context, size int64) (convert.Result, *upload.DataMap, error) {
	if _, err := p.count(ctx); err != nil {
		return convert.Result{}, nil, err
	}
	found := upload.NewDataMap(size)
	r, err := convert.Stream(ctx, p.Disk.Image, surveyor{found}, convert.Options{Digest: true, Progress: &p.Progress.Convert, Memory: engineMemory})
	return r, found, err
}
