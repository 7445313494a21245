package obs

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/minio/minio-go/v7/pkg/encrypt"
)

// Encryption is how a store is asked to encrypt objects by itself. The zero value is: as it does by
// default.
type Encryption struct {
	// KMS asks for a key of the key management service: the one of KeyID, or the account's default.
	KMS   bool
	KeyID string
	// AES256 asks for keys that the store manages.
	AES256 bool
}

// maxKeyID bounds the id of a key: an ARN with an alias has a few hundred bytes.
const maxKeyID = 2048

// ParseEncryption takes "AES256", "kms" or "kms:KEYID"; "" is the zero value.
func ParseEncryption(s string) (Encryption, error) {
	name, id, hasID := strings.Cut(s, ":")
	switch {
	case s == "":
		return Encryption{}, nil
	case s == "AES256":
		return Encryption{AES256: true}, nil
	case name == "kms" && (!hasID || id != "") && len(id) <= maxKeyID && !strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return Encryption{KMS: true, KeyID: id}, nil
	}
	return Encryption{}, fmt.Errorf("encryption is AES256, kms or kms:KEYID, not %q", s)
}

// On says that something is asked for.
func (e Encryption) On() bool { return e.KMS || e.AES256 }

func (e Encryption) serverSide() (encrypt.ServerSide, error) {
	switch {
	case e.KMS:
		return encrypt.NewSSEKMS(e.KeyID, nil)
	case e.AES256:
		return encrypt.NewSSE(), nil
	}
	return nil, nil
}

// The headers of an answer that say how an object is encrypted, and that it is with a key of the customer's.
const (
	amzEncryption = "x-amz-server-side-encryption"
	obsEncryption = "x-obs-server-side-encryption"
	amzCustomer   = amzEncryption + "-customer-algorithm"
	obsCustomer   = obsEncryption + "-customer-algorithm"
)

// opaqueETags reports whether an answer says that an object is encrypted in a way in which its ETags are no
// MD5s. In the S3 API those are with all keys but the ones that the store manages itself (AES256); OBS
// documents the same of every encryption.
func opaqueETags(h http.Header) bool {
	if firstHeader(h, amzCustomer, obsCustomer, obsEncryption) != "" {
		return true
	}
	kind := h.Get(amzEncryption)
	return kind != "" && (kind != "AES256" || h.Get("Server") == "OBS")
}
