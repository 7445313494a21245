package upload

import (
	"crypto/md5"
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
	for n := int64(zeroStep); n <= zerosSize; n += zeroStep {
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
