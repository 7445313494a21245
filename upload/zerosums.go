package upload

import (
	"context"
	"crypto/md5"
	"encoding"
	"encoding/binary"
	"encoding/hex"
	"hash"
)

// zeroStep is the distance of zeroStates, in bytes: about 0.1 s of MD5.
const zeroStep = 64 << 20

// zeroStates are the states of an MD5 after each zeroStep of zeros, up to zerosSize: the words A to D of
// RFC 1321 as crypto/md5 marshals them. To hash 1 GiB takes longer than all other preparations.
var zeroStates = [zerosSize / zeroStep]string{
	"f797d816ccf93c586a154951b4e7b96c",
	"5ba291ab041b4d3e0162aa5332a8c5eb",
	"1fa602bc1a57bcf1193a2a202f0b38a5",
	"fc2a8d3bca31b9d9c68e258dbb341fdb",
	"f62f01509e07473a6b08bf166fd92c0c",
	"8051b9a76423760ef003129a77e7cbb0",
	"2ac64bfdd994336fd3b23561a95e91d7",
	"f0407588ae350ce476d7e5b6161dc26f",
	"d4c5887059dba0e308f43ac122f9338c",
	"2ba0877e1dc3bfadb272d1857ef3ed28",
	"9e83c533a4ac665d8214e2deff4d62b4",
	"813722995f830de4764b01d65ee56b49",
	"6ef9b2e0398b64fd9c502c3f6d6896a6",
	"d791db8b46e504d17b08edada75b3860",
	"57dcdc6b4c28be708c4b25fcf7c63ccd",
	"c0fb74d660e5541f75090577685bcce0",
}

// resumeZeros takes h, the MD5 of done zeros, forward to the last known state within n of them. It returns how
// many it is of then: done, where nothing is known, or this version of crypto/md5 marshals in another way.
func resumeZeros(h hash.Hash, done, n int64) int64 {
	k := min(n/zeroStep, int64(len(zeroStates)))
	if k*zeroStep <= done {
		return done
	}
	words, err := hex.DecodeString(zeroStates[k-1])
	if err != nil {
		return done
	}
	state := append([]byte("md5\x01"), words...)
	state = append(state, make([]byte, md5.BlockSize)...) // of an unfinished block there is nothing
	state = binary.BigEndian.AppendUint64(state, uint64(k*zeroStep))
	if u, ok := h.(encoding.BinaryUnmarshaler); !ok || u.UnmarshalBinary(state) != nil {
		return done
	}
	return k * zeroStep
}

// zeroSums returns the MD5 of each of the lengths of zeros, ascending, in bytes, in one pass.
func zeroSums(ctx context.Context, lengths []int64) (map[int64][md5.Size]byte, error) {
	sums := make(map[int64][md5.Size]byte, len(lengths))
	h := md5.New()
	var done int64
	var buf [64 << 10]byte
	for _, n := range lengths {
		for done = resumeZeros(h, done, n); done < n; {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			k := min(n-done, int64(len(buf)))
			h.Write(buf[:k])
			done += k
		}
		sums[n] = [md5.Size]byte(h.Sum(nil))
	}
	return sums, nil
}
