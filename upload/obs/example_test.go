package obs_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"

	"imgferry/upload"
	"imgferry/upload/obs"
)

func Example() {
	// In place of the store: it knows no bucket.
	server := httptest.NewServer(answer(404, "", ""))
	defer server.Close()

	bucket, err := obs.New(obs.Config{
		Endpoint:  server.URL, // https://obs.cn-north-4.myhuaweicloud.com
		Region:    "cn-north-4",
		Bucket:    "images",
		AccessKey: "AK",
		SecretKey: "SK",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = upload.Retry(context.Background(), upload.Policy{}, "check access", bucket.CheckBucket)
	fmt.Println(err, errors.Is(err, upload.ErrNoBucket))
	// Output: check access in bucket images: the bucket does not exist (status 404, NoSuchBucket) true
}
