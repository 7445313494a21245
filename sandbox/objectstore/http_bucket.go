package objectstore

import (
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

const maxListed = 1000 // entries of one page, and keys of one multi-object delete

type owner struct {
	ID          string
	DisplayName string
}

// theOwner owns everything: the store knows keys, not people.
var theOwner = owner{ID: "imgferry", DisplayName: "imgferry"}

func (q *request) listBuckets() error {
	type entry struct {
		Name         string
		CreationDate string
	}
	out := struct {
		XMLName xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListAllMyBucketsResult"`
		Owner   owner
		Buckets []entry `xml:"Buckets>Bucket"`
	}{Owner: theOwner}
	for _, b := range q.s.bucketList() {
		out.Buckets = append(out.Buckets, entry{b.name, b.created.Format(xmlTime)})
	}
	return q.answer(out)
}

func (q *request) createBucket() error {
	var conf struct {
		LocationConstraint string
		Location           string // as OBS spells it
	}
	if q.r.ContentLength != 0 {
		if err := q.readXML(&conf); err != nil {
			return err
		}
	}
	region := q.s.opt.Region
	for _, wanted := range []string{conf.LocationConstraint, conf.Location} {
		if wanted != "" && region != "" && wanted != region {
			return errLocation.because(fmt.Sprintf("The store is in region %s, not in %s", region, wanted))
		}
	}
	if err := q.s.CreateBucket(q.bucket); err != nil {
		return err
	}
	q.w.Header().Set("Location", "/"+q.bucket)
	return nil
}

func (q *request) headBucket() error {
	if err := q.s.haveBucket(q.bucket); err != nil {
		return err
	}
	q.w.Header().Set("X-Amz-Bucket-Region", q.s.opt.Region)
	return nil
}

func (q *request) deleteBucket() error {
	if err := q.s.deleteBucket(q.bucket); err != nil {
		return err
	}
	q.w.WriteHeader(http.StatusNoContent)
	return nil
}

func (q *request) bucketLocation() error {
	if err := q.s.haveBucket(q.bucket); err != nil {
		return err
	}
	region := q.s.opt.Region
	if region == "us-east-1" {
		region = "" // as S3 has it
	}
	return q.answer(struct {
		XMLName xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ LocationConstraint"`
		Region  string   `xml:",chardata"`
	}{Region: region})
}

// acl answers that the owner may do everything and nobody else anything.
func (q *request) acl() error {
	if err := q.haveResource(); err != nil {
		return err
	}
	type grantee struct {
		XSI  string `xml:"xmlns:xsi,attr"`
		Type string `xml:"xsi:type,attr"`
		owner
	}
	type grant struct {
		Grantee    grantee
		Permission string
	}
	return q.answer(struct {
		XMLName xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ AccessControlPolicy"`
		Owner   owner
		Grants  []grant `xml:"AccessControlList>Grant"`
	}{
		Owner: theOwner,
		Grants: []grant{{
			Grantee:    grantee{XSI: "http://www.w3.org/2001/XMLSchema-instance", Type: "CanonicalUser", owner: theOwner},
			Permission: "FULL_CONTROL",
		}},
	})
}

// putACL takes the one policy that the store has, canned or spelt out.
func (q *request) putACL() error {
	if err := q.haveResource(); err != nil {
		return err
	}
	if err := refusedHeader(q.r.Header); err != nil || q.r.ContentLength == 0 {
		return err
	}
	var in struct {
		XMLName  xml.Name `xml:"AccessControlPolicy"`
		Grantees []struct {
			ID string
		} `xml:"AccessControlList>Grant>Grantee"`
	}
	if err := q.readXML(&in); err != nil {
		return err
	}
	for _, g := range in.Grantees {
		if g.ID != theOwner.ID {
			return errNotImplemented.because("The store has nobody to grant access to but the owner")
		}
	}
	return nil
}

// haveResource fails with ErrNoSuchBucket or ErrNoSuchKey.
func (q *request) haveResource() error {
	if q.key == "" {
		return q.s.haveBucket(q.bucket)
	}
	o, err := q.s.OpenObject(q.bucket, q.key)
	if err != nil {
		return err
	}
	return o.Close()
}

// listing reads what the listing operations have in common.
func (q *request) listing(after, limit string) (listQuery, error) {
	l := listQuery{
		prefix:    q.query.Get("prefix"),
		delimiter: q.query.Get("delimiter"),
		after:     q.query.Get(after),
		max:       maxListed,
	}
	if v := q.query.Get(limit); v != "" {
		n, err := strconv.ParseInt(v, 10, 32)
		if err != nil || n < 0 {
			return l, errInvalidArgument.because("The value of " + limit + " is not valid")
		}
		l.max = int(min(n, maxListed))
	}
	switch e := q.query.Get("encoding-type"); e {
	case "", "url":
	default:
		return l, errInvalidArgument.because("The encoding type is not valid")
	}
	return l, nil
}

// encoded returns s as the request's encoding-type wants it. Without one, bytes that XML can't hold
// are lost, as they are at S3.
func (q *request) encoded(s string) string {
	if q.query.Get("encoding-type") == "url" {
		return escape(s, true)
	}
	return s
}

type commonPrefix struct{ Prefix string }

func (q *request) commonPrefixes(prefixes []string) (out []commonPrefix) {
	for _, p := range prefixes {
		out = append(out, commonPrefix{q.encoded(p)})
	}
	return out
}

type listedObject struct {
	Key          string
	LastModified string
	ETag         string
	Size         int64
	StorageClass string
	Owner        *owner `xml:",omitempty"`
}

// listObjects answers both versions of the call; the XML of version 2 differs in how pages go on.
func (q *request) listObjects() error {
	v2 := q.query.Get("list-type") == "2"
	after := "marker"
	if v2 {
		after = "start-after"
	}
	l, err := q.listing(after, "max-keys")
	if err != nil {
		return err
	}
	token := q.query.Get("continuation-token")
	if v2 && q.query.Has("continuation-token") {
		p, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil || len(p) == 0 {
			return errInvalidArgument.because("The continuation token is not valid")
		}
		l.after = string(p)
	}
	page, err := q.s.list(q.bucket, l)
	if err != nil {
		return err
	}
	out := struct {
		XMLName               xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListBucketResult"`
		Name                  string
		Prefix                string
		Delimiter             string  `xml:",omitempty"`
		Marker                *string // version 1
		NextMarker            string  `xml:",omitempty"`
		StartAfter            string  `xml:",omitempty"` // version 2
		ContinuationToken     string  `xml:",omitempty"`
		NextContinuationToken string  `xml:",omitempty"`
		KeyCount              *int
		MaxKeys               int
		EncodingType          string `xml:",omitempty"`
		IsTruncated           bool
		Contents              []listedObject
		CommonPrefixes        []commonPrefix
	}{
		Name:           q.bucket,
		Prefix:         q.encoded(l.prefix),
		Delimiter:      q.encoded(l.delimiter),
		MaxKeys:        l.max,
		EncodingType:   q.query.Get("encoding-type"),
		IsTruncated:    page.truncated,
		CommonPrefixes: q.commonPrefixes(page.prefixes),
	}
	withOwner := &theOwner
	if v2 {
		n := len(page.objects) + len(page.prefixes)
		out.KeyCount = &n
		out.StartAfter = q.encoded(q.query.Get("start-after"))
		out.ContinuationToken = token
		if page.truncated {
			out.NextContinuationToken = base64.RawURLEncoding.EncodeToString([]byte(page.last))
		}
		if q.query.Get("fetch-owner") != "true" {
			withOwner = nil
		}
	} else {
		marker := q.encoded(l.after)
		out.Marker = &marker
		if page.truncated {
			out.NextMarker = q.encoded(page.last)
		}
	}
	for _, o := range page.objects {
		out.Contents = append(out.Contents, listedObject{
			Key:          q.encoded(string(o.Key)),
			LastModified: o.Modified.Format(xmlTime),
			ETag:         quote(o.ETag),
			Size:         o.Size,
			StorageClass: storageClass(o.Header),
			Owner:        withOwner,
		})
	}
	return q.answer(out)
}

// deleteObjects is the multi-object delete.
func (q *request) deleteObjects() error {
	if err := q.s.haveBucket(q.bucket); err != nil {
		return err
	}
	if q.r.Header.Get("Content-Md5") == "" && !promisesChecksum(q.r.Header) {
		return errInvalidRequest.because("The Content-MD5 header is missing")
	}
	var in struct {
		XMLName xml.Name `xml:"Delete"`
		Quiet   bool
		Objects []struct {
			Key       string
			VersionID string `xml:"VersionId"`
		} `xml:"Object"`
	}
	if err := q.readXML(&in); err != nil {
		return err
	}
	if len(in.Objects) == 0 || len(in.Objects) > maxListed {
		return errMalformedXML
	}
	type deleted struct{ Key string }
	type failed struct{ Key, Code, Message string }
	var out struct {
		XMLName xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ DeleteResult"`
		Deleted []deleted
		Error   []failed
	}
	var keys []string
	for _, o := range in.Objects {
		err := checkKey(o.Key)
		if o.VersionID != "" && o.VersionID != "null" {
			err = errNoSuchVersion
		}
		if err != nil {
			e, _ := asError(err)
			out.Error = append(out.Error, failed{o.Key, e.Code, e.Message})
			continue
		}
		keys = append(keys, o.Key)
	}
	if err := q.s.removeObjects(q.bucket, keys); err != nil {
		return err
	}
	if !in.Quiet {
		for _, key := range keys {
			out.Deleted = append(out.Deleted, deleted{key})
		}
	}
	return q.answer(out)
}

// promisesChecksum reports whether a header or trailer carries a checksum of the body.
func promisesChecksum(h http.Header) bool {
	for name := range h {
		if isChecksumValue(strings.ToLower(name)) {
			return true
		}
	}
	return h.Get("X-Amz-Trailer") != ""
}
