package convert

import "fmt"

// Sparse says which blocks count as empty: those are left out of a target, or become holes.
type Sparse uint8

const (
	// SparseZeros takes for empty what the image's tables say is zero, and what is read as zeros.
	SparseZeros Sparse = iota
	// SparseHoles takes for empty what the tables say is zero, and never infers it from content.
	SparseHoles
	// SparseNone takes nothing for empty.
	SparseNone
)

var sparseNames = []string{"zeros", "holes", "none"}

// SparseNames returns what ParseSparse takes.
func SparseNames() []string { return append([]string(nil), sparseNames...) }

// String returns "zeros", "holes" or "none".
func (s Sparse) String() string { return sparseNames[s] }

// ParseSparse is the inverse of String.
func ParseSparse(s string) (Sparse, error) {
	for i, name := range sparseNames {
		if s == name {
			return Sparse(i), nil
		}
	}
	return 0, fmt.Errorf("%q is not a way to leave out zeros: use holes, zeros or none", s)
}
