// Package uploadtest is test support for uploads: a suite of what package upload/obs needs of a
// store, which any S3 server can be put through (Run); independent servers to put through it
// (MinIO, VersityGW); and a proxy before a store that makes it fail in every way (Proxy).
//
// No code that ships imports it.
package uploadtest

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"imgferry/upload"
	"imgferry/upload/obs"
)

// Server is a store to put through the suite.
type Server struct {
	// Config reaches a bucket that is there and that nobody else uses, over plain HTTP with the
	// bucket in the path.
	Config obs.Config
	// KMS says that the bucket encrypts with a key of a key management service, so that no ETag is an MD5.
	KMS bool
	// Known says which checks the server is known to fail, and why.
	Known map[string]string
}

// check is one thing that a store must do. It works on keys below its own prefix.
type check struct {
	name string
	f    func(*bench) error
	long bool // only where IMGFERRY_LONG is set
}

// checks are all of the suite.
var checks = []check{
	{name: "1,100 parts are listed in pages, and gone once aborted", f: manyParts},
	{name: "parts of different sizes, sent at once, become one object", f: differentParts},
	{name: "the last write of a part's number wins", f: lastWrite},
	{name: "a body with another MD5 is refused", f: wrongMD5},
	{name: "a truncated body is refused", f: truncatedBody},
	{name: "Complete refuses parts that are not there", f: wrongComplete},
	{name: "Complete refuses small parts before the last", f: smallParts},
	{name: "what a killed client had sent is not sent again", f: killedClient},
	{name: "parts are copied from ranges of an object", f: partCopy},
	{name: "a part copy of another object, or of none, is refused", f: partCopyRefused},
	{name: "ETags are MD5s", f: etags},
	{name: "data and zeros become one object, also after a kill, with a journal", f: journaled},
	{name: "encryption is done as asked for, or refused", f: encryption},
	{name: "metadata comes back", f: metadata},
	{name: "metadata is replaced on the condition of an ETag", f: conditionalCopy},
	{name: "Complete leaves an object alone if told to", f: completeNew},
	{name: "two uploads of one key are told apart", f: twoUploads},
	{name: "unfinished uploads are listed by their exact key", f: exactKey},
	{name: "unfinished uploads are listed by a prefix of their keys", f: prefixes},
	{name: "unfinished uploads are listed newest first", f: newestFirst},
	{name: "unfinished uploads are listed in pages", f: manyUploads, long: true},
	{name: "keys may need escaping", f: oddKeys},
	{name: "ranges are read", f: ranges},
	{name: "ranges are read on the condition of an ETag", f: conditionalGet},
	{name: "a range past the end is refused", f: rangePastEnd},
	{name: "empty and small objects", f: smallObjects},
	{name: "what is missing has its error", f: missing},
	{name: "a missing bucket has its error", f: missingBucket},
	{name: "an unknown access key is denied", f: wrongKey},
	{name: "a wrong secret is denied", f: wrongSecret},
	{name: "a wrong clock is told", f: wrongClock},
}

// Run puts a server through the suite. A check that the server is known to fail must fail.
func Run(t *testing.T, s Server) {
	names := make(map[string]bool)
	for i, c := range checks {
		names[c.name] = true
		t.Run(c.name, func(t *testing.T) {
			if c.long && os.Getenv("IMGFERRY_LONG") == "" {
				t.Skip("takes long: set IMGFERRY_LONG=1")
			}
			b := &bench{ctx: t.Context(), server: s, prefix: fmt.Sprintf("check-%02d/", i)}
			bucket, err := b.open()
			if err != nil {
				t.Fatal(err)
			}
			b.Bucket = bucket
			err = c.f(b)
			b.close()
			why, known := s.Known[c.name]
			switch {
			case known && err != nil:
				t.Skipf("known (%s): %v", why, err)
			case known:
				t.Errorf("passes, although it is listed as known to fail: %s", why)
			case err != nil:
				t.Error(err)
			}
		})
	}
	for name := range s.Known {
		if !names[name] {
			t.Errorf("no check is called %q", name)
		}
	}
}

// bench is what one check works with.
type bench struct {
	*obs.Bucket
	ctx    context.Context
	server Server
	prefix string
	opened []*http.Transport
}

// open returns the bucket, with other settings.
func (b *bench) open(change ...func(*obs.Config)) (*obs.Bucket, error) {
	c := b.server.Config
	transport := obs.NewTransport(0)
	b.opened = append(b.opened, transport)
	c.Transport = transport
	for _, f := range change {
		f(&c)
	}
	return obs.New(c)
}

func (b *bench) close() {
	for _, t := range b.opened {
		t.CloseIdleConnections()
	}
}

// key returns a key of this check.
func (b *bench) key(name string) string { return b.prefix + name }

// unfinished lists the unfinished uploads of exactly one key.
func (b *bench) unfinished(key string) ([]upload.Unfinished, error) {
	list, err := b.Uploads(b.ctx, key)
	if err != nil {
		return nil, err
	}
	var found []upload.Unfinished
	for _, u := range list {
		if u.Key == key {
			found = append(found, u)
		}
	}
	return found, nil
}

// hostOf is an endpoint without its scheme.
func hostOf(endpoint string) string {
	_, host, ok := strings.Cut(endpoint, "://")
	if !ok {
		return endpoint
	}
	return strings.TrimSuffix(host, "/")
}
