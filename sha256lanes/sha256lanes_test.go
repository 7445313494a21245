package sha256lanes_test

import (
	"crypto/sha256"
	"testing"

	"imgferry/sha256lanes"
)

// TestSum compares with crypto/sha256, whatever this processor does.
func TestSum(t *testing.T) {
	var messages [][]byte
	for n := range sha256lanes.Lanes + 1 {
		var sums [sha256lanes.Lanes][sha256.Size]byte
		sha256lanes.Sum(&sums, messages)
		for i, m := range messages {
			if want := sha256.Sum256(m); sums[i] != want {
				t.Errorf("%d messages: message %d: %x, not %x", n, i, sums[i], want)
			}
		}
		m := make([]byte, 100_000)
		for i := range m {
			m[i] = byte(i * (n + 1) >> 3)
		}
		messages = append(messages, m)
	}
	for what, messages := range map[string][][]byte{
		"too many":          messages,
		"different lengths": {make([]byte, 64), make([]byte, 63)},
	} {
		t.Run(what, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			sha256lanes.Sum(new([sha256lanes.Lanes][sha256.Size]byte), messages)
		})
	}
}
