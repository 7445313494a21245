//go:build unix

package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"imgferry/convert"
	"imgferry/formats"
	"imgferry/formats/all"
	"imgferry/source"
)

// readers compares reading a compressed image with one goroutine to reading it with two: what a lock
// held while decoding would show in.
func readers(dir, disk, program string, pairs int) error {
	if out, err := exec.Command(program, "convert", disk, filepath.Join(dir, "disk.zvhd2"), "-O", "zvhd2").CombinedOutput(); err != nil {
		return fmt.Errorf("convert: %w: %s", err, out)
	}
	fmt.Printf("\n%-38s %8s %8s %9s %9s %6s %s\n", "A (one goroutine) against B (two)", "A MB/s", "B MB/s", "A cpu s", "B cpu s", "speed", "discarded")
	for _, name := range []string{"disk.zvhd2", "zlib.qcow2", "zstd.qcow2", "streamed.vmdk"} {
		img, blocks, err := open(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		blocks = blocks[:min(len(blocks), 256)] // 512 MiB: a second or so
		as, bs, lost, err := compare(pairs,
			func() error { return readBlocks(img, blocks, 1) }, func() error { return readBlocks(img, blocks, 2) })
		img.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		printPairs(name, int64(len(blocks))*convert.BlockSize, as, bs, lost)
	}
	return nil
}

// open opens an image and names the blocks that hold data.
func open(path string) (formats.Image, []int64, error) {
	ctx := context.Background()
	src, err := source.Open(path)
	if err != nil {
		return nil, nil, err
	}
	f, err := formats.Detect(all.Table(), src)
	if err != nil {
		src.Close()
		return nil, nil, err
	}
	img, err := f.Open(ctx, src, nil)
	if err != nil {
		src.Close()
		return nil, nil, err
	}
	var blocks []int64
	for i, err := range convert.Candidates(ctx, img) {
		if err != nil {
			img.Close()
			return nil, nil, err
		}
		blocks = append(blocks, i)
	}
	return img, blocks, nil
}

// readBlocks reads every block once: each goroutine takes the next one.
func readBlocks(img formats.Image, blocks []int64, goroutines int) error {
	var g errgroup.Group
	queue := make(chan int64, len(blocks))
	for _, i := range blocks {
		queue <- i
	}
	close(queue)
	for range goroutines {
		g.Go(func() error {
			buf := make([]byte, convert.BlockSize)
			for i := range queue {
				if err := formats.ReadFull(img, buf[:min(convert.BlockSize, img.Size()-i*convert.BlockSize)], i*convert.BlockSize); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}
