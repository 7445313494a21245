package obs

import (
	"fmt"
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
