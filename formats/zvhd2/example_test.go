package zvhd2_test

import (
	"bytes"
	"context"
	"fmt"
	"log"

	"imgferry/formats/formatstest"
	"imgferry/formats/zvhd2"
)

// A disk of 5 MiB with one line of text in its second block becomes an image, which is then read.
func Example() {
	var file bytes.Buffer
	w, err := zvhd2.NewWriter(&file, zvhd2.Options{OrigSize: 5 << 20})
	if err != nil {
		log.Fatal(err)
	}
	block := make([]byte, w.BlockSize())
	copy(block, "hello from the second block")
	chunk, err := w.Encode(nil, 1, block)
	if err != nil {
		log.Fatal(err)
	}
	if err := w.WriteBlock(1, chunk); err != nil {
		log.Fatal(err)
	}
	if err := w.Close(); err != nil {
		log.Fatal(err)
	}

	ctx := context.Background()
	src := formatstest.NewSource(file.Bytes())
	if err := zvhd2.Check(ctx, src, 2, nil); err != nil {
		log.Fatal(err)
	}
	im, err := zvhd2.Format().Open(ctx, src, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer im.Close()
	text := make([]byte, 27)
	if _, err := im.ReadAt(text, 2<<20); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d bytes of file, %d of disk: %s\n", file.Len(), im.Size(), text)
	// Output: 544768 bytes of file, 5242880 of disk: hello from the second block
}
