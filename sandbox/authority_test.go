package sandbox

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestAuthority(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	now := time.Now()
	a, err := openAuthority(dir, now)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(dir, keyFile)); err != nil || st.Mode().Perm()&0o077 != 0 && os.PathSeparator == '/' {
		t.Errorf("the key is readable by others: %v, %v", st, err)
	}
	certificate, err := a.issue(now, &net.TCPAddr{IP: net.IPv4(10, 1, 2, 3)}, &net.TCPAddr{IP: net.IPv4(8, 8, 8, 8)}, &net.TCPAddr{IP: net.IPv4zero})
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(certificate.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.pem)
	verify := func(c *x509.Certificate, name string) error {
		_, err := c.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: now})
		return err
	}
	for name, good := range map[string]bool{
		"localhost": true, StoreHost: true, "bucket." + StoreHost: true, "127.0.0.1": true, "::1": true, "10.1.2.3": true,
		"8.8.8.8": false, "a.b." + StoreHost: false, "obs.cn-north-4.myhuaweicloud.com": false,
	} {
		if err := verify(leaf, name); (err == nil) != good {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Whoever steals the key can't be somebody else's host with it.
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := *leaf
	template.DNSNames, template.IPAddresses = []string{"obs.cn-north-4.myhuaweicloud.com"}, nil
	der, err := x509.CreateCertificate(rand.Reader, &template, a.certificate, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	forged, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(forged, "obs.cn-north-4.myhuaweicloud.com"); err == nil || !strings.Contains(err.Error(), "not permitted") {
		t.Errorf("a forged certificate: %v", err)
	}

	// The same one again, and its certificate put back.
	if err := os.WriteFile(a.file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := openAuthority(dir, now)
	if err != nil || string(again.pem) != string(a.pem) {
		t.Fatalf("another authority after a restart: %v", err)
	}
	if p, err := os.ReadFile(a.file); err != nil || string(p) != string(a.pem) {
		t.Errorf("%s, %v", p, err)
	}
	later, err := openAuthority(dir, now.Add(authorityLife))
	if err != nil || string(later.pem) == string(a.pem) {
		t.Errorf("an authority that has expired is used: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, keyFile), a.pem, 0o600); err != nil { // without the key
		t.Fatal(err)
	}
	if _, err := openAuthority(dir, now); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("damaged: %v", err)
	}
}
