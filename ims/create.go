package ims

import (
	"context"
	"net/http"
)

// QuickImport starts a fast import (reference, 5.1.4) and returns the id of its job.
func (c *Client) QuickImport(ctx context.Context, r QuickImportRequest) (jobID string, err error) {
	return c.start(ctx, call{op: "start the fast import", method: http.MethodPost, path: "/v2/cloudimages/quickimport/action"}, r)
}

// CreateImage starts an ordinary import, or the making of an image from a server or a volume (reference,
// 5.1.3), and returns the id of its job.
func (c *Client) CreateImage(ctx context.Context, r CreateImageRequest) (jobID string, err error) {
	op := "start the import"
	if r.ImageURL == "" {
		op = "start the image of a server or a volume"
	}
	return c.start(ctx, call{op: op, method: http.MethodPost, path: "/v2/cloudimages/action"}, r)
}

// CreateDataImage starts the ordinary import of a data disk (reference, 5.1.5) and returns the id of its
// job.
func (c *Client) CreateDataImage(ctx context.Context, r DataImageRequest) (jobID string, err error) {
	return c.start(ctx, call{op: "start the import", method: http.MethodPost, path: "/v1/cloudimages/dataimages/action"}, r)
}

// CreateWholeImage starts the making of an image from a whole server or a backup of one (reference, 5.1.6)
// and returns the id of its job.
func (c *Client) CreateWholeImage(ctx context.Context, r WholeImageRequest) (jobID string, err error) {
	if r.BackupID != "" && r.Kind == "" {
		r.Kind = "CBR"
	}
	return c.start(ctx, call{op: "start the image of a server", method: http.MethodPost, path: "/v1/cloudimages/wholeimages/action"}, r)
}

// CreateMetadata makes an image without a file (reference, 6.1.6): it is queued until Register, or an
// upload, gives it one.
func (c *Client) CreateMetadata(ctx context.Context, r MetadataRequest) (Image, error) {
	var img Image
	err := c.change(ctx, call{op: "create the image's metadata", method: http.MethodPost, path: "/v2/images"}, r, func(p []byte) (err error) {
		img, err = decodeImage(p)
		return err
	})
	return img, err
}

// Register gives an image that CreateMetadata made the object imageURL, "BUCKET:KEY", as its file
// (reference, 5.1.7), and returns the id of the job that does it.
func (c *Client) Register(ctx context.Context, imageID, imageURL string) (jobID string, err error) {
	path, err := imagePath("/v1/cloudimages/", imageID, "/upload")
	if err != nil {
		return "", err
	}
	// A PUT, but one that starts a job: the second would be refused, or disturb the first.
	return c.start(ctx, call{op: "register image " + imageID, method: http.MethodPut, path: path}, registerRequest{imageURL})
}

// Export starts to write an image's file into the store (reference, 5.1.8) and returns the id of the job
// that does it.
func (c *Client) Export(ctx context.Context, imageID string, r ExportRequest) (jobID string, err error) {
	path, err := imagePath("/v1/cloudimages/", imageID, "/file")
	if err != nil {
		return "", err
	}
	return c.start(ctx, call{op: "export image " + imageID, method: http.MethodPost, path: path}, r)
}

// Copy starts to copy an image within its region (reference, 5.3.1) and returns the id of the job.
func (c *Client) Copy(ctx context.Context, imageID string, r CopyRequest) (jobID string, err error) {
	path, err := imagePath("/v1/cloudimages/", imageID, "/copy")
	if err != nil {
		return "", err
	}
	return c.start(ctx, call{op: "copy image " + imageID, method: http.MethodPost, path: path}, r)
}

// CopyToRegion starts to copy an image to another region (reference, 5.3.2) and returns the id of the job,
// which is one of this region.
func (c *Client) CopyToRegion(ctx context.Context, imageID string, r RegionCopyRequest) (jobID string, err error) {
	path, err := imagePath("/v1/cloudimages/", imageID, "/cross_region_copy")
	if err != nil {
		return "", err
	}
	return c.start(ctx, call{op: "copy image " + imageID, method: http.MethodPost, path: path}, r)
}
