package upload

import (
	"context"
	"crypto/md5"
)

// ETag says which ETag and size in bytes an object made of the parts would have, without sending
// anything. It releases every part it takes.
func ETag(ctx context.Context, parts Sequence) (etag string, size int64, err error) {
	var sums [][md5.Size]byte
	for part, err := range parts(ctx) {
		if err != nil {
			return "", 0, err
		}
		j := newJob(part)
		err := j.hash()
		part.release()
		if err != nil {
			return "", 0, err
		}
		size += part.Size
		sums = append(sums, *j.sum)
	}
	if err := ctx.Err(); err != nil {
		return "", 0, context.Cause(ctx)
	}
	return compositeETag(sums), size, nil
}
