package source

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
)

// A server chooses where a redirect leads, and could lead into the network of whoever runs this
// program: to its own machine, to others behind the firewall, or to the address where a cloud's
// machines find their credentials (169.254.169.254). So redirects do not go deeper than the address
// that the user named.

// reach says how deep redirects may lead.
type reach struct{ loopback, private bool }

// redirectedKey marks the context of a request to where the server redirected.
type redirectedKey struct{}

// reachError is a redirect to where it must not lead.
type reachError struct{ text string }

func (e *reachError) Error() string { return e.text }

// reachOf is what the address that the user named allows, as far as it says by itself.
func reachOf(u *url.URL) reach {
	host := strings.ToLower(u.Hostname())
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return reach{true, true}
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return reach{}
	}
	return reachOfIP(ip.Unmap())
}

func reachOfIP(ip netip.Addr) reach {
	return reach{ip.IsLoopback(), ip.IsPrivate() || ip.IsLoopback()}
}

// guard looks at the address of a new connection, before anything is sent: to the host that the user
// named, it says how deep redirects may lead; to another, it may be refused. Looking at the name before
// the connection would not do: the name may mean another address a moment later.
func (h *HTTP) guard(a net.Addr, redirected bool) error {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return nil // no address of a network
	}
	ip := tcp.AddrPort().Addr().Unmap()
	h.mu.Lock()
	defer h.mu.Unlock()
	if redirected {
		return h.reach.check(ip)
	}
	h.reach = reachOfIP(ip)
	return nil
}

// sharedSpace is that of carriers and of some clouds' own services (RFC 6598).
var sharedSpace = netip.MustParsePrefix("100.64.0.0/10")

// check refuses an address that a redirect must not lead to.
func (r reach) check(ip netip.Addr) error {
	inner := ip.IsPrivate() || sharedSpace.Contains(ip)
	if ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() || ip.IsLoopback() && !r.loopback || inner && !r.private {
		return &reachError{fmt.Sprintf("the server redirects to %s, an address of the inner network: name that address yourself if it is meant", ip)}
	}
	return nil
}

// checkLiteral is check for what goes through a proxy: names are looked up there.
func (r reach) checkLiteral(u *url.URL) error {
	host := strings.ToLower(u.Hostname())
	if ip, err := netip.ParseAddr(host); err == nil {
		return r.check(ip.Unmap())
	}
	if (host == "localhost" || strings.HasSuffix(host, ".localhost")) && !r.loopback {
		return &reachError{"the server redirects to this machine: name that address yourself if it is meant"}
	}
	return nil
}

// follow returns where a redirect from a place leads, if it may.
func (h *HTTP) follow(from *hop, location string) (*hop, error) {
	if location == "" || len(location) > maxURL {
		return nil, errors.New("the server redirects, but does not say where to")
	}
	u, err := from.url.Parse(location)
	if err != nil || checkURL(u) != nil || u.User != nil {
		return nil, errors.New("the server redirects to what is no address of a web server")
	}
	if from.url.Scheme == "https" && u.Scheme != "https" {
		return nil, fmt.Errorf("the server redirects from https to http (%s): name that address yourself if it is meant", publicName(u))
	}
	u.Fragment = ""
	// Once away from the host that the user named, nothing leads back to its credentials.
	same := from.user && u.Scheme == h.first.Scheme && strings.EqualFold(u.Host, h.first.Host)
	return &hop{u, same}, nil
}
