package objectstore

import (
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
)

// newObject reads from the headers of a request what the object is to be like, without content.
func (q *request) newObject() (*object, error) {
	header, err := objectHeader(q.r.Header)
	if err != nil {
		return nil, err
	}
	tags, err := headerTags(q.r.Header)
	if err != nil {
		return nil, err
	}
	return &object{Key: recordKey(q.key), Header: header, Tags: tags}, nil
}

func (q *request) putObject() error {
	if q.r.Header.Get("X-Amz-Copy-Source") != "" {
		return q.copyObject()
	}
	if err := q.s.haveBucket(q.bucket); err != nil {
		return err
	}
	o, err := q.newObject()
	if err != nil {
		return err
	}
	b, err := q.body(maxBody)
	if err != nil {
		return err
	}
	if err := q.s.put(q.bucket, o, b, writeCondition(q.r.Header)); err != nil {
		return err
	}
	q.setChecksums(o.Checksums)
	q.w.Header().Set("Etag", quote(o.ETag))
	return nil
}

// put stores b as o, which has key and headers already.
func (s *Store) put(bucket string, o *object, b *body, cond precondition) error {
	c, err := s.segments.write(b)
	if err != nil {
		return err
	}
	o.Content, o.Size = c, b.got
	o.ETag, o.Checksums = b.etag(), b.checksums()
	o.Modified = s.now()
	return s.commit(bucket, o, cond)
}

// setChecksums adds x-amz-checksum headers to the answer.
func (q *request) setChecksums(sums map[string]string) {
	for name, v := range sums {
		q.w.Header().Set(checksumPrefix+name, v)
		q.w.Header().Set(checksumPrefix+"type", checksumType(v))
	}
}

// copyObject makes an object of another's content, which is shared, not copied. The ETag stays the
// source's: it was made from these bytes.
func (q *request) copyObject() error {
	srcBucket, srcKey, err := parseCopySource(q.r.Header.Get("X-Amz-Copy-Source"))
	if err != nil {
		return err
	}
	o, err := q.newObject()
	if err != nil {
		return err
	}
	src, err := q.openSource(srcBucket, srcKey)
	if err != nil {
		return err
	}
	defer src.Close()
	if src.Size() > maxBody {
		return errInvalidRequest.because("The source is larger than 5 GiB; copy it in parts")
	}
	replace, err := directive(q.r.Header, "X-Amz-Metadata-Directive")
	if err != nil {
		return err
	}
	if !replace {
		if srcBucket == q.bucket && srcKey == q.key && o.Header[storageClassHeader] == src.rec.Header[storageClassHeader] {
			return errInvalidRequest.because("A copy of an object onto itself must change its metadata or storage class")
		}
		class := o.Header[storageClassHeader]
		o.Header = maps.Clone(src.rec.Header)
		delete(o.Header, storageClassHeader)
		if class != "" {
			o.Header[storageClassHeader] = class
		}
	}
	if replace, err = directive(q.r.Header, "X-Amz-Tagging-Directive"); err != nil {
		return err
	}
	if !replace {
		o.Tags = src.rec.Tags
	}
	o.Content, o.Size, o.Parts = src.rec.Content, src.Size(), src.rec.Parts
	o.ETag, o.Checksums = src.ETag(), src.rec.Checksums
	o.Modified = q.s.now()
	q.s.segments.hold(o.Content)
	if err := q.s.commit(q.bucket, o, writeCondition(q.r.Header)); err != nil {
		return err
	}
	return q.answer(struct {
		XMLName      xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ CopyObjectResult"`
		LastModified string
		ETag         string
		checksumsXML
	}{LastModified: o.Modified.Format(xmlTime), ETag: quote(o.ETag), checksumsXML: newChecksumsXML(o.Checksums)})
}

// openSource opens what a copy reads, if the copy's conditions hold.
func (q *request) openSource(bucket, key string) (*Object, error) {
	src, err := q.s.OpenObject(bucket, key)
	if err != nil {
		return nil, err
	}
	if err := readConditions(q.r.Header, "X-Amz-Copy-Source-", src.ETag(), src.Modified()); err != nil {
		src.Close()
		return nil, errPrecondition
	}
	return src, nil
}

// directive reads a COPY or REPLACE header.
func directive(h http.Header, name string) (replace bool, err error) {
	switch v := h.Get(name); v {
	case "", "COPY":
		return false, nil
	case "REPLACE":
		return true, nil
	default:
		return false, errInvalidArgument.because(fmt.Sprintf("The directive %.20q is neither COPY nor REPLACE", v))
	}
}

// overrides are the query parameters by which a read sets headers of its answer.
var overrides = map[string]string{
	"response-cache-control":       "Cache-Control",
	"response-content-disposition": "Content-Disposition",
	"response-content-encoding":    "Content-Encoding",
	"response-content-language":    "Content-Language",
	"response-content-type":        "Content-Type",
	"response-expires":             "Expires",
}

// getObject answers GET and HEAD.
func (q *request) getObject() error {
	o, err := q.s.OpenObject(q.bucket, q.key)
	if err != nil {
		return err
	}
	defer o.Close()
	h := q.w.Header()
	h.Set("Etag", quote(o.ETag()))
	h.Set("Last-Modified", o.Modified().Format(http.TimeFormat))
	h.Set("Accept-Ranges", "bytes")
	if err := readConditions(q.r.Header, "", o.ETag(), o.Modified()); err != nil {
		return err
	}
	off, n, partial, err := q.selected(o)
	if e, ok := errors.AsType[*Error](err); ok && e.Status == http.StatusRequestedRangeNotSatisfiable {
		h.Set("Content-Range", fmt.Sprintf("bytes */%d", o.Size()))
	}
	if err != nil {
		return err
	}
	q.setObjectHeaders(o)
	h.Set("Content-Length", strconv.FormatInt(n, 10))
	status := http.StatusOK
	if partial {
		status = http.StatusPartialContent
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, off+n-1, o.Size()))
	} else if q.r.Header.Get("X-Amz-Checksum-Mode") == "ENABLED" {
		q.setChecksums(o.rec.Checksums)
	}
	q.w.WriteHeader(status)
	if q.r.Method == http.MethodHead {
		return nil
	}
	err = o.writeTo(q.w, off, n, func() { q.writeDeadline(true) })
	q.writeDeadline(false)
	if err != nil {
		// Too late for an answer: net/http cuts the connection, since Content-Length was not met.
		q.s.opt.Logger.Debug("sending an object ended early", "request", q.id, "error", err)
	}
	return nil
}

// selected returns which bytes of o the request wants: those of a range or of a part, else all.
func (q *request) selected(o *Object) (off, n int64, partial bool, err error) {
	ranges := q.r.Header.Get("Range")
	if !q.query.Has("partNumber") {
		return parseRange(ranges, o.Size())
	}
	number, err := strconv.Atoi(q.query.Get("partNumber"))
	switch {
	case err != nil || number < 1 || number > maxParts:
		return 0, 0, false, errInvalidArgument.because(fmt.Sprintf("The part number must be 1 to %d", maxParts))
	case ranges != "":
		return 0, 0, false, errInvalidRequest.because("A range and a part number exclude each other")
	}
	parts := o.rec.Parts
	if len(parts) == 0 { // made in one piece
		parts = []int64{o.Size()}
	} else {
		q.w.Header().Set("X-Amz-Mp-Parts-Count", strconv.Itoa(len(parts)))
	}
	if number > len(parts) {
		return 0, 0, false, errInvalidPartNumber
	}
	for _, size := range parts[:number-1] {
		off += size
	}
	n = parts[number-1]
	return off, n, n > 0, nil // no Content-Range can name no bytes
}

func (q *request) setObjectHeaders(o *Object) {
	h := q.w.Header()
	h.Set("Content-Type", defaultType)
	for name, v := range o.rec.Header {
		h.Set(name, v)
	}
	if n := len(o.rec.Tags); n > 0 {
		h.Set("X-Amz-Tagging-Count", strconv.Itoa(n))
	}
	for param, name := range overrides {
		if v := q.query.Get(param); v != "" {
			h.Set(name, v)
		}
	}
}

func (q *request) deleteObject() error {
	if err := q.s.RemoveObject(q.bucket, q.key); err != nil {
		return err
	}
	q.w.WriteHeader(http.StatusNoContent)
	return nil
}

type tagging struct {
	XMLName xml.Name `xml:"Tagging"`
	Tags    []tag    `xml:"TagSet>Tag"`
}

func (q *request) getTags() error {
	o, err := q.s.OpenObject(q.bucket, q.key)
	if err != nil {
		return err
	}
	defer o.Close()
	return q.answer(tagging{Tags: o.rec.Tags})
}

func (q *request) putTags() error {
	var in tagging
	if err := q.readXML(&in); err != nil {
		return err
	}
	if err := checkTags(in.Tags); err != nil {
		return err
	}
	return q.setTags(in.Tags)
}

func (q *request) deleteTags() error {
	if err := q.setTags(nil); err != nil {
		return err
	}
	q.w.WriteHeader(http.StatusNoContent)
	return nil
}

// setTags replaces the record by one with other tags, unless the object changed meanwhile.
func (q *request) setTags(tags []tag) error {
	src, err := q.s.OpenObject(q.bucket, q.key)
	if err != nil {
		return err
	}
	defer src.Close()
	o := *src.rec
	o.Tags = slices.Clone(tags)
	q.s.segments.hold(o.Content)
	return q.s.commit(q.bucket, &o, precondition{ifMatch: quote(o.ETag)})
}

// checksumsXML are the checksum elements of several answers and of Complete.
type checksumsXML struct {
	ChecksumCRC32     string `xml:",omitempty"`
	ChecksumCRC32C    string `xml:",omitempty"`
	ChecksumCRC64NVME string `xml:",omitempty"`
	ChecksumSHA1      string `xml:",omitempty"`
	ChecksumSHA256    string `xml:",omitempty"`
}

func newChecksumsXML(m map[string]string) checksumsXML {
	return checksumsXML{m["crc32"], m["crc32c"], m["crc64nvme"], m["sha1"], m["sha256"]}
}

func (c checksumsXML) byAlgorithm() map[string]string {
	return map[string]string{
		"crc32": c.ChecksumCRC32, "crc32c": c.ChecksumCRC32C, "crc64nvme": c.ChecksumCRC64NVME,
		"sha1": c.ChecksumSHA1, "sha256": c.ChecksumSHA256,
	}
}
