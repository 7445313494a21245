package pipeline

import (
	"runtime"
	"testing"

	"imgferry/formats"
	"imgferry/formats/zvhd2"
)

// buffers is a fixed load.
type buffers struct{ full, free, all, number int }

func (b buffers) Load() (full, free, all int) { return b.full, b.free, b.all }
func (b buffers) Number() int                 { return b.number }

func TestAutoLevel(t *testing.T) {
	run := func(b buffers, from zvhd2.Level, parts int) zvhd2.Level {
		var a autoLevel
		for range parts {
			b.number++
			from = a.next(from, b)
		}
		return from
	}
	slowLink, slowEncoder, even := buffers{full: 15, free: 1, all: 20}, buffers{full: 0, free: 16, all: 20}, buffers{full: 4, free: 6, all: 20}
	for _, c := range []struct {
		load  buffers
		parts int
		want  zvhd2.Level
	}{
		{slowLink, 4, zvhd2.LevelDefault},
		{slowLink, 5, zvhd2.LevelBetter},
		{slowLink, 100, zvhd2.LevelBest},
		{slowEncoder, 4, zvhd2.LevelDefault},
		{slowEncoder, 100, zvhd2.LevelFastest},
		{even, 100, zvhd2.LevelDefault},
	} {
		if got := run(c.load, zvhd2.LevelDefault, c.parts); got != c.want {
			t.Errorf("%+v: %v after %d parts", c.load, got, c.parts)
		}
	}
}

// random is an image that may be read in any order.
type random struct{ formats.Image }

func (random) Sequential() bool { return false }

// The tables of the highest level come out of the memory for part buffers, however many processors there are, and
// parts are of the same size: an upload of a machine with few is resumed on one with many.
func TestTablesOutOfBuffers(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	const mib = 1 << 20
	for _, c := range []struct {
		procs   int
		level   zvhd2.Level
		auto    bool
		memory  int64
		threads int
		buffers int
	}{
		{2, zvhd2.LevelDefault, false, 0, 2, 22},
		{16, zvhd2.LevelDefault, false, 0, 5, 22},
		{16, zvhd2.LevelDefault, true, 0, 4, 6},
		{16, zvhd2.LevelBest, false, 0, 5, 4},
		{16, zvhd2.LevelBest, false, 1 << 30, 5, 84},
		{16, zvhd2.LevelBest, false, 96 * mib, 1, 5},
		{16, zvhd2.LevelBest, false, 21 * mib, 1, 2},
		{2, zvhd2.LevelBest, false, 0, 2, 15},
		{1, zvhd2.LevelBetter, false, 0, 1, 21},
	} {
		runtime.GOMAXPROCS(c.procs)
		p := Push{Disk: Disk{Image: random{}, Format: "qcow2"}, Level: c.level, AutoLevel: c.auto, Memory: c.memory}
		plan, err := p.planStream(1<<30, 100)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.threads(plan); got != c.threads || plan.Buffers != c.buffers || plan.PartSize != 8*mib {
			t.Errorf("%+v: %d threads, %+v", c, got, plan)
		}
		least := int64(c.threads)*p.tables() + leastBuffers*plan.BufferSize
		if used := int64(c.threads)*p.tables() + int64(plan.Buffers)*plan.BufferSize; used > max(p.memory(), least) {
			t.Errorf("%+v: %d MiB", c, used/mib)
		}
	}
}
