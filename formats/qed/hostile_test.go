package qed_test

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"strings"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/qed"
)

func TestHostile(t *testing.T) {
	end := uint64(tinyData + tinyCount*tinyCluster)
	all := formatstest.Files{Bytes: map[string][]byte{}, Formats: table}
	for _, c := range []struct {
		name  string
		image imageBytes
		class error
		text  string // part of the message
		late  bool   // the header is fine
	}{
		{"magic", tiny().str(0, "QEX"), formats.ErrCorrupt, "magic", false},
		{"empty", nil, formats.ErrCorrupt, "within the header (at file offset 0)", false},
		{"ends in header", tiny()[:63], formats.ErrCorrupt, "within the header (at file offset 63)", false},
		{"clusters of 2 KiB", tiny().u32(4, 2048), formats.ErrCorrupt, "cluster_size is 2048", false},
		{"clusters of 128 MiB", tiny().u32(4, 1<<27), formats.ErrCorrupt, "cluster_size is 134217728", false},
		{"clusters of 0", tiny().u32(4, 0), formats.ErrCorrupt, "cluster_size is 0", false},
		{"clusters of 5000", tiny().u32(4, 5000), formats.ErrCorrupt, "cluster_size is 5000", false},
		{"no table", tiny().u32(8, 0), formats.ErrCorrupt, "table_size is 0", false},
		{"tables of 3 clusters", tiny().u32(8, 3), formats.ErrCorrupt, "table_size is 3", false},
		{"tables of 32 clusters", tiny().u32(8, 32), formats.ErrCorrupt, "table_size is 32", false},
		{"tables of 4 Gi clusters", tiny().u32(8, math.MaxUint32), formats.ErrCorrupt, "table_size is 4294967295", false},
		{"no header", tiny().u32(12, 0), formats.ErrCorrupt, "header_size is 0", false},
		{"header over the L1 table", tiny().u32(12, 2), formats.ErrCorrupt, "L1 table at 0x1000", false},
		{"endless header", tiny().u32(12, math.MaxUint32), formats.ErrCorrupt, "L1 table at 0x1000", false},
		{"size 2^63", tiny().u64(48, 1<<63), formats.ErrCorrupt, "beyond 63 bits", false},
		{"size 2^63-512", tiny().u64(48, 1<<63-512), formats.ErrCorrupt, "beyond what the tables cover", false},
		{"size beyond the tables", tiny().u64(48, tinyEntries*tinyEntries*4096+512), formats.ErrCorrupt, "beyond what the tables cover", false},
		{"size not of sectors", tiny().u64(48, 4097), formats.ErrCorrupt, "not a multiple of 512", false},
		{"L1 at 0", tiny().u64(40, 0), formats.ErrCorrupt, "L1 table at 0x0", false},
		{"L1 unaligned", tiny().u64(40, 4096+512), formats.ErrCorrupt, "L1 table at 0x1200", false},
		{"L1 at the end", tiny().u64(40, end), formats.ErrCorrupt, "does not lie in the file", false},
		{"L1 at 2^64", tiny().u64(40, 1<<64-4096), formats.ErrCorrupt, "does not lie in the file", false},
		{"L1 cut", tiny().u64(40, tinyData+3*4096), formats.ErrCorrupt, "does not lie in the file", false},
		{"L1 of 1 GiB, not there", tiny().u32(4, 1<<26).u32(8, 16).u64(40, 1<<26), formats.ErrCorrupt, "of 1073741824 bytes does not lie", false},

		{"unknown features", tiny().u64(16, 1<<3|1<<63), formats.ErrUnsupported, "unknown feature bit 3, bit 63 (at file offset 16)", false},
		{"all features", tiny().u64(16, math.MaxUint64), formats.ErrUnsupported, "unknown feature bit 3, bit 4", false},

		{"backing name of 4 GiB", tiny().u64(16, 1).u32(56, 100).u32(60, math.MaxUint32), formats.ErrCorrupt, "4294967295 bytes long", false},
		{"backing name of 1024 bytes", tiny().u64(16, 1).u32(56, 100).u32(60, 1024), formats.ErrCorrupt, "1024 bytes long", false},
		{"backing name beyond the header", tiny().u64(16, 1).u32(56, 4090).u32(60, 7), formats.ErrCorrupt, "outside the header's clusters", false},
		{"backing name at 4 GiB", tiny().u64(16, 1).u32(56, math.MaxUint32).u32(60, 1), formats.ErrCorrupt, "outside the header's clusters", false},
		{"json", tiny().backing(`json:{"driver":"raw"}`, 0), formats.ErrNotAllowed, `"json:{\"driver\":\"raw\"}" is not the name of a file`, false},
		{"protocol", tiny().backing("nbd:unix:/run/socket", 4), formats.ErrNotAllowed, "is not the name of a file", false},
		{"URL", tiny().backing("https://host/disk", 0), formats.ErrNotAllowed, "is not the name of a file", false},
		{"zero byte", tiny().backing("base\x00.raw", 0), formats.ErrNotAllowed, `"base\x00.raw" is not`, false},
		{"missing backing file", tiny().backing("base.raw", 4), fs.ErrNotExist, `backing file "base.raw"`, true},

		{"L2 table at 1", tiny().u64(tinyL1, 1), formats.ErrCorrupt, "L1 entry 0: the L2 table at 0x1 does not lie in the file's clusters (at file offset 4096)", true},
		{"L2 table unaligned", tiny().u64(tinyL1, tinyL2+512), formats.ErrCorrupt, "L1 entry 0", true},
		{"L2 table in the header", tiny().u64(tinyL1, 8), formats.ErrCorrupt, "L1 entry 0", true},
		{"L2 table at the end", tiny().u64(tinyL1, end), formats.ErrCorrupt, "L1 entry 0", true},
		{"L2 table at 2^64", tiny().u64(tinyL1, 1<<64-4096), formats.ErrCorrupt, "L1 entry 0", true},
		{"L2 table cut", append(tiny().u64(tinyL1, end), make([]byte, 8191)...), formats.ErrCorrupt, "L1 entry 0", true},
		{"more L2 tables than clusters", tiny().u64(48, 5*tinyEntries*4096).share(5), formats.ErrCorrupt, "has 5 L2 tables, the file has room for 4 (at file offset 4096)", true},

		{"data unaligned", tiny().u64(tinyL2, tinyData+1), formats.ErrCorrupt, "disk offset 0: 0x5001 is not in the file's clusters (at file offset 12288)", true},
		{"data at 2", tiny().u64(tinyL2+8, 2), formats.ErrCorrupt, "disk offset 4096: 0x2 is not", true},
		{"data past the end", tiny().u64(tinyL2+8, end), formats.ErrCorrupt, "disk offset 4096", true},
		{"data at 2^63", tiny().u64(tinyL2+8, 1<<63), formats.ErrCorrupt, "disk offset 4096", true},
		{"data at 2^64", tiny().u64(tinyL2+8, 1<<64-4096), formats.ErrCorrupt, "disk offset 4096", true},
		{"data cut", tiny()[:end-1], formats.ErrCorrupt, "disk offset 12288", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			formatstest.CheckRefused(t, qed.Format(), formatstest.NewSource(c.image), all, c.class, c.text, c.late)
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
	_, err := formatstest.ReadAll(qed.Format(), formatstest.NewSource(tiny().backing("/etc/shadow", 4)), nil)
	if !errors.Is(err, formats.ErrNotAllowed) || !strings.Contains(err.Error(), `backing file "/etc/shadow"`) {
		t.Errorf("%v", err)
	}
}

// TestLargest: the largest tables and sizes that there can be don't overflow. The file is not there,
// but for its header.
func TestLargest(t *testing.T) {
	for _, c := range []struct{ cluster, table uint32 }{{1 << 26, 16}, {1 << 26, 1}, {1 << 20, 16}, {1 << 12, 16}} {
		entries := uint64(c.cluster) * uint64(c.table) / 8
		size := uint64(1<<63 - 512)
		if cover := uint64(c.cluster) * entries; size/cover >= entries {
			size = cover * entries
		}
		p := tiny()[:64].u32(4, c.cluster).u32(8, c.table).u64(40, uint64(c.cluster)).u64(48, size)
		img, err := qed.Format().Open(context.Background(), formatstest.NewSparseSource(int64(c.cluster)*int64(c.table+1), formatstest.Piece{Data: p}), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer img.Close()
		n := 0
		for e, err := range img.Extents(context.Background()) {
			if n++; err != nil || e.Length != img.Size() || !e.Absent {
				t.Errorf("%+v: %+v, %v", c, e, err)
			}
		}
		b := make([]byte, 10)
		if k, err := img.ReadAt(b, img.Size()-10); n != 1 || k != 10 || err != nil {
			t.Errorf("%+v: %d runs, last bytes: %d, %v", c, n, k, err)
		}
	}
}
