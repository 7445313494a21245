package upload_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"testing"

	"imgferry/upload"
)

const (
	mib = 1 << 20
	gib = 1 << 30
	tib = 1 << 40
)

// worst is the largest ZVHD2 stream of a disk of size bytes: every block stored as it is.
func worst(size int64) int64 { return size/(2*mib)*upload.MaxChunk + mib }

func TestPlanStream(t *testing.T) {
	for _, c := range []struct {
		name              string
		worst, memory     int64
		partSize, buffers int64
	}{
		{"empty", 0, 0, 8 * mib, 22},
		{"small", worst(10 * gib), 0, 8 * mib, 22},
		{"100 GiB", worst(100 * gib), 0, 11 * mib, 17},
		{"1 TiB", worst(tib), 0, 111 * mib, 2},
		{"last of the smallest parts", 9500 * 8 * mib, 0, 8 * mib, 22},
		{"first of the next", 9500*8*mib + 1, 0, 9 * mib, 20},
		{"small budget", worst(10 * gib), 64 * mib, 8 * mib, 6},
		{"two fit just so", worst(100 * gib), 2 * (11*mib + upload.MaxChunk), 11 * mib, 2},
		{"1 TiB in the default, said", worst(tib), upload.DefaultMemory, 111 * mib, 2},
		{"a large budget", worst(tib), 1024 * mib, 111 * mib, 9},
		{"budget beyond all parts", worst(gib), 1 << 50, 8 * mib, 9500},
	} {
		p, err := upload.PlanStream(c.worst, 0, c.memory)
		want := upload.Plan{PartSize: c.partSize, BufferSize: c.partSize + upload.MaxChunk, Buffers: int(c.buffers)}
		if err != nil || p != want {
			t.Errorf("%s: %+v, %v, want %+v", c.name, p, err, want)
		}
	}
}

func TestPlanStreamRefuses(t *testing.T) {
	for _, c := range []struct {
		name          string
		worst, memory int64
		need          int64 // of a *MemoryError, 0 for another error
	}{
		{"small budget", worst(10 * gib), 16 * mib, 16*mib + 2*upload.MaxChunk},
		{"one byte short", worst(tib), 222*mib + 2*upload.MaxChunk - 1, 222*mib + 2*upload.MaxChunk},
		{"2 TiB in the default budget", worst(2 * tib), 0, 444*mib + 2*upload.MaxChunk},
		{"more than a store takes", math.MaxInt64, 1 << 62, 0},
		{"just more than a store takes", 9500 * (5*gib - upload.MaxChunk), 1 << 62, 0},
		{"negative", -1, 0, 0},
		{"negative memory", 1, -1, 0},
	} {
		_, err := upload.PlanStream(c.worst, 0, c.memory)
		var memory *upload.MemoryError
		if err == nil || errors.As(err, &memory) != (c.need != 0) || memory != nil && memory.Need != c.need {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestPlanRaw(t *testing.T) {
	for _, c := range []struct {
		size, partSize int64
		count          int
	}{
		{1, 8 * mib, 1},
		{8 * mib, 8 * mib, 1},
		{8*mib + 1, 8 * mib, 2},
		{9500 * 8 * mib, 8 * mib, 9500},
		{9500*8*mib + 1, 10 * mib, 7601},
		{tib, 112 * mib, 9363},
		{9500 * 5 * gib, 5 * gib, 9500},
	} {
		p, err := upload.PlanRaw(c.size, 0)
		if want := (upload.RawPlan{Size: c.size, PartSize: c.partSize, Count: c.count}); err != nil || p != want {
			t.Errorf("%d bytes: %+v, %v, want %+v", c.size, p, err, want)
		}
	}
	for _, size := range []int64{-1, 0, 9500*5*gib + 1, math.MaxInt64} {
		if p, err := upload.PlanRaw(size, 0); err == nil {
			t.Errorf("%d bytes: %+v", size, p)
		}
	}
}

func TestRawParts(t *testing.T) {
	data := testData(20*mib + 5)
	p, err := upload.PlanRaw(int64(len(data)), 0)
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	number := 0
	for part, err := range p.Parts(bytes.NewReader(data))(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		number++
		body, err := io.ReadAll(part.Body)
		if err != nil || part.Number != number || part.Size != int64(len(body)) || part.Buffered {
			t.Errorf("part %+v, %d bytes, %v", part, len(body), err)
		}
		all = append(all, body...)
	}
	if number != p.Count || !bytes.Equal(all, data) {
		t.Errorf("%d parts, %d bytes", number, len(all))
	}
}
