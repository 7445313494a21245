//go:build unix

package main

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"golang.org/x/time/rate"
)

// link is a TCP proxy before a server whose way there has a limited speed, which all connections share.
type link struct {
	listener net.Listener
	limit    *rate.Limiter
	target   string
	wg       sync.WaitGroup
	mu       sync.Mutex // guards conns
	conns    map[net.Conn]bool
}

// burst is the largest piece that passes at once, in bytes.
const burst = 64 << 10

// newLink starts a link to target with that many bytes a second.
func newLink(target string, speed float64) (*link, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	k := &link{listener: l, limit: rate.NewLimiter(rate.Limit(speed), burst), target: target, conns: make(map[net.Conn]bool)}
	k.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			k.wg.Go(func() { k.serve(c) })
		}
	})
	return k, nil
}

// endpoint is where clients connect to.
func (k *link) endpoint() string { return "http://" + k.listener.Addr().String() }

// close ends the link and its connections.
func (k *link) close() {
	k.listener.Close()
	k.mu.Lock()
	for c := range k.conns {
		c.Close()
	}
	k.mu.Unlock()
	k.wg.Wait()
}

func (k *link) keep(c net.Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.conns[c] = true
}

func (k *link) drop(c net.Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.conns, c)
	c.Close()
}

func (k *link) serve(client net.Conn) {
	k.keep(client)
	defer k.drop(client)
	server, err := net.Dial("tcp", k.target)
	if err != nil {
		return
	}
	k.keep(server)
	defer k.drop(server)
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(client, server) // whichever side ends it, ends both
		client.Close()
	})
	both.Go(func() {
		_ = k.pass(server, client)
		server.Close()
	})
	both.Wait()
}

// pass copies at the link's speed.
func (k *link) pass(to io.Writer, from io.Reader) error {
	buf := make([]byte, burst)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if err := k.limit.WaitN(context.Background(), n); err != nil {
				return err
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
