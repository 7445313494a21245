package ims_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"imgferry/ims"
	"imgferry/limits"
)

func ExampleClient() {
	// A service that finishes each import at once.
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			fmt.Fprint(w, `{"job_id":"8a12fc664fb4daa3014fb4e581380005"}`)
			return
		}
		fmt.Fprint(w, `{"status":"SUCCESS","entities":{"image_id":"e9e91bff-14b6-4a0b-8377-4ed0813e3360"}}`)
	}))
	defer service.Close()

	client, err := ims.New(ims.Config{
		Endpoint: service.URL, ProjectID: "0b1e494e2660441a957313163095fe5c",
		Credentials: ims.AccessKey("AKEXAMPLE0000000001", "SKexample", ""),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	id, err := client.QuickImport(ctx, ims.QuickImportRequest{
		Name: "centos70", OSVersion: "CentOS 7.0 64bit", MinDisk: 40,
		ImageURL: limits.ImageURL("ims-image", "centos70.zvhd2"),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	job, err := client.WaitJob(ctx, id, ims.Wait{Interval: time.Second})
	fmt.Println(job.ImageID, err)
	// Output: e9e91bff-14b6-4a0b-8377-4ed0813e3360 <nil>
}
