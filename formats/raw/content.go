package raw

import (
	"context"
	"strings"

	"imgferry/formats"
)

// Marks of what a raw disk may hold.
const (
	bootMark     = "\x55\xaa" // UEFI 2.10, 5.2.1: ends the first sector of a disk with an MBR
	bootMarkAt   = 510
	gptMark      = "EFI PART" // UEFI 2.10, 5.3.2: the GPT header, in the second sector
	gptMarkAt512 = 512
	gptMarkAt4K  = 4096
	isoMark      = "CD001" // ECMA-119, 8.4.2: the first volume descriptor, in sector 16 of 2048 bytes
	isoMarkAt    = 16*2048 + 1
	isoLabelAt   = 16*2048 + 40 // ECMA-119, 8.4.7: the volume identifier
	isoLabelLen  = 32
)

// content names what is on the disk, as far as its first bytes tell.
func content(ctx context.Context, src formats.Source) ([]formats.Property, error) {
	var list []formats.Property
	add := func(name, value string) { list = append(list, formats.Property{Name: name, Value: value}) }
	holds := func(off int64, mark string) (bool, error) {
		if off+int64(len(mark)) > src.Size() {
			return false, nil
		}
		p := make([]byte, len(mark))
		err := formats.ReadAt(ctx, name, src, p, off, "the disk")
		return err == nil && string(p) == mark, err
	}
	for _, m := range []struct {
		off        int64
		mark, what string
	}{
		{isoMarkAt, isoMark, "ISO 9660 file system"}, {gptMarkAt512, gptMark, "GPT"}, {gptMarkAt4K, gptMark, "GPT"}, {bootMarkAt, bootMark, "MBR"},
	} {
		ok, err := holds(m.off, m.mark)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		if m.mark != isoMark {
			add("partition table", m.what)
			return list, nil
		}
		add("content", m.what)
		label := make([]byte, isoLabelLen)
		if isoLabelAt+isoLabelLen <= src.Size() {
			if err := formats.ReadAt(ctx, name, src, label, isoLabelAt, "the volume's name"); err != nil {
				return nil, err
			}
			if s := strings.TrimSpace(strings.TrimRight(string(label), "\x00")); s != "" {
				add("volume", s)
			}
		}
	}
	return list, nil
}
