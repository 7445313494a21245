package sandbox

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Files of the certificate authority, in a folder of the data directory.
const (
	authorityDir  = "tls"
	authorityFile = "ca.pem"     // for clients
	keyFile       = "ca-key.pem" // certificate and key: one file, so that they always match
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	// certificateLife is what the strictest clients accept (Apple: 825 days). Each start makes a new one.
	certificateLife = 800 * 24 * time.Hour
	// clockSlack is how far a client's clock may be behind.
	clockSlack = time.Hour
)

// authority is a certificate authority of the sandbox's own. Whoever trusts it trusts it for this machine and
// private networks only: the certificate itself says so (RFC 5280, section 4.2.1.10), since its key lies
// unprotected in a data directory.
type authority struct {
	file        string // of the certificate
	pem         []byte
	certificate *x509.Certificate
	key         crypto.Signer
}

// openAuthority reads the authority in dir, and makes a new one if there is none or it has expired.
func openAuthority(dir string, now time.Time) (*authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, keyFile)
	p, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return newAuthority(dir, now)
	case err != nil:
		return nil, err
	}
	a, err := parseAuthority(p)
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: %w; remove it to have a new authority made", path, err)
	}
	if now.Add(certificateLife).After(a.certificate.NotAfter) {
		return newAuthority(dir, now)
	}
	return a, a.publish(dir)
}

func newAuthority(dir string, now time.Time) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "imgferry sandbox " + rand.Text()[:6]},
		NotBefore: now.Add(-clockSlack), NotAfter: now.Add(authorityLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
		PermittedDNSDomainsCritical: true, PermittedDNSDomains: []string{"localhost"}, PermittedIPRanges: permitted(),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	p := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	p = append(p, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})...)
	if err := writeFile(filepath.Join(dir, keyFile), p, 0o600); err != nil {
		return nil, err
	}
	a, err := parseAuthority(p)
	if err != nil {
		return nil, err
	}
	return a, a.publish(dir)
}

// parseAuthority reads a certificate and its key.
func parseAuthority(p []byte) (*authority, error) {
	pair, err := tls.X509KeyPair(p, p)
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, errors.New("its key can't sign")
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})
	return &authority{pem: public, certificate: pair.Leaf, key: key}, nil
}

// publish writes the certificate to where clients are told to find it.
func (a *authority) publish(dir string) (err error) {
	if a.file, err = filepath.Abs(filepath.Join(dir, authorityFile)); err != nil {
		return err
	}
	if have, err := os.ReadFile(a.file); err == nil && bytes.Equal(have, a.pem) {
		return nil
	}
	return writeFile(a.file, a.pem, 0o644)
}

// issue makes a certificate for services at those addresses.
func (a *authority) issue(now time.Time, at ...net.Addr) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	ips, err := addresses(at...)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "imgferry sandbox"},
		NotBefore: now.Add(-clockSlack), NotAfter: now.Add(certificateLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost", StoreHost, "*." + StoreHost}, IPAddresses: ips,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der, a.certificate.Raw}, PrivateKey: key}, nil
}

// addresses returns the addresses by which services are reached and that the authority may vouch for: loopback,
// and private ones if they listen there.
func addresses(at ...net.Addr) ([]net.IP, error) {
	ips := []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	for _, a := range at {
		tcp, ok := a.(*net.TCPAddr)
		if !ok {
			continue
		}
		more := []net.Addr{&net.IPNet{IP: tcp.IP}}
		if tcp.IP.IsUnspecified() {
			var err error
			if more, err = net.InterfaceAddrs(); err != nil {
				return nil, err
			}
		}
		for _, m := range more {
			if n, ok := m.(*net.IPNet); ok && isPermitted(n.IP) {
				ips = append(ips, n.IP)
			}
		}
	}
	return ips, nil
}

func isPermitted(ip net.IP) bool {
	return slices.ContainsFunc(permitted(), func(n *net.IPNet) bool { return n.Contains(ip) })
}

// permitted are the networks of this machine (RFC 1122, RFC 4291) and private ones (RFC 1918, RFC 4193).
func permitted() []*net.IPNet {
	network := func(ones int, ip ...byte) *net.IPNet {
		return &net.IPNet{IP: ip, Mask: net.CIDRMask(ones, 8*len(ip))}
	}
	unique := make([]byte, net.IPv6len)
	unique[0] = 0xfc
	return []*net.IPNet{
		network(8, 127, 0, 0, 0), network(8, 10, 0, 0, 0), network(12, 172, 16, 0, 0), network(16, 192, 168, 0, 0),
		network(128, net.IPv6loopback...), network(7, unique...),
	}
}

// serial returns 126 random bits, positive as RFC 5280, section 4.1.2.2, wants it.
func serial() *big.Int {
	p := make([]byte, 16)
	rand.Read(p) // never fails
	p[0] = p[0]&0x3f | 0x40
	return new(big.Int).SetBytes(p)
}

// writeFile replaces a file as a whole: a crash leaves the old one or the new.
func writeFile(path string, p []byte, mode fs.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(p)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
