package main

import (
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/minio/minio-go/v7/pkg/signer"
)

// maxBucketList bounds what is read of a list of buckets, in bytes: some thousands of them.
const maxBucketList = 1 << 20

// buckets asks the object store for the names of the account's buckets. It sends one request, signed
// like those of package obs: OBS documents no other payload hash.
func (c *cloud) buckets(ctx context.Context) ([]string, error) {
	if err := c.ready(c.storeNeeds()[1:]); err != nil { // all but the bucket
		return nil, err
	}
	client, err := c.httpClient()
	if err != nil {
		return nil, err
	}
	region := c.region
	if region == "" {
		region = "us-east-1" // as for store
	}
	endpoint := strings.TrimSuffix(c.obsEndpoint, "/")
	if !strings.Contains(endpoint, "://") {
		endpoint = "https://" + endpoint
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint+"/", nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
	resp, err := client.Do(signer.SignV4(*r, c.ak, c.sk, c.token, region))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("list buckets: status %d", resp.StatusCode)
	}
	var answer struct {
		Names []string `xml:"Buckets>Bucket>Name"`
	}
	err = xml.NewDecoder(io.LimitReader(resp.Body, maxBucketList)).Decode(&answer)
	return answer.Names, err
}
