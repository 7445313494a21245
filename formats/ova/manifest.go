package ova

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"
)

// Digest is what a manifest says of a file.
type Digest struct {
	// Algorithm is SHA1, SHA256 or SHA512.
	Algorithm string
	Sum       []byte
}

// Hash returns a new hash of the digest's algorithm.
func (d Digest) Hash() hash.Hash {
	switch d.Algorithm {
	case "SHA1":
		return sha1.New()
	case "SHA512":
		return sha512.New()
	}
	return sha256.New()
}

// ParseManifest reads lines such as "SHA256(disk.vmdk)= 9f86..." (DSP0243, 5.1). Each file has one.
func ParseManifest(p []byte) (map[string]Digest, error) {
	if len(p) > MaxManifest {
		return nil, fmt.Errorf("the manifest has %d bytes: the most is %d", len(p), MaxManifest)
	}
	files := map[string]Digest{}
	number := 0
	for line := range strings.Lines(string(p)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		algorithm, rest, ok := strings.Cut(line, "(")
		i := strings.LastIndex(rest, ")")
		if !ok || i < 0 {
			return nil, fmt.Errorf("line %d of the manifest is not ALGORITHM(FILE)= DIGEST", number)
		}
		name, value := rest[:i], strings.TrimSpace(rest[i+1:])
		value, ok = strings.CutPrefix(value, "=")
		d := Digest{Algorithm: strings.ToUpper(strings.ReplaceAll(strings.TrimSpace(algorithm), "-", ""))}
		switch d.Algorithm {
		case "SHA1", "SHA256", "SHA512":
		default:
			return nil, fmt.Errorf("line %d of the manifest has the digest %q: SHA1, SHA256 and SHA512 are known", number, algorithm)
		}
		var err error
		d.Sum, err = hex.DecodeString(strings.TrimSpace(value))
		if !ok || err != nil || len(d.Sum) != d.Hash().Size() {
			return nil, fmt.Errorf("line %d of the manifest has no %s digest", number, d.Algorithm)
		}
		if _, twice := files[name]; twice {
			return nil, fmt.Errorf("line %d of the manifest is the second for %q", number, name)
		}
		files[name] = d
	}
	return files, nil
}
