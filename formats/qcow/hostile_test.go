package qcow_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math"
	"strings"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/qcow"
)

func TestHostile(t *testing.T) {
	end := uint64(tinyData + tinyCount*tinyCluster)
	words := deflated(bytes.Repeat([]byte("word"), tinyCluster/4))
	all := formatstest.Files{Bytes: map[string][]byte{}, Formats: table}
	for _, c := range []struct {
		name  string
		image imageBytes
		class error
		text  string // part of the message
		late  bool   // the header is fine
	}{
		{"magic", tiny().u8(0, 'q'), formats.ErrCorrupt, "magic", false},
		{"version 2", tiny().u32(4, 2), formats.ErrUnsupported, "version 2", false},
		{"empty", nil, formats.ErrCorrupt, "within the header (at file offset 0)", false},
		{"ends in header", tiny()[:47], formats.ErrCorrupt, "within the header (at file offset 47)", false},
		{"clusters of 256", tiny().u8(32, 8), formats.ErrCorrupt, "cluster_bits is 8, must be 9 to 16 (at file offset 32)", false},
		{"clusters of 128 KiB", tiny().u8(32, 17), formats.ErrCorrupt, "cluster_bits is 17", false},
		{"clusters of 2^255", tiny().u8(32, 255), formats.ErrCorrupt, "cluster_bits is 255", false},
		{"L2 tables of 256", tiny().u8(33, 5), formats.ErrCorrupt, "l2_bits is 5, must be 6 to 13 (at file offset 33)", false},
		{"L2 tables of 128 KiB", tiny().u8(33, 14), formats.ErrCorrupt, "l2_bits is 14", false},
		{"L2 tables of 2^258", tiny().u8(33, 255), formats.ErrCorrupt, "l2_bits is 255", false},
		{"size 0", tiny().u64(24, 0), formats.ErrCorrupt, "virtual size is 0", false},
		{"size 1", tiny().u64(24, 1), formats.ErrCorrupt, "virtual size is 1", false},
		{"size 2^63", tiny().u64(24, 1<<63), formats.ErrCorrupt, "beyond 63 bits", false},
		{"size 2^64-1", tiny().u64(24, math.MaxUint64), formats.ErrCorrupt, "beyond 63 bits", false},
		{"size 2^63-1", tiny().u64(24, 1<<63-1), formats.ErrCorrupt, "of 2251799813685248 bytes reaches past", false},
		{"size beyond L1", tiny().u64(24, 378*64*512+1), formats.ErrCorrupt, "L1 table at 0x30 of 3032 bytes reaches past", false},
		{"AES", tiny().u32(36, 1), formats.ErrUnsupported, "encrypted (AES) (at file offset 36)", false},
		{"other cipher", tiny().u32(36, 2), formats.ErrUnsupported, "unknown method 2", false},
		{"L1 at 0", tiny().u64(40, 0), formats.ErrCorrupt, "L1 table at 0 lies in the header", false},
		{"L1 at the end", tiny().u64(40, end), formats.ErrCorrupt, "L1 table at 0xc00 of 8 bytes reaches past", false},
		{"L1 at 2^64", tiny().u64(40, math.MaxUint64-7), formats.ErrCorrupt, "reaches past", false},

		{"backing name too long", tiny().u64(8, tinyName).u32(16, 1024), formats.ErrCorrupt, "1024 bytes long", false},
		{"backing name of 4 GiB", tiny().u64(8, tinyName).u32(16, math.MaxUint32), formats.ErrCorrupt, "4294967295 bytes long", false},
		{"backing name past the end", tiny().u64(8, end-3).u32(16, 4), formats.ErrCorrupt, "reaches past the end", false},
		{"backing name at 2^64", tiny().u64(8, math.MaxUint64).u32(16, 4), formats.ErrCorrupt, "reaches past the end", false},
		{"json", tiny().backing(`json:{"driver":"raw"}`), formats.ErrNotAllowed, `"json:{\"driver\":\"raw\"}" is not the name of a file: it is that of a protocol (at file offset 300)`, false},
		{"protocol", tiny().backing("nbd:unix:/run/socket"), formats.ErrNotAllowed, "is not the name of a file", false},
		{"URL", tiny().backing("https://host/disk"), formats.ErrNotAllowed, "is not the name of a file", false},
		{"zero byte", tiny().backing("base\x00.raw"), formats.ErrNotAllowed, `"base\x00.raw" is not`, false},
		{"missing backing file", tiny().backing("base.raw"), fs.ErrNotExist, `backing file "base.raw"`, true},

		{"L2 table unaligned", tiny().u64(tinyL1, tinyL2+1), formats.ErrCorrupt, "the offset 0x201 in L1 entry 0 is not that of a sector (at file offset 48)", true},
		{"L2 table past the end", tiny().u64(tinyL1, end), formats.ErrCorrupt, "L1 entry 0 points past the end of the file", true},
		{"L2 table at 2^64", tiny().u64(tinyL1, 1<<64-512), formats.ErrCorrupt, "L1 entry 0 points past", true},
		{"L2 table cut", append(tiny().u64(tinyL1, end), make([]byte, 511)...), formats.ErrCorrupt, "L1 entry 0 points past", true},
		{"more L2 tables than room", tiny().u64(24, 7*tinyEntries*tinyCluster).share(7), formats.ErrCorrupt, "has 7 L2 tables, the file has room for 6 (at file offset 48)", true},

		{"data unaligned", tiny().u64(tinyL2+8, tinyData+1), formats.ErrCorrupt, "disk offset 512 is not that of a sector (at file offset 520)", true},
		{"data past the end", tiny().u64(tinyL2+8, end), formats.ErrCorrupt, "disk offset 512 points past the end of the file", true},
		{"data at 2^63", tiny().u64(tinyL2+8, 1<<63-512), formats.ErrCorrupt, "disk offset 512 points past", true},
		{"data cut", tiny()[:end-1], formats.ErrCorrupt, "disk offset 1536 points past", true},
		{"compressed, no bytes", tiny().u64(tinyL2, 1<<63|tinyData), formats.ErrCorrupt, "gives compressed data no bytes", true},
		{"compressed, past the end", tiny().u64(tinyL2, 1<<63|9<<54|(end-8)), formats.ErrCorrupt, "disk offset 0 points past", true},
		{"compressed, at 2^54", tiny().u64(tinyL2, math.MaxUint64), formats.ErrCorrupt, "disk offset 0 points past", true},
		{"compressed, noise", tiny().u64(tinyL2, 1<<63|500<<54|tinyData), formats.ErrCorrupt, "can't decompress a cluster", true},
		{"compressed, cut", tiny().packed(0, tinyData, words[:3], 9), formats.ErrCorrupt, "can't decompress a cluster: deflate data is cut short (at file offset 1024)", true},
		{"compressed, too little", tiny().packed(0, tinyData, deflated(make([]byte, 511)), 9), formats.ErrCorrupt, "less than a cluster", true},
		{"compressed, too much", tiny().packed(0, tinyData, deflated(make([]byte, 513)), 9), formats.ErrCorrupt, "longer than its block", true},
		{"compressed, a bomb", tiny().packed(0, tinyData, deflated(make([]byte, 200_000)), 9), formats.ErrCorrupt, "longer than its block", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			formatstest.CheckRefused(t, qcow.Format(), formatstest.NewSource(c.image), all, c.class, c.text, c.late)
		})
	}
}

// share lets n L1 entries name the same L2 table.
func (p imageBytes) share(n int) imageBytes {
	for i := range n {
		p.u64(tinyL1+8*i, tinyL2)
	}
	return p
}

// TestNotAllowed: without a resolver no name is followed.
func TestNotAllowed(t *testing.T) {
	_, err := formatstest.ReadAll(qcow.Format(), formatstest.NewSource(tiny().backing("/etc/shadow")), nil)
	if !errors.Is(err, formats.ErrNotAllowed) || !strings.Contains(err.Error(), `backing file "/etc/shadow"`) {
		t.Errorf("%v", err)
	}
}

// TestLargeL1: a table of 32 MiB is read, a larger one refused before there is memory for it.
func TestLargeL1(t *testing.T) {
	const entries = 32 << 20 / 8
	sparse := func(size int64, p imageBytes) formats.Source {
		return formatstest.NewSparseSource(size, formatstest.Piece{Data: p})
	}
	img, err := qcow.Format().Open(context.Background(), sparse(1<<40, tiny()[:tinyL1].u64(24, entries*64*512)), nil)
	if err != nil {
		t.Fatal(err)
	}
	img.Close()
	src := sparse(1<<40, tiny()[:tinyL1].u64(24, entries*64*512+1))
	if _, err := qcow.Format().Open(context.Background(), src, nil); !errors.Is(err, formats.ErrUnsupported) || !strings.Contains(err.Error(), "L1 table of 33554440 bytes") {
		t.Errorf("%v", err)
	}
	src = sparse(1<<50, tiny()[:tinyL1+8].u64(tinyL1, 0))
	if _, err := qcow.Format().Check(context.Background(), src, nil); !errors.Is(err, formats.ErrUnsupported) || !strings.Contains(err.Error(), "checking a file of") {
		t.Errorf("%v", err)
	}
	// Two passes: the second L2 table and its data lie beyond the first pass's 128 GiB.
	const far = 200 << 30
	src = sparse(256<<30, tiny().u64(24, 2*tinyEntries*tinyCluster).u64(tinyL1+8, far).u64(tinyL2, far))
	if list, _ := formatstest.Check(t, qcow.Format(), src); len(list) != 1 || list[0].Offset != tinyL2 && list[0].Offset != tinyL1+8 {
		t.Errorf("%+v", list)
	}
}
