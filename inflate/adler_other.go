//go:build !amd64

package inflate

// sumLanes is sumWords.
func sumLanes(p []byte) (sum, weighted uint64) { return sumWords(p) }
