package source

import (
	"net"
	"net/netip"
	"net/url"
	"testing"
)

// TestReach: redirects do not lead deeper into the network than the address that the user named.
func TestReach(t *testing.T) {
	public, private, loopback := netip.MustParseAddr("93.184.216.34"), netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("127.0.0.1")
	for _, c := range []struct {
		from netip.Addr
		to   string
		ok   bool
	}{
		{public, "8.8.8.8", true}, {public, "2001:4860::8888", true},
		{public, "127.0.0.1", false}, {public, "::1", false}, {public, "::ffff:127.0.0.1", false}, {public, "10.0.0.1", false},
		{public, "192.168.1.1", false}, {public, "fd00::1", false}, {public, "100.100.100.200", false},
		{public, "169.254.169.254", false}, {public, "fe80::1", false}, {public, "0.0.0.0", false}, {public, "224.0.0.1", false},
		{private, "10.9.9.9", true}, {private, "8.8.8.8", true}, {private, "127.0.0.1", false}, {private, "169.254.169.254", false},
		{loopback, "127.0.0.2", true}, {loopback, "10.0.0.1", true}, {loopback, "169.254.169.254", false},
	} {
		h := &HTTP{guarded: true}
		if err := h.guard(&net.TCPAddr{IP: c.from.AsSlice()}, false); err != nil {
			t.Errorf("%v was named by the user: %v", c.from, err)
		}
		err := h.guard(&net.TCPAddr{IP: netip.MustParseAddr(c.to).AsSlice()}, true)
		if (err == nil) != c.ok {
			t.Errorf("from %v to %s: %v", c.from, c.to, err)
		}
	}
	for to, ok := range map[string]bool{"http://example.com/": true, "http://localhost:1/": false, "http://a.localhost/": false, "http://169.254.169.254/": false, "http://[::1]/": false} {
		u, err := url.Parse(to)
		if err != nil {
			t.Fatal(err)
		}
		if err := (reach{}).checkLiteral(u); (err == nil) != ok {
			t.Errorf("through a proxy to %s: %v", to, err)
		}
	}
}

func TestParseContentRange(t *testing.T) {
	for s, ok := range map[string]bool{
		"bytes 0-0/1": true, "bytes 5-9/10": true, "bytes 5-10/10": false, "bytes 5-4/10": false, "bytes 0-0/*": false, "bytes */10": false,
		"Bytes 0-0/1": false, "bytes 0-0": false, "bytes +0-0/1": false, "bytes 0-0/9223372036854775808": false, "": false, "bytes -1-0/1": false,
	} {
		if _, _, _, err := parseContentRange(s); (err == nil) != ok {
			t.Errorf("%q: %v", s, err)
		}
	}
}
