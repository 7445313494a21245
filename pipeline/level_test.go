package pipeline

import (
	"io"
	"math/rand/v2"
	"runtime"
	"testing"

	"golang.org/x/sync/errgroup"

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
		{16, zvhd2.LevelDefault, true, 0, 3, 8},
		{16, zvhd2.LevelBest, false, 0, 5, 5},
		{16, zvhd2.LevelBest, false, 1 << 30, 5, 85},
		{16, zvhd2.LevelBest, false, 96 * mib, 1, 6},
		{16, zvhd2.LevelBest, false, 21 * mib, 1, 2},
		{2, zvhd2.LevelBest, false, 0, 2, 15},
		{1, zvhd2.LevelBetter, false, 0, 1, 22},
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

// An encoder takes as much memory as is counted for it, and no more.
func TestEncoderSize(t *testing.T) {
	const near = 1 << 20 // of what is in use, for the rest of the program
	block := blend()
	dst := make([]byte, 0, zvhd2.ChunkBound)
	for level, counted := range encoderSize {
		before := inUse()
		w, err := zvhd2.NewWriter(io.Discard, zvhd2.Options{OrigSize: 1 << 30, Level: zvhd2.Level(level)})
		if err != nil {
			t.Fatal(err)
		}
		for i := range int64(2) {
			if _, err := w.Encode(dst, i, block); err != nil {
				t.Fatal(err)
			}
		}
		if took := inUse() - before; took > counted+near || took < counted-near {
			t.Errorf("%v takes %d KiB, not the %d that are counted", zvhd2.Level(level), took>>10, counted>>10)
		}
		runtime.KeepAlive(w)
	}
}

// blend is a block that compresses somewhat.
func blend() []byte {
	block := make([]byte, zvhd2.BlockSize)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range block {
		if i%3 > 0 {
			block[i] = byte(random.Uint32()) & 15
		}
	}
	return block
}

// oneBlock is a disk of which each block is the same.
type oneBlock struct {
	random
	block []byte
}

func (o oneBlock) Size() int64 { return 1 << 30 }

func (o oneBlock) ReadAt(p []byte, off int64) (int, error) {
	return copy(p, o.block[off%int64(len(o.block)):]), nil
}

// Where the level changes, blocks are encoded anew beside the workers. That leaves no more encoders behind than
// memory is counted for.
func TestTurnsBoundEncoders(t *testing.T) {
	const workers = 1
	disk := oneBlock{block: blend()}
	p := Push{Disk: Disk{Image: disk}, AutoLevel: true}
	before := inUse()
	r, err := newRecorder(disk, disk.Size(), zvhd2.LevelDefault, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.turns = make(chan struct{}, workers)
	for level := range r.encoders {
		r.level.Store(uint32(level))
		var g errgroup.Group
		for range workers {
			g.Go(func() (err error) {
				dst := make([]byte, 0, r.MaxEncodedSize())
				for i := int64(0); i < 2 && err == nil; i++ {
					_, err = r.Encode(dst, i, disk.block)
				}
				return err
			})
		}
		g.Go(func() (err error) {
			for i := int64(0); i < 2 && err == nil; i++ {
				_, _, err = r.encode(i, zvhd2.Level(level))
			}
			return err
		})
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	most := workers * (p.tables() + encoderSize[zvhd2.LevelDefault])
	if took := inUse() - before; took > most+4<<20 || took < most-4<<20 {
		t.Errorf("%d MiB stay, not the %d that are counted", took>>20, most>>20)
	}
	runtime.KeepAlive(r)
}

// inUse is how much of the heap is in use, in bytes.
func inUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
