// Package sha256lanes computes SHA-256 (FIPS 180-4) of several messages of the same length at once, in the lanes of
// vector registers: on processors that have those and no instructions for SHA-256, several times as fast as one
// message after the other.
//
// It is for blocks of a disk. It does not hash a message that comes in pieces; crypto/sha256 does.
package sha256lanes

import "crypto/sha256"

// Lanes is the most messages that Sum hashes at once.
const Lanes = 8

// Sum returns in sums the SHA-256 of each message. There are at most Lanes of them, and they have the same length:
// anything else is the caller's mistake, and panics. Where Parallel says no, it takes one message after the other.
func Sum(sums *[Lanes][sha256.Size]byte, messages [][]byte) {
	if len(messages) > Lanes {
		panic("sha256lanes: more messages than lanes")
	}
	for _, m := range messages {
		if len(m) != len(messages[0]) {
			panic("sha256lanes: messages of different lengths")
		}
	}
	if sumLanes(sums, messages) {
		return
	}
	for i, m := range messages {
		sums[i] = sha256.Sum256(m)
	}
}
