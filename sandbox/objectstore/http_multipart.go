package objectstore

import (
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

func (q *request) createUpload() error {
	o, err := q.newObject()
	if err != nil {
		return err
	}
	rec := uploadRecord{Key: o.Key, Header: o.Header, Tags: o.Tags}
	if rec.ChecksumType, err = q.announcedType(); err != nil {
		return err
	}
	id, err := q.s.createUpload(q.bucket, rec)
	if err != nil {
		return err
	}
	return q.answer(struct {
		XMLName  xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ InitiateMultipartUploadResult"`
		Bucket   string
		Key      string
		UploadID string `xml:"UploadId"`
	}{Bucket: q.bucket, Key: q.key, UploadID: id})
}

// announcedType returns the type of checksum that the object is to have: what the client says, or
// what its algorithm implies.
func (q *request) announcedType() (string, error) {
	h := q.r.Header
	name := h.Get("X-Amz-Checksum-Algorithm")
	if q.s.opt.Rules.IgnoreChecksums || name == "" {
		return "", nil
	}
	a, ok := algorithmOf(name)
	if !ok {
		return "", errInvalidRequest.because("The checksum algorithm is not supported")
	}
	switch t := h.Get("X-Amz-Checksum-Type"); {
	case t == fullObject && a.poly == 0, t == composite && a.name == "crc64nvme":
		return "", errInvalidRequest.because("The checksum type does not go with the algorithm")
	case t == fullObject, t == composite:
		return t, nil
	case t != "":
		return "", errInvalidRequest.because("The checksum type is not valid")
	case a.name == "crc64nvme":
		return fullObject, nil
	}
	return composite, nil
}

// findUpload finds the upload that the request names.
func (q *request) findUpload() (*upload, error) {
	return q.s.upload(q.bucket, q.key, q.query.Get("uploadId"))
}

func (q *request) uploadPart() error {
	number, err := strconv.Atoi(q.query.Get("partNumber"))
	if err != nil || number < 1 || number > maxParts {
		return errInvalidArgument.because(fmt.Sprintf("The part number must be 1 to %d", maxParts))
	}
	if err := refusedHeader(q.r.Header); err != nil {
		return err
	}
	u, err := q.findUpload()
	if err != nil {
		return err
	}
	if q.r.Header.Get("X-Amz-Copy-Source") != "" {
		return q.copyPart(u, number)
	}
	b, err := q.body(maxBody)
	if err != nil {
		return err
	}
	c, err := q.s.segments.write(b)
	if err != nil {
		return err
	}
	p := &part{Number: number, Size: b.got, ETag: b.etag(), Modified: q.s.now(), Checksums: b.checksums(), Content: c}
	if err := q.s.putPart(u, p); err != nil {
		return err
	}
	q.setChecksums(p.Checksums)
	q.w.Header().Set("Etag", quote(p.ETag))
	return nil
}

// copyPart makes a part of a range of an object. The bytes are shared; they are read only for their
// MD5, and not even that if they are known to be zeros.
func (q *request) copyPart(u *upload, number int) error {
	bucket, key, err := parseCopySource(q.r.Header.Get("X-Amz-Copy-Source"))
	if err != nil {
		return err
	}
	src, err := q.openSource(bucket, key)
	if err != nil {
		return err
	}
	defer src.Close()
	off, n := int64(0), src.Size()
	if r := q.r.Header.Get("X-Amz-Copy-Source-Range"); r != "" {
		if off, n, err = parseCopyRange(r, src.Size(), q.s.opt.Rules.ClampCopyRange); err != nil {
			return err
		}
	}
	if n > maxBody {
		return errEntityTooLarge.because("The range to copy is larger than 5 GiB")
	}
	sum, err := src.sum(q.r.Context(), off, n)
	if err != nil {
		return err
	}
	p := &part{
		Number:   number,
		Size:     n,
		ETag:     fmt.Sprintf("%x", sum),
		Modified: q.s.now(),
		Content:  src.rec.Content.cut(off, n),
	}
	q.s.segments.hold(p.Content)
	if err := q.s.putPart(u, p); err != nil {
		return err
	}
	return q.answer(struct {
		XMLName      xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ CopyPartResult"`
		LastModified string
		ETag         string
	}{LastModified: p.Modified.Format(xmlTime), ETag: quote(p.ETag)})
}

func (q *request) completeUpload() error {
	u, err := q.findUpload()
	if err != nil {
		return err
	}
	var in struct {
		XMLName xml.Name `xml:"CompleteMultipartUpload"`
		Parts   []struct {
			PartNumber int
			ETag       string
			checksumsXML
		} `xml:"Part"`
	}
	b, err := q.plainBody(maxXML)
	if err != nil {
		return err
	}
	if err := b.decodeXML(&in); err != nil {
		return err
	}
	if len(in.Parts) == 0 || len(in.Parts) > maxParts {
		return errMalformedXML
	}
	want := completion{cond: writeCondition(q.r.Header), size: -1}
	for _, p := range in.Parts {
		want.parts = append(want.parts, partClaim{p.PartNumber, p.ETag, p.byAlgorithm()})
	}
	if v := q.r.Header.Get("X-Amz-Mp-Object-Size"); v != "" {
		if want.size, err = parseOffset(v); err != nil {
			return errInvalidArgument.because("The x-amz-mp-object-size header is not valid")
		}
	}
	if !q.s.opt.Rules.IgnoreChecksums {
		want.checksums = make(map[string]string)
		for name := range q.r.Header {
			if lower := strings.ToLower(name); isChecksumValue(lower) {
				want.checksums[strings.TrimPrefix(lower, checksumPrefix)] = q.r.Header.Get(name)
			}
		}
	}
	o, err := q.s.completeUpload(q.bucket, u, want)
	if err != nil {
		return err
	}
	return q.answer(struct {
		XMLName  xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ CompleteMultipartUploadResult"`
		Location string
		Bucket   string
		Key      string
		ETag     string
		checksumsXML
	}{
		Location:     "http://" + q.r.Host + escape(q.r.URL.Path, true),
		Bucket:       q.bucket,
		Key:          q.key,
		ETag:         quote(o.ETag),
		checksumsXML: newChecksumsXML(o.Checksums),
	})
}

func (q *request) abortUpload() error {
	u, err := q.findUpload()
	if err != nil {
		return err
	}
	if err := q.s.abortUpload(q.bucket, u); err != nil {
		return err
	}
	q.w.WriteHeader(http.StatusNoContent)
	return nil
}

func (q *request) listParts() error {
	u, err := q.findUpload()
	if err != nil {
		return err
	}
	l, err := q.listing("part-number-marker", "max-parts")
	if err != nil {
		return err
	}
	marker := 0
	if l.after != "" {
		if marker, err = strconv.Atoi(l.after); err != nil || marker < 0 {
			return errInvalidArgument.because("The part number marker is not valid")
		}
	}
	type entry struct {
		PartNumber   int
		LastModified string
		ETag         string
		Size         int64
		checksumsXML
	}
	out := struct {
		XMLName              xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListPartsResult"`
		Bucket               string
		Key                  string
		UploadID             string `xml:"UploadId"`
		Initiator            owner
		Owner                owner
		StorageClass         string
		PartNumberMarker     int
		NextPartNumberMarker int
		MaxParts             int
		IsTruncated          bool
		Parts                []entry `xml:"Part"`
	}{
		Bucket:           q.bucket,
		Key:              q.key,
		UploadID:         u.id,
		Initiator:        theOwner,
		Owner:            theOwner,
		StorageClass:     storageClass(u.Header),
		PartNumberMarker: marker,
		MaxParts:         l.max,
	}
	for _, p := range u.partsBehind(marker) {
		if len(out.Parts) == l.max {
			out.IsTruncated = l.max > 0
			break
		}
		out.Parts = append(out.Parts, entry{
			PartNumber:   p.Number,
			LastModified: p.Modified.Format(xmlTime),
			ETag:         quote(p.ETag),
			Size:         p.Size,
			checksumsXML: newChecksumsXML(p.Checksums),
		})
		out.NextPartNumberMarker = p.Number
	}
	return q.answer(out)
}

// partsBehind returns the parts with a higher number, ascending.
func (u *upload) partsBehind(number int) []*part {
	u.mu.Lock()
	defer u.mu.Unlock()
	var out []*part
	for _, n := range slices.Sorted(maps.Keys(u.parts)) {
		if n > number {
			out = append(out, u.parts[n])
		}
	}
	return out
}

func (q *request) listUploads() error {
	l, err := q.listing("key-marker", "max-uploads")
	if err != nil {
		return err
	}
	all, err := q.s.uploadList(q.bucket, l.prefix)
	if err != nil {
		return err
	}
	type entry struct {
		Key          string
		UploadID     string `xml:"UploadId"`
		Initiator    owner
		Owner        owner
		StorageClass string
		Initiated    string
	}
	idMarker := q.query.Get("upload-id-marker")
	out := struct {
		XMLName            xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListMultipartUploadsResult"`
		Bucket             string
		KeyMarker          string
		UploadIDMarker     string `xml:"UploadIdMarker"`
		NextKeyMarker      string `xml:",omitempty"`
		NextUploadIDMarker string `xml:"NextUploadIdMarker,omitempty"`
		Prefix             string
		Delimiter          string `xml:",omitempty"`
		EncodingType       string `xml:",omitempty"`
		MaxUploads         int
		IsTruncated        bool
		Uploads            []entry `xml:"Upload"`
		CommonPrefixes     []commonPrefix
	}{
		Bucket:         q.bucket,
		KeyMarker:      q.encoded(l.after),
		UploadIDMarker: idMarker,
		Prefix:         q.encoded(l.prefix),
		Delimiter:      q.encoded(l.delimiter),
		EncodingType:   q.query.Get("encoding-type"),
		MaxUploads:     l.max,
	}
	last := l.after // key or common prefix
	for _, u := range all {
		key := string(u.Key)
		if key < l.after || key == l.after && u.id <= idMarker {
			continue
		}
		group, grouped := l.group(key)
		if grouped && group == last {
			continue
		}
		if len(out.Uploads)+len(out.CommonPrefixes) == l.max {
			out.IsTruncated = l.max > 0
			break
		}
		if grouped {
			out.CommonPrefixes = append(out.CommonPrefixes, commonPrefix{q.encoded(group)})
			last = group
			out.NextKeyMarker, out.NextUploadIDMarker = q.encoded(group), ""
			continue
		}
		out.Uploads = append(out.Uploads, entry{
			Key:          q.encoded(key),
			UploadID:     u.id,
			Initiator:    theOwner,
			Owner:        theOwner,
			StorageClass: storageClass(u.Header),
			Initiated:    u.Initiated.Format(xmlTime),
		})
		out.NextKeyMarker, out.NextUploadIDMarker = q.encoded(key), u.id
	}
	if !out.IsTruncated {
		out.NextKeyMarker, out.NextUploadIDMarker = "", ""
	}
	return q.answer(out)
}
