package qcow2

import (
	"fmt"

	"imgferry/formats"
)

// collectBitmaps reads the bitmap directory. Where the header says that bitmaps are out of date they
// are lost space.
func (c *checker) collectBitmaps() error {
	if c.autoclear&autoclearBitmaps == 0 || c.extensions.bitmaps == nil {
		return nil
	}
	b, err := parseBitmapsExtension(c.extensions.bitmaps)
	if err != nil {
		return formats.Corrupt(name, int64(c.headerLen), "%v", err)
	}
	if b.dirOffset == 0 || b.dirOffset&uint64(c.clusterSize()-1) != 0 || b.dirOffset > uint64(c.fileSize) || b.dirBytes > uint64(c.fileSize)-b.dirOffset {
		return formats.Corrupt(name, int64(c.headerLen), "the bitmap directory's offset %#x is not that of a cluster in the file", b.dirOffset)
	}
	at := int64(b.dirOffset)
	c.region(b.dirOffset, b.dirBytes, at, "the bitmap directory")
	dir := make([]byte, b.dirBytes)
	if err := c.read(dir, at, "the bitmap directory"); err != nil {
		return err
	}
	room, tables := c.fileSize, formats.NewTables(c.ctx, name, c.src)
	for range b.count {
		t, n, err := c.parseBitmap(dir)
		if err != nil {
			return formats.Corrupt(name, at, "%v", err)
		}
		// Tables have clusters of their own: more than the file has room for are shared ones.
		if room -= t.entries * 8; room < 0 {
			return formats.Corrupt(name, at, "the tables of the bitmaps are larger than the file")
		}
		if t.offset < c.fileSize {
			if _, err := tables.Add(t.offset, t.entries*8, at); err != nil {
				return err
			}
		}
		c.region(uint64(t.offset), uint64(t.entries)*8, at, "the table of a bitmap")
		c.bitmaps = append(c.bitmaps, t)
		dir, at = dir[n:], at+int64(n)
	}
	if len(dir) > 0 {
		return formats.Corrupt(name, at, "the bitmap directory has more entries than there are bitmaps")
	}
	return nil
}

// countBitmaps counts the clusters of the bitmaps.
func (w *window) countBitmaps() error {
	for _, t := range w.bitmaps {
		err := w.entries(t.offset, t.entries, "the table of a bitmap", func(i int64, e uint64) error {
			host, what := w.parseBitmapEntry(e)
			if what == "" && !w.inBounds(uint64(host), uint64(w.clusterSize())) {
				what = "points past the end of the file"
			}
			switch k := host >> w.clusterBits; {
			case what != "" && w.survey():
				w.corrupt(t.offset+i*8, 1, fmt.Sprintf("entry %d of a bitmap's table %s", i, what))
			case what == "" && host != 0:
				w.touch(k, k)
				w.addSpan(k, k, 1, true)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
