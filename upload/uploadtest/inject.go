package uploadtest

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// pieces and pause are what a slow body is made of.
const (
	pieces = 8
	pause  = 2 * time.Millisecond
)

// fail makes a request fail in the way of class. Every connection that it meets ends.
func (p *Proxy) fail(w http.ResponseWriter, r *http.Request, call Call, class Class) {
	switch class {
	case ResetRequest:
		n := int64(p.upTo(int(r.ContentLength)))
		if call.hasBody() {
			// The store sees as much, then the end: its answer is of no interest.
			_, _, _ = shortly(r.Context(), p.target.Host, p.outgoing(r, io.LimitReader(r.Body, n)))
		}
		reset(hijack(w))
	case TruncatedRequest:
		n := int64(p.upTo(int(r.ContentLength)))
		resp, content, err := shortly(r.Context(), p.target.Host, p.outgoing(r, io.LimitReader(r.Body, n)))
		if err != nil {
			reset(hijack(w))
			return
		}
		_, _ = io.Copy(io.Discard, r.Body) // or the client might be reset before it reads the answer
		raw, _, err := wireForm(resp, content)
		p.send(hijack(w), raw, err)
	case DamagedRequest:
		body, err := io.ReadAll(r.Body)
		if err != nil || len(body) == 0 {
			panic(http.ErrAbortHandler)
		}
		body[p.upTo(len(body))] ^= 1
		raw, _, err := p.do(r, bytes.NewReader(body), nil)
		p.send(hijack(w), raw, err)
	case SlowRequest:
		raw, _, err := p.do(r, &slow{r.Body, max(1, r.ContentLength/pieces)}, nil)
		p.send(hijack(w), raw, err)
	case StalledRequest:
		_, _ = io.CopyN(io.Discard, r.Body, r.ContentLength/2)
		conn := hijack(w)
		p.wait(p.hold)
		reset(conn)
	case ResetReply, ReplyLost, TruncatedReply, StalledReply, SlowReply, FailedAfterWork, WrongETag, Lie:
		p.failReply(w, r, call, class)
	default:
		_, _ = io.Copy(io.Discard, r.Body)
		p.refuse(w, r, call, class)
	}
}

// failReply lets the store do the work first.
func (p *Proxy) failReply(w http.ResponseWriter, r *http.Request, call Call, class Class) {
	var change func(*http.Response, []byte) []byte
	switch class {
	case WrongETag:
		change = p.wrongETag
	case Lie:
		change = func(_ *http.Response, content []byte) []byte { return []byte(p.lie(call, string(content))) }
	}
	raw, header, err := p.do(r, r.Body, change)
	conn := hijack(w)
	if err != nil {
		reset(conn)
		return
	}
	switch class {
	case ReplyLost:
		conn.Close()
	case ResetReply:
		_, _ = conn.Write(raw[:p.upTo(len(raw))])
		reset(conn)
	case TruncatedReply:
		n := header + p.upTo(len(raw)-header)
		if header == len(raw) {
			n = p.upTo(header)
		}
		p.send(conn, raw[:n], nil)
	case StalledReply:
		_, _ = conn.Write(raw[:p.upTo(len(raw))])
		p.wait(p.hold)
		reset(conn)
	case SlowReply:
		size := max(1, len(raw)/pieces)
		for len(raw) > size {
			_, _ = conn.Write(raw[:size]) // a client that is gone misses nothing
			raw = raw[size:]
			p.wait(pause)
		}
		p.send(conn, raw, nil)
	case FailedAfterWork:
		raw, _, err := answerOf(r, http.StatusInternalServerError, "", errorXML("InternalError"))
		p.send(conn, raw, err)
	default:
		p.send(conn, raw, nil)
	}
}

// refuse answers without asking the store.
func (p *Proxy) refuse(w http.ResponseWriter, r *http.Request, call Call, class Class) {
	status, retryAfter, body := 0, "", ""
	switch class {
	case InternalError:
		status, body = http.StatusInternalServerError, errorXML("InternalError")
	case Unavailable:
		status = http.StatusServiceUnavailable // a load balancer's, without a word
	case TooMany:
		status, body = http.StatusTooManyRequests, errorXML("TooManyRequests")
	case SlowDown:
		status, retryAfter, body = http.StatusServiceUnavailable, "1", errorXML("SlowDown")
	case Tomorrow:
		status, retryAfter, body = http.StatusServiceUnavailable, "86400", errorXML("ServiceUnavailable")
	case ErrorIn200:
		status, body = http.StatusOK, errorXML("InternalError")
	case Garbage:
		status, body = http.StatusOK, "<html><body>Welcome to the hotel. Please log in.</body></html>"
	case Denied:
		status, body = http.StatusForbidden, errorXML("AccessDenied")
	case Vanished:
		status, body = http.StatusNotFound, errorXML("NoSuchUpload")
	default:
		panic("no such class: " + class)
	}
	raw, _, err := answerOf(r, status, retryAfter, body)
	p.send(hijack(w), raw, err)
}

// answerOf returns an answer of our own as it goes over the wire.
func answerOf(r *http.Request, status int, retryAfter, body string) ([]byte, int, error) {
	kind := "application/xml"
	if strings.HasPrefix(body, "<html>") {
		kind = "text/html"
	}
	h := http.Header{"Content-Type": {kind}, "Date": {time.Now().UTC().Format(http.TimeFormat)}}
	if retryAfter != "" {
		h.Set("Retry-After", retryAfter)
	}
	if r.Method == http.MethodHead {
		body = ""
	}
	return wireForm(&http.Response{StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Header: h, Request: r}, []byte(body))
}

func errorXML(code string) string {
	return `<?xml version="1.0" encoding="UTF-8"?><Error><Code>` + code + `</Code><Message>Made by the proxy.</Message><RequestId>P1</RequestId></Error>`
}

// hijack takes the connection over; nobody else closes it from now on.
func hijack(w http.ResponseWriter) net.Conn {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return conn
}

// reset closes a connection so that the other side sees a reset.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // without it the client sees an end instead
	}
	conn.Close()
}

// send sends raw and ends the connection, or resets it after err.
func (p *Proxy) send(conn net.Conn, raw []byte, err error) {
	if err != nil {
		reset(conn)
		return
	}
	_, _ = conn.Write(raw) // a client that is gone misses nothing
	conn.Close()
}

// wait lets time pass, unless the proxy ends.
func (p *Proxy) wait(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.closing.Done():
	}
}

// slow reads in pieces of size bytes with pauses.
type slow struct {
	r    io.Reader
	size int64
}

func (s *slow) Read(p []byte) (int, error) {
	time.Sleep(pause)
	return s.r.Read(p[:min(int64(len(p)), s.size)])
}

// md5Text is an ETag, or the first part of one.
var md5Text = regexp.MustCompile(`[0-9a-f]{32}`)

// wrongETag changes the ETag in a reply's header and one of those in its body.
func (p *Proxy) wrongETag(resp *http.Response, content []byte) []byte {
	wrong := fmt.Sprintf("%032x", p.upTo(1<<30))
	for _, name := range []string{"Etag"} {
		if v := resp.Header.Get(name); v != "" {
			resp.Header.Set(name, md5Text.ReplaceAllString(v, wrong))
		}
	}
	found := md5Text.FindAllIndex(content, -1)
	if len(found) == 0 {
		return content
	}
	at := found[p.upTo(len(found))]
	return append(append(bytes.Clone(content[:at[0]]), wrong...), content[at[1]:]...)
}

var (
	listedPart   = regexp.MustCompile(`(?s)<Part>.*?</Part>`)
	listedUpload = regexp.MustCompile(`(?s)<Upload>.*?</Upload>`)
	partSize     = regexp.MustCompile(`<Size>\d+</Size>`)
	uploadID     = regexp.MustCompile(`<UploadId>[^<]+</UploadId>`)
	uploadKey    = regexp.MustCompile(`<Key>[^<]+</Key>`)
	truncated    = regexp.MustCompile(`<IsTruncated>false</IsTruncated>`)
)

// lie changes something in a listing.
func (p *Proxy) lie(call Call, list string) string {
	entry := listedPart
	lies := []func(string) string{
		func(e string) string { return partSize.ReplaceAllString(e, "<Size>1</Size>") },
		func(e string) string { return partSize.ReplaceAllString(e, "<Size>-5</Size>") },
		func(e string) string {
			return e + strings.Replace(e, "<PartNumber>", "<PartNumber>99", 1) // a part that nobody sent
		},
	}
	if call == ListUploads {
		entry = listedUpload
		lies = []func(string) string{
			func(e string) string { return e + uploadID.ReplaceAllString(e, "<UploadId>nobody</UploadId>") },
			func(e string) string { return e + uploadKey.ReplaceAllString(e, "<Key>something/else</Key>") },
			func(e string) string { return uploadKey.ReplaceAllString(e, "<Key></Key>") },
		}
	}
	lies = append(lies,
		func(e string) string { return "" },
		func(e string) string { return e + e },
	)
	n := p.upTo(len(lies) + 1)
	found := entry.FindAllStringIndex(list, -1)
	if len(found) == 0 || n == len(lies) {
		return truncated.ReplaceAllString(list, "<IsTruncated>true</IsTruncated>") // and the next page is the same
	}
	at := found[p.upTo(len(found))]
	return list[:at[0]] + lies[n](list[at[0]:at[1]]) + list[at[1]:]
}
