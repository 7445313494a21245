package upload

import (
	"bytes"
	"crypto/md5"
	"encoding"
	"hash"
	"os"
	"testing"
)

// Every known state is that of so many zeros, and sums between two of them, at them and behind the last are right.
func TestZeroSums(t *testing.T) {
	want := map[int64][md5.Size]byte{}
	h := md5.New()
	zeros := make([]byte, 1<<20)
	var done int64
	write := func(n int64) {
		for ; n > 0; n -= int64(len(zeros)) {
			h.Write(zeros[:min(n, int64(len(zeros)))])
		}
	}
	note := func(n int64) {
		write(n - done)
		done = n
		want[n] = [md5.Size]byte(h.Sum(nil))
	}
	var lengths []int64
	for n := int64(zeroStep); n <= zerosSize; n += zeroStep { // larger ones: TestZeroStates
		switch n / zeroStep {
		case 1, 5, 16:
			lengths = append(lengths, n-4096, n, n+4096, n+8192)
			note(n - 4096)
		case 9:
			lengths = append(lengths, n+5)
		}
		note(n)
		other := md5.New()
		if got := resumeZeros(other, 0, n+7); got != n {
			t.Fatalf("%d zeros are known instead of %d", got, n)
		}
		if [md5.Size]byte(other.Sum(nil)) != want[n] {
			t.Errorf("the state after %d zeros is wrong", n)
		}
		switch n / zeroStep {
		case 1, 5, 16:
			note(n + 4096)
			note(n + 8192)
		case 9:
			note(n + 5)
		}
	}
	if got := resumeZeros(md5.New(), 2*zeroStep+1, 3*zeroStep-1); got != 2*zeroStep+1 {
		t.Errorf("a hash of more zeros goes back to %d", got)
	}
	got, err := zeroSums(t.Context(), lengths)
	if err != nil || len(got) != len(lengths) {
		t.Fatal(len(got), err)
	}
	for _, n := range lengths {
		if got[n] != want[n] {
			t.Errorf("the sum of %d zeros is %x, not %x", n, got[n], want[n])
		}
	}
}

// Each known state is that of the one before it and zeroStep zeros more.
func TestZeroStates(t *testing.T) {
	step := 21 // four of them: all take more than 5 s
	if os.Getenv("IMGFERRY_LONG") != "" {
		step = 1
	}
	state := func(h hash.Hash) []byte {
		b, err := h.(encoding.BinaryMarshaler).MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	zeros := make([]byte, 1<<20)
	for k := int64(zerosSize/zeroStep + 1); k <= int64(len(zeroStates)); k += int64(step) {
		before, after := md5.New(), md5.New()
		if a, b := resumeZeros(before, 0, (k-1)*zeroStep), resumeZeros(after, 0, k*zeroStep); a != (k-1)*zeroStep || b != k*zeroStep {
			t.Fatalf("state %d: %d and %d zeros are known", k, a, b)
		}
		for range zeroStep / len(zeros) {
			before.Write(zeros)
		}
		if !bytes.Equal(state(before), state(after)) {
			t.Errorf("the state after %d zeros is wrong", k*zeroStep)
		}
	}
}
