package zvhd

import (
	"bytes"
	"context"

	"imgferry/bitmap"
	"imgferry/formats"
	"imgferry/formats/hwstream"
)

// load reads and checks the header, the footer, and the frame of every chunk: there is no index, so
// that each chunk tells where the next one is.
func load(ctx context.Context, src formats.Source) (hwstream.Footer, hwstream.Index, error) {
	f, head, err := loadHeader(ctx, src)
	if err != nil {
		return f, nil, err
	}
	blocks := bitmap.Blocks(int64(f.OrigSize))
	end := src.Size() - page // where the footer is
	var (
		index   hwstream.Index // grows with what the file really holds: a page each at least
		next    = int64(0)     // the least block that may follow
		b       [hwstream.HeadSize]byte
		postfix [len(hwstream.Postfix)]byte
	)
	pos := int64(page)
	for pos < end {
		if err := formats.ReadAt(ctx, name, src, b[:], pos, "a chunk's head"); err != nil {
			return f, nil, err
		}
		h, err := hwstream.ParseHead(name, b[:], pos)
		if err != nil {
			return f, nil, err
		}
		length := hwstream.Length(h.Size)
		switch {
		case int64(h.Block) < next || int64(h.Block) >= blocks:
			return f, nil, formats.Corrupt(name, pos, "chunk of block %d where %d to %d may follow", h.Block, next, blocks-1)
		case length > end-pos:
			return f, nil, formats.Corrupt(name, pos, "chunk of block %d has %d bytes, with %d left before the footer", h.Block, length, end-pos)
		case length > hwstream.MaxChunk:
			return f, nil, formats.Unsupported(name, pos, "chunk of %d bytes: the most is %d", length, hwstream.MaxChunk)
		}
		last := pos + length - int64(len(postfix))
		if err := formats.ReadAt(ctx, name, src, postfix[:], last, "a chunk's end"); err != nil {
			return f, nil, err
		}
		if string(postfix[:]) != hwstream.Postfix {
			return f, nil, formats.Corrupt(name, last, "chunk of block %d doesn't end with %q", h.Block, hwstream.Postfix)
		}
		index = append(index, hwstream.Ref{Block: h.Block, Page: uint32(pos / page)})
		next = int64(h.Block) + 1
		pos += length
	}
	foot := make([]byte, hwstream.FooterSize)
	if err := formats.ReadAt(ctx, name, src, foot, end, "the footer"); err != nil {
		return f, nil, err
	}
	if !bytes.Equal(foot, head) {
		return f, nil, formats.Corrupt(name, end, "the footer is not a copy of the header: the file may be cut short")
	}
	return f, append(index, hwstream.Ref{Block: uint32(blocks), Page: uint32(end / page)}), nil
}

// loadHeader reads and checks the header, and returns its bytes too.
func loadHeader(ctx context.Context, src formats.Source) (hwstream.Footer, []byte, error) {
	size := src.Size()
	if size > hwstream.MaxFileSize {
		return hwstream.Footer{}, nil, formats.Unsupported(name, -1, "file of %d bytes: the most is %d", size, int64(hwstream.MaxFileSize))
	}
	if size < 2*page || size%page != 0 {
		return hwstream.Footer{}, nil, formats.Corrupt(name, -1, "file of %d bytes is cut short: it has at least %d, in pages of %d", size, 2*page, page)
	}
	b := make([]byte, hwstream.FooterSize)
	if err := formats.ReadAt(ctx, name, src, b, 0, "the header"); err != nil {
		return hwstream.Footer{}, nil, err
	}
	f, err := checkFooter(b)
	return f, b, err
}
