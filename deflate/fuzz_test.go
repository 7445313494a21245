package deflate

import (
	"bytes"
	"testing"
)

// FuzzRaw compresses p so many times over; choice says with which level and window.
func FuzzRaw(f *testing.F) {
	f.Add([]byte("abcabcabcabcabc"), uint16(3), uint8(0))
	f.Add(bytes.Repeat([]byte{0, 0, 1}, 400), uint16(500), uint8(10))
	f.Add([]byte("one, two, three, and then some more text"), uint16(63), uint8(20))
	var used [MaxWindowBits + 1][len(efforts)]*Encoder
	f.Fuzz(func(t *testing.T, p []byte, times uint16, choice uint8) {
		const windows = MaxWindowBits - MinWindowBits + 1
		bits, l := MinWindowBits+int(choice)%windows, allLevels[int(choice)/windows%len(allLevels)]
		src := bytes.Repeat(p, 1+int(times)%64)
		if used[bits][l] == nil {
			used[bits][l] = New(l, bits)
		}
		expectRoundTrip(t, used[bits][l], l, src)
	})
}
