package objectstore_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"imgferry/sandbox/objectstore"
)

func Example() {
	dir, err := os.MkdirTemp("", "store")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	store, err := objectstore.Open(dir, objectstore.Options{
		Credentials: func(access, _ string) (string, error) {
			if access != "key" {
				return "", errors.New("unknown")
			}
			return "secret", nil
		},
		Region: "local",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	server := httptest.NewServer(store.Handler())
	defer server.Close()

	// Any S3 client will do.
	client, err := minio.New(server.Listener.Addr().String(), &minio.Options{
		Creds:  credentials.NewStaticV4("key", "secret", ""),
		Region: "local",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	if err := client.MakeBucket(ctx, "images", minio.MakeBucketOptions{}); err != nil {
		fmt.Println(err)
		return
	}
	if _, err := client.PutObject(ctx, "images", "disk", strings.NewReader("bytes"), 5, minio.PutObjectOptions{}); err != nil {
		fmt.Println(err)
		return
	}

	// The process that has the store reads without HTTP.
	disk, err := store.OpenObject("images", "disk")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer disk.Close()
	p := make([]byte, disk.Size())
	n, err := disk.ReadAt(p, 0)
	fmt.Println(n, string(p[:n]), err, disk.ETag())
	// Output: 5 bytes <nil> 4b3a6218bb3e3a7303e8a171a60fcf92
}
