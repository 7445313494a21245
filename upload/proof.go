package upload

import "crypto/md5"

// Encrypter is a Bucket that may encrypt with keys of which its ETags then tell nothing, although they can have
// the form of an MD5: with keys of a key management service, or with the customer's.
type Encrypter interface {
	// OpaqueETags reports whether an answer to Begin, PutPart or CopyPart has said so by now.
	OpaqueETags() bool
}

// opaque reports whether a bucket has said that its ETags tell nothing.
func opaque(bucket any) bool {
	e, ok := bucket.(Encrypter)
	return ok && e.OpaqueETags()
}

// opaque reports whether the ETags of this upload are known to tell nothing.
func (s *sender) opaque() bool { return s.unverified.Load() || opaque(s.Store) }

// unproven notes that an ETag is not what it would be if the store's ETags were MD5s.
func (s *sender) unproven() {
	if !s.unverified.Swap(true) {
		s.tell("The store's ETags are no MD5s, as with some kinds of encryption: only sizes are compared, an interrupted run is resumed on this machine only, and --verify proves what the object holds.")
	}
}

// disproves reports whether an ETag says that the store has other bytes than those whose MD5 is want.
func disproves(etag, want string, opaque bool) bool {
	return etag != want && isMD5(etag) && !opaque
}

// isMD5 reports whether an ETag has the form of an MD5. With server-side encryption some stores
// return something else.
func isMD5(etag string) bool {
	if len(etag) != 2*md5.Size {
		return false
	}
	for _, c := range []byte(etag) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
