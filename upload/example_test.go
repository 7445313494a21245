package upload_test

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"imgferry/upload"
)

// A stream of chunks goes into an object of several parts, without a temporary file.
func Example() {
	bucket := newFakeStore() // in the program: obs.New

	plan, err := upload.PlanStream(20<<20, 0, upload.DefaultMemory)
	if err != nil {
		fmt.Println(err)
		return
	}
	g, ctx := errgroup.WithContext(context.Background())
	w := upload.NewPartWriter(ctx, plan)
	g.Go(func() error {
		chunk := make([]byte, 2<<20)
		for range 10 {
			if _, err := w.Write(chunk); err != nil {
				return err // Parts ends with the context
			}
		}
		return w.Close()
	})
	g.Go(func() error {
		result, err := upload.Send(ctx, upload.Config{Store: bucket, Key: "disk.zvhd2", Buffers: plan.Buffers}, w.Parts)
		if err == nil {
			fmt.Printf("%d bytes in %d parts, ETag %s\n", result.Size, result.Parts, result.ETag)
		}
		return err
	})
	if err := g.Wait(); err != nil {
		fmt.Println(err)
	}
	// Output: 20971520 bytes in 3 parts, ETag 5452e5568d20a60209babc69a7b95911-3
}
