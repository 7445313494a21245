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

// zeroStates are the states of an MD5 after each zeroStep of zeros, up to mostZeros: the words A to D of
// RFC 1321 as crypto/md5 marshals them. To hash 1 GiB takes longer than all other preparations.
var zeroStates = [mostZeros / zeroStep]string{
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
	"604df35b0d100100e598a09743dabf04",
	"dbc78b557a653cc5f083900c46b8a1ec",
	"1d37118d8a27c6d4b3c93af96f0f0714",
	"d2d32645fa1e5ba78e2cbd9df8010189",
	"f5e71af4651e520f4698db7f20ccfb2b",
	"3d65efa4aa02a74e2a373df3b0e4a5c7",
	"1710b45f336fbf361a7dd0cbea74f771",
	"190694742c34437ac2e30457b1cdc774",
	"6de5b1e1616a88e6a4b4633eb87bbe3b",
	"2c616ea4befe9479c2689865a5c48842",
	"7cdce9dff11b7e3b624094f2b59c0483",
	"e9b4c5b00090ec93dadae86de7599ac2",
	"ac1034e58ae9a7a5c6309cccd0086a6e",
	"624d0ea29811481306eb76ecb4f0adcf",
	"a88090206f56fdf13b7dccae74d04a5e",
	"706401ffbe0d3a36699330a2d762eaec",
	"cae4329bef5ebfbf28477ee0cb1b7699",
	"26575327a38181a584fa50e5edfe928f",
	"3e9fba2deddc67be0e57aed8f23cca79",
	"355c353b9a9f81137181ee11363d1a37",
	"fbb925a1fda2ace641fa5abe2e987281",
	"55577c2f3cb4254cd78045b6103bdbc0",
	"e539a65091bad83296b035f997d15c72",
	"6f087f116a6d8dee486838d7042f7e60",
	"22bda4260ab9353a461f5694fe6fd461",
	"9408925c711155376ae0924a3eb38a62",
	"035177fb8417d05344d8fb37eea29987",
	"d6a944b45caefb155aedef33c1549c74",
	"5e88a7d7f5dcbace512663e605e6c831",
	"6da729ae771d3b3d7460eb993ee04dcf",
	"fb2b50870bf9b13c986077a12e2af4b6",
	"1f265f71c1887f568b748e94d2686705",
	"6ea711f9f3c5ab59b8eff9e4389a875a",
	"220c7ee69079f972df88856524bb65f0",
	"50ce1ea987406be507fb2ee195cc4098",
	"60a968ee7dddbafd169b271f541c0438",
	"87d332bdcd638341be213ae682310f38",
	"5983316b26b3ae761c71d592bbd3937d",
	"28554a38f40703fb336a41f3295c1ec6",
	"7835ee577754a50d765422cd60c74270",
	"0d24db3c956ddce6d19ba17c73c41234",
	"3b321b3235cb9180fb342b25fe73518e",
	"74774f3ed0ddfbce0877030a6a1b5468",
	"7567ae580f47bd5540c06d47a6af148d",
	"7dd59106850f04c00a10df0052c70584",
	"ceef0db54374e4c4824edec9e03e3e3a",
	"5cea27a7b0bcda38ad0978c331336065",
	"bd2ded0aac54fc021857fcee61bb26ec",
	"569fa8dc4fc29377f6a53217404102b4",
	"9c50f68ba048c342cc740f35dc123d6e",
	"f0ee0e7573ed26eec83a8b242b7de4e6",
	"5a9ab43439acb7eb1fe113ccc41a39d6",
	"41e3dbaf92c6930b767e58e726bac4f7",
	"d001f4dd2c8bad154fb50c25f7a255e4",
	"8611f1c0ca0f07d37713c5c33ce1cec9",
	"629b5dc4610bf3a87a3272034c78613f",
	"b83901c4eec26306f754da562cc9fbaa",
	"f9908e9f3d11eaf94afe50e46b2b0885",
	"dceacb6f27d04943cb712f1b848d50d4",
	"433f6d581aa3e3d4e0768dd24c0bb2d7",
	"cc4dce6c415837f32b6af6b8457edfcc",
	"c3b9aa9f82640de1f6ea716b49077890",
	"6953a0d3ef6157fb18798efaffde45c3",
	"7f8da2586a208add1760ecaa6717f461",
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
