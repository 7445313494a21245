package main

import (
	"os"

	"github.com/spf13/cobra"

	"imgferry/pipeline"
)

// bitmapFlags say which bitmap goes beside a raw object; push and upload have them.
type bitmapFlags struct {
	file     string
	unproven bool
}

// add gives cmd the flags. format is how it calls the flag for the format.
func (b *bitmapFlags) add(cmd *cobra.Command, format string) {
	f := cmd.Flags()
	f.StringVar(&b.file, "bitmap", "", "with "+format+" raw: the block bitmap made by the vendor's tool")
	f.BoolVar(&b.unproven, "unproven-bitmap", false, "with "+format+` raw: send a bitmap in ZVHD2's layout. The service's own
layout is not published; if it is another one, the image is silently damaged`)
}

func (b *bitmapFlags) given() bool { return b.file != "" || b.unproven }

// apply checks the flags against p's format, and puts the bitmap into p. Only the sandbox is known to read
// the bitmaps that p makes itself.
func (b *bitmapFlags) apply(p *pipeline.Push, format string, sandbox bool) (err error) {
	switch {
	case p.Format != pipeline.Raw && b.given():
		return usagef("--bitmap and --unproven-bitmap go with %s raw", format)
	case b.file != "" && b.unproven:
		return usagef("--bitmap and --unproven-bitmap contradict each other: leave one out")
	case p.Format == pipeline.Raw && !b.given() && !sandbox:
		return usagef("a raw disk needs the bitmap that the vendor's tool makes: --bitmap FILE, or --unproven-bitmap (see its help), or rather %s zvhd2", format)
	case b.file != "":
		p.Bitmap, err = readBitmap(b.file)
	}
	return err
}

// maxBitmap bounds a bitmap file in bytes: a disk of 64 TiB in the layout of ZVHD2, and room for
// other layouts.
const maxBitmap = 16 << 20

func readBitmap(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() == 0 || st.Size() > maxBitmap {
		return nil, usagef("%s is no bitmap file: it must be a regular file of 1 byte to %d MiB", path, maxBitmap>>20)
	}
	return os.ReadFile(path)
}
