package obs

import (
	"context"
	"fmt"
	"slices"

	"imgferry/upload"
)

// Bounds of a listing: a store that goes on for ever must cost neither time nor memory.
const (
	// pageSize is the number of entries asked for in one page, the most that S3 gives.
	pageSize = 1000
	// maxPages is enough for pages that are far from full.
	maxPages = 1000
	// maxUploads is how many unfinished uploads are listed: looking into each takes a request.
	maxUploads = 100_000
	// maxText is for all names of a listing together, in bytes: those of maxUploads with keys of 500.
	maxText = 64 << 20
)

// budget is what a listing may still have.
type budget struct {
	entries, text int // text in bytes
}

// take is called with the texts of each entry. It reports whether they are within the budget.
func (b *budget) take(texts ...string) bool {
	b.entries--
	for _, s := range texts {
		b.text -= len(s)
	}
	return b.entries >= 0 && b.text >= 0
}

// Parts lists what the store has of an upload.
func (b *Bucket) Parts(ctx context.Context, key, uploadID string) ([]upload.StoredPart, error) {
	const op = "list the parts"
	var parts []upload.StoredPart
	marker, left := 0, budget{upload.MaxParts, maxText}
	for range maxPages {
		ctx, seen := observe(ctx)
		page, err := b.core.ListObjectParts(ctx, b.name, key, uploadID, marker, pageSize)
		if err != nil {
			return nil, b.wrapUpload(op, key, seen, err)
		}
		for _, p := range page.ObjectParts {
			if p.PartNumber < 1 || p.PartNumber > upload.MaxParts || p.Size < 0 || p.Size > upload.MaxPartSize {
				return nil, b.wrapUpload(op, key, seen, fmt.Errorf("%w: it has a part %d of %d bytes", errListing, p.PartNumber, p.Size))
			}
			if !left.take(p.ETag) {
				return nil, b.wrapUpload(op, key, seen, errEndless)
			}
			parts = append(parts, upload.StoredPart{Number: p.PartNumber, Size: p.Size, ETag: unquote(p.ETag)})
		}
		if !page.IsTruncated {
			slices.SortFunc(parts, func(a, b upload.StoredPart) int { return a.Number - b.Number })
			return parts, nil
		}
		if page.NextPartNumberMarker <= marker {
			return nil, b.wrapUpload(op, key, seen, errEndless)
		}
		marker = page.NextPartNumberMarker
	}
	return nil, b.wrapUpload(op, key, nil, errEndless)
}

// Uploads lists unfinished uploads, 100,000 at most.
func (b *Bucket) Uploads(ctx context.Context, prefix string) ([]upload.Unfinished, error) {
	const op = "list unfinished uploads"
	var found []upload.Unfinished
	var keyMarker, idMarker string
	left := budget{maxUploads, maxText}
	for range maxPages {
		ctx, seen := observe(ctx)
		page, err := b.core.ListMultipartUploads(ctx, b.name, prefix, keyMarker, idMarker, "", pageSize)
		if err != nil {
			return nil, b.wrap(op, "", seen, err)
		}
		for _, u := range page.Uploads {
			if !left.take(u.Key, u.UploadID) {
				return nil, b.wrap(op, "", seen, errMany)
			}
			found = append(found, upload.Unfinished{Key: u.Key, UploadID: u.UploadID, Initiated: u.Initiated})
		}
		if !page.IsTruncated {
			slices.SortStableFunc(found, func(a, b upload.Unfinished) int { return b.Initiated.Compare(a.Initiated) })
			return found, nil
		}
		if page.NextKeyMarker == keyMarker && page.NextUploadIDMarker == idMarker {
			return nil, b.wrap(op, "", seen, errEndless)
		}
		keyMarker, idMarker = page.NextKeyMarker, page.NextUploadIDMarker
	}
	return nil, b.wrap(op, "", nil, errEndless)
}
