package objectstore

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
	"strings"

	"github.com/minio/crc64nvme"
)

// checksumPrefix begins the headers and trailers that carry checksums, in base64.
const checksumPrefix = "x-amz-checksum-"

// Types of the checksum of a multipart object, in x-amz-checksum-type.
const (
	fullObject = "FULL_OBJECT" // of all bytes, combined from the parts'
	composite  = "COMPOSITE"   // of the parts' checksums, with the number of parts behind it
)

// algorithm is a checksum that S3 knows.
type algorithm struct {
	name string // lower-case, as in header names
	make func() hash.Hash
	// poly is the reflected polynomial of a CRC, whose checksums can be combined; 0: no CRC.
	poly uint64
}

// algorithmOf returns an algorithm by its name in any case.
func algorithmOf(name string) (algorithm, bool) {
	a := algorithm{name: strings.ToLower(name)}
	switch a.name {
	case "crc32":
		a.make, a.poly = func() hash.Hash { return crc32.NewIEEE() }, crc32.IEEE
	case "crc32c":
		a.make, a.poly = func() hash.Hash { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) }, crc32.Castagnoli
	case "crc64nvme":
		a.make, a.poly = func() hash.Hash { return crc64nvme.New() }, 0x9a6c9329ac4bc9b5
	case "sha1":
		a.make = sha1.New
	case "sha256":
		a.make = sha256.New
	default:
		return a, false
	}
	return a, true
}

// decode reads a checksum as headers have it.
func (a algorithm) decode(value string) ([]byte, error) {
	p, err := base64.StdEncoding.DecodeString(value)
	if err != nil || len(p) != a.make().Size() {
		return nil, errInvalidRequest.because("The value of " + checksumPrefix + a.name + " is not valid")
	}
	return p, nil
}

// ofParts returns the checksum of an object made of parts that all have one of this algorithm, or
// "" if one has none.
func (a algorithm) ofParts(parts []*part, kind string) string {
	h := a.make()
	var crc uint64
	for _, p := range parts {
		sum, err := a.decode(p.Checksums[a.name])
		if err != nil {
			return ""
		}
		h.Write(sum)
		if a.poly != 0 {
			crc = a.combine(crc, a.number(sum), p.Size)
		}
	}
	switch {
	case kind != fullObject:
		return fmt.Sprintf("%s-%d", base64.StdEncoding.EncodeToString(h.Sum(nil)), len(parts))
	case a.poly == 0:
		return "" // a hash of the whole can't be had from hashes of its parts
	case h.Size() == 4:
		return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, uint32(crc)))
	}
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, crc))
}

// number is a CRC's value.
func (a algorithm) number(sum []byte) uint64 {
	if len(sum) == 4 {
		return uint64(binary.BigEndian.Uint32(sum))
	}
	return binary.BigEndian.Uint64(sum)
}

// combine returns the CRC of two byte strings, one after the other, from the CRC of each and the
// length of the second: first * x^(8*length) + second, modulo the polynomial.
func (a algorithm) combine(first, second uint64, length int64) uint64 {
	one := uint64(1) << (8*a.make().Size() - 1) // x^0, bits reflected
	power := a.multiply(one>>4, one>>4, one)    // x^8
	for n := length; n > 0; n >>= 1 {
		if n&1 != 0 {
			first = a.multiply(first, power, one)
		}
		power = a.multiply(power, power, one)
	}
	return first ^ second
}

// multiply returns x*y modulo the polynomial, in reflected bits.
func (a algorithm) multiply(x, y, one uint64) uint64 {
	var product uint64
	for bit := one; bit != 0; bit >>= 1 {
		if x&bit != 0 {
			product ^= y
		}
		carry := y & 1
		y >>= 1
		if carry != 0 {
			y ^= a.poly
		}
	}
	return product
}

// checksumType tells the types apart by how their values look.
func checksumType(value string) string {
	if strings.Contains(value, "-") {
		return composite
	}
	return fullObject
}
